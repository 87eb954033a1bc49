// The pixel score's fast form: the softmax of logits interpolated straight to the image pixel.
//
// Not the reference, which samples probabilities: the two differ along borders between classes. No crop pixel is
// shared, so there is no shared memory beyond the statistics and no barrier before them; a thread walks the classes
// once, four cached loads and one exponential each, so it is bound by the loads' issue rate; global memory sees the
// logits and the labels once.
#include "tile.cuh"

// Where an image pixel lies between the logits' cells along one axis; `edge` fades the crop's rim as the paste does.
struct Between {
    int low, high;
    float high_weight, edge;
};

__device__ inline Between between(int pixel, float near_edge, float far_edge, int size) {
    const Paste tap = paste_tap(pixel, near_edge, far_edge, size * UPSAMPLE);
    // The crop position is low + high_weight, but at the rim, where the cell is the outermost one anyway.
    const float crop_position = tap.low + (tap.high > tap.low ? tap.high_weight : 0.0f);
    const float position = fminf(fmaxf((crop_position + 0.5f) / UPSAMPLE - 0.5f, 0.0f), size - 1.0f);
    Between result;
    result.low = static_cast<int>(position);
    result.high = min(result.low + 1, size - 1);
    result.high_weight = position - result.low;
    result.edge = tap.low_weight + tap.high_weight;
    return result;
}

template <typename Logit>
__device__ float interpolate(const Logit* map, int width, const Between& across, const Between& down, bool mirrored) {
    const int left = mirrored ? width - 1 - across.low : across.low;
    const int right = mirrored ? width - 1 - across.high : across.high;
    const Logit* low = map + static_cast<long long>(down.low) * width;
    const Logit* high = map + static_cast<long long>(down.high) * width;
    const float above = as_float(low[left]) * (1 - across.high_weight) + as_float(low[right]) * across.high_weight;
    const float below = as_float(high[left]) * (1 - across.high_weight) + as_float(high[right]) * across.high_weight;
    return above * (1 - down.high_weight) + below * down.high_weight;
}

struct Best {
    float top, sum;  // greatest logit, sum of exponentials relative to it
    int winner;
};

template <typename Logit>
__device__ Best gauge(const Inputs<Logit>& in, int view, int person, const Between& across, const Between& down) {
    Best best{interpolate(in.map(view, person, 0), in.map_width, across, down, view), 1.0f, 0};
    for (int c = 1; c < in.num_classes; ++c) {
        const float value = interpolate(in.map(view, person, c), in.map_width, across, down, view);
        if (value > best.top) {
            best.sum = best.sum * __expf(best.top - value) + 1;
            best.top = value;
            best.winner = c;
        } else {
            best.sum += __expf(value - best.top);
        }
    }
    return best;
}

template <typename Logit>
__device__ void score_tile(const Inputs<Logit>& in, Between* columns, Between* rows, Statistics& statistics) {
    const int thread = threadIdx.y * TILE_X + threadIdx.x;
    check_finite(in, thread);
    Place place;
    if (!find_place(in.rois, place)) return;
    const float* box = in.boxes + 4 * place.person;
    if (thread < TILE_X)
        columns[thread] = between(place.x0 + place.left + thread, box[0], box[2], in.map_width);
    else if (thread < TILE_X + TILE_Y)
        rows[thread - TILE_X] = between(place.y0 + place.top + thread - TILE_X, box[1], box[3], in.map_height);
    clear(statistics, thread);
    __syncthreads();
    float m = 0;
    int winner = 0;
    if (place.inside()) {
        const Between across = columns[threadIdx.x], down = rows[threadIdx.y];
        const Best upright = gauge(in, 0, place.person, across, down);
        m = 1 / upright.sum;
        winner = upright.winner;
        if (in.views() == 2) {  // the views' probabilities are averaged, so each class is looked at once more
            const Best mirrored = gauge(in, 1, place.person, across, down);
            for (int c = 0; c < in.num_classes; ++c) {
                const float a = interpolate(in.map(0, place.person, c), in.map_width, across, down, false);
                const float b = interpolate(in.map(1, place.person, c), in.map_width, across, down, true);
                const float p =
                    (__expf(a - upright.top) / upright.sum + __expf(b - mirrored.top) / mirrored.sum) * 0.5f;
                if (c == 0 || p > m) {
                    m = p;
                    winner = c;
                }
            }
        }
        m *= across.edge * down.edge;
    }
    record(in, place, m, winner, statistics, thread);
}

extern "C" __global__ void __launch_bounds__(THREADS) pixel_score_fast_f32(PIXEL_SCORE_PARAMETERS(float)) {
    __shared__ Between columns[TILE_X], rows[TILE_Y];
    __shared__ Statistics statistics;
    score_tile(Inputs<float> PIXEL_SCORE_ARGUMENTS, columns, rows, statistics);
}

extern "C" __global__ void __launch_bounds__(THREADS) pixel_score_fast_f16(PIXEL_SCORE_PARAMETERS(Half)) {
    __shared__ Between columns[TILE_X], rows[TILE_Y];
    __shared__ Statistics statistics;
    score_tile(Inputs<Half> PIXEL_SCORE_ARGUMENTS, columns, rows, statistics);
}
