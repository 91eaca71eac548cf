//! Who may call. One gate stands in front of every listener; no handler decides for itself.

mod gate;
mod token;

pub use gate::{Gate, Role};
pub use token::TokenFile;
