//! The local socket: HTTP and JSON for root alone, types in [`api::local`].
//!
//! Translates and waits; the node decides. Every connection's owner is checked although the file's mode says 0600 already.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::local::{
    Detach, Doctor, Enforcement, LabelChange, Labelled, Refusal, Register, Registered, Status, Workload, Workloads,
};
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{FromRequest, Path as UrlPath, Request as HttpRequest, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, patch, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use policy::code::agent as code;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::node::Request;
use crate::view::{View, WorkloadView};
use crate::{doctor, metrics};

/// Requests that wait for the node.
pub(crate) const REQUESTS_MAX: usize = 64;
/// The longest a request may wait for the fleet.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How long taking enforcement off or putting it back may take.
const SWITCH: Duration = Duration::from_secs(10);

/// What handlers need.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub requests: mpsc::Sender<Request>,
    pub view: watch::Receiver<Arc<View>>,
    pub config: Arc<Config>,
}

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent answers there.
    #[error("another agent listens at {0}")]
    Taken(String),
    /// The path cannot be made.
    #[error("cannot listen at {0}")]
    Path(String, #[source] std::io::Error),
}

/// Listens at `path`, readable by root alone. A socket that nobody serves any more is replaced.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    use std::os::unix::fs::PermissionsExt as _;
    let named = || path.display().to_string();
    let failed = |error| SocketError::Path(named(), error);
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(SocketError::Taken(named()));
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    // Made under a name that nobody knows and closed before it gets its own, so that there is no moment in which others
    // could connect.
    let hidden = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&hidden);
    let listener = UnixListener::bind(&hidden).map_err(failed)?;
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    std::fs::rename(&hidden, path).map_err(failed)?;
    Ok(listener)
}

/// Serves until cancelled.
pub(crate) async fn serve(listener: UnixListener, door: Door, cancel: CancellationToken) {
    let service = router(door).into_make_service_with_connect_info::<Caller>();
    let served = axum::serve(listener, service).with_graceful_shutdown(cancel.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "local socket failed");
    }
}

pub(crate) fn router(door: Door) -> Router {
    Router::new()
        .route("/v1/workloads", post(register).get(workloads))
        .route("/v1/workloads/{uid}", delete(remove))
        .route("/v1/workloads/{workload}/labels", patch(label))
        .route("/v1/detach", post(detach))
        .route("/v1/attach", post(attach))
        .route("/v1/status", get(status))
        .route("/v1/doctor", get(examine))
        .route("/metrics", get(measure))
        .fallback(|| async { Refused::of(&code::REQUEST_INVALID, "there is nothing at this path") })
        .layer(axum::middleware::from_fn(root_only))
        .with_state(door)
}

/// Who is at the other end, as the kernel says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub uid: Option<u32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self { uid: stream.io().peer_cred().ok().map(|credentials| credentials.uid()) }
    }
}

async fn root_only(ConnectInfo(caller): ConnectInfo<Caller>, request: HttpRequest, next: Next) -> Response {
    match caller.uid {
        Some(0) => next.run(request).await,
        _ => Refused::of(&code::CALLER_NOT_ROOT, "only root may talk to the agent").into_response(),
    }
}

/// A refusal as an answer.
#[derive(Debug)]
struct Refused(Refusal);

impl Refused {
    fn of(code: &policy::code::Code, message: &str) -> Self {
        Self(crate::node::refusal(code, message.to_owned()))
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self.0.code.as_str() {
            id if id == code::WORKLOAD_UNKNOWN.id => StatusCode::NOT_FOUND,
            id if id == code::WORKLOAD_CONFLICT.id => StatusCode::CONFLICT,
            id if id == code::CALLER_NOT_ROOT.id => StatusCode::FORBIDDEN,
            id if id == code::STOPPING.id => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        (status, Json(self.0)).into_response()
    }
}

/// A JSON body; what is wrong with it comes back as a refusal.
struct Body<T>(T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: HttpRequest, state: &S) -> Result<Self, Refused> {
        let body = Json::<T>::from_request(request, state).await;
        body.map(|Json(value)| Self(value)).map_err(|error| Refused::of(&code::REQUEST_INVALID, &error.body_text()))
    }
}

impl Door {
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Request) -> Result<T, Refused> {
        let stopping = || Refused::of(&code::STOPPING, "the agent is stopping");
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| stopping())?;
        Ok(answered.await.map_err(|_| stopping())??)
    }

    /// Waits until the view is as wanted; `false`: it was not in time.
    async fn wait(&self, limit: Duration, wanted: impl FnMut(&Arc<View>) -> bool) -> bool {
        let mut view = self.view.clone();
        let waited = tokio::time::timeout(limit.min(WAIT_MAX), view.wait_for(wanted)).await;
        matches!(waited, Ok(Ok(_)))
    }

    fn workload(&self, uid: &str) -> Result<WorkloadView, Refused> {
        let gone = || Refused::of(&code::WORKLOAD_UNKNOWN, "the workload has ended meanwhile");
        self.view.borrow().workloads.get(uid).cloned().ok_or_else(gone)
    }

    /// Waits until a workload is as wanted or has ended.
    async fn settle(&self, uid: &str, wait_ms: u64, mut wanted: impl FnMut(&WorkloadView) -> bool) -> bool {
        let limit = Duration::from_millis(wait_ms);
        self.wait(limit, |view| view.workloads.get(uid).is_none_or(&mut wanted)).await
    }
}

