// A block's tile of image pixels, where it samples the crop, and its statistics.
#pragma once

constexpr int TILE_X = 32;  // image pixels: a row of labels fills one 32-byte sector
constexpr int TILE_Y = 8;
constexpr int THREADS = TILE_X * TILE_Y;
constexpr int MAX_CLASSES = 256;
constexpr int UPSAMPLE = 4;             // the logits' stride, in crop pixels
constexpr float SUM_UNIT = 8388608.0f;  // 2^23: 256 pixels of m <= 1 fit 32 bits, and the rounding is below 1e-7

// FP16 by its bits: the conversion is one instruction, and no header is needed, which a runtime compiler lacks.
struct Half {
    unsigned short bits;
};

__device__ inline float as_float(float value) { return value; }

__device__ inline float as_float(Half value) {
#ifdef __CUDACC__
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
#else
    return emulation::half_to_float(value.bits);
#endif
}

__device__ inline bool is_finite(float value) { return fabsf(value) <= 3.402823466e38f; }  // false for a NaN too
__device__ inline bool is_finite(Half value) { return (value.bits & 0x7c00) != 0x7c00; }

// The arguments of a pixel score kernel, in the order of the README: its parameters, and what fills an Inputs.
#define PIXEL_SCORE_PARAMETERS(Logit)                                                                          \
    const Logit *logits, const Logit *flipped_logits, const int *flip_classes, const float *boxes,             \
        const int *rois, const long long *label_offsets, int num_classes, int map_height, int map_width,       \
        float threshold, unsigned char *labels, unsigned long long *sums, unsigned *not_finite
#define PIXEL_SCORE_ARGUMENTS                                                                                  \
    {                                                                                                          \
        logits, flipped_logits, flip_classes, boxes, rois, label_offsets, num_classes, map_height, map_width,  \
            threshold, labels, sums, not_finite                                                                \
    }

template <typename Logit>
struct Inputs {
    const Logit* logits;
    const Logit* flipped_logits;
    const int* flip_classes;
    const float* boxes;
    const int* rois;
    const long long* label_offsets;
    int num_classes, map_height, map_width;
    float threshold;
    unsigned char* labels;
    unsigned long long* sums;
    unsigned* not_finite;

    __device__ int views() const { return flipped_logits ? 2 : 1; }

    // Class c of person n, as the upright view numbers it; (map_height, map_width).
    __device__ const Logit* map(int view, int n, int c) const {
        const Logit* maps = view ? flipped_logits : logits;
        const long long plane = static_cast<long long>(n) * num_classes + (view ? flip_classes[c] : c);
        return maps + plane * map_height * map_width;
    }
};

// Two-tap interpolation of an image pixel from a crop axis; a tap outside the crop weighs nothing.
struct Paste {
    int low, high;  // crop pixels, always inside
    float low_weight, high_weight;
};

// In double, as the reference: a far box would lose the fraction. A tile needs only 32 + 8 of them.
__device__ inline Paste paste_tap(int pixel, float near_edge, float far_edge, int size) {
    const double start = near_edge, extent = static_cast<double>(far_edge) - start;
    const double position = (pixel + 0.5 - start) * (size / extent) - 0.5;
    const double low = floor(position), fraction = position - low;
    const int index = static_cast<int>(fmin(fmax(low, -1.0), size - 1.0));
    Paste tap;
    tap.low = max(index, 0);
    tap.high = min(index + 1, size - 1);
    tap.low_weight = low >= 0 && low < size ? static_cast<float>(1 - fraction) : 0.0f;
    tap.high_weight = low >= -1 && low < size - 1 ? static_cast<float>(fraction) : 0.0f;
    return tap;
}

// A block's share of one person's region.
struct Place {
    int person, x, y;   // image pixel of this thread, from the region's corner
    int x0, y0;         // the region's corner in the image
    int width, height;  // of the region, pixels
    int left, top;      // the tile's corner, from the region's

    __device__ bool inside() const { return x < width && y < height; }
};

// False for a block beyond the person's tiles, the same for all its threads.
__device__ inline bool find_place(const int* rois, Place& place) {
    place.person = blockIdx.y;
    const int* roi = rois + 4 * place.person;
    place.x0 = roi[0];
    place.y0 = roi[1];
    place.width = roi[2] - roi[0];
    place.height = roi[3] - roi[1];
    if (place.width <= 0 || place.height <= 0) return false;
    const unsigned across = (place.width + TILE_X - 1) / TILE_X;
    place.left = blockIdx.x % across * TILE_X;
    place.top = blockIdx.x / across * TILE_Y;
    place.x = place.left + threadIdx.x;
    place.y = place.top + threadIdx.y;
    return place.top < place.height;
}

// Notes a NaN or an infinity among the person's logits, sampled or not, as bit `view` of its flag. The blocks share
// the logits out: a load a thread, or a few where the person is small, that the tiles' own loads then find in the cache.
template <typename Logit>
__device__ void check_finite(const Inputs<Logit>& in, int thread) {
    const long long count = static_cast<long long>(in.num_classes) * in.map_height * in.map_width;
    const long long stride = static_cast<long long>(gridDim.x) * THREADS;
    for (int view = 0; view < in.views(); ++view) {
        const Logit* logits = (view ? in.flipped_logits : in.logits) + blockIdx.y * count;
        bool finite = true;
        for (long long i = static_cast<long long>(blockIdx.x) * THREADS + thread; i < count; i += stride)
            finite = finite && is_finite(logits[i]);
        if (!finite) atomicOr(&in.not_finite[blockIdx.y], 1u << view);
    }
}

// Sums and counts of a tile by class. Integers: their order does not matter, so atomics keep the result the same bits.
struct Statistics {
    unsigned sums[MAX_CLASSES];  // of m, in 1 / SUM_UNIT
    unsigned counts[MAX_CLASSES];
};

// Needs a barrier before the first `record`.
__device__ inline void clear(Statistics& statistics, int thread) {
    for (int c = thread; c < MAX_CLASSES; c += THREADS) statistics.sums[c] = statistics.counts[c] = 0;
}

// Label, sum and count of this thread's pixel (method, Pixel score); then the tile's sums into the person's.
template <typename Logit>
__device__ void record(const Inputs<Logit>& in, const Place& place, float m, int winner, Statistics& tile, int thread) {
    if (place.inside()) {
        const long long pixel = static_cast<long long>(place.y) * place.width + place.x;
        const bool likely = m >= static_cast<float>(1.0 / in.num_classes);
        in.labels[in.label_offsets[place.person] + pixel] = likely ? winner : 0;
        if (m >= in.threshold) {  // follows the argmax, not the label map
            atomicAdd(&tile.sums[winner], static_cast<unsigned>(m * SUM_UNIT + 0.5f));
            atomicAdd(&tile.counts[winner], 1u);
        }
    }
    __syncthreads();
    unsigned long long* sums = in.sums + 2ll * place.person * in.num_classes;
    for (int c = thread; c < in.num_classes; c += THREADS) {
        if (tile.counts[c] == 0) continue;  // most classes have no pixel in a tile
        atomicAdd(&sums[c], static_cast<unsigned long long>(tile.sums[c]));
        atomicAdd(&sums[in.num_classes + c], static_cast<unsigned long long>(tile.counts[c]));
    }
}
