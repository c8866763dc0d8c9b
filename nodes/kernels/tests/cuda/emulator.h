// A card on the processor, as far as the kernels in `cuda/` ask for one: the threads of a block are
// fibers that run in a random order from barrier to barrier, copies arrive as late as they may,
// shared memory starts as NaN, and a page that nobody may touch follows it and every buffer.
// Threads that wait for others that never come end the program.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

#define KERNEL(threads) extern "C" void
#define DEVICE inline

struct float4 {
    float x, y, z, w;
};

namespace card {

struct Dim {
    u32 x, y, z;
};

struct Copy {
    void *to;
    const void *from;
    bool there;
};

[[noreturn]] inline void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    _exit(1);
}

// Where `members` threads wait for each other.
struct Barrier {
    int members, arrived;
    u32 passed;
};

// What the lanes of a warp tell each other at once; two in turn, since a lane may be at the next
// exchange while another still reads.
struct Exchange {
    u32 words[32][6];
    const u16 *rows[32];
};

struct Warp {
    Barrier barrier;
    Exchange exchanges[2];
};

struct Fiber {
    ucontext_t context;
    std::vector<u8> stack;
    Dim thread;
    bool ended;
    // The barrier at which it waits, and how often that was passed before.
    const Barrier *at;
    u32 before;
    int exchanges;
    std::vector<Copy> copies;
    std::vector<std::vector<Copy>> groups;
};

inline Dim block_index, block_size, grid_size;
inline std::vector<Fiber> fibers;
inline std::vector<Warp> warps;
inline Barrier block_barrier;
inline Fiber *running;
inline ucontext_t scheduler;
inline u8 *shared;

inline void wait_at(Barrier &barrier) {
    if (++barrier.arrived == barrier.members) {
        barrier.arrived = 0;
        barrier.passed++;
        return;
    }
    running->at = &barrier;
    running->before = barrier.passed;
    swapcontext(&running->context, &scheduler);
}

inline u32 lane() { return running->thread.x % 32; }

// Tells the warp what `put` writes; what all its lanes told.
template <class Put> const Exchange &exchange(Put put) {
    Warp &warp = warps[running->thread.x / 32];
    Exchange &exchange = warp.exchanges[running->exchanges++ % 2];
    put(exchange);
    wait_at(warp.barrier);
    return exchange;
}

inline void arrive(const std::vector<Copy> &copies) {
    for (const Copy &copy : copies) {
        if (copy.there) memcpy(copy.to, copy.from, 16);
        else memset(copy.to, 0, 16);
    }
}

inline void aligned(const void *address, size_t to) {
    if ((size_t)address % to) fail("an address is not aligned");
}

} // namespace card

#define threadIdx (card::running->thread)
#define blockIdx (card::block_index)
#define shared_memory (card::shared)

DEVICE void wait_for_block() { card::wait_at(card::block_barrier); }

