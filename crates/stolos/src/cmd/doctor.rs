//! `stolos doctor`: is this machine fit, and does enforcement work on it?
//!
//! The agent looks, because it has the rights and the programs. Without one, what can be seen from outside is checked,
//! so that the answer says why there is none.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use api::local::{Check, CheckResult, Doctor as Report, Status};
use serde::Serialize;

use crate::agent_socket::AgentSocket;
use crate::args::Doctor;
use crate::failure::{C, Failure, Outcome};
use crate::output::{Columns, Ink, Screen, printable};
use crate::process;

/// What support needs. Holds no keys, tokens or certificates: everything in it comes from answers that have none.
#[derive(Serialize)]
struct Bundle<'a> {
    made: jiff::Timestamp,
    command_line_version: &'static str,
    kernel: String,
    distribution: String,
    mounts: Vec<String>,
    doctor: &'a Report,
    status: Option<Status>,
    metrics: Option<String>,
}

pub(crate) fn run(args: Doctor) -> Outcome {
    let (report, status, metrics) = process::ask(examine(&args.socket.socket))?;
    if let Some(file) = &args.bundle {
        write_bundle(file, &report, status, metrics)?;
    }
    let mut screen = Screen::stdout(args.format.output);
    screen.answer(&report, show)?;
    if let (Some(file), true) = (&args.bundle, screen.is_text()) {
        screen.line(format!("\nWrote {} (no keys, no tokens).", file.display()))?;
    }
    match report.checks.iter().filter(|check| check.result == CheckResult::Fail).count() {
        0 => Ok(()),
        failed => Err(Failure::new(
            C::CHECK_FAILED,
            format!("{failed} of {} checks failed", report.checks.len()),
            "each says what to do; run `stolos doctor` again afterwards",
        )),
    }
}

async fn examine(socket: &Path) -> Result<(Report, Option<Status>, Option<String>), Failure> {
    let agent = match AgentSocket::connectable(socket) {
        Ok(agent) => agent,
        Err(failure) => return Ok((without_agent(&failure), None, None)),
    };
    let report = agent.get(&["doctor"]).await?;
    // The rest is for the bundle; an agent that cannot give it still has its report.
    Ok((report, agent.get(&["status"]).await.ok(), agent.metrics().await.ok()))
}

fn without_agent(failure: &Failure) -> Report {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut checks = vec![
        check(
            "root",
            rustix::process::geteuid().is_root(),
            "this is root",
            "this is not root",
            C::ROOT_NEEDED,
            "run it with sudo",
        ),
        mounted(&mounts, "cgroup2", "mount -t cgroup2 cgroup2 /sys/fs/cgroup"),
        mounted(&mounts, "bpf", "mount -t bpf bpf /sys/fs/bpf"),
        kernel(&release()),
    ];
    if let Failure::Problem(problem) = failure {
        checks.push(Check {
            name: "agent".to_owned(),
            result: CheckResult::Fail,
            message: problem.what.clone(),
            code: Some(problem.code.clone()),
            mend: Some(problem.mend.clone()),
        });
    }
    Report { checks }
}

fn check(name: &str, well: bool, good: &str, bad: &str, code: &str, mend: &str) -> Check {
    Check {
        name: name.to_owned(),
        result: if well { CheckResult::Ok } else { CheckResult::Fail },
        message: if well { good } else { bad }.to_owned(),
        code: (!well).then(|| code.to_owned()),
        mend: (!well).then(|| mend.to_owned()),
    }
}

fn mounted(mounts: &str, kind: &str, mend: &str) -> Check {
    let marker = format!(" - {kind} ");
    let point = mounts.lines().find(|line| line.contains(&marker)).and_then(|line| line.split(' ').nth(4));
    let good = format!("{kind} is mounted at {}", point.unwrap_or_default());
    check(&format!("{kind}-mount"), point.is_some(), &good, &format!("{kind} is not mounted"), C::CHECK_FAILED, mend)
}

/// 5.15 is the oldest kernel that has what the programs need; what it really gives, the agent finds by trial.
fn kernel(release: &str) -> Check {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let good = format!("the kernel is {release}");
    let bad = format!("the kernel is {release}, and 5.15 or later is needed");
    check("kernel", version >= (5, 15), &good, &bad, C::CHECK_FAILED, "boot a newer kernel")
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn write_bundle(file: &Path, report: &Report, status: Option<Status>, metrics: Option<String>) -> Outcome {
    let os = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let distribution = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let ours = |line: &&str| line.contains(" - cgroup2 ") || line.contains(" - bpf ");
    let bundle = Bundle {
        made: jiff::Timestamp::now(),
        command_line_version: env!("CARGO_PKG_VERSION"),
        kernel: release(),
        distribution: distribution.trim_matches('"').to_owned(),
        mounts: mounts.lines().filter(ours).map(str::to_owned).collect(),
        doctor: report,
        status,
        metrics,
    };
    let text =
        serde_json::to_string_pretty(&bundle).unwrap_or_else(|error| panic!("BUG: a bundle serialises: {error}"));
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file);
    opened.and_then(|mut out| out.write_all(text.as_bytes())).map_err(|error| Failure::unwritable(file, &error))
}

fn show<W: Write>(screen: &mut Screen<W>, report: &Report) -> Outcome {
    let mut columns = Columns::new(["RESULT", "CHECK", "FOUND"]);
    for check in &report.checks {
        columns.row([word(check.result), &check.name, &check.message]);
    }
    screen.table(&columns)?;
    for check in report.checks.iter().filter(|check| check.result != CheckResult::Ok) {
        let ink = if check.result == CheckResult::Fail { Ink::Bad } else { Ink::Warn };
        let code = check.code.as_deref().map(|code| format!(" [{code}]")).unwrap_or_default();
        let head = screen.paint(ink, &format!("{}{code}", check.name));
        screen.line(format!("\n{head}: {}", printable(check.mend.as_deref().unwrap_or("nothing to do"))))?;
    }
    Ok(())
}

fn word(result: CheckResult) -> &'static str {
    match result {
        CheckResult::Ok => "ok",
        CheckResult::Warn => "warn",
        CheckResult::Fail => "FAIL",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Output;

    #[test]
    fn old_kernels_are_told_from_new_ones() {
        let result = |release: &str| kernel(release).result;
        assert_eq!(result("6.1.0-18-amd64"), CheckResult::Ok);
        assert_eq!(result("5.15.0"), CheckResult::Ok);
        assert_eq!(result("5.10.0-28-amd64"), CheckResult::Fail);
        assert_eq!(result("strange"), CheckResult::Fail);
    }

    #[test]
    fn mounts_are_found_by_type() {
        let mounts = "24 23 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted(mounts, "cgroup2", "m").message, "cgroup2 is mounted at /sys/fs/cgroup");
        assert_eq!(mounted(mounts, "bpf", "mount it").mend.as_deref(), Some("mount it"));
    }

    #[test]
    fn what_is_not_well_says_what_to_do() {
        let report = Report { checks: vec![check("root", false, "", "no root", "C6012", "use sudo")] };
        let mut screen = Screen::to(Vec::new(), Output::Table);
        show(&mut screen, &report).unwrap();
        let text = String::from_utf8(screen.into_inner()).unwrap();
        assert_eq!(text, "RESULT  CHECK  FOUND\nFAIL    root   no root\n\nroot [C6012]: use sudo\n");
    }

    #[test]
    fn a_bundle_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("bundle");
        write_bundle(&file, &Report { checks: Vec::new() }, None, None).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(std::fs::read_to_string(&file).unwrap().contains("\"kernel\""));
    }
}
