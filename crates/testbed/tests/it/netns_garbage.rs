//! Garbage through the kernel's programs under BPF_PROG_TEST_RUN: never harmful, never accepted, and read as the model reads it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use datapath::{Datapath, Options};
use handshake::model::Local;
use handshake::option::{Flags, LENGTH, Message, find};
use handshake::segment::{Segment, TcpFlags};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, Object, ObjectBuilder, ProgramInput};
use policy::reason::Reason;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use testbed::attack::forge::Forgery;
use testbed::attack::oracle::{Oracle, asks_fast_open, tables_of};
use testbed::attack::speak::Speaker;
use testbed::attack::{Fate, Tally};
use testbed::fleet::{Fleet, TCP};
use testbed::node::Workload;
use testbed::run::Run;
use testbed::world::World;

/// Packets through each program, for each family.
const COUNT: usize = 6000;

/// ELF files are read in place, so they must be aligned.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);
static HARNESS: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/harness.bpf.o")));

/// A workload `db` under a datapath of its own, the harness on that datapath's maps, and a peer whose keys are known.
struct Bench {
    run: Run,
    datapath: Datapath,
    harness: Object,
    readings: MapHandle,
    oracle: Oracle,
    spy: Speaker,
    stamp: u32,
    ends: Vec<(IpAddr, IpAddr)>,
}

impl Bench {
    fn build(name: &str) -> Result<Self> {
        let run = Run::start(name)?;
        let world = World::one_cluster(&run, 2)?;
        let [a, b] = &world.clusters[0].nodes[..] else { panic!("two nodes were asked for") };
        let (db, web) = (a.workload("db")?, b.workload("web")?);
        let mut fleet = Fleet::of(&world)?;
        let (db_at, web_at) = (fleet.add(a, &db, "db")?, fleet.add(b, &web, "web")?);
        fleet.allow("web", "db", TCP, 1..=u16::MAX);
        fleet.allow("db", "web", TCP, 1..=u16::MAX);
        let pin = a.bpffs()?.join("garbage");
        let mut datapath = Datapath::attach(Options::new(a.cgroup().path(), &pin))?;
        let state = fleet.state(a);
        datapath.apply(&state)?;
        let (harness, readings) = load(&pin.join("v1/maps"))?;
        let stamp = stamp_of(&datapath, &db)?;
        let captured = tables_of(&fleet.state(b))?;
        let instance = captured.instances[&web_at];
        let spy = Speaker { tables: captured, says: Local { at: web_at, instance, flags: Flags::NONE } };
        let ends = web.addresses().both().into_iter().zip(db.addresses().both()).collect();
        Ok(Self { run, datapath, harness, readings, oracle: Oracle::of(&state, db_at)?, spy, stamp, ends })
    }

    /// What a program says to a packet at a socket of `db`.
    fn ask(&self, program: &str, packet: &[u8]) -> Result<u32> {
        let program = self.harness.progs_mut().find(|p| p.name() == program).context("a program of the harness")?;
        let ether = if packet[0] >> 4 == 6 { [0x86, 0xDD] } else { [0x08, 0x00] };
        let frame = [&[0; 12][..], &ether, packet].concat();
        // The head of a `struct __sk_buff`: length, packet type, mark.
        let mut context = [[0; 4], [0; 4], self.stamp.to_ne_bytes()].concat();
        let input = ProgramInput { context_in: Some(&mut context), data_in: Some(&frame), ..ProgramInput::default() };
        Ok(program.test_run(input).with_context(|| format!("{packet:02x?}"))?.return_value)
    }

    /// Segments that verify in nothing but their key, one for each message.
    fn bases(&self, from: IpAddr, to: IpAddr, random: &mut StdRng) -> Result<Vec<(Segment, Message)>> {
        let (from, to) = (SocketAddr::new(from, 7001), SocketAddr::new(to, 5432));
        let syn = self.spy.syn(from, to, random.random(), self.oracle.now())?;
        let mut bases = Vec::new();
        for (message, flags, kinds) in [
            (Message::Syn, TcpFlags::SYN, 1),
            (Message::SynAck, TcpFlags::SYN_ACK, 2),
            (Message::Ack, TcpFlags::ACK, 3),
        ] {
            let mut segment = syn.clone();
            segment.flags = flags;
            segment.ack = random.random();
            let at = segment.options.len() - LENGTH;
            segment.options[at + 4] = 1 << 6 | kinds << 4;
            bases.push((Forgery::WrongKey.apply(&segment, message, random), message));
        }
        Ok(bases)
    }
}

fn load(maps: &std::path::Path) -> Result<(Object, MapHandle)> {
    let mut object = ObjectBuilder::default().open_memory(&HARNESS.0)?;
    for mut map in object.maps_mut() {
        let path = maps.join(map.name());
        if path.exists() {
            map.reuse_pinned_map(&path)?;
        }
    }
    let object = object.load()?;
    let readings = object.maps().find(|map| map.name() == "readings").context("the map of readings")?;
    let readings = MapHandle::try_from(&readings)?;
    Ok((object, readings))
}

