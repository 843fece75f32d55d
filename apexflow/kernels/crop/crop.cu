// Crops out of the frames of a clip, gray: what OpenCV 5 computes in several steps, in one.
//
// Frames: (number of frames, height, width, C) bytes, gray or BGR. Crops: (N, crop_height,
// crop_width) bytes; one thread a pixel, blockIdx.y is the crop.
#include "device.cuh"

// Gray of B, G, R as OpenCV computes it, in 15 bits.
__device__ inline int gray_of(int blue, int green, int red) {
    return (3735 * blue + 19235 * green + 9798 * red + (1 << 14)) >> 15;
}

extern "C" __global__ void convert_to_gray(const u8* bgr, u8* gray, i64 pixels) {
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < pixels) gray[i] = (u8)gray_of(bgr[3 * i], bgr[3 * i + 1], bgr[3 * i + 2]);
}

__device__ inline u8 rounded(float value) { return (u8)clamped(rintf(value), 0.0f, 255.0f); }

// Weights of the samples around a position at `t` in [0, 1) between two of them.

__device__ inline void weigh(float, float (&w)[1]) { w[0] = 1.0f; }

__device__ inline void weigh(float t, float (&w)[2]) {
    w[0] = 1.0f - t;
    w[1] = t;
}

__device__ inline void weigh(float t, float (&w)[4]) {
    const float a = -0.75f, s = 1.0f - t;
    w[0] = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a;
    w[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
    w[2] = ((a + 2) * s - (a + 3)) * s * s + 1;
    w[3] = 1.0f - w[0] - w[1] - w[2];
}

// Lanczos: sinc(x) sinc(x / 4), where the sines of pi x differ in sign alone; scaled to sum 1.
__device__ inline void weigh(float t, float (&w)[8]) {
    const float quarter_pi = 0.785398163f;
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float x = t + (3 - i);
        // On a sample, which rounding may put at t = 1, it alone counts.
        const float weight = fabsf(x) < 1e-6f ? -1e30f : sinf(quarter_pi * x) / (x * x);
        w[i] = i % 2 ? weight : -weight;
        total += w[i];
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) w[i] /= total;
}

// A part of a frame whose border pixels repeat outside.
struct Part {
    const u8* frame;
    int width, channels;           // of the frame
    int left, top, right, bottom;  // the last two belong to it
};

__device__ inline int gray_at(const Part& part, int x, int y) {
    x = clamped(x, part.left, part.right);
    y = clamped(y, part.top, part.bottom);
    const u8* pixel = part.frame + ((i64)y * part.width + x) * part.channels;
    return part.channels == 1 ? pixel[0] : gray_of(pixel[0], pixel[1], pixel[2]);
}

// The mean of (2 reach_x + 1) x (2 reach_y + 1) pixels, rounded.
__device__ inline int mean_at(const Part& part, int x, int y, int reach_x, int reach_y) {
    x = clamped(x, part.left, part.right);
    y = clamped(y, part.top, part.bottom);
    int sum = 0;
    for (int j = y - reach_y; j <= y + reach_y; ++j) {
        for (int i = x - reach_x; i <= x + reach_x; ++i) sum += gray_at(part, i, j);
    }
    const int count = (2 * reach_x + 1) * (2 * reach_y + 1);  // odd: no halves
    return (2 * sum + count) / (2 * count);
}

// Seven integers a crop.
#define PLAN 7

// 1/1024 pixels.
__device__ inline int fixed(double pixels) {
    return (int)rint(fmin(fmax(pixels * 1024, -1e9), 1e9));
}

