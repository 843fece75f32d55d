// TV-L1 on the GPU: the steps of one pyramid level, for a batch of pairs. `cpu.py` is the
// specification, `gpu.py` calls these kernels and lays their arrays out.
//
// As on the CPU, the flow is kept multiplied by the dual step (U = step * u) and the gradients
// divided by it. U and the dual field P are kept twice: a launch reads one side and writes the
// other, so that blocks never see each other's results of the same launch. A pair's `Progress`
// says which side is valid. It is kept twice as well: all blocks of a launch read `before`, and
// the first block of each pair writes `after`.

#include "device.cuh"

// `gpu.py` counts the blocks by these numbers, too.
constexpr int THREADS = 256;
constexpr int STEPS = 4;               // iterations that a block takes on its own
constexpr int LANES = 32;              // threads of a tile, horizontally,
constexpr int STRIPS = 8;              // and vertically,
constexpr int ROWS = 4;                // of which each holds two columns of that many rows
constexpr int TILE_X = 2 * LANES;
constexpr int TILE_Y = STRIPS * ROWS;
constexpr int MEDIAN_X = 32, MEDIAN_Y = 8;

constexpr float STEEP = -1e30f;  // divides a residual by no gradient: the clamp decides

struct Progress {
    int done;     // the warp has converged
    int u_side;   // the valid sides of U and P
    int p_side;
    int pending;  // iterations of the last launch, of whose changes nobody has looked at the sums
};

static_assert(sizeof(Progress) == 4 * sizeof(int), "an array of four int for each pair");

__device__ inline Progress progress_of(const int* progress, int pair) {
    return reinterpret_cast<const Progress*>(progress)[pair];
}

__device__ inline void set_progress(int* progress, int pair, Progress now) {
    reinterpret_cast<Progress*>(progress)[pair] = now;
}

struct Pixel {
    int pair, x, y;
    bool inside;
};

// The pixel of a thread where each pair has the same number of blocks, of consecutive pixels.
__device__ Pixel pixel_of_thread(int height, int width) {
    const int blocks = (height * width + THREADS - 1) / THREADS;
    const int pair = blockIdx.x / blocks;
    const int i = (blockIdx.x - pair * blocks) * THREADS + threadIdx.x;
    const int y = i / width;
    return {pair, i - y * width, y, y < height};
}

// OpenCV's bilinear cell of a pixel: the sample before it and the fraction, kept in the image.
__device__ int cell_before(int x, double spacing, int size, float& fraction) {
    const double position = (x + 0.5) * spacing - 0.5;
    const int before = static_cast<int>(floor(position));
    const bool inside = before >= 0 && before < size - 1;
    fraction = inside ? static_cast<float>(position - before) : 0.0f;
    return clamped(before, 0, size - 1);
}

// Bilinear resizing of (pair, y, x, channel), times a factor.
extern "C" __global__ void __launch_bounds__(THREADS) resize(
    const float* source, float* target, int height, int width, int new_height, int new_width,
    int channels, double spacing_y, double spacing_x, float factor) {
    const Pixel at = pixel_of_thread(new_height, new_width);
    if (!at.inside) return;
    float fraction_x, fraction_y;
    const int left = cell_before(at.x, spacing_x, width, fraction_x);
    const int top = cell_before(at.y, spacing_y, height, fraction_y);
    const int right = min(left + 1, width - 1), bottom = min(top + 1, height - 1);
    const size_t first = static_cast<size_t>(at.pair) * height;
    const float* above = source + (first + top) * width * channels;
    const float* below = source + (first + bottom) * width * channels;
    const size_t to = (static_cast<size_t>(at.pair) * new_height + at.y) * new_width + at.x;
    for (int c = 0; c < channels; ++c) {
        const float a = above[left * channels + c] * (1.0f - fraction_x) +
                        above[right * channels + c] * fraction_x;
        const float b = below[left * channels + c] * (1.0f - fraction_x) +
                        below[right * channels + c] * fraction_x;
        target[to * channels + c] = (a * (1.0f - fraction_y) + b * fraction_y) * factor;
    }
}

