//! Which vector instructions the fast paths use, found out once per process.

use std::sync::OnceLock;

/// A level of vector instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// What the target has without detection.
    Portable,
    /// AVX2 and FMA: 8 lanes.
    Avx2,
    /// AVX-512 (F, BW, DQ, VL): 16 lanes.
    Avx512,
}

/// The highest tier of this processor, or the one that a test asks for.
pub(crate) fn current() -> Tier {
    #[cfg(test)]
    if let Some(tier) = tests::forced() {
        return tier;
    }
    static TIER: OnceLock<Tier> = OnceLock::new();
    *TIER.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Tier {
    use std::arch::is_x86_feature_detected as has;
    let avx2 = has!("avx2") && has!("fma");
    let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
    match (avx2, avx512) {
        (true, true) => Tier::Avx512,
        (true, false) => Tier::Avx2,
        _ => Tier::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Tier {
    Tier::Portable
}

/// The name of the CPU kernels in use: `avx512`, `avx2` or `portable`.
///
/// Results differ between tiers in their last bits, so cache keys hold this name.
pub fn tier() -> &'static str {
    match current() {
        Tier::Portable => "portable",
        Tier::Avx2 => "avx2",
        Tier::Avx512 => "avx512",
    }
}

/// What of this machine decides about the last bits: the kernel tier, and the sizes of the
/// processor's caches, by which `gemm` splits the sums of its products. Results are the same bytes
/// on machines where this is the same.
pub fn machine() -> String {
    let caches = gemm_common::cache::CACHE_INFO.iter();
    let caches = caches.map(|cache| format!(" {}/{}", cache.cache_bytes, cache.associativity));
    tier().to_owned() + &caches.collect::<String>()
}

/// The threads that kernels compute with: those of the pool that the caller computes in, which an
/// embedder may have built, else of rayon's own. That is started by this, as by the first kernel.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Compiles a function of plain loops once per tier and calls the one that fits.
///
/// The body sees the constant that it names in angle brackets: whether fused multiply-add is one
/// instruction (else `mul_add` would call a slow library function).
macro_rules! by_tier {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$fma:ident>($($arg:ident: $ty:ty),* $(,)?)
        $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $out)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<const $fma: bool>($($arg: $ty),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512($($arg: $ty),*) $(-> $out)? { body::<true>($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) $(-> $out)? { body::<true>($($arg),*) }

            match $crate::tier::current() {
                // SAFETY: this tier is returned only where these instructions were detected.
                #[cfg(target_arch = "x86_64")]
                $crate::tier::Tier::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::tier::Tier::Avx2 => unsafe { avx2($($arg),*) },
                _ => body::<{ cfg!(target_arch = "aarch64") }>($($arg),*),
            }
        }
    };
}
pub(crate) use by_tier;

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::{Tier, detect};

    thread_local! {
        static FORCED: Cell<Option<Tier>> = const { Cell::new(None) };
    }

    pub(super) fn forced() -> Option<Tier> {
        FORCED.get()
    }

    /// Runs `check` once in every tier that this processor has, on this thread.
    pub(crate) fn in_every_tier(check: impl Fn(Tier)) {
        let tiers = match detect() {
            Tier::Portable => &[Tier::Portable][..],
            Tier::Avx2 => &[Tier::Portable, Tier::Avx2],
            Tier::Avx512 => &[Tier::Portable, Tier::Avx2, Tier::Avx512],
        };
        for tier in tiers {
            FORCED.set(Some(*tier));
            check(*tier);
            FORCED.set(None);
        }
    }

    #[test]
    fn the_threads_are_those_of_the_pool() {
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(super::threads), threads);
        }
    }

    #[test]
    fn the_tier_has_a_name() {
        in_every_tier(|tier| {
            let expected = match tier {
                Tier::Portable => "portable",
                Tier::Avx2 => "avx2",
                Tier::Avx512 => "avx512",
            };
            assert_eq!(super::tier(), expected);
        });
    }
}
