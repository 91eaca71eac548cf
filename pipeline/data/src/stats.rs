//! Numbers about numbers. All as NumPy computes them, so that a reader can check a report with three lines of Python.

/// The mean; 0 for no values. Finite for finite values, also where their sum is not.
pub(crate) fn mean(values: &[f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let count = values.len() as f64;
    let sum: f64 = values.iter().sum();
    if sum.is_finite() { sum / count } else { values.iter().map(|value| value / count).sum() }
}

/// The standard deviation about `mean` with `count - ddof` in the denominator (as `numpy.std(values, ddof=ddof)`); 0 where
/// that is not positive.
pub(crate) fn std_about(values: &[f64], mean: f64, ddof: usize) -> f64 {
    let Some(free) = values.len().checked_sub(ddof).filter(|free| *free > 0) else { return 0.0 };
    let free = free as f64;
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    // Neither too large for 64 bits nor so small that digits are lost.
    if squares.is_finite() && squares > 1e-290 {
        return (squares / free).sqrt();
    }
    let largest = values.iter().map(|value| (value / 2.0 - mean / 2.0).abs()).fold(0.0, f64::max);
    if largest == 0.0 {
        return 0.0;
    }
    let scaled: f64 = values.iter().map(|value| ((value / 2.0 - mean / 2.0) / largest).powi(2)).sum();
    (scaled / free).sqrt() * largest * 2.0
}

/// The quantile at `share` (0 to 1) of sorted values, as `numpy.quantile(values, share)` with its default method (linear).
/// 0 for no values.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = share * last as f64;
    let below = at.floor();
    let weight = at - below;
    let index = (below as usize).min(last);
    let (low, high) = (sorted[index], sorted[(index + 1).min(last)]);
    let step = high - low;
    if !step.is_finite() {
        return low * (1.0 - weight) + high * weight;
    }
    // NumPy interpolates from the nearer end.
    if weight >= 0.5 { high - step * (1.0 - weight) } else { low + step * weight }
}

/// Sorted by the numbers' order.
pub(crate) fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

/// Median and the median of the distances to it.
pub(crate) fn median_and_deviation(values: &[f64]) -> (f64, f64) {
    let median = quantile(&sorted(values), 0.5);
    let distances: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
    (median, quantile(&sorted(&distances), 0.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_numpys() {
        // numpy.quantile([1, 2, 4, 8, 16], [0, .1, .25, .5, .75, .9, 1])
        let values = [1.0, 2.0, 4.0, 8.0, 16.0];
        let wanted = [(0.0, 1.0), (0.1, 1.4), (0.25, 2.0), (0.5, 4.0), (0.75, 8.0), (0.9, 12.8), (1.0, 16.0)];
        for (share, quantile_there) in wanted {
            assert!((quantile(&values, share) - quantile_there).abs() < 1e-12, "{share}");
        }
        assert_eq!((quantile(&[], 0.5), quantile(&[3.0], 0.9)), (0.0, 3.0));
    }

    #[test]
    fn the_largest_numbers_give_finite_results() {
        let values = [f64::MAX, f64::MAX, -f64::MAX, f64::MAX / 2.0];
        let centre = mean(&values);
        assert!(centre.is_finite() && std_about(&values, centre, 1).is_finite());
        assert!(quantile(&sorted(&values), 0.4).is_finite());
        let tiny = [1e-200, 2e-200, 3e-200];
        assert!((std_about(&tiny, 2e-200, 1) / 1e-200 - 1.0).abs() < 1e-12);
        assert_eq!((mean(&[]), std_about(&[1.0], 1.0, 1)), (0.0, 0.0));
        assert!((std_about(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0], 5.0, 0) - 2.0).abs() < 1e-12);
    }
}
