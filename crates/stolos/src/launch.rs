//! The mechanics of `stolos run`: finding the program, a cgroup of its own, and stepping into it.
//!
//! The process enters its cgroup *before* it registers, so that the cgroup is never empty while the agent knows it (the
//! agent removes empty ones), and so that nothing of it ever ran outside. It becomes the program by exec, last of all.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Why a program cannot be started; each is the user's to mend.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ProgramError {
    /// No such file, or not in `PATH`.
    Missing,
    /// It is there, but a directory or without the execute bit.
    NotExecutable(PathBuf),
}

/// The file that `command` names, found as a shell would: by path when it holds a `/`, else through `path`.
pub(crate) fn find_program(command: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, ProgramError> {
    if command.as_bytes().contains(&b'/') {
        return executable(Path::new(command)).ok_or_else(|| {
            if Path::new(command).exists() {
                ProgramError::NotExecutable(command.into())
            } else {
                ProgramError::Missing
            }
        });
    }
    let mut present = None;
    for directory in path.map(std::env::split_paths).into_iter().flatten() {
        let candidate = directory.join(command);
        match executable(&candidate) {
            Some(program) => return Ok(program),
            None if present.is_none() && candidate.is_file() => present = Some(candidate),
            None => {}
        }
    }
    Err(present.map_or(ProgramError::Missing, ProgramError::NotExecutable))
}

fn executable(path: &Path) -> Option<PathBuf> {
    let metadata = fs::metadata(path).ok()?;
    (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0).then(|| path.to_owned())
}

/// A workload name made of a program's: lower case, everything else a `-`, at most 40 bytes.
pub(crate) fn name_of(program: &Path) -> String {
    let base = program.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let cleaned: String = base.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let cut: String = cleaned.trim_matches(['-', '.']).chars().take(40).collect();
    match cut.trim_end_matches(['-', '.']) {
        "" => "workload".to_owned(),
        name => name.to_owned(),
    }
}

/// A cgroup made for one workload, and the way back out of it.
///
/// Dropping it does nothing: after exec the program lives in it, and the agent removes it when it is empty.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    home: Option<PathBuf>,
}

impl Cgroup {
    /// Makes `root/name` and moves this process into it.
    ///
    /// Errors: `root` is no cgroup v2 directory, a cgroup of this name exists, no right to move there. On error nothing
    /// is left behind.
    pub(crate) fn enter(root: &Path, name: &OsString) -> io::Result<Self> {
        if !root.join("cgroup.procs").exists() {
            return Err(io::Error::other(format!("{} is no cgroup v2 directory", root.display())));
        }
        let path = root.join(name);
        let home = home(root);
        fs::create_dir(&path)?;
        match fs::write(path.join("cgroup.procs"), "0") {
            Ok(()) => Ok(Self { path, home }),
            Err(error) => {
                let _ = fs::remove_dir(&path);
                Err(error)
            }
        }
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Goes back to where this process came from and removes the cgroup. Best effort: what is left over is empty as soon
    /// as this process ends, and the agent removes it then if it ever knew of it.
    pub(crate) fn leave(self) {
        let left = self.home.is_some_and(|home| fs::write(home.join("cgroup.procs"), "0").is_ok());
        if left {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// The cgroup v2 directory this process is in, as seen through the mount that `root` lies on.
pub(crate) fn home(root: &Path) -> Option<PathBuf> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    Some(mount_of(&mounts, root)?.join(unified(&membership)?.trim_start_matches('/')))
}

/// The v2 line of `/proc/self/cgroup`.
fn unified(membership: &str) -> Option<&str> {
    membership.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The first cgroup2 mount point in `/proc/self/mountinfo`.
pub(crate) fn first_cgroup_mount(mounts: &str) -> Option<&Path> {
    cgroup_mounts(mounts).next()
}

/// The mount point of the cgroup2 mount that holds `root`.
fn mount_of<'a>(mounts: &'a str, root: &Path) -> Option<&'a Path> {
    cgroup_mounts(mounts).filter(|point| root.starts_with(point)).max_by_key(|point| point.as_os_str().len())
}

fn cgroup_mounts(mounts: &str) -> impl Iterator<Item = &Path> {
    mounts.lines().filter_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let point = Path::new(fields.split(' ').nth(4)?);
        rest.starts_with("cgroup2 ").then_some(point)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let path = OsString::from("/nowhere:/bin:/usr/bin");
        assert_eq!(find_program(OsStr::new("sh"), Some(&path)), Ok("/bin/sh".into()));
        assert_eq!(find_program(OsStr::new("/bin/sh"), None), Ok("/bin/sh".into()));
        assert_eq!(find_program(OsStr::new("no-such-program"), Some(&path)), Err(ProgramError::Missing));
        assert_eq!(find_program(OsStr::new("./no-such-program"), Some(&path)), Err(ProgramError::Missing));
        assert_eq!(
            find_program(OsStr::new("/etc/passwd"), None),
            Err(ProgramError::NotExecutable("/etc/passwd".into()))
        );
        assert_eq!(find_program(OsStr::new("/etc"), None), Err(ProgramError::NotExecutable("/etc".into())));
        let etc = OsString::from("/etc");
        assert_eq!(
            find_program(OsStr::new("passwd"), Some(&etc)),
            Err(ProgramError::NotExecutable("/etc/passwd".into()))
        );
    }

    #[test]
    fn every_program_gives_a_sound_name() {
        let name = |text: &str| name_of(Path::new(text));
        assert_eq!(name("/usr/sbin/nginx"), "nginx");
        assert_eq!(name("/usr/bin/redis_server"), "redis-server");
        assert_eq!(name("Python3.11"), "python3.11");
        assert_eq!(name("/usr/bin/[["), "workload");
        assert_eq!(name(&"x".repeat(90)).len(), 40);
        for text in ["--a", "a.", "Ä.sh", "..."] {
            assert!(crate::args::value::name(&name(text)).is_ok(), "{text}: {}", name(text));
        }
    }

    #[test]
    fn the_way_home_is_read_from_the_mount_that_holds_the_root() {
        let mounts = "24 23 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
                      25 23 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      26 23 0:24 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        assert_eq!(mount_of(mounts, Path::new("/sys/fs/cgroup/unified/a")), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(mount_of(mounts, Path::new("/sys/fs/cgroup/node")), Some(Path::new("/sys/fs/cgroup")));
        assert_eq!(mount_of(mounts, Path::new("/tmp")), None);
        assert_eq!(unified("12:cpu:/x\n0::/user.slice\n"), Some("/user.slice"));
        assert_eq!(unified("12:cpu:/x\n"), None);
    }

    #[test]
    fn a_directory_that_is_no_cgroup_is_refused_and_left_alone() {
        let root = std::env::temp_dir();
        let name = OsString::from(format!("stolos-no-cgroup-{}", std::process::id()));
        assert!(Cgroup::enter(&root, &name).unwrap_err().to_string().contains("no cgroup v2"));
        assert!(!root.join(&name).exists());
    }
}
