//! The load: a server and a client over blocking sockets, as processes of their own, so that they can be workloads.
//!
//! Every connection begins with 16-byte messages. One that begins with `R` is sent back; one that begins with `B` opens a
//! bulk transfer, whose length the server tells at its end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::net::sockopt::set_socket_linger;
use serde::{Deserialize, Serialize};

use super::affinity::pin;

const MESSAGE: usize = 16;
const BULK: usize = 256 << 10;
/// A slice lasts until each thread has done so much, however loaded the machine is: the first round trip of a kept
/// connection paid for the connection and is left out.
const OPERATIONS_MIN: usize = 2;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// connect, one request, one reply, reset; again and again.
    Connect,
    /// One connection, one request after the other.
    KeepAlive,
    /// One connection, one direction, as fast as it goes.
    Bulk,
}

/// One slice of load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Slice {
    /// What to do.
    pub work: Work,
    /// Where.
    pub to: SocketAddr,
    /// How long.
    pub duration: Duration,
    /// Client threads.
    pub threads: usize,
    /// The only processor to run on.
    pub core: Option<usize>,
    /// Operations begin so far apart on each thread; `None`: one right after the other.
    #[serde(default)]
    pub every: Option<Duration>,
}

/// What a slice of load measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Operations (connections, requests) or bytes.
    pub count: u64,
    /// Per second, closes included.
    pub per_second: f64,
    /// Microseconds per operation; 0 for bulk.
    pub p50_us: f64,
    /// The same.
    pub p99_us: f64,
}

/// Serves until killed, `threads` connections at a time. Says `ready` on standard output.
pub fn serve(at: SocketAddr, threads: usize, core: Option<usize>) -> Result<()> {
    pin(core)?;
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen at {at}"))?;
    println!("ready");
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    // A connection that failed is the client's to report.
                    let _ = listener.accept().and_then(|(stream, _)| answer(stream));
                }
            });
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut message = [0; MESSAGE];
    loop {
        match stream.read_exact(&mut message) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            result => result?,
        }
        if message[0] == b'B' {
            let mut buffer = vec![0; BULK];
            let mut total = 0u64;
            loop {
                match stream.read(&mut buffer)? {
                    0 => return stream.write_all(&total.to_be_bytes()),
                    n => total += n as u64,
                }
            }
        }
        stream.write_all(&message)?;
    }
}

/// Runs one slice of load.
pub fn drive(slice: &Slice) -> Result<Measured> {
    pin(slice.core)?;
    let start = Instant::now();
    if slice.work == Work::Bulk {
        return bulk(slice);
    }
    let latencies = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..slice.threads).map(|_| scope.spawn(|| operate(slice, start))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().expect("BUG: a load thread panicked"));
        joined.collect::<Result<Vec<_>>>()
    })?;
    let elapsed = start.elapsed();
    let mut all: Vec<u64> = latencies.into_iter().flatten().collect();
    all.sort_unstable();
    let percentile = |p: usize| all.get(all.len().saturating_sub(1) * p / 100).map_or(0.0, |ns| *ns as f64 / 1000.0);
    Ok(Measured {
        count: all.len() as u64,
        per_second: all.len() as f64 / elapsed.as_secs_f64(),
        p50_us: percentile(50),
        p99_us: percentile(99),
    })
}

/// Nanoseconds of each operation.
fn operate(slice: &Slice, start: Instant) -> Result<Vec<u64>> {
    let mut latencies = Vec::with_capacity(1 << 16);
    let mut kept = None;
    while start.elapsed() < slice.duration || latencies.len() < OPERATIONS_MIN {
        if let Some(every) = slice.every {
            let due = every * u32::try_from(latencies.len())?;
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
        let began = Instant::now();
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => connect(slice.to)?,
        };
        let mut message = [b'R'; MESSAGE];
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        latencies.push(u64::try_from(began.elapsed().as_nanos())?);
        if slice.work == Work::KeepAlive {
            kept = Some(stream);
        }
    }
    if kept.is_some() {
        latencies.swap_remove(0);
    }
    Ok(latencies)
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    stream.set_nodelay(true)?;
    // A reset at the close: no port waits in TIME_WAIT, however many connections there are.
    set_socket_linger(&stream, Some(Duration::ZERO))?;
    Ok(stream)
}

fn bulk(slice: &Slice) -> Result<Measured> {
    let mut stream = connect(slice.to)?;
    set_socket_linger(&stream, None)?;
    stream.write_all(&[b'B'; MESSAGE])?;
    let buffer = vec![0; BULK];
    let start = Instant::now();
    loop {
        stream.write_all(&buffer)?;
        if start.elapsed() >= slice.duration {
            break;
        }
    }
    stream.shutdown(Shutdown::Write)?;
    let mut total = [0; 8];
    stream.read_exact(&mut total)?;
    let count = u64::from_be_bytes(total);
    Ok(Measured { count, per_second: count as f64 / start.elapsed().as_secs_f64(), ..Measured::default() })
}
