// The Gaussian of `gaussian.py` on the GPU, for planes (count, height, width): down the columns,
// then along the rows, in the order of the CPU's sums. A thread a pixel; neighbours share their
// loads through the cache.

#include "device.cuh"

// Mirrored at the first and last place as often as it takes.
__device__ int mirrored_often(int index, int length) {
    if (length == 1) return 0;
    const int period = 2 * (length - 1);
    index = (index < 0 ? -index : index) % period;
    return index < length ? index : period - index;
}

// One half of the weights, the middle one first; `stride` is the distance of neighbours.
__device__ float averaged(const float* line, int at, int length, int stride, const float* taps,
                          int radius) {
    float total = line[static_cast<size_t>(at) * stride] * taps[0];
    for (int k = 1; k <= radius; ++k) {
        const bool inside = at >= k && at + k < length;
        const int before = inside ? at - k : mirrored_often(at - k, length);
        const int after = inside ? at + k : mirrored_often(at + k, length);
        const float both = line[static_cast<size_t>(before) * stride] +
                           line[static_cast<size_t>(after) * stride];
        total = fmaf(both, taps[k], total);
    }
    return total;
}

extern "C" __global__ void __launch_bounds__(256) blur_down(
    const float* source, float* target, int height, int width, const float* taps, int radius) {
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= height * width) return;
    const size_t plane = static_cast<size_t>(blockIdx.y) * height * width;
    const int y = pixel / width, x = pixel - y * width;
    target[plane + pixel] = averaged(source + plane + x, y, height, width, taps, radius);
}

extern "C" __global__ void __launch_bounds__(256) blur_across(
    const float* source, float* target, int height, int width, const float* taps, int radius) {
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= height * width) return;
    const size_t plane = static_cast<size_t>(blockIdx.y) * height * width;
    const int y = pixel / width, x = pixel - y * width;
    target[plane + pixel] = averaged(source + plane + y * width, x, width, 1, taps, radius);
}
