//! Which vector instructions the fast paths use, found out once per process, or named by the
//! variable `KINO_CPU`.

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use crate::tiles::{AmxTiles, TILE};

/// A level of vector instructions: each has all of those before it of its architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    /// What the target has without detection, as the compiler sees fit.
    Portable,
    /// NEON, which every aarch64 has: 4 lanes.
    Neon,
    /// NEON with products of pairs of bf16 (FEAT_BF16).
    NeonBf16,
    /// AVX2 and FMA: 8 lanes.
    Avx2,
    /// AVX-512 (F, BW, DQ, VL): 16 lanes.
    Avx512,
    /// AVX-512 with products of pairs of bf16 (AVX512-BF16).
    Avx512Bf16,
    /// The same, and products of bf16 and of whole numbers in tiles (AMX-BF16, AMX-INT8).
    Amx,
}

impl Tier {
    const X86: [Tier; 5] = [Tier::Portable, Tier::Avx2, Tier::Avx512, Tier::Avx512Bf16, Tier::Amx];
    const ARM: [Tier; 3] = [Tier::Portable, Tier::Neon, Tier::NeonBf16];

    /// The tiers of a processor whose highest this is, in order.
    fn usable(self) -> impl Iterator<Item = Self> {
        let of_architecture: &[Self] =
            if Self::ARM.contains(&self) { &Self::ARM } else { &Self::X86 };
        of_architecture.iter().copied().filter(move |tier| *tier <= self)
    }

    const fn name(self) -> &'static str {
        match self {
            Tier::Portable => "portable",
            Tier::Neon => "neon",
            Tier::NeonBf16 => "neonbf16",
            Tier::Avx2 => "avx2",
            Tier::Avx512 => "avx512",
            Tier::Avx512Bf16 => "avx512bf16",
            Tier::Amx => "amx",
        }
    }
}

/// The variable that names the tier to compute in.
pub const CPU_VARIABLE: &str = "KINO_CPU";

/// The tier that [`CPU_VARIABLE`] names, or the highest of this processor; also where the variable
/// names none that can be used, which [`check_cpu`] tells. A test may ask for another.
pub(crate) fn current() -> Tier {
    #[cfg(test)]
    if let Some(tier) = tests::forced() {
        return tier;
    }
    static TIER: OnceLock<Tier> = OnceLock::new();
    *TIER.get_or_init(|| named().ok().flatten().unwrap_or_else(detect))
}

/// The tier that the variable names, if it is set.
fn named() -> std::result::Result<Option<Tier>, String> {
    match std::env::var(CPU_VARIABLE) {
        Ok(name) if !name.is_empty() => choose(&name, detect()).map(Some),
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => choose("?", detect()).map(Some),
    }
}

/// The tier of a name, where a processor goes up to `highest`.
fn choose(name: &str, highest: Tier) -> std::result::Result<Tier, String> {
    if let Some(tier) = highest.usable().find(|tier| tier.name() == name) {
        return Ok(tier);
    }
    let usable = highest.usable().map(Tier::name).collect::<Vec<_>>().join(", ");
    let is_tier = Tier::X86.iter().chain(&Tier::ARM).any(|tier| tier.name() == name);
    Err(if is_tier {
        format!("{CPU_VARIABLE} is {name}, which this processor has not; it has {usable}")
    } else {
        format!("{CPU_VARIABLE} is {name:?}; expected one of {usable}")
    })
}

/// Whether the variable `KINO_CPU` names a tier that can be used here, if it is set.
///
/// # Errors
/// What it names instead, and what it may name on this processor.
pub fn check_cpu() -> std::result::Result<(), String> {
    named().map(drop)
}

/// Whether products of bf16 are faster here than those of f32.
pub fn has_bf16_products() -> bool {
    matches!(current(), Tier::NeonBf16 | Tier::Avx512Bf16 | Tier::Amx)
}

