//! Panics with a value that panics once more where it is dropped: whoever catches it and lets go of it is hit again.

use baton_hostile::{Sinner, Twice, export_model};

struct Panics;

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the second panic");
    }
}

impl Sinner for Panics {
    fn create() -> Self {
        Self
    }

    fn sin(&self) {
        std::panic::panic_any(Bomb);
    }
}

export_model!(Twice<Panics>);
