//! How sure a ratio is: the bootstrap, which needs to assume nothing about how rounds are spread.

use super::frame::median;

/// Enough that the ends no longer move in the third digit.
const RESAMPLINGS: usize = 10_000;

/// A ratio and where 95 of 100 resamplings put it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) middle: f64,
    pub(crate) high: f64,
}

/// The median of the first by that of the second. Pairs are drawn as pairs, since a busy moment of the machine strikes
/// both. The same pairs give the same interval.
pub(crate) fn ratio_of_medians(pairs: &[(f64, f64)]) -> Interval {
    let ratio = |drawn: &[(f64, f64)]| {
        median(drawn.iter().map(|pair| pair.0)) / median(drawn.iter().map(|pair| pair.1))
    };
    let mut random = fastrand::Rng::with_seed(0);
    let mut draw = |_| {
        let drawn: Vec<(f64, f64)> = pairs
            .iter()
            .map(|_| pairs[random.usize(..pairs.len())])
            .collect();
        ratio(&drawn)
    };
    let mut ratios: Vec<f64> = (0..RESAMPLINGS).map(&mut draw).collect();
    ratios.sort_by(f64::total_cmp);
    Interval {
        low: ratios[RESAMPLINGS / 40],
        middle: ratio(pairs),
        high: ratios[RESAMPLINGS - 1 - RESAMPLINGS / 40],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::frame::short;

    #[test]
    fn equal_pairs_leave_no_doubt_and_noisy_ones_do() {
        let sure = ratio_of_medians(&[(3.0, 2.0); 9]);
        assert_eq!([sure.low, sure.middle, sure.high].map(short), ["1.500"; 3]);
        let noisy: Vec<(f64, f64)> = [1.0, 9.0, 2.0, 8.0, 3.0, 7.0, 4.0, 6.0, 5.0]
            .map(|ours| (ours, 5.0))
            .to_vec();
        let Interval { low, middle, high } = ratio_of_medians(&noisy);
        assert!(low < 0.8 && high > 1.2, "{low} {high}");
        assert_eq!(short(middle), "1");
    }

    #[test]
    fn a_difference_beyond_the_noise_is_seen() {
        let pairs: Vec<(f64, f64)> = (0..9)
            .map(|i| (2.0 + 0.05 * f64::from(i), 1.0 + 0.05 * f64::from(i)))
            .collect();
        assert!(ratio_of_medians(&pairs).low > 1.1);
    }
}