/// Whether products of bf16 and of whole numbers are computed in tiles here.
pub(crate) fn has_tiles() -> bool {
    #[cfg(test)]
    if tests::are_tiles_forced() {
        return true;
    }
    current() == Tier::Amx
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Tier {
    use std::arch::is_x86_feature_detected as has;
    let avx2 = has!("avx2") && has!("fma");
    let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
    match (avx2, avx512) {
        (true, true) if has!("avx512bf16") && AmxTiles::configure(TILE).is_some() => Tier::Amx,
        (true, true) if has!("avx512bf16") => Tier::Avx512Bf16,
        (true, true) => Tier::Avx512,
        (true, false) => Tier::Avx2,
        _ => Tier::Portable,
    }
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Tier {
    match std::arch::is_aarch64_feature_detected!("bf16") {
        true => Tier::NeonBf16,
        false => Tier::Neon,
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect() -> Tier {
    Tier::Portable
}

/// The name of the CPU kernels in use: `amx`, `avx512bf16`, `avx512`, `avx2`, `neonbf16`, `neon` or
/// `portable`.
///
/// Results differ between tiers in their last bits, so cache keys hold this name.
pub fn tier() -> &'static str {
    current().name()
}

/// What of this machine decides about the last bits: the kernel tier, and the sizes of the
/// processor's caches, by which `gemm` splits the sums of candle's own products. Results are the
/// same bytes on machines where this is the same.
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
                tier if tier >= $crate::tier::Tier::Avx512 => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::tier::Tier::Avx2 => unsafe { avx2($($arg),*) },
                // Every aarch64 has NEON with FMA: this form serves all its tiers.
                _ => body::<{ cfg!(target_arch = "aarch64") }>($($arg),*),
            }
        }
    };
}
pub(crate) use by_tier;

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::{Tier, choose, detect};

    /// What the threads of a test compute in.
    #[derive(Clone, Copy)]
    struct Forced {
        tier: Tier,
        /// Whether there are tiles, be it that software stands in for them.
        tiles: bool,
    }

    thread_local! {
        static FORCED: Cell<Option<Forced>> = const { Cell::new(None) };
    }

    pub(super) fn forced() -> Option<Tier> {
        FORCED.get().map(|forced| forced.tier)
    }

    pub(super) fn are_tiles_forced() -> bool {
        FORCED.get().is_some_and(|forced| forced.tiles)
    }

    /// Runs `check` once in every tier that this processor has, on threads that have no other.
    /// Where it has no tiles, the highest once more with tiles by software.
    pub(crate) fn in_every_tier(check: impl Fn(Tier) + Sync) {
        let highest = detect();
        let tiers = highest.usable().map(|tier| (tier, Forced { tier, tiles: tier == Tier::Amx }));
        let software = (Tier::Amx, Forced { tier: highest, tiles: true });
        for (named, forced) in tiers.chain((highest < Tier::Amx).then_some(software)) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(2);
            let pool = pool.start_handler(move |_| FORCED.set(Some(forced))).build().unwrap();
            pool.install(|| check(named));
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
        in_every_tier(|tier| assert_eq!(super::tier(), tier.min(detect()).name()));
    }

    #[test]
    fn a_tier_is_chosen_by_its_name() {
        assert_eq!(choose("avx2", Tier::Avx512Bf16), Ok(Tier::Avx2));
        assert_eq!(choose("avx512bf16", Tier::Avx512Bf16), Ok(Tier::Avx512Bf16));
        let refused = |name, highest| choose(name, highest).unwrap_err();
        let lacking = refused("avx512bf16", Tier::Avx512);
        let expected = "KINO_CPU is avx512bf16, which this processor has not; it has portable, \
                        avx2, avx512";
        assert_eq!(lacking, expected);
        assert_eq!(choose("amx", Tier::Amx), Ok(Tier::Amx));
        assert!(refused("amx", Tier::Avx2).ends_with("has not; it has portable, avx2"));
        assert_eq!(choose("neon", Tier::NeonBf16), Ok(Tier::Neon));
        let expected = "KINO_CPU is neon, which this processor has not; it has portable, avx2";
        assert_eq!(refused("neon", Tier::Avx2), expected);
        let expected = "KINO_CPU is avx2, which this processor has not; it has portable, neon";
        assert_eq!(refused("avx2", Tier::Neon), expected);
        let expected = "KINO_CPU is \"AVX2\"; expected one of portable, avx2";
        assert_eq!(refused("AVX2", Tier::Avx2), expected);
    }
}
