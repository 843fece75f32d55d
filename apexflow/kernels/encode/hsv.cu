#include "device.cuh"
#include "polar.cuh"

// Scale and shift (N, 2) that stretch the lengths of each flow (N, pixels, 2) over 0 to 255, as
// cv2.normalize, but no range shorter than `least`: both 0 where all lengths are equal and it is
// 0, and NaN where a squared length is not finite. One block a flow.
extern "C" __global__ void __launch_bounds__(256) stretch(
    const float* __restrict__ flows, int pixels, double least_range,
    float* __restrict__ scales) {
    __shared__ float least[256], greatest[256];
    const int thread = threadIdx.x;
    const float* flow = flows + 2 * size_t(blockIdx.x) * pixels;
    float low = infinity(), high = 0.0f;
    bool finite = true;
    for (int i = thread; i < pixels; i += 256) {
        const float squared = squared_length(vector_at(flow, i));
        finite = finite && squared < infinity();
        low = fminf(low, squared);
        high = fmaxf(high, squared);
    }
    least[thread] = low;
    greatest[thread] = high;
    finite = __syncthreads_and(finite);
    for (int half = 128; half > 0; half /= 2) {
        if (thread < half) {
            least[thread] = fminf(least[thread], least[thread + half]);
            greatest[thread] = fmaxf(greatest[thread], greatest[thread + half]);
        }
        __syncthreads();
    }
    if (thread > 0) return;
    const double shortest = sqrtf(least[0]), longest = sqrtf(greatest[0]);
    const double epsilon = 2.220446049250313e-16;
    const double range = fmax(longest - shortest, least_range);
    const float scale = range > epsilon ? float(255.0 * (1.0 / range)) : 0.0f;
    scales[2 * blockIdx.x] = finite ? scale : infinity() - infinity();
    scales[2 * blockIdx.x + 1] = float(-shortest * double(scale));
}

// One channel of OpenCV's colour at full saturation: a ramp of the hue, times the value.
__device__ inline int channel(float value, float share) {
    return int(floorf(fminf(value * fmaxf(share, 0.0f), value) * 255.0f));
}

__device__ inline u8 mean_byte(int sum, int count, bool half_up) {
    const float mean = float(sum) * (1.0f / float(count));
    return u8(half_up ? floorf(mean + 0.5f) : rintf(mean));
}

// HSV maps (N, rows, columns, 3) of flows (N, rows k, columns l, 2), as RGB: a thread colours
// the k l vectors of a cell and averages them. The value is stretched by `scales`, or, with a
// limit above 0, the length in parts of the limit. A row of blocks for each flow.
extern "C" __global__ void __launch_bounds__(256) hsv_cells(
    const float* __restrict__ flows, const float* __restrict__ scales, float limit, int rows,
    int columns, int cell_height, int cell_width, u8* __restrict__ maps) {
    const int cell = blockIdx.x * blockDim.x + threadIdx.x;
    if (cell >= rows * columns) return;
    const int width = columns * cell_width;
    const size_t map = blockIdx.y;
    const size_t corner = map * rows * cell_height * width +
                          cell / columns * cell_height * width + cell % columns * cell_width;
    const float scale = scales[2 * map], shift = scales[2 * map + 1];
    if (scale != scale) return;  // no number, so no map: the caller refuses the flow
    int red = 0, green = 0, blue = 0;
    for (int y = 0; y < cell_height; y++) {
        for (int x = 0; x < cell_width; x++) {
            const float2 vector = vector_at(flows, corner + y * width + x);
            const float length = sqrtf(squared_length(vector));
            float byte;
            if (limit > 0.0f) {
                byte = rintf(fminf(length / limit, 1.0f) * 255.0f);
            } else {
                byte = truncf(fmaf(length, scale, shift));
                byte -= 256.0f * floorf(byte * (1.0f / 256.0f));  // as NumPy casts to bytes
            }
            const float value = byte * (1.0f / 255.0f);
            const float sectors = 0.03333333333333333f;  // 6 / 180
            const float hue = floorf(half_angle(vector.x, vector.y)) * sectors;
            red += channel(value, fmaxf(2.0f - hue, hue - 4.0f));
            green += channel(value, fminf(4.0f - hue, 1.0f - (1.0f - hue)));
            blue += channel(value, fminf(6.0f - hue, hue - 2.0f));
        }
    }
    u8* colour = maps + 3 * (map * rows * columns + cell);
    const int count = cell_height * cell_width;
    // cv2.INTER_AREA rounds a half up in cells of 2 x 2, and to even in others.
    const bool half_up = cell_height == 2 && cell_width == 2;
    colour[0] = mean_byte(red, count, half_up);
    colour[1] = mean_byte(green, count, half_up);
    colour[2] = mean_byte(blue, count, half_up);
}
