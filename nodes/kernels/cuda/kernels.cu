// All kernels, by name.
#include "attention.cuh"
#include "blocks.cuh"
#include "conv.cuh"
#include "norm.cuh"
#include "rotate.cuh"
#include "weights.cuh"

#define ATTENTION(half, Half, width)                                                               \
    KERNEL(128)                                                                                    \
    attention_##half##_##width(const u16 *query, const u16 *key, const u16 *value,                 \
                               const float *bias, u16 *out, AttentionSizes sizes) {                \
        attend<Half, width>(query, key, value, bias, out, sizes);                                  \
    }

#define ATTENTION_OF_FLOATS(width)                                                                 \
    KERNEL(256)                                                                                    \
    attention_f32_##width(const float *query, const float *key, const float *value,                \
                          const float *bias, float *out, AttentionSizes sizes) {                   \
        attend_floats<width>(query, key, value, bias, out, sizes);                                 \
    }

ATTENTION(bf16, Bf16, 64)
ATTENTION(bf16, Bf16, 80)
ATTENTION(bf16, Bf16, 128)
ATTENTION(f16, F16, 64)
ATTENTION(f16, F16, 80)
ATTENTION(f16, F16, 128)
ATTENTION_OF_FLOATS(64)
ATTENTION_OF_FLOATS(80)
ATTENTION_OF_FLOATS(128)

#define OF_TYPE(type, Type)                                                                        \
    KERNEL(256)                                                                                    \
    widen_e4m3_##type(const u8 *bytes, Type::Number *out, float scale, i64 count) {                \
        widen_e4m3<Type>(bytes, out, scale, count);                                                \
    }                                                                                              \
    KERNEL(256)                                                                                    \
    widen_int8_##type(const u8 *bytes, const float *scales, Type::Number *out, i64 inner,          \
                      i64 count) {                                                                 \
        widen_int8<Type>(bytes, scales, out, inner, count);                                        \
    }                                                                                              \
    KERNEL(256)                                                                                    \
    rotate_groups_##type(const Type::Number *x, Type::Number *out, int group, int span,            \
                         float scale, i64 count) {                                                 \
        rotate_groups<Type>(x, out, group, span, scale, count);                                    \
    }                                                                                              \
    KERNEL(256)                                                                                    \
    rms_norm_rope_##type(const Type::Number *x, const float *weight, const float *cosines,         \
                         const float *sines, Type::Number *out, int width, int half, float eps) {  \
        rms_norm_rope<Type>(x, weight, cosines, sines, out, width, half, eps);                     \
    }

OF_TYPE(f32, Floats)
OF_TYPE(bf16, Halves<Bf16>)
OF_TYPE(f16, Halves<F16>)

#define IN_BLOCKS(Blocks, type, Type)                                                              \
    KERNEL(256)                                                                                    \
    widen_##Blocks##_##type(const u8 *bytes, Type::Number *out, i64 count) {                       \
        widen_blocks<Blocks, Type>(bytes, out, count);                                             \
    }                                                                                              \
    KERNEL(256)                                                                                    \
    multiply_##Blocks##_##type(const Type::Number *x, const u8 *bytes, Type::Number *out,          \
                               int rows, int inner, int outs) {                                    \
        multiply_blocks<Blocks, Type>(x, bytes, out, rows, inner, outs);                           \
    }

#define OF_BLOCKS(Blocks)                                                                          \
    IN_BLOCKS(Blocks, f32, Floats)                                                                 \
    IN_BLOCKS(Blocks, bf16, Halves<Bf16>)                                                          \
    IN_BLOCKS(Blocks, f16, Halves<F16>)

OF_BLOCKS(Q4_0)
OF_BLOCKS(Q4_1)
OF_BLOCKS(Q5_0)
OF_BLOCKS(Q5_1)
OF_BLOCKS(Q8_0)
OF_BLOCKS(Q2_K)
OF_BLOCKS(Q3_K)
OF_BLOCKS(Q4_K)
OF_BLOCKS(Q5_K)
OF_BLOCKS(Q6_K)

#define CONVOLUTION(half, Half)                                                                    \
    KERNEL(128)                                                                                    \
    conv_##half(const u16 *past, const u16 *frames, const u16 *weights, const float *bias,         \
                u16 *out, ConvSizes sizes) {                                                       \
        convolve<Half>(past, frames, weights, bias, out, sizes);                                   \
    }

CONVOLUTION(bf16, Bf16)
CONVOLUTION(f16, F16)

KERNEL(256)
conv_f32(const float *past, const float *frames, const float *weights, const float *bias,
         float *out, ConvSizes sizes) {
    convolve_floats(past, frames, weights, bias, out, sizes);
}
