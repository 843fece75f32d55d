// CUDA C as C++: what the sources use of the language, on one thread of the CPU.
//
// A block's threads run one after the other on a fiber. A thread that waits at a barrier leaves
// its fiber waiting and the threads after it take another one, so a kernel without barriers costs
// no switch. Odd blocks run their threads backwards and shared memory starts as NaN in each
// block: a missing barrier or a value never written shows in the result. A barrier that some
// threads of a block never reach is an error, as is a launch that no GPU would take.
#pragma once

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#define __global__
#define __device__ static __attribute__((unused))
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __constant__ static
#define __launch_bounds__(...)
// A section of their own, so that a block can begin with all of them spoilt.
#define __shared__ static __attribute__((section("cuda_shared")))
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(shim::dynamic_shared.get())

#define SHIM_VECTOR2(T, name, align)                                \
    struct alignas(align) name##2 { T x, y; };                      \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }
#define SHIM_VECTOR3(T, name)                                       \
    struct name##3 { T x, y, z; };                                  \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }
#define SHIM_VECTOR4(T, name, align)                                \
    struct alignas(align) name##4 { T x, y, z, w; };                \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SHIM_VECTOR2(unsigned char, uchar, 2)
SHIM_VECTOR3(unsigned char, uchar)
SHIM_VECTOR4(unsigned char, uchar, 4)
SHIM_VECTOR2(short, short, 4)
SHIM_VECTOR4(short, short, 8)
SHIM_VECTOR2(int, int, 8)
SHIM_VECTOR3(int, int)
SHIM_VECTOR4(int, int, 16)
SHIM_VECTOR2(unsigned, uint, 8)
SHIM_VECTOR3(unsigned, uint)
SHIM_VECTOR4(unsigned, uint, 16)
SHIM_VECTOR2(float, float, 8)
SHIM_VECTOR3(float, float)
SHIM_VECTOR4(float, float, 16)
SHIM_VECTOR2(double, double, 16)

static uint3 threadIdx, blockIdx, blockDim, gridDim;
static constexpr int warpSize = 32;

namespace shim {

// While a kernel runs, numbers below 2 ** -126 are 0, as CuPy has every kernel compiled
// (-ftz=true). Here it is true of double precision too, where no kernel comes near 2 ** -1022.
class FlushToZero {
#if defined(__SSE__)
    static constexpr unsigned flush = 0x8040;  // results, and operands
    const unsigned before = _mm_getcsr();

public:
    FlushToZero() { _mm_setcsr(before | flush); }
    ~FlushToZero() { _mm_setcsr(before); }
#elif defined(__aarch64__)
    uint64_t before;

public:
    FlushToZero() {
        asm volatile("mrs %0, fpcr" : "=r"(before));
        asm volatile("msr fpcr, %0" ::"r"(before | (1ull << 24)));
    }
    ~FlushToZero() { asm volatile("msr fpcr, %0" ::"r"(before)); }
#else
public:
    FlushToZero() {}
    ~FlushToZero() {}
#endif
};

[[maybe_unused]] static std::unique_ptr<char[]> dynamic_shared;

enum class State { ready, at_block_barrier, at_warp_barrier, done };

// A stack, and the thread that runs on it now.
struct Fiber {
    static constexpr size_t stack_bytes = 256 * 1024;
    void* stack = nullptr;
    ucontext_t first;
    jmp_buf where;
    bool started = false;
    State state = State::ready;
    int thread = 0;
    void* fake_stack = nullptr;
};

struct Block {
    std::vector<std::unique_ptr<Fiber>> fibers;  // kept from block to block
    Fiber* current = nullptr;
    jmp_buf scheduler;
    void* scheduler_fake_stack = nullptr;
    const void* scheduler_stack = nullptr;
    size_t scheduler_stack_bytes = 0;
    int threads = 0, next = 0;
    bool backwards = false;
    void (*body)(const void*) = nullptr;
    const void* arguments = nullptr;
    int slots[1024];          // one value a thread, for the barriers that carry one
    unsigned long long lanes[1024];  // and for shuffles
};
static Block block;

static void set_thread(int number) {
    const int t = block.backwards ? block.threads - 1 - number : number;
    threadIdx.x = t % blockDim.x;
    threadIdx.y = t / blockDim.x % blockDim.y;
    threadIdx.z = t / (blockDim.x * blockDim.y);
}

static int linear_thread() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

// AddressSanitizer follows which stack is in use only when it is told.
static void leaving([[maybe_unused]] void** fake, [[maybe_unused]] const void* stack,
                    [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(fake, stack, bytes);
#endif
}

static void entered([[maybe_unused]] void* fake, [[maybe_unused]] const void** stack,
                    [[maybe_unused]] size_t* bytes) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, stack, bytes);
#endif
}

