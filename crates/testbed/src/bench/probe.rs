//! A probe: connects again and again and says when the answer changes.

use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::net::sockopt::set_socket_linger;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Between two attempts: what the probe's answer is exact to.
pub const EVERY: Duration = Duration::from_micros(500);
/// An attempt that takes longer was dropped in silence, which is neither answer.
const ATTEMPT: Duration = Duration::from_millis(250);

/// The answer has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flip {
    /// Connections are accepted from here on; otherwise they are refused.
    pub open: bool,
    /// When the first attempt with this answer began, on this machine's monotonic clock.
    pub at_ns: u64,
}

/// Nanoseconds of the monotonic clock, which all processes of the machine share.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Probes until killed; writes one [`Flip`] as JSON for the first answer and for each change.
pub fn probe(at: SocketAddr) -> Result<()> {
    let mut last = None;
    loop {
        let at_ns = monotonic_ns();
        if let Some(open) = attempt(at)?
            && last != Some(open)
        {
            last = Some(open);
            let mut out = std::io::stdout().lock();
            serde_json::to_writer(&mut out, &Flip { open, at_ns })?;
            out.write_all(b"\n")?;
            out.flush()?;
        }
        std::thread::sleep(EVERY);
    }
}

/// Whether a connection was accepted; `None`: no answer in time, or cut in between. Errors: neither accepted nor refused.
fn attempt(at: SocketAddr) -> Result<Option<bool>> {
    match TcpStream::connect_timeout(&at, ATTEMPT) {
        Ok(stream) => {
            // A reset at the close: no port waits in TIME_WAIT.
            set_socket_linger(&stream, Some(Duration::ZERO))?;
            Ok(Some(true))
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Some(false)),
        // The sweep ended it while it was being made: the next attempt tells.
        Err(error) if [ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset].contains(&error.kind()) => Ok(None),
        Err(error) if error.kind() == ErrorKind::TimedOut => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot probe {at}")),
    }
}
