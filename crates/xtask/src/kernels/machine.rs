//! A machine: QEMU with one kernel, and what its console says.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::image::Root;
use crate::step::Tally;

/// Until a machine on the processor's own virtualization has to show a sign of life. There are virtual machines with a /dev/kvm
/// that cannot run a guest.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);
/// Lines of a console that wait for their reader.
const LINES: usize = 1024;
const BOOTED: &str = "x: booted ";
const DONE: &str = "x: done";

/// What runs a machine's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Emulation {
    /// The processor.
    Kvm,
    /// Software: some ten times slower.
    Software,
}

impl Emulation {
    fn label(self) -> &'static str {
        match self {
            Emulation::Kvm => "KVM",
            Emulation::Software => "software emulation",
        }
    }

    /// How much longer limits in tests are.
    fn patience(self) -> u32 {
        match self {
            Emulation::Kvm => 1,
            Emulation::Software => 5,
        }
    }

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Emulation::Kvm => &["-accel", "kvm", "-cpu", "host", "-smp", "2"],
            // An old model: what newer ones add, software pays for in every instruction.
            Emulation::Software => &["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "Nehalem", "-smp", "2"],
        }
    }
}

/// What became of a machine.
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    /// It came to the end of what it had to do.
    pub(crate) ended: bool,
    /// How it ran.
    pub(crate) emulation: &'static str,
    /// All that its console said.
    pub(crate) log: PathBuf,
}

/// The disks, and how machines run here.
pub(crate) struct Machine {
    root: Root,
    work: PathBuf,
    emulation: Emulation,
}

impl Machine {
    pub(crate) fn new(root: Root, work: PathBuf) -> Self {
        let emulation = if Path::new("/dev/kvm").exists() { Emulation::Kvm } else { Emulation::Software };
        Self { root, work, emulation }
    }

    /// Boots a kernel and reads its console until it is done, or for `limit`.
    pub(crate) fn run(&mut self, release: &str, limit: Duration) -> Result<Outcome> {
        if self.emulation == Emulation::Kvm {
            match self.once(release, limit)? {
                Some(outcome) => return Ok(outcome),
                None => eprintln!("x: /dev/kvm runs no machine here; software does it, slowly"),
            }
            self.emulation = Emulation::Software;
        }
        self.once(release, limit)?.context("BUG: software emulation was not given up")
    }

    /// `None`: no sign of life where there must be one.
    fn once(&self, release: &str, limit: Duration) -> Result<Option<Outcome>> {
        let log = self.work.with_file_name(format!("{release}.log"));
        let mut console = Console::of(self.boot(release)?, File::create(&log)?)?;
        eprintln!("x: boots {release} ({}); its console: {}", self.emulation.label(), log.display());
        let sign_of_life = (self.emulation == Emulation::Kvm).then_some(SIGN_OF_LIFE);
        let Some((mut tally, ended)) = console.read(limit, sign_of_life)? else { return Ok(None) };
        // A machine that ends early, or without having run anything, has not passed.
        if (!ended || tally.passed == 0) && tally.failed == 0 {
            tally.failed = 1;
        }
        Ok(Some(Outcome { tally, ended, emulation: self.emulation.label(), log }))
    }

    /// QEMU, which the kernel ends with this process, whatever ends that.
    fn boot(&self, release: &str) -> Result<Child> {
        let disk = |path: &Path| format!("file={},if=virtio,format=raw,snapshot=on", path.display());
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]).args(self.emulation.arguments());
        qemu.args([
            "-machine",
            "q35",
            "-m",
            "4096",
            "-nodefaults",
            "-no-reboot",
            "-display",
            "none",
            "-serial",
            "stdio",
        ]);
        qemu.arg("-kernel").arg(self.root.boot(&format!("vmlinuz-{release}")));
        qemu.arg("-initrd").arg(self.root.boot(&format!("initrd.img-{release}")));
        // What the kernel does not know becomes the environment of the first process.
        let line =
            "console=ttyS0 root=LABEL=root rw init=/init panic=-1 quiet loglevel=1 mitigations=off init_on_alloc=0";
        qemu.args(["-append", &format!("{line} STOLOS_TEST_PATIENCE={}", self.emulation.patience())]);
        qemu.args(["-drive", &disk(&self.root.disk()), "-drive", &disk(&self.work)]);
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        qemu.spawn().context("cannot start qemu-system-x86_64 by setpriv")
    }
}

/// A running machine's lines. Dropping it ends the machine.
struct Console {
    child: Child,
    lines: Receiver<String>,
    log: File,
}

impl Console {
    fn of(mut child: Child, log: File) -> Result<Self> {
        let output = child.stdout.take().context("BUG: standard output was asked to be piped")?;
        let (give, lines) = sync_channel(LINES);
        std::thread::spawn(move || {
            let lines = BufReader::new(output).split(b'\n').map_while(Result::ok);
            let mut lines = lines.map(|line| String::from_utf8_lossy(&line).trim_end().to_owned());
            lines.all(|line| give.send(line).is_ok())
        });
        Ok(Self { child, lines, log })
    }

    /// The counts in it, and whether it came to its end. `None`: it gave no sign of life in that time.
    fn read(&mut self, limit: Duration, sign_of_life: Option<Duration>) -> Result<Option<(Tally, bool)>> {
        let start = Instant::now();
        let mut booted = false;
        let mut tally = Tally::default();
        loop {
            let until = if booted { limit } else { sign_of_life.unwrap_or(limit).min(limit) };
            let line = match self.lines.recv_timeout(until.saturating_sub(start.elapsed())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)
                    if !booted && sign_of_life.is_some() =>
                {
                    return Ok(None);
                }
                Err(_) => return Ok(Some((tally, false))),
            };
            writeln!(self.log, "{line}")?;
            booted |= line.contains(BOOTED);
            if line == DONE {
                return Ok(Some((tally, true)));
            }
            if let Some(counts) = Tally::read(&line) {
                tally.add(counts);
            }
            if line.starts_with("== ") || line.contains("FAILED") || Tally::read(&line).is_some() {
                println!("   {line}");
            }
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
