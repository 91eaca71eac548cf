//! Models in processes of their own: what kills one of them kills nothing else.
//!
//! A worker is this same binary, started again with a hidden subcommand and with nothing but a few descriptors: a
//! sealed file in memory to share, the artifact, and a socket as the bell. It runs one request at a time, through the same
//! engines as the server (`child`). In the server a thread a worker (`lane`) starts it, hands it work, watches it and
//! starts it again (`process`); `pool` puts the lanes of one version behind the engine's trait. `area` is the shared
//! memory, `fault` what a dying worker still says.
//!
//! Nothing that comes from a worker is trusted: messages are copied before they are read, and every offset, size and
//! shape is checked.

mod area;
mod child;
mod fault;
mod lane;
mod pool;
mod process;
mod starter;

pub use child::{WorkerArgs, main};
pub(super) use pool::{Pool, PoolOptions};
pub(super) use starter::Starter;

use std::time::Duration;

/// What is known of the workers of a version.
#[derive(Debug, Clone, Default)]
pub struct Workers {
    pub list: Vec<Worker>,
    /// They died so often in a row that the version counts as degraded.
    pub degraded: bool,
}

/// One worker.
#[derive(Debug, Clone, Default)]
pub struct Worker {
    /// `starting`, `ready`, `busy` or `down`.
    pub state: WorkerState,
    /// The process, while there is one.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u64,
    /// Resident memory of the process, in bytes.
    pub resident: u64,
    /// Why the one before it died.
    pub last_death: Option<String>,
    /// Time until the next start, if that is waited for.
    pub pause: Option<Duration>,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorkerState {
    #[default]
    Starting,
    Ready,
    Busy,
    /// Dead, and not yet started again.
    Down,
}

impl WorkerState {
    /// The word for people and machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Busy => "busy",
            Self::Down => "down",
        }
    }
}
