//! Which crate may use which: arrows point down only, and libraries stay free of what their layer must not know.

/// Our crates and what each may use of ours. `None`: anything (it never ships).
const ARROWS: &[(&str, Option<&[&str]>)] = &[
    ("identity", Some(&[])),
    ("policy", Some(&["identity"])),
    ("handshake", Some(&["identity"])),
    ("api", Some(&["policy", "identity"])),
    ("store", Some(&["api"])),
    ("datapath", Some(&["policy", "identity", "handshake"])),
    ("linux", Some(&[])),
    ("server", Some(&["store", "api", "identity", "policy"])),
    ("agent", Some(&["datapath", "linux", "api", "identity", "policy", "handshake"])),
    ("stolos", Some(&["server", "agent", "api", "policy"])),
    // A PostgreSQL for the tests of every layer that has a store; never ships.
    ("pgtest", Some(&[])),
    ("testbed", None),
    ("xtask", Some(&[])),
];

/// Outside crates that the pure layer must not know, and why.
const NOT_IN_PURE: &[(&str, &str)] = &[
    ("tokio", "layer 0 has no tasks"),
    ("sqlx", "layer 0 has no database"),
    ("hyper", "layer 0 has no sockets"),
    ("reqwest", "layer 0 has no sockets"),
    ("rustix", "layer 0 makes no system calls"),
    ("nix", "layer 0 makes no system calls"),
];
const PURE: &[&str] = &["identity", "policy", "handshake"];

/// Crates that nothing here uses, and why.
const BANNED: &[(&str, &str)] = &[
    ("serde_yaml", "deprecated; use serde-saphyr"),
    ("serde_yml", "unmaintained; use serde-saphyr"),
    ("openssl", "rustls with aws-lc-rs is the one TLS provider"),
    ("native-tls", "rustls with aws-lc-rs is the one TLS provider"),
    ("ring", "aws-lc-rs is the one crypto provider"),
    ("lazy_static", "use std::sync::LazyLock"),
    ("once_cell", "use std::sync::OnceLock"),
    ("chrono", "use jiff"),
    ("time", "use jiff"),
    ("backoff", "abandoned"),
    ("figment", "flags, environment, TOML and one merge function do it"),
    ("config", "flags, environment, TOML and one merge function do it"),
    ("async-trait", "traits have async functions"),
];

/// `anyhow` erases error types: only where a person reads the error next.
const MAY_USE_ANYHOW: &[&str] = &["stolos", "testbed", "xtask"];

const BANNED_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "core", "shared"];

/// Broken rules of a manifest.
pub(super) fn problems(path: &str, manifest: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let Some(name) = path.strip_prefix("crates/").and_then(|rest| rest.strip_suffix("/Cargo.toml")) else {
        return problems;
    };
    if BANNED_NAMES.contains(&name) {
        problems.push(format!("{path}: a crate called {name} says nothing; name what it does"));
    }
    let Some((_, arrows)) = ARROWS.iter().find(|(known, _)| *known == name) else {
        problems.push(format!("{path}: crate {name} has no place in the layers (xtask/src/tidy/layers.rs)"));
        return problems;
    };
    for used in dependencies(manifest) {
        let ours = ARROWS.iter().any(|(known, _)| *known == used);
        if ours && arrows.is_some_and(|arrows| !arrows.contains(&used.as_str())) {
            problems.push(format!("{path}: {name} must not use {used}: arrows point down only"));
        }
        for (banned, why) in BANNED {
            if used == *banned {
                problems.push(format!("{path}: {used} is not used here: {why}"));
            }
        }
        for (banned, why) in NOT_IN_PURE {
            if used == *banned && PURE.contains(&name) {
                problems.push(format!("{path}: {name} must not use {used}: {why}"));
            }
        }
        if used == "anyhow" && !MAY_USE_ANYHOW.contains(&name) {
            problems.push(format!("{path}: {name} is a library: error enums by thiserror, not anyhow"));
        }
    }
    problems
}

/// Names under `[dependencies]` and its target forms; development and build dependencies do not count.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside =
                section == "dependencies" || section.ends_with(".dependencies") && !section.starts_with("workspace");
            found.extend(section.strip_prefix("dependencies.").map(str::to_owned));
        } else if inside && !line.starts_with('#') {
            let name: String = line.chars().take_while(|c| c.is_alphanumeric() || "-_".contains(*c)).collect();
            found.extend((!name.is_empty()).then_some(name));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_upwards_is_reported() {
        let manifest = "[dependencies]\nidentity.workspace = true\nserver = { path = \"..\" }\n[dev-dependencies]\nagent.workspace = true\n";
        let found = problems("crates/policy/Cargo.toml", manifest);
        assert_eq!(found, ["crates/policy/Cargo.toml: policy must not use server: arrows point down only"]);
    }

    #[test]
    fn a_pure_crate_has_no_runtime_and_no_library_has_anyhow() {
        let found = problems("crates/identity/Cargo.toml", "[dependencies]\ntokio.workspace = true\nanyhow = \"1\"\n");
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn a_crate_without_a_layer_is_reported() {
        assert_eq!(problems("crates/stuff/Cargo.toml", "").len(), 1);
    }
}
