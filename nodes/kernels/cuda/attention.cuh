// Attention with an online softmax (FlashAttention-2, arXiv:2307.08691): the scores of some queries
// and some keys are all that there is of them at once. The softmax is computed in base 2 and in
// f32.
#pragma once
#include "device.cuh"

// Sizes of one attention; strides count numbers. The numbers of a head lie side by side, `width` of
// them, a multiple of 8, and so are strides and addresses of what is read, so that 16 bytes are
// read at once.
struct AttentionSizes {
    i64 query_head, query_row, key_head, key_row, value_head, value_row;
    i64 bias_head, bias_row, bias_column;
    i64 out_head, out_row;
    int queries, keys, width;
    // What scores are multiplied by.
    float scale;
};

static const float LOG2_E = 1.4426950408889634f;

// Queries of a block, and keys that it looks at together.
static const int QUERIES = 64;
static const int KEYS = 64;

DEVICE float minus_infinity() { return bits_as_float(0xff800000u); }

// Scores of a query and of some keys in base 2: `products` scaled, with their bias, −∞ beyond the
// last key. The key of number i is `key(i)`.
template <int count, class Key> DEVICE void finish(float (&products)[count], const float *bias,
                                                   const AttentionSizes &sizes, int query,
                                                   Key key) {
    float scale = sizes.scale * LOG2_E;
#pragma unroll
    for (int i = 0; i < count; i++) products[i] *= scale;
    if (bias && query < sizes.queries) {
        const float *row = bias + blockIdx.y * sizes.bias_head + query * sizes.bias_row;
#pragma unroll
        for (int i = 0; i < count; i++)
            if (key(i) < sizes.keys)
                products[i] = fmaf(LOG2_E, row[key(i) * sizes.bias_column], products[i]);
    }
    if (key(count - 1) >= sizes.keys) {
#pragma unroll
        for (int i = 0; i < count; i++)
            if (key(i) >= sizes.keys) products[i] = minus_infinity();
    }
}

// A row's state: its greatest score so far, and the sum of its weights, of which each of the lanes
// that share the row holds a part.
struct Row {
    float top, sum;
};

// Turns scores of a row, which `lanes` lanes share, into weights; returns by how much the earlier
// ones shrink.
template <int lanes, int count> DEVICE float absorb(Row &row, float (&scores)[count]) {
    float top = row.top;
#pragma unroll
    for (int i = 0; i < count; i++) top = fmaxf(top, scores[i]);
#pragma unroll
    for (int mask = 1; mask < lanes; mask *= 2) top = fmaxf(top, shuffle_xor(top, mask));
    // A row whose keys are all masked so far: −∞ − (−∞) would be no number.
    float base = top == minus_infinity() ? 0.0f : top;
    float shrink = exp2_of(row.top - base), sum = 0.0f;
#pragma unroll
    for (int i = 0; i < count; i++) {
        scores[i] = exp2_of(scores[i] - base);
        sum += scores[i];
    }
    row.sum = row.sum * shrink + sum;
    row.top = top;
    return shrink;
}

// What a row is divided by, from the parts of its lanes.
template <int lanes> DEVICE float whole_sum(float sum) {
#pragma unroll
    for (int mask = 1; mask < lanes; mask *= 2) sum += shuffle_xor(sum, mask);
    return sum;
}

// Begins to copy the rows of a tile into shared memory, zeros beyond the last row and the width of
// a head.
template <int D>
DEVICE void copy_rows(u16 *to, const u16 *from, i64 stride, int first, int rows, int width) {
    for (int i = threadIdx.x; i < KEYS * (D / 8); i += 128) {
        int row = i / (D / 8), column = i % (D / 8) * 8;
        bool there = first + row < rows && column < width;
        copy_16_bytes(to + row * (D + 8) + column,
                      there ? from + (first + row) * stride + column : from, there);
    }
}

