//! The checks of this machine: each says in one sentence what was found, and what to do where it is not well.

use std::path::Path;

use api::local::{Check, CheckResult};
use datapath::feature::Feature;
use handshake::time::{SKEW_MAX_MS, SKEW_REPORTED_MS};
use policy::code::{Code, agent as code};

use crate::config::{Config, Source};
use crate::view::View;

/// A map that is fuller than this is worth a word.
const FULL_PERCENT: u64 = 80;

/// All checks, in a fixed order.
pub(crate) fn checks(config: &Config, view: &View) -> Vec<Check> {
    let mut checks = vec![kernel(), cgroup(&config.cgroup_root), bpffs(&config.bpf_pin), programs(view)];
    checks.extend(Feature::ALL.iter().map(|feature| self::feature(*feature, view)));
    checks.push(server(config, view));
    checks.push(outage_budget(view));
    checks.push(clock(view));
    checks.push(state(view));
    checks.extend(["net.ipv4.tcp_fastopen", "net.mptcp.enabled"].map(sysctl));
    checks.push(capacity(view));
    checks.push(coverage(view));
    checks
}

fn ok(name: &str, message: String) -> Check {
    Check { name: name.to_owned(), result: CheckResult::Ok, message, code: None, mend: None }
}

fn bad(name: &str, result: CheckResult, code: &Code, message: String) -> Check {
    let (code, mend) = (Some(code.id.to_owned()), Some(code.mend.to_owned()));
    Check { name: name.to_owned(), result, message, code, mend }
}

fn kernel() -> Check {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    match version(&release) >= (5, 15) {
        true => ok("kernel", format!("Linux {release}")),
        false => bad("kernel", CheckResult::Fail, &code::KERNEL_TOO_OLD, format!("Linux {release} is older than 5.15")),
    }
}

