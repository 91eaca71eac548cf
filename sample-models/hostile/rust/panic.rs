//! Panics.

use baton_hostile::{Sinner, Twice, export_model};

struct Panics;

impl Sinner for Panics {
    fn create() -> Self {
        Self
    }

    fn sin(&self) {
        panic!("this flower is too beautiful");
    }
}

export_model!(Twice<Panics>);
