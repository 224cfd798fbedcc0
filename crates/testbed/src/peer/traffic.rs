//! Sequence-checked traffic: many connections, each counting, no reply lost or doubled without being noticed.

use std::io::{BufRead as _, BufReader, Error, ErrorKind, Read as _, Result, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::script::{Speak, TrafficReport};

/// A reply that takes longer counts as a broken connection.
const REPLY_LIMIT: Duration = Duration::from_secs(15);

pub(super) struct Running {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    report: Mutex<TrafficReport>,
    stop: AtomicBool,
}

impl Running {
    pub(super) fn begin(to: SocketAddr, connections: u16, every: Duration, speak: Speak) -> Self {
        let shared = Arc::new(Shared { report: Mutex::default(), stop: AtomicBool::new(false) });
        let opened: Vec<_> = (0..connections).map(|_| TcpStream::connect_timeout(&to, REPLY_LIMIT)).collect();
        let mut threads = Vec::new();
        for stream in opened {
            let shared = Arc::clone(&shared);
            match stream {
                Ok(stream) => {
                    shared.count(|report| report.opened += 1);
                    threads.push(std::thread::spawn(move || shared.run(stream, every, speak)));
                }
                Err(error) => shared.broken(&error),
            }
        }
        Self { shared, threads }
    }

    pub(super) fn report(&self) -> TrafficReport {
        self.shared.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn end(self) -> TrafficReport {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
        self.shared.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn count(&self, change: impl FnOnce(&mut TrafficReport)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn broken(&self, error: &Error) {
        self.count(|report| {
            report.broken += 1;
            report.first_break.get_or_insert_with(|| error.to_string());
        });
    }

    fn run(&self, stream: TcpStream, every: Duration, speak: Speak) {
        let key = format!("seq:{:016x}", rand::random::<u64>());
        let prepared = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(REPLY_LIMIT)));
        let mut reader = BufReader::new(stream);
        let mut number = 0;
        let mut outcome = prepared;
        while outcome.is_ok() && !self.stop.load(Ordering::Relaxed) {
            number += 1;
            let start = Instant::now();
            self.count(|report| report.sent += 1);
            outcome = match speak {
                Speak::Echo => echo(&mut reader, number),
                Speak::Redis => increment(&mut reader, &key),
            }
            .map(|reply| {
                self.count(|report| {
                    *(if reply == number { &mut report.right } else { &mut report.wrong }) += 1;
                    report.slowest = report.slowest.max(start.elapsed());
                });
            });
            std::thread::sleep(every);
        }
        if let Err(error) = outcome {
            self.broken(&error);
        }
    }
}

fn echo(reader: &mut BufReader<TcpStream>, number: u64) -> Result<u64> {
    reader.get_mut().write_all(&number.to_be_bytes())?;
    let mut reply = [0; 8];
    reader.read_exact(&mut reply)?;
    Ok(u64::from_be_bytes(reply))
}

fn increment(reader: &mut BufReader<TcpStream>, key: &str) -> Result<u64> {
    write!(reader.get_mut(), "*2\r\n$4\r\nINCR\r\n${}\r\n{key}\r\n", key.len())?;
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let number = line.strip_prefix(':').and_then(|rest| rest.trim_end().parse().ok());
    number.ok_or_else(|| Error::new(ErrorKind::InvalidData, format!("redis says {line:?}")))
}
