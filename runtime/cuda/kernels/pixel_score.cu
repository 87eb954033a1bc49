// The pixel score: quarter-resolution logits -> labels of each person's region at image resolution, and scores.
//
// Semantics of qanet.quality.pixel_score: logits are upsampled x4, softmaxed at crop resolution, and each image pixel
// samples the PROBABILITIES. A block owns 32 x 8 image pixels of one person. The crop pixels under it (34 x 10 at equal
// scale, never more than 64 x 16) live in shared memory for as many classes at once as the pool holds:
//   fill: interpolate the logits, a column of crop pixels and a class per thread, so that 10 rows cost 4 loads
//   gauge: greatest logit and sum of exponentials of each crop pixel, in its owner's registers
//   softmax: in place, by the same owner
//   sample: each thread looks up its own pixel and keeps the greatest
// When the classes do not fit at once, the first two run over all of them, then all four again chunk by chunk.
//
// Bound: global memory sees the logits once (neighbouring tiles share cells in the caches) and the labels once; the
// time goes to instructions, about 35 a class and pixel, half of them shared-memory accesses and two exponentials.
#include "tile.cuh"

constexpr int MAX_COLUMNS = 2 * TILE_X;  // where the crop is finer than the image each pixel has two columns of its own
constexpr int MAX_ROWS = 2 * TILE_Y;
constexpr int OWNED = MAX_COLUMNS * MAX_ROWS / THREADS;  // crop pixels a thread owns

// A crop pixel's cells along one axis of the logits: bilinear x4, align_corners False.
struct Cells {
    int low, high;
    float high_weight;
};

__device__ inline Cells cells_of(int crop_pixel, int size) {
    const float position = fmaxf((2 * crop_pixel - 3) * 0.125f, 0.0f);  // (i + 0.5) / 4 - 0.5, exact
    Cells cells;
    cells.low = min(static_cast<int>(position), size - 1);
    cells.high = min(cells.low + 1, size - 1);
    cells.high_weight = position - cells.low;
    return cells;
}

// The crop pixels that a tile needs along one axis: all between its ends, or two a pixel where that is fewer.
template <int PIXELS>
struct Axis {
    Paste taps[PIXELS];
    Cells cells[2 * PIXELS];

    __device__ int span() const { return taps[PIXELS - 1].high - taps[0].low + 1; }
    __device__ bool dense() const { return span() <= 2 * PIXELS; }
    __device__ int slots() const { return dense() ? span() : 2 * PIXELS; }
    __device__ int low_slot(int pixel) const { return dense() ? taps[pixel].low - taps[0].low : 2 * pixel; }
    __device__ int high_slot(int pixel) const { return dense() ? taps[pixel].high - taps[0].low : 2 * pixel + 1; }

    // Pixels beyond the region repeat its last one, which costs no further crop pixels.
    __device__ void find_tap(int pixel, int first, int count, int corner, float near_edge, float far_edge, int size) {
        taps[pixel] = paste_tap(corner + min(first + pixel, count - 1), near_edge, far_edge, size * UPSAMPLE);
    }
    __device__ void find_cells(int slot, int size) {
        const Paste& tap = taps[slot / 2];
        cells[slot] = cells_of(dense() ? taps[0].low + slot : slot % 2 ? tap.high : tap.low, size);
    }
};

struct Shared {
    Axis<TILE_X> columns;
    Axis<TILE_Y> rows;
    Statistics statistics;
};

// A chunk of classes in the pool: (views, classes, rows, columns) of crop pixels.
struct Chunk {
    int first, classes;
    int columns, pixels;  // of a plane
};

