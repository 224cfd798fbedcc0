//! A throwaway PostgreSQL for tests, from the system's package, run as a user of its own. Never ships.
//!
//! [`shared`] is one cluster for all tests of a process; [`Cluster::start`] makes one that a test may stop and kill. Data
//! lies in a temporary directory of its own, reached by a Unix socket in it and by a loopback port that the kernel chose;
//! settings are PostgreSQL's own, `fsync` included. However the test process ends, a guard stops the cluster and removes
//! the directory. A missing package is a failure that says how to install it.

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, geteuid, kill_process};

/// The database's superuser, and its password for connections over TCP.
const SUPERUSER: &str = "stolos";
const PASSWORD: &str = "p@ss/wörd";
/// The same in a URL.
const PASSWORD_IN_URL: &str = "p%40ss%2Fw%C3%B6rd";
/// The user of Debian's package, if we are root: PostgreSQL refuses to run as root.
const SYSTEM_USER: &str = "postgres";
/// Where packages put the programs, by version.
const PROGRAMS: &str = "/usr/lib/postgresql";
/// Another process may take the port between our finding it and PostgreSQL's binding it.
const PORT_TRIES: u32 = 5;

/// Why there is no database to test with.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    /// No package.
    #[error("PostgreSQL's programs are not in {PROGRAMS}/*/bin: run ./x test, or apt-get install postgresql-15")]
    NotInstalled,
    /// A program failed.
    #[error("{program} failed: {output}")]
    Failed {
        /// Which.
        program: String,
        /// What it said.
        output: String,
    },
    /// A file, a directory, a socket or a process of ours.
    #[error("cannot {0}")]
    Io(&'static str, #[source] io::Error),
}

/// How a cluster is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are cut, their transactions rolled back.
    Fast,
    /// As after a crash: nothing is written back, the next start recovers.
    Immediate,
}

/// By what rules a database compares texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// By bytes, which the store demands.
    Bytes,
    /// By the rules of a language.
    Language,
}

/// A running PostgreSQL with databases for tests.
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    programs: PathBuf,
    port: u16,
    databases: AtomicU32,
    guard: Option<(Child, ChildStdin)>,
}

/// The cluster that all tests of this process share, each with a database of its own.
///
/// Panics if it cannot be started, with what to do about it.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start().unwrap_or_else(|error| panic!("no PostgreSQL for the tests: {error}")))
}

impl Cluster {
    /// Makes a cluster and starts it.
    pub fn start() -> Result<Self, PgError> {
        let programs = programs()?;
        let temporary = tempfile::Builder::new().prefix("stolos-pg-").tempdir();
        let temporary = temporary.map_err(|e| PgError::Io("make a temporary directory", e))?;
        let directory = temporary.path().to_owned();
        let password = directory.join("password");
        fs::write(&password, PASSWORD).map_err(|e| PgError::Io("write the password", e))?;
        if geteuid().is_root() {
            give_away(&[&directory, &password])?;
        }
        let mut cluster = Self { directory, programs, port: 0, databases: AtomicU32::new(0), guard: None };
        let data = cluster.data();
        let mut initdb = cluster.as_owner("initdb");
        initdb.args(["--username", SUPERUSER, "--encoding", "UTF8", "--locale", "C.UTF-8", "--auth-local", "trust"]);
        initdb.args(["--auth-host", "scram-sha-256", "--no-sync", "--pwfile"]).arg(&password).arg("-D").arg(&data);
        run(&mut initdb)?;
        cluster.guard = Some(cluster.guard()?);
        // From here on the guard removes it.
        let _ = temporary.keep();
        let mut tries = 0;
        loop {
            cluster.port = free_port()?;
            tries += 1;
            match cluster.start_again() {
                Err(_) if tries < PORT_TRIES => {}
                started => return started.map(|()| cluster),
            }
        }
    }

    /// Starts it after a stop, on the same port.
    pub fn start_again(&self) -> Result<(), PgError> {
        let settings = format!("-p {} -k {} -h 127.0.0.1", self.port, self.directory.display());
        let mut start = self.as_owner("pg_ctl");
        start.arg("start").arg("-w").arg("-D").arg(self.data()).arg("-l").arg(self.log());
        start.arg("-o").arg(settings).stdout(Stdio::null()).stderr(Stdio::null());
        match start.status().map_err(|e| PgError::Io("start pg_ctl", e))?.success() {
            true => Ok(()),
            false => {
                let output = fs::read_to_string(self.log()).unwrap_or_default();
                Err(PgError::Failed { program: "pg_ctl start".into(), output })
            }
        }
    }

    /// Stops it; clients' connections end.
    pub fn stop(&self, how: Stop) -> Result<(), PgError> {
        let how = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        let mut stop = self.as_owner("pg_ctl");
        run(stop.args(["stop", "-w", "-m", how, "-D"]).arg(self.data())).map(drop)
    }

