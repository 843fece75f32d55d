// Registration of one template in all frames of a clip. Shapes: F frames of (height, width) bytes,
// n blocks of side x side pixels, matrices (F, 2, 3) from the template to pixels of a frame.
#include "device.cuh"

#define THREADS 128

// Sums of several values over the block, the same for all threads.
template <int COUNT, class Number>
__device__ void sum_over_block(Number (&values)[COUNT], Number (*shared)[THREADS]) {
    const int t = threadIdx.x;
    __syncthreads();  // what was shared before has been read
#pragma unroll
    for (int i = 0; i < COUNT; ++i) shared[i][t] = values[i];
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t >= half) continue;
#pragma unroll
        for (int i = 0; i < COUNT; ++i) shared[i][t] += shared[i][t + half];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < COUNT; ++i) values[i] = shared[i][0];
}

// Means of 4x4 pixels, halves up: (F, height / 4, width / 4).
extern "C" __global__ void reduce_images(const u8* images, int height, int width, u8* reduced) {
    const int rows = height / 4, columns = width / 4;
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= rows * columns) return;
    const int top = 4 * (i / columns), left = 4 * (i % columns);
    const u8* corner = images + ((i64)blockIdx.y * height + top) * width + left;
    int sum = 8;
    for (int y = 0; y < 4; ++y) {
        for (int x = 0; x < 4; ++x) sum += corner[(i64)y * width + x];
    }
    reduced[(i64)blockIdx.y * rows * columns + i] = (u8)(sum >> 4);
}

// One step for each block from where the matrix of a frame puts it: steps (F, n, 2), and whether
// the block was seen (F, n). One block of threads each: (n, F). Frames that are settled are left.
extern "C" __global__ void measure_blocks(
    const u8* images, int height, int width, const float* patterns, int side,
    const double* inverses, const double* centres, float least_contrast,
    const double* matrices, const int* settled, double* steps, int* seen
) {
    __shared__ float shared[3][THREADS];
    const int n = blockIdx.x, frame = blockIdx.y, t = threadIdx.x;
    if (settled[frame]) return;
    const double* m = matrices + frame * 6;
    const i64 slot = (i64)frame * gridDim.x + n;
    const double half = 0.5 * (side - 1);
    const double x = m[0] * centres[2 * n] + m[1] * centres[2 * n + 1] + m[2] - half;
    const double y = m[3] * centres[2 * n] + m[4] * centres[2 * n + 1] + m[5] - half;
    if (!(0 <= x && x < width - side && 0 <= y && y < height - side)) {
        if (t == 0) {
            seen[slot] = 0;
            steps[2 * slot] = steps[2 * slot + 1] = 0.0;
        }
        return;
    }
    const int left = (int)x, top = (int)y;
    const float fx = (float)(x - left), fy = (float)(y - top);
    const float w00 = (1 - fx) * (1 - fy), w01 = fx * (1 - fy), w10 = (1 - fx) * fy, w11 = fx * fy;
    const u8* corner = images + ((i64)frame * height + top) * width + left;
    const int area = side * side;
    const float* pattern = patterns + (i64)n * 3 * area;
    float sums[3] = {0.0f, 0.0f, 0.0f};
    for (int i = t; i < area; i += THREADS) {
        const u8* upper = corner + (i64)(i / side) * width + i % side;
        const u8* lower = upper + width;
        const float value = w00 * upper[0] + w01 * upper[1] + w10 * lower[0] + w11 * lower[1];
#pragma unroll
        for (int k = 0; k < 3; ++k) sums[k] += pattern[k * area + i] * value;
    }
    sum_over_block(sums, shared);
    if (t > 0) return;
    const double* inverse = inverses + 3 * n;
    const double scale = -1.0 / max(sums[2], least_contrast);
    const double step_x = scale * (inverse[0] * sums[0] + inverse[1] * sums[1]);
    const double step_y = scale * (inverse[1] * sums[0] + inverse[2] * sums[1]);
    steps[2 * slot] = step_x;
    steps[2 * slot + 1] = step_y;
    seen[slot] = fabs(step_x) < half && fabs(step_y) < half;
}

// The median of `count` values, the least of `length`; the others are infinite. Values that
// threads have just written are waited for.
__device__ double median_of(const double* values, int length, int count, double* middle) {
    __syncthreads();
    for (int i = threadIdx.x; i < length; i += THREADS) {
        const double value = values[i];
        int below = 0, equal = 0;
        for (int k = 0; k < length; ++k) {
            below += values[k] < value;
            equal += values[k] == value;
        }
        if (below <= (count - 1) / 2 && (count - 1) / 2 < below + equal) middle[0] = value;
        if (below <= count / 2 && count / 2 < below + equal) middle[1] = value;
    }
    __syncthreads();
    return 0.5 * (middle[0] + middle[1]);
}

struct Motion {
    double x, y, stretch, turn;
};