fn stamp_of(datapath: &Datapath, workload: &Workload) -> Result<u32> {
    let id = workload.cgroup_id()?;
    (0..64).map(|index| 1 << 16 | index).find(|stamp| datapath.cgroups_of(*stamp).contains(&id)).context("a stamp")
}

/// One way to spoil a segment. Most results are still packets; few are still handshakes.
fn spoil(base: &Segment, message: Message, random: &mut StdRng) -> Result<Vec<u8>> {
    let kinds = Forgery::of(message);
    let mut segment = match random.random_range(0..4) {
        0 => kinds[random.random_range(1..kinds.len())].apply(base, message, random),
        1 => Segment { options: option_list(base, random), ..base.clone() },
        _ => base.clone(),
    };
    if random.random_ratio(1, 4) {
        segment.payload = (0..random.random_range(1..64)).map(|_| random.random()).collect();
    }
    let mut packet = segment.to_packet()?;
    if random.random_ratio(1, 3) {
        packet = between_headers(&packet, random);
    }
    match random.random_range(0..4) {
        0 => (0..random.random_range(1..8)).for_each(|_| {
            let at = random.random_range(0..packet.len());
            packet[at] = random.random();
        }),
        1 if random.random_ratio(1, 2) => packet.truncate(random.random_range(1..=packet.len())),
        1 => packet.iter_mut().skip(random.random_range(1..60)).for_each(|byte| *byte = random.random()),
        _ => {}
    }
    Ok(packet)
}

/// Options one after another, true to their lengths or not, ours among them.
fn option_list(base: &Segment, random: &mut StdRng) -> Vec<u8> {
    let ours = &base.options[base.options.len() - LENGTH..];
    let mut list = Vec::new();
    while list.len() < 40 && !random.random_ratio(1, 6) {
        match random.random_range(0..8) {
            0 => list.push(1),
            1 => list.push(0),
            2 => list.extend(ours),
            3 => list.extend(&ours[..random.random_range(2..LENGTH)]),
            4 => list
                .extend([[34, 2].as_slice(), &[254, 4, 0xF9, 0x89], &[253, 4, 0xF9, 0x89]][random.random_range(0..3)]),
            _ => {
                let length = random.random_range(0..12u8);
                list.extend([[2, 3, 4, 8, 253, 254, 69][random.random_range(0..7)], length]);
                list.extend((2..length).map(|_| random.random::<u8>()));
            }
        }
    }
    list.truncate(40);
    list
}

/// The same packet with IPv4 options or IPv6 extension headers.
fn between_headers(packet: &[u8], random: &mut StdRng) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        let words = random.random_range(1..=10u8);
        let mut longer = [&packet[..20], &vec![1; usize::from(words) * 4], &packet[20..]].concat();
        longer[0] += words;
        let total = u16::try_from(longer.len()).expect("short");
        longer[2..4].copy_from_slice(&total.to_be_bytes());
        return longer;
    }
    let (mut chain, mut first) = (Vec::new(), packet[6]);
    for _ in 0..random.random_range(1..5) {
        let kind = [0, 43, 60, 51, 44][random.random_range(0..5)];
        let units = random.random_range(0..3u8);
        let header = match kind {
            44 => vec![first, 0, 0, 0, 0, 0, 0, 1],
            51 => [&[first, units][..], &vec![0; usize::from(units + 2) * 4 - 2]].concat(),
            _ => [&[first, units][..], &vec![0; usize::from(units + 1) * 8 - 2]].concat(),
        };
        (chain, first) = ([header, chain].concat(), kind);
    }
    let mut longer = [&packet[..40], &chain, &packet[40..]].concat();
    longer[6] = first;
    let length = u16::try_from(longer.len() - 40).expect("short");
    longer[4..6].copy_from_slice(&length.to_be_bytes());
    longer
}

/// As the kernel's stack hands it to the programs: trimmed to the length that the IP header says.
fn is_whole(packet: &[u8]) -> bool {
    let said = |at: usize| packet.get(at..at + 2).map(|b| usize::from(u16::from_be_bytes([b[0], b[1]])));
    match packet[0] >> 4 {
        4 => said(2) == Some(packet.len()),
        _ => said(4).map(|length| length + 40) == Some(packet.len()),
    }
}

