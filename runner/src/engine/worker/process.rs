//! One worker process as the server sees it: started, called, watched, ended.
//!
//! Every wait is a `poll` on what can happen: the answer, the process's end, output, the pool's end, a moment in time.
//! The thread that starts a process has to live as long as it does: the kernel ends the worker with its parent *thread*.

use std::fs::File;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baton_proto::worker::{Request, Response, Stop, request, response};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::area::{Area, Side};
use super::fault::{LastWords, take_last_words};

/// Descriptors that a worker gets beside its bell, which is its standard input: shared memory, artifact.
const PASSED: usize = 2;
/// Output that is remembered of a worker: its last words for people.
const TAIL: usize = 2 << 10;
/// Time that a worker has to end by itself.
const ENDING: Duration = Duration::from_millis(500);

/// How a worker died.
#[derive(Debug, Clone)]
pub(super) struct Death {
    /// `SIGSEGV`, `exit code 3`, `it ran for more than 1000 ms`.
    pub cause: String,
    pub kind: DeathKind,
    /// The end of what it wrote to its outputs.
    pub output: String,
}

/// What a death means for the request that the worker had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeathKind {
    Crash,
    Memory,
    Overrun,
    /// Ended by us: the request took too long.
    TooLong,
}

/// What a wait ended with.
#[derive(Debug)]
pub(super) enum Waited {
    /// The descriptor that was waited for is readable.
    Ready,
    Died(Death),
    /// The moment came.
    Late,
    /// The pool is ending.
    Stopped,
}

/// A worker process. Killed when dropped.
pub(super) struct Process {
    child: Child,
    pidfd: OwnedFd,
    area: Area,
    /// Each side sends a byte when the other's turn has come. Never waited for but by `poll`: the worker has the other
    /// end, and may do to it what it likes.
    bell: OwnedFd,
    /// That of the last request.
    number: u64,
    output: File,
    tail: Vec<u8>,
    is_reaped: bool,
}

