//! What of WASI differs from instance to instance: a clock, random numbers, lines that are not
//! complete yet.

use std::time::Instant;

/// Where random numbers begin.
const SEED: u64 = 0x6B69_6E6F;

/// What an instance has of WASI.
pub(crate) struct WasiState {
    pub(crate) started: Instant,
    random: u64,
    pub(crate) lines: [Vec<u8>; 2],
}

impl Default for WasiState {
    fn default() -> Self {
        WasiState { started: Instant::now(), random: SEED, lines: Default::default() }
    }
}

impl WasiState {
    /// Another call begins: random numbers do not depend on what ran in this store before.
    pub(crate) fn begin(&mut self) {
        self.random = SEED;
    }

    /// Nanoseconds since the instance was made.
    pub(crate) fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// The next random number: splitmix64.
    pub(crate) fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
