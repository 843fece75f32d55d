// CLG on the GPU: the steps of one pyramid level, for a batch of pairs. `cpu.py` and `stack.py`
// are the specification, `gpu.py` calls these kernels and lays their arrays out.
//
// Images are (count, y, x), flows and the like (count, component, y, x). The first axis of a
// grid counts blocks of consecutive pixels, the second pairs. Sums over an image go through one
// double a block, which whoever needs the sum adds up in the same order: no race changes a bit.

#include "device.cuh"

constexpr int THREADS = 256;
constexpr float CUBIC = -0.5f;  // Catmull and Rom's

// What a pair's solution has come to. It is kept twice: all blocks read one, the first writes
// the other.
struct Progress {
    double limit;    // the squared residual that is small enough
    double product;  // of the residual with its preconditioned form, at the last turn
    double done;
};

static_assert(sizeof(Progress) == 3 * sizeof(double), "an array of three double for each pair");

__device__ inline size_t plane_of(int height, int width) {
    return static_cast<size_t>(height) * width;
}

__device__ inline int pixel_of_thread() { return blockIdx.x * THREADS + threadIdx.x; }

// Adds up one value a thread, in a tree: for all threads of a block, the result for the first.
template <int COUNT>
__device__ void add_threads(double (&values)[COUNT], double* sums) {
    __shared__ double parts[COUNT][THREADS];
    const int thread = threadIdx.x;
#pragma unroll
    for (int k = 0; k < COUNT; ++k) parts[k][thread] = values[k];
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (thread < half) {
#pragma unroll
            for (int k = 0; k < COUNT; ++k) parts[k][thread] += parts[k][thread + half];
        }
        __syncthreads();
    }
    if (thread == 0) {
#pragma unroll
        for (int k = 0; k < COUNT; ++k) sums[k] = parts[k][0];
    }
}

// Adds up what the blocks of an image left, (blocks, COUNT): for all threads of a block.
template <int COUNT>
__device__ void add_blocks(const double* sums, int blocks, double (&totals)[COUNT]) {
    __shared__ double parts[COUNT][THREADS];
    const int thread = threadIdx.x;
#pragma unroll
    for (int k = 0; k < COUNT; ++k) {
        double part = 0.0;
        for (int i = thread; i < blocks; i += THREADS) part += sums[i * COUNT + k];
        parts[k][thread] = part;
    }
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (thread < half) {
#pragma unroll
            for (int k = 0; k < COUNT; ++k) parts[k][thread] += parts[k][thread + half];
        }
        __syncthreads();
    }
#pragma unroll
    for (int k = 0; k < COUNT; ++k) totals[k] = parts[k][0];
}

// Means of 2 x 2 pixels; an odd side's last pixel is repeated.
extern "C" __global__ void __launch_bounds__(THREADS) halve(
    const float* images, float* halves, int height, int width) {
    const int new_height = (height + 1) / 2, new_width = (width + 1) / 2;
    const int pixel = pixel_of_thread();
    if (pixel >= new_height * new_width) return;
    const int y = pixel / new_width, x = pixel - y * new_width;
    const float* image = images + blockIdx.y * plane_of(height, width);
    const float* above = image + 2 * y * width;
    const float* below = image + min(2 * y + 1, height - 1) * width;
    const int left = 2 * x, right = min(2 * x + 1, width - 1);
    halves[blockIdx.y * plane_of(new_height, new_width) + pixel] =
        0.25f * ((above[left] + above[right]) + (below[left] + below[right]));
}

// The flow of a level for the next finer one, bilinear: twice as long, so 3/4 and 1/4 are doubled.
extern "C" __global__ void __launch_bounds__(THREADS) enlarge(
    const float* flow, float* enlarged, int rows, int columns, int height, int width) {
    const int pixel = pixel_of_thread();
    if (pixel >= height * width) return;
    const int y = pixel / width, x = pixel - y * width;
    const int i = y / 2, k = x / 2;
    const int j = y % 2 == 0 ? max(i - 1, 0) : min(i + 1, rows - 1);
    const int l = x % 2 == 0 ? max(k - 1, 0) : min(k + 1, columns - 1);
    const float* part = flow + blockIdx.y * plane_of(rows, columns);
    const float near = 1.5f * part[i * columns + k] + 0.5f * part[j * columns + k];
    const float far = 1.5f * part[i * columns + l] + 0.5f * part[j * columns + l];
    enlarged[blockIdx.y * plane_of(height, width) + pixel] = 0.75f * near + 0.25f * far;
}