template <typename Logit>
__device__ void fill(const Inputs<Logit>& in, int person, const Chunk& chunk, const Shared& shared, float* pool,
                     int thread) {
    const int rows = chunk.pixels / chunk.columns;
    const int items = in.views() * chunk.classes * chunk.columns;
    for (int item = thread; item < items; item += THREADS) {
        const int plane = item / chunk.columns, column = item % chunk.columns;
        const int view = plane >= chunk.classes;
        const Logit* map = in.map(view, person, chunk.first + plane - view * chunk.classes);
        const Cells across = shared.columns.cells[column];
        const int left = view ? in.map_width - 1 - across.low : across.low;  // the mirrored view, mirrored back
        const int right = view ? in.map_width - 1 - across.high : across.high;
        auto at_row = [&](int row) {
            const Logit* cells = map + static_cast<long long>(row) * in.map_width;
            return as_float(cells[left]) * (1 - across.high_weight) + as_float(cells[right]) * across.high_weight;
        };
        float* target = pool + plane * chunk.pixels + column;
        int low_row = -1, high_row = -1;
        float low = 0, high = 0;
#pragma unroll 1
        for (int row = 0; row < rows; ++row) {
            const Cells down = shared.rows.cells[row];
            if (down.low != low_row) low = down.low == high_row ? high : at_row(down.low);
            if (down.high != high_row) high = down.high == down.low ? low : at_row(down.high);
            low_row = down.low;
            high_row = down.high;
            target[row * chunk.columns] = low * (1 - down.high_weight) + high * down.high_weight;
        }
    }
}

// The softmax's two numbers of a crop pixel, kept up to date over chunks; one exponential more a chunk than in one go.
struct Gauge {
    float top = __int_as_float(static_cast<int>(0xff800000u));  // -infinity
    float sum = 0;

    __device__ void take(const float* values, int count, int stride) {
        float greatest = top;
#pragma unroll 2
        for (int k = 0; k < count; ++k) greatest = fmaxf(greatest, values[k * stride]);
        sum *= __expf(top - greatest);  // 0 the first time, since top is -infinity
#pragma unroll 2
        for (int k = 0; k < count; ++k) sum += __expf(values[k * stride] - greatest);
        top = greatest;
    }
};

template <typename Logit>
__device__ void score_tile(const Inputs<Logit>& in, int pool_floats, Shared& shared, float* pool) {
    const int thread = threadIdx.y * TILE_X + threadIdx.x;
    check_finite(in, thread);
    Place place;
    if (!find_place(in.rois, place)) return;
    const float* box = in.boxes + 4 * place.person;
    if (thread < TILE_X)
        shared.columns.find_tap(thread, place.left, place.width, place.x0, box[0], box[2], in.map_width);
    else if (thread < TILE_X + TILE_Y)
        shared.rows.find_tap(thread - TILE_X, place.top, place.height, place.y0, box[1], box[3], in.map_height);
    clear(shared.statistics, thread);
    __syncthreads();
    if (thread < MAX_COLUMNS)
        shared.columns.find_cells(thread, in.map_width);
    else if (thread < MAX_COLUMNS + MAX_ROWS)
        shared.rows.find_cells(thread - MAX_COLUMNS, in.map_height);
    __syncthreads();

    const int views = in.views(), columns = shared.columns.slots(), pixels = columns * shared.rows.slots();
    const int capacity = min(pool_floats / (views * pixels), in.num_classes);  // classes at once
    const bool whole = capacity == in.num_classes;
    Gauge gauges[2][OWNED];
    for (int first = 0; first < in.num_classes; first += capacity) {
        const Chunk chunk{first, min(capacity, in.num_classes - first), columns, pixels};
        fill(in, place.person, chunk, shared, pool, thread);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < OWNED; ++i) {
            const int pixel = thread + i * THREADS;
            if (pixel >= pixels) continue;
            gauges[0][i].take(pool + pixel, chunk.classes, pixels);
            if (views == 2) gauges[1][i].take(pool + chunk.classes * pixels + pixel, chunk.classes, pixels);
        }
        if (!whole) __syncthreads();
    }

    const Paste across = shared.columns.taps[threadIdx.x], down = shared.rows.taps[threadIdx.y];
    const int low_row = shared.rows.low_slot(threadIdx.y) * columns;
    const int high_row = shared.rows.high_slot(threadIdx.y) * columns;
    const int low_column = shared.columns.low_slot(threadIdx.x), high_column = shared.columns.high_slot(threadIdx.x);
    float best = 0;
    int winner = 0;
    for (int first = 0; first < in.num_classes; first += capacity) {
        const Chunk chunk{first, min(capacity, in.num_classes - first), columns, pixels};
        if (!whole) {
            fill(in, place.person, chunk, shared, pool, thread);
            __syncthreads();
        }
#pragma unroll
        for (int i = 0; i < OWNED; ++i) {
            const int pixel = thread + i * THREADS;
            if (pixel >= pixels) continue;
            const float upright = 1 / gauges[0][i].sum, mirrored = views == 2 ? 1 / gauges[1][i].sum : 0;
#pragma unroll 2
            for (int k = 0; k < chunk.classes; ++k) {
                float& value = pool[k * pixels + pixel];
                value = __expf(value - gauges[0][i].top) * upright;
                if (views == 2) {
                    const float other = pool[(chunk.classes + k) * pixels + pixel];
                    value = (value + __expf(other - gauges[1][i].top) * mirrored) * 0.5f;
                }
            }
        }
        __syncthreads();
        for (int k = 0; k < chunk.classes; ++k) {
            const float* plane = pool + k * pixels;
            const float left = plane[low_row + low_column] * down.low_weight +
                               plane[high_row + low_column] * down.high_weight;
            const float right = plane[low_row + high_column] * down.low_weight +
                                plane[high_row + high_column] * down.high_weight;
            const float m = left * across.low_weight + right * across.high_weight;
            if (first + k == 0 || m > best) {  // the first of equals wins, as in argmax
                best = m;
                winner = first + k;
            }
        }
        if (!whole) __syncthreads();
    }
    record(in, place, best, winner, shared.statistics, thread);
}

