// What all CUDA sources share. Plain CUDA C++17 without any library: the sources also build as
// C++ on a machine without a GPU. A header is put in place once, however often it is included.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

// Shared memory whose size is given at the launch.
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

__device__ inline float infinity() { return __int_as_float(0x7f800000); }

__device__ inline int clamped(int value, int low, int high) {
    return value < low ? low : value > high ? high : value;
}

__device__ inline float clamped(float value, float low, float high) {
    return value < low ? low : value > high ? high : value;
}

// Index mirrored at the border without repeating it (OpenCV's BORDER_REFLECT_101), once.
__device__ inline int mirrored(int index, int length) {
    if (length == 1) return 0;
    if (index < 0) index = -index;
    return index < length ? index : 2 * (length - 1) - index;
}

// Vector i of a flow. Two loads: a caller's array may begin at any float, a float2 may not.
__device__ inline float2 vector_at(const float* flow, size_t i) {
    return make_float2(flow[2 * i], flow[2 * i + 1]);
}