// Attention of bf16 or f16 on the tensor cores: 128 threads take 64 queries of a head, 16 each
// warp. While scores are computed, values are on their way; while values are summed, the next keys.
// Rows of shared memory are 16 bytes longer than a head, so that eight of them lie in different
// banks.
template <class Half, int D> DEVICE void attend(const u16 *query, const u16 *key, const u16 *value,
                                                const float *bias, u16 *out,
                                                const AttentionSizes &sizes) {
    u16 *keys = (u16 *)shared_memory, *values = keys + KEYS * (D + 8);
    int lane = threadIdx.x % 32, head = blockIdx.y;
    // A lane's rows, this and the eighth after it, and the first of its two columns in each tile
    // of 8.
    int first = blockIdx.x * QUERIES + threadIdx.x / 32 * 16 + lane / 4, column = lane % 4 * 2;
    query += head * sizes.query_head;
    key += head * sizes.key_head;
    value += head * sizes.value_head;
    copy_rows<D>(keys, key, sizes.key_row, 0, sizes.keys, sizes.width);
    end_copies();

    u32 queries[D / 16][4];
#pragma unroll
    for (int step = 0; step < D / 16; step++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = first + i % 2 * 8, at = step * 16 + i / 2 * 8 + column;
            bool there = row < sizes.queries && at < sizes.width;
            queries[step][i] = there ? *(const u32 *)(query + row * sizes.query_row + at) : 0;
        }
    }

    Row rows[2] = {{minus_infinity(), 0.0f}, {minus_infinity(), 0.0f}};
    float mixed[D / 8][4] = {};
    for (int start = 0; start < sizes.keys; start += KEYS) {
        wait_for_copies<0>();
        wait_for_block();
        copy_rows<D>(values, value, sizes.value_row, start, sizes.keys, sizes.width);
        end_copies();

        float products[KEYS / 8][4] = {};
#pragma unroll
        for (int step = 0; step < D / 16; step++) {
#pragma unroll
            for (int tile = 0; tile < KEYS / 8; tile += 2) {
                u32 b[4];
                int row = tile * 8 + lane / 16 * 8 + lane % 8;
                load_matrices(b, keys + row * (D + 8) + step * 16 + lane / 8 % 2 * 8);
                Half::multiply_add(products[tile], queries[step], b[0], b[1]);
                Half::multiply_add(products[tile + 1], queries[step], b[2], b[3]);
            }
        }
        wait_for_block();
        if (start + KEYS < sizes.keys)
            copy_rows<D>(keys, key, sizes.key_row, start + KEYS, sizes.keys, sizes.width);
        end_copies();

        float weights[2][KEYS / 4];
#pragma unroll
        for (int half = 0; half < 2; half++) {
#pragma unroll
            for (int i = 0; i < KEYS / 4; i++) weights[half][i] = products[i / 2][half * 2 + i % 2];
            finish(weights[half], bias, sizes, first + half * 8,
                   [=](int i) { return start + i / 2 * 8 + column + i % 2; });
            float shrink = absorb<4>(rows[half], weights[half]);
#pragma unroll
            for (int tile = 0; tile < D / 8; tile++) {
                mixed[tile][half * 2] *= shrink;
                mixed[tile][half * 2 + 1] *= shrink;
            }
        }

        // All but the next keys.
        wait_for_copies<1>();
        wait_for_block();
#pragma unroll
        for (int step = 0; step < KEYS / 16; step++) {
            // The sums of two tiles, 16×8 each, lie as a left factor of 16×16 does.
            u32 a[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float *pair = &weights[i % 2][step * 4 + i / 2 * 2];
                a[i] = Half::pair(pair[0], pair[1]);
            }
#pragma unroll
            for (int tile = 0; tile < D / 8; tile += 2) {
                u32 b[4];
                int row = step * 16 + lane / 8 % 2 * 8 + lane % 8;
                load_transposed(b, values + row * (D + 8) + tile * 8 + lane / 16 * 8);
                Half::multiply_add(mixed[tile], a, b[0], b[1]);
                Half::multiply_add(mixed[tile + 1], a, b[2], b[3]);
            }
        }
    }

    out += head * sizes.out_head;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float inverse = 1.0f / whole_sum<4>(rows[half].sum);
        int row = first + half * 8;
#pragma unroll
        for (int tile = 0; tile < D / 8; tile++) {
            int at = tile * 8 + column;
            if (row < sizes.queries && at < sizes.width) {
                u32 pair = Half::pair(mixed[tile][half * 2] * inverse,
                                      mixed[tile][half * 2 + 1] * inverse);
                *(u32 *)(out + row * sizes.out_row + at) = pair;
            }
        }
    }
}

