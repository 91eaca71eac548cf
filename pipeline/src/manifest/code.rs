//! The digest of a program's files, so that another code is another revision.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Bytes of code that one folder may hold.
pub const MAX_CODE: u64 = 48 * 1024 * 1024;
/// Files and folders of code in one folder.
pub const MAX_CODE_FILES: usize = 10_000;
const IGNORE_FILE: &str = ".batonignore";
const MAX_DEPTH: usize = 32;
/// What runs on a machine is no part of what was written: dot files, caches.
const IGNORED: [&str; 3] = [".*", "__pycache__", "*.pyc"];

/// Digests of folders; each folder is read once.
#[derive(Debug)]
pub(super) struct Code {
    excluded: BTreeSet<PathBuf>,
    known: RefCell<BTreeMap<PathBuf, Result<String, String>>>,
}

impl Code {
    /// `excluded`: canonical paths of files and folders that are no code.
    pub(super) fn new(excluded: BTreeSet<PathBuf>) -> Self {
        Self { excluded, known: RefCell::default() }
    }

    /// The digest, in hex, of every file below a canonical folder: relative paths, whether they can be executed, contents.
    /// A symbolic link counts by its target's name and is not followed.
    pub(super) fn digest(&self, folder: &Path) -> Result<String, String> {
        if let Some(known) = self.known.borrow().get(folder) {
            return known.clone();
        }
        let digest = self.compute(folder);
        self.known.borrow_mut().insert(folder.to_owned(), digest.clone());
        digest
    }

    fn compute(&self, folder: &Path) -> Result<String, String> {
        if self.excluded.contains(folder) {
            return Err(format!(
                "{} holds code, and the engine writes there: give --data, --store and --inbox a folder of their own",
                folder.display()
            ));
        }
        let walk = self.walk(folder, 0)?;
        Ok(walk.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// `files`: how many were counted before.
    fn walk<'a>(&'a self, folder: &'a Path, files: usize) -> Result<Walk<'a>, String> {
        let mut walk = Walk {
            root: folder,
            ignored: ignored(folder)?,
            excluded: &self.excluded,
            hash: Sha256::new(),
            bytes: 0,
            files,
        };
        walk.folder(folder, 0)?;
        Ok(walk)
    }
}

struct Walk<'a> {
    root: &'a Path,
    ignored: Vec<String>,
    excluded: &'a BTreeSet<PathBuf>,
    hash: Sha256,
    bytes: u64,
    files: usize,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(format!("{} is nested more than {MAX_DEPTH} deep", folder.display()));
        }
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            paths.push(entry.map_err(failed)?.path());
        }
        paths.sort();
        for path in paths {
            let relative = path.strip_prefix(self.root).unwrap_or(&path).to_string_lossy();
            if self.ignored.iter().any(|pattern| matches(pattern, &relative)) {
                continue;
            }
            self.entry(&path, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, depth: usize) -> Result<(), String> {
        let meta = fs::symlink_metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
        if self.excluded.contains(path) {
            return Ok(());
        }
        self.files += 1;
        if self.files > MAX_CODE_FILES {
            return Err(self.too_much(&format!("more than {MAX_CODE_FILES} files and folders")));
        }
        if meta.is_dir() {
            return self.folder(path, depth + 1);
        }
        // Not the text: two names that are no UTF-8 may have the same one.
        let relative = path.strip_prefix(self.root).unwrap_or(path).as_os_str().as_bytes();
        if meta.is_symlink() {
            let target = fs::read_link(path).map_err(|error| format!("{}: {error}", path.display()))?;
            self.part("link", relative, target.as_os_str().as_bytes());
            return Ok(());
        }
        if !meta.is_file() {
            return Ok(());
        }
        self.bytes += meta.len();
        if self.bytes > MAX_CODE {
            return Err(self.too_much("more than 48 MiB"));
        }
        let mut content = Vec::new();
        fs::File::open(path)
            .and_then(|file| file.take(MAX_CODE + 1).read_to_end(&mut content))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let kind = if is_executable(&meta) { "program" } else { "file" };
        self.part(kind, relative, &content);
        Ok(())
    }

    /// Lengths first, so that no two trees have the same bytes.
    fn part(&mut self, kind: &str, name: &[u8], content: &[u8]) {
        self.hash.update(format!("{kind} {} {} ", name.len(), content.len()));
        self.hash.update(name);
        self.hash.update(content);
    }

    fn too_much(&self, what: &str) -> String {
        format!(
            "the code in {} is {what}: keep data elsewhere (the store), name a smaller folder in baton.dev/local-folder, or \
             list what is no code in {IGNORE_FILE}",
            self.root.display()
        )
    }
}

fn is_executable(meta: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    meta.permissions().mode() & 0o111 != 0
}

