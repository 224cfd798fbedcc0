//! A machine of one's own: a node with a host name, a file tree and a view of cgroups of its own, so that the product
//! runs in it as it is installed: default paths, default flags, and nothing of it on the real machine.
//!
//! The namespaces live as long as a process that holds them; files go to a tmpfs inside, over what the real machine has.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::node::Node;
use crate::process::{Place, Process, Program};

/// A node that looks like a whole machine to what runs in it.
#[derive(Clone, Debug)]
pub struct Machine {
    place: Place,
    holder: Process,
}

/// `$1` an empty directory, `$2` the host name, `$3` the binary. Overlays keep what the machine has readable and take
/// all writes; bpffs is a fresh one; the cgroup mount shows the node's subtree as the whole tree, as in a container.
const SET_UP: &str = r#"
set -eu
# Other runs' mounts are none of this machine's business, and must not live longer for it.
awk '$5 ~ "^/run/stolos-testbed/" { print $5 }' /proc/self/mountinfo | tac | xargs -r -n 64 umount --lazy
mount -t tmpfs -o mode=0755 tmpfs "$1"
mount -t tmpfs -o mode=1777 tmpfs /tmp
# /run last: the scratch directory lies in it, and is out of sight from then on.
for at in /etc /root /usr/local /var /run; do
    over="$1/$(echo "$at" | tr / _)"
    mkdir -p "$over/upper" "$over/work"
    chmod --reference="$at" "$over/upper"
    mount -t overlay overlay -o "lowerdir=$at,upperdir=$over/upper,workdir=$over/work" "$at"
done
cgroups=$(awk '/ - cgroup2 /{ print $5; exit }' /proc/self/mountinfo)
umount "$cgroups"
mount -t cgroup2 cgroup2 "$cgroups"
mount -t bpf bpf /sys/fs/bpf
echo "$2" >/proc/sys/kernel/hostname
rm -rf /root/.config/stolos /etc/stolos /run/stolos /var/lib/stolos
# Mounted, not linked: users who may not enter the project's directory may still run it.
touch /usr/local/bin/stolos
mount --bind "$3" /usr/local/bin/stolos
echo ready
exec sleep infinity
"#;

impl Machine {
    /// Makes a machine of `node`, with `stolos` (a path) in /usr/local/bin.
    pub fn of(node: &Node, stolos: &Path) -> Result<Self> {
        let top = node.host().elsewhere(node.netns().clone(), node.cgroup().clone(), node.dir().to_owned());
        let scratch = node.dir().join("machine");
        std::fs::create_dir(&scratch)?;
        let program = Program::new("unshare").named("machine");
        let program = program.args(["--mount", "--cgroup", "--uts", "--propagation", "private", "sh", "-c", SET_UP]);
        let program = program.arg("sh").arg(&scratch).arg(node.name()).arg(stolos);
        let (holder, _stdin, stdout) = top.start_piped(program)?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        if line.trim() != "ready" {
            bail!("no machine could be made:\n{}", holder.log_text());
        }
        Ok(Self { place: node.host().clone(), holder })
    }

    /// `program` inside of the machine, in root's home directory; to be started at [`Machine::place`].
    pub fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Program {
        let name = Path::new(program.as_ref()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let enter = Program::new("nsenter").named(name).args(["--target", &self.holder.pid().to_string()]);
        let enter = enter.args(["--mount", "--cgroup", "--uts", "env", "--chdir=/root", "HOME=/root"]);
        enter.arg(program.as_ref().to_owned())
    }

    /// Where its programs are started: the node's namespace, and its cgroup for what is no workload.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// A path of the machine, as it is reached from outside.
    pub fn outside(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(self.holder.pid().to_string()).join("root").join(path.trim_start_matches('/'))
    }

    /// Reads a file of the machine.
    pub fn read(&self, path: &str) -> Result<String> {
        std::fs::read_to_string(self.outside(path)).with_context(|| format!("cannot read {path}"))
    }
}
