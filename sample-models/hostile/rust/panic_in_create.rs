//! Panics where the model is made.

use baton_hostile::{Sinner, Twice, export_model};

struct Panics;

impl Sinner for Panics {
    fn create() -> Self {
        panic!("no model today");
    }
}

export_model!(Twice<Panics>);