/// The fixed patterns and those of `.batonignore`: a line is a name anywhere (`inbox`, `*.csv`) or, with a slash in it, a path
/// from the folder (`data/raw`); `*` stands for anything but a slash; `#` begins a remark.
fn ignored(folder: &Path) -> Result<Vec<String>, String> {
    let mut patterns: Vec<String> = IGNORED.iter().map(|&pattern| pattern.to_owned()).collect();
    let path = folder.join(IGNORE_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let text = text.trim_start_matches('\u{feff}');
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            for line in lines {
                if line.contains(['!', '?', '[', '\\', '#']) || line.contains("**") || line.starts_with("./")
                {
                    return Err(format!(
                        "{}: {line:?} is not understood: a line is a name or a path from the folder, with * for anything but \
                         a slash; no !, ?, [], **, ./, and remarks on lines of their own",
                        path.display()
                    ));
                }
                patterns.push(line.to_owned());
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(format!("{}: {error}", path.display())),
    }
    Ok(patterns)
}

fn matches(pattern: &str, relative: &str) -> bool {
    let is_path = pattern.trim_end_matches('/').contains('/');
    let pattern = pattern.trim_matches('/');
    if is_path {
        return pattern.split('/').count() == relative.split('/').count()
            && pattern.split('/').zip(relative.split('/')).all(|(pattern, part)| glob(pattern, part));
    }
    glob(pattern, relative.rsplit('/').next().unwrap_or(relative))
}

/// One part of a path; `*` stands for any characters. The parts between stars are sought from left to right.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(end) = text.len().checked_sub(last.len()).filter(|_| text.ends_with(last)) else { return false };
    text = &text[..end];
    for part in middle.split('*').filter(|part| !part.is_empty()) {
        let Some(index) = text.find(part) else { return false };
        text = &text[index + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    fn digest(folder: &tempfile::TempDir) -> Result<String, String> {
        Code::new(BTreeSet::new()).digest(&fs::canonicalize(folder.path()).unwrap())
    }

    #[test]
    fn the_digest_follows_names_and_contents_and_nothing_else() {
        let base = digest(&tree(&[("train.py", "1"), ("lib/a.py", "2")])).unwrap();
        assert_eq!(base, digest(&tree(&[("lib/a.py", "2"), ("train.py", "1")])).unwrap());
        let same = [
            ("__pycache__/a.pyc", "x"),
            ("lib/__pycache__/b", "x"),
            (".git/HEAD", "x"),
            (".venv/bin/python", "x"),
            (".baton/store", "x"),
            ("lib/c.pyc", "x"),
        ];
        for extra in same {
            let changed = tree(&[("train.py", "1"), ("lib/a.py", "2"), extra]);
            assert_eq!(base, digest(&changed).unwrap(), "{extra:?}");
        }
        for files in [
            [("train.py", "1"), ("lib/a.py", "3")],
            [("train.py", "1"), ("lib/b.py", "2")],
            [("train.py", "12"), ("lib/a.py", "")],
            [("train.py", "1"), ("a.py", "2")],
        ] {
            assert_ne!(base, digest(&tree(&files)).unwrap(), "{files:?}");
        }
    }

    #[test]
    fn batonignore_names_what_is_no_code() {
        let ignore = (".batonignore", "\u{feff}# data\ninbox/\n*.csv\ndata/raw\na/*/b/*\n");
        let base = digest(&tree(&[("train.py", "1"), ignore])).unwrap();
        for extra in ["inbox/a", "sub/inbox/a", "a.csv", "sub/b.csv", "data/raw/x", "a/x/b/c"] {
            assert_eq!(base, digest(&tree(&[("train.py", "1"), ignore, (extra, "x")])).unwrap(), "{extra}");
        }
        for extra in ["data/x", "csv", "a.csv2", "raw", "inbox2", "a/x/y/b/c"] {
            assert_ne!(base, digest(&tree(&[("train.py", "1"), ignore, (extra, "x")])).unwrap(), "{extra}");
        }
    }

    #[test]
    fn lines_that_mean_something_to_git_only_are_refused() {
        for line in ["!keep.py", "file?.txt", "[ab].txt", "**/raw", "./data", "data # remark"] {
            let reason = digest(&tree(&[("train.py", "1"), (".batonignore", line)])).unwrap_err();
            assert!(reason.contains(line) && reason.contains("is not understood"), "{reason}");
        }
    }

    #[test]
    fn manifests_and_what_the_engine_writes_are_no_code() {
        let folder = tree(&[("train.py", "1"), ("pipeline.yaml", "x"), ("state/ledger.db", "x")]);
        let root = fs::canonicalize(folder.path()).unwrap();
        let excluded = |paths: &[PathBuf]| Code::new(paths.iter().cloned().collect()).digest(&root);
        let with = excluded(&[root.join("pipeline.yaml"), root.join("state")]).unwrap();
        assert_eq!(with, digest(&tree(&[("train.py", "1")])).unwrap());
        let reason = excluded(std::slice::from_ref(&root)).unwrap_err();
        assert!(reason.contains("--data"), "{reason}");
    }

    #[test]
    fn names_are_bytes_and_folders_count() {
        use std::os::unix::ffi::OsStrExt as _;
        let named = |name: &[u8]| {
            let folder = tree(&[("train.py", "1")]);
            fs::write(folder.path().join(std::ffi::OsStr::from_bytes(name)), "2").unwrap();
            digest(&folder).unwrap()
        };
        assert_ne!(named(b"\xff"), named(b"\xfe"));
        let folder = tree(&[("a/b/train.py", "1")]);
        let code = Code::new(BTreeSet::new());
        let after = |files| code.walk(folder.path(), files).map(|walk| walk.files);
        assert_eq!(after(0), Ok(3));
        let reason = after(MAX_CODE_FILES - 2).unwrap_err();
        assert!(reason.contains("10000 files and folders"), "{reason}");
    }

    #[test]
    fn too_much_code_is_refused_before_it_is_read() {
        let folder = tree(&[("train.py", "1")]);
        let file = fs::File::create(folder.path().join("weights.bin")).unwrap();
        file.set_len(MAX_CODE).unwrap();
        let reason = digest(&folder).unwrap_err();
        assert!(reason.contains("48 MiB") && reason.contains(".batonignore"), "{reason}");
        file.set_len(MAX_CODE - 1).unwrap();
        digest(&folder).unwrap();
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = tree(&[("train.py", "1")]);
        std::os::unix::fs::symlink("/", folder.path().join("all")).unwrap();
        std::os::unix::fs::symlink(".", folder.path().join("self")).unwrap();
        digest(&folder).unwrap();
    }
}
