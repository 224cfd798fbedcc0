//! Answers and refusals as HTTP, and who may ask.

use api::problem::{self, Problem, ProblemKind};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use store::StoreError;
use store::document::WriteError;
use tracing::error;

use crate::authn::{Admin, Caller, PeerAddress};

/// A problem document as an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused(pub Box<Problem>);

/// What handlers give back.
pub type Answer<T> = Result<T, Refused>;

impl Refused {
    /// A problem of a kind with its own sentence.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(kind, detail)))
    }

    /// Something that is not the caller's fault: the cause goes to the log, not to the caller.
    pub fn internal(cause: &dyn std::error::Error) -> Self {
        let mut chain = cause.to_string();
        let mut source = cause.source();
        while let Some(inner) = source {
            chain.push_str(": ");
            chain.push_str(&inner.to_string());
            source = inner.source();
        }
        error!(cause = chain, "request failed");
        Self::new(problem::INTERNAL, "the server failed; its log has the cause. Nothing was acknowledged")
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        if let StoreError::LeaseLost(_) = error {
            let detail = "another server serves this database by now; nothing was written, ask that one";
            return Self::new(problem::STANDBY, detail);
        }
        let refused = Self::internal(&error);
        if error.is_unknown() {
            let detail = "the database was lost during the commit: all of this was written, or nothing; read it again";
            Self::new(problem::OUTCOME_UNKNOWN, detail)
        } else if error.is_temporary() {
            Self::new(problem::UNAVAILABLE, "the database cannot be reached now; nothing was written, try again")
        } else {
            refused
        }
    }
}

impl From<WriteError> for Refused {
    fn from(error: WriteError) -> Self {
        if let WriteError::Store(cause) = error {
            return cause.into();
        }
        let kind = match &error {
            WriteError::Store(_) => problem::INTERNAL,
            WriteError::Exists(_) => problem::ALREADY_EXISTS,
            WriteError::Changed { now: None, .. } => problem::NOT_FOUND,
            WriteError::Changed { .. } | WriteError::OtherUid(_) => problem::CONFLICT,
        };
        let detail = match &error {
            WriteError::Changed { key, expected, now: Some(now) } => {
                format!("{key} was changed meanwhile: you have revision {expected}, it is at {now}; read it again")
            }
            WriteError::Changed { key, .. } => format!("there is no {key}"),
            WriteError::OtherUid(key) => format!("{key} is another object now: its uid differs; read it again"),
            _ => error.to_string(),
        };
        Self::new(kind, detail)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = (status, axum::Json(&*self.0)).into_response();
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::MEDIA_TYPE));
        answer
    }
}

/// Extracts a proved operator; everybody else is refused.
impl<S: Sync> FromRequestParts<S> for Admin {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        match parts.extensions.get::<Caller>() {
            Some(Caller::Admin(admin)) => {
                let from = parts.extensions.get::<PeerAddress>().map(|peer| peer.0.ip().to_canonical());
                Ok(admin.clone().asking_from(from))
            }
            Some(Caller::Node(node)) => Err(Refused::new(
                problem::FORBIDDEN,
                format!("this is node {}'s certificate, which serves its agent only; use an operator's", node.id()),
            )),
            Some(Caller::Anonymous) | None => Err(Refused::new(
                problem::UNAUTHENTICATED,
                "no client certificate was presented; use the admin.yaml that `stolos server init` wrote",
            )),
        }
    }
}