// Central differences, halved one-sided ones at the image's edge, as in OpenCV: (2, image, y, x).
extern "C" __global__ void __launch_bounds__(THREADS) gradient(
    const float* images, float* slopes, int count, int height, int width) {
    const Pixel at = pixel_of_thread(height, width);
    if (!at.inside) return;
    const size_t plane = static_cast<size_t>(height) * width;
    const float* image = images + at.pair * plane;
    const int left = max(at.x - 1, 0), right = min(at.x + 1, width - 1);
    const int above = max(at.y - 1, 0), below = min(at.y + 1, height - 1);
    const size_t to = at.pair * plane + at.y * width + at.x;
    slopes[to] = 0.5f * (image[at.y * width + right] - image[at.y * width + left]);
    slopes[count * plane + to] = 0.5f * (image[below * width + at.x] - image[above * width + at.x]);
}

// Keys' cubic kernel of parameter `a` at t + 1, t, 1 - t and 2 - t; taps outside the image weigh nothing.
__device__ void cubic_taps(float position, int size, float a, int index[4], float weight[4]) {
    // Beyond 3 px outside all taps are zero, wherever exactly.
    const float held = fminf(fmaxf(position, -3.0f), static_cast<float>(size + 2));
    const float before = floorf(held);
    const float t = held - before, r = 1.0f - t;
    weight[0] = a * t * r * r;
    weight[1] = ((a + 2.0f) * t - (a + 3.0f)) * t * t + 1.0f;
    weight[2] = ((a + 2.0f) * r - (a + 3.0f)) * r * r + 1.0f;
    weight[3] = a * r * t * t;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int tap = static_cast<int>(before) - 1 + i;
        index[i] = clamped(tap, 0, size - 1);
        weight[i] = tap == index[i] ? weight[i] : 0.0f;
    }
}

// Linearises around the present flow: the slopes (ix, iy, residual), each (pair, y, pitch).
// A single image serves all pairs.
extern "C" __global__ void __launch_bounds__(THREADS) linearise(
    const float* first, const float* second, const float* gradients, const float* u, float* slopes,
    const int* progress, int count, int firsts, int seconds, int height, int width, int pitch,
    float step, float cubic) {
    const Pixel at = pixel_of_thread(height, width);
    if (!at.inside) return;
    const size_t image = static_cast<size_t>(height) * width;
    const size_t plane = static_cast<size_t>(height) * pitch;
    const size_t here = at.pair * plane + at.y * pitch + at.x;
    const float* flow = u + progress_of(progress, at.pair).u_side * 2 * count * plane;
    const float dx = flow[here] * (1.0f / step), dy = flow[count * plane + here] * (1.0f / step);
    int columns[4], lines[4];
    float weights_x[4], weights_y[4];
    cubic_taps(at.x + dx, width, cubic, columns, weights_x);
    cubic_taps(at.y + dy, height, cubic, lines, weights_y);
    const size_t number = seconds == 1 ? 0 : at.pair;
    const float* planes[3] = {second + number * image, gradients + number * image,
                              gradients + (seconds + number) * image};
    float samples[3] = {0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int k = 0; k < 3; ++k) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const float* line = planes[k] + lines[j] * width;
            float sum = 0.0f;
#pragma unroll
            for (int i = 0; i < 4; ++i) sum = fmaf(weights_x[i], line[columns[i]], sum);
            samples[k] = fmaf(weights_y[j], sum, samples[k]);
        }
    }
    const float before = first[(firsts == 1 ? 0 : at.pair) * image + at.y * width + at.x];
    slopes[here] = samples[1] * (1.0f / step);
    slopes[count * plane + here] = samples[2] * (1.0f / step);
    slopes[2 * count * plane + here] = samples[0] - samples[1] * dx - samples[2] * dy - before;
}

__device__ inline void exchange(float& a, float& b) {
    const float least = fminf(a, b);
    b = fmaxf(a, b);
    a = least;
}

__device__ inline void sort(float (&v)[3]) {
    exchange(v[0], v[1]);
    exchange(v[1], v[2]);
    exchange(v[0], v[1]);
}

// The shortest network, nine exchanges; the compiler drops those whose result is not used.
__device__ inline void sort(float (&v)[5]) {
    exchange(v[0], v[1]);
    exchange(v[3], v[4]);
    exchange(v[2], v[4]);
    exchange(v[2], v[3]);
    exchange(v[0], v[3]);
    exchange(v[1], v[4]);
    exchange(v[0], v[2]);
    exchange(v[1], v[3]);
    exchange(v[1], v[2]);
}

// The middle one of greatest least, middle middle and least greatest.
__device__ inline float median_of_sorted_columns(float (&line)[3][3]) {
    for (int i = 0; i < 3; ++i) sort(line[i]);
    float middle[3] = {line[0][2], line[1][1], line[2][0]};
    sort(middle);
    return middle[1];
}

