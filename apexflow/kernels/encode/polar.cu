#include "device.cuh"
#include "polar.cuh"

// Length and direction in degrees of vectors (count, 2).
extern "C" __global__ void __launch_bounds__(256) magnitude_angle(
    const float* __restrict__ flow, i64 count, float* __restrict__ magnitude,
    float* __restrict__ angle) {
    const i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= count) return;
    const float2 vector = vector_at(flow, at);
    magnitude[at] = sqrtf(squared_length(vector));
    angle[at] = 2.0f * half_angle(vector.x, vector.y);
}
