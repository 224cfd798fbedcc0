//! A run: everything the testbed creates on the machine, under one id, and its end.
//!
//! The id is in the name of the state directory, of the cgroup and in the environment of every process. A run is taken
//! down on drop, on failure and on SIGINT or SIGTERM. After SIGKILL the next start finds the dead run (its lock is
//! free) and takes it down by the same function ([`take_down`]).

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cgroup::{self, Cgroup};
use crate::process::Process;
use crate::{require, wait};

/// Where runs keep their directories. Short, because Unix socket paths are at most 107 bytes.
pub const STATE_ROOT: &str = "/run/stolos-testbed";
/// Environment variable that marks every process of a run with the run's id.
pub const RUN_MARK: &str = "STOLOS_TESTBED_RUN";
/// Directories of failed runs that are kept for reading; older ones go at the next start.
const KEPT_MAX: usize = 5;

/// Owns everything a run creates; dropping it takes everything down.
#[derive(Debug)]
pub struct Run(Arc<Inner>);

/// No other run of this process lives while this value does. See [`alone`].
#[derive(Debug)]
pub struct Alone(());

struct Company {
    runs: usize,
    alone: bool,
}

static COMPANY: Mutex<Company> = Mutex::new(Company { runs: 0, alone: false });
static COMPANY_CHANGED: Condvar = Condvar::new();

/// Waits until no run of this process lives and keeps new ones waiting: for tests that measure time or compare listings
/// of the whole machine. Runs of other processes are not held off; dead ones are taken down first.
pub fn alone() -> Result<Alone> {
    let mut company = COMPANY.lock().unwrap_or_else(PoisonError::into_inner);
    while company.alone || company.runs > 0 {
        company = COMPANY_CHANGED.wait(company).unwrap_or_else(PoisonError::into_inner);
    }
    company.alone = true;
    let alone = Alone(());
    drop(company);
    let _gate = gate()?;
    take_down_dead_runs()?;
    Ok(alone)
}

impl Alone {
    /// As [`Run::start`]. The run must end before the value does.
    pub fn start(&self, name: &str) -> Result<Run> {
        Run::begin(name, false)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        COMPANY.lock().unwrap_or_else(PoisonError::into_inner).alone = false;
        COMPANY_CHANGED.notify_all();
    }
}

/// A handle that creates things in a run without keeping it alive.
pub(crate) type Handle = Arc<Inner>;

#[derive(Debug)]
pub(crate) struct Inner {
    id: String,
    dir: PathBuf,
    cgroup: Cgroup,
    state: Mutex<State>,
    counted: bool,
    _lock: File,
}

#[derive(Debug, Default)]
struct State {
    processes: Vec<Process>,
    keep: bool,
    down: bool,
}

impl Run {
    /// Begins a run: checks privileges and tools, takes down dead runs, installs the signal handler.
    ///
    /// `name` is for people: it begins the run's id (letters, digits, `-`).
    /// Errors: what [`require::everything`] says is missing; a leftover that cannot be removed.
    pub fn start(name: &str) -> Result<Self> {
        let mut company = COMPANY.lock().unwrap_or_else(PoisonError::into_inner);
        while company.alone {
            company = COMPANY_CHANGED.wait(company).unwrap_or_else(PoisonError::into_inner);
        }
        company.runs += 1;
        drop(company);
        Self::begin(name, true).inspect_err(|_| leave())
    }

    fn begin(name: &str, counted: bool) -> Result<Self> {
        require::everything()?;
        let gate = gate()?;
        take_down_dead_runs()?;
        let id = format!("{name}-{:06x}", rand::random::<u32>() & 0xFF_FFFF);
        let dir = Path::new(STATE_ROOT).join(&id);
        fs::create_dir(&dir)?;
        let mut lock = File::create(dir.join("owner"))?;
        lock.lock()?;
        writeln!(lock, "pid {}", std::process::id())?;
        fs::create_dir(dir.join("netns"))?;
        let cgroup = Cgroup::create(cgroup_of(&id)?)?;
        let inner = Arc::new(Inner { id, dir, cgroup, state: Mutex::default(), counted, _lock: lock });
        live().insert(inner.id.clone(), Arc::downgrade(&inner));
        drop(gate);
        take_down_on_signals();
        Ok(Self(inner))
    }

    /// The run's id; part of the name of all it creates.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The run's directory: logs, sockets, databases. Gone after success, kept after a failure.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// The run's top cgroup.
    pub fn cgroup(&self) -> &Cgroup {
        &self.0.cgroup
    }

    /// Keeps the directory (only plain files are left in it) after the run's end.
    pub fn keep_directory(&self) {
        self.0.state().keep = true;
    }

    /// Takes everything down now and reports what could not be removed. Dropping does so, too, but can only print, and
    /// keeps the directory, because a run that was not finished failed.
    pub fn finish(self) -> Result<()> {
        self.0.end()
    }

    pub(crate) fn handle(&self) -> Handle {
        Arc::clone(&self.0)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.keep_directory();
        if let Err(error) = self.0.end() {
            eprintln!("testbed: run {} could not be taken down: {error:#}", self.0.id);
        }
    }
}