DEVICE float bits_as_float(u32 bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

DEVICE u32 float_as_bits(float x) {
    u32 bits;
    memcpy(&bits, &x, 4);
    return bits;
}

DEVICE float shuffle_xor(float x, int mask) {
    u32 lane = card::lane();
    const card::Exchange &told =
        card::exchange([&](card::Exchange &e) { e.words[lane][0] = float_as_bits(x); });
    return bits_as_float(told.words[lane ^ mask][0]);
}

DEVICE float exp2_of(float x) { return exp2f(x); }

// Compiled with -ffp-contract=off.
DEVICE float product(float x, float y) { return x * y; }

DEVICE void copy_16_bytes(void *to, const void *from, bool there) {
    card::aligned(to, 16);
    card::aligned(from, 16);
    card::running->copies.push_back({to, from, there});
}

DEVICE void end_copies() {
    card::running->groups.push_back(std::move(card::running->copies));
    card::running->copies.clear();
}

template <int pending> DEVICE void wait_for_copies() {
    auto &groups = card::running->groups;
    while (groups.size() > pending) {
        card::arrive(groups.front());
        groups.erase(groups.begin());
    }
}

// PTX ISA, ldmatrix: the rows of matrix i are those that lanes 8i to 8i + 7 name; a lane gets two
// numbers of its row.
DEVICE void load_rows(u32 (&matrices)[4], const u16 *row, bool transposed) {
    u32 lane = card::lane();
    card::aligned(row, 16);
    const card::Exchange &told = card::exchange([&](card::Exchange &e) { e.rows[lane] = row; });
    for (u32 i = 0; i < 4; i++) {
        u16 pair[2];
        for (u32 j = 0; j < 2; j++) {
            u32 line = lane / 4, column = lane % 4 * 2 + j;
            pair[j] =
                transposed ? told.rows[i * 8 + column][line] : told.rows[i * 8 + line][column];
        }
        matrices[i] = pair[0] | (u32)pair[1] << 16;
    }
}

DEVICE void load_matrices(u32 (&matrices)[4], const u16 *row) { load_rows(matrices, row, false); }
DEVICE void load_transposed(u32 (&matrices)[4], const u16 *row) { load_rows(matrices, row, true); }

// PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type": with g = lane/4 and t =
// lane mod 4, the left factor's number i lies in row g (i in 0, 1, 4, 5) or g + 8, column 2t + (i
// mod 2), 8 more from i = 4 on; the right one's in row 2t + (i mod 2), 8 more from i = 2 on, column
// g; the sums' in row g, 8 more from i = 2 on, column 2t + (i mod 2).
template <class Half> void multiply_add_of(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    u32 lane = card::lane();
    const card::Exchange &told = card::exchange([&](card::Exchange &e) {
        for (int i = 0; i < 4; i++) e.words[lane][i] = a[i];
        e.words[lane][4] = b0;
        e.words[lane][5] = b1;
    });
    // Number i of a lane, counted from its word `first`.
    auto number = [&](u32 lane, u32 first, u32 i) {
        return (double)Half::widen((u16)(told.words[lane][first + i / 2] >> (i % 2 * 16)));
    };
    for (u32 i = 0; i < 4; i++) {
        u32 row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        double sum = sums[i];
        for (u32 k = 0; k < 16; k++) {
            u32 in_a = row / 8 * 2 + k / 8 * 4 + k % 2, in_b = k / 8 * 2 + k % 2;
            sum +=
                number(row % 8 * 4 + k % 8 / 2, 0, in_a) * number(column * 4 + k % 8 / 2, 4, in_b);
        }
        sums[i] = (float)sum;
    }
}

struct Bf16 {
    static float widen(u16 bits) { return bits_as_float((u32)bits << 16); }
    // To the nearest, ties to even.
    static u16 narrow(float x) {
        u32 bits = float_as_bits(x);
        if (x != x) return 0x7fff;
        return (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
    static u32 pair(float first, float second) { return narrow(first) | (u32)narrow(second) << 16; }
    static void multiply_add(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        multiply_add_of<Bf16>(sums, a, b0, b1);
    }
};

struct F16 {
    static float widen(u16 bits) {
        int exponent = bits >> 10 & 31, mantissa = bits & 1023;
        float size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                     : exponent     ? ldexpf(1024 + mantissa, exponent - 25)
                                    : ldexpf(mantissa, -24);
        return bits & 0x8000 ? -size : size;
    }
    static u16 narrow(float x) {
        u16 sign = float_as_bits(x) >> 31 << 15;
        float size = fabsf(x);
        if (x != x) return 0x7fff;
        if (size >= 65520) return sign | 0x7c00;
        // Numbers below 2⁻¹⁴ have no exponent: their last place is 2⁻²⁴. The nearest, ties to even.
        if (size < 0x1p-14f) return sign | (u16)nearbyintf(ldexpf(size, 24));
        int exponent = ilogbf(size);
        return sign | (u16)((int)nearbyintf(ldexpf(size, 10 - exponent)) + ((exponent + 14) << 10));
    }
    static u32 pair(float first, float second) { return narrow(first) | (u32)narrow(second) << 16; }
    static void multiply_add(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        multiply_add_of<F16>(sums, a, b0, b1);
    }
};
