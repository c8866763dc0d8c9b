// Convolution over time and space of channels-last frames as a product whose left factor is never
// written (implicit GEMM, cuDNN's name for it, arXiv:1410.0759 §3.1): [pixels, taps·cin]·[taps·cin,
// cout]. The inputs of a tap are read where they lie, some channels of some pixels at a time, while
// the product of those before is computed.
#pragma once
#include "device.cuh"

// The result is [frames, rows, columns, cout]; the input has `zeros` frames of zeros, then `past`
// frames, then the new, each of `in_rows`·`in_columns` pixels. Channels are multiples of what 16
// bytes hold.
struct ConvSizes {
    int frames, rows, columns, cout;
    int in_rows, in_columns, cin, zeros, past;
    int kernel[3], stride[3];
};

static const int PIXELS = 128;
static const int CHANNELS = 64;

// Where the input of a pixel begins: its first frame, and the place of its first pixel in a frame.
struct Window {
    int frame;
    i64 place;
    bool there;
};

DEVICE Window window(const ConvSizes &sizes, i64 pixel) {
    i64 line = pixel / sizes.columns;
    int column = (int)(pixel % sizes.columns), row = (int)(line % sizes.rows),
        frame = (int)(line / sizes.rows);
    i64 place = (i64)row * sizes.stride[1] * sizes.in_columns + column * sizes.stride[2];
    return {frame * sizes.stride[0] - sizes.zeros, place, frame < sizes.frames};
}

// A piece of the sum: a tap, by its place in the kernel, and some of its channels.
struct Piece {
    int frame, row, column, channel;
};

// The piece after one: the next channels, or the first of the next tap.
template <int depth> DEVICE Piece after(Piece piece, const ConvSizes &sizes) {
    piece.channel += depth;
    if (piece.channel < sizes.cin) return piece;
    piece.channel = 0;
    if (++piece.column < sizes.kernel[2]) return piece;
    piece.column = 0;
    if (++piece.row < sizes.kernel[1]) return piece;
    piece.row = 0;
    piece.frame++;
    return piece;
}

template <int depth> DEVICE int pieces(const ConvSizes &sizes) {
    return sizes.kernel[0] * sizes.kernel[1] * sizes.kernel[2] * ((sizes.cin + depth - 1) / depth);
}

// Begins to copy the inputs of a piece, [PIXELS, depth] in rows of `pitch`, and its weights,
// [depth, CHANNELS]: 16 bytes at a time, `wide` numbers. A thread copies for the pixels whose
// windows it holds.
template <class Number, int depth, int wide, int threads, int count>
DEVICE void copy_piece(Number *inputs, Number *factors, const Number *past, const Number *frames,
                       const Number *weights, const ConvSizes &sizes,
                       const Window (&windows)[count], Piece from) {
    const int parts = depth / wide, input_pitch = depth + wide, pitch = CHANNELS + wide;
    int part = threadIdx.x % parts * wide;
    bool has_channel = from.channel + part < sizes.cin;
    i64 tap_place = (i64)from.row * sizes.in_columns + from.column;
    i64 tap = ((i64)from.frame * sizes.kernel[1] + from.row) * sizes.kernel[2] + from.column;
#pragma unroll
    for (int i = 0; i < count; i++) {
        int frame = windows[i].frame + from.frame;
        const Number *source = frame < sizes.past ? past : frames;
        i64 pixel = (i64)(frame < sizes.past ? frame : frame - sizes.past) * sizes.in_rows *
                    sizes.in_columns;
        bool there = windows[i].there && frame >= 0 && has_channel;
        i64 place = (pixel + windows[i].place + tap_place) * sizes.cin + from.channel + part;
        Number *to = inputs + (threadIdx.x / parts + i * (threads / parts)) * input_pitch + part;
        copy_16_bytes(to, there ? source + place : frames, there);
    }
    for (int i = threadIdx.x; i < depth * (CHANNELS / wide); i += threads) {
        int row = i / (CHANNELS / wide), column = i % (CHANNELS / wide) * wide;
        int channel = blockIdx.y * CHANNELS + column;
        bool there = from.channel + row < sizes.cin && channel < sizes.cout;
        i64 place = (tap * sizes.cin + from.channel + row) * sizes.cout + channel;
        copy_16_bytes(factors + row * pitch + column, there ? weights + place : weights, there);
    }
}

