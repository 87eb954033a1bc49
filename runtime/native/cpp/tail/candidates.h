// Which classes can win an image pixel, found on the map before anything is interpolated.
//
// A probability at an image pixel is a mean of crop pixels' probabilities with weights that do not depend on the class,
// and a crop pixel's logit is such a mean of map cells. So a class whose logits stay below those of ONE other class on
// all map cells that a block of pixels depends on has the smaller probability at each of them: it is in the softmax's
// sum, and nowhere else. The same holds below the mean of two others' logits: the probability stays below the geometric
// mean of theirs at each crop pixel, so below the arithmetic mean, which interpolation keeps, so below one of them.
// Where one class is greatest on all cells it is the only one, as in most places on a parsed person.
#pragma once

#include "simd.h"
#include "tail/tail.h"

namespace {

using qanet::Tile;

constexpr int kRing = 4;            // map rows kept; a mask needs three
constexpr int kMaxPruned = 64;      // classes: the bits of a mask
constexpr int kMaxCells = 24;       // map columns of a block; where it has more, a look is not worth it
typedef uint64_t Mask;              // bit c: class c

// Scratch of one tile. Where nothing is pruned, every class is a candidate everywhere.
struct Candidates {
    bool pruned;
    int classes, padded, blocks;  // `padded`: classes, rounded up to vectors
    float* cells[kRing];          // (map columns, padded) logits, the classes of a cell side by side
    Mask* tops[kRing];            // (blocks,) classes that are greatest on one of the block's cells
    int row[kRing];               // the map row that each slot holds
    Mask* inside;                 // (blocks,) candidates between crop rows of the group
    Mask* across;                 // (blocks,) between its last crop row and the next group's first
    int group;                    // the group that both are of
    bool with_across;             // whether `across` is filled
};

// Four vectors of four, rows to columns.
typedef float Four __attribute__((vector_size(16)));
QANET_INLINE void turn(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
    const Four a = load<Four>(from), b = load<Four>(from + from_stride), c = load<Four>(from + 2 * from_stride),
               d = load<Four>(from + 3 * from_stride);
    const Four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    const Four ef = __builtin_shufflevector(a, b, 2, 6, 3, 7), gh = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    store(to, __builtin_shufflevector(ab, cd, 0, 1, 4, 5));
    store(to + to_stride, __builtin_shufflevector(ab, cd, 2, 3, 6, 7));
    store(to + 2 * to_stride, __builtin_shufflevector(ef, gh, 0, 1, 4, 5));
    store(to + 3 * to_stride, __builtin_shufflevector(ef, gh, 2, 3, 6, 7));
}

// What a slot keeps of a map row: `lines` (padded, stride), and the class that is greatest in each column.
QANET_INLINE void enter_row(const Tile& t, Candidates& k, int slot, const float* lines, int64_t stride, int count,
                            const int32_t* top) {
    for (int c = 0; c < k.padded; c += 4)
        for (int at = 0; at < count; at += 4)
            turn(lines + c * stride + at, stride, k.cells[slot] + int64_t(at) * k.padded + c, k.padded);
    for (int block = 0; block < k.blocks; ++block) {
        Mask mask = 0;
        for (int at = t.blocks.first[block]; at <= t.blocks.last[block]; ++at) mask |= Mask(1) << top[at];
        k.tops[slot][block] = mask;
    }
}

// Bits of the classes that stay below neither of the first and the last in `tops`, nor below the mean of both.
QANET_INLINE Mask not_below(const Tile& t, const Candidates& k, int block, const int* slots, int rows, Mask tops) {
    const int first = __builtin_ctzll(tops), last = 63 - __builtin_clzll(tops);
    Mask found = tops;
    for (int c = 0; c < k.padded; c += LANES) {
        Floats over_first = all(-3.402823466e38f), over_last = over_first, over_mean = over_first;
        for (int i = 0; i < rows; ++i) {
            const float* cell = k.cells[slots[i]] + int64_t(t.blocks.first[block]) * k.padded;
            for (int at = t.blocks.first[block]; at <= t.blocks.last[block]; ++at, cell += k.padded) {
                const Floats logits = load<Floats>(cell + c);
                over_first = greater_of(logits - all(cell[first]), over_first);
                over_last = greater_of(logits - all(cell[last]), over_last);
                over_mean = greater_of(logits - all(0.5f * cell[first] + 0.5f * cell[last]), over_mean);
            }
        }
        found |= Mask(at_least(lesser_of(lesser_of(over_first, over_last), over_mean), all(0.0f))) << c;
    }
    return found & (~Mask(0) >> (64 - k.classes));
}

QANET_INLINE Mask candidates_of(const Tile& t, const Candidates& k, int block, const int* slots, int rows) {
    Mask tops = 0;
    for (int i = 0; i < rows; ++i) tops |= k.tops[slots[i]][block];
    return tops & (tops - 1) ? not_below(t, k, block, slots, rows, tops) : tops;
}

// The masks of a group, from the map rows above and below it and, for `across`, the next.
QANET_INLINE void find_candidates(const Tile& t, Candidates& k, int group, const int slots[3], bool with_across) {
    for (int block = 0; block < k.blocks; ++block) {
        k.inside[block] = candidates_of(t, k, block, slots, 2);
        k.across[block] = with_across ? candidates_of(t, k, block, slots, 3) : 0;
    }
    k.group = group, k.with_across = with_across;
}

}  // namespace
