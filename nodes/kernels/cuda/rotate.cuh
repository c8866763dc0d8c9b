// Rotation of groups of activations by a regular Hadamard matrix (ConvRot; see src/rotate.rs).
#pragma once
#include "device.cuh"

// A block of 256 threads takes `span` numbers, whole groups, or what is left of them, and
// multiplies by one factor H₄ after another in shared memory. `scale` is 1/√group.
template <class Type>
DEVICE void rotate_groups(const typename Type::Number *x, typename Type::Number *out, int group,
                          int span, float scale, i64 count) {
    float *numbers = (float *)shared_memory;
    i64 first = (i64)blockIdx.x * span;
    int own = count - first < span ? (int)(count - first) : span;
    for (int i = threadIdx.x; i < own; i += 256) numbers[i] = Type::read(x[first + i]);
    for (int step = 1; step < group; step *= 4) {
        wait_for_block();
        for (int four = threadIdx.x; four < own / 4; four += 256) {
            float *at = numbers + four / step * 4 * step + four % step;
            float a = at[0], b = at[step], c = at[2 * step], d = at[3 * step];
            float half = product(a + b + c + d, 0.5f);
            // A row of H₄ is the sum of all less twice one of them.
            at[0] = 2.0f * (half - d), at[step] = 2.0f * (half - c);
            at[2 * step] = 2.0f * (half - b), at[3 * step] = 2.0f * (half - a);
        }
    }
    wait_for_block();
    for (int i = threadIdx.x; i < own; i += 256) out[first + i] = Type::write(numbers[i] * scale);
}