// The level at matrix * (x, y, 1), in pixels of the part.
template <int TAPS>
__device__ float warped(const Part& part, const int* plan, const double* m, int x, int y) {
    float sx, sy;
    if (TAPS == 8) {
        // OpenCV's Lanczos knows 32 positions within a pixel.
        sx = ((fixed(m[1] * y + m[2]) + fixed(m[0] * x) + 16) >> 5) / 32.0f;
        sy = ((fixed(m[4] * y + m[5]) + fixed(m[3] * x) + 16) >> 5) / 32.0f;
    } else {
        sx = fmaf((float)m[0], (float)x, (float)m[1] * y + (float)m[2]);
        sy = fmaf((float)m[3], (float)x, (float)m[4] * y + (float)m[5]);
    }
    sx = clamped(sx, -1e6f, 1e6f);
    sy = clamped(sy, -1e6f, 1e6f);
    const float floor_x = TAPS == 1 ? rintf(sx) : floorf(sx);
    const float floor_y = TAPS == 1 ? rintf(sy) : floorf(sy);
    float wx[TAPS], wy[TAPS];
    weigh(sx - floor_x, wx);
    weigh(sy - floor_y, wy);
    const int left = part.left + (int)floor_x - (TAPS - 1) / 2;
    const int top = part.top + (int)floor_y - (TAPS - 1) / 2;
    float value = 0.0f;
#pragma unroll
    for (int r = 0; r < TAPS; ++r) {
        float row = 0.0f;
#pragma unroll
        for (int c = 0; c < TAPS; ++c) {
            const int level = TAPS == 2 ? mean_at(part, left + c, top + r, plan[5], plan[6])
                                        : gray_at(part, left + c, top + r);
            row += wx[c] * level;
        }
        value += wy[r] * row;
    }
    return value;
}

// Samples of one row or column of the source for a pixel of the crop.
template <int TAPS>
struct Taps {
    int at[TAPS];
    float weights[TAPS];
};

// Where pixel `index` lies among `length` pixels that are resized by `inverse`. Where a part does
// not shrink in both directions OpenCV's INTER_AREA is bilinear with `enlarging` positions.
template <int TAPS>
__device__ inline Taps<TAPS> place(int index, double inverse, int length, bool enlarging) {
    const double scale = 1 / inverse;
    Taps<TAPS> taps;
    int first;
    float t;
    if (TAPS == 1) {
        first = (int)floor(index * scale);
        t = 0.0f;
    } else if (TAPS == 2 && enlarging) {
        first = (int)floor(index * scale);
        t = (float)((index + 1) - (first + 1) * inverse);
        t = t <= 0 ? 0.0f : t - floorf(t);
    } else {
        t = (float)((index + 0.5) * scale - 0.5);
        first = (int)floorf(t);
        t -= first;
    }
    weigh(t, taps.weights);
#pragma unroll
    for (int i = 0; i < TAPS; ++i) taps.at[i] = clamped(first + i - (TAPS - 1) / 2, 0, length - 1);
    return taps;
}

// The pixels that become a crop.
struct Source {
    const u8* pixels;
    int row_bytes, channels, width, height;
    double inverse_x, inverse_y;  // pixels of the crop for one of these
};

struct Levels {
    float of[3];  // of each channel
};

template <int TAPS>
__device__ Levels resized(const Source& source, bool enlarging, int x, int y) {
    const Taps<TAPS> columns = place<TAPS>(x, source.inverse_x, source.width, enlarging);
    const Taps<TAPS> rows = place<TAPS>(y, source.inverse_y, source.height, enlarging);
    Levels levels = {{0.0f, 0.0f, 0.0f}};
#pragma unroll
    for (int r = 0; r < TAPS; ++r) {
        const u8* line = source.pixels + (i64)rows.at[r] * source.row_bytes;
        float sums[3] = {0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int c = 0; c < TAPS; ++c) {
            const u8* pixel = line + columns.at[c] * source.channels;
#pragma unroll
            for (int k = 0; k < 3; ++k) {
                if (k < source.channels) sums[k] += columns.weights[c] * pixel[k];
            }
        }
#pragma unroll
        for (int k = 0; k < 3; ++k) levels.of[k] += rows.weights[r] * sums[k];
    }
    return levels;
}

// The pixels that fall into one of the crop, [first, last], and how much of the outer two.
struct Cell {
    int first, last;
    float first_weight, weight, last_weight;
};

__device__ inline float weight_at(const Cell& cell, int index) {
    if (index == cell.first) return cell.first_weight;
    return index == cell.last ? cell.last_weight : cell.weight;
}

