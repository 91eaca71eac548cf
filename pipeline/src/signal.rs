//! SIGTERM and SIGINT, both of which mean: finish and end.

use tokio::signal::unix::{SignalKind, signal};

/// Comes back when the process is asked to end. If signals cannot be had it never does, and the kernel's default ends the process.
pub(crate) async fn ended() {
    let (Ok(mut terminated), Ok(mut interrupted)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
}