impl Process {
    /// Starts a worker that has the artifact.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn start(artifact: BorrowedFd<'_>) -> std::io::Result<Self> {
        let area = Area::create()?;
        let (output, output_end) = std::io::pipe()?;
        let (bell, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // Nothing is done between fork and exec, so that the system can do both at once: the time that a fork takes, and
        // the page faults after it, grow with the server's memory.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("worker")
            .arg(format!("--parent={}", std::process::id()))
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(output_end.try_clone()?)
            .stderr(output_end);
        for name in ["LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let child = command.spawn()?;
        // Whatever fails from here on must not leave the process behind.
        let mut child = Orphan(Some(child));
        let pid = child.0.as_ref().map_or(0, Child::id);
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| std::io::Error::other("a process without a number"))?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
        pass(&bell, [area.file(), artifact])?;
        let output = File::from(OwnedFd::from(output));
        rustix::io::ioctl_fionbio(&output, true)?;
        let child = child.0.take().ok_or_else(|| std::io::Error::other("the process is gone"))?;
        Ok(Self { child, pidfd, area, bell, number: 0, output, tail: Vec::new(), is_reaped: false })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The shared memory, to put a request's tensors in.
    pub(super) fn area(&mut self) -> &mut Area {
        &mut self.area
    }

    /// Hands over a request. `false` if its message is too long.
    pub(super) fn ask(&mut self, call: request::Call) -> bool {
        self.number += 1;
        // What it wrote before is not about this request.
        self.drain();
        self.tail.clear();
        let fits = self.area.put_message(Side::Request, &Request { number: self.number, call: Some(call) });
        if fits {
            // A worker that cannot be rung is dead or gone wild; both show in the wait for its answer.
            ring(&self.bell);
        }
        fits
    }

    /// Waits for the answer to the last request.
    pub(super) fn wait_answer(&mut self, until: Instant, stop: BorrowedFd<'_>) -> Waited {
        let waited = self.wait(Some(self.bell.as_raw_fd()), Some(until), Some(stop));
        if !matches!(waited, Waited::Ready) {
            return waited;
        }
        let mut bytes = [0; 8];
        match rustix::net::recv(&self.bell, &mut bytes[..], RecvFlags::DONTWAIT) {
            Ok((_, 1..)) => Waited::Ready,
            Err(Errno::AGAIN | Errno::INTR) => self.wait_answer(until, stop),
            // A dying process closes what it has open before it is seen to be dead.
            Ok(_) | Err(_) => match self.wait(None, Some(Instant::now() + ENDING), None) {
                Waited::Late => {
                    self.kill_group();
                    Waited::Died(Death { cause: "it closed its connection".to_owned(), ..self.death() })
                }
                waited => waited,
            },
        }
    }

    /// The answer, if it is one to the last request.
    pub(super) fn answer(&self) -> Option<response::Result> {
        let answer: Response = self.area.message(Side::Answer)?;
        answer.result.filter(|_| answer.number == self.number)
    }

    /// A copy of a tensor of the answer; `None` if it lies outside of its place.
    pub(super) fn answer_data(&self, offset: u64, size: u64) -> Option<Vec<u8>> {
        self.area.data(Side::Answer, offset, size)
    }

    /// Gives back what large tensors took.
    pub(super) fn release(&self, side: Side, used: usize) {
        self.area.release(side, used);
    }

    /// Waits until `descriptor` is readable or something else happens.
    pub(super) fn wait(
        &mut self,
        descriptor: Option<RawFd>,
        until: Option<Instant>,
        stop: Option<BorrowedFd<'_>>,
    ) -> Waited {
        let mut output_open = true;
        loop {
            let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
            if timeout.is_some_and(|time| time.is_zero()) {
                return Waited::Late;
            }
            // SAFETY: owned by the caller or by `self`, and open as long as this call.
            let wanted = descriptor.map(|descriptor| unsafe { BorrowedFd::borrow_raw(descriptor) });
            let sources = [Some(self.pidfd.as_fd()), wanted, stop, output_open.then(|| self.output.as_fd())];
            let mut polled: Vec<PollFd<'_>> = sources
                .iter()
                .flatten()
                .map(|source| PollFd::from_borrowed_fd(*source, PollFlags::IN))
                .collect();
            let timeout = timeout.map(|time| Timespec {
                tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(time.subsec_nanos()),
            });
            if poll(&mut polled, timeout.as_ref()).is_err() {
                // Interrupted by a signal; nothing else can be wrong with our own descriptors.
                continue;
            }
            let mut fired = polled.iter().map(|polled| !polled.revents().is_empty());
            let mut next = |is_there: bool| is_there && fired.next().unwrap_or(false);
            let (died, ready) = (next(true), next(wanted.is_some()));
            let (stopped, has_output) = (next(stop.is_some()), next(output_open));
            if has_output {
                output_open = self.drain();
            }
            // An answer that was given before the end is an answer; but nobody takes work for a dead worker.
            if ready && (!died || descriptor == Some(self.bell.as_raw_fd())) {
                return Waited::Ready;
            }
            if died {
                return Waited::Died(self.death());
            }
            if stopped {
                return Waited::Stopped;
            }
        }
    }

    /// Reads what the worker wrote; remembers the end. `false` at the end of it.
    fn drain(&mut self) -> bool {
        let mut chunk = [0; 8 << 10];
        loop {
            match self.output.read(&mut chunk) {
                Ok(0) => return false,
                Ok(count) => {
                    self.tail.extend(chunk.iter().take(count));
                    let surplus = self.tail.len().saturating_sub(TAIL);
                    self.tail.drain(..surplus);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// Why the process, which has ended, has.
    fn death(&mut self) -> Death {
        self.drain();
        self.kill_group();
        self.is_reaped = true;
        let status = self.child.wait();
        use std::os::unix::process::ExitStatusExt;
        let cause = match &status {
            Ok(status) => match (status.signal(), status.code()) {
                (Some(signal), _) => signal_name(signal),
                (None, Some(code)) => format!("it ended by itself with code {code}"),
                (None, None) => "it ended".to_owned(),
            },
            Err(error) => format!("unknown: {error}"),
        };
        let output = String::from_utf8_lossy(&self.tail).trim().to_owned();
        // What the runtimes of Rust and C++ say when an allocation fails.
        let says_memory =
            ["memory allocation of ", "terminate called after throwing an instance of 'std::bad_alloc'"];
        let kind = match take_last_words(self.area.last_words()) {
            LastWords::Overrun => DeathKind::Overrun,
            LastWords::Memory => DeathKind::Memory,
            LastWords::Nothing
                if says_memory.iter().any(|words| output.lines().any(|line| line.starts_with(words))) =>
            {
                DeathKind::Memory
            }
            LastWords::Nothing => DeathKind::Crash,
        };
        Death { cause, kind, output }
    }

    /// Ends the process at once.
    pub(super) fn kill(mut self, cause: String, kind: DeathKind) -> Death {
        self.kill_group();
        self.drain();
        Death { cause, kind, output: String::from_utf8_lossy(&self.tail).trim().to_owned() }
    }

    /// Lets the model end, for a short time.
    pub(super) fn stop(mut self) {
        if self.ask(request::Call::Stop(Stop {})) {
            self.wait(None, Some(Instant::now() + ENDING), None);
        }
    }

    /// Ends the process and whatever it has started.
    fn kill_group(&self) {
        // Once it is reaped, its number may be another's.
        if self.is_reaped {
            return;
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // The group exists once the child has called `setsid`; before that, the process itself is meant.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        }
    }

    /// Resident memory, in bytes.
    pub(super) fn resident(pid: u32) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
        pages * rustix::param::page_size() as u64
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_group();
        if !self.is_reaped {
            let _ = self.child.wait();
        }
    }
}

/// A child that is ended unless it is taken out.
struct Orphan(Option<Child>);

impl Drop for Orphan {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends descriptors to the new process.
fn pass(socket: &OwnedFd, descriptors: [BorrowedFd<'_>; PASSED]) -> std::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PASSED))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    rustix::net::sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// In the new process: what the server passed.
pub(super) fn receive(socket: &OwnedFd) -> std::io::Result<[OwnedFd; PASSED]> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PASSED))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors: Vec<OwnedFd> = control
        .drain()
        .flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
            _ => Vec::new(),
        })
        .collect();
    descriptors.try_into().map_err(|_| std::io::Error::other("the descriptors are not there"))
}

/// Tells the other side that it is its turn. `false` if it cannot be told.
pub(super) fn ring(bell: &OwnedFd) -> bool {
    rustix::net::send(bell, &[1], SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok()
}

/// Adds one to an event counter. `false` if it is not there any more.
pub(super) fn signal(counter: &OwnedFd) -> bool {
    rustix::io::write(counter, &1_u64.to_ne_bytes()).is_ok()
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGILL => "SIGILL",
        libc::SIGABRT => "SIGABRT",
        libc::SIGKILL => "SIGKILL",
        libc::SIGTERM => "SIGTERM",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGSYS => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}