// Copies the rows of a tile of f32 into shared memory, as `copy_rows`.
template <int D> DEVICE void copy_float_rows(float *to, const float *from, i64 stride, int first,
                                             int rows, int width) {
    for (int i = threadIdx.x; i < KEYS * (D / 4); i += 256) {
        int row = i / (D / 4), column = i % (D / 4) * 4;
        bool there = first + row < rows && column < width;
        copy_16_bytes(to + row * (D + 4) + column,
                      there ? from + (first + row) * stride + column : from, there);
    }
}

// Attention of f32 without tensor cores, whose products are not of f32: 256 threads take 64 queries
// of a head; 16 of them, half a warp, take four queries, each thread every sixteenth key and then
// every sixteenth number of the result.
template <int D> DEVICE void attend_floats(const float *query, const float *key, const float *value,
                                           const float *bias, float *out,
                                           const AttentionSizes &sizes) {
    const int PITCH = D + 4, SCORES = KEYS + 4;
    float *queries = (float *)shared_memory, *keys = queries + QUERIES * PITCH, *values = keys;
    float *weights = keys + KEYS * PITCH;
    int part = threadIdx.x % 16, row = threadIdx.x / 16 * 4, head = blockIdx.y,
        first = blockIdx.x * QUERIES;
    key += head * sizes.key_head;
    value += head * sizes.value_head;
    copy_float_rows<D>(queries, query + head * sizes.query_head, sizes.query_row, first,
                       sizes.queries, sizes.width);

    Row rows[4];
#pragma unroll
    for (int i = 0; i < 4; i++) rows[i] = {minus_infinity(), 0.0f};
    float mixed[4][D / 16] = {};
    for (int start = 0; start < sizes.keys; start += KEYS) {
        wait_for_block();
        copy_float_rows<D>(keys, key, sizes.key_row, start, sizes.keys, sizes.width);
        end_copies();
        wait_for_copies<0>();
        wait_for_block();

        float scores[4][KEYS / 16] = {};
        for (int d = 0; d < D; d += 4) {
            float4 a[4];
#pragma unroll
            for (int i = 0; i < 4; i++) a[i] = *(const float4 *)(queries + (row + i) * PITCH + d);
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++) {
                float4 b = *(const float4 *)(keys + (part + 16 * j) * PITCH + d);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    float sum = fmaf(a[i].x, b.x, scores[i][j]);
                    sum = fmaf(a[i].y, b.y, sum);
                    sum = fmaf(a[i].z, b.z, sum);
                    scores[i][j] = fmaf(a[i].w, b.w, sum);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            finish(scores[i], bias, sizes, first + row + i,
                   [=](int j) { return start + part + 16 * j; });
            float shrink = absorb<16>(rows[i], scores[i]);
#pragma unroll
            for (int j = 0; j < D / 16; j++) mixed[i][j] *= shrink;
#pragma unroll
            for (int j = 0; j < KEYS / 16; j++)
                weights[(row + i) * SCORES + part + 16 * j] = scores[i][j];
        }

        // Values lie where the keys lay.
        wait_for_block();
        copy_float_rows<D>(values, value, sizes.value_row, start, sizes.keys, sizes.width);
        end_copies();
        wait_for_copies<0>();
        wait_for_block();
#pragma unroll 4
        for (int at = 0; at < KEYS; at++) {
            float a[4];
#pragma unroll
            for (int i = 0; i < 4; i++) a[i] = weights[(row + i) * SCORES + at];
#pragma unroll
            for (int j = 0; j < D / 16; j++) {
                float b = values[at * PITCH + part + 16 * j];
#pragma unroll
                for (int i = 0; i < 4; i++) mixed[i][j] = fmaf(a[i], b, mixed[i][j]);
            }
        }
    }

    out += head * sizes.out_head;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float inverse = 1.0f / whole_sum<16>(rows[i].sum);
#pragma unroll
        for (int j = 0; j < D / 16; j++) {
            int at = part + 16 * j;
            if (first + row + i < sizes.queries && at < sizes.width)
                out[(first + row + i) * sizes.out_row + at] = mixed[i][j] * inverse;
        }
    }
}
