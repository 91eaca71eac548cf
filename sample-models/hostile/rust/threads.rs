//! Leaves a thread that sleeps for ever, at each sin one more. Its code is in the library, so that stays mapped.

use std::thread;
use std::time::Duration;

use baton_hostile::{Sinner, Twice, export_model};

struct Spawns;

impl Sinner for Spawns {
    fn create() -> Self {
        Self
    }

    fn sin(&self) {
        thread::spawn(|| {
            loop {
                thread::sleep(Duration::from_secs(3600));
            }
        });
    }
}

export_model!(Twice<Spawns>);