// The weighted least-squares motion, in closed form; as before where nothing has weight.
__device__ void fit_weighted(
    const double* points, const double* steps, const double* weights, int length,
    bool similarity, double (*shared)[THREADS], Motion& motion
) {
    double sums[5] = {0.0, 0.0, 0.0, 0.0, 0.0};
    for (int i = threadIdx.x; i < length; i += THREADS) {
        const double weight = weights[i];
        sums[0] += weight;
        sums[1] += weight * points[2 * i];
        sums[2] += weight * points[2 * i + 1];
        sums[3] += weight * steps[2 * i];
        sums[4] += weight * steps[2 * i + 1];
    }
    sum_over_block(sums, shared);
    if (!(sums[0] > 0)) return;
    const double x = sums[1] / sums[0], y = sums[2] / sums[0];
    const double u = sums[3] / sums[0], v = sums[4] / sums[0];
    if (similarity) {
        double products[3] = {0.0, 0.0, 0.0};
        for (int i = threadIdx.x; i < length; i += THREADS) {
            const double px = points[2 * i] - x, py = points[2 * i + 1] - y;
            const double su = steps[2 * i] - u, sv = steps[2 * i + 1] - v;
            products[0] += weights[i] * (px * px + py * py);
            products[1] += weights[i] * (px * su + py * sv);
            products[2] += weights[i] * (px * sv - py * su);
        }
        sum_over_block(products, shared);
        motion.stretch = products[1] / (products[0] + 1e-9);
        motion.turn = products[2] / (products[0] + 1e-9);
    }
    motion.x = u - motion.stretch * x + motion.turn * y;
    motion.y = v - motion.turn * x - motion.stretch * y;
}

// The motion that most blocks of a frame share (see `robust.py`), and one frame's matrix brought
// there. One block of threads a frame; values and weight (F, n) are scratch.
extern "C" __global__ void fit_motions(
    const double* points, const double* weights, int length, const double* all_steps,
    const int* all_seen, int similarity, int rounds, const double* falling, int further,
    double tukey, double spread, double floor_, double noise, double radius, double settled_below,
    double* all_values, double* all_weights, double* matrices, int* settled
) {
    __shared__ double shared[5][THREADS];
    __shared__ double middle[2];
    const int frame = blockIdx.x, t = threadIdx.x;
    if (settled[frame]) return;
    const double* steps = all_steps + (i64)frame * length * 2;
    const int* seen = all_seen + (i64)frame * length;
    double* values = all_values + (i64)frame * length;
    double* weight = all_weights + (i64)frame * length;
    double chosen[1] = {0.0};
    for (int i = t; i < length; i += THREADS) chosen[0] += seen[i] && weights[i] > 0;
    sum_over_block(chosen, shared);
    const int count = (int)chosen[0];
    Motion motion = {0.0, 0.0, 0.0, 0.0};
    if (count > 0) {
        const double none = infinity();
        for (int axis = 0; axis < 2; ++axis) {
            for (int i = t; i < length; i += THREADS) {
                values[i] = seen[i] && weights[i] > 0 ? steps[2 * i + axis] : none;
            }
            const double median = median_of(values, length, count, middle);
            (axis == 0 ? motion.x : motion.y) = median;
        }
        for (int round = 0; round < 2 * rounds + further; ++round) {
            for (int i = t; i < length; i += THREADS) {
                const double x = points[2 * i], y = points[2 * i + 1];
                const double ex = steps[2 * i] - (motion.x + motion.stretch * x - motion.turn * y);
                const double ey =
                    steps[2 * i + 1] - (motion.y + motion.turn * x + motion.stretch * y);
                values[i] = seen[i] && weights[i] > 0 ? sqrt(ex * ex + ey * ey) : none;
            }
            const double median = median_of(values, length, count, middle);
            const double reach = tukey * max(spread * median, floor_);
            for (int i = t; i < length; i += THREADS) {
                double trust = 0.0;
                if (values[i] < none) {
                    double own = reach;
                    if (round >= 2 * rounds)
                        own = max(falling[round - 2 * rounds], tukey * noise / weights[i]);
                    const double far = values[i] / own;
                    const double near = max(1.0 - far * far, 0.0);
                    trust = round < rounds ? 1 / max(values[i], floor_) : near * near;
                    trust *= weights[i];
                }
                weight[i] = trust;
            }
            fit_weighted(
                points, steps, weight, length, similarity && count >= 3, shared, motion);
        }
    }
    if (t > 0) return;
    double* m = matrices + frame * 6;
    m[0] += motion.stretch;
    m[1] -= motion.turn;
    m[2] += motion.x;
    m[3] += motion.turn;
    m[4] += motion.stretch;
    m[5] += motion.y;
    const double shift = max(fabs(motion.x), fabs(motion.y));
    settled[frame] = shift + radius * (fabs(motion.stretch) + fabs(motion.turn)) < settled_below;
}
