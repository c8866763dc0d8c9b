// Weights in ggml's blocks (see src/blocks.rs): widened for a product, or multiplied by a few rows
// where they lie. The layouts are those of ggml-common.h, the formulas those of
// dequantize_row_* in ggml-quants.c, operation for operation.
#pragma once
#include "device.cuh"

// Eight numbers that lie side by side in a block, and so in one group of it: number i is
// scale·q[i] − least.
struct Run {
    int q[8];
    float scale, least;

    DEVICE void numbers(float (&x)[8]) const {
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = product(scale, (float)q[i]) - least;
    }

    // The bits that `mask` leaves of eight bytes.
    DEVICE void bits(const u8 *bytes, int shift, int mask) {
#pragma unroll
        for (int i = 0; i < 8; i++) q[i] = bytes[i] >> shift & mask;
    }

    // More bits of the same numbers, `place` bits higher.
    DEVICE void more_bits(const u8 *bytes, int shift, int mask, int place) {
#pragma unroll
        for (int i = 0; i < 8; i++) q[i] |= (bytes[i] >> shift & mask) << place;
    }

    DEVICE void take(int offset) {
#pragma unroll
        for (int i = 0; i < 8; i++) q[i] -= offset;
    }
};

// Blocks begin where two bytes may.
DEVICE float half_at(const u8 *block) { return F16::widen(*(const u16 *)block); }

// Four bits of each of 32 numbers in 16 bytes: the first half in the low bits.
DEVICE void four_bits(Run &run, const u8 *bytes, int at) {
    run.bits(bytes + at % 16, at / 16 * 4, 15);
}

// The fifth bits of 32 numbers in four bytes.
DEVICE void fifth_bits(Run &run, const u8 *bytes, int at) {
#pragma unroll
    for (int i = 0; i < 8; i++) run.q[i] |= (bytes[at / 8] >> i & 1) << 4;
}

// Scale and minimum of a group of 32 among eight, of 6 bits each: of the first four in the low bits
// of a byte each, of the others in four bits of one byte and the two high ones of those before.
DEVICE void scale_of_eight(Run &run, const u8 *block, int group) {
    const u8 *scales = block + 4;
    int scale = scales[group] & 63, least = scales[group + 4] & 63;
    if (group >= 4) {
        scale = (scales[group + 4] & 15) | scales[group - 4] >> 6 << 4;
        least = scales[group + 4] >> 4 | scales[group] >> 6 << 4;
    }
    run.scale = product(half_at(block), (float)scale);
    run.least = product(half_at(block + 2), (float)least);
}

struct Q4_0 {
    enum { numbers = 32, bytes = 18 };
    static DEVICE void read(Run &run, const u8 *block, int at) {
        four_bits(run, block + 2, at);
        run.take(8);
        run.scale = half_at(block), run.least = 0.0f;
    }
};

struct Q4_1 {
    enum { numbers = 32, bytes = 20 };
    static DEVICE void read(Run &run, const u8 *block, int at) {
        four_bits(run, block + 4, at);
        run.scale = half_at(block), run.least = -half_at(block + 2);
    }
};

struct Q5_0 {
    enum { numbers = 32, bytes = 22 };
    static DEVICE void read(Run &run, const u8 *block, int at) {
        four_bits(run, block + 6, at);
        fifth_bits(run, block + 2, at);
        run.take(16);
        run.scale = half_at(block), run.least = 0.0f;
    }
};

struct Q5_1 {
    enum { numbers = 32, bytes = 24 };
    static DEVICE void read(Run &run, const u8 *block, int at) {
        four_bits(run, block + 8, at);
        fifth_bits(run, block + 4, at);
        run.scale = half_at(block), run.least = -half_at(block + 2);
    }
};

struct Q8_0 {
    enum { numbers = 32, bytes = 34 };
    static DEVICE void read(Run &run, const u8 *block, int at) {
#pragma unroll
        for (int i = 0; i < 8; i++) run.q[i] = (signed char)block[2 + at + i];
        run.scale = half_at(block), run.least = 0.0f;
    }
};

struct Q2_K {
    enum { numbers = 256, bytes = 84 };
    static DEVICE void read(Run &run, const u8 *block, int at) {
        run.bits(block + 16 + at / 128 * 32 + at % 32, at % 128 / 32 * 2, 3);
        int scales = block[at / 16];
        run.scale = product(half_at(block + 80), (float)(scales & 15));
        run.least = product(half_at(block + 82), (float)(scales >> 4));
    }
};

