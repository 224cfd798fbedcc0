//! `stolos run`: start a program as a workload of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use api::local::{Register, Registered, Status, WorkloadState};
use reqwest::Method;
use uuid::Uuid;

use crate::agent_socket::AgentSocket;
use crate::args::Run;
use crate::failure::{C, Failure, Outcome, reason};
use crate::launch::{Cgroup, ProgramError, find_program, name_of};
use crate::output::printable;
use crate::process;

/// The longest that the agent waits for a workload's place.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub(crate) fn run(args: Run) -> Outcome {
    let [command, arguments @ ..] = args.command.as_slice() else {
        return Err(Failure::usage(C::USAGE, "there is no program to run", "write it after `--`"));
    };
    let program = find_program(command, std::env::var_os("PATH").as_deref()).map_err(|why| missing(command, &why))?;
    let labels = unique(&args.labels)?;
    let wait_ms = milliseconds(args.wait)?;
    let agent = AgentSocket::connectable(&args.socket.socket)?;
    let uid = Uuid::now_v7().to_string();
    let name = args.name.clone().unwrap_or_else(|| name_of(&program));
    let register = Register {
        keep: false,
        uid: uid.clone(),
        name,
        kind: "process".to_owned(),
        namespace: args.namespace.clone().unwrap_or_default(),
        labels,
        cgroup: PathBuf::new(),
        wait_ms,
    };
    let cgroup = process::ask(become_workload(&agent, register))?;
    let error = Command::new(&program).arg0(command).args(arguments).exec();
    process::ask(undo(&agent, &uid, cgroup))?;
    Err(Failure::new(
        C::PROGRAM_MISSING,
        format!("cannot start {}: {}", program.display(), reason(&error)),
        "check that it is a program for this machine",
    ))
}

fn missing(command: &OsString, why: &ProgramError) -> Failure {
    let command = command.to_string_lossy();
    match why {
        ProgramError::Missing => Failure::new(
            C::PROGRAM_MISSING,
            format!("there is no program `{command}`"),
            "check the spelling, or give the whole path; nothing was started",
        ),
        ProgramError::NotExecutable(path) => Failure::new(
            C::PROGRAM_MISSING,
            format!("{} is not executable", path.display()),
            "make it executable, or name the program that reads it; nothing was started",
        ),
    }
}

fn unique(labels: &[(String, String)]) -> Result<BTreeMap<String, String>, Failure> {
    let mut map = BTreeMap::new();
    for (key, value) in labels {
        if map.insert(key.clone(), value.clone()).is_some_and(|other| other != *value) {
            return Err(Failure::usage(
                C::USAGE,
                format!("the label `{key}` is given twice"),
                "a workload has one value for a key; take one out",
            ));
        }
    }
    Ok(map)
}

fn milliseconds(wait: Duration) -> Result<u64, Failure> {
    let bounded = u64::try_from(wait.as_millis()).ok().filter(|_| wait <= WAIT_MAX);
    bounded
        .ok_or_else(|| Failure::usage(C::USAGE, "--wait is more than a minute", "the program starts after that anyway"))
}

/// Enters a cgroup of its own, registers, and waits until the workload is placed.
///
/// Errors leave nothing behind but this process.
async fn become_workload(agent: &AgentSocket, register: Register) -> Result<Cgroup, Failure> {
    let status: Status = agent.get(&["status"]).await?;
    let root = status.cgroup_root;
    // The end of a version 7 UUID is random; its beginning is the time.
    let tail = &register.uid[register.uid.len() - 12..];
    let directory = OsString::from(format!("stolos-run-{}-{tail}", register.name));
    let cgroup = Cgroup::enter(&root, &directory).map_err(|error| no_cgroup(&root, &error))?;
    let register = Register { cgroup: cgroup.path().to_owned(), ..register };
    match place(agent, &register).await {
        Ok(()) => Ok(cgroup),
        Err(failure) => {
            undo(agent, &register.uid, cgroup).await?;
            Err(failure)
        }
    }
}

/// Registers; the agent answers when the fleet knows the workload, or says why it does not yet.
async fn place(agent: &AgentSocket, register: &Register) -> Outcome {
    let wait = Duration::from_millis(register.wait_ms);
    let answer: Registered = agent.send_and_wait(Method::POST, &["workloads"], register, wait).await?;
    let workload = answer.workload;
    let reason = workload.reason.as_deref().map(|reason| printable(reason.trim_end_matches('.')));
    match workload.state {
        WorkloadState::Active => {
            answer.warning.into_iter().for_each(|why| warn(&workload.name, Some(why), register.wait_ms));
        }
        WorkloadState::Pending => warn(&workload.name, answer.warning.or(reason), register.wait_ms),
        WorkloadState::Refused | WorkloadState::Revoked => {
            return Err(Failure::new(
                workload.code.as_deref().unwrap_or(C::WORKLOAD_REFUSED),
                reason.unwrap_or_else(|| format!("{} is not accepted", workload.name)),
                "nothing was started; mend that and start it again",
            ));
        }
    }
    Ok(())
}

fn warn(name: &str, why: Option<String>, wait_ms: u64) {
    let why =
        why.map(|why| printable(why.trim_end_matches('.'))).unwrap_or_else(|| format!("no place after {wait_ms} ms"));
    let text = format!(
        "warning[P1006]: {name} starts, but peers refuse it until the fleet knows it: {why}\n  \
         help: `stolos agent status` says whether the agent reaches its server\n"
    );
    // Where standard error is gone there is nobody to warn.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn no_cgroup(root: &Path, error: &std::io::Error) -> Failure {
    let mend = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "run it as root; nothing was started",
        _ => "the agent's --cgroup-root must be a cgroup v2 directory of this machine; nothing was started",
    };
    Failure::new(C::CGROUP_REFUSED, format!("no cgroup below {}: {}", root.display(), reason(error)), mend)
}

/// Takes the workload back. Best effort: the agent removes what is empty anyway.
async fn undo(agent: &AgentSocket, uid: &str, cgroup: Cgroup) -> Outcome {
    let _ = agent.delete(&["workloads", uid]).await;
    cgroup.leave();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_has_one_value() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(unique(&[pair("a", "1"), pair("b", "2"), pair("a", "1")]).unwrap().len(), 2);
        assert!(unique(&[pair("a", "1"), pair("a", "2")]).unwrap_err().to_string().contains("`a` is given twice"));
    }
}
