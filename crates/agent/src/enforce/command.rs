//! The way to the datapath's thread: a bounded channel, and a descriptor that wakes the thread while it waits for the
//! kernel.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::Command;

/// Commands that wait for the thread.
const COMMANDS_MAX: usize = 32;

/// Says what the thread is to do. Cloning it is another way to the same thread.
#[derive(Clone, Debug)]
pub struct Commands {
    queue: SyncSender<Command>,
    wake: Arc<OwnedFd>,
}

/// What the thread is to do next.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) queue: Receiver<Command>,
    wake: Arc<OwnedFd>,
}

/// A channel. Errors: no descriptor is left.
pub(super) fn channel() -> io::Result<(Commands, Inbox)> {
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, queue) = sync_channel(COMMANDS_MAX);
    Ok((Commands { queue: sender, wake: Arc::clone(&wake) }, Inbox { queue, wake }))
}

impl Commands {
    /// Says what to do. `false`: the thread is busy with as many commands as it takes; say it again later.
    pub fn send(&self, command: Command) -> bool {
        let taken = self.queue.try_send(command).is_ok();
        self.wake();
        taken
    }

    /// As [`Commands::send`], and waits until the thread takes one more.
    pub(super) fn send_last(&self, command: Command) {
        self.wake();
        // A thread that has ended has nothing left to do.
        let _ = self.queue.send(command);
        self.wake();
    }

    fn wake(&self) {
        // Full means awake: the counter is read as one.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

impl Inbox {
    /// The next command that is there already.
    pub(super) fn take(&self) -> Result<Command, TryRecvError> {
        self.queue.try_recv()
    }

    /// Waits for a command, for `other` to be readable, or for `limit`; without a limit for the first two alone.
    pub(super) fn wait(&self, other: Option<BorrowedFd<'_>>, limit: Option<Duration>) -> io::Result<()> {
        let limit =
            limit.map(Timespec::try_from).transpose().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut polled = vec![PollFd::new(&self.wake, PollFlags::IN)];
        polled.extend(other.map(|other| PollFd::from_borrowed_fd(other, PollFlags::IN)));
        match poll(&mut polled, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut count = [0; 8];
        // Nothing to read means that nobody woke the thread.
        let _ = rustix::io::read(self.wake.as_fd(), &mut count);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_command_wakes_a_thread_that_waits_without_limit() {
        let (commands, inbox) = channel().expect("a channel");
        let thread = std::thread::spawn(move || {
            inbox.wait(None, None).expect("waits");
            matches!(inbox.take(), Ok(Command::Count))
        });
        assert!(commands.send(Command::Count));
        assert!(thread.join().expect("no panic"));
    }

    #[test]
    fn a_full_queue_says_so_and_an_idle_thread_sleeps_its_time() {
        let (commands, inbox) = channel().expect("a channel");
        let taken = (0..COMMANDS_MAX + 5).filter(|_| commands.send(Command::Count)).count();
        assert_eq!(taken, COMMANDS_MAX);
        inbox.wait(None, None).expect("woken");
        let begun = Instant::now();
        inbox.wait(None, Some(Duration::from_millis(30))).expect("waits");
        assert!(begun.elapsed() >= Duration::from_millis(30), "every earlier wake counts once");
    }
}