// With columns and then rows sorted, the median is the middle one of three, see `cpu.py`.
__device__ inline float median_of_sorted_columns(float (&line)[5][5]) {
#pragma unroll
    for (int i = 0; i < 5; ++i) sort(line[i]);
    float diagonal[5] = {line[0][4], line[1][3], line[2][2], line[3][1], line[4][0]};
    sort(diagonal);
    float middle[3] = {
        fmaxf(fmaxf(line[0][3], line[1][2]), fmaxf(line[2][1], line[3][0])), diagonal[2],
        fminf(fminf(line[1][4], line[2][3]), fminf(line[3][2], line[4][1]))};
    sort(middle);
    return middle[1];
}

// Median of SIZE x SIZE, edges repeated, of both components of U, onto its other side.
template <int SIZE>
__device__ void filter(float* u, const int* before, int* after, int count, int height,
                       int width, int pitch) {
    constexpr int REACH = SIZE / 2;
    constexpr int COLUMNS = MEDIAN_X + 2 * REACH;
    __shared__ float sorted[MEDIAN_Y][SIZE][COLUMNS];
    const int pair = blockIdx.z;
    const Progress now = progress_of(before, pair);
    const bool writes = blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0;
    if (now.done) {
        if (writes) set_progress(after, pair, now);
        return;
    }
    if (writes) set_progress(after, pair, {0, 1 - now.u_side, now.p_side, 0});
    const int x0 = blockIdx.x * MEDIAN_X, y0 = blockIdx.y * MEDIAN_Y;
    const int lane = threadIdx.x % MEDIAN_X, row = threadIdx.x / MEDIAN_X;
    const size_t plane = static_cast<size_t>(height) * pitch;
    for (int component = 0; component < 2; ++component) {
        const float* from = u + ((now.u_side * 2 + component) * count + pair) * plane;
        float* to = u + (((1 - now.u_side) * 2 + component) * count + pair) * plane;
        // A column is sorted once for the windows that share it.
        for (int i = threadIdx.x; i < COLUMNS * MEDIAN_Y; i += THREADS) {
            const int y = i / COLUMNS, column = i - y * COLUMNS;
            const int x = clamped(x0 + column - REACH, 0, width - 1);
            float values[SIZE];
#pragma unroll
            for (int k = 0; k < SIZE; ++k)
                values[k] = from[clamped(y0 + y + k - REACH, 0, height - 1) * pitch + x];
            sort(values);
#pragma unroll
            for (int k = 0; k < SIZE; ++k) sorted[y][k][column] = values[k];
        }
        __syncthreads();
        float line[SIZE][SIZE];
#pragma unroll
        for (int k = 0; k < SIZE; ++k)
#pragma unroll
            for (int i = 0; i < SIZE; ++i) line[k][i] = sorted[row][k][lane + i];
        const float middle = median_of_sorted_columns(line);
        if (x0 + lane < width && y0 + row < height) to[(y0 + row) * pitch + x0 + lane] = middle;
        __syncthreads();
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) median3(
    float* u, const int* before, int* after, int count, int height, int width, int pitch) {
    filter<3>(u, before, after, count, height, width, pitch);
}

extern "C" __global__ void __launch_bounds__(THREADS) median5(
    float* u, const int* before, int* after, int count, int height, int width, int pitch) {
    filter<5>(u, before, after, count, height, width, pitch);
}

// Adds up `length` numbers for each of the steps, always in the same order: no other block, no
// other pair of the batch and no race changes a bit. For all threads of a block.
template <class T>
__device__ void add_up(const T* numbers, int length, int steps, double (&parts)[STEPS][LANES],
                       double (&totals)[STEPS]) {
    const int thread = threadIdx.x, step = thread / LANES, lane = thread % LANES;
    if (step < steps) {
        double part = 0.0;
        for (int i = lane; i < length; i += LANES) part += numbers[step * length + i];
        parts[step][lane] = part;
    }
    __syncthreads();
    if (thread < steps) {
        double total = 0.0;
        for (int i = 0; i < LANES; ++i) total += parts[thread][i];
        totals[thread] = total;
    }
    __syncthreads();
}

// Dual step of one component at one pixel: p = (p + grad U) / (1 + |grad U|).
__device__ inline void step_dual(float d_x, float d_y, float& p_x, float& p_y) {
    // The tiny addend keeps the reciprocal square root finite.
    const float squared = fmaf(d_x, d_x, fmaf(d_y, d_y, 1e-30f));
    const float shrink = __fdividef(1.0f, fmaf(squared, rsqrtf(squared), 1.0f));
    p_x = (p_x + d_x) * shrink;
    p_y = (p_y + d_y) * shrink;
}

// Up to STEPS iterations of one tile of one pair, in registers.
//
// A thread holds two columns of ROWS rows; only what lies on its edges goes through shared
// memory. What a tile does not know of its surroundings spoils one pixel more of its margin
// with each iteration: tiles overlap by 2 * STEPS, and the margin is not written.
//
// A pair stops after the first iteration whose change is small enough, and the change is known
// only when all tiles have ended: the next launch adds their sums up. Where the pair should
// have stopped earlier than at the launch's end, that next launch goes back to the side that
// was read and takes the right number of iterations from there. A launch of 0 steps does this
// alone.
extern "C" __global__ void __launch_bounds__(THREADS, 2) iterate(
    float* u, float* p, const float* slopes, const int* before, int* after,
    const double* sums_before, double* sums_after, int count, int height, int width, int pitch,
    int steps, float limit, float tau, float flat, double enough) {
    // One column or row of zeros more, for what lies outside the tile.
    __shared__ float u_left[2][TILE_Y][LANES + 1], p_right[2][TILE_Y][LANES + 1];
    __shared__ float u_top[2][2][STRIPS + 1][LANES], p_bottom[2][2][STRIPS + 1][LANES];
    // Residuals (x, y) and inverses (z, w) of a thread's own two columns: in registers they would
    // take 16 of the 128 that two blocks a multiprocessor leave, and some would spill.
    __shared__ float4 terms[ROWS][THREADS];
    __shared__ float changes[STEPS * THREADS];
    __shared__ double parts[STEPS][LANES], totals[STEPS];

    const int tiles = gridDim.x * gridDim.y, tile = blockIdx.y * gridDim.x + blockIdx.x;
    const int pair = blockIdx.z;
    const int thread = threadIdx.x, lane = thread % LANES, strip = thread / LANES;

    const Progress now = progress_of(before, pair);
    int stop = 0;
    if (now.pending > 0) {
        const size_t sums = static_cast<size_t>(pair) * STEPS * tiles;
        add_up(sums_before + sums, tiles, now.pending, parts, totals);
#pragma unroll
        for (int k = STEPS; k > 0; --k)
            if (k <= now.pending && totals[k - 1] <= enough) stop = k;
    }
    const bool again = stop > 0 && stop < now.pending;
    const int todo = again ? stop : now.done || stop > 0 ? 0 : steps;
    const bool forward = todo > 0 && !again;
    if (tile == 0 && thread == 0)
        set_progress(after, pair, {now.done || stop > 0, now.u_side ^ forward,
                                   now.p_side ^ forward, forward ? todo : 0});
    if (todo == 0) return;

    const size_t plane = static_cast<size_t>(height) * pitch, field = count * plane;
    const int u_from = now.u_side ^ again, p_from = now.p_side ^ again;
    const int x0 = blockIdx.x * (TILE_X - 2 * STEPS), y0 = blockIdx.y * (TILE_Y - 2 * STEPS);
    const int x = x0 + 2 * lane, y = y0 + strip * ROWS;
    const size_t here = pair * plane + y * pitch + x;

    // [component][row][column], of P also [direction]
    float U[2][ROWS][2], P[2][2][ROWS][2], slope[2][ROWS][2], residual[ROWS][2];
    auto load = [&](const float* from, float(&to)[ROWS][2]) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            float2 both = {0.0f, 0.0f};
            if (x < pitch && y + r < height)
                both = *reinterpret_cast<const float2*>(from + here + r * pitch);
            to[r][0] = both.x;
            to[r][1] = both.y;
        }
    };
