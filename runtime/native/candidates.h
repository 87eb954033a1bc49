// Which classes can win an image pixel, found on the map before anything is interpolated.
//
// A probability at an image pixel is a mean of crop pixels' probabilities with weights that do not depend on the class,
// and a crop pixel's logit is such a mean of map cells. So a class whose logits stay below those of ONE other class on
// all map cells that a group of pixels depends on has the smaller probability at each of them: it is in the softmax's
// sum, and nowhere else. On a parsed person most groups have one class left.
#pragma once

#include "simd.h"
#include "tail.h"

namespace {

using qanet::Tile;

constexpr int kRing = 4;  // map rows whose extremes are kept; a list needs three

// Scratch of one tile; without a window every class is a candidate everywhere, and only the lists are used.
struct Candidates {
    bool pruned;
    int classes, cells, stride;  // `cells` map columns, rounded up to vectors
    float* high[kRing];          // (C, stride) greatest logit on the map columns k .. k + window - 1
    float* low[kRing];           // (C, stride) least
    int row[kRing];              // the map row that each slot holds
    uint8_t* list[2];            // (cells, C) by parity of the group: the candidates, ascending
    uint16_t* count[2];          // (cells,)
    int group[2];                // the group that each slot holds
    uint32_t* wanted;            // (vectors,) which cells any image block starts at, bit by bit
};

QANET_INLINE int padded_cells(const Tile& t) {
    return (t.map_last - t.map_first + LANES) / LANES * LANES;
}

// Extremes of a map row's `lines` (C, line_stride), whose last value is repeated kMaxWindow times.
QANET_INLINE void find_extremes(const Tile& t, const Candidates& k, int slot, const float* lines, int64_t line_stride) {
    const int window = t.cells.window;
    for (int c = 0; c < k.classes; ++c)
        for (int at = 0; at < k.cells; at += LANES) {
            const float* from = lines + c * line_stride + at;
            Floats greatest = load<Floats>(from), least = greatest;
            for (int i = 1; i < window; ++i) {
                const Floats value = load<Floats>(from + i);
                greatest = greater_of(value, greatest), least = lesser_of(value, least);
            }
            store(k.high[slot] + int64_t(c) * k.stride + at, greatest);
            store(k.low[slot] + int64_t(c) * k.stride + at, least);
        }
}

// The candidates of a group of crop rows and the one below it, from the extremes of three map rows.
QANET_INLINE void find_candidates(Candidates& k, int group, const int slots[3]) {
    uint16_t* count = k.count[group & 1];
    uint8_t* list = k.list[group & 1];
    for (int at = 0; at < k.cells; at += LANES) {
        const auto extreme = [&](float* const* of, int which, int c) {
            return load<Floats>(of[slots[which]] + int64_t(c) * k.stride + at);
        };
        Floats floor = lesser_of(lesser_of(extreme(k.low, 0, 0), extreme(k.low, 1, 0)), extreme(k.low, 2, 0));
        for (int c = 1; c < k.classes; ++c) {
            const Floats least = lesser_of(lesser_of(extreme(k.low, 0, c), extreme(k.low, 1, c)), extreme(k.low, 2, c));
            floor = greater_of(least, floor);
        }
        __builtin_memset(count + at, 0, LANES * sizeof *count);
        const uint32_t wanted = k.wanted[at / LANES];
        for (int c = 0; c < k.classes; ++c) {
            const Floats most =
                greater_of(greater_of(extreme(k.high, 0, c), extreme(k.high, 1, c)), extreme(k.high, 2, c));
            for (uint32_t bits = at_least(most, floor) & wanted; bits; bits &= bits - 1) {
                const int cell = at + __builtin_ctz(bits);
                list[int64_t(cell) * k.classes + count[cell]++] = uint8_t(c);
            }
        }
    }
    k.group[group & 1] = group;
}

}  // namespace
