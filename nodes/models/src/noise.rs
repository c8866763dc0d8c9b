//! Philox 4x32-10 and normal numbers from it: the same on every platform, in every order.

use std::f64::consts::TAU;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four
/// random words for a counter and a key.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..ROUNDS {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let product = |i: usize| u64::from(MULTIPLIERS[i]) * u64::from(counter[2 * i]);
        let (a, b) = (product(0), product(1));
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
    }
    counter
}

/// The normal number of an element: mean 0, variance 1.
///
/// The key is the seed, the counter the element's index, each low word first. Words 0 and 1 are a
/// number u in (0, 1], words 2 and 3 a number v in [0, 1), each of 53 bits with the first word on
/// top; the result is √(−2 ln u)·cos 2πv (Box and Muller, 1958) in f64 by the `libm` crate, which
/// uses no instruction that differs between platforms, rounded to f32.
pub fn normal(seed: u64, index: u64) -> f32 {
    let words = |value: u64| [value as u32, (value >> 32) as u32];
    let [low, high] = words(index);
    let [a, b, c, d] = philox([low, high, 0, 0], words(seed));
    let bits = |top: u32, bottom: u32| ((u64::from(top) << 32 | u64::from(bottom)) >> 11) as f64;
    let scale = 1.0 / (1u64 << 53) as f64;
    let (u, v) = ((bits(a, b) + 1.0) * scale, bits(c, d) * scale);
    (libm::sqrt(-2.0 * libm::log(u)) * libm::cos(TAU * v)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of Random123 (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_gives_the_published_answers() {
        let zeros = [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8];
        assert_eq!(philox([0; 4], [0; 2]), zeros);
        let ones = [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd];
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), ones);
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let digits = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
        assert_eq!(philox(counter, [0xa409_3822, 0x299f_31d0]), digits);
    }

    #[test]
    fn normals_are_normal() {
        let count = 200_000u64;
        for seed in [0, 7, u64::MAX] {
            let values: Vec<f64> = (0..count).map(|i| f64::from(normal(seed, i))).collect();
            let moment =
                |power: i32| values.iter().map(|v| v.powi(power)).sum::<f64>() / count as f64;
            // Five standard errors of each moment of a normal distribution: 1, √2, √15, √96 by √n.
            let error = 5.0 / (count as f64).sqrt();
            assert!(moment(1).abs() < error, "seed {seed}: mean {}", moment(1));
            assert!((moment(2) - 1.0).abs() < 1.42 * error, "seed {seed}: variance {}", moment(2));
            assert!(moment(3).abs() < 3.88 * error, "seed {seed}: third moment {}", moment(3));
            assert!((moment(4) - 3.0).abs() < 9.8 * error, "seed {seed}: fourth {}", moment(4));
            let along: f64 = values.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / count as f64;
            assert!(along.abs() < error, "seed {seed}: neighbours correlate by {along}");
        }
    }

    #[test]
    fn every_seed_and_element_has_its_own_number() {
        assert_eq!(normal(7, 3).to_bits(), normal(7, 3).to_bits());
        let mut seen: Vec<u32> =
            (0..200).flat_map(|s| (0..50).map(move |i| normal(s, i).to_bits())).collect();
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() > 9_990, "{} distinct of 10,000", seen.len());
    }
}