#pragma unroll
    for (int c = 0; c < 2; ++c) {
        load(u + (u_from * 2 + c) * field, U[c]);
        load(p + (p_from * 4 + 2 * c) * field, P[c][0]);
        load(p + (p_from * 4 + 2 * c + 1) * field, P[c][1]);
        load(slopes + c * field, slope[c]);
    }
    load(slopes + 2 * field, residual);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        float inverse[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const float x_slope = slope[0][r][i], y_slope = slope[1][r][i];
            const float squared = fmaf(x_slope, x_slope, y_slope * y_slope);
            inverse[i] = squared > flat ? __fdividef(-1.0f, squared) : STEEP;
        }
        terms[r][thread] = {residual[r][0], residual[r][1], inverse[0], inverse[1]};
    }

    auto show_dual_edges = [&] {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
#pragma unroll
            for (int r = 0; r < ROWS; ++r)
                p_right[c][strip * ROWS + r][lane + 1] = P[c][0][r][1];
#pragma unroll
            for (int i = 0; i < 2; ++i) p_bottom[c][i][strip + 1][lane] = P[c][1][ROWS - 1][i];
        }
    };
    for (int i = thread; i < 2 * TILE_Y; i += THREADS) {
        u_left[i / TILE_Y][i % TILE_Y][LANES] = 0.0f;
        p_right[i / TILE_Y][i % TILE_Y][0] = 0.0f;
    }
    for (int i = thread; i < 4 * LANES; i += THREADS) {
        u_top[i / LANES / 2][i / LANES % 2][STRIPS][i % LANES] = 0.0f;
        p_bottom[i / LANES / 2][i / LANES % 2][0][i % LANES] = 0.0f;
    }
    show_dual_edges();
    __syncthreads();

    // What this tile alone answers for: without the margins that it shares with others.
    const bool mine_x = x < width && (x0 == 0 || x >= x0 + STEPS) &&
                        (x0 + TILE_X >= width || x < x0 + TILE_X - STEPS);
    const int mine_from = y0 == 0 ? 0 : y0 + STEPS;
    const int mine_to = y0 + TILE_Y >= height ? height : y0 + TILE_Y - STEPS;

    for (int k = 0; k < todo; ++k) {
        // Primal step: thresholding, which is a clamp, then the divergence of the dual field.
        float change = 0.0f;
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const bool mine = mine_x && y + r >= mine_from && y + r < mine_to;
            const float4 own = terms[r][thread];
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const float residual = i == 0 ? own.x : own.y, inverse = i == 0 ? own.z : own.w;
                const float rest = fmaf(slope[0][r][i], U[0][r][i],
                                        fmaf(slope[1][r][i], U[1][r][i], residual));
                const float pull = fminf(fmaxf(rest * inverse, -limit), limit);
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    const float left = i > 0 ? P[c][0][r][0] : p_right[c][strip * ROWS + r][lane];
                    const float above = r > 0 ? P[c][1][r - 1][i] : p_bottom[c][i][strip][lane];
                    const float divergence = (P[c][0][r][i] - left) + (P[c][1][r][i] - above);
                    const float old = U[c][r][i];
                    U[c][r][i] = fmaf(tau, divergence, fmaf(pull, slope[c][r][i], old));
                    const float difference = U[c][r][i] - old;
                    if (mine) change = fmaf(difference, difference, change);
                }
            }
        }
        changes[k * THREADS + thread] = change;