/// `struct reading` of the harness.
fn check_reading(reading: &[u8], packet: &[u8]) -> Result<()> {
    let word = |at: usize| u32::from_ne_bytes(reading[at..at + 4].try_into().expect("4 bytes"));
    let half = |at: usize| u16::from_ne_bytes(reading[at..at + 2].try_into().expect("2 bytes"));
    let address =
        |at: usize| IpAddr::from(<[u8; 16]>::try_from(&reading[at..at + 16]).expect("16 bytes")).to_canonical();
    let segment = match Segment::read(packet) {
        Ok(segment) if is_whole(packet) => segment,
        // The stack drops it, or trims it, before a program sees it.
        _ => return Ok(()),
    };
    ensure!(word(60) == 0, "the model can read it");
    ensure!(
        (address(0), address(16)) == (segment.source.ip().to_canonical(), segment.destination.ip().to_canonical()),
        "addresses"
    );
    ensure!((word(32), word(36)) == (segment.seq, segment.ack), "numbers");
    ensure!((half(64), half(66)) == (segment.source.port(), segment.destination.port()), "ports");
    ensure!(reading[68] == segment.flags.0, "flags");
    ensure!((reading[71] == 0) == segment.payload.is_empty(), "data");
    ensure!((reading[70] != 0) == asks_fast_open(&segment.options), "fast open");
    match (reading[69], find(&segment.options)) {
        (0, Ok(None)) => {}
        (1, Ok(Some(option))) => ensure!(reading[40..60] == option.to_bytes(), "the option's bytes"),
        // Ours by name and length; that its fields are no message's is said with the message in hand.
        (1 | 2, Err(_)) => {}
        (kernel, model) => anyhow::bail!("the kernel says {kernel}, the model {model:?}"),
    }
    Ok(())
}

#[test]
fn rule_07_garbage_is_read_by_the_kernel_as_by_the_model() -> Result<()> {
    let bench = Bench::build("garbage-read")?;
    let mut read = 0;
    for (seed, (from, to)) in (1..).zip(bench.ends.clone()) {
        let mut random = StdRng::seed_from_u64(seed);
        let bases = bench.bases(from, to, &mut random)?;
        for number in 0..COUNT {
            let (base, message) = &bases[number % bases.len()];
            let packet = spoil(base, *message, &mut random)?;
            if packet.len() < if to.is_ipv6() { 40 } else { 20 } {
                continue;
            }
            bench.ask("try_parse", &packet)?;
            let reading = bench.readings.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?.context("a reading")?;
            check_reading(&reading, &packet).with_context(|| format!("{number}: {packet:02x?}"))?;
            read += usize::from(Segment::read(&packet).is_ok());
            // The whole program as it is attached; the socket that a test run makes speaks no protocol of ours.
            ensure!(bench.ask("stolos_ingress", &packet)? <= 1, "{packet:02x?}");
        }
    }
    assert!(read > COUNT, "enough of it were segments: {read}");
    bench.datapath.detach()?;
    bench.run.finish()
}

#[test]
fn rule_07_garbage_is_never_accepted_and_refused_for_what_the_model_says() -> Result<()> {
    let bench = Bench::build("garbage-judge")?;
    let mut judged = 0;
    for (seed, (from, to)) in (10..).zip(bench.ends.clone()) {
        let mut random = StdRng::seed_from_u64(seed);
        let bases = bench.bases(from, to, &mut random)?;
        let (before, mut tally) = (bench.datapath.counters().refused, Tally::default());
        let mut others = 0;
        for number in 0..COUNT {
            let (base, message) = &bases[number % bases.len()];
            let packet = spoil(base, *message, &mut random)?;
            if packet.len() < if to.is_ipv6() { 40 } else { 20 } {
                continue;
            }
            let segment = Segment::read(&packet).ok().filter(|_| is_whole(&packet));
            if segment.as_ref().is_none_or(|s| s.flags.contains(TcpFlags::RST)) {
                continue;
            }
            let segment = segment.expect("looked at above");
            let dialled = SocketAddr::new(segment.source.ip(), segment.source.port());
            let (program, fate) = match message {
                Message::SynAck => ("try_caller", Some(bench.oracle.fate_of_syn_ack(&segment, dialled))),
                _ if segment.flags.contains(TcpFlags::SYN) => ("try_listener", bench.oracle.fate_of_syn(&segment)),
                _ => ("try_listener", Some(bench.oracle.fate_of_ack(&segment))),
            };
            assert_eq!(bench.ask(program, &packet)?, 0, "{number}: {fate:?} {packet:02x?}");
            match fate {
                // Judged by address: which of two codes it gets depends on whose address the garbage says.
                None | Some(Fate::Refused(Reason::OptionMissing)) => others += 1,
                Some(fate) => tally.add(fate),
            }
            judged += 1;
        }
        assert_eq!(tally.of(Fate::Accepted) + tally.of(Fate::Answered), 0, "{tally}");
        let mut after = bench.datapath.counters().refused;
        let mut plain = 0;
        for reason in [Reason::OptionMissing, Reason::FleetAddressPlain, Reason::ExternalDeny] {
            plain += after.remove(&reason).unwrap_or(0) - before.get(&reason).copied().unwrap_or(0);
            after.insert(reason, before.get(&reason).copied().unwrap_or(0));
        }
        assert_eq!(plain, others);
        tally.compare(&before, &after)?;
        assert!(tally.refused().len() >= 6, "many ways to be refused: {tally}");
    }
    assert!(judged > COUNT, "{judged}");
    bench.datapath.detach()?;
    bench.run.finish()
}