// Two blocks a multiprocessor are what the default pool allows: registers for more would only spill.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
pixel_score_f32(PIXEL_SCORE_PARAMETERS(float), int pool_floats) {
    extern __shared__ float pool[];
    __shared__ Shared shared;
    score_tile(Inputs<float> PIXEL_SCORE_ARGUMENTS, pool_floats, shared, pool);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
pixel_score_f16(PIXEL_SCORE_PARAMETERS(Half), int pool_floats) {
    extern __shared__ float pool[];
    __shared__ Shared shared;
    score_tile(Inputs<Half> PIXEL_SCORE_ARGUMENTS, pool_floats, shared, pool);
}

// Sums -> scores, one block a person; leaves the workspace at zero for the next frame.
extern "C" __global__ void __launch_bounds__(MAX_CLASSES)
pixel_score_finish(unsigned long long* sums, unsigned* not_finite, int num_classes, float* pixel_scores,
                   float* part_scores, unsigned* flags) {
    __shared__ unsigned long long whole_sum, whole_count;
    const int person = blockIdx.x, c = threadIdx.x;
    unsigned long long* mine = sums + 2ll * person * num_classes;
    if (c == 0) {
        whole_sum = whole_count = 0;
        flags[person] = not_finite[person];
        not_finite[person] = 0;
    }
    __syncthreads();
    if (c < num_classes) {
        const unsigned long long sum = mine[c], count = mine[num_classes + c];
        mine[c] = mine[num_classes + c] = 0;
        const double total = static_cast<double>(sum) / SUM_UNIT;
        if (c > 0)
            part_scores[static_cast<long long>(person) * (num_classes - 1) + c - 1] =
                count ? static_cast<float>(total / static_cast<double>(count)) : 0.0f;
        atomicAdd(&whole_sum, sum);
        atomicAdd(&whole_count, count);
    }
    __syncthreads();
    if (c > 0) return;
    const double total = static_cast<double>(whole_sum) / SUM_UNIT;
    pixel_scores[person] = whole_count ? static_cast<float>(total / static_cast<double>(whole_count)) : 0.0f;
}
