//! `baton supervise`: the process between the engine and a function or job, so that nothing of either outlives the engine.
//!
//! It is told what to do over its standard input: `T` asks the command to end (SIGTERM to its process group, SIGKILL to all
//! of it after a grace), `K` kills it at once, and so does the end of the input, which is what the death of the engine looks like,
//! however it died. PR_SET_PDEATHSIG would say the same by a signal, but is sent when the *thread* that forked ends and is lost
//! if the engine dies before it is set, and a handler for it needs `unsafe` or a runtime.
//!
//! It is the reaper of all its descendants (PR_SET_CHILD_SUBREAPER): a daemon that forks twice becomes its child, and is
//! killed with the others. When the command has ended, so has everything that it started. The last thing is one line of JSON
//! on standard output, [`Report`].
//!
//! No async runtime here: three threads that block, so that the process stays small and never wakes without a reason.

use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use serde::{Deserialize, Serialize};

use super::proc;

/// Asks the command to end.
pub(crate) const TERMINATE: u8 = b'T';
/// Kills the command.
pub(crate) const KILL: u8 = b'K';
/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// Between two rounds of killing: processes may be forking while they are killed.
const KILL_ROUND: Duration = Duration::from_millis(5);
/// A log is renamed to `NAME.log.1` beyond this; so both hold at most twice as much.
const LOG_LIMIT: u64 = 10 * 1024 * 1024;

/// Run a command for the engine; started by it
#[derive(Debug, clap::Args)]
pub struct SuperviseArgs {
    /// Where the output of the command goes
    #[arg(long)]
    log: PathBuf,
    /// Where the command starts
    #[arg(long)]
    folder: PathBuf,
    /// Added to its niceness
    #[arg(long, default_value_t = 0)]
    nice: i32,
    /// The command
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// How a supervised command ended and what it took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Its exit code.
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// Why it could not be started.
    pub(crate) error: Option<String>,
    /// CPU seconds of the command and all that it started.
    pub(crate) cpu_s: f64,
    pub(crate) wall_s: f64,
}

/// Runs the command; exits with its code, 128 and the signal's number, or 127 if it cannot be started.
pub fn main(arguments: &SuperviseArgs) -> ExitCode {
    let began = Instant::now();
    let mut report = match supervise(arguments) {
        Ok(report) => report,
        Err(error) => Report { error: Some(error), ..Report::default() },
    };
    report.cpu_s = proc::cpu_of_ended_children();
    report.wall_s = began.elapsed().as_secs_f64();
    // If nobody reads it any more, the engine is dead.
    let _ = serde_json::to_writer(std::io::stdout(), &report);
    let code = report.code.or(report.signal.map(|signal| 128 + signal)).unwrap_or(127);
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

fn supervise(arguments: &SuperviseArgs) -> Result<Report, String> {
    // The pid only says "on"; zero would mean "off".
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| format!("cannot become the reaper of its descendants: {error}"))?;
    if arguments.nice > 0 {
        let _ = rustix::process::nice(arguments.nice);
    }
    let (mut log, output) = Log::open(&arguments.log)?;
    let Some((program, rest)) = arguments.command.split_first() else {
        return Err("no command".into());
    };
    let spawned = output.try_clone().and_then(|errors| {
        Command::new(program)
            .args(rest)
            .current_dir(&arguments.folder)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
    });
    let child = match spawned {
        Ok(child) => child.id(),
        Err(error) => {
            let text = format!("cannot start {program} in {}: {error}", arguments.folder.display());
            log.write(format!("{text}\n").as_bytes());
            return Err(text);
        }
    };
    std::thread::spawn(move || obey(child));
    let logger = std::thread::spawn(move || log.copy());
    let report = wait_for(child);
    kill_all_and_reap();
    // Nobody is left to write, so the pipe has an end.
    let _ = logger.join();
    Ok(report)
}

/// Reaps whatever ends until it is the command.
fn wait_for(child: u32) -> Report {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get().unsigned_abs() == child => {
                return report_of(status);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Report::default(),
        }
    }
}

fn report_of(status: WaitStatus) -> Report {
    Report { code: status.exit_status(), signal: status.terminating_signal(), ..Report::default() }
}

/// The order is: kill, then reap what could be reaped, until there is no child left.
fn kill_all_and_reap() {
    loop {
        proc::descendants(std::process::id()).into_iter().for_each(proc::kill);
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        std::thread::sleep(KILL_ROUND);
    }
}

/// Does what the engine says, until the process ends.
fn obey(child: u32) {
    let mut input = std::io::stdin();
    let mut word = [0];
    let asked = matches!(input.read(&mut word), Ok(1)) && word[0] == TERMINATE;
    if asked {
        if let Some(group) = i32::try_from(child).ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process_group(group, Signal::TERM);
        }
        let until = Instant::now() + GRACE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let mut fds = [PollFd::new(&input, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) | Err(_) => break,
                // The end of the input, or the word to kill; asking again changes nothing.
                Ok(_) => {
                    if !matches!(input.read(&mut word), Ok(1)) || word[0] != TERMINATE {
                        break;
                    }
                }
            }
        }
    }
    loop {
        proc::descendants(std::process::id()).into_iter().for_each(proc::kill);
        std::thread::sleep(KILL_ROUND);
    }
}

/// A bounded log file that several supervisors may append to.
struct Log {
    path: PathBuf,
    file: File,
    input: PipeReader,
}

impl Log {
    fn open(path: &Path) -> Result<(Self, std::io::PipeWriter), String> {
        let failed = |error: std::io::Error| format!("cannot open the log {}: {error}", path.display());
        let (input, output) = std::io::pipe().map_err(failed)?;
        let file = append(path).map_err(failed)?;
        Ok((Self { path: path.to_owned(), file, input }, output))
    }

    fn copy(mut self) {
        let mut buffer = [0; 8192];
        loop {
            match self.input.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => self.write(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// That a log cannot be written stops nobody's work.
    fn write(&mut self, bytes: &[u8]) {
        if let Ok(meta) = self.file.metadata()
            && meta.len() > LOG_LIMIT
        {
            // Another supervisor may have renamed it already.
            if std::fs::metadata(&self.path).is_ok_and(|current| current.ino() == meta.ino()) {
                let _ = std::fs::rename(&self.path, self.path.with_added_extension("1"));
            }
            if let Ok(file) = append(&self.path) {
                self.file = file;
            }
        }
        let _ = self.file.write_all(bytes);
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
