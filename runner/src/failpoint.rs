//! Named points in the publish protocol where a test can make the process fail, as a disk or a power cut would.
//!
//! Compiled in always, so that tests exercise the very binary that ships; they do nothing unless `BATON_FAILPOINTS` is
//! set at start (`name=action;name=action`, actions `error`, `full`, `abort`, `delay:<ms>`), which is logged loudly.
//! None stands on a request path.

use std::collections::HashMap;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

/// Every point, in the order of the publish protocol (`docs/failure-model.md`).
pub const NAMES: &[&str] = &[
    "stage.write",
    "stage.sync",
    "blob.link",
    "blob.dirsync",
    "prepare",
    "version.write",
    "version.link",
    "version.dirsync",
    "active.write",
    "active.link",
    "active.dirsync",
    "swap",
    "collect",
];

#[derive(Debug, Clone, Copy)]
enum Action {
    Error,
    Full,
    Abort,
    Delay(Duration),
}

static ACTIONS: OnceLock<HashMap<&'static str, Action>> = OnceLock::new();

/// Reads the environment. Called once at start.
///
/// # Errors
/// The entry that cannot be read.
pub fn configure() -> Result<(), String> {
    let Ok(text) = std::env::var("BATON_FAILPOINTS") else { return Ok(()) };
    let mut actions = HashMap::new();
    for entry in text.split(';').filter(|entry| !entry.is_empty()) {
        let parsed = entry.split_once('=').and_then(|(name, action)| {
            let name = NAMES.iter().find(|known| **known == name)?;
            let action = match action.split_once(':') {
                None if action == "error" => Action::Error,
                None if action == "full" => Action::Full,
                None if action == "abort" => Action::Abort,
                Some(("delay", time)) => Action::Delay(Duration::from_millis(time.parse().ok()?)),
                _ => return None,
            };
            Some((*name, action))
        });
        let (name, action) = parsed.ok_or_else(|| format!("BATON_FAILPOINTS: cannot read {entry:?}"))?;
        tracing::warn!("failpoint {name} is set to {action:?}: for tests only");
        actions.insert(name, action);
    }
    let _ = ACTIONS.set(actions);
    Ok(())
}

/// Does what was configured for this point: nothing, as a rule.
///
/// # Errors
/// The I/O error that the test asked for.
pub fn hit(name: &'static str) -> io::Result<()> {
    debug_assert!(NAMES.contains(&name), "{name} is not listed");
    match ACTIONS.get().and_then(|actions| actions.get(name)) {
        None => Ok(()),
        Some(Action::Error) => Err(io::Error::other(format!("failpoint {name}"))),
        Some(Action::Full) => Err(io::Error::from(io::ErrorKind::StorageFull)),
        // Not `exit`: nothing may run on the way out, as when the power goes.
        Some(Action::Abort) => std::process::abort(),
        Some(Action::Delay(time)) => {
            std::thread::sleep(*time);
            Ok(())
        }
    }
}
