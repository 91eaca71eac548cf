//! The folder of the request log: `MODEL/YYYY-MM-DDTHH-PID-N.jsonl`, with `.part` behind it while the file is written.
//!
//! Its size is bounded before each write, by removing the oldest files; nothing is removed that has not such a name. One
//! process writes a folder (`.lock`); so a `.part` that is found at the start was left by one that ended early, and keeps
//! what it has. Files are readable by their owner alone: they hold what people sent.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Error, ErrorKind, Result, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::store::ModelName;

const ENDING: &str = ".jsonl";
const OPEN_ENDING: &str = ".jsonl.part";
const LOCK: &str = ".lock";
/// Between two looks at whether the files are still where they were begun.
const CHECK: Duration = Duration::from_secs(1);
/// Numbers that are tried for a name.
const MOST_NUMBERS: u32 = 1_000_000;

/// The files of all models.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    max_bytes: u64,
    file_bytes: u64,
    age: Duration,
    /// Held while the process lives; `None` while the folder cannot be used.
    lock: Option<File>,
    open: BTreeMap<ModelName, OpenFile>,
    /// Oldest first.
    closed: VecDeque<ClosedFile>,
    next_number: u32,
    check: Duration,
    checked: Instant,
}

#[derive(Debug)]
struct OpenFile {
    /// With `.part`.
    path: PathBuf,
    file: File,
    bytes: u64,
    since: Instant,
}

#[derive(Debug)]
struct ClosedFile {
    path: PathBuf,
    bytes: u64,
}

impl Folder {
    /// Nothing is touched yet.
    pub(super) fn new(root: &Path, max_bytes: u64, file_bytes: u64, age: Duration) -> Self {
        Self {
            root: root.to_owned(),
            max_bytes,
            // The oldest file can be given up without losing most of what there is.
            file_bytes: file_bytes.min(max_bytes / 4),
            age,
            lock: None,
            open: BTreeMap::new(),
            closed: VecDeque::new(),
            next_number: 0,
            check: CHECK,
            checked: Instant::now(),
        }
    }

