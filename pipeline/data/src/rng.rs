//! A small generator of pseudo-random numbers: the same seed gives the same numbers on every machine and in every
//! release, which no crate of that kind promises.
//!
//! SplitMix64 (Steele, Lea, Flood 2014), which passes BigCrush; trees need no more.

#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// In 0..bound; `bound` is at least 1.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// `count` different positions out of `0..size`, in random order; all of them if there are not as many.
    pub(crate) fn sample(&mut self, size: usize, count: usize) -> Vec<usize> {
        let mut positions: Vec<usize> = (0..size).collect();
        let count = count.min(size);
        for index in 0..count {
            let other = index + self.below(size - index);
            positions.swap(index, other);
        }
        positions.truncate(count);
        positions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_different_positions_and_every_seed_its_own() {
        let sample = Random::new(1).sample(1000, 300);
        let distinct: std::collections::BTreeSet<_> = sample.iter().collect();
        assert_eq!((sample.len(), distinct.len()), (300, 300));
        assert_eq!(sample, Random::new(1).sample(1000, 300));
        assert_ne!(sample, Random::new(2).sample(1000, 300));
        assert_eq!(Random::new(1).sample(3, 300).len(), 3);
        // The reference implementation's first output for seed 0.
        assert_eq!(Random::new(0).next(), 0xe220_a839_7b1d_cdaf);
    }
}
