//! Uses a thread-local value that has a destructor. The C library keeps the library mapped until the thread that
//! called has ended.

use std::cell::RefCell;

use baton_hostile::{Sinner, Twice, export_model};

struct Remembers;

thread_local! {
    static CALLS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

impl Sinner for Remembers {
    fn create() -> Self {
        Self
    }

    fn sin(&self) {
        CALLS.with_borrow_mut(|calls| calls.push(calls.len() as u64));
    }
}

export_model!(Twice<Remembers>);