async fn register(State(door): State<Door>, Body(register): Body<Register>) -> Result<Json<Registered>, Refused> {
    let wait_ms = register.wait_ms;
    let uid = door.ask(|answer| Request::Register(register, answer)).await?;
    // The node publishes after it has answered; a workload that is not in the view yet has not ended.
    door.wait(SWITCH, |view| view.workloads.contains_key(&uid)).await;
    let settled = door.settle(&uid, wait_ms, WorkloadView::is_settled).await;
    let workload = door.workload(&uid)?.workload;
    let why = || workload.reason.clone().unwrap_or_else(|| "not every node has confirmed it yet".to_owned());
    let warning = (!settled).then(|| format!("peers refuse {} until they know it: {}", workload.name, why()));
    Ok(Json(Registered { warning, workload }))
}

async fn remove(State(door): State<Door>, UrlPath(uid): UrlPath<String>) -> Result<StatusCode, Refused> {
    door.ask(|answer| Request::Remove(uid, answer)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn workloads(State(door): State<Door>) -> Json<Workloads> {
    Json(Workloads { workloads: listed(&door.view.borrow()) })
}

fn listed(view: &View) -> Vec<Workload> {
    let mut workloads: Vec<Workload> = view.workloads.values().map(|found| found.workload.clone()).collect();
    workloads.sort_by(|a, b| (a.kind == "host", &a.name).cmp(&(b.kind == "host", &b.name)));
    workloads
}

async fn label(
    State(door): State<Door>,
    UrlPath(workload): UrlPath<String>,
    Body(change): Body<LabelChange>,
) -> Result<Json<Labelled>, Refused> {
    let wait_ms = change.wait_ms;
    let asked = change.clone();
    let uid = door.ask(|answer| Request::Label(workload, change, answer)).await?;
    let told = |found: &WorkloadView| {
        let labels = &found.workload.labels;
        asked.set.iter().all(|(key, value)| labels.get(key) == Some(value))
            && asked.remove.iter().all(|key| asked.set.contains_key(key) || !labels.contains_key(key))
    };
    door.settle(&uid, wait_ms, |found| told(found) && (found.labels_live() || found.workload.code.is_some())).await;
    let found = door.workload(&uid)?;
    let live = told(&found) && found.labels_live();
    let why = || match &found.workload.reason {
        Some(reason) => reason.clone(),
        None => "not every node has confirmed it in time".to_owned(),
    };
    let warning = (!live).then(|| format!("not in force yet: {}", why()));
    Ok(Json(Labelled { workload: found.workload, live, warning }))
}

async fn detach(State(door): State<Door>, Body(detach): Body<Detach>) -> Result<Json<Enforcement>, Refused> {
    door.ask(|answer| Request::Detach(detach, answer)).await?;
    switched(&door, false).await
}

async fn attach(State(door): State<Door>) -> Result<Json<Enforcement>, Refused> {
    door.ask(Request::Attach).await?;
    switched(&door, true).await
}

async fn switched(door: &Door, attached: bool) -> Result<Json<Enforcement>, Refused> {
    if door.wait(SWITCH, |view| view.enforcement.attached == attached).await {
        return Ok(Json(door.view.borrow().enforcement.clone()));
    }
    let view = door.view.borrow();
    let alarm = view.alarms.iter().find(|alarm| alarm.code == code::PROGRAMS_REFUSED.id);
    let message = alarm.map_or("the kernel did not answer in time", |alarm| alarm.message.as_str());
    Err(Refused::of(&code::PROGRAMS_REFUSED, message))
}

async fn status(State(door): State<Door>) -> Json<Status> {
    let view = Arc::clone(&door.view.borrow());
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: view.node.clone(),
        server: view.server.clone(),
        enforcement: view.enforcement.clone(),
        revision: view.revision,
        holds_until: view.holds_until_unix_s.map(crate::node::time),
        clock: view.clock.clone(),
        workloads: listed(&view),
        features: view.features.clone(),
        denials: view.counted.denials.total(),
        alarms: view.alarms.iter().cloned().collect(),
        not_captured: view.not_captured.clone(),
        cgroup_root: door.config.cgroup_root.clone(),
    })
}

async fn examine(State(door): State<Door>) -> Result<Json<Doctor>, Refused> {
    let (view, config) = (Arc::clone(&door.view.borrow()), Arc::clone(&door.config));
    let checks = tokio::task::spawn_blocking(move || doctor::checks(&config, &view)).await;
    checks.map(|checks| Json(Doctor { checks })).map_err(|_| Refused::of(&code::STOPPING, "the agent is stopping"))
}

async fn measure(State(door): State<Door>) -> Response {
    let text = metrics::text(&door.view.borrow());
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

#[cfg(test)]
mod tests;
