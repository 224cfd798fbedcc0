//! The agent of this machine, over its root-only Unix socket: HTTP with JSON, types from `api::local`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::local::{Workload, Workloads};
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::answer;
use crate::failure::{C, Failure, Outcome, reason};

/// How long the agent may take for one answer.
const ANSWER_TIME: Duration = Duration::from_secs(15);

/// A client for one agent. Making it opens nothing; [`AgentSocket::connectable`] has looked whether somebody listens.
pub(crate) struct AgentSocket {
    path: PathBuf,
    client: Client,
}

impl AgentSocket {
    /// A client for the agent behind `path`, which must accept a connection now.
    ///
    /// Errors: no socket, nobody behind it, not root.
    pub(crate) fn connectable(path: &Path) -> Result<Self, Failure> {
        std::os::unix::net::UnixStream::connect(path).map_err(|error| unreachable(path, &error))?;
        let client = Client::builder()
            .unix_socket(path)
            .no_proxy()
            // Nothing here is encrypted, and a machine without ca-certificates has no roots to load.
            .tls_certs_only([])
            .timeout(ANSWER_TIME)
            .build()
            .map_err(|error| broken(path, &error))?;
        Ok(Self { path: path.to_owned(), client })
    }

    /// `GET /v1/…`; `path` is the segments after `/v1`.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Failure> {
        let response = self.ask(Method::GET, path, None::<&()>).await?;
        answer::read(response, "the agent").await
    }

    /// `DELETE /v1/…`
    pub(crate) async fn delete(&self, path: &[&str]) -> Outcome {
        let response = self.ask(Method::DELETE, path, None::<&()>).await?;
        answer::read::<serde_json::Value>(response, "the agent").await.map(|_| ())
    }

    /// `GET /metrics`, as text.
    pub(crate) async fn metrics(&self) -> Result<String, Failure> {
        let response = self.client.get("http://agent/metrics").send().await;
        let response = response.and_then(reqwest::Response::error_for_status);
        match response {
            Ok(response) => response.text().await.map_err(|error| broken(&self.path, &error)),
            Err(error) => Err(broken(&self.path, &error)),
        }
    }

    /// Every workload of this machine.
    pub(crate) async fn workloads(&self) -> Result<Vec<Workload>, Failure> {
        self.get::<Workloads>(&["workloads"]).await.map(|list| list.workloads)
    }

    /// Sends `body`, and reads the answer as `T`.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let response = self.ask(method, path, Some(body)).await?;
        answer::read(response, "the agent").await
    }

    /// As [`AgentSocket::send`], for what may take `wait` at the agent before it answers.
    pub(crate) async fn send_and_wait<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
        wait: Duration,
    ) -> Result<T, Failure> {
        let request = self.request(method, path).json(body).timeout(wait + ANSWER_TIME);
        let response = request.send().await.map_err(|error| broken(&self.path, &error))?;
        answer::read(response, "the agent").await
    }

    async fn ask(&self, method: Method, path: &[&str], body: Option<&impl Serialize>) -> Result<Response, Failure> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.map_err(|error| broken(&self.path, &error))
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let mut url = Url::parse("http://agent/v1").unwrap_or_else(|error| panic!("BUG: a constant URL: {error}"));
        if let Ok(mut segments) = url.path_segments_mut() {
            // What was typed is one segment, whatever is in it.
            segments.extend(path);
        }
        self.client.request(method, url)
    }
}

fn unreachable(path: &Path, error: &io::Error) -> Failure {
    let socket = path.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::new(
            C::ROOT_NEEDED,
            format!("only root may talk to the agent at {socket}"),
            "run it as root, for example with sudo",
        ),
        _ => Failure::new(
            C::AGENT_UNREACHABLE,
            format!("no agent listens at {socket} ({})", reason(error)),
            "start it with `stolos agent run` (or `systemctl start stolos-agent`), or name its socket with --socket",
        ),
    }
}

fn broken(path: &Path, error: &reqwest::Error) -> Failure {
    let why = if error.is_timeout() { "it took too long" } else { "the connection broke" };
    Failure::new(
        C::AGENT_UNREACHABLE,
        format!("the agent at {} did not answer: {why}", path.display()),
        "look at its log (`journalctl -u stolos-agent`) and at `stolos doctor`",
    )
}
