//! Real programs, started inside a namespace and a cgroup, with their output kept in the run's directory.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::cgroup::Cgroup;
use crate::netns::Netns;
use crate::run::{self, RUN_MARK};
use crate::wait;

/// A program to start.
#[derive(Clone, Debug)]
pub struct Program {
    name: String,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
}

/// Where a program runs.
#[derive(Clone, Debug)]
pub struct Place {
    pub(crate) run: run::Handle,
    pub(crate) netns: Netns,
    pub(crate) cgroup: Cgroup,
    /// Log files go here.
    pub(crate) dir: PathBuf,
}

/// A started program. Cheap to clone; it ends with the run, not with this value.
#[derive(Clone, Debug)]
pub struct Process {
    child: Arc<Mutex<Child>>,
    name: String,
    pid: i32,
    log: PathBuf,
}

/// How a program ended, and what it wrote.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Program {
    /// `program` is looked up in PATH (with the system directories) or is a path.
    pub fn new(program: impl Into<OsString>) -> Self {
        let program = program.into();
        let name = Path::new(&program).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Self { name, program, args: Vec::new(), env: Vec::new() }
    }

    /// From a command line, program first.
    pub fn of(command: impl IntoIterator<Item = String>) -> Self {
        let mut words = command.into_iter();
        Self::new(words.next().unwrap_or_default()).args(words)
    }

    /// Names the log file (default: the program's file name).
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Appends one argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Appends arguments.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    fn command(&self, place: &Place) -> Command {
        // The shell writes its own pid into the cgroup before exec, so the program never runs outside of it.
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(place.cgroup.path().join("cgroup.procs"));
        command.arg(&self.program).args(&self.args).current_dir(&place.dir);
        command.env("PATH", system_path()).env(RUN_MARK, place.run.id());
        for (key, value) in &self.env {
            command.env(key, value);
        }
        // A group of its own: Ctrl-C at the terminal reaches the owner of the run only, which then takes all down.
        command.process_group(0);
        command
    }
}

/// PATH with the system directories where ip, nft and daemons live, whatever the caller's PATH was.
pub fn system_path() -> String {
    let inherited = std::env::var("PATH").unwrap_or_default();
    format!("{inherited}:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")
}

impl Place {
    /// The namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Directory for files of what runs here.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts a program here, standard output and error into `DIR/NAME.log`.
    pub fn start(&self, program: Program) -> Result<Process> {
        Ok(self.spawn(program, false)?.0)
    }

    /// As [`Place::start`], with standard input and output piped to the caller (standard error is logged).
    pub fn start_piped(&self, program: Program) -> Result<(Process, ChildStdin, ChildStdout)> {
        let (process, pipes) = self.spawn(program, true)?;
        let (stdin, stdout) = pipes.context("BUG: pipes were asked for and not made")?;
        Ok((process, stdin, stdout))
    }

    /// Runs a program here to its end and returns its standard output.
    ///
    /// Errors: a status other than 0 (with all output), or `limit` passed.
    pub fn output(&self, program: Program, limit: Duration) -> Result<String> {
        let finished = self.finished(program, limit)?;
        if !finished.status.success() {
            bail!("{}\n{}{}", finished.status, finished.stdout, finished.stderr);
        }
        Ok(finished.stdout)
    }

    /// Runs a program here to its end, whatever its status.
    pub fn finished(&self, program: Program, limit: Duration) -> Result<Finished> {
        let unique = format!("{}-{:06x}", program.name, rand::random::<u32>() & 0xFF_FFFF);
        let (process, stdin, mut stdout) = self.start_piped(program.named(unique))?;
        drop(stdin);
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        });
        let status = process.wait(limit);
        if status.is_err() {
            process.kill();
        }
        let stdout = reader.join().unwrap_or_else(|_| Ok(String::new())).unwrap_or_default();
        let finished = Finished { status: status?, stdout, stderr: process.log_text() };
        // What it wrote is in the answer; a tour of hundreds of commands must not leave hundreds of files.
        let _ = fs::remove_file(&process.log);
        Ok(finished)
    }

    /// The same run, with another namespace, cgroup and directory.
    pub(crate) fn elsewhere(&self, netns: Netns, cgroup: Cgroup, dir: PathBuf) -> Self {
        Self { run: self.run.clone(), netns, cgroup, dir }
    }

    fn spawn(&self, program: Program, piped: bool) -> Result<(Process, Option<(ChildStdin, ChildStdout)>)> {
        fs::create_dir_all(&self.dir)?;
        let log = self.dir.join(format!("{}.log", program.name));
        let file = File::options().create(true).append(true).open(&log)?;
        let mut command = program.command(self);
        command.stderr(file.try_clone()?);
        if piped {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            command.stdin(Stdio::null()).stdout(file);
        }
        let mut child = self.netns.enter(move || Ok(command.spawn()?)).with_context(|| format!("{program:?}"))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let pid = i32::try_from(child.id())?;
        let process = Process { child: Arc::new(Mutex::new(child)), name: program.name, pid, log };
        self.run.adopt(process.clone());
        Ok((process, pipes))
    }
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The name its log file has.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it wrote so far.
    pub fn log_text(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// `None` while it runs.
    pub fn status(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    /// Waits for its end.
    pub fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        wait::until(&format!("the end of {} (log {})", self.name, self.log.display()), limit, || self.status())
    }

    /// Waits until its log contains `text`. Errors: it ended before, or `limit` passed; both show the log's end.
    pub fn wait_for_log(&self, text: &str, limit: Duration) -> Result<()> {
        let what = format!("{text:?} in the log of {}", self.name);
        let waited = wait::until_ok(&what, limit, || {
            if self.log_text().contains(text) {
                return Ok(Some(()));
            }
            match self.status() {
                Some(status) => bail!("{} ended ({status}) before it wrote {text:?}", self.name),
                None => Ok(None),
            }
        });
        waited.with_context(|| format!("end of {}:\n{}", self.log.display(), tail(&self.log_text())))
    }

    /// Waits until `ask` succeeds. Errors: the program ended (with the end of its log), or `limit` passed.
    pub fn wait_until_answers(&self, limit: Duration, ask: impl FnMut() -> Result<()>) -> Result<()> {
        let alive = || match self.status() {
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, tail(&self.log_text())),
            None => Ok(()),
        };
        let what = format!("{} to answer (log {})", self.name, self.log.display());
        wait::until_succeeds_while(&what, limit, alive, ask)
    }

    /// SIGKILL. Nothing happens when it has ended.
    pub fn kill(&self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Sends a signal. Errors: it has ended.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        if self.status().is_some() {
            bail!("{} has ended", self.name);
        }
        Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid), signal)?)
    }

    pub(crate) fn reap(&self) {
        let _ = self.child().wait();
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last lines of a log, for error texts.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