struct Q3_K {
    enum { numbers = 256, bytes = 110 };
    static DEVICE void read(Run &run, const u8 *block, int at) {
        run.bits(block + 32 + at / 128 * 32 + at % 32, at % 128 / 32 * 2, 3);
        run.more_bits(block + at % 32, at / 32, 1, 2);
        run.take(4);
        const u8 *scales = block + 96;
        int group = at / 16, low = scales[group % 8] >> group / 8 * 4 & 15;
        int high = scales[8 + group % 4] >> group / 4 * 2 & 3;
        run.scale = product(half_at(block + 108), (float)((low | high << 4) - 32));
        run.least = 0.0f;
    }
};

struct Q4_K {
    enum { numbers = 256, bytes = 144 };
    static DEVICE void read(Run &run, const u8 *block, int at) {
        run.bits(block + 16 + at / 64 * 32 + at % 32, at % 64 / 32 * 4, 15);
        scale_of_eight(run, block, at / 32);
    }
};

struct Q5_K {
    enum { numbers = 256, bytes = 176 };
    static DEVICE void read(Run &run, const u8 *block, int at) {
        run.bits(block + 48 + at / 64 * 32 + at % 32, at % 64 / 32 * 4, 15);
        run.more_bits(block + 16 + at % 32, at / 32, 1, 4);
        scale_of_eight(run, block, at / 32);
    }
};

struct Q6_K {
    enum { numbers = 256, bytes = 210 };
    static DEVICE void read(Run &run, const u8 *block, int at) {
        int side = at / 128, quarter = at % 128 / 32;
        run.bits(block + side * 64 + quarter % 2 * 32 + at % 32, quarter / 2 * 4, 15);
        run.more_bits(block + 128 + side * 32 + at % 32, quarter * 2, 3, 4);
        run.take(32);
        int scale = (signed char)block[192 + at / 16];
        run.scale = product(half_at(block + 208), (float)scale);
        run.least = 0.0f;
    }
};

// Each thread widens a run; `count` is a multiple of a block's numbers.
template <class Blocks, class Type>
DEVICE void widen_blocks(const u8 *bytes, typename Type::Number *out, i64 count) {
    i64 first = ((i64)blockIdx.x * 256 + threadIdx.x) * 8;
    if (first >= count) return;
    Run run;
    float x[8];
    Blocks::read(run, bytes + first / Blocks::numbers * Blocks::bytes, first % Blocks::numbers);
    run.numbers(x);
    Type::write_eight(out + first, x);
}

// Rows of activations that are multiplied at once, at most (`FEW_ROWS` in launch.rs).
enum { FEW_ROWS = 8 };

// x·Wᵀ of a few rows: each warp reads one row of W once, and its sums are f32. Shapes: `x`
// [rows, inner], W [outs, inner] in blocks, `out` [rows, outs].
template <class Blocks, class Type>
DEVICE void multiply_blocks(const typename Type::Number *x, const u8 *bytes,
                            typename Type::Number *out, int rows, int inner, int outs) {
    int column = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (column >= outs) return;
    const u8 *weights = bytes + (i64)column * (inner / Blocks::numbers) * Blocks::bytes;
    float sums[FEW_ROWS] = {};
    for (int at = lane * 8; at < inner; at += 32 * 8) {
        Run run;
        float w[8], numbers[8];
        Blocks::read(run, weights + at / Blocks::numbers * Blocks::bytes, at % Blocks::numbers);
        run.numbers(w);
#pragma unroll
        for (int row = 0; row < FEW_ROWS; row++) {
            if (row >= rows) break;
            Type::read_eight(numbers, x + (i64)row * inner + at);
#pragma unroll
            for (int i = 0; i < 8; i++) sums[row] = fmaf(numbers[i], w[i], sums[row]);
        }
    }
#pragma unroll
    for (int row = 0; row < FEW_ROWS; row++) {
        if (row >= rows) break;
#pragma unroll
        for (int mask = 1; mask < 32; mask *= 2) sums[row] += shuffle_xor(sums[row], mask);
        if (lane == 0) out[(i64)row * outs + column] = Type::write(sums[row]);
    }
}
