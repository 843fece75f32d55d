// Template search over all frames of a clip. Pixels count as `value - 128` in all sums and
// products, as on the CPU, so that the exact numbers are the same integers.
//
// Shapes: N regions of (height, width, C) bytes, a template of (window_height, window_width, C),
// positions (rows, columns) = (height - window_height + 1, width - window_width + 1).
#include "device.cuh"

#define CENTRE 128

__device__ inline i64 square(i64 value) { return value * value; }

// Sums and sums of squares, (N, C): one block a region and channel.
extern "C" __global__ void sum_pixels(
    const u8* regions, int height, int width, int channels,
    i64* sums, i64* squares
) {
    __shared__ i64 plain[256], squared[256];
    const int t = threadIdx.x, n = blockIdx.x / channels, channel = blockIdx.x % channels;
    i64 sum = 0, sum_squared = 0;
    for (int y = t / 32; y < height; y += 8) {
        const u8* row = regions + ((i64)n * height + y) * width * channels;
        for (int x = t % 32; x < width; x += 32) {
            const int value = row[x * channels + channel] - CENTRE;
            sum += value;
            sum_squared += value * value;
        }
    }
    plain[t] = sum;
    squared[t] = sum_squared;
    for (int half = 128; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) {
            plain[t] += plain[t + half];
            squared[t] += squared[t + half];
        }
    }
    if (t == 0) {
        sums[blockIdx.x] = plain[0];
        squares[blockIdx.x] = squared[0];
    }
}

// What the DFT takes: (N, C, plane_height, plane_width), each channel less a whole number near
// its mean, (N, C), in the corner and zeros around it.
extern "C" __global__ void spread_planes(
    const u8* regions, int height, int width, int channels,
    const i64* means, float* planes, int plane_height, int plane_width
) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= plane_height * plane_width) return;
    const int n = blockIdx.y, channel = blockIdx.z;
    const i64 plane = (i64)n * channels + channel;
    const int y = i / plane_width, x = i % plane_width;
    float value = 0.0f;
    if (y < height && x < width) {
        const u8* row = regions + ((i64)n * height + y) * width * channels;
        value = (float)(row[x * channels + channel] - CENTRE - (int)means[plane]);
    }
    planes[plane * plane_height * plane_width + i] = value;
}

// What the products take: (N, height, pitch) words of four signed bytes, zeros behind a row.
extern "C" __global__ void pack_words(
    const u8* regions, int height, int length, u32* words, int pitch
) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= height * pitch) return;
    const int y = i / pitch, first = 4 * (i % pitch);
    const u8* row = regions + ((i64)blockIdx.y * height + y) * length;
    u32 word = 0;
    for (int k = 0; k < 4; ++k) {
        if (first + k < length) word |= (u32)(row[first + k] ^ CENTRE) << (8 * k);
    }
    words[(i64)blockIdx.y * height * pitch + i] = word;
}

// Sums over window_height rows: sums (N, rows, C, width), squares of all channels (N, rows, width).
extern "C" __global__ void sum_columns(
    const u8* regions, int width, int channels, int window_height, int rows,
    u32* sums, u64* squares
) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x, n = blockIdx.y;
    if (x >= width) return;
    const int length = width * channels, height = rows + window_height - 1;
    const u8* entering = regions + (i64)n * height * length + x * channels;
    const u8* leaving = entering;
    int plain[3] = {0, 0, 0};
    i64 squared = 0;
    for (int y = 0; y < height; ++y, entering += length) {
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            if (c >= channels) continue;
            const int value = entering[c] - CENTRE;
            plain[c] += value;
            squared += value * value;
        }
        const int top = y - window_height + 1;
        if (top < 0) continue;
        const i64 at = (i64)n * rows + top;
        squares[at * width + x] = (u64)squared;
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            if (c >= channels) continue;
            sums[(at * channels + c) * width + x] = (u32)plain[c];
            const int value = leaving[c] - CENTRE;
            plain[c] -= value;
            squared -= value * value;
        }
        leaving += length;
    }
}

#define SCAN_THREADS 128

// Exclusive prefix sum over the block; integers wrap around, which differences undo.
__device__ u64 sum_before(u64 value, u64 (*totals)[SCAN_THREADS]) {
    const int t = threadIdx.x;
    int from = 0;
    totals[0][t] = value;
    __syncthreads();
    for (int reach = 1; reach < SCAN_THREADS; reach *= 2) {
        totals[1 - from][t] = totals[from][t] + (t >= reach ? totals[from][t - reach] : 0);
        from = 1 - from;
        __syncthreads();
    }
    const u64 result = totals[from][t] - value;
    __syncthreads();
    return result;
}

template <class Sum>
__device__ void accumulate(Sum* row, int width, u64 (*totals)[SCAN_THREADS]) {
    const int share = (width + SCAN_THREADS - 1) / SCAN_THREADS;
    const int first = min((int)threadIdx.x * share, width), behind = min(first + share, width);
    Sum total = 0;
    for (int x = first; x < behind; ++x) total += row[x];
    Sum sum = (Sum)sum_before(total, totals);
    for (int x = first; x < behind; ++x) row[x] = sum += row[x];
}

