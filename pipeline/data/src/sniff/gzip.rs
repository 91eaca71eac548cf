//! gzip, unpacked within limits. The limit is on what comes out, counted while it comes: headers say nothing that can
//! be trusted.

use std::io::Read;

use crate::finding::{Code, Finding};
use crate::policy::Limits;

/// What unpacks to more than this many times its size...
const MOST_RATIO: u64 = 200;
/// ...is a bomb, from this size on: small tables of equal rows do shrink that far.
const HARMLESS: u64 = 32 << 20;

/// The content of a gzip file of one or more members.
pub(super) fn unpack(bytes: &[u8], limits: &Limits) -> Result<Vec<u8>, Finding> {
    let packed = bytes.len() as u64;
    let bomb_size = HARMLESS.max(packed.saturating_mul(MOST_RATIO));
    let most = limits.max_bytes.min(bomb_size);
    let mut unpacked = Vec::new();
    let read = flate2::read::MultiGzDecoder::new(bytes).take(most + 1).read_to_end(&mut unpacked);
    if unpacked.len() as u64 > most {
        return Err(if bomb_size <= limits.max_bytes || packed.saturating_mul(MOST_RATIO) < most {
            Finding::new(
                Code::ArchiveBomb,
                format!("{packed} bytes of gzip unpack to more than {most}, over {MOST_RATIO} times as many"),
            )
        } else {
            Finding::new(
                Code::TooLarge,
                format!("the gzip file unpacks to more than max_bytes, {}", limits.max_bytes),
            )
        });
    }
    match read {
        Ok(_) => Ok(unpacked),
        Err(error) => Err(Finding::new(
            Code::Damaged,
            format!(
                "the gzip file cannot be unpacked ({error}, after {} bytes); send it again",
                unpacked.len()
            ),
        )),
    }
}