#pragma unroll
        for (int c = 0; c < 2; ++c) {
#pragma unroll
            for (int r = 0; r < ROWS; ++r) u_left[c][strip * ROWS + r][lane] = U[c][r][0];
#pragma unroll
            for (int i = 0; i < 2; ++i) u_top[c][i][strip][lane] = U[c][0][i];
        }
        __syncthreads();
        // Dual step. Beyond the image's edge the flow continues unchanged.
#pragma unroll
        for (int c = 0; c < 2; ++c) {
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const float right = i == 0 ? U[c][r][1] : u_left[c][strip * ROWS + r][lane + 1];
                    const float below =
                        r + 1 < ROWS ? U[c][r + 1][i] : u_top[c][i][strip + 1][lane];
                    const float d_x = x + i < width - 1 ? right - U[c][r][i] : 0.0f;
                    const float d_y = y + r < height - 1 ? below - U[c][r][i] : 0.0f;
                    step_dual(d_x, d_y, P[c][0][r][i], P[c][1][r][i]);
                }
            }
        }
        show_dual_edges();
        __syncthreads();
    }

    auto save = [&](float* to, const float(&from)[ROWS][2]) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
            if (mine_x && y + r >= mine_from && y + r < mine_to)
                *reinterpret_cast<float2*>(to + here + r * pitch) = {from[r][0], from[r][1]};
    };
#pragma unroll
    for (int c = 0; c < 2; ++c) {
        save(u + ((1 - u_from) * 2 + c) * field, U[c]);
        save(p + ((1 - p_from) * 4 + 2 * c) * field, P[c][0]);
        save(p + ((1 - p_from) * 4 + 2 * c + 1) * field, P[c][1]);
    }
    if (again) return;
    add_up(changes, THREADS, todo, parts, totals);
    if (thread < todo)
        sums_after[(static_cast<size_t>(pair) * STEPS + thread) * tiles + tile] =
            totals[thread];
}
