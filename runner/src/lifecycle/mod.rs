//! Listening, accepting, and the order of the end.

mod accept;
mod guard;
mod leftover;
mod shutdown;

pub use accept::{Accept, bind, bind_shared, raise_descriptors, serve};
pub use leftover::reclaimable;
pub use shutdown::{Ended, Shutdown, wait_for_signal};