fn leave() {
    COMPANY.lock().unwrap_or_else(PoisonError::into_inner).runs -= 1;
    COMPANY_CHANGED.notify_all();
}

impl Inner {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// Remembers a process, so that its end is reaped at the run's end.
    pub(crate) fn adopt(&self, process: Process) {
        self.state().processes.push(process);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) -> Result<()> {
        let mut state = self.state();
        if std::mem::replace(&mut state.down, true) {
            return Ok(());
        }
        let outcome = take_down(&self.id, &self.dir);
        for process in state.processes.drain(..) {
            process.reap();
        }
        live().remove(&self.id);
        if self.counted {
            leave();
        }
        outcome?;
        if state.keep {
            eprintln!("testbed: logs are in {}", self.dir.display());
        } else {
            fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))?;
        }
        Ok(())
    }
}

/// Ends everything that carries the run's id: processes, cgroups, mounts (namespaces, bpffs). Files stay.
fn take_down(id: &str, dir: &Path) -> Result<()> {
    let cgroups = Cgroup::create(cgroup_of(id)?)?.destroy();
    let mounts = unmount_below(dir);
    cgroups.and(mounts)
}

fn unmount_below(dir: &Path) -> Result<()> {
    for path in mounts_below(dir)?.iter().rev() {
        // Not lazily: a lazy unmount hides that something still holds the namespace or the pins.
        wait::until_ok(&format!("the unmount of {}", path.display()), Duration::from_secs(5), || {
            Ok(rustix::mount::unmount(path, rustix::mount::UnmountFlags::empty()).ok())
        })?;
    }
    Ok(())
}

/// Mount points below `dir`, in the order they were made.
pub(crate) fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    Ok(points.filter(|path| path.starts_with(dir) && path != dir).collect())
}

/// Making a run and taking dead ones down exclude each other: a directory without its lock yet is not a dead run.
fn gate() -> Result<File> {
    fs::create_dir_all(STATE_ROOT).with_context(|| format!("cannot make {STATE_ROOT}"))?;
    let gate = File::create(Path::new(STATE_ROOT).join(".gate"))?;
    gate.lock()?;
    Ok(gate)
}

/// What is left of a run on the machine: cgroup directories and mounts that carry its id.
pub fn remains(id: &str) -> Result<Vec<String>> {
    let top = cgroup_of(id)?;
    let mut found = if top.exists() { cgroup::tree(&top) } else { Vec::new() };
    found.extend(mounts_below(&Path::new(STATE_ROOT).join(id))?);
    Ok(found.iter().map(|path| path.display().to_string()).collect())
}

fn cgroup_of(id: &str) -> Result<PathBuf> {
    Ok(cgroup::mount_point()?.join(format!("stolos-testbed-{id}")))
}

/// Runs whose owner is dead: their directory's lock is free.
fn take_down_dead_runs() -> Result<()> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(STATE_ROOT)?.flatten() {
        let dir = entry.path();
        let Ok(owner) = File::open(dir.join("owner")) else { continue };
        match owner.try_lock() {
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => return Err(error).context(dir.display().to_string()),
            Ok(()) => {}
        }
        let id = entry.file_name().to_string_lossy().into_owned();
        take_down(&id, &dir).with_context(|| format!("cannot take down the dead run {id}"))?;
        kept.push((entry.metadata().and_then(|m| m.modified()).ok(), dir));
    }
    kept.sort();
    let surplus = kept.len().saturating_sub(KEPT_MAX);
    for (_, dir) in kept.into_iter().take(surplus) {
        fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

/// Ids of runs on this machine whose owner lives (this process's included).
pub fn live_runs() -> Vec<String> {
    let entries = fs::read_dir(STATE_ROOT).into_iter().flatten().flatten();
    let alive = entries.filter(|entry| {
        let owner = File::open(entry.path().join("owner"));
        owner.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    });
    alive.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn live() -> MutexGuard<'static, BTreeMap<String, Weak<Inner>>> {
    static LIVE: Mutex<BTreeMap<String, Weak<Inner>>> = Mutex::new(BTreeMap::new());
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// On SIGINT and SIGTERM takes down all runs of this process, then exits as the signal would have.
fn take_down_on_signals() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let (ready, installed) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            let runtime = runtime.expect("BUG: a runtime for signals cannot be made");
            runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let mut interrupt = signal(SignalKind::interrupt()).expect("BUG: SIGINT cannot be handled");
                let mut terminate = signal(SignalKind::terminate()).expect("BUG: SIGTERM cannot be handled");
                let _ = ready.send(());
                let number = tokio::select! { _ = interrupt.recv() => 2, _ = terminate.recv() => 15 };
                let runs: Vec<_> = live().values().filter_map(Weak::upgrade).collect();
                for run in runs {
                    if let Err(error) = run.end() {
                        eprintln!("testbed: run {} could not be taken down: {error:#}", run.id);
                    }
                }
                std::process::exit(128 + number);
            });
        });
        let _ = installed.recv();
    });
}
