//! Bearer tokens from a file: one a line, so that a new token can be added before the old one is taken away.
//!
//! Only digests are kept in memory, compared in constant time. The file is read again when it changes; a file that
//! cannot be read keeps the tokens that were read last.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::{Code, Error, Result};

/// How soon a changed file counts.
const RELOAD: Duration = Duration::from_millis(500);
/// Shorter tokens can be guessed.
const MIN_LENGTH: usize = 16;

type Hash = [u8; 32];

/// The tokens of one role.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    /// Read on each request, written by the reload alone: a lock that no upload or load takes.
    hashes: RwLock<Arc<[Hash]>>,
}

impl TokenFile {
    /// Reads the file.
    ///
    /// # Errors
    /// `BAD_CONFIG` if it cannot be read, holds no token, or one shorter than 16 characters.
    pub fn open(path: &Path) -> Result<Arc<Self>> {
        let hashes = read(path)?;
        Ok(Arc::new(Self { path: path.to_owned(), hashes: RwLock::new(hashes) }))
    }

    /// Is this one of the tokens?
    pub fn accepts(&self, token: &[u8]) -> bool {
        let hash: Hash = Sha256::digest(token).into();
        let hashes = Arc::clone(&self.hashes.read().unwrap_or_else(PoisonError::into_inner));
        // All are compared, so that the time does not tell which one came close.
        hashes.iter().fold(false, |found, known| found | bool::from(known.ct_eq(&hash)))
    }

    /// Follows changes of the file for as long as the process runs.
    pub async fn follow(self: Arc<Self>) {
        let modified = |path: &Path| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
        let mut seen = modified(&self.path);
        loop {
            tokio::time::sleep(RELOAD).await;
            let now = modified(&self.path);
            if now == seen {
                continue;
            }
            seen = now;
            match read(&self.path) {
                Ok(hashes) => {
                    *self.hashes.write().unwrap_or_else(PoisonError::into_inner) = hashes;
                    tracing::info!("read changed tokens");
                }
                Err(error) => tracing::error!("keeping the tokens read before: {error}"),
            }
        }
    }
}

fn read(path: &Path) -> Result<Arc<[Hash]>> {
    let bad = |text: String| Error::new(Code::BadConfig, format!("token file {}: {text}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| bad(format!("cannot read it: {error}")))?;
    let tokens: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if tokens.is_empty() {
        return Err(bad("it holds no token".to_owned()));
    }
    if tokens.iter().any(|token| token.len() < MIN_LENGTH) {
        return Err(bad(format!("a token has at least {MIN_LENGTH} characters")));
    }
    Ok(tokens.iter().map(|token| Sha256::digest(token.as_bytes()).into()).collect())
}