/// Major and minor version; (0, 0) for what is none.
pub(crate) fn version(release: &str) -> (u32, u32) {
    let mut parts = release.split(['.', '-']).map_while(|part| part.parse().ok());
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn cgroup(root: &Path) -> Check {
    let found = linux::mount::kind_of(root).ok().flatten();
    let at = root.display();
    match found.as_deref() {
        Some("cgroup2") if root.exists() => ok("cgroup", format!("{at} is a cgroup v2 directory")),
        Some("cgroup2") => bad("cgroup", CheckResult::Fail, &code::CGROUP_UNUSABLE, format!("{at} does not exist")),
        kind => {
            let message = format!("{at} is on {}, not on cgroup2", kind.unwrap_or("no file system"));
            bad("cgroup", CheckResult::Fail, &code::CGROUP_UNUSABLE, message)
        }
    }
}

fn bpffs(pin: &Path) -> Check {
    let at = pin.display();
    match linux::mount::kind_of(pin).ok().flatten().as_deref() {
        Some("bpf") => ok("bpffs", format!("{at} is on a BPF file system")),
        kind => {
            let message = format!("{at} is on {}, not on bpf", kind.unwrap_or("no file system"));
            bad("bpffs", CheckResult::Fail, &code::BPFFS_UNUSABLE, message)
        }
    }
}

fn programs(view: &View) -> Check {
    match (view.enforcement.attached, &view.enforcement.until) {
        (true, _) => ok("programs", "the kernel programs are attached".to_owned()),
        (false, Some(until)) => {
            bad("programs", CheckResult::Warn, &code::DETACHED, format!("enforcement is off until {until}"))
        }
        (false, None) => bad("programs", CheckResult::Warn, &code::DETACHED, "enforcement is off".to_owned()),
    }
}

fn feature(feature: Feature, view: &View) -> Check {
    let (name, limit) = match feature {
        Feature::ErrnoFromConnect => ("errno-from-connect", "a known refusal is EPERM instead of ECONNREFUSED"),
        Feature::SocketDestroy => ("socket-destroy", "an idle connection that is revoked ends with its next packet"),
        Feature::ListenerRepair => ("listener-repair", "listeners older than the agent must be restarted"),
    };
    if view.features.iter().any(|present| present == feature.label()) {
        return ok(name, "the kernel has it, found by trial".to_owned());
    }
    let message = format!("absent or forced off: {limit}; Linux {} has it", feature.since());
    bad(name, CheckResult::Warn, &code::FEATURE_ABSENT, message)
}

fn server(config: &Config, view: &View) -> Check {
    let source = &view.server.source;
    match (&config.source, view.server.connected) {
        (Source::File(_), _) => ok("server", format!("the state comes from {source}; there is no server")),
        (_, true) => ok("server", format!("connected to {source} since {}", view.server.since)),
        (_, false) => {
            let why = view.server.last_error.as_deref().unwrap_or("not tried yet");
            bad("server", CheckResult::Fail, &code::SERVER_UNREACHABLE, format!("no stream to {source}: {why}"))
        }
    }
}

fn outage_budget(view: &View) -> Check {
    let Some(until) = view.holds_until_unix_s else {
        return ok("outage-budget", "no state from a server is held".to_owned());
    };
    let text = crate::node::time(until);
    match view.alarms.iter().any(|alarm| alarm.code == code::STATE_EXPIRED.id) {
        false => ok("outage-budget", format!("what is held may be used without a server until {text}")),
        true => bad("outage-budget", CheckResult::Warn, &code::STATE_EXPIRED, format!("the seal expired at {text}")),
    }
}

fn clock(view: &View) -> Check {
    let source = view.clock.source.as_str();
    match view.clock.skew_ms {
        None => {
            let message = format!("the server's time is not known since this boot; the {source} clock serves");
            bad("clock", CheckResult::Warn, &code::CLOCK_UNCONFIRMED, message)
        }
        Some(skew) if skew.unsigned_abs() <= SKEW_REPORTED_MS => {
            ok("clock", format!("{skew} ms off the server's; the handshake uses the server's"))
        }
        Some(skew) => {
            let beyond = skew.unsigned_abs() > SKEW_MAX_MS;
            let (result, after) = match beyond {
                true => (CheckResult::Fail, "certificates may be refused"),
                false => (CheckResult::Warn, "the handshake uses the server's"),
            };
            bad("clock", result, &code::CLOCK_SKEW, format!("{} s off the server's; {after}", skew / 1000))
        }
    }
}

fn state(view: &View) -> Check {
    let about =
        [code::NOT_APPLIED, code::OBJECT_UNUSABLE, code::STATE_UNTRUSTED, code::STATE_OLDER, code::DATA_UNUSABLE];
    let wrong = about.iter().find_map(|code| {
        view.alarms.iter().find(|alarm| alarm.code == code.id).map(|alarm| (code, alarm.message.clone()))
    });
    match wrong {
        Some((code, message)) => bad("state", CheckResult::Fail, code, message),
        None => ok("state", format!("revision {} is live in the kernel", view.revision)),
    }
}

/// TCP Fast Open and MPTCP take the option's room.
fn sysctl(name: &str) -> Check {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let value = std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    match value.as_deref() {
        None => ok(name, "the kernel does not have it".to_owned()),
        Some("0") => ok(name, "off".to_owned()),
        Some(value) => {
            let message = format!(
                "{name} is {value}; programs that ask for it are refused or start slower. Set it to 0: sysctl -w {name}=0"
            );
            bad(name, CheckResult::Warn, &code::SYSCTL_HINDERS, message)
        }
    }
}

fn capacity(view: &View) -> Check {
    let share = |map: &datapath::capacity::MapUse| {
        let used = u64::from(map.used?);
        Some((used * 100 / u64::from(map.capacity.max(1)), map.name))
    };
    match view.counted.capacities.iter().filter_map(share).max() {
        None => ok("map-capacity", "no reading yet".to_owned()),
        Some((percent, name)) if percent < FULL_PERCENT => {
            ok("map-capacity", format!("the fullest map, {name}, is {percent} % full"))
        }
        Some((percent, name)) => {
            bad("map-capacity", CheckResult::Warn, &code::MAP_NEARLY_FULL, format!("map {name} is {percent} % full"))
        }
    }
}

fn coverage(view: &View) -> Check {
    let Some(first) = view.not_captured.first() else {
        return ok("coverage", "no process is known whose traffic passes by the programs".to_owned());
    };
    let (_, message) = crate::coverage::describe(first);
    let code = if first.kind == "listener" { code::LISTENER_OLDER } else { code::NOT_CAPTURED };
    let more = match view.not_captured.len() {
        1 => String::new(),
        n => format!(", and {} more", n - 1),
    };
    bad("coverage", CheckResult::Warn, &code, format!("{message}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_releases() {
        assert_eq!(version("6.18.44-fc-v669"), (6, 18));
        assert_eq!(version("5.15.0-91-generic"), (5, 15));
        assert_eq!(version("nonsense"), (0, 0));
    }

    #[test]
    fn a_path_that_is_no_cgroup_says_what_it_is_and_what_to_do() {
        let check = cgroup(Path::new("/proc"));
        assert_eq!(check.result, CheckResult::Fail);
        assert!(check.message.contains("proc") && check.mend.is_some(), "{check:?}");
    }
}