// Convolution of bf16 or f16 on the tensor cores: four warps take 128 pixels and 64 channels, a
// warp 32 pixels.
template <class Half> DEVICE void convolve(const u16 *past, const u16 *frames, const u16 *weights,
                                           const float *bias, u16 *out, const ConvSizes &sizes) {
    const int DEPTH = 32, INPUTS = PIXELS * (DEPTH + 8), FACTORS = DEPTH * (CHANNELS + 8);
    u16 *stages = (u16 *)shared_memory;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    i64 first = (i64)blockIdx.x * PIXELS;
    Window windows[4];
#pragma unroll
    for (int i = 0; i < 4; i++) windows[i] = window(sizes, first + threadIdx.x / 4 + i * 32);
    Piece next = {0, 0, 0, 0};
    auto copy = [&](int index) {
        u16 *stage = stages + index % 2 * (INPUTS + FACTORS);
        copy_piece<u16, DEPTH, 8, 128>(stage, stage + INPUTS, past, frames, weights, sizes, windows,
                                       next);
        next = after<DEPTH>(next, sizes);
    };

    float sums[2][CHANNELS / 8][4] = {};
    int count = pieces<DEPTH>(sizes);
    copy(0);
    end_copies();
    for (int index = 0; index < count; index++) {
        if (index + 1 < count) copy(index + 1);
        end_copies();
        wait_for_copies<1>();
        wait_for_block();
        const u16 *inputs = stages + index % 2 * (INPUTS + FACTORS), *factors = inputs + INPUTS;
#pragma unroll
        for (int step = 0; step < DEPTH; step += 16) {
            u32 a[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int row = warp * 32 + i * 16 + lane % 16;
                load_matrices(a[i], inputs + row * (DEPTH + 8) + step + lane / 16 * 8);
            }
#pragma unroll
            for (int tile = 0; tile < CHANNELS / 8; tile += 2) {
                u32 b[4];
                int row = step + lane / 8 % 2 * 8 + lane % 8;
                load_transposed(b, factors + row * (CHANNELS + 8) + tile * 8 + lane / 16 * 8);
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    Half::multiply_add(sums[i][tile], a[i], b[0], b[1]);
                    Half::multiply_add(sums[i][tile + 1], a[i], b[2], b[3]);
                }
            }
        }
        wait_for_block();
    }

    i64 pixels = (i64)sizes.frames * sizes.rows * sizes.columns;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        i64 pixel = first + warp * 32 + i * 8 + lane / 4;
#pragma unroll
        for (int tile = 0; tile < CHANNELS / 8; tile++) {
            int channel = blockIdx.y * CHANNELS + tile * 8 + lane % 4 * 2;
            if (pixel < pixels && channel < sizes.cout) {
                const float *pair = &sums[i / 2][tile][i % 2 * 2];
                float one = bias ? bias[channel] : 0.0f, other = bias ? bias[channel + 1] : 0.0f;
                *(u32 *)(out + pixel * sizes.cout + channel) =
                    Half::pair(pair[0] + one, pair[1] + other);
            }
        }
    }
}

// Convolution of f32: 256 threads take 128 pixels and 64 channels, a thread every sixteenth pixel
// and four channels.
DEVICE void convolve_floats(const float *past, const float *frames, const float *weights,
                            const float *bias, float *out, const ConvSizes &sizes) {
    const int DEPTH = 16, INPUTS = PIXELS * (DEPTH + 4), FACTORS = DEPTH * (CHANNELS + 4);
    float *stages = (float *)shared_memory;
    int part = threadIdx.x % 16 * 4, line = threadIdx.x / 16;
    i64 first = (i64)blockIdx.x * PIXELS;
    Window windows[2];
#pragma unroll
    for (int i = 0; i < 2; i++) windows[i] = window(sizes, first + threadIdx.x / 4 + i * 64);
    Piece next = {0, 0, 0, 0};
    auto copy = [&](int index) {
        float *stage = stages + index % 2 * (INPUTS + FACTORS);
        copy_piece<float, DEPTH, 4, 256>(stage, stage + INPUTS, past, frames, weights, sizes,
                                         windows, next);
        next = after<DEPTH>(next, sizes);
    };

    float sums[8][4] = {};
    int count = pieces<DEPTH>(sizes);
    copy(0);
    end_copies();
    for (int index = 0; index < count; index++) {
        if (index + 1 < count) copy(index + 1);
        end_copies();
        wait_for_copies<1>();
        wait_for_block();
        const float *inputs = stages + index % 2 * (INPUTS + FACTORS), *factors = inputs + INPUTS;
#pragma unroll
        for (int step = 0; step < DEPTH; step += 4) {
            float4 b[4];
#pragma unroll
            for (int k = 0; k < 4; k++)
                b[k] = *(const float4 *)(factors + (step + k) * (CHANNELS + 4) + part);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                float4 a = *(const float4 *)(inputs + (line + i * 16) * (DEPTH + 4) + step);
                const float of[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    sums[i][0] = fmaf(of[k], b[k].x, sums[i][0]);
                    sums[i][1] = fmaf(of[k], b[k].y, sums[i][1]);
                    sums[i][2] = fmaf(of[k], b[k].z, sums[i][2]);
                    sums[i][3] = fmaf(of[k], b[k].w, sums[i][3]);
                }
            }
        }
        wait_for_block();
    }

    i64 pixels = (i64)sizes.frames * sizes.rows * sizes.columns;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        i64 pixel = first + line + i * 16;
        int channel = blockIdx.y * CHANNELS + part;
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (pixel < pixels && channel < sizes.cout)
                out[pixel * sizes.cout + channel + j] =
                    sums[i][j] + (bias ? bias[channel + j] : 0.0f);
    }
}
