//! The instructions. Their intrinsics are unstable; an assembler takes them as they are.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;
use std::sync::OnceLock;

use super::unit::{TILE, Tiles, shape};

/// An instruction that changes tiles. All are named as changed, for want of a way to name one
/// by a constant: the compiler itself keeps nothing in them, so that they hold from one
/// instruction to the next what that left.
macro_rules! on_tiles {
    ($instruction:literal, $($operand:tt)*) => {
        asm!(
            $instruction,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            $($operand)*
        )
    };
}

/// This thread's tiles, configured as long as this lives. A thread has one at a time.
pub(crate) struct AmxTiles {
    /// Tiles are of the thread that configured them.
    not_send: PhantomData<*mut ()>,
}

/// Palette 1, and of each of its eight tiles the bytes of a row and the rows.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Configuration {
    fn new(depth: usize) -> Self {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        for tile in 0..8 {
            let [count, words] = shape(tile, depth);
            row_bytes[tile] = 4 * words as u16;
            rows[tile] = count as u8;
        }
        Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    }
}

impl AmxTiles {
    /// Whether this processor multiplies tiles, and the kernel lets this process.
    fn are_granted() -> bool {
        static GRANTED: OnceLock<bool> = OnceLock::new();
        *GRANTED.get_or_init(|| exist() && are_permitted())
    }

    /// Configures the tiles of this thread for products of `depth` words (at most [`TILE`]),
    /// where they are granted: they hold zeros.
    pub(crate) fn configure(depth: usize) -> Option<Self> {
        if !Self::are_granted() {
            return None;
        }
        let configuration = Configuration::new(depth);
        // SAFETY: the processor has the instruction, the kernel grants the registers, and 64
        // bytes of a configuration that this processor knows are read.
        unsafe {
            on_tiles!(
                "ldtilecfg [{from}]",
                from = in(reg) &configuration,
                options(nostack, preserves_flags, readonly)
            );
        }
        Some(Self { not_send: PhantomData })
    }
}

impl Drop for AmxTiles {
    /// Gives the tiles back, which the kernel would save with the thread otherwise.
    fn drop(&mut self) {
        // SAFETY: the processor has the instruction: there are tiles.
        unsafe { on_tiles!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}

/// Whether the processor has tiles, and products of bf16 and of bytes in them.
fn exist() -> bool {
    const PRODUCTS_AND_TILE: u32 = (1 << 22) | (1 << 25) | (1 << 24);
    const TILES: u32 = 0x1d;
    // Leaf 7 tells of the instructions, leaf 0x1d of palette 1: tiles, bytes of a row, rows.
    if __cpuid_count(0, 0).eax < TILES
        || __cpuid_count(7, 0).edx & PRODUCTS_AND_TILE != PRODUCTS_AND_TILE
    {
        return false;
    }
    let palette = __cpuid_count(TILES, 1);
    palette.ebx == (8 << 16) | (4 * TILE as u32) && palette.ecx & 0xffff == TILE as u32
}

/// Asks Linux for the tiles' registers, for all threads of this process
/// (Documentation/arch/x86/xstate.rst): a thread that touched them unasked would be killed.
fn are_permitted() -> bool {
    const ARCH_PRCTL: u64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let mut answer = ARCH_PRCTL;
    // SAFETY: this call reads and writes no memory of the process.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") answer,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    answer == 0
}

impl Tiles for AmxTiles {
    #[inline(always)]
    fn zero<const T: usize>(&mut self) {
        // SAFETY: the tiles are configured, and this tile is one of them.
        unsafe {
            on_tiles!(
                "tilezero tmm{t}",
                t = const T,
                options(nostack, preserves_flags, nomem)
            );
        }
    }

    #[inline(always)]
    unsafe fn load<const T: usize>(&mut self, from: *const u32, step: usize) {
        // SAFETY: the tiles are configured; the caller vouches for the memory.
        unsafe {
            on_tiles!(
                "tileloadd tmm{t}, [{from} + {step}*1]",
                t = const T,
                from = in(reg) from,
                step = in(reg) 4 * step,
                options(nostack, preserves_flags, readonly)
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const T: usize>(&self, to: *mut u32, step: usize) {
        // SAFETY: the tiles are configured; the caller vouches for the memory.
        unsafe {
            asm!(
                "tilestored [{to} + {step}*1], tmm{t}",
                t = const T,
                to = in(reg) to,
                step = in(reg) 4 * step,
                options(nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    fn multiply<const SUMS: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: the tiles are configured with shapes that fit one another.
        unsafe {
            on_tiles!(
                "tdpbf16ps tmm{sums}, tmm{a}, tmm{b}",
                sums = const SUMS,
                a = const A,
                b = const B,
                options(nostack, preserves_flags, nomem)
            );
        }
    }

    #[inline(always)]
    fn multiply_bytes<const SUMS: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: the tiles are configured with shapes that fit one another.
        unsafe {
            on_tiles!(
                "tdpbssd tmm{sums}, tmm{a}, tmm{b}",
                sums = const SUMS,
                a = const A,
                b = const B,
                options(nostack, preserves_flags, nomem)
            );
        }
    }
}