// Back to the scheduler, until it resumes this fiber.
static void yield(State state) {
    Fiber* fiber = block.current;
    const uint3 index = threadIdx;
    fiber->state = state;
    if (_setjmp(fiber->where) == 0) {
        leaving(&fiber->fake_stack, block.scheduler_stack, block.scheduler_stack_bytes);
        _longjmp(block.scheduler, 1);
    }
    entered(fiber->fake_stack, &block.scheduler_stack, &block.scheduler_stack_bytes);
    threadIdx = index;
}

// A fiber's life: thread after thread, as long as there are any, then wait for the next block.
static void live() {
    entered(nullptr, &block.scheduler_stack, &block.scheduler_stack_bytes);
    for (;;) {
        while (block.next < block.threads) {
            block.current->thread = block.next++;
            set_thread(block.current->thread);
            block.body(block.arguments);
        }
        yield(State::done);
    }
}

static void resume(Fiber& fiber) {
    block.current = &fiber;
    fiber.state = State::ready;
    if (_setjmp(block.scheduler) == 0) {
        leaving(&block.scheduler_fake_stack, fiber.stack, Fiber::stack_bytes);
        if (fiber.started) _longjmp(fiber.where, 1);
        fiber.started = true;
        setcontext(&fiber.first);
    }
    entered(block.scheduler_fake_stack, nullptr, nullptr);
}

static Fiber& new_fiber() {
    auto fiber = std::make_unique<Fiber>();
    fiber->stack = mmap(nullptr, Fiber::stack_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    getcontext(&fiber->first);
    fiber->first.uc_stack.ss_sp = fiber->stack;
    fiber->first.uc_stack.ss_size = Fiber::stack_bytes;
    fiber->first.uc_link = nullptr;
    makecontext(&fiber->first, live, 0);
    block.fibers.push_back(std::move(fiber));
    return *block.fibers.back();
}

// Let the warps go whose threads all wait, then the block if all its threads wait. Returns
// whether anything can run; *torn tells a barrier that part of the block cannot reach.
static bool release(size_t used, bool* torn) {
    int waiting_of_warp[32] = {}, at_block = 0;
    for (size_t i = 0; i < used; i++) {
        const Fiber& fiber = *block.fibers[i];
        if (fiber.state == State::at_warp_barrier) waiting_of_warp[fiber.thread / 32]++;
        if (fiber.state == State::at_block_barrier) at_block++;
    }
    bool any = false;
    for (size_t i = 0; i < used; i++) {
        Fiber& fiber = *block.fibers[i];
        const int warp = fiber.thread / 32;
        const int lanes = std::min(32, block.threads - 32 * warp);
        if (fiber.state == State::at_warp_barrier && waiting_of_warp[warp] == lanes) {
            fiber.state = State::ready;
            any = true;
        }
    }
    if (!any && at_block == block.threads) {
        for (size_t i = 0; i < used; i++) block.fibers[i]->state = State::ready;
        return true;
    }
    *torn = false;
    for (size_t i = 0; i < used && !any; i++) *torn |= block.fibers[i]->state != State::done;
    return any;
}

static const char* run_block() {
    block.next = 0;
    size_t used = 0;
    while (block.next < block.threads) {
        Fiber& fiber = used < block.fibers.size() ? *block.fibers[used] : new_fiber();
        used++;
        resume(fiber);
    }
    bool torn = false;
    while (release(used, &torn)) {
        for (size_t i = 0; i < used; i++) {
            if (block.fibers[i]->state == State::ready) resume(*block.fibers[i]);
        }
    }
    return torn ? "a barrier that not all threads of the block reach" : nullptr;
}

}  // namespace shim

extern "C" char __start_cuda_shared[] __attribute__((weak));
extern "C" char __stop_cuda_shared[] __attribute__((weak));

namespace shim {

static void spoil_shared([[maybe_unused]] size_t dynamic_bytes) {
#if !defined(__SANITIZE_ADDRESS__)  // which guards the gaps between the arrays
    if (__start_cuda_shared != nullptr) {
        std::memset(__start_cuda_shared, 0xff, __stop_cuda_shared - __start_cuda_shared);
    }
#endif
    if (dynamic_bytes > 0) std::memset(dynamic_shared.get(), 0xff, dynamic_bytes);
}

template <typename... A, size_t... I>
static void call(void (*kernel)(A...), void* const* values, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<A>*>(values[I])...);
}