// Replaces each row of what `sum_columns` made by its prefix sums; one block a row of positions.
extern "C" __global__ void accumulate_rows(u32* sums, u64* squares, int width, int channels) {
    __shared__ u64 totals[2][SCAN_THREADS];
    const i64 at = blockIdx.x;
    for (int c = 0; c < channels; ++c) {
        accumulate(sums + (at * channels + c) * width, width, totals);
    }
    accumulate(squares + at * width, width, totals);
}

struct Windows {
    const u32* sums;
    const u64* squares;
    int width, channels, window_width, rows, columns;
    i64 area;
};

// The sums under the window at (y, x) of region n, and the area times the sum of squares less
// the squares of the sums.
__device__ inline i64 window_norm(const Windows& windows, int n, int y, int x, int (&sums)[3]) {
    const i64 at = (i64)n * windows.rows + y;
    const int last = x + windows.window_width - 1;
    const u64* squares = windows.squares + at * windows.width;
    i64 norm = windows.area * (i64)(squares[last] - (x > 0 ? squares[x - 1] : 0));
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        sums[c] = 0;
        if (c >= windows.channels) continue;
        const u32* row = windows.sums + (at * windows.channels + c) * windows.width;
        sums[c] = (int)(row[last] - (x > 0 ? row[x - 1] : 0));
        norm -= square(sums[c]);
    }
    return norm;
}

// The least and the largest that each score, times the length of the template, can be when the
// product is wrong by errors[n]: (N, rows * columns) each.
extern "C" __global__ void bound_scores(
    const float* correlations, int plane_height, int plane_width,
    const u32* sums, const u64* squares, int width, int channels,
    int window_height, int window_width, int rows, int columns,
    const i64* means, const i64* template_means, const i64* template_sums,
    const double* errors, double* least, double* largest
) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x, n = blockIdx.y;
    if (i >= rows * columns) return;
    const int y = i / columns, x = i % columns;
    const i64 area = (i64)window_height * window_width;
    const Windows windows = {sums, squares, width, channels, window_width, rows, columns, area};
    int window_sums[3];
    const i64 norm = window_norm(windows, n, y, x, window_sums);
    double low = 0.0, high = 0.0;  // the score of a flat window is 0 for certain
    if (norm > 0) {
        i64 correction = 0;
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            if (c >= channels) continue;
            correction += (window_sums[c] - area * means[n * channels + c])
                * (template_sums[c] - area * template_means[c]);
        }
        const i64 pixel = ((i64)n * plane_height + y) * plane_width + x;
        const double product = (double)area * correlations[pixel] - (double)correction;
        const double length = sqrt((double)norm);
        low = (product - errors[n]) / length;
        high = (product + errors[n]) / length;
    }
    least[(i64)n * rows * columns + i] = low;
    largest[(i64)n * rows * columns + i] = high;
}

// The positions that may be the best, in order: candidates (N, positions), counts (N,). One block
// a region.
extern "C" __global__ void find_candidates(
    const double* least, const double* largest, int positions, int* candidates, int* counts
) {
    __shared__ double tops[SCAN_THREADS];
    __shared__ u64 totals[2][SCAN_THREADS];
    const int t = threadIdx.x;
    least += (i64)blockIdx.x * positions;
    largest += (i64)blockIdx.x * positions;
    candidates += (i64)blockIdx.x * positions;
    double top = least[0];
    for (int i = t; i < positions; i += SCAN_THREADS) top = fmax(top, least[i]);
    tops[t] = top;
    for (int half = SCAN_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) tops[t] = fmax(tops[t], tops[t + half]);
    }
    __syncthreads();
    top = tops[0];
    const int share = (positions + SCAN_THREADS - 1) / SCAN_THREADS;
    const int first = min(t * share, positions), behind = min(first + share, positions);
    int count = 0;
    for (int i = first; i < behind; ++i) count += largest[i] >= top;
    int at = (int)sum_before((u64)count, totals);
    for (int i = first; i < behind; ++i) {
        if (largest[i] >= top) candidates[at++] = i;
    }
    if (t == SCAN_THREADS - 1) counts[blockIdx.x] = at;
}

