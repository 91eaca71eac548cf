//! Size and number of rows against the versions before.
//!
//! `z = |ln(x) - median| / max(1.4826 * MAD, 0.05)` over the logarithms of the history (Iglewicz and Hoaglin 1993; MAD is
//! the median absolute deviation, and 1.4826 makes it a standard deviation for normal data). The floor: a history of
//! equal sizes has no deviation, and a change of a few per cent is no news.

use serde::{Deserialize, Serialize};

use crate::finding::{Code, Finding};
use crate::policy::GrowthPolicy;
use crate::stats;

/// Versions whose sizes are kept in a report.
pub(crate) const MOST_HISTORY: usize = 100;
const FLOOR: f64 = 0.05;

/// The size of an accepted version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Digest of the file.
    pub digest: String,
    /// Of the file.
    pub bytes: u64,
    pub rows: u64,
}

/// A version against those before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// Versions compared with.
    pub history: u64,
    /// `None` with less history than the policy asks for.
    pub bytes_z: Option<f64>,
    pub rows_z: Option<f64>,
}

pub(crate) fn growth(now: &Size, history: &[Size], policy: &GrowthPolicy) -> (Growth, Vec<Finding>) {
    let enough = history.len() >= policy.min_history;
    let z = |of: fn(&Size) -> u64| {
        let logs: Vec<f64> = history.iter().map(|size| (of(size).max(1) as f64).ln()).collect();
        let (median, deviation) = stats::median_and_deviation(&logs);
        let distance = ((of(now).max(1) as f64).ln() - median).abs();
        enough.then(|| (distance / (1.4826 * deviation).max(FLOOR), median.exp()))
    };
    let (bytes, rows) = (z(|size| size.bytes), z(|size| size.rows));
    let mut findings = Vec::new();
    for (what, value, found) in [("bytes", now.bytes, bytes), ("rows", now.rows, rows)] {
        if let Some((z, median)) = found.filter(|(z, _)| *z > policy.z) {
            findings.push(Finding::new(
                Code::Growth,
                format!(
                    "{value} {what}; the {} versions before had {median:.0} in the median, robust z is {z:.1}, the limit {}",
                    history.len(),
                    policy.z
                ),
            ));
        }
    }
    let growth = Growth {
        history: history.len() as u64,
        bytes_z: bytes.map(|(z, _)| z),
        rows_z: rows.map(|(z, _)| z),
    };
    (growth, findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(rows: u64) -> Size {
        Size { digest: String::new(), bytes: rows * 20, rows }
    }

    #[test]
    fn steady_growth_is_no_news_and_a_jump_is() {
        let history: Vec<Size> = [1000, 1040, 1080, 1100, 1150].map(size).to_vec();
        let policy = GrowthPolicy::default();
        for (rows, findings) in [(1180, 0), (1000, 0), (10_000, 2), (20, 2), (1, 2)] {
            assert_eq!(growth(&size(rows), &history, &policy).1.len(), findings, "{rows} rows");
        }
        let (early, findings) = growth(&size(9), &history[..3], &policy);
        assert_eq!((early.rows_z, findings.len()), (None, 0));
        let equal = vec![size(1000); 6];
        assert!(growth(&size(1010), &equal, &policy).1.is_empty());
    }
}
