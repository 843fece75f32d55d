// The steps of Farnebäck's method on the GPU, each for a whole batch.
//
// The arithmetic is that of the CPU's steps in cpu.py, in their order, `fmaf` standing where they
// use `muladd`: where the CPU fuses that as well, the flow is the same to the last bit, even where
// nothing but rounding decides it.
//
// All arrays are dense float32: images (frame, y, x); coefficients and observations
// (frame or pair, 5, y, x), planes in the order that cpu.py gives; flow (pair, y, x) of (dx, dy).

#include "../device.cuh"

__device__ inline int inside(int i, int size) {
    return clamped(i, 0, size - 1);
}

// The pixel before or after another one, mirrored at the border.
__device__ inline int before(int i, int size) {
    return mirrored(i - 1, size);
}

__device__ inline int after(int i, int size) {
    return mirrored(i + 1, size);
}

// Smooths with (1, 2, 1) / 4 along both axes, mirrored at the border.
extern "C" __global__ void blur(const float* __restrict__ images, float* __restrict__ blurred,
                                int height, int width) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) {
        return;
    }
    const size_t start = (size_t)blockIdx.z * height * width;
    const float* image = images + start;
    const float* above = image + (size_t)before(y, height) * width;
    const float* here = image + (size_t)y * width;
    const float* below = image + (size_t)after(y, height) * width;
    const int columns[3] = {before(x, width), x, after(x, width)};
    float line[3];
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        const int c = columns[i];
        line[i] = 0.25f * (above[c] + below[c]) + 0.5f * here[c];
    }
    blurred[start + (size_t)y * width + x] = 0.25f * (line[0] + line[2]) + 0.5f * line[1];
}

// Filters one axis of (outer, size, inner): item i of the result, (outer, length, inner), is the
// sum of the items source[i] of the input times weight[i]. Images are reduced, and the flow is
// enlarged, along one axis after the other.
extern "C" __global__ void filter(const float* __restrict__ input, float* __restrict__ output,
                                  int size, int length, int inner, const int* __restrict__ source,
                                  const float* __restrict__ weight, int taps) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= length * inner) {
        return;
    }
    const size_t outer = (size_t)blockIdx.z * gridDim.y + blockIdx.y;
    const int i = at / inner;
    const float* items = input + outer * size * inner + (at - i * inner);
    float total = 0.0f;
    for (int t = i * taps; t < (i + 1) * taps; ++t) {
        total = fmaf(items[(size_t)source[t] * inner], weight[t], total);
    }
    output[outer * length * inner + at] = total;
}

// Fits a quadratic polynomial to the neighbourhood of each pixel. Tap 0..n holds the weights of
// three filters, which smooth (x), find the slope (y) and the curvature (z). The moments along
// the columns of a tile, and of n columns to each side, are computed once and shared.
extern "C" __global__ void expand(const float* __restrict__ images, const float4* __restrict__ taps,
                                  int n, float slope_factor, float cross_factor,
                                  float* __restrict__ coefficients, int height, int width) {
    DYNAMIC_SHARED(float, moments);
    const int left = blockIdx.x * blockDim.x, top = blockIdx.y * blockDim.y;
    const int line = blockDim.x + 2 * n, plane = blockDim.y * line;
    const float* image = images + (size_t)blockIdx.z * height * width;
    for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < plane; i += blockDim.x * blockDim.y) {
        const int row = i / line;
        const int y = min(top + row, height - 1);
        const float* column = image + inside(left + i - row * line - n, width);
        const float centre = column[(size_t)y * width];
        float m0 = centre * taps[0].x;
        float m1 = centre * taps[0].y;
        float m2 = centre * taps[0].z;
        for (int k = 1; k <= n; ++k) {
            const float4 tap = taps[k];
            const float above = column[(size_t)max(y - k, 0) * width];
            const float below = column[(size_t)min(y + k, height - 1) * width];
            m0 = fmaf(above + below, tap.x, m0);
            m1 = fmaf(below - above, tap.y, m1);
            m2 = fmaf(above + below, tap.z, m2);
        }
        moments[i] = m0;
        moments[plane + i] = m1;
        moments[2 * plane + i] = m2;
    }
    __syncthreads();
    const int x = left + threadIdx.x, y = top + threadIdx.y;
    if (x >= width || y >= height) {
        return;
    }
    const float* row0 = moments + threadIdx.y * line + threadIdx.x + n;
    const float* row1 = row0 + plane;
    const float* row2 = row1 + plane;
    float c0 = row1[0] * taps[0].x, c1 = row0[0] * taps[0].y;
    float c2 = row2[0] * taps[0].x, c3 = row0[0] * taps[0].z;
    float c4 = row1[0] * taps[0].y;
    for (int k = 1; k <= n; ++k) {
        const float4 tap = taps[k];
        c1 = fmaf(row0[k] - row0[-k], tap.y, c1);
        c3 = fmaf(row0[k] + row0[-k], tap.z, c3);
        c0 = fmaf(row1[k] + row1[-k], tap.x, c0);
        c4 = fmaf(row1[k] - row1[-k], tap.y, c4);
        c2 = fmaf(row2[k] + row2[-k], tap.x, c2);
    }
    const size_t area = (size_t)height * width;
    float* out = coefficients + 5 * blockIdx.z * area + (size_t)y * width + x;
    out[0] = c0 * slope_factor;
    out[area] = c1 * slope_factor;
    out[2 * area] = c2;
    out[3 * area] = c3;
    out[4 * area] = c4 * cross_factor;
}

