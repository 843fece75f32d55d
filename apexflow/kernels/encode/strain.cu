#include "device.cuh"

// The strain of flows (N, H, W, 2) as (N, H, W): one thread a pixel, one row of blocks a flow.
extern "C" __global__ void __launch_bounds__(256) optical_strain(
    const float* __restrict__ flows, int height, int width, float shear_weight,
    float* __restrict__ strain) {
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= height * width) return;
    const int y = pixel / width, x = pixel % width;
    const int above = max(y - 1, 0), below = min(y + 1, height - 1);
    const int left = max(x - 1, 0), right = min(x + 1, width - 1);
    const float y_scale = below - above == 2 ? 0.5f : 1.0f;
    const float x_scale = right - left == 2 ? 0.5f : 1.0f;
    const size_t first = size_t(blockIdx.y) * height * width;
    const float* flow = flows + 2 * first;
    const float2 up = vector_at(flow, above * width + x), down = vector_at(flow, below * width + x);
    const float2 near = vector_at(flow, y * width + left), far = vector_at(flow, y * width + right);
    const float exx = (far.x - near.x) * x_scale;
    const float eyy = (down.y - up.y) * y_scale;
    const float shear = (down.x - up.x) * y_scale + (far.y - near.y) * x_scale;
    strain[first + pixel] = sqrtf(exx * exx + eyy * eyy + shear_weight * shear * shear);
}
