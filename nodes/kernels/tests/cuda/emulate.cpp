// Runs kernels as a card would: reads launches from the standard input, one after the other, and writes what each left
// in its buffers. See `emulator.h`, and `run` in `src/card/emulated.rs` for the format.
#define KINO_EMULATED
#include "kernels.cu"

#include <string>
#include <utility>

using namespace card;

// Random numbers (SplitMix64), by which threads and blocks are put in order.
static unsigned long long state;
static u32 below(u32 limit) {
    unsigned long long z = state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (u32)((z ^ (z >> 31)) % limit);
}

static std::vector<u32> order(u32 count) {
    std::vector<u32> order(count);
    for (u32 i = 0; i < count; i++) order[i] = i;
    for (u32 i = count; i > 1; i--) std::swap(order[i - 1], order[below(i)]);
    return order;
}

// Memory that ends, but for what the alignment asks, where a page begins that nobody may touch.
static u8 *guarded(size_t bytes) {
    size_t page = sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
    u8 *memory = (u8 *)mmap(0, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + whole, page, PROT_NONE)) fail("no memory");
    return memory + whole - (bytes + 15) / 16 * 16;
}

static void read_exactly(void *to, size_t bytes) {
    if (fread(to, 1, bytes, stdin) != bytes) fail("a launch is cut");
}

template <class T> static T read_one() {
    T x;
    read_exactly(&x, sizeof x);
    return x;
}

static void **arguments;

template <class... Types, size_t... places>
static void call_with(void (*kernel)(Types...), std::index_sequence<places...>) {
    kernel(*(std::remove_reference_t<Types> *)arguments[places]...);
}

template <class... Types> static void call(void (*kernel)(Types...)) {
    call_with(kernel, std::index_sequence_for<Types...>());
}

struct Named {
    const char *name;
    void (*run)();
};

#define NAMED(kernel) {#kernel, [] { call(kernel); }}
#define OF_EVERY_TYPE(kernel) NAMED(kernel##_f32), NAMED(kernel##_bf16), NAMED(kernel##_f16)
#define OF_EVERY_WIDTH(kernel) NAMED(kernel##_64), NAMED(kernel##_80), NAMED(kernel##_128)

#define OF_BLOCKS_NAMED(blocks) OF_EVERY_TYPE(widen_##blocks), OF_EVERY_TYPE(multiply_##blocks)

static const Named KERNELS[] = {
    OF_EVERY_WIDTH(attention_f32), OF_EVERY_WIDTH(attention_bf16), OF_EVERY_WIDTH(attention_f16),
    OF_EVERY_TYPE(conv), OF_EVERY_TYPE(widen_e4m3), OF_EVERY_TYPE(rms_norm_rope),
    OF_EVERY_TYPE(widen_int8), OF_EVERY_TYPE(rotate_groups),
    OF_BLOCKS_NAMED(Q4_0), OF_BLOCKS_NAMED(Q4_1), OF_BLOCKS_NAMED(Q5_0), OF_BLOCKS_NAMED(Q5_1),
    OF_BLOCKS_NAMED(Q8_0), OF_BLOCKS_NAMED(Q2_K), OF_BLOCKS_NAMED(Q3_K), OF_BLOCKS_NAMED(Q4_K),
    OF_BLOCKS_NAMED(Q5_K), OF_BLOCKS_NAMED(Q6_K),
};

static void (*kernel)();

static void run_thread() {
    kernel();
    if (!running->copies.empty()) fail("a thread ends before its copies do");
    for (auto &group : running->groups)
        if (!group.empty()) fail("a thread ends before its copies do");
    running->ended = true;
}

static void run_block(size_t bytes_of_shared) {
    u32 threads = block_size.x;
    memset(shared, 0xff, (bytes_of_shared + 15) / 16 * 16);
    block_barrier = {(int)threads, 0, 0};
    for (Warp &warp : warps) warp.barrier = {32, 0, 0};
    for (u32 i = 0; i < threads; i++) {
        Fiber &fiber = fibers[i];
        getcontext(&fiber.context);
        fiber.stack.resize(256 << 10);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = &scheduler;
        makecontext(&fiber.context, run_thread, 0);
        fiber.thread = {i, 0, 0};
        fiber.ended = false;
        fiber.at = nullptr;
        fiber.exchanges = 0;
        fiber.copies.clear();
        fiber.groups.clear();
    }
    for (u32 ended = 0; ended < threads;) {
        bool moved = false;
        for (u32 i : order(threads)) {
            Fiber &fiber = fibers[i];
            if (fiber.ended || (fiber.at && fiber.at->passed == fiber.before)) continue;
            fiber.at = nullptr;
            running = &fiber;
            swapcontext(&scheduler, &fiber.context);
            moved = true;
            ended += fiber.ended;
        }
        if (!moved) fail("threads wait for others that never come");
    }
}

static void launch() {
    std::string name(read_one<u32>(), ' ');
    read_exactly(&name[0], name.size());
    kernel = nullptr;
    for (const Named &named : KERNELS)
        if (name == named.name) kernel = named.run;
    if (!kernel) fail("there is no kernel of this name");
    grid_size = read_one<Dim>();
    block_size = read_one<Dim>();
    size_t bytes_of_shared = read_one<u32>();
    state = read_one<unsigned long long>();
    if (block_size.x % 32 || block_size.y != 1 || block_size.z != 1) fail("blocks are of whole warps, in a row");

    struct Buffer {
        u8 *memory;
        size_t bytes;
    };
    std::vector<Buffer> buffers;
    std::vector<std::vector<u8>> values(read_one<u32>());
    std::vector<void *> places;
    for (auto &value : values) {
        u8 is_buffer = read_one<u8>();
        size_t bytes = read_one<u32>();
        if (is_buffer) {
            u8 *memory = bytes ? guarded(bytes) : nullptr;
            read_exactly(memory, bytes);
            buffers.push_back({memory, bytes});
            value.resize(sizeof memory);
            memcpy(value.data(), &memory, sizeof memory);
        } else {
            value.resize(bytes);
            read_exactly(value.data(), bytes);
        }
        places.push_back(value.data());
    }
    arguments = places.data();
    shared = guarded(bytes_of_shared);
    fibers = std::vector<Fiber>(block_size.x);
    warps = std::vector<Warp>(block_size.x / 32);
    for (u32 block : order(grid_size.x * grid_size.y * grid_size.z)) {
        block_index = {block % grid_size.x, block / grid_size.x % grid_size.y, block / grid_size.x / grid_size.y};
        run_block(bytes_of_shared);
    }
    for (const Buffer &buffer : buffers) fwrite(buffer.memory, 1, buffer.bytes, stdout);
    fflush(stdout);
}

int main() {
    for (int next; (next = getchar()) != EOF;) {
        ungetc(next, stdin);
        launch();
    }
}
