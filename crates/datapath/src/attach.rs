//! Loads the programs, attaches them to one cgroup, and pins everything so that enforcement outlives this process.
//!
//! A later process takes over in place: it reuses the pinned maps and replaces the programs of the pinned links one by one,
//! each atomically. Start at [`Datapath::attach`].

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use libbpf_rs::query::LinkTypeInfo;
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Object, ProgramMut};

use crate::abi::{self, Plain};
use crate::apply::Live;
use crate::bpffs::{self, BpffsError};
use crate::capacity::Capacity;
use crate::event::{Events, EventsError};
use crate::feature::{Feature, errno_from_connect};
use crate::object::{self, LoadError, is_pinned, load_core, map_path};
use crate::page::Page;
use crate::walk::Walks;

/// Layout of the pinned maps. Programs of another layout live beside these until they are detached.
const LAYOUT: &str = "v1";

/// Programs on the cgroup, in the order of attachment: writers before the gate, so that nothing is refused unlabelled.
const PROGRAMS: [(&str, &str); 7] = [
    ("stolos_socket", "socket"),
    ("stolos_create", "create"),
    ("stolos_sendmsg4", "sendmsg4"),
    ("stolos_sendmsg6", "sendmsg6"),
    ("stolos_connect4", "connect4"),
    ("stolos_connect6", "connect6"),
    ("stolos_ingress", "ingress"),
];

/// The program that is attached only while live connections may have to be stopped (PROTOCOL rule 14).
const EGRESS: (&str, &str) = ("stolos_egress", "egress");

/// Where and how to attach.
#[derive(Clone, Debug)]
pub struct Options {
    /// cgroup v2 directory; everything in and below it is covered.
    pub cgroup: PathBuf,
    /// Directory on a BPF file system; mounted when it is none.
    pub pin: PathBuf,
    /// Abilities not to use although the kernel has them.
    pub force_off: BTreeSet<Feature>,
    /// Sizes of maps that are made; maps taken over keep theirs.
    pub capacity: Capacity,
}

impl Options {
    /// Everything the kernel can, default sizes.
    pub fn new(cgroup: impl Into<PathBuf>, pin: impl Into<PathBuf>) -> Self {
        Self { cgroup: cgroup.into(), pin: pin.into(), force_off: BTreeSet::new(), capacity: Capacity::default() }
    }
}

