// The norm of queries and keys and the rotation of their positions, in one pass.
#pragma once
#include "device.cuh"

// A block of 256 threads takes a row: RMS norm over all of it, then each pair (x₂ᵢ, x₂ᵢ₊₁) of a
// head is turned by the angle of its row. Rounded once. Shapes: `x`, `out` [n, heads·d], `weight`
// [heads·d], `cosines`, `sines` [n, d/2].
template <class Type> DEVICE void rms_norm_rope(const typename Type::Number *x, const float *weight,
                                                const float *cosines, const float *sines,
                                                typename Type::Number *out, int width, int half,
                                                float eps) {
    float *parts = (float *)shared_memory;
    i64 start = (i64)blockIdx.x * width;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < width; i += 256) {
        float number = Type::read(x[start + i]);
        sum = fmaf(number, number, sum);
    }
#pragma unroll
    for (int mask = 1; mask < 32; mask *= 2) sum += shuffle_xor(sum, mask);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    wait_for_block();
    sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) sum += parts[i];
    float inverse = 1.0f / sqrtf(sum / (float)width + eps);
    for (int pair = threadIdx.x; pair < width / 2; pair += 256) {
        int at = pair * 2;
        float first = Type::read(x[start + at]) * inverse * weight[at];
        float second = Type::read(x[start + at + 1]) * inverse * weight[at + 1];
        i64 angle = (i64)blockIdx.x * half + pair % half;
        float cosine = cosines[angle], sine = sines[angle];
        out[start + at] = Type::write(first * cosine - second * sine);
        out[start + at + 1] = Type::write(first * sine + second * cosine);
    }
}
