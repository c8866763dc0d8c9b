// Weights of eight bits, widened for a product.
#pragma once
#include "device.cuh"

// The number that a byte stands for in E4M3 (arXiv:2209.05433), by the fields of f32, whose bias is
// 120 more; without an exponent it is what lies above 2⁻⁶ there.
DEVICE float e4m3(u8 byte) {
    u32 sign = (u32)(byte & 0x80) << 24, rest = byte & 0x7f;
    if (rest == 0x7f) return bits_as_float(sign | 0x7fc00000u);
    float small = bits_as_float((rest << 20) + (121u << 23)) - bits_as_float(121u << 23);
    float size = rest < 8 ? small : bits_as_float((rest << 20) + (120u << 23));
    return sign ? -size : size;
}

// Each thread widens four bytes that lie side by side; there are at most 2³¹ − 1 blocks of 256.
template <class Type>
DEVICE void widen_e4m3(const u8 *bytes, typename Type::Number *out, float scale, i64 count) {
    i64 first = ((i64)blockIdx.x * 256 + threadIdx.x) * 4;
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (first + i < count) out[first + i] = Type::write(e4m3(bytes[first + i]) * scale);
}

// Signed bytes with a scale for each row of `inner`, likewise four by each thread.
template <class Type> DEVICE void widen_int8(const u8 *bytes, const float *scales,
                                             typename Type::Number *out, i64 inner, i64 count) {
    i64 first = ((i64)blockIdx.x * 256 + threadIdx.x) * 4;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        i64 at = first + i;
        if (at < count) out[at] = Type::write((float)(signed char)bytes[at] * scales[at / inner]);
    }
}