// Keys' cubic kernel and its taps; beyond the image its edge is repeated.
struct Taps {
    int index[4];
    float weight[4];
};

__device__ void fill_taps(Taps& taps, float position, int size) {
    // Beyond 3 px outside all taps see the same edge, wherever exactly.
    const float held = clamped(position, -3.0f, static_cast<float>(size + 2));
    const float before = floorf(held);
    const float t = held - before, r = 1.0f - t;
    constexpr float b = CUBIC + 2.0f, c = CUBIC + 3.0f;
    taps.weight[0] = CUBIC * t * r * r;
    taps.weight[1] = (b * t - c) * t * t + 1.0f;
    taps.weight[2] = (b * r - c) * r * r + 1.0f;
    taps.weight[3] = CUBIC * r * t * t;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        taps.index[i] = clamped(static_cast<int>(before) - 1 + i, 0, size - 1);
    }
}

__device__ float sample(const float* image, int width, const Taps& across, const Taps& down) {
    float total = 0.0f;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const float* line = image + down.index[j] * width;
        float part = 0.0f;
#pragma unroll
        for (int i = 0; i < 4; ++i) part = fmaf(across.weight[i], line[across.index[i]], part);
        total = fmaf(down.weight[j], part, total);
    }
    return total;
}

// Warps the second images by the flow: their mean with the first ones, and what they have more.
// A single image serves all pairs.
extern "C" __global__ void __launch_bounds__(THREADS) compare_pair(
    const float* first, const float* second, const float* flow, float* mean, float* change,
    int firsts, int seconds, int height, int width) {
    const int pixel = pixel_of_thread(), pair = blockIdx.y;
    if (pixel >= height * width) return;
    const int y = pixel / width, x = pixel - y * width;
    const size_t plane = plane_of(height, width);
    const float* own = flow + 2 * pair * plane;
    Taps across, down;
    fill_taps(across, x + own[pixel], width);
    fill_taps(down, y + own[plane + pixel], height);
    const float warped = sample(second + (seconds == 1 ? 0 : pair) * plane, width, across, down);
    const float here = first[(firsts == 1 ? 0 : pair) * plane + pixel];
    mean[pair * plane + pixel] = 0.5f * (here + warped);
    change[pair * plane + pixel] = warped - here;
}

struct Vector {
    float x, y;
};

// The slopes of a pixel, by the five taps (1, -8, 0, 8, -1) / 12.
__device__ Vector slopes(const float* image, int x, int y, int height, int width) {
    const float* line = image + y * width;
    const float* column = image + x;
    int xs[4], ys[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int distance = i < 2 ? i - 2 : i - 1;
        // Mirrored twice where a side is two pixels long.
        xs[i] = mirrored(mirrored(x + distance, width), width);
        ys[i] = mirrored(mirrored(y + distance, height), height) * width;
    }
    return {(2.0f / 3.0f) * (line[xs[2]] - line[xs[1]]) -
                (1.0f / 12.0f) * (line[xs[3]] - line[xs[0]]),
            (2.0f / 3.0f) * (column[ys[2]] - column[ys[1]]) -
                (1.0f / 12.0f) * (column[ys[3]] - column[ys[0]])};
}

// The slopes g of the mean, and from them the five products: of g with itself and with the
// change, (pair, 5, y, x).
extern "C" __global__ void __launch_bounds__(THREADS) multiply_slopes(
    const float* mean, const float* change, float* products, int height, int width) {
    const int pixel = pixel_of_thread(), pair = blockIdx.y;
    if (pixel >= height * width) return;
    const int y = pixel / width, x = pixel - y * width;
    const size_t plane = plane_of(height, width);
    const Vector g = slopes(mean + pair * plane, x, y, height, width);
    const float more = change[pair * plane + pixel];
    float* to = products + 5 * pair * plane + pixel;
    to[0] = g.x * g.x;
    to[plane] = g.x * g.y;
    to[2 * plane] = g.y * g.y;
    to[3 * plane] = g.x * more;
    to[4 * plane] = g.y * more;
}

