//! Errors as RFC 9457 problem documents with stable codes: the one place that maps a code to an HTTP status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What can go wrong at the API, with the status it is answered by. The code's page is in `policy::code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProblemKind {
    /// Stable code, `A3xxx`.
    pub code: &'static str,
    /// A few words, the same for every occurrence.
    pub title: &'static str,
    /// HTTP status.
    pub status: u16,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

macro_rules! kinds {
    ($($name:ident = $code:literal, $status:literal, $retryable:literal, $title:literal;)*) => {
        $(
            #[doc = concat!("`", $code, "`: ", $title, ".")]
            pub const $name: ProblemKind =
                ProblemKind { code: $code, title: $title, status: $status, retryable: $retryable };
        )*
        /// Every kind of problem, in the order of the codes.
        pub const ALL: &[ProblemKind] = &[$($name,)*];
    };
}

kinds! {
    BAD_REQUEST = "A3001", 400, false, "the request cannot be read";
    BODY_TOO_LARGE = "A3002", 413, false, "the request is too large";
    NO_SUCH_ROUTE = "A3003", 404, false, "no such address";
    UNSUPPORTED_VERB = "A3004", 405, false, "the kind does not offer this";
    UNAUTHENTICATED = "A3005", 401, false, "a client certificate is needed";
    FORBIDDEN = "A3006", 403, false, "this certificate may not do that";
    NOT_FOUND = "A3007", 404, false, "there is no such object";
    ALREADY_EXISTS = "A3008", 409, false, "the object exists already";
    CONFLICT = "A3009", 409, false, "somebody changed the object meanwhile";
    INVALID = "A3010", 422, false, "the documents have problems";
    NOT_HONOURED = "A3011", 422, false, "a field that nothing enforces yet";
    NAMESPACE_MISSING = "A3012", 422, false, "the namespace does not exist";
    NAMESPACE_IN_USE = "A3013", 409, false, "the namespace is not empty";
    LOOSENS = "A3014", 422, false, "a child may not loosen its parent's posture";
    TOKEN_LIMIT = "A3015", 429, true, "too many open join tokens";
    AMBIGUOUS = "A3016", 409, false, "the name fits more than one workload";
    CLUSTER_IN_USE = "A3017", 409, false, "the cluster still has nodes";
    REALM_CONFLICT = "A3018", 409, false, "the address is claimed by another Service";
    START_OVER = "A3019", 410, true, "the change feed no longer reaches back that far";
    INTERNAL = "A3020", 500, true, "the server failed";
    UNAVAILABLE = "A3021", 503, true, "the server is starting or stopping";
    REFUSED_BY_OTHER_SIDE = "A3022", 403, false, "the other side's policies are not yours to read";
    COVERS_FLEET = "A3023", 422, false, "an external network covers addresses of the fleet";
    RANGE = "A3024", 422, false, "a value is out of its range";
    ROOT_FIXED = "A3025", 409, false, "the root namespace cannot be deleted";
    ROTATION_BUSY = "A3026", 409, true, "a key rotation is still under way";
    CONTINUE_UNKNOWN = "A3027", 422, false, "the continue token is none of this list";
    CONTINUE_EXPIRED = "A3028", 410, true, "the continue token has expired";
    PRECONDITION_FAILED = "A3029", 412, false, "the object is not at the revision of If-Match";
    UNSUPPORTED_MEDIA = "A3030", 415, false, "the body is of a media type that is not taken here";
    TOO_DEEP = "A3031", 400, false, "the body is nested too deeply";
    BAD_LABEL_SELECTOR = "A3032", 422, false, "the label selector cannot be read";
    OUTCOME_UNKNOWN = "A3050", 500, false, "it is not known whether the write took place";
    STANDBY = "A3051", 503, true, "this server stands by";
}

/// Finds a kind of problem by its code.
pub fn find(code: &str) -> Option<&'static ProblemKind> {
    ALL.iter().find(|kind| kind.code == code)
}

/// What a failing request is answered with.
///
/// Shape: RFC 9457, `type` is `urn:stolos:code:A3007`. Secrets never appear in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{detail}")]
pub struct Problem {
    /// `urn:stolos:code:CODE`.
    #[serde(rename = "type")]
    pub urn: String,
    /// A few words, the same for every occurrence of the code.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// One sentence: what is wrong here and what to do.
    pub detail: String,
    /// Stable code, for `stolos explain code`.
    pub code: String,
    /// Whether the same request may succeed later.
    #[serde(default)]
    pub retryable: bool,
    /// What is wrong with the documents sent, every problem at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

/// One thing wrong with a document, or worth knowing about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// Whether the document is refused for it.
    #[serde(default)]
    pub severity: Severity,
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// What to write instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The object, as in `Policy /acme:web-to-db`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The field, as in `spec.from[0]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The file, as the client called it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Line in the file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in the line, from 1, in characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The text of the place with a mark under it, ready to print.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
}

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document is refused.
    #[default]
    Error,
    /// The document is taken; somebody should look at it.
    Warning,
}

impl Problem {
    /// A problem of a kind with its own sentence.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            urn: format!("urn:stolos:code:{}", kind.code),
            title: kind.title.to_owned(),
            status: kind.status,
            detail: detail.into(),
            code: kind.code.to_owned(),
            retryable: kind.retryable,
            diagnostics: Vec::new(),
        }
    }

    /// Documents with problems: the first error's code is the answer's sentence.
    pub fn invalid(diagnostics: Vec<Diagnostic>) -> Self {
        let errors: Vec<&Diagnostic> = diagnostics.iter().filter(|d| d.severity == Severity::Error).collect();
        let detail = match errors.as_slice() {
            [one] => one.sentence(),
            many => format!("{} problems, nothing was written", many.len()),
        };
        let kind = match errors.as_slice() {
            [one] => find(&one.code).copied().unwrap_or(INVALID),
            _ => INVALID,
        };
        Self { diagnostics, ..Self::new(kind, detail) }
    }

    /// Whether it is of this kind.
    pub fn is(&self, kind: ProblemKind) -> bool {
        self.code == kind.code
    }
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), ..Self::default() }
    }

    /// Something that does not stop the write.
    pub fn warning(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// Says which field.
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Says what to write instead.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Says which object.
    pub fn of(mut self, object: impl ToString) -> Self {
        self.object = Some(object.to_string());
        self
    }

    /// Object, field and message in one sentence.
    pub fn sentence(&self) -> String {
        let mut text = String::new();
        for part in [&self.object, &self.field].into_iter().flatten() {
            text.push_str(part);
            text.push_str(": ");
        }
        text.push_str(&self.message);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_has_a_page_of_the_same_title() {
        let pages: Vec<_> = policy::code::api::ALL.iter().map(|page| (page.id, page.title)).collect();
        assert_eq!(ALL.iter().map(|kind| (kind.code, kind.title)).collect::<Vec<_>>(), pages);
    }

    #[test]
    fn one_diagnostic_with_an_api_code_gives_the_answer_its_status() {
        let one = Problem::invalid(vec![Diagnostic::error("A3014", "loosens").of("Namespace /a").at("spec")]);
        assert_eq!((one.status, one.detail.as_str()), (422, "Namespace /a: spec: loosens"));
        assert_eq!(one.code, "A3014");
        let two = vec![Diagnostic::error("P2002", "x"), Diagnostic::error("P2004", "y")];
        assert_eq!(Problem::invalid(two).code, "A3010");
    }
}