/// Why the datapath is not attached. Links and maps that were pinned before stay as they were.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No BPF file system.
    #[error("nowhere to pin")]
    Bpffs(#[from] BpffsError),
    /// The cgroup cannot be opened.
    #[error("cgroup {path} cannot be opened")]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The programs cannot be loaded.
    #[error("the kernel programs cannot be loaded")]
    Load(#[from] LoadError),
    /// A program cannot be attached or its link not be replaced.
    #[error("program {program} cannot be attached")]
    Program {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: libbpf_rs::Error,
    },
    /// A pinned link belongs to another cgroup.
    #[error(
        "what is pinned at {pin} is attached to cgroup {pinned}, not to {wanted}; use another directory or detach it"
    )]
    OtherCgroup {
        /// The pin directory.
        pin: PathBuf,
        /// Id of the cgroup it is attached to.
        pinned: u64,
        /// Id of the cgroup asked for.
        wanted: u64,
    },
    /// A map cannot be pinned.
    #[error("map {map} cannot be pinned")]
    Pin {
        /// Which.
        map: String,
        /// Why.
        #[source]
        source: libbpf_rs::Error,
    },
    /// The configuration cannot be mapped.
    #[error("the configuration map cannot be mapped")]
    Page(#[source] io::Error),
    /// The ring of records cannot be opened.
    #[error("the ring of records cannot be opened")]
    Events(#[from] EventsError),
    /// No random numbers.
    #[error("no random numbers")]
    Random,
}

/// Why the datapath could not be removed completely.
#[derive(Debug, thiserror::Error)]
#[error("{path} could not be removed")]
pub struct DetachError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The kernel did not take the mark: the socket stays as any other.
#[derive(Debug, thiserror::Error)]
#[error("the socket cannot be exempted")]
pub struct ExemptError(#[source] libbpf_rs::Error);

/// Handles of the maps that user space touches.
pub(crate) struct Maps {
    pub(crate) workloads: MapHandle,
    pub(crate) locals: MapHandle,
    pub(crate) peers: MapHandle,
    pub(crate) nodes: MapHandle,
    pub(crate) places: MapHandle,
    pub(crate) members: MapHandle,
    pub(crate) verdicts: MapHandle,
    pub(crate) ports: MapHandle,
    pub(crate) networks: MapHandle,
    pub(crate) denials: MapHandle,
    pub(crate) stages: MapHandle,
    pub(crate) socks: MapHandle,
}

/// The datapath of one node. Dropping it leaves it in force; [`Datapath::detach`] removes it.
pub struct Datapath {
    pub(crate) maps: Maps,
    pub(crate) page: Page,
    pub(crate) live: Live,
    pub(crate) events: Events,
    pub(crate) walks: Walks,
    features: BTreeSet<Feature>,
    taken_over: bool,
    cgroup: File,
    pin: PathBuf,
    object: Object,
}

impl Datapath {
    /// Loads, attaches and pins; or takes over what is pinned at `options.pin`, without a gap.
    ///
    /// Until the first [`Datapath::apply`] after a fresh attach everything passes.
    pub fn attach(options: Options) -> Result<Self, AttachError> {
        bpffs::ensure(&options.pin)?;
        let root = options.pin.join(LAYOUT);
        let (maps_dir, links_dir) = (root.join("maps"), root.join("links"));
        for dir in [&maps_dir, &links_dir] {
            std::fs::create_dir_all(dir)
                .map_err(|source| BpffsError::Directory { path: dir.clone(), source })
                .map_err(AttachError::Bpffs)?;
        }
        let cgroup = open_cgroup(&options.cgroup)?;
        let wanted = |feature: &Feature| !options.force_off.contains(feature);
        let mut features: BTreeSet<Feature> =
            [Feature::ErrnoFromConnect].into_iter().filter(|f| wanted(f) && errno_from_connect()).collect();
        let taken_over = map_path(&maps_dir, "config").exists();
        let mut object = load_core(&maps_dir, &options.capacity, &features)?;
        pin_maps(&mut object, &maps_dir)?;
        let maps = Maps::of(&object)?;
        let mut page = Page::map(&object::handle(&object, "config")?).map_err(AttachError::Page)?;
        if page.read().secret == [0, 0] {
            page.write(&abi::Config { secret: secret()?, ..page.read() });
        }
        for (program, link) in PROGRAMS {
            let of = program_of(&object, program);
            attach_program(&of, &cgroup, &links_dir.join(link), &options.pin)
                .map_err(|error| error.into_attach(program))?;
        }
        let walks = Walks::load(&object, &maps_dir, wanted)?;
        features.extend(walks.features());
        let live = Live::read(&maps, &page.read());
        let events = Events::open(&object::handle(&object, "events")?)?;
        let pin = options.pin;
        let datapath = Self { maps, page, live, events, walks, features, taken_over, cgroup, pin, object };
        if datapath.egress_path().exists() || !datapath.features.contains(&Feature::SocketDestroy) {
            datapath.attach_egress()?;
        }
        Ok(datapath)
    }

    fn egress_path(&self) -> PathBuf {
        self.pin.join(LAYOUT).join("links").join(EGRESS.1)
    }

    /// Stops what the next epoch refuses from sending on, until [`Datapath::settled`].
    pub(crate) fn attach_egress(&self) -> Result<(), AttachError> {
        let program = program_of(&self.object, EGRESS.0);
        attach_program(&program, &self.cgroup, &self.egress_path(), &self.pin).map_err(|e| e.into_attach(EGRESS.0))
    }

    /// To be called when every network namespace was swept after an [`Datapath::apply`]: the check of outgoing segments,
    /// which costs each of them some 100 ns, is taken off until the next change. Without the ability to destroy sockets it stays.
    pub fn settled(&mut self) -> Result<(), DetachError> {
        let path = self.egress_path();
        if !self.features.contains(&Feature::SocketDestroy) || !path.exists() {
            return Ok(());
        }
        remove(&path)
    }

    /// Leaves a socket of the agent's own alone: whatever it connects to or accepts passes, without identity.
    pub fn exempt(&self, socket: BorrowedFd<'_>) -> Result<(), ExemptError> {
        let state = abi::SockState { role: abi::ROLE_EXEMPT, ..Default::default() };
        let fd = socket.as_raw_fd() as u32;
        self.maps.socks.update(fd.bytes(), state.bytes(), MapFlags::ANY).map_err(ExemptError)
    }

    /// What this kernel gives and the options left on.
    pub fn features(&self) -> &BTreeSet<Feature> {
        &self.features
    }

    /// Whether a predecessor's maps and links were taken over.
    pub fn taken_over(&self) -> bool {
        self.taken_over
    }

    /// Removes links and pins: nothing is enforced any more. Errors: what could not be removed stays.
    pub fn detach(self) -> Result<(), DetachError> {
        let root = self.pin.join(LAYOUT);
        // The gate goes first: without it nothing is refused while the rest is taken down.
        for (_, link) in PROGRAMS.iter().rev() {
            remove(&root.join("links").join(link))?;
        }
        drop(self.walks);
        for dir in ["links", "maps"] {
            let dir = root.join(dir);
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                remove(&entry.path())?;
            }
            remove_dir(&dir)?;
        }
        remove_dir(&root)
    }
}

fn remove(path: &Path) -> Result<(), DetachError> {
    std::fs::remove_file(path).map_err(|source| DetachError { path: path.into(), source })
}

fn remove_dir(path: &Path) -> Result<(), DetachError> {
    std::fs::remove_dir(path).map_err(|source| DetachError { path: path.into(), source })
}

fn open_cgroup(path: &Path) -> Result<File, AttachError> {
    File::open(path).map_err(|source| AttachError::Cgroup { path: path.into(), source })
}

fn secret() -> Result<[u64; 2], AttachError> {
    let mut bytes = [[0; 8]; 2];
    for half in &mut bytes {
        rand::fill(half).map_err(|_| AttachError::Random)?;
    }
    Ok(bytes.map(u64::from_ne_bytes))
}

fn pin_maps(object: &mut Object, dir: &Path) -> Result<(), AttachError> {
    for mut map in object.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        let path = map_path(dir, &name);
        if is_pinned(&name) && !path.exists() {
            map.pin(&path).map_err(|source| AttachError::Pin { map: name, source })?;
        }
    }
    Ok(())
}