// The sum of the four neighbours less four times the pixel; across the border nothing changes.
__device__ float laplacian(const float* field, int x, int y, int height, int width) {
    const int here = y * width + x;
    const float beside = field[x > 0 ? here - 1 : here] + field[x < width - 1 ? here + 1 : here];
    const float around = beside + (field[y > 0 ? here - width : here] +
                                   field[y < height - 1 ? here + width : here]);
    return fmaf(-4.0f, field[here], around);
}

__device__ Vector preconditioned(const float* inverse, size_t plane, int pixel, float r1, float r2) {
    const float m12 = inverse[plane + pixel];
    return {fmaf(inverse[pixel], r1, m12 * r2), fmaf(inverse[2 * plane + pixel], r2, m12 * r1)};
}

// Fills the residual, the preconditioner and a direction of zero. `averaged` holds J and b,
// (pair, 5, y, x), times alpha. Sums: the squared residual, its product with its preconditioned
// form, and the squared right side.
extern "C" __global__ void __launch_bounds__(THREADS) start_solving(
    const float* averaged, const float* flow, float* inverse, float* residual, float* direction,
    double* sums, int height, int width, float scale) {
    const int pixel = pixel_of_thread(), pair = blockIdx.y;
    const size_t plane = plane_of(height, width);
    double values[3] = {0.0, 0.0, 0.0};
    if (pixel < height * width) {
        const int y = pixel / width, x = pixel - y * width;
        const float* terms = averaged + 5 * pair * plane + pixel;
        const float* own = flow + 2 * pair * plane;
        float* blocks = inverse + 3 * pair * plane;
        float* left = residual + 2 * pair * plane + pixel;
        const float j11 = scale * terms[0], j12 = scale * terms[plane];
        const float j22 = scale * terms[2 * plane];
        const float b1 = scale * terms[3 * plane], b2 = scale * terms[4 * plane];
        const float degree = static_cast<float>((x > 0) + (x < width - 1) + (y > 0) +
                                                (y < height - 1));
        const float d1 = j11 + degree, d2 = j22 + degree;
        const float one_by = 1.0f / (d1 * d2 - j12 * j12);
        blocks[pixel] = d2 * one_by;
        blocks[plane + pixel] = -j12 * one_by;
        blocks[2 * plane + pixel] = d1 * one_by;
        const float r1 = laplacian(own, x, y, height, width) - b1;
        const float r2 = laplacian(own + plane, x, y, height, width) - b2;
        left[0] = r1;
        left[plane] = r2;
        direction[2 * pair * plane + pixel] = 0.0f;
        direction[(2 * pair + 1) * plane + pixel] = 0.0f;
        const float u = own[pixel], v = own[plane + pixel];
        const float f1 = fmaf(j11, u, j12 * v) - b1, f2 = fmaf(j12, u, j22 * v) - b2;
        const Vector z = preconditioned(blocks, plane, pixel, r1, r2);
        values[0] = fmaf(r1, r1, r2 * r2);
        values[1] = fmaf(r1, z.x, r2 * z.y);
        values[2] = fmaf(f1, f1, f2 * f2);
    }
    add_threads(values, sums + 3 * (pair * gridDim.x + blockIdx.x));
}

// Turns the direction towards the preconditioned residual. `first` is 1 at the first turn.
extern "C" __global__ void __launch_bounds__(THREADS) turn_direction(
    const float* inverse, const float* residual, float* direction, const double* sums,
    const double* before, double* after, int height, int width, int first, double tolerance) {
    const int pixel = pixel_of_thread(), pair = blockIdx.y;
    const size_t plane = plane_of(height, width);
    double totals[3];
    add_blocks(sums + 3 * pair * gridDim.x, gridDim.x, totals);
    const Progress was = reinterpret_cast<const Progress*>(before)[pair];
    const double limit = first ? tolerance * tolerance * totals[2] : was.limit;
    // The product vanishes when the residual has shrunk to nothing that float holds.
    const bool done = (!first && was.done != 0.0) || totals[0] <= limit || !(totals[1] > 0.0);
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        reinterpret_cast<Progress*>(after)[pair] = {limit, totals[1], done ? 1.0 : 0.0};
    }
    if (done || pixel >= height * width) return;
    const float share = first ? 0.0f : static_cast<float>(totals[1] / was.product);
    const float* left = residual + 2 * pair * plane + pixel;
    float* own = direction + 2 * pair * plane + pixel;
    const Vector z = preconditioned(inverse + 3 * pair * plane, plane, pixel, left[0], left[plane]);
    own[0] = fmaf(share, own[0], z.x);
    own[plane] = fmaf(share, own[plane], z.y);
}

