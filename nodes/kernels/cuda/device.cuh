// What the kernels ask of a card, a function each. Two things stand behind them: PTX for compute
// capability 8.0 and later, here, and an emulation on the processor (tests/cuda/emulator.h), by
// which the kernels are tested without a card. No header of the toolkit is read.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64;

#ifdef KINO_EMULATED
#include "emulator.h" // tests/cuda
#else

#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
#define DEVICE __device__ __forceinline__

extern __shared__ __align__(16) u8 shared_memory[];

DEVICE void wait_for_block() { __syncthreads(); }

// The value of the lane whose number differs by the bits of `mask`.
DEVICE float shuffle_xor(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }

// 2^x, to 2 units in the last place; 0 for −∞.
DEVICE float exp2_of(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

DEVICE float bits_as_float(u32 bits) { return __uint_as_float(bits); }

// x·y, rounded: a sum that takes it does not become one operation with it.
DEVICE float product(float x, float y) { return __fmul_rn(x, y); }

// Copies 16 bytes into shared memory by the time that `wait_for_copies` says; zeros if they are not
// there.
DEVICE void copy_16_bytes(void *to, const void *from, bool there) {
    u32 address = (u32)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
}

// The copies since the last call become a group.
DEVICE void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until all groups of this thread but the latest `pending` are there. Others see them after
// `wait_for_block`.
template <int pending> DEVICE void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Four matrices of 8×8 numbers of 16 bits from shared memory. Lane l names row l mod 8 of matrix
// l/8; of each matrix it gets row l/4, columns 2(l mod 4) and the next (PTX ISA, ldmatrix).
DEVICE void load_matrices(u32 (&matrices)[4], const u16 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
                 : "r"((u32)__cvta_generic_to_shared(row))
                 : "memory");
}

// The same of matrices that are transposed on their way.
DEVICE void load_transposed(u32 (&matrices)[4], const u16 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
                 : "r"((u32)__cvta_generic_to_shared(row))
                 : "memory");
}

#define MULTIPLY_ADD(type)                                                                         \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                                     \
        ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "                                      \
        "{%0, %1, %2, %3};"                                                                        \
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                               \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))

struct Bf16 {
    static DEVICE float widen(u16 bits) { return __uint_as_float((u32)bits << 16); }
    // Two numbers, the first in the lower half.
    static DEVICE u32 pair(float first, float second) {
        u32 both;
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
        return both;
    }
    // sums += a·b on the tensor cores: 16×8, 16×16, 16×8 (PTX ISA, mma.m16n8k16).
    static DEVICE void multiply_add(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        MULTIPLY_ADD("bf16");
    }
};

struct F16 {
    static DEVICE float widen(u16 bits) {
        float x;
        asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
        return x;
    }
    static DEVICE u32 pair(float first, float second) {
        u32 both;
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
        return both;
    }
    static DEVICE void multiply_add(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        MULTIPLY_ADD("f16");
    }
};

#endif

// What is read and written at once.
struct alignas(16) Words {
    u32 words[4];
};

// Numbers of a type in memory; eight of them where 16 bytes may begin.
template <class Half> struct Halves {
    typedef u16 Number;
    static DEVICE float read(u16 bits) { return Half::widen(bits); }
    static DEVICE u16 write(float x) { return (u16)Half::pair(x, 0.0f); }
    static DEVICE void read_eight(float (&x)[8], const u16 *from) {
        Words pairs = *(const Words *)from;
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = Half::widen((u16)(pairs.words[i / 2] >> i % 2 * 16));
    }
    static DEVICE void write_eight(u16 *to, const float (&x)[8]) {
        Words pairs;
#pragma unroll
        for (int i = 0; i < 4; i++) pairs.words[i] = Half::pair(x[2 * i], x[2 * i + 1]);
        *(Words *)to = pairs;
    }
};

struct Floats {
    typedef float Number;
    static DEVICE float read(float x) { return x; }
    static DEVICE float write(float x) { return x; }
    static DEVICE void read_eight(float (&x)[8], const float *from) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float4 four = ((const float4 *)from)[half];
            x[half * 4] = four.x, x[half * 4 + 1] = four.y;
            x[half * 4 + 2] = four.z, x[half * 4 + 3] = four.w;
        }
    }
    static DEVICE void write_eight(float *to, const float (&x)[8]) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float *four = x + half * 4;
            ((float4 *)to)[half] = {four[0], four[1], four[2], four[3]};
        }
    }
};
