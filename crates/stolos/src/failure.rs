//! How a verb fails: one sentence, what to do, a stable code, an exit status.
//!
//! Everything a person can get wrong ends here. Sentences never contain secrets, and they never quote what a peer sent
//! without bounds.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// What ends a verb without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A problem with a sentence; printed on standard error.
    Problem(Box<Problem>),
    /// Diagnostics were printed already (a manifest's problems); the last line of the answer.
    Reported(String),
    /// Nobody reads standard output any more: no message, as if SIGPIPE had ended us.
    ClosedPipe,
}

/// One problem as people see it.
#[derive(Debug)]
pub(crate) struct Problem {
    /// Stable code, `C6xxx` or what the server or the agent answered.
    pub(crate) code: String,
    /// What is wrong, one sentence without a full stop.
    pub(crate) what: String,
    /// What to do; empty when `what` says it.
    pub(crate) mend: String,
    /// Exit status: 2 for what was typed, else 1.
    pub(crate) status: u8,
}

/// A verb's outcome.
pub(crate) type Outcome = Result<(), Failure>;

/// Exit status of a failure.
const FAILED: u8 = 1;
/// Exit status of a wrong command line.
const USAGE: u8 = 2;
/// What a shell reports for a program ended by SIGPIPE.
const SIGPIPE: u8 = 128 + 13;

impl Failure {
    /// Something did not work.
    pub(crate) fn new(code: &str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Problem(Box::new(Problem { code: code.to_owned(), what: what.into(), mend: mend.into(), status: FAILED }))
    }

    /// Something was typed wrong.
    pub(crate) fn usage(code: &str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Problem(Box::new(Problem { code: code.to_owned(), what: what.into(), mend: mend.into(), status: USAGE }))
    }

    /// A file that cannot be read.
    pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self::new(
            C::FILE_UNREADABLE,
            format!("cannot read {}: {}", path.display(), reason(error)),
            match error.kind() {
                io::ErrorKind::NotFound => "check the path",
                io::ErrorKind::PermissionDenied => "run it as a user who may read the file",
                _ => "",
            },
        )
    }

    /// A file that cannot be written.
    pub(crate) fn unwritable(path: &Path, error: &io::Error) -> Self {
        Self::new(
            C::FILE_UNWRITABLE,
            format!("cannot write {}: {}", path.display(), reason(error)),
            "check that its directory exists, that you may write there and that there is room",
        )
    }

    /// The exit status that belongs to it.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Problem(problem) => problem.status,
            Self::Reported(_) => FAILED,
            Self::ClosedPipe => SIGPIPE,
        })
    }
}

/// The operating system's words for an error, without Rust's `(os error N)`.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::from("unknown error"),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problem(problem) => {
                write!(f, "error[{}]: {}", problem.code, problem.what)?;
                for (row, line) in problem.mend.lines().enumerate() {
                    write!(f, "\n  {} {line}", if row == 0 { "help:" } else { "     " })?;
                }
                write!(f, "\n  more: stolos explain code {}", problem.code)
            }
            Self::Reported(last) => f.write_str(last),
            Self::ClosedPipe => Ok(()),
        }
    }
}

impl From<io::Error> for Failure {
    /// For writes to standard output only; files have [`Failure::unreadable`] and [`Failure::unwritable`].
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::new(
                C::FILE_UNWRITABLE,
                format!("cannot write to standard output: {}", reason(&error)),
                "check where the output goes and that there is room",
            ),
        }
    }
}

macro_rules! codes {
    ($($name:ident = $id:literal;)*) => {
        /// The codes this crate gives; their pages are in `policy::code::cli`.
        pub(crate) struct C;

        impl C {
            $(pub(crate) const $name: &'static str = $id;)*
            /// Every one of them.
            #[cfg(test)]
            pub(crate) const ALL: &'static [&'static str] = &[$($id,)*];
        }
    };
}

codes! {
    USAGE = "C6001";
    CONFIG_MISSING = "C6002";
    CONFIG_BAD = "C6003";
    SERVER_UNREACHABLE = "C6004";
    SERVER_UNTRUSTED = "C6005";
    CREDENTIAL_REFUSED = "C6006";
    CLOCK_SKEW = "C6007";
    KIND_UNKNOWN = "C6008";
    FILE_UNREADABLE = "C6009";
    FILE_UNWRITABLE = "C6010";
    AGENT_UNREACHABLE = "C6011";
    ROOT_NEEDED = "C6012";
    ANSWER_STRANGE = "C6013";
    PROGRAM_MISSING = "C6014";
    CGROUP_REFUSED = "C6015";
    WORKLOAD_REFUSED = "C6016";
    CODE_UNKNOWN = "C6017";
    FIELD_UNKNOWN = "C6018";
    UNCONFIRMED = "C6019";
    CHECK_FAILED = "C6020";
    NAME_UNKNOWN = "C6021";
    DIRECTORY_UNFIT = "C6022";
    ADDRESS_TAKEN = "C6023";
    RESOURCES = "C6024";
    TOKEN_UNREADABLE = "C6025";
    CONTEXT_UNKNOWN = "C6026";
    EDITOR_FAILED = "C6027";
    WAIT_ENDED = "C6028";
    TRAIL_BROKEN = "C6029";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_what_to_do_and_where_to_read_on() {
        let failure = Failure::new("C6004", "the server does not answer", "start it\nor fix the address");
        assert_eq!(
            failure.to_string(),
            "error[C6004]: the server does not answer\n  help: start it\n        or fix the address\n  \
             more: stolos explain code C6004"
        );
    }

    #[test]
    fn reasons_read_like_the_rest_of_a_sentence() {
        assert_eq!(reason(&io::Error::from_raw_os_error(2)), "no such file or directory");
        assert_eq!(reason(&io::Error::other("boom")), "boom");
    }

    #[test]
    fn a_closed_pipe_says_nothing() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(matches!(failure, Failure::ClosedPipe));
        assert_eq!(failure.to_string(), "");
    }
}
