//! Answers well, and panics where the model is ended.

use baton_hostile::{Sinner, Twice, export_model};

struct Panics;

impl Drop for Panics {
    fn drop(&mut self) {
        panic!("not yet");
    }
}

impl Sinner for Panics {
    fn create() -> Self {
        Self
    }
}

export_model!(Twice<Panics>);