// Compares the polynomials of the first frame with those of the second where the flow points
// to. A step of 0 says that all pairs share the frame.
extern "C" __global__ void observe(const float* __restrict__ first, int first_step,
                                   const float* __restrict__ second, int second_step,
                                   const float2* __restrict__ flow,
                                   const float* __restrict__ border,
                                   const int* __restrict__ border_rows,
                                   float* __restrict__ observations, int height, int width) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) {
        return;
    }
    const size_t area = (size_t)height * width, pixel = (size_t)y * width + x;
    const size_t pair = blockIdx.z;
    const float2 d = flow[pair * area + pixel];
    const float fx = (float)x + d.x, fy = (float)y + d.y;
    const bool hit = 0.0f <= fx && fx < (float)(width - 1) &&
                     0.0f <= fy && fy < (float)(height - 1);
    float s[5] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    if (hit) {
        const int column = (int)fx, row = (int)fy;
        const float u0 = 1.0f - (fx - (float)column), v0 = 1.0f - (fy - (float)row);
        const float u1 = 1.0f - u0, v1 = 1.0f - v0;
        const float* p = second + 5 * pair * second_step * area + (size_t)row * width + column;
#pragma unroll
        for (int c = 0; c < 5; ++c) {
            s[c] = p[0] * (u0 * v0);
            s[c] = fmaf(p[1], u1 * v0, s[c]);
            s[c] = fmaf(p[width], u0 * v1, s[c]);
            s[c] = fmaf(p[width + 1], u1 * v1, s[c]);
            p += area;
        }
    }
    const float* a = first + 5 * pair * first_step * area + pixel;
    const float share = hit ? 0.5f : 1.0f;
    const float weight = border[(size_t)border_rows[y] * width + x];
    float b0 = (a[0] - s[0]) * 0.5f, b1 = (a[area] - s[1]) * 0.5f;
    float a00 = (a[2 * area] + s[2]) * share, a11 = (a[3 * area] + s[3]) * share;
    float a01 = (a[4 * area] + s[4]) * (share * 0.5f);
    b0 = (b0 + fmaf(a00, d.y, a01 * d.x)) * weight;
    b1 = (b1 + fmaf(a01, d.y, a11 * d.x)) * weight;
    a00 *= weight;
    a11 *= weight;
    a01 *= weight;
    float* out = observations + 5 * pair * area + pixel;
    out[0] = fmaf(a00, a00, a01 * a01);
    out[area] = (a00 + a11) * a01;
    out[2 * area] = fmaf(a11, a11, a01 * a01);
    out[3 * area] = fmaf(a00, b0, a01 * b1);
    out[4 * area] = fmaf(a01, b0, a11 * b1);
}

// Sums each column over a window that slides down, one thread a column. As in OpenCV the change
// from row to row is rounded to float32, the sum is not: what the window has left leaves the
// same trace, which faint texture below a strong edge shows.
extern "C" __global__ void slide(const float* __restrict__ observations, float* __restrict__ sums,
                                 int side, int height, int width) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= 5 * width) {
        return;
    }
    const int plane = column / width, reach = side / 2;
    const size_t start =
        (5 * (size_t)blockIdx.y + plane) * height * width + (column - plane * width);
    const float* in = observations + start;
    float* out = sums + start;
    // The first row stands for those above the image as well.
    double sum = (double)(side > 1 ? side : 2) * (double)in[0];
    for (int y = 1; y < reach; ++y) {
        sum += (double)(in[(size_t)min(y, height - 1) * width] - in[0]);
    }
#pragma unroll 4
    for (int y = 0; y < height; ++y) {
        const float entering = in[(size_t)min(y + reach, height - 1) * width];
        const float leaving = in[(size_t)max(y + reach - side, 0) * width];
        sum += (double)(entering - leaving);
        out[(size_t)y * width] = (float)sum;
    }
}

// Averages each column with the weights of `window`, eight rows a thread: they share most of
// what they read.
extern "C" __global__ void weigh(const float* __restrict__ observations,
                                 float* __restrict__ averages, const float* __restrict__ window,
                                 int reach, int height, int width) {
    const int rows = 8;
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= 5 * width) {
        return;
    }
    const int plane = column / width, top = blockIdx.y * rows;
    const size_t start =
        (5 * (size_t)blockIdx.z + plane) * height * width + (column - plane * width);
    const float* in = observations + start;
    float total[rows], weight[rows];
