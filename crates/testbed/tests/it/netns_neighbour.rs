//! Beside another sock_ops program that writes header options, attached before ours and after: both are on the wire where there
//! is room, and where there is none the call is refused with its code.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};
use handshake::option::Message;
use handshake::segment::{Segment, TcpFlags};
use libbpf_rs::{Link, Object, ObjectBuilder};
use policy::reason::Reason;
use testbed::attack::oracle::option_of;
use testbed::attack::tap::Tap;
use testbed::fleet::{Fleet, TCP};
use testbed::node::Node;
use testbed::run::Run;
use testbed::wait;
use testbed::world::World;

use crate::guarded::{Guarded, LIMIT, SILENCE};

const PORT: u16 = 5432;
const THEIRS: [u8; 4] = [254, 4, 0xAB, 0xCD];

/// ELF files are read in place, so they must be aligned.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);
static NEIGHBOUR: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/neighbour.bpf.o")));

struct Neighbour {
    _object: Object,
    _link: Link,
}

impl Neighbour {
    fn attach(node: &Node) -> Result<Self> {
        let object = ObjectBuilder::default().open_memory(&NEIGHBOUR.0)?.load()?;
        let program = object.progs_mut().next().context("one program")?;
        let link = program.attach_cgroup(File::open(node.cgroup().path())?.as_raw_fd())?;
        Ok(Self { _object: object, _link: link })
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    Before,
    After,
}

fn theirs(segment: &Segment) -> bool {
    segment.options.windows(4).any(|window| window == THEIRS)
}

/// Timestamps take twelve of a SYN's forty bytes: with them ours fits alone, without them both fit.
fn timestamps(node: &Node, on: bool) -> Result<()> {
    let value = if on { "1" } else { "0" };
    node.enter(move || Ok(std::fs::write("/proc/sys/net/ipv4/tcp_timestamps", value)?))
}

struct Street {
    run: Run,
    world: World,
    web: testbed::node::Workload,
    db: testbed::node::Workload,
    guarded: Guarded,
    _neighbours: Vec<Neighbour>,
}

impl Street {
    /// `web` may reach `db`; the neighbour lives on these nodes.
    fn build(name: &str, order: Order, on: &[usize], with_timestamps: bool) -> Result<Self> {
        let run = Run::start(name)?;
        let world = World::one_cluster(&run, 2)?;
        let nodes = world.clusters[0].nodes.clone();
        let (web, db) = (nodes[0].workload("web")?, nodes[1].workload("db")?);
        let mut fleet = Fleet::of(&world)?;
        fleet.add(&nodes[0], &web, "web")?;
        fleet.add(&nodes[1], &db, "db")?;
        fleet.allow("web", "db", TCP, PORT..=PORT);
        for node in &nodes {
            timestamps(node, with_timestamps)?;
        }
        let neighbours = || on.iter().map(|node| Neighbour::attach(&nodes[*node])).collect::<Result<Vec<_>>>();
        let first = if order == Order::Before { neighbours()? } else { Vec::new() };
        let guarded = Guarded::attach(&nodes, &fleet)?;
        let neighbours = if order == Order::After { neighbours()? } else { first };
        Ok(Self { run, world, web, db, guarded, _neighbours: neighbours })
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        self.world.clusters[0].nodes[1].addresses().both().map(|address| SocketAddr::new(address, PORT))
    }
}

#[test]
fn both_options_are_on_every_segment_that_has_room_and_theirs_stays_when_ours_is_done() -> Result<()> {
    for order in [Order::Before, Order::After] {
        let street = Street::build("neighbour-room", order, &[0, 1], false)?;
        let (asking, serving) = (street.web.peer()?, street.db.peer()?);
        for to in street.addresses() {
            serving.listen(to.ip(), PORT)?;
            let tap = Tap::open(street.world.clusters[0].nodes[1].netns())?;
            let live = asking.connect(to, LIMIT)??;
            for _ in 0..4 {
                live.exchange(LIMIT)??;
            }
            let heard = wait::until("four questions and echoes", LIMIT, || {
                let heard = tap.heard(|s| s.source.port() == PORT || s.destination.port() == PORT);
                let data = heard.iter().filter(|s| !s.payload.is_empty());
                let (asked, echoed): (Vec<&Segment>, Vec<&Segment>) = data.partition(|s| s.destination.port() == PORT);
                (asked.len() >= 4 && echoed.len() >= 4).then_some(heard.clone())
            })?;
            let of = |flags: TcpFlags| heard.iter().find(|s| s.flags == flags).context("a segment");
            for (segment, message) in [
                (of(TcpFlags::SYN)?, Message::Syn),
                (of(TcpFlags::SYN_ACK)?, Message::SynAck),
                (of(TcpFlags::ACK)?, Message::Ack),
            ] {
                assert_eq!(option_of(segment)?.fields.message, message, "{order:?}");
                assert!(theirs(segment), "{order:?}: {segment:?}");
            }
            let data: Vec<_> = heard.iter().filter(|s| !s.payload.is_empty()).collect();
            let (last, echoed): (Vec<&Segment>, Vec<&Segment>) =
                data.into_iter().partition(|s| s.destination.port() == PORT);
            assert!(option_of(last.last().context("data")?).is_err(), "ours is not repeated for ever");
            assert!(theirs(last.last().context("data")?) && theirs(echoed.last().context("an echo")?), "{order:?}");
        }
        street.run.finish()?;
    }
    Ok(())
}

#[test]
fn attached_first_ours_has_the_room_of_a_syn() -> Result<()> {
    let mut street = Street::build("neighbour-after", Order::After, &[0, 1], true)?;
    let node = street.world.clusters[0].nodes[1].clone();
    let (asking, serving) = (street.web.peer()?, street.db.peer()?);
    for to in street.addresses() {
        serving.listen(to.ip(), PORT)?;
        let tap = Tap::open(node.netns())?;
        asking.request(to, LIMIT)??;
        let syn = tap.wait("the SYN", LIMIT, |s| s.flags == TcpFlags::SYN && s.destination == to)?;
        assert!(option_of(&syn).is_ok() && !theirs(&syn), "{syn:?}");
    }
    assert_eq!(street.guarded.refused(&node, Reason::NoOptionSpace)?, 0);
    street.run.finish()
}

#[test]
fn attached_after_one_that_takes_the_room_the_call_is_refused_with_its_code() -> Result<()> {
    for (number, at) in ["client", "server"].into_iter().enumerate() {
        let mut street = Street::build("neighbour-before", Order::Before, &[number], true)?;
        let node = street.world.clusters[0].nodes[number].clone();
        let (asking, serving) = (street.web.peer()?, street.db.peer()?);
        for to in street.addresses() {
            let listener = serving.listen(to.ip(), PORT)?;
            let before = street.guarded.refused(&node, Reason::NoOptionSpace)?;
            assert!(asking.connect(to, SILENCE)?.is_err(), "{at}");
            assert!(street.guarded.refused(&node, Reason::NoOptionSpace)? > before, "{at}");
            assert_eq!(listener.accepted()?, [], "{at}");
        }
        street.run.finish()?;
    }
    Ok(())
}
