//! One instance of a service: a process that listens on a port of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::call::{self, Answer, End, Failure, Outcome};
use super::proc;
use super::process::{Process, Starter, describe};
use crate::event::Event;
use crate::manifest::{Ready, Service};

/// From the start of a process to its readiness.
const START: Duration = Duration::from_secs(60);
/// Pauses between two looks at a process that starts: short at first, for those that start in milliseconds.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(100);

/// An instance that is ready.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) process: Process,
    pub(crate) port: u16,
}

impl Instance {
    /// Starts an instance and waits until it takes requests, but not beyond `closing`. When this fails nothing of it is left.
    ///
    /// # Errors
    /// A text for the delivery's record: it cannot start, ended before it listened, or does not listen in time.
    pub(crate) async fn start(
        starter: &Starter,
        client: &reqwest::Client,
        service: &Service,
        closing: impl Future<Output = ()>,
    ) -> Result<Self, String> {
        let name = &service.name;
        let port = free_port().map_err(|error| format!("no port for {name}: {error}"))?;
        let variables = vec![
            ("PORT", port.to_string()),
            ("LISTEN_ADDRESS", format!("127.0.0.1:{port}")),
            ("K_SERVICE", name.clone()),
            ("K_CONFIGURATION", name.clone()),
            ("K_REVISION", format!("{name}-{}", service.run.revision)),
        ];
        let process = starter
            .start(&service.run, name, 0, variables)
            .map_err(|error| format!("{name} cannot be started: {error}"))?;
        let instance = Self { process, port };
        let waited = tokio::select! {
            report = instance.process.ended() => {
                let words = instance.process.last_words();
                return Err(format!("{name} {} before it listened on its port\n{words}", describe(&report)).trim().to_owned());
            }
            waited = tokio::time::timeout(START, instance.ready(client, &service.ready)) => waited,
            () = closing => {
                instance.process.kill();
                instance.process.ended().await;
                return Err("the engine ends".to_owned());
            }
        };
        if waited.is_err() {
            let words = instance.process.last_words();
            instance.process.kill();
            instance.process.ended().await;
            let text = format!("{name} did not listen on port {port} within {} s\n{words}", START.as_secs());
            return Err(text.trim().to_owned());
        }
        Ok(instance)
    }

    /// The port must be this instance's own before anything is said to it: something else may have taken it, or have been there.
    async fn ready(&self, client: &reqwest::Client, ready: &Ready) {
        let mut pause = FIRST_LOOK;
        loop {
            if proc::is_listened_on_below(self.process.pid, self.port) {
                match ready {
                    Ready::Port => return,
                    Ready::Path(path) => {
                        let answer = client.get(self.url(path)).timeout(Duration::from_secs(5)).send().await;
                        if answer.is_ok_and(|answer| answer.status().is_success()) {
                            return;
                        }
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_LOOK);
        }
    }

    fn url(&self, path: &str) -> String {
        let slash = if path.starts_with('/') { "" } else { "/" };
        format!("http://127.0.0.1:{}{slash}{path}", self.port)
    }

    /// One call. An instance that holds too much memory meanwhile is killed.
    pub(crate) async fn call(
        self: &Arc<Self>,
        client: &reqwest::Client,
        path: &str,
        event: &Event,
        timeout: Duration,
    ) -> Answer {
        let url = self.url(path);
        let peak = AtomicU64::new(0);
        let memory = async {
            if self.process.has_memory_limit() {
                self.process.watch_memory(&peak).await
            } else {
                std::future::pending().await
            }
        };
        let mut answer = tokio::select! {
            answer = call::post(client, &url, event, timeout) => answer,
            text = memory => Answer { outcome: Outcome::Later(Failure::new(text)), end: End::Exchanged },
        };
        if let Outcome::Later(failure) = &mut answer.outcome
            && failure.status.is_none()
            && answer.end != End::TimedOut
        {
            self.say_why(failure).await;
        }
        answer
    }

    /// A broken connection says little. If the process has ended, or does so at once, how it did says more.
    async fn say_why(&self, failure: &mut Failure) {
        let report = tokio::time::timeout(Duration::from_millis(500), self.process.ended()).await;
        if let Ok(report) = report
            && !failure.text.starts_with("killed")
        {
            let words = self.process.last_words();
            failure.text =
                format!("the function {}; {}\n{words}", describe(&report), failure.text).trim().to_owned();
        }
    }
}

/// A port that was free a moment ago; that nobody else has taken it since is checked before it is used.
fn free_port() -> std::io::Result<u16> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    Ok(listener.local_addr()?.port())
}