    /// `kill -9` of its first process. The others notice and end; it can be started again when they have.
    pub fn kill(&self) -> Result<(), PgError> {
        let text = fs::read_to_string(self.data().join("postmaster.pid"));
        let text = text.map_err(|e| PgError::Io("read postmaster.pid", e))?;
        let pid = text.lines().next().and_then(|line| line.trim().parse().ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or(PgError::Io("read postmaster.pid", io::ErrorKind::InvalidData.into()))?;
        kill_process(pid, Signal::KILL).map_err(|e| PgError::Io("kill PostgreSQL", e.into()))
    }

    /// The URL of a new, empty database: over TCP, with the password.
    pub fn database(&self, sort: Sort) -> Result<String, PgError> {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let locale = match sort {
            Sort::Bytes => "LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'",
            Sort::Language => "LOCALE_PROVIDER icu ICU_LOCALE 'en-US'",
        };
        self.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0 {locale}"))?;
        Ok(self.url(&name))
    }

    /// The URL of a database of that name, over TCP, with the password.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}:{PASSWORD_IN_URL}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The password, as it must never be seen.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Runs a statement in a database; what it printed, bare.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String, PgError> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", SUPERUSER, "-d", database, "-c", sql, "-h"]);
        psql.arg(&self.directory).arg("-p").arg(self.port.to_string());
        let output = run(&mut psql)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// A program of PostgreSQL's, as the user that owns the data.
    fn as_owner(&self, program: &str) -> Command {
        let mut command = as_system_user(&self.programs.join(program));
        command.current_dir(&self.directory).stdin(Stdio::null());
        command
    }

    /// Waits for the end of this process, however it comes, then stops the cluster and removes its directory.
    fn guard(&self) -> Result<(Child, ChildStdin), PgError> {
        let script = "trap '' INT TERM HUP; read -r _; \
                      \"$1/pg_ctl\" stop -m immediate -D \"$2/data\" >/dev/null 2>&1; cd /; rm -rf \"$2\"";
        let mut guard = as_system_user(Path::new("/bin/sh"));
        guard.args(["-c", script, "sh"]).arg(&self.programs).arg(&self.directory);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut guard = guard.current_dir("/").spawn().map_err(|e| PgError::Io("start the guard", e))?;
        let stdin = guard.stdin.take().ok_or(PgError::Io("reach the guard", io::ErrorKind::BrokenPipe.into()))?;
        Ok((guard, stdin))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some((mut guard, stdin)) = self.guard.take() {
            drop(stdin);
            let _ = guard.wait();
        }
    }
}

/// The directory of the newest version's programs.
fn programs() -> Result<PathBuf, PgError> {
    let versions = fs::read_dir(PROGRAMS).map_err(|_| PgError::NotInstalled)?;
    let found = versions.filter_map(|entry| {
        let path = entry.ok()?.path();
        let version: u32 = path.file_name()?.to_str()?.parse().ok()?;
        let programs = path.join("bin");
        let all = ["initdb", "pg_ctl", "psql"].iter().all(|program| programs.join(program).exists());
        all.then_some((version, programs))
    });
    found.max().map(|(_, programs)| programs).ok_or(PgError::NotInstalled)
}

fn as_system_user(program: &Path) -> Command {
    let mut command = match geteuid().is_root() {
        true => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", SYSTEM_USER, "--regid", SYSTEM_USER, "--init-groups", "--"]).arg(program);
            command
        }
        false => Command::new(program),
    };
    command.env("LC_ALL", "C.UTF-8").env_remove("PGDATA");
    command
}

fn give_away(paths: &[&Path]) -> Result<(), PgError> {
    run(Command::new("chown").arg(format!("{SYSTEM_USER}:{SYSTEM_USER}")).args(paths)).map(drop)
}

fn free_port() -> Result<u16, PgError> {
    let bound = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(|e| PgError::Io("find a free port", e))
}

fn run(command: &mut Command) -> Result<Output, PgError> {
    let program = || format!("{command:?}");
    let shown = program();
    let output = command.output().map_err(|e| PgError::Io("start a program of PostgreSQL's", e))?;
    match output.status.success() {
        true => Ok(output),
        false => {
            let said = [&output.stdout[..], &output.stderr[..]].concat();
            Err(PgError::Failed { program: shown, output: String::from_utf8_lossy(&said).into_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_runs_as_its_own_user_restarts_and_leaves_nothing() {
        let cluster = Cluster::start().unwrap();
        let directory = cluster.directory.clone();
        let url = cluster.database(Sort::Bytes).unwrap();
        assert!(url.ends_with("/t0"), "{url}");
        cluster.psql("t0", "CREATE TABLE kept AS SELECT 7 AS n").unwrap();
        if geteuid().is_root() {
            let owner = Command::new("stat").args(["-c", "%U"]).arg(cluster.data()).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&owner.stdout).trim(), SYSTEM_USER);
        }
        cluster.stop(Stop::Immediate).unwrap();
        cluster.start_again().unwrap();
        assert_eq!(cluster.psql("t0", "SELECT n FROM kept").unwrap(), "7");
        assert_eq!(cluster.psql("t0", "SHOW fsync").unwrap(), "on");
        drop(cluster);
        assert!(!directory.exists());
    }
}
