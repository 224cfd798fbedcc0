//! Optimistic concurrency: ETag out, If-Match in. Both are the object's revision, which reports of the system leave alone.

use api::object::{Object, ObjectKey, Revision};
use api::problem;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::answer::{Answer, Refused};

/// What If-Match asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfMatch {
    /// Nothing.
    Absent,
    /// The object is there.
    There,
    /// The object is at this revision.
    At(Revision),
    /// An empty list of revisions: the object can be at none of them (RFC 9110, 13.1.1).
    AtNone,
}

impl IfMatch {
    /// Reads the header.
    pub(super) fn of(headers: &HeaderMap) -> Answer<Self> {
        let Some(value) = headers.get(header::IF_MATCH) else { return Ok(Self::Absent) };
        let text = value.to_str().unwrap_or_default().trim();
        let quoted = || text.strip_prefix('"')?.strip_suffix('"');
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.len() <= 18 && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        };
        match (text, quoted().and_then(number)) {
            ("*", _) => Ok(Self::There),
            ("", _) if value.is_empty() => Ok(Self::AtNone),
            (_, Some(revision)) => Ok(Self::At(Revision(revision))),
            _ => {
                let detail = "If-Match takes one ETag, as in `\"42\"`, or `*`; this is neither";
                Err(Refused::new(problem::BAD_REQUEST, detail))
            }
        }
    }

    /// Whether what is stored is as asked.
    pub(super) fn check(self, key: &ObjectKey, stored: Option<&Object>) -> Answer<()> {
        let now = stored.map(|object| object.metadata.revision.unwrap_or_default());
        let detail = match (self, now) {
            (Self::Absent, _) | (Self::There, Some(_)) => return Ok(()),
            (Self::At(wanted), Some(now)) if wanted == now => return Ok(()),
            (_, None) => format!("there is no {key}"),
            (Self::AtNone, Some(now)) => format!("If-Match names no revision, and {key} is at {now}"),
            (Self::At(wanted), Some(now)) => {
                format!(
                    "{key} was changed meanwhile: If-Match asks for revision {wanted}, it is at {now}; read it again"
                )
            }
        };
        Err(Refused::new(problem::PRECONDITION_FAILED, detail))
    }
}

/// One object as an answer, with its ETag.
pub(super) struct Tagged(pub(super) Object);

impl IntoResponse for Tagged {
    fn into_response(self) -> Response {
        let revision = self.0.metadata.revision.unwrap_or_default();
        let mut answer = axum::Json(self.0).into_response();
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\"")) {
            answer.headers_mut().insert(header::ETAG, tag);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_a_revision_in_quotes() {
        let of = |text: &str| IfMatch::of(&HeaderMap::from_iter([(header::IF_MATCH, text.parse().unwrap())]));
        assert_eq!(of("\"42\""), Ok(IfMatch::At(Revision(42))));
        assert_eq!(of("*"), Ok(IfMatch::There));
        assert_eq!(of(""), Ok(IfMatch::AtNone));
        assert_eq!(IfMatch::of(&HeaderMap::new()), Ok(IfMatch::Absent));
        for bad in ["42", "\"\"", "\"+4\"", "W/\"4\"", "\"4\", \"5\"", "\"99999999999999999999\"", "\""] {
            assert_eq!(of(bad).unwrap_err().0.code, problem::BAD_REQUEST.code, "{bad}");
        }
    }
}
