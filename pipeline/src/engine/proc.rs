//! What `/proc` says about processes: descendants, memory, who listens on a port, whose environment has a mark.
//!
//! Read and not remembered: a process may end between two lines of this file, and then it is simply not in the answer.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use rustix::process::Pid;

/// All processes below this one, parents before their children; not itself.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let mut found = children(pid);
    let mut known: HashSet<u32> = found.iter().copied().collect();
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(children(parent).into_iter().filter(|child| known.insert(*child)));
        next += 1;
    }
    found
}

/// The kernel lists children by the thread that made them.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}

/// Bytes of memory that the processes below this one hold; pages that several of them share are counted for each.
pub(crate) fn memory_below(pid: u32) -> u64 {
    let pages = |pid: u32| -> Option<u64> {
        let line = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    };
    descendants(pid).into_iter().filter_map(pages).sum::<u64>() * rustix::param::page_size() as u64
}

/// Whether this port of the loopback is listened on, and by processes below `pid` alone: a stale or foreign process on the
/// same port, also one that shares it by SO_REUSEPORT or has bound all addresses, makes it `false`.
pub(crate) fn is_listened_on_below(pid: u32, port: u16) -> bool {
    let listening = listeners(port);
    if listening.is_empty() {
        return false;
    }
    let own: HashSet<u64> = descendants(pid).into_iter().flat_map(sockets).collect();
    listening.is_subset(&own)
}

/// Inodes of the sockets that listen on this port, whatever their address.
fn listeners(port: u16) -> HashSet<u64> {
    const LISTEN: &str = "0A";
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| {
            table
                .lines()
                .skip(1)
                .filter_map(|line| {
                    let mut columns = line.split_ascii_whitespace();
                    let local = columns.nth(1)?.rsplit(':').next()?;
                    let is_listening = columns.nth(1)? == LISTEN;
                    let inode = columns.nth(5)?.parse().ok()?;
                    (is_listening && u16::from_str_radix(local, 16) == Ok(port)).then_some(inode)
                })
                .collect::<Vec<u64>>()
        })
        .collect()
}

fn sockets(pid: u32) -> Vec<u64> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    descriptors
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// Processes that were started with this line (`NAME=value`) in their environment, as far as it may be read.
pub(crate) fn marked(line: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
                environment.split(|byte| *byte == 0).any(|part| part == line.as_bytes())
            })
        })
        .collect()
}

/// The first argument of a process, after its name.
pub(crate) fn first_argument(pid: u32) -> Option<String> {
    let line = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).ok()?;
    String::from_utf8(line.split(|byte| *byte == 0).nth(1)?.to_vec()).ok()
}

/// SIGKILL; that the process is gone already is no error.
pub(crate) fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// CPU seconds of all children of this process that have ended and were waited for, and of theirs.
pub(crate) fn cpu_of_ended_children() -> f64 {
    // After the name in parentheses: state is field 0, cutime 13, cstime 14 (proc(5) counts from 1 with pid and name).
    let ticks = fs::read_to_string("/proc/self/stat").ok().and_then(|line| {
        let fields: Vec<&str> = line.rsplit(')').next()?.split_ascii_whitespace().collect();
        let field = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(field(13)? + field(14)?)
    });
    ticks.unwrap_or(0) as f64 / rustix::param::clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_port_belongs_to_the_tree_below_its_owner_only() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get() as u32;
        assert!(is_listened_on_below(parent, port), "this process is below its parent");
        assert!(!is_listened_on_below(std::process::id(), port), "a process is not below itself");
        drop(listener);
        assert!(!is_listened_on_below(parent, port), "nobody listens any more");
    }

    #[test]
    fn grandchildren_are_descendants_and_hold_memory() {
        let mut child =
            Command::new("sh").args(["-c", "sleep 60 & wait"]).stdin(Stdio::null()).spawn().unwrap();
        let found = || descendants(std::process::id());
        while found().len() < 2 {
            std::thread::yield_now();
        }
        let below = found();
        assert!(below.contains(&child.id()));
        assert!(memory_below(std::process::id()) > 100_000);
        below.into_iter().for_each(kill);
        child.wait().unwrap();
    }

    #[test]
    fn processes_are_found_by_their_environment() {
        let mark = format!("BATON_TEST_MARK={}", uuid::Uuid::new_v4());
        let (name, value) = mark.split_once('=').unwrap();
        let mut child = Command::new("sleep").arg("60").env(name, value).spawn().unwrap();
        while first_argument(child.id()).as_deref() != Some("60") {
            std::thread::yield_now();
        }
        assert_eq!(marked(&mark), [child.id()]);
        kill(child.id());
        child.wait().unwrap();
        assert!(marked(&mark).is_empty());
    }
}
