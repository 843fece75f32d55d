#include "device.cuh"

// cv2.resize without tables: a thread works out which pixels it covers, and their shares.

enum Method { AREA, LINEAR, LINEAR_OF_AREA };  // the last is INTER_AREA where it enlarges

// Neighbours of one axis and their weights: the first, those between, the last.
struct Span {
    int start, count;
    float first, between, last;
};

__device__ inline float weight(const Span& span, int i) {
    return i == 0 ? span.first : i == span.count - 1 ? span.last : span.between;
}

__device__ inline Span area(int at, int source, int target) {
    const double scale = 1.0 / (double(target) / double(source));
    const double begin = at * scale, end = begin + scale;
    const double width = fmin(scale, source - begin);
    const int last = min(int(floor(end)), source - 1), whole = min(int(ceil(begin)), last);
    const bool before = whole - begin > 1e-3, after = end - last > 1e-3;
    Span span;
    span.start = before ? whole - 1 : whole;
    span.count = (after ? last + 1 : last) - span.start;
    span.between = float(1.0 / width);
    span.first = before ? float((whole - begin) / width) : span.between;
    span.last = after ? float(fmin(fmin(end - last, 1.0), width) / width) : span.between;
    if (span.count == 1 && !before) span.first = span.last;
    return span;
}

__device__ inline Span linear(int at, int source, int target, int method) {
    const double share = double(target) / double(source), scale = 1.0 / share;
    float part;
    int start;
    if (method == LINEAR) {
        const double position = (at + 0.5) * scale - 0.5;
        start = int(floor(position));
        part = float(position - start);
    } else {
        start = int(floor(at * scale));
        part = float((at + 1) - (start + 1) * share);
        part = part <= 0.0f ? 0.0f : part - floorf(part);
    }
    if (start < 0 || start >= source - 1) {
        start = start < 0 ? 0 : source - 1;
        part = 0.0f;
    }
    const int count = start < source - 1 ? 2 : 1;
    return {start, count, 1.0f - part, 0.0f, part};
}

__device__ inline Span span_of(int at, int source, int target, int method) {
    return method == AREA ? area(at, source, target) : linear(at, source, target, method);
}

// Sum of the values that two spans cover, of one channel, by their weights.
template <typename T>
__device__ inline float weighted(const T* corner, int pitch, int channels, const Span& down,
                                 const Span& across) {
    float total = 0.0f;
    for (int j = 0; j < down.count; j++) {
        float sum = 0.0f;
        for (int i = 0; i < across.count; i++) {
            sum += corner[j * pitch + i * channels] * weight(across, i);
        }
        total += sum * weight(down, j);
    }
    return total;
}

// The same for bytes between two rows and columns, in OpenCV's fixed point: weights of 11 bits,
// of which a row's sum keeps 7 and a product 6.
__device__ inline int in_fixed_point(const u8* corner, int pitch, int channels, const Span& down,
                                     const Span& across) {
    const int top = int(rintf(down.first * 2048.0f)), bottom = int(rintf(down.last * 2048.0f));
    const int left = int(rintf(across.first * 2048.0f)), right = int(rintf(across.last * 2048.0f));
    int total = 0;
    for (int j = 0; j < down.count; j++) {
        int sum = corner[j * pitch] * left;
        if (across.count > 1) sum += corner[j * pitch + channels] * right;
        total += (j == 0 ? top : bottom) * (sum >> 4) >> 16;
    }
    return (total + 2) >> 2;
}

// From images (N, height, width, channels): a row of blocks for each, a thread for each value.
extern "C" __global__ void __launch_bounds__(256) resize_floats(
    const float* __restrict__ images, int height, int width, int rows, int columns, int channels,
    int method, float* __restrict__ result) {
    const int element = blockIdx.x * blockDim.x + threadIdx.x, elements = rows * columns * channels;
    if (element >= elements) return;
    const Span down = span_of(element / channels / columns, height, rows, method);
    const Span across = span_of(element / channels % columns, width, columns, method);
    const int pitch = width * channels, channel = element % channels;
    const float* corner = images + size_t(blockIdx.y) * height * pitch + down.start * pitch +
                          across.start * channels + channel;
    result[size_t(blockIdx.y) * elements + element] =
        weighted(corner, pitch, channels, down, across);
}

extern "C" __global__ void __launch_bounds__(256) resize_bytes(
    const u8* __restrict__ images, int height, int width, int rows, int columns, int channels,
    int method, u8* __restrict__ result) {
    const int element = blockIdx.x * blockDim.x + threadIdx.x, elements = rows * columns * channels;
    if (element >= elements) return;
    const Span down = span_of(element / channels / columns, height, rows, method);
    const Span across = span_of(element / channels % columns, width, columns, method);
    const int pitch = width * channels, channel = element % channels;
    const u8* corner = images + size_t(blockIdx.y) * height * pitch + down.start * pitch +
                       across.start * channels + channel;
    const int value = method == AREA
                          ? int(rintf(weighted(corner, pitch, channels, down, across)))
                          : in_fixed_point(corner, pitch, channels, down, across);
    result[size_t(blockIdx.y) * elements + element] = u8(clamped(value, 0, 255));
}
