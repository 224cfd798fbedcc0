//! The disks of a machine: Debian's user space with the kernels asked for, and what was built here.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::step::program;

/// The release whose user space the machines have.
const RELEASE: &str = "bookworm";
/// Beyond what `x` installs to run the product: what boots, and what our programs are linked with.
const BASE: &[&str] = &["initramfs-tools", "kmod", "mount", "util-linux", "libelf1", "zlib1g"];
const INIT: &str = include_str!("init.sh");
/// Room, not use: the files are sparse.
const ROOT_SIZE: &str = "4G";
const WORK_SIZE: &str = "2G";

/// The root disk and, on it, the boot files of each kernel.
pub(crate) struct Root {
    directory: PathBuf,
}

impl Root {
    /// The disk with these kernel packages: the one at `directory`, where it was made by the same recipe, else a new one.
    pub(crate) fn with(directory: &Path, kernels: &[String]) -> Result<Self> {
        let root = Self { directory: directory.to_owned() };
        let sources = sources()?;
        let packages =
            [BASE.iter().map(ToString::to_string).collect(), programs()?, kernels.to_vec()].concat().join(",");
        let recipe = format!("{packages}\n{sources}\n{INIT}");
        let made_by = directory.join("recipe");
        if fs::read_to_string(&made_by).is_ok_and(|made| made == recipe) {
            return Ok(root);
        }
        fs::create_dir_all(directory)?;
        let _ = fs::remove_file(&made_by);
        let tar = directory.join("root.tar");
        eprintln!("x: makes a Debian {RELEASE} with {} (some minutes, once)", kernels.join(", "));
        install(&packages, &sources, &tar)?;
        root.unpack(&tar)?;
        fs::write(made_by, recipe)?;
        Ok(root)
    }

    /// The disk.
    pub(crate) fn disk(&self) -> PathBuf {
        self.directory.join("root.img")
    }

    /// A kernel or its first file system.
    pub(crate) fn boot(&self, name: &str) -> PathBuf {
        self.directory.join("boot").join(name)
    }

    /// From the archive to the disk. Nothing is ever mounted in the directory between, so that it can be removed as it is.
    fn unpack(&self, tar: &Path) -> Result<()> {
        let tree = self.directory.join("tree");
        let boot = self.directory.join("boot");
        for old in [&tree, &boot] {
            if old.exists() {
                fs::remove_dir_all(old)?;
            }
            fs::create_dir_all(old)?;
        }
        // Devices come with the machine's own /dev.
        let unpack = program("tar", &["--extract", "--exclude=./dev/*", "--file"]).args([tar]);
        ensure!(unpack.args([Path::new("--directory"), &tree]).succeeds()?, "the archive cannot be unpacked");
        let init = tree.join("init");
        fs::write(&init, INIT)?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
        for file in fs::read_dir(tree.join("boot"))? {
            let file = file?;
            fs::copy(file.path(), boot.join(file.file_name()))?;
        }
        make_disk(&tree, "root", &self.disk(), ROOT_SIZE)?;
        fs::remove_dir_all(&tree)?;
        fs::remove_file(tar)?;
        Ok(())
    }
}

/// Runs `mmdebstrap` into an archive; it works in a mount namespace of its own.
fn install(packages: &str, sources: &str, tar: &Path) -> Result<()> {
    let include = format!("--include={packages}");
    let mut install = Command::new("mmdebstrap");
    install.args(["--mode=root", "--variant=apt", "--quiet", &include, RELEASE]).arg(tar).arg("-");
    let mut child = install.stdin(Stdio::piped()).spawn().context("cannot start mmdebstrap")?;
    child.stdin.take().context("BUG: it was asked to be piped")?.write_all(sources.as_bytes())?;
    ensure!(child.wait()?.success(), "mmdebstrap failed; its last lines say why");
    Ok(())
}

/// The lines by which this machine's apt finds Debian itself: mirrors differ from place to place.
fn sources() -> Result<String> {
    let format = "$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)";
    let listed = Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]).output()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut lines: Vec<_> = listed.lines().filter_map(source).collect();
    lines.sort();
    lines.dedup();
    if lines.is_empty() {
        bail!(
            "apt knows no Debian {RELEASE} here; this needs a Debian 12 whose package lists are up to date (apt-get update)"
        );
    }
    Ok(lines.concat())
}

fn source(listed: &str) -> Option<String> {
    let mut words = listed.split(' ');
    let (uri, codename, component) = (words.next()?, words.next()?, words.next()?);
    (words.next()? == "Debian" && codename.starts_with(RELEASE)).then(|| format!("deb {uri} {codename} {component}\n"))
}

/// The packages that `x` installs to run the product: one list for machines and for these.
fn programs() -> Result<Vec<String>> {
    let script = fs::read_to_string("x").context("x is not there")?;
    let section = script.split_once("to_run() {").and_then(|(_, rest)| rest.split_once("\n}"));
    let (section, _) = section.context("BUG: x has no to_run")?;
    let package = |line: &str| line.trim().strip_prefix("program ")?.split(' ').nth(1).map(str::to_owned);
    Ok(section.lines().filter_map(package).collect())
}

/// Makes a disk that holds a directory's files.
pub(crate) fn make_disk(of: &Path, label: &str, disk: &Path, size: &str) -> Result<()> {
    if disk.exists() {
        fs::remove_file(disk)?;
    }
    let make = program("mkfs.ext4", &["-q", "-L", label, "-d"]).args([of, disk]).args([size]);
    ensure!(make.succeeds()?, "{} cannot be made", disk.display());
    Ok(())
}

/// The work disk: the project's files, what was built, and the script that the machine runs.
pub(crate) fn make_work(directory: &Path, built: &[PathBuf], script: &str) -> Result<PathBuf> {
    let tree = directory.join("work");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    let files = Command::new("git").args(["ls-files", "-z"]).output().context("cannot start git")?;
    let files = String::from_utf8(files.stdout)?;
    let sources = files.split('\0').filter(|file| !file.is_empty() && Path::new(file).is_file());
    let project = crate::root().canonicalize()?;
    for file in sources.map(|file| project.join(file)).chain(built.iter().cloned()) {
        let to = tree.join("files").join(file.strip_prefix("/")?);
        fs::create_dir_all(to.parent().context("BUG: it lies in the tree")?)?;
        fs::copy(&file, &to).with_context(|| format!("{} cannot be copied", file.display()))?;
    }
    fs::write(tree.join("run"), script)?;
    let disk = directory.join("work.img");
    make_disk(&tree, "work", &disk, WORK_SIZE)?;
    fs::remove_dir_all(tree)?;
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debians_own_lists_of_the_release_become_sources() {
        assert_eq!(
            source("http://mirror.example/debian/ bookworm-updates main Debian"),
            Some("deb http://mirror.example/debian/ bookworm-updates main\n".to_owned())
        );
        assert_eq!(source("http://other.example/ nodistro main Somebody"), None);
        assert_eq!(source("http://mirror.example/debian/ trixie main Debian"), None);
    }
}