    /// Makes and locks the folder, and looks at what is there.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] if another process writes it; else why it cannot be used.
    pub(super) fn open(&mut self) -> Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        make(&self.root)?;
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(self.root.join(LOCK))?;
        lock.try_lock().map_err(Error::from)?;
        self.lock = Some(lock);
        self.closed = self.found()?;
        Ok(())
    }

    /// Files of earlier processes, the oldest first; those that they left open are closed.
    fn found(&self) -> Result<VecDeque<ClosedFile>> {
        let mut found: Vec<(SystemTime, ClosedFile)> = Vec::new();
        for folder in std::fs::read_dir(&self.root)?.flatten() {
            // A model's name, or no folder of ours.
            let is_model = folder.file_name().to_str().is_some_and(|name| name.parse::<ModelName>().is_ok());
            if !is_model || !folder.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            for entry in std::fs::read_dir(folder.path())?.flatten() {
                let (Some(name), Ok(data)) =
                    (entry.file_name().to_str().map(str::to_owned), entry.metadata())
                else {
                    continue;
                };
                if !data.is_file() || !is_ours(&name) {
                    continue;
                }
                let (mut path, mut bytes) = (entry.path(), data.len());
                if let Some(stem) = name.strip_suffix(OPEN_ENDING) {
                    bytes = cut(&path)?;
                    let whole = path.with_file_name(format!("{stem}{ENDING}"));
                    std::fs::rename(&path, &whole)?;
                    path = whole;
                }
                found.push((data.modified()?, ClosedFile { path, bytes }));
            }
        }
        found.sort_by(|(time, file), (other_time, other)| (time, &file.path).cmp(&(other_time, &other.path)));
        Ok(found.into_iter().map(|(_, file)| file).collect())
    }

    /// Appends whole lines to the model's file. If that fails, none of them is there.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn append(&mut self, model: &ModelName, lines: &[u8]) -> Result<()> {
        self.leave_what_is_gone();
        self.open()?;
        let length = lines.len() as u64;
        if length > self.max_bytes {
            return Err(Error::new(ErrorKind::FileTooLarge, "more than all files may hold"));
        }
        let is_full = |file: &OpenFile| file.bytes > 0 && file.bytes + length > self.file_bytes;
        if self.open.get(model).is_some_and(is_full) {
            self.close_one(model);
        }
        self.make_room(length)?;
        if !self.open.contains_key(model) {
            let file = self.begin(model)?;
            self.open.insert(model.clone(), file);
        }
        let Some(file) = self.open.get_mut(model) else { return Ok(()) };
        if let Err(error) = file.file.write_all(lines) {
            // What was written of them is taken back: a file holds whole lines.
            let _ = file.file.set_len(file.bytes);
            self.close_one(model);
            return Err(error);
        }
        file.bytes += length;
        Ok(())
    }

    /// Leaves files that somebody removed or moved away: what is written there, nobody finds. They are begun anew.
    fn leave_what_is_gone(&mut self) {
        if self.checked.elapsed() < self.check {
            return;
        }
        self.checked = Instant::now();
        let is_locked = self.lock.as_ref().is_some_and(|lock| is_at(lock, &self.root.join(LOCK)));
        let before = self.open.len();
        self.open.retain(|_, file| is_locked && is_at(&file.file, &file.path));
        if !is_locked {
            self.lock = None;
            self.closed.clear();
        }
        if self.open.len() < before {
            tracing::warn!(
                folder = %self.root.display(),
                "files of the request log were removed or moved while they were written; they are begun anew"
            );
        }
    }

    /// Closes files that have been open for long.
    pub(super) fn rotate_old(&mut self) {
        let is_old = |file: &OpenFile| file.since.elapsed() >= self.age;
        let old = self.open.iter().filter(|(_, file)| is_old(file)).map(|(model, _)| model.clone());
        for model in old.collect::<Vec<_>>() {
            self.close_one(&model);
        }
    }

    /// Closes all files.
    pub(super) fn close(&mut self) {
        for model in self.open.keys().cloned().collect::<Vec<_>>() {
            self.close_one(&model);
        }
    }

    fn close_one(&mut self, model: &ModelName) {
        let Some(file) = self.open.remove(model) else { return };
        if file.bytes == 0 {
            let _ = std::fs::remove_file(&file.path);
            return;
        }
        let _ = file.file.sync_data();
        // Without `.part`. Should the name stay as it is, the lines are still there for those who read.
        let whole = file.path.with_extension("");
        let path = if std::fs::rename(&file.path, &whole).is_ok() { whole } else { file.path };
        self.closed.push_back(ClosedFile { path, bytes: file.bytes });
    }

    /// Removes the oldest files until `length` bytes fit.
    fn make_room(&mut self, length: u64) -> Result<()> {
        loop {
            let open: u64 = self.open.values().map(|file| file.bytes).sum();
            let closed: u64 = self.closed.iter().map(|file| file.bytes).sum();
            if open + closed + length <= self.max_bytes {
                return Ok(());
            }
            match self.closed.pop_front() {
                Some(oldest) => match std::fs::remove_file(&oldest.path) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        self.closed.push_front(oldest);
                        return Err(error);
                    }
                    _ => {}
                },
                // Many models with an open file each: the one that was begun first makes room.
                None => {
                    let first = self.open.iter().min_by_key(|(_, file)| file.since);
                    let Some(model) = first.map(|(model, _)| model.clone()) else { return Ok(()) };
                    self.close_one(&model);
                }
            }
        }
    }

    fn begin(&mut self, model: &ModelName) -> Result<OpenFile> {
        let folder = self.root.join(model.as_str());
        make(&folder)?;
        let hour = jiff::Timestamp::now().strftime("%Y-%m-%dT%H").to_string();
        let process = std::process::id();
        for _ in 0..MOST_NUMBERS {
            let stem = format!("{hour}-{process}-{}", self.next_number);
            self.next_number = self.next_number.wrapping_add(1);
            // In a container each process has the same number; the file of an earlier one keeps its name.
            if folder.join(format!("{stem}{ENDING}")).exists() {
                continue;
            }
            let path = folder.join(format!("{stem}{OPEN_ENDING}"));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok(OpenFile { path, file, bytes: 0, since: Instant::now() }),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::AlreadyExists, "there is no free name for a file"))
    }
}

/// Is this open file the one that has this name?
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::symlink_metadata(path)) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

/// Removes half a line at the end of a file, as a killed process leaves it; gives the size that is left.
fn cut(path: &Path) -> Result<u64> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let mut buffer = vec![0; 64 << 10];
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(buffer.len() as u64);
        let part = &mut buffer[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length {
        file.set_len(end)?;
    }
    Ok(end)
}