__device__ inline Cell cell_of(int index, double inverse, int length) {
    const double scale = 1 / inverse;
    const double from = index * scale, to = from + scale, size = min(scale, length - from);
    const int behind = min((int)floor(to), length - 1), start = min((int)ceil(from), behind);
    Cell cell = {start, behind - 1, (float)(1 / size), (float)(1 / size), (float)(1 / size)};
    if (to - behind > 1e-3) {
        cell.last = behind;
        cell.last_weight = (float)(min(min(to - behind, 1.0), size) / size);
    }
    if (start - from > 1e-3) {
        cell.first = start - 1;
        cell.first_weight = (float)((start - from) / size);
    }
    return cell;
}

__device__ Levels averaged(const Source& source, int at_x, int at_y) {
    const Cell columns = cell_of(at_x, source.inverse_x, source.width);
    const Cell rows = cell_of(at_y, source.inverse_y, source.height);
    Levels levels = {{0.0f, 0.0f, 0.0f}};
    for (int y = rows.first; y <= rows.last; ++y) {
        const u8* line = source.pixels + (i64)y * source.row_bytes;
        float sums[3] = {0.0f, 0.0f, 0.0f};
        for (int x = columns.first; x <= columns.last; ++x) {
            const float weight = weight_at(columns, x);
#pragma unroll
            for (int k = 0; k < 3; ++k) {
                if (k < source.channels) sums[k] += weight * line[x * source.channels + k];
            }
        }
        const float weight = weight_at(rows, y);
#pragma unroll
        for (int k = 0; k < 3; ++k) levels.of[k] += weight * sums[k];
    }
    return levels;
}

// `taps` a side: 1 nearest, 2 linear, 4 cubic, 8 Lanczos. A plan: the frame, the part of it that
// may be seen (left, top, right, bottom), how far a mean reaches to each side (x, y).
extern "C" __global__ void warp_crops(
    const u8* frames, int height, int width, int channels, int taps,
    const int* plans, const double* matrices, u8* crops, int crop_height, int crop_width
) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= crop_height * crop_width) return;
    const int x = i % crop_width, y = i / crop_width;
    const int* plan = plans + blockIdx.y * PLAN;
    const double* matrix = matrices + blockIdx.y * 6;
    const Part part = {
        frames + (i64)plan[0] * height * width * channels,
        width, channels, plan[1], plan[2], plan[3], plan[4],
    };
    float level;
    if (taps == 1) level = warped<1>(part, plan, matrix, x, y);
    else if (taps == 2) level = warped<2>(part, plan, matrix, x, y);
    else if (taps == 4) level = warped<4>(part, plan, matrix, x, y);
    else level = warped<8>(part, plan, matrix, x, y);
    crops[(i64)blockIdx.y * crop_height * crop_width + i] = rounded(level);
}

// 0 taps: INTER_AREA of a part that shrinks. A plan: the frame, the part that becomes the crop
// (left, top, width, height), whether INTER_AREA enlarges it, and one number without meaning.
extern "C" __global__ void resize_crops(
    const u8* frames, int height, int width, int channels, int taps,
    const int* plans, u8* crops, int crop_height, int crop_width
) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= crop_height * crop_width) return;
    const int x = i % crop_width, y = i / crop_width;
    const int* plan = plans + blockIdx.y * PLAN;
    const Source source = {
        frames + (((i64)plan[0] * height + plan[2]) * width + plan[1]) * channels,
        width * channels, channels, plan[3], plan[4],
        (double)crop_width / plan[3], (double)crop_height / plan[4],
    };
    const bool enlarging = plan[5];
    Levels levels;
    if (taps == 0) levels = averaged(source, x, y);
    else if (taps == 1) levels = resized<1>(source, enlarging, x, y);
    else if (taps == 2) levels = resized<2>(source, enlarging, x, y);
    else if (taps == 4) levels = resized<4>(source, enlarging, x, y);
    else levels = resized<8>(source, enlarging, x, y);
    const int blue = rounded(levels.of[0]);
    crops[(i64)blockIdx.y * crop_height * crop_width + i] =
        (u8)(channels == 1 ? blue : gray_of(blue, rounded(levels.of[1]), rounded(levels.of[2])));
}
