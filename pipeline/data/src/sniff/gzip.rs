//! gzip, unpacked within limits. The limit is on what comes out, counted while it comes: headers say nothing that can
//! be trusted.

use std::io::Read;

use crate::finding::{Code, Finding};
use crate::policy::Limits;

/// What is too large, and more than this many times what was sent, is called a bomb.
const MOST_RATIO: u64 = 200;

/// The content of a gzip file of one or more members.
pub(super) fn unpack(bytes: &[u8], limits: &Limits) -> Result<Vec<u8>, Finding> {
    let (packed, most) = (bytes.len() as u64, limits.max_bytes);
    let mut unpacked = Vec::new();
    let read = flate2::read::MultiGzDecoder::new(bytes).take(most + 1).read_to_end(&mut unpacked);
    if unpacked.len() as u64 > most {
        let code = match packed.saturating_mul(MOST_RATIO) < most {
            true => Code::ArchiveBomb,
            false => Code::TooLarge,
        };
        let text = format!("{packed} bytes of gzip unpack to more than max_bytes, {most}");
        return Err(Finding::new(code, text));
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