pub(crate) fn program_of<'o>(object: &'o Object, name: &str) -> ProgramMut<'o> {
    object.progs_mut().find(|program| program.name() == name).unwrap_or_else(|| panic!("BUG: no program {name}"))
}

/// Why one program is not attached.
enum LinkError {
    Kernel(libbpf_rs::Error),
    OtherCgroup { pin: PathBuf, pinned: u64, wanted: u64 },
}

impl LinkError {
    fn into_attach(self, program: &'static str) -> AttachError {
        match self {
            LinkError::Kernel(source) => AttachError::Program { program, source },
            LinkError::OtherCgroup { pin, pinned, wanted } => AttachError::OtherCgroup { pin, pinned, wanted },
        }
    }
}

/// Replaces the program of the link pinned at `path`, or makes and pins the link.
fn attach_program(program: &ProgramMut<'_>, cgroup: &File, path: &Path, pin: &Path) -> Result<(), LinkError> {
    if path.exists() {
        let mut link = Link::open(path).map_err(LinkError::Kernel)?;
        let wanted = std::os::unix::fs::MetadataExt::ino(&cgroup.metadata().map_err(|e| LinkError::Kernel(e.into()))?);
        if let LinkTypeInfo::Cgroup(info) = link.info().map_err(LinkError::Kernel)?.info
            && info.cgroup_id != wanted
        {
            return Err(LinkError::OtherCgroup { pin: pin.into(), pinned: info.cgroup_id, wanted });
        }
        return link.update_prog(program).map_err(LinkError::Kernel);
    }
    let mut link = program.attach_cgroup(cgroup.as_raw_fd()).map_err(LinkError::Kernel)?;
    link.pin(path).map_err(LinkError::Kernel)
}

impl Maps {
    fn of(object: &Object) -> Result<Self, LoadError> {
        let map = |name| object::handle(object, name);
        Ok(Self {
            workloads: map("workloads")?,
            locals: map("locals")?,
            peers: map("peers")?,
            nodes: map("nodes")?,
            places: map("places")?,
            members: map("members")?,
            verdicts: map("verdicts")?,
            ports: map("ports")?,
            networks: map("networks")?,
            denials: map("denials")?,
            stages: map("stages")?,
            socks: map("socks")?,
        })
    }
}
