//! Numbers about numbers. All as NumPy computes them, so that a reader can check a report with three lines of Python.

/// Mean and standard deviation, and where a value lies between them.
///
/// Sums are taken of distances to the mean, not of the values: identifiers near 2^53 and nanoseconds since 1970 have so many
/// digits in common that their sum keeps none of those in which they differ. The mean has a `rest`, since the mean of such
/// numbers is none that a float can hold; the rest is also what corrects the squares (Chan, Golub, LeVeque: Algorithms for
/// Computing the Sample Variance, 1983). All in units of a power of two about as large as the largest value, which rounds
/// nothing and keeps squares from the ends of the range.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moments {
    unit: f64,
    centre: f64,
    rest: f64,
    std: f64,
}

impl Moments {
    /// Of finite values; all 0 for none. The standard deviation has `count - ddof` in the denominator, as
    /// `numpy.std(values, ddof=ddof)`, and is 0 where that is not positive.
    pub(crate) fn of(values: &[f64], ddof: usize) -> Self {
        let largest = values.iter().map(|value| value.abs()).fold(0.0, f64::max);
        let unit = power_of_two(largest);
        let Some(first) = values.first() else { return Self { unit, centre: 0.0, rest: 0.0, std: 0.0 } };
        let count = values.len() as f64;
        let mean_distance =
            |centre: f64| values.iter().map(|value| value / unit - centre).sum::<f64>() / count;
        // About the first value, which may be an outlier, then about a mean that is nearly right.
        let mut centre = first / unit;
        centre += mean_distance(centre);
        centre += mean_distance(centre);
        let rest = mean_distance(centre);
        let free = values.len().saturating_sub(ddof) as f64;
        let squares: f64 = values.iter().map(|value| (value / unit - centre).powi(2)).sum();
        let std = if free > 0.0 { ((squares - count * rest * rest).max(0.0) / free).sqrt() } else { 0.0 };
        Self { unit, centre, rest, std }
    }

    pub(crate) fn mean(&self) -> f64 {
        finite((self.centre + self.rest) * self.unit)
    }

    /// The standard deviation; of two numbers at the ends of the range the largest that there is.
    pub(crate) fn std(&self) -> f64 {
        finite(self.std * self.unit)
    }

    fn distance(&self, value: f64) -> f64 {
        (value / self.unit - self.centre) - self.rest
    }

    /// Is the value further than `k` standard deviations from the mean? Compared as a product, so that a distance of exactly
    /// `k` deviations is not.
    pub(crate) fn is_beyond(&self, value: f64, k: f64) -> bool {
        self.distance(value).abs() > k * self.std
    }

    /// The distance to the mean in standard deviations; 0 where nothing varies.
    pub(crate) fn standard(&self, value: f64) -> f64 {
        if self.std > 0.0 { self.distance(value) / self.std } else { 0.0 }
    }
}

/// The largest power of two that is not above a positive normal number; the smallest normal one for what is smaller.
fn power_of_two(number: f64) -> f64 {
    const EXPONENT: u64 = 0x7ff0_0000_0000_0000;
    f64::from_bits(number.to_bits() & EXPONENT).max(f64::MIN_POSITIVE)
}

fn finite(number: f64) -> f64 {
    number.clamp(f64::MIN, f64::MAX)
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
    fn moments_are_exact_whatever_the_values_have_in_common() {
        // Multiples of 512, so that all of them are floats at 1.76e18: their own mean and deviation are known exactly.
        let steps: Vec<f64> = (0..1000).map(|step| f64::from((step * 7919) % 1009) * 512.0).collect();
        let close = |got: f64, wanted: f64| (got / wanted - 1.0).abs() < 1e-9;
        let plain = Moments::of(&steps, 1);
        let by_hand: f64 = steps.iter().map(|step| (step - plain.mean()).powi(2)).sum();
        assert!(close(plain.std(), (by_hand / 999.0).sqrt()));
        for offset in [2_f64.powi(53), -(2_f64.powi(53)), 1.76e18, 1e12] {
            let moved: Vec<f64> = steps.iter().map(|step| offset + step).collect();
            let moments = Moments::of(&moved, 1);
            assert!(close(moments.std(), plain.std()), "{offset}: {} {}", moments.std(), plain.std());
            assert_eq!(moments.mean(), offset + plain.mean(), "{offset}");
            assert!((moments.standard(moved[7]) - plain.standard(steps[7])).abs() < 1e-9, "{offset}");
        }
        // Identifiers in a row: the mean lies half way between two floats' distances.
        let ids: Vec<f64> = (0..1000).map(|id| 2_f64.powi(53) + 2.0 * f64::from(id)).collect();
        assert!(close(Moments::of(&ids, 0).std(), ((1e6_f64 - 1.0) / 12.0).sqrt() * 2.0));
        // The first value is an outlier.
        let far = Moments::of(&[1e300, 1.0, 2.0, 3.0], 1);
        assert!(close(far.mean(), 2.5e299) && close(far.std(), 5e299));
    }

    #[test]
    fn of_constants_nothing_varies() {
        for constant in [0.0, -0.0, 0.1, 1e12 + 0.1, 1.76e18, 5e-324, 1e308, f64::MAX] {
            let moments = Moments::of(&[constant; 1001], 1);
            assert_eq!((moments.mean(), moments.std(), moments.standard(constant)), (constant, 0.0, 0.0));
            assert!(!moments.is_beyond(constant, 3.0));
        }
    }

    #[test]
    fn the_ends_of_the_range_give_finite_results() {
        let values = [f64::MAX, f64::MAX, -f64::MAX, f64::MAX / 2.0];
        let moments = Moments::of(&values, 1);
        assert!((moments.mean() / f64::MAX - 0.375).abs() < 1e-12 && moments.std().is_finite());
        assert!(values.iter().all(|value| moments.standard(*value).abs() < 2.0));
        assert!(Moments::of(&[f64::MAX, f64::MIN], 1).std().is_finite());
        assert!((Moments::of(&[1e308, -1e308], 0).std() / 1e308 - 1.0).abs() < 1e-12);
        assert!(quantile(&sorted(&values), 0.4).is_finite());
        assert!((Moments::of(&[1e-200, 2e-200, 3e-200], 1).std() / 1e-200 - 1.0).abs() < 1e-12);
        assert!(Moments::of(&[5e-324, 1e-323], 1).std().is_finite());
        assert_eq!((Moments::of(&[], 0).mean(), Moments::of(&[1.0], 1).std()), (0.0, 0.0));
        assert!((Moments::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0], 0).std() - 2.0).abs() < 1e-12);
    }
}
