//! What the long-running verbs share: the log, the runtime, and the signal that ends them.

use std::future::Future;
use std::io::IsTerminal;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::failure::{C, Failure};

/// Starts the log on standard error. `STOLOS_LOG` takes a filter (`info`, `agent=debug`), `STOLOS_LOG_FORMAT=json` makes
/// each line a JSON document.
///
/// Errors: a filter or format that does not parse.
pub(crate) fn start_log(default: &str) -> Result<(), Failure> {
    let text = std::env::var("STOLOS_LOG").unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::builder().parse(&text).map_err(|error| {
        Failure::usage(
            C::USAGE,
            format!("STOLOS_LOG=`{text}` is no log filter ({error})"),
            "write for example STOLOS_LOG=info",
        )
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true);
    match std::env::var("STOLOS_LOG_FORMAT").as_deref() {
        Ok("json") => log.json().init(),
        Ok("text") | Err(_) => {
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            log.with_ansi(!plain && std::io::stderr().is_terminal()).init();
        }
        Ok(other) => {
            return Err(Failure::usage(
                C::USAGE,
                format!("STOLOS_LOG_FORMAT=`{other}` is no format"),
                "write STOLOS_LOG_FORMAT=json, or text",
            ));
        }
    }
    Ok(())
}

/// Runs `work` on a runtime with worker threads; for processes that serve.
pub(crate) fn serve<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(no_runtime)?.block_on(work)
}

/// Runs `work` on this thread alone; for verbs that ask and answer. What takes longer than a second says on a terminal that it
/// is still going on.
pub(crate) fn ask<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    alone()?.block_on(async {
        let mut work = std::pin::pin!(work);
        let mut progress = Progress::default();
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(Duration::from_secs(1)) => progress.tick(),
            }
        }
    })
}

/// Runs `work` that goes on for as long as somebody reads what it says.
pub(crate) fn follow(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    alone()?.block_on(async {
        tokio::select! {
            ended = work => ended,
            gone = reader_gone() => Err(gone),
        }
    })
}

fn alone() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_runtime)
}

/// A line on a terminal's standard error that counts seconds, and is gone when the answer comes.
#[derive(Default)]
struct Progress {
    seconds: u64,
}

impl Progress {
    fn tick(&mut self) {
        self.seconds += 1;
        if std::io::stderr().is_terminal() {
            eprint!("\rwaiting for the server, {} s \x1b[K", self.seconds);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.seconds > 0 && std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}

fn no_runtime(error: std::io::Error) -> Failure {
    Failure::new(
        C::RESOURCES,
        format!("cannot start: {}", crate::failure::reason(&error)),
        "check the limits on processes and open files (`ulimit -a`)",
    )
}

/// Ends when nobody reads standard output any more, so that a verb that waits for news does not outlive its pipe.
async fn reader_gone() -> Failure {
    let (gone, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let stdout = std::io::stdout();
        // No event is asked for: errors and hang-ups are always told.
        let mut watched = [PollFd::new(&stdout, PollFlags::empty())];
        while let Err(rustix::io::Errno::INTR) = poll(&mut watched, None) {}
        let _ = gone.send(());
    });
    match told.await {
        Ok(()) => Failure::ClosedPipe,
        Err(_) => std::future::pending().await,
    }
}

/// A token that SIGINT or SIGTERM cancels. A second signal while the work winds down ends the process at once, with the
/// status that a shell shows for it.
pub(crate) fn stop_on_signal() -> Result<CancellationToken, Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_runtime)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_runtime)?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => 2,
                _ = terminate.recv() => 15,
            }
        };
        let number = next().await;
        info!(signal = number, "stopping");
        told.cancel();
        let number = next().await;
        warn!(signal = number, "stopping at once");
        std::process::exit(128 + number);
    });
    Ok(stop)
}
