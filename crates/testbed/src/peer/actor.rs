//! The peer's own side: reads questions, acts, answers. Ends with its standard input.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::script::{Answer, Ask, Failure, Numbered, Question, Reply};
use super::traffic;

#[derive(Default)]
struct Actor {
    next: AtomicU64,
    listeners: Mutex<BTreeMap<u64, Listening>>,
    connections: Mutex<BTreeMap<u64, Arc<TcpStream>>>,
    traffic: Mutex<BTreeMap<u64, traffic::Running>>,
}

struct Listening {
    socket: Arc<TcpListener>,
    accepted: Arc<Mutex<Vec<SocketAddr>>>,
    thread: JoinHandle<()>,
}

/// Serves questions from standard input until it ends.
pub fn serve() {
    let actor = Arc::new(Actor::default());
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let question: Question = match serde_json::from_str(&line) {
            Ok(question) => question,
            Err(error) => {
                eprintln!("not a question: {error}: {line}");
                continue;
            }
        };
        let actor = Arc::clone(&actor);
        std::thread::spawn(move || {
            let answer = actor.act(question.ask);
            let line = serde_json::to_string(&Numbered { number: question.number, answer });
            let line = line.expect("BUG: an answer cannot be written as JSON") + "\n";
            let mut out = std::io::stdout().lock();
            // The owner has gone where writing fails; then standard input ends, too.
            let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
        });
    }
}

impl Actor {
    fn act(&self, ask: Ask) -> Answer {
        let start = Instant::now();
        let done = match ask {
            Ask::Listen { at } => self.listen(at),
            Ask::Accepted { listener } => Ok(self.accepted(listener)),
            Ask::CloseListener { listener } => self.close_listener(listener),
            Ask::Connect { to, limit } => self.connect(to, limit, start),
            Ask::Request { to, limit } => request(to, limit).map(|()| Reply::Took(start.elapsed())),
            Ask::Exchange { connection, limit } => {
                self.with(connection, |stream| exchange(stream, limit)).map(|()| Reply::Took(start.elapsed()))
            }
            Ask::Say { connection, text, expect, limit } => {
                let said = self.with(connection, |stream| say(stream, &text, &expect, limit));
                said.map(|()| Reply::Took(start.elapsed()))
            }
            Ask::WaitEnd { connection, limit } => {
                self.with(connection, |stream| wait_end(stream, limit)).map(|()| Reply::Took(start.elapsed()))
            }
            Ask::Close { connection } => {
                lock(&self.connections).remove(&connection);
                Ok(Reply::Done)
            }
            Ask::Traffic { to, connections, every, speak } => {
                let id = self.id();
                lock(&self.traffic).insert(id, traffic::Running::begin(to, connections, every, speak));
                Ok(Reply::Began { id })
            }
            Ask::TrafficReport { traffic, stop } => self.traffic_report(traffic, stop),
            Ask::UdpEcho { at } => self.udp_echo(at),
            Ask::UdpRequest { to, limit } => udp_request(to, limit).map(|()| Reply::Took(start.elapsed())),
        };
        done.map_err(|error| failure(&error, start.elapsed()))
    }

    fn id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn listen(&self, at: SocketAddr) -> std::io::Result<Reply> {
        let socket = Arc::new(TcpListener::bind(at)?);
        let port = socket.local_addr()?.port();
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let (listening, count) = (Arc::clone(&socket), Arc::clone(&accepted));
        let thread = std::thread::spawn(move || accept(&listening, &count));
        let id = self.id();
        lock(&self.listeners).insert(id, Listening { socket, accepted, thread });
        Ok(Reply::Listening { id, port })
    }

    fn close_listener(&self, id: u64) -> std::io::Result<Reply> {
        if let Some(listening) = lock(&self.listeners).remove(&id) {
            // Wakes the thread out of accept(), which then lets go of the socket.
            rustix::net::shutdown(&*listening.socket, rustix::net::Shutdown::Both)?;
            drop(listening.socket);
            let _ = listening.thread.join();
        }
        Ok(Reply::Done)
    }