// Applies the matrix to the direction; sums: the product of the two.
extern "C" __global__ void __launch_bounds__(THREADS) apply_matrix(
    const float* averaged, const float* direction, float* applied, double* sums,
    const double* progress, int height, int width, float scale) {
    const int pixel = pixel_of_thread(), pair = blockIdx.y;
    const size_t plane = plane_of(height, width);
    if (reinterpret_cast<const Progress*>(progress)[pair].done != 0.0) return;
    double values[1] = {0.0};
    if (pixel < height * width) {
        const int y = pixel / width, x = pixel - y * width;
        const float* terms = averaged + 5 * pair * plane + pixel;
        const float* own = direction + 2 * pair * plane;
        const float p1 = own[pixel], p2 = own[plane + pixel];
        const float j12 = scale * terms[plane];
        const float q1 = fmaf(scale * terms[0], p1, j12 * p2) - laplacian(own, x, y, height, width);
        const float q2 = fmaf(scale * terms[2 * plane], p2, j12 * p1) -
                         laplacian(own + plane, x, y, height, width);
        applied[2 * pair * plane + pixel] = q1;
        applied[(2 * pair + 1) * plane + pixel] = q2;
        values[0] = fmaf(p1, q1, p2 * q2);
    }
    add_threads(values, sums + pair * gridDim.x + blockIdx.x);
}

// Goes a step along the direction; sums as `start_solving` leaves them, but for the right side.
extern "C" __global__ void __launch_bounds__(THREADS) step_along(
    const float* inverse, const float* direction, const float* applied, float* flow,
    float* residual, const double* curvatures, double* sums, const double* progress, int height,
    int width) {
    const int pixel = pixel_of_thread(), pair = blockIdx.y;
    const size_t plane = plane_of(height, width);
    const Progress now = reinterpret_cast<const Progress*>(progress)[pair];
    if (now.done != 0.0) return;
    double totals[1];
    add_blocks(curvatures + pair * gridDim.x, gridDim.x, totals);
    if (!(totals[0] > 0.0)) return;
    const float step = static_cast<float>(now.product / totals[0]);
    double values[3] = {0.0, 0.0, 0.0};
    if (pixel < height * width) {
        const size_t at = 2 * pair * plane + pixel;
        flow[at] = fmaf(step, direction[at], flow[at]);
        flow[at + plane] = fmaf(step, direction[at + plane], flow[at + plane]);
        const float r1 = fmaf(-step, applied[at], residual[at]);
        const float r2 = fmaf(-step, applied[at + plane], residual[at + plane]);
        residual[at] = r1;
        residual[at + plane] = r2;
        const Vector z = preconditioned(inverse + 3 * pair * plane, plane, pixel, r1, r2);
        values[0] = fmaf(r1, r1, r2 * r2);
        values[1] = fmaf(r1, z.x, r2 * z.y);
    }
    add_threads(values, sums + 3 * (pair * gridDim.x + blockIdx.x));
}

// The slope of the reference along the flow.
extern "C" __global__ void __launch_bounds__(THREADS) slope_along(
    const float* reference, const float* flow, float* slope, int height, int width) {
    const int pixel = pixel_of_thread();
    if (pixel >= height * width) return;
    const int y = pixel / width, x = pixel - y * width;
    const Vector g = slopes(reference, x, y, height, width);
    slope[pixel] = fmaf(flow[pixel], g.x, flow[plane_of(height, width) + pixel] * g.y);
}

// Frames of a clip moved by the flow times their amplitudes.
extern "C" __global__ void __launch_bounds__(THREADS) move_frames(
    const float* frames, const float* flow, const float* amplitudes, float* moved, int height,
    int width) {
    const int pixel = pixel_of_thread(), frame = blockIdx.y;
    if (pixel >= height * width) return;
    const int y = pixel / width, x = pixel - y * width;
    const size_t plane = plane_of(height, width);
    Taps across, down;
    fill_taps(across, x + amplitudes[frame] * flow[pixel], width);
    fill_taps(down, y + amplitudes[frame] * flow[plane + pixel], height);
    moved[frame * plane + pixel] = sample(frames + frame * plane, width, across, down);
}