fn make(folder: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// `2026-11-21T14-4711-3.jsonl`, perhaps with `.part`.
fn is_ours(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(OPEN_ENDING).or_else(|| name.strip_suffix(ENDING)) else {
        return false;
    };
    let digits = |text: &str, length: usize| text.len() == length && is_number(text);
    let parts: Vec<&str> = stem.split('-').collect();
    let [year, month, day_hour, process, number] = parts.as_slice() else { return false };
    let Some((day, hour)) = day_hour.split_once('T') else { return false };
    digits(year, 4)
        && [*month, day, hour].iter().all(|part| digits(part, 2))
        && [process, number].iter().all(|part| is_number(part))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn name(model: &str) -> ModelName {
        model.parse().expect("a name")
    }

    fn folder(root: &Path, max_bytes: u64) -> Folder {
        Folder::new(root, max_bytes, 1 << 20, HOUR)
    }

    /// All files below, with their sizes, by path from there.
    fn listing(root: &Path) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        for model in std::fs::read_dir(root).expect("a folder").flatten() {
            if !model.path().is_dir() {
                continue;
            }
            for file in std::fs::read_dir(model.path()).expect("a folder").flatten() {
                let at = format!("{}/{}", model.file_name().display(), file.file_name().display());
                found.insert(at, file.metadata().expect("metadata").len());
            }
        }
        found
    }

    fn content(root: &Path) -> String {
        let mut files: Vec<_> = listing(root).into_keys().collect();
        files.sort_by_key(|path| {
            path.rsplit('-').next().and_then(|end| end.split('.').next()?.parse::<u32>().ok())
        });
        files.iter().map(|path| std::fs::read_to_string(root.join(path)).expect("readable")).collect()
    }

    #[test]
    fn a_file_is_a_part_until_it_is_closed() {
        let root = tempfile::tempdir().expect("a folder");
        let mut files = folder(root.path(), 1 << 20);
        files.append(&name("iris"), b"{}\n").expect("written");
        let path = listing(root.path()).into_keys().next().expect("a file");
        assert!(path.starts_with("iris/2") && path.ends_with(".jsonl.part"), "{path}");
        files.append(&name("iris"), b"{}\n").expect("written");
        files.close();
        let closed: Vec<_> = listing(root.path()).into_iter().collect();
        assert_eq!(closed, [(path.trim_end_matches(".part").to_owned(), 6)]);
    }

    #[test]
    fn files_are_rotated_by_size_and_by_age_and_none_is_lost() {
        let root = tempfile::tempdir().expect("a folder");
        let mut files = Folder::new(root.path(), 4_000, 100, HOUR);
        for number in 0..20 {
            files.append(&name("a"), format!("{number:>29}\n").as_bytes()).expect("written");
        }
        assert_eq!(listing(root.path()).len(), 7, "three lines of 30 bytes in 100");
        assert_eq!(content(root.path()).lines().count(), 20);
        files.rotate_old();
        assert!(listing(root.path()).keys().any(|path| path.ends_with(".part")), "not old");
        files.age = Duration::ZERO;
        files.rotate_old();
        assert!(!listing(root.path()).keys().any(|path| path.ends_with(".part")), "old");
    }

    #[test]
    fn all_files_together_stay_within_the_limit_and_the_oldest_go_first() {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(root.path().join("a")).expect("a folder");
        std::fs::write(root.path().join("a/notes.jsonl"), vec![b'x'; 5_000]).expect("written");
        let mut files = Folder::new(root.path(), 1_000, 200, HOUR);
        for number in 0..100 {
            let model = name(if number % 2 == 0 { "a" } else { "b" });
            files.append(&model, format!("{number:>49}\n").as_bytes()).expect("written");
            let ours: u64 = listing(root.path())
                .iter()
                .filter(|(path, _)| !path.contains("notes"))
                .map(|(_, size)| size)
                .sum();
            assert!(ours <= 1_000, "{ours} after {number}");
        }
        let text = content(root.path());
        assert!(text.contains(" 99\n") && text.contains(" 90\n") && !text.contains(" 10\n"));
        assert!(root.path().join("a/notes.jsonl").exists(), "what is not ours stays");
    }

    #[test]
    fn many_models_with_open_files_stay_within_the_limit() {
        let root = tempfile::tempdir().expect("a folder");
        let mut files = Folder::new(root.path(), 1_000, 1_000, HOUR);
        for number in 0..60 {
            files.append(&name(&format!("m{}", number % 20)), &[b'x'; 100]).expect("written");
            let total: u64 = listing(root.path()).values().sum();
            assert!(total <= 1_000, "{total}");
        }
    }

    #[test]
    fn what_a_killed_process_left_is_kept_and_counted() {
        let root = tempfile::tempdir().expect("a folder");
        let mut first = folder(root.path(), 1 << 20);
        first.append(&name("iris"), b"old\n").expect("written");
        assert_eq!(
            folder(root.path(), 1 << 20).open().map_err(|error| error.kind()),
            Err(ErrorKind::WouldBlock),
            "one process writes a folder"
        );
        drop(first);
        let mut second = folder(root.path(), 1 << 20);
        second.append(&name("iris"), b"new\n").expect("written");
        let files = listing(root.path());
        assert_eq!(files.len(), 2, "{files:?}");
        assert_eq!(files.keys().filter(|path| path.ends_with(".part")).count(), 1, "{files:?}");
        assert_eq!(second.closed.iter().map(|file| file.bytes).sum::<u64>(), 4);
    }

    #[test]
    fn half_a_line_of_a_killed_process_is_cut() {
        let long = "x".repeat(200_000);
        for (text, expected) in
            [("{}\n{\"a\":", "{}\n"), ("{}\n", "{}\n"), ("{", ""), (&format!("{{}}\n{long}"), "{}\n")]
        {
            let root = tempfile::tempdir().expect("a folder");
            let path = root.path().join("iris/2026-11-21T14-4711-3.jsonl.part");
            std::fs::create_dir_all(root.path().join("iris")).expect("a folder");
            std::fs::write(&path, text).expect("written");
            let mut files = folder(root.path(), 1 << 20);
            files.open().expect("opened");
            assert_eq!(std::fs::read_to_string(path.with_extension("")).expect("closed"), expected);
            assert_eq!(files.closed.iter().map(|file| file.bytes).sum::<u64>(), expected.len() as u64);
        }
    }

    #[test]
    fn a_folder_that_is_removed_or_moved_is_begun_anew() {
        let parent = tempfile::tempdir().expect("a folder");
        let root = parent.path().join("log");
        let mut files = folder(&root, 1 << 20);
        files.append(&name("iris"), b"1\n").expect("written");
        std::fs::rename(&root, parent.path().join("moved")).expect("moved");
        files.append(&name("iris"), b"2\n").expect("written, not looked yet");
        files.check = Duration::ZERO;
        files.append(&name("iris"), b"3\n").expect("written");
        assert_eq!(content(&parent.path().join("moved")), "1\n2\n");
        assert_eq!(content(&root), "3\n");
        assert!(folder(&root, 1 << 20).open().is_err(), "locked again");
        std::fs::remove_dir_all(root.join("iris")).expect("removed");
        files.append(&name("iris"), b"4\n").expect("written");
        assert_eq!(content(&root), "4\n", "one model's alone");
        std::fs::remove_dir_all(&root).expect("removed");
        files.append(&name("iris"), b"5\n").expect("written");
        assert_eq!(content(&root), "5\n");
    }

    #[test]
    fn a_folder_that_cannot_be_used_now_is_tried_again() {
        let root = tempfile::tempdir().expect("a folder");
        let blocked = root.path().join("log");
        std::fs::write(&blocked, "a file where the folder should be").expect("written");
        let mut files = folder(&blocked, 1 << 20);
        files.append(&name("iris"), b"1\n").expect_err("no folder");
        std::fs::remove_file(&blocked).expect("removed");
        files.append(&name("iris"), b"2\n").expect("written");
        assert_eq!(content(&blocked), "2\n");
    }

    #[test]
    fn only_names_of_the_log_are_ours() {
        for (name, ours) in [
            ("2026-11-21T14-4711-3.jsonl", true),
            ("2026-11-21T14-4711-3.jsonl.part", true),
            ("2026-11-21T14-4711.jsonl", false),
            ("2026-11-21-4711-3.jsonl", false),
            ("notes.jsonl", false),
            ("2026-11-21T14-4711-3.csv", false),
            ("2026-11-21T14-4711-x.jsonl", false),
        ] {
            assert_eq!(is_ours(name), ours, "{name}");
        }
    }
}