#pragma unroll
    for (int r = 0; r < rows; ++r) {
        total[r] = weight[r] = 0.0f;
    }
    for (int i = 0; i <= 2 * reach + rows - 1; ++i) {
        const float value = in[(size_t)inside(top - reach + i, height) * width];
#pragma unroll
        for (int r = rows - 1; r > 0; --r) {
            weight[r] = weight[r - 1];
        }
        weight[0] = i <= 2 * reach ? window[i] : 0.0f;
#pragma unroll
        for (int r = 0; r < rows; ++r) {
            total[r] = fmaf(value, weight[r], total[r]);
        }
    }
#pragma unroll
    for (int r = 0; r < rows; ++r) {
        if (top + r < height) {
            averages[start + (size_t)(top + r) * width] = total[r];
        }
    }
}

// The part of a row that a block's windows cover, in shared memory.
struct Strip {
    const float* values;  // five planes of `length`, the first for column `start` of the image
    int start, length, width;
};

// Columns beyond the image are copies of its first and last one.
__device__ inline const float* column_of(const Strip& strip, int x) {
    return strip.values + inside(x, strip.width) - strip.start;
}

__device__ inline Strip load_strip(const float* columns, float* shared, int reach, int height,
                                   int width) {
    const int left = blockIdx.x * blockDim.x;
    const int start = max(left - reach, 0);
    const int end = min(left + (int)blockDim.x + reach, width);
    const int length = end - start;
    const size_t area = (size_t)height * width;
    const float* row = columns + 5 * blockIdx.z * area + (size_t)blockIdx.y * width + start;
    for (int i = threadIdx.x; i < length; i += blockDim.x) {
#pragma unroll
        for (int c = 0; c < 5; ++c) {
            shared[c * length + i] = row[c * area + i];
        }
    }
    return {shared, start, length, width};
}

// Returns a d - b c with the rounding error of b c.
__device__ inline float determinant(float a, float b, float c, float d) {
    const float product = b * c;
    const float error = fmaf(-b, c, product);
    return fmaf(a, d, -product) + error;
}

// Solves the regularised equations g11, g12, g22, h1, h2.
__device__ inline float2 solve(const float* g, float ridge) {
    const float inverse = 1.0f / (determinant(g[0], g[1], g[1], g[2]) + ridge);
    return {determinant(g[0], g[1], g[3], g[4]) * inverse,
            determinant(g[3], g[1], g[4], g[2]) * inverse};
}

// Sums along the rows, by sums of three columns as the CPU does, and solves for the flow.
extern "C" __global__ void finish_box(const float* __restrict__ sums, float2* __restrict__ flow,
                                      int side, float ridge, int height, int width) {
    DYNAMIC_SHARED(float, shared);
    const int reach = side / 2, whole = side - side % 3;
    const Strip strip = load_strip(sums, shared, reach, height, width);
    __syncthreads();
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    if (x >= width) {
        return;
    }
    float g[5];
    // OpenCV's running sums never lose the first pixel when the window is 1 px wide.
    const float* row = sums + 5 * (size_t)blockIdx.z * height * width + (size_t)blockIdx.y * width;
#pragma unroll
    for (int c = 0; c < 5; ++c) {
        g[c] = side > 1 ? 0.0f : row[(size_t)c * height * width];
    }
    int i = x - reach;
    for (; i < x - reach + whole; i += 3) {
        const float* v0 = column_of(strip, i);
        const float* v1 = column_of(strip, i + 1);
        const float* v2 = column_of(strip, i + 2);
#pragma unroll
        for (int c = 0; c < 5; ++c) {
            const int plane = c * strip.length;
            g[c] += v0[plane] + v1[plane] + v2[plane];
        }
    }
    for (; i <= x + reach; ++i) {
        const float* v = column_of(strip, i);
#pragma unroll
        for (int c = 0; c < 5; ++c) {
            g[c] += v[c * strip.length];
        }
    }
    flow[((size_t)blockIdx.z * height + blockIdx.y) * width + x] = solve(g, ridge);
}

// Averages along the rows with the weights of `window` and solves for the flow.
extern "C" __global__ void finish_gaussian(const float* __restrict__ averages,
                                           float2* __restrict__ flow,
                                           const float* __restrict__ window, int reach,
                                           float ridge, int height, int width) {
    DYNAMIC_SHARED(float, shared);
    const Strip strip = load_strip(averages, shared, reach, height, width);
    __syncthreads();
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    if (x >= width) {
        return;
    }
    float g[5];
    const float* centre = column_of(strip, x);
#pragma unroll
    for (int c = 0; c < 5; ++c) {
        g[c] = centre[c * strip.length] * window[reach];
    }
    for (int k = 1; k <= reach; ++k) {
        const float weight = window[reach + k];
        const float* left = column_of(strip, x - k);
        const float* right = column_of(strip, x + k);
#pragma unroll
        for (int c = 0; c < 5; ++c) {
            const int plane = c * strip.length;
            g[c] = fmaf(left[plane] + right[plane], weight, g[c]);
        }
    }
    flow[((size_t)blockIdx.z * height + blockIdx.y) * width + x] = solve(g, ridge);
}