    fn accepted(&self, listener: u64) -> Reply {
        let listeners = lock(&self.listeners);
        Reply::Accepted(listeners.get(&listener).map(|listening| lock(&listening.accepted).clone()).unwrap_or_default())
    }

    fn connect(&self, to: SocketAddr, limit: Duration, start: Instant) -> std::io::Result<Reply> {
        let stream = TcpStream::connect_timeout(&to, limit)?;
        let took = start.elapsed();
        let local = stream.local_addr()?;
        stream.set_nodelay(true)?;
        let id = self.id();
        lock(&self.connections).insert(id, Arc::new(stream));
        Ok(Reply::Connected { id, took, local })
    }

    fn with(&self, id: u64, act: impl FnOnce(&TcpStream) -> std::io::Result<()>) -> std::io::Result<()> {
        let stream = lock(&self.connections).get(&id).cloned();
        act(&*stream.ok_or_else(|| std::io::Error::new(ErrorKind::NotFound, "no such connection"))?)
    }

    fn traffic_report(&self, id: u64, stop: bool) -> std::io::Result<Reply> {
        let mut running = lock(&self.traffic);
        let gone = || std::io::Error::new(ErrorKind::NotFound, "no such traffic");
        let report = if stop {
            running.remove(&id).ok_or_else(gone)?.end()
        } else {
            running.get(&id).ok_or_else(gone)?.report()
        };
        Ok(Reply::Traffic(report))
    }

    fn udp_echo(&self, at: SocketAddr) -> std::io::Result<Reply> {
        let socket = UdpSocket::bind(at)?;
        let port = socket.local_addr()?.port();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
        Ok(Reply::Listening { id: self.id(), port })
    }
}

fn accept(listener: &TcpListener, accepted: &Mutex<Vec<SocketAddr>>) {
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                lock(accepted).push(peer);
                std::thread::spawn(move || echo(stream));
            }
            Err(error) if error.kind() == ErrorKind::InvalidInput => return,
            Err(_) => {}
        }
    }
}

fn echo(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut buffer = [0; 4096];
    while let Ok(length) = stream.read(&mut buffer) {
        if length == 0 || stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn request(to: SocketAddr, limit: Duration) -> std::io::Result<()> {
    let stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_nodelay(true)?;
    exchange(&stream, limit)
}

fn exchange(mut stream: &TcpStream, limit: Duration) -> std::io::Result<()> {
    let sent = rand::random::<u64>().to_be_bytes();
    stream.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
    stream.write_all(&sent)?;
    let mut received = [0; 8];
    stream.read_exact(&mut received)?;
    if received == sent { Ok(()) } else { Err(std::io::Error::new(ErrorKind::InvalidData, "the echo differs")) }
}

fn say(mut stream: &TcpStream, text: &str, expect: &str, limit: Duration) -> std::io::Result<()> {
    stream.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
    stream.write_all(text.as_bytes())?;
    let mut received = vec![0; expect.len()];
    stream.read_exact(&mut received)?;
    if received == expect.as_bytes() {
        return Ok(());
    }
    let text = format!("the reply begins with {:?}", String::from_utf8_lossy(&received));
    Err(std::io::Error::new(ErrorKind::InvalidData, text))
}

fn wait_end(mut stream: &TcpStream, limit: Duration) -> std::io::Result<()> {
    stream.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer)? != 0 {}
    Ok(())
}

fn udp_request(to: SocketAddr, limit: Duration) -> std::io::Result<()> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(limit))?;
    let sent = rand::random::<u64>().to_be_bytes();
    socket.send(&sent)?;
    let mut received = [0; 8];
    socket.recv(&mut received)?;
    if received == sent { Ok(()) } else { Err(std::io::Error::new(ErrorKind::InvalidData, "the echo differs")) }
}

fn failure(error: &std::io::Error, took: Duration) -> Failure {
    let timed_out = matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock);
    let errno = if timed_out { None } else { error.raw_os_error() };
    Failure { errno, timed_out, text: error.to_string(), took }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