// The exact products at the candidates: the area times the sum of products, less the product of
// the sums; and the norms. blockIdx.y is the region; the blocks of a region share its candidates.
extern "C" __global__ void multiply_exactly(
    const u32* words, int height, int pitch, const u32* pattern, int pattern_pitch,
    const u32* sums, const u64* squares, int width, int channels,
    int window_height, int window_width, int rows, int columns,
    const i64* template_sums, const int* candidates, const int* counts,
    i64* products, i64* norms
) {
    __shared__ i64 totals[256];
    const int n = blockIdx.y, t = threadIdx.x;
    const i64 area = (i64)window_height * window_width;
    const Windows windows = {sums, squares, width, channels, window_width, rows, columns, area};
    for (int k = blockIdx.x; k < counts[n]; k += gridDim.x) {
        const i64 slot = (i64)n * rows * columns + k;
        const int y = candidates[slot] / columns, x = candidates[slot] % columns;
        int window_sums[3];
        const i64 norm = window_norm(windows, n, y, x, window_sums);
        if (norm == 0) {
            if (t == 0) products[slot] = norms[slot] = 0;
            continue;
        }
        // A window starts at any byte: each word is cut out of two.
        const int shift = 8 * (x * channels % 4);
        const u32* window = words + ((i64)n * height + y) * pitch + x * channels / 4;
        i64 total = 0;
        for (int row = t / 32; row < window_height; row += 8) {
            const u32* pixels = window + (i64)row * pitch;
            const u32* weights = pattern + (i64)row * pattern_pitch;
            for (int i = t % 32; i < pattern_pitch; i += 32) {
                const u64 both = (u64)pixels[i + 1] << 32 | pixels[i];
                total += __dp4a((int)(u32)(both >> shift), (int)weights[i], 0);
            }
        }
        __syncthreads();  // the totals of the candidate before have been read
        totals[t] = total;
        for (int half = 128; half > 0; half /= 2) {
            __syncthreads();
            if (t < half) totals[t] += totals[t + half];
        }
        if (t == 0) {
            i64 product = area * totals[0];
            for (int c = 0; c < channels; ++c) product -= window_sums[c] * template_sums[c];
            products[slot] = product;
            norms[slot] = norm;
        }
    }
}

struct Best {
    i64 product, norm;
    int position;
};

struct Wide {
    u64 high, middle, low;
};

// The 128 bits of a product.
__device__ inline void multiply(u64 a, u64 b, u64& high, u64& low) {
    const u64 a0 = (u32)a, a1 = a >> 32, b0 = (u32)b, b1 = b >> 32;
    const u64 low_part = a0 * b0, cross = a1 * b0 + (low_part >> 32);
    const u64 middle = a0 * b1 + (u32)cross;
    low = middle << 32 | (u32)low_part;
    high = a1 * b1 + (cross >> 32) + (middle >> 32);
}

// value * value * factor, exactly.
__device__ inline Wide square_times(u64 value, u64 factor) {
    u64 high, low;
    multiply(value, value, high, low);
    Wide result;
    u64 carried, top;
    multiply(low, factor, carried, result.low);
    multiply(high, factor, top, result.middle);
    result.middle += carried;
    result.high = top + (result.middle < carried);
    return result;
}

__device__ inline bool exceeds(const Wide& a, const Wide& b) {
    if (a.high != b.high) return a.high > b.high;
    if (a.middle != b.middle) return a.middle > b.middle;
    return a.low > b.low;
}

__device__ inline u64 magnitude(i64 value) { return value < 0 ? 0 - (u64)value : (u64)value; }

// Whether product / sqrt(norm) is larger, in exact integers, or equal at an earlier position.
__device__ inline bool is_better(const Best& a, const Best& b) {
    const int sign_a = (a.product > 0) - (a.product < 0);
    const int sign_b = (b.product > 0) - (b.product < 0);
    if (sign_a != sign_b) return sign_a > sign_b;
    // A flat window has norm 0 and product 0: any norm serves to give it the score 0.
    const Wide left = square_times(magnitude(a.product), max(b.norm, (i64)1));
    const Wide right = square_times(magnitude(b.product), max(a.norm, (i64)1));
    if (exceeds(left, right)) return sign_a > 0;
    if (exceeds(right, left)) return sign_a < 0;
    return a.position < b.position;
}

// The best candidate of each region, one block each: (N,) of y, x and the score.
extern "C" __global__ void choose_best(
    const int* candidates, const int* counts, const i64* products, const i64* norms,
    int positions, int columns, double template_norm, int* ys, int* xs, double* scores
) {
    __shared__ Best bests[SCAN_THREADS];
    const int n = blockIdx.x, t = threadIdx.x;
    const i64 start = (i64)n * positions;
    const int count = counts[n];
    const int own = min(t, count - 1);
    Best best = {products[start + own], norms[start + own], candidates[start + own]};
    for (int k = t + SCAN_THREADS; k < count; k += SCAN_THREADS) {
        const Best other = {products[start + k], norms[start + k], candidates[start + k]};
        if (is_better(other, best)) best = other;
    }
    bests[t] = best;
    for (int half = SCAN_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (t < half && is_better(bests[t + half], bests[t])) bests[t] = bests[t + half];
    }
    if (t > 0) return;
    best = bests[0];
    ys[n] = best.position / columns;
    xs[n] = best.position % columns;
    scores[n] = 0.0;
    if (best.norm > 0) {
        // The root of a square is exact: a copy scores 1.
        const double score = (double)best.product / sqrt((double)best.norm * template_norm);
        scores[n] = fmin(fmax(score, -1.0), 1.0);
    }
}
