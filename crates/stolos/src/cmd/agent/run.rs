//! `stolos agent run`: the node agent.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use agent::config::{Config, Source};
use agent::sync::enrol::EnrolError;
use agent::{Agent, BindError};
use api::token::{JoinToken, TokenError};

use crate::args::AgentRun;
use crate::failure::{C, Failure, Outcome};
use crate::output::printable;
use crate::{launch, process};

pub(crate) fn run(args: AgentRun) -> Outcome {
    process::start_log("info")?;
    let config = config(args)?;
    process::serve(async {
        let stop = process::stop_on_signal()?;
        let bound = Agent::bind(config).await.map_err(|error| bind_failed(&error))?;
        bound.run(stop).await;
        Ok(())
    })
}

fn config(args: AgentRun) -> Result<Config, Failure> {
    let source = match args.state {
        Some(file) => Source::File(file),
        None => Source::Server { join_token: args.join_token_file.as_deref().map(join_token).transpose()?.flatten() },
    };
    let features = args.force_off.iter().map(|word| word.parse().map_err(|_| unknown_feature(word)));
    let config = Config {
        force_off: features.collect::<Result<_, _>>()?,
        data: args.data,
        cgroup_root: args.cgroup_root.map_or_else(cgroup_mount, Ok)?,
        bpf_pin: args.bpf_pin,
        socket: args.socket.socket,
        declared: args.workloads,
        protect_host: args.protect_host,
        hostname: args.node_name,
        node_addresses: (!args.node_addresses.is_empty()).then_some(args.node_addresses),
        ..Config::new(source)
    };
    Ok(config)
}

/// Where cgroup v2 is mounted: everything on the machine is below it.
pub(crate) fn cgroup_mount() -> Result<PathBuf, Failure> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    launch::first_cgroup_mount(&mounts).map(Path::to_owned).ok_or_else(|| {
        Failure::new(
            C::CGROUP_REFUSED,
            "cgroup v2 is not mounted on this machine",
            "mount it (`mount -t cgroup2 cgroup2 /sys/fs/cgroup`), or name a directory of it with --cgroup-root",
        )
    })
}

/// The token in a file; `None` where the file is gone, as it may be once the node has enrolled.
fn join_token(file: &Path) -> Result<Option<JoinToken>, Failure> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::unreadable(file, &error)),
    };
    text.parse().map(Some).map_err(|error: TokenError| {
        Failure::new(
            C::TOKEN_UNREADABLE,
            match error {
                TokenError::NotAToken => format!("{} holds no join token", file.display()),
                other => format!("{}: {other}", file.display()),
            },
            "make one with `stolos cluster join-token CLUSTER --out FILE`",
        )
    })
}

fn unknown_feature(word: &str) -> Failure {
    Failure::usage(C::USAGE, format!("there is no kernel feature `{word}`"), "`stolos doctor` lists them")
}

/// Why the agent did not start, with its own code and what that says to do.
pub(crate) fn bind_failed(error: &BindError) -> Failure {
    let code = match error {
        BindError::Enrol(cause) => match enrolment(cause) {
            Some(failure) => return failure,
            None => error.code(),
        },
        _ => error.code(),
    };
    Failure::new(code.id, printable(&error.to_string()), code.mend)
}

/// The server's own code for not enrolling, which says more than that it failed.
fn enrolment(error: &EnrolError) -> Option<Failure> {
    let EnrolError::Refused(words) = error else { return None };
    let (code, sentence) = words.split_once(": ")?;
    let code = policy::code::find(code)?;
    Some(Failure::new(code.id, format!("this node could not be enrolled: {}", printable(sentence)), code.mend))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_reason_not_to_enrol_keeps_its_code() {
        let spent = BindError::Enrol(EnrolError::Refused("E4002: the join token was used already".to_owned()));
        let told = bind_failed(&spent).to_string();
        assert!(told.starts_with("error[E4002]: this node could not be enrolled: the join token was used"), "{told}");
        let strange = BindError::Enrol(EnrolError::Refused("no".to_owned()));
        assert!(bind_failed(&strange).to_string().starts_with("error[K5019]"), "{}", bind_failed(&strange));
    }

    #[test]
    fn a_token_file_that_is_gone_is_no_error_and_a_damaged_one_is() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(join_token(&directory.path().join("gone")).unwrap(), None);
        let file = directory.path().join("token");
        fs::write(&file, "hello").unwrap();
        let told = join_token(&file).unwrap_err().to_string();
        assert!(told.starts_with("error[C6025]") && !told.contains("hello"), "{told}");
    }
}