template <typename... A>
static const char* launch(void (*kernel)(A...), const unsigned* grid, const unsigned* threads,
                          size_t shared_bytes, void* const* values) {
    const FlushToZero flush_to_zero;
    using Call = std::pair<void (*)(A...), void* const*>;
    const Call all{kernel, values};
    const unsigned long long count = 1ull * threads[0] * threads[1] * threads[2];
    if (count == 0 || count > 1024 || threads[2] > 64) return "a block of 1 to 1024 threads";
    if (!grid[0] || !grid[1] || !grid[2] || grid[0] > 0x7fffffff || grid[1] > 65535 ||
        grid[2] > 65535) {
        return "a grid of at most 2147483647 x 65535 x 65535 blocks, and at least one";
    }
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {threads[0], threads[1], threads[2]};
    dynamic_shared.reset(shared_bytes ? new char[shared_bytes] : nullptr);
    block.threads = static_cast<int>(count);
    block.arguments = &all;
    block.body = [](const void* whole) {
        const Call& one = *static_cast<const Call*>(whole);
        call(one.first, one.second, std::index_sequence_for<A...>{});
    };
    for (unsigned z = 0; z < grid[2]; z++) {
        for (unsigned y = 0; y < grid[1]; y++) {
            for (unsigned x = 0; x < grid[0]; x++) {
                blockIdx = {x, y, z};
                block.backwards = (x + y + z) % 2;
                spoil_shared(shared_bytes);
                if (const char* error = run_block()) return error;
            }
        }
    }
    dynamic_shared.reset();
    return nullptr;
}

// The type of an argument as NumPy writes it, with a star for a pointer and a c for const.
template <typename T>
static std::string type_name() {
    if constexpr (std::is_pointer_v<T>) {
        using To = std::remove_pointer_t<T>;
        using Plain = std::remove_const_t<To>;
        std::string name;
        if constexpr (std::is_class_v<Plain>) {  // a vector type: an array of its components
            name = type_name<decltype(Plain::x)>();
        } else {
            name = type_name<Plain>();
        }
        return name + (std::is_const_v<To> ? "*c" : "*");
    } else if constexpr (std::is_same_v<T, bool>) {
        return "b1";
    } else {
        const char kind = std::is_floating_point_v<T> ? 'f' : std::is_signed_v<T> ? 'i' : 'u';
        return kind + std::to_string(sizeof(T));
    }
}

template <typename... A>
static const char* signature(void (*)(A...)) {
    static std::string names;
    names.clear();
    ((names += type_name<A>() + " "), ...);
    return names.c_str();
}

}  // namespace shim

#define SHIM_EXPORT(name)                                                                     \
    extern "C" const char* shim_signature_##name() { return shim::signature(name); }          \
    extern "C" const char* shim_launch_##name(const unsigned* grid, const unsigned* threads,  \
                                              size_t shared_bytes, void* const* values) {     \
        return shim::launch(name, grid, threads, shared_bytes, values);                       \
    }

// Barriers.

static inline void __syncthreads() { shim::yield(shim::State::at_block_barrier); }

template <typename Fold>
static inline int shim_voted(int value, int start, Fold fold) {
    shim::block.slots[shim::linear_thread()] = value != 0;
    __syncthreads();
    for (int i = 0; i < shim::block.threads; i++) start = fold(start, shim::block.slots[i]);
    __syncthreads();
    return start;
}
static inline int __syncthreads_or(int value) {
    return shim_voted(value, 0, [](int a, int b) { return a | b; });
}
static inline int __syncthreads_and(int value) {
    return shim_voted(value, 1, [](int a, int b) { return a & b; });
}
static inline int __syncthreads_count(int value) {
    return shim_voted(value, 0, [](int a, int b) { return a + b; });
}

// Whole warps only: the masks are not looked at.
static inline void __syncwarp(unsigned = 0xffffffffu) {
    shim::yield(shim::State::at_warp_barrier);
}

template <typename T>
static inline T shim_shuffled(T value, int source) {
    static_assert(sizeof(T) <= 8);
    const int me = shim::linear_thread(), first = me & ~31;
    std::memcpy(&shim::block.lanes[me], &value, sizeof(T));
    __syncwarp();
    T got = value;
    if (source >= 0 && first + source < shim::block.threads) {
        std::memcpy(&got, &shim::block.lanes[first + source], sizeof(T));
    }
    __syncwarp();
    return got;
}
template <typename T>
static inline T __shfl_sync(unsigned, T value, int lane, int width = 32) {
    const int me = shim::linear_thread() % 32;
    return shim_shuffled(value, me / width * width + lane % width);
}
template <typename T>
static inline T __shfl_down_sync(unsigned, T value, unsigned by, int width = 32) {
    const int me = shim::linear_thread() % 32;
    return shim_shuffled(value, me % width + int(by) < width ? me + int(by) : -1);
}
template <typename T>
static inline T __shfl_up_sync(unsigned, T value, unsigned by, int width = 32) {
    const int me = shim::linear_thread() % 32;
    return shim_shuffled(value, me % width >= int(by) ? me - int(by) : -1);
}
template <typename T>
static inline T __shfl_xor_sync(unsigned, T value, int mask, int = 32) {
    return shim_shuffled(value, (shim::linear_thread() % 32) ^ mask);
}
static inline unsigned __ballot_sync(unsigned, int value) {
    const int me = shim::linear_thread(), first = me & ~31;
    shim::block.slots[me] = value != 0;
    __syncwarp();
    unsigned votes = 0;
    for (int i = 0; i < 32 && first + i < shim::block.threads; i++) {
        votes |= unsigned(shim::block.slots[first + i]) << i;
    }
    __syncwarp();
    return votes;
}
static inline int __any_sync(unsigned mask, int value) { return __ballot_sync(mask, value) != 0; }

static inline void __threadfence() {}
static inline void __threadfence_block() {}

// Atomics: one thread runs at a time.

template <typename T, typename F>
static inline T shim_atomic(T* where, F change) {
    static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned> ||
                  std::is_same_v<T, unsigned long long> || std::is_same_v<T, float> ||
                  std::is_same_v<T, double>);
    const T old = *where;
    *where = change(old);
    return old;
}
template <typename T, typename F>
static inline T shim_atomic_integer(T* where, F change) {
    static_assert(std::is_integral_v<T>);  // CUDA has these for no other
    return shim_atomic(where, change);
}
template <typename T>
using Same = std::common_type_t<T>;  // takes no part in deduction
template <typename T>
static inline T atomicAdd(T* p, Same<T> v) {
    return shim_atomic(p, [v](T a) { return T(a + v); });
}
template <typename T>
static inline T atomicExch(T* p, Same<T> v) {
    return shim_atomic(p, [v](T) { return v; });
}
template <typename T>
static inline T atomicMin(T* p, Same<T> v) {
    return shim_atomic_integer(p, [v](T a) { return std::min(a, v); });
}
template <typename T>
static inline T atomicMax(T* p, Same<T> v) {
    return shim_atomic_integer(p, [v](T a) { return std::max(a, v); });
}
template <typename T>
static inline T atomicOr(T* p, Same<T> v) {
    return shim_atomic_integer(p, [v](T a) { return T(a | v); });
}
template <typename T>
static inline T atomicAnd(T* p, Same<T> v) {
    return shim_atomic_integer(p, [v](T a) { return T(a & v); });
}
template <typename T>
static inline T atomicCAS(T* p, Same<T> was, Same<T> v) {
    return shim_atomic_integer(p, [was, v](T a) { return a == was ? v : a; });
}

// Arithmetic that C++ spells otherwise.

template <typename T, typename U>
static inline std::common_type_t<T, U> min(T a, U b) {
    using C = std::common_type_t<T, U>;
    if constexpr (std::is_floating_point_v<C>) return std::fmin(C(a), C(b));
    else return C(a) < C(b) ? C(a) : C(b);
}
template <typename T, typename U>
static inline std::common_type_t<T, U> max(T a, U b) {
    using C = std::common_type_t<T, U>;
    if constexpr (std::is_floating_point_v<C>) return std::fmax(C(a), C(b));
    else return C(a) > C(b) ? C(a) : C(b);
}
template <typename To, typename From>
static inline To shim_bits(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To bits;
    std::memcpy(&bits, &value, sizeof(To));
    return bits;
}
static inline int __float_as_int(float v) { return shim_bits<int>(v); }
static inline unsigned __float_as_uint(float v) { return shim_bits<unsigned>(v); }
static inline float __int_as_float(int v) { return shim_bits<float>(v); }
static inline float __uint_as_float(unsigned v) { return shim_bits<float>(v); }
static inline long long __double_as_longlong(double v) { return shim_bits<long long>(v); }
static inline double __longlong_as_double(long long v) { return shim_bits<double>(v); }
static inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
static inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float a) { return std::sqrt(a); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
// Conversions saturate on a GPU; in C++ a value out of range is undefined, so it is an error.
static inline int __float2int_rn(float v) { return static_cast<int>(std::nearbyint(v)); }
static inline int __float2int_rz(float v) { return static_cast<int>(v); }
static inline int __float2int_rd(float v) { return static_cast<int>(std::floor(v)); }
static inline int __double2int_rn(double v) { return static_cast<int>(std::nearbyint(v)); }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v)); }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
    for (int i = 0; i < 32; i += 8) c += (a >> i & 255u) * (b >> i & 255u);
    return c;
}
static inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 32; i += 8) {
        c += int(static_cast<signed char>(a >> i)) * int(static_cast<signed char>(b >> i));
    }
    return c;
}
static inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }
static inline float __fdividef(float a, float b) { return a / b; }
template <typename T>
static inline T __ldg(const T* p) { return *p; }
