// The softmax of four crop rows at a time: those between two map rows, whose logits lie on a straight line.
//
// So a class's numerators are a geometric series down the four rows: 2^a, 2^a q, 2^a q^2, 2^a q^3: two exponentials.
// Logits come in powers of 2, and relative to the greatest of their map cell, which the softmax does not see: both
// interpolations subtract the same from all classes. So none is above 0, and where no class falls far from one cell to
// the next, the greatest of a crop pixel is not far below. Elsewhere each crop row is computed by itself.
#pragma once

#include "simd.h"

namespace {

constexpr int kGroup = 4;                    // crop rows
constexpr float kMaxStep = 28.0f;            // between map rows
constexpr float kLeastSum = 1.4551915e-11f;  // 2^-36
constexpr float kLog2E = 1.44269504088896341f, kLn2 = 0.693147180559945309f;

// One crop row of one block by the book: the greatest of the row itself, an exponential a class.
QANET_INLINE void exact_row(const float* above, const float* below, float weight, int classes, int64_t stride,
                            float* column, float share, float* out, float* scale) {
    const Floats wb = all(weight), wa = all(1.0f - weight);
    Floats greatest = fma(load<Floats>(below), wb, load<Floats>(above) * wa);
    store(column, greatest);
    for (int c = 1; c < classes; ++c) {
        const Floats logit = fma(load<Floats>(below + c * LANES), wb, load<Floats>(above + c * LANES) * wa);
        store(column + c * LANES, logit);
        greatest = greater_of(logit, greatest);
    }
    Floats sum = all(0.0f);
    for (int c = 0; c < classes; ++c) {
        const Floats e = exp_of_negative((load<Floats>(column + c * LANES) - greatest) * all(kLn2));
        store(out + c * stride, e);
        sum += e;
    }
    store(scale, all(share) * reciprocal(sum));
}

// Numerators and scales of one block of columns, LANES wide.
//   above, below: (C, LANES) logits of the two map rows
//   out: four crop rows (C, stride); scale: four rows; what they are to be multiplied with, `share` / sum
QANET_INLINE void softmax_block(const float* above, const float* below, int classes, int64_t stride, float* column,
                                float share, float* const out[kGroup], float* const scale[kGroup], int at) {
    Floats sum[kGroup] = {all(0.0f), all(0.0f), all(0.0f), all(0.0f)};
    Floats widest = all(0.0f);
    for (int c = 0; c < classes; ++c) {
        const Floats from = load<Floats>(above + c * LANES);
        const Floats step = load<Floats>(below + c * LANES) - from;
        widest = greater_magnitude(step, widest);
        // Crop rows lie at 1/8, 3/8, 5/8, 7/8. Below the bound the numerator is lost beside the sum, or the block is
        // done again.
        Floats e = exp2_of(greater_of(fma(step, all(0.125f), from), all(-86.0f)));
        const Floats q = exp2_of_quarter(step);
        const int64_t to = c * stride + at;
        for (int row = 0; row < kGroup; ++row) {
            store(out[row] + to, e);
            sum[row] += e;
            e *= q;
        }
    }
    Floats least = sum[0];
    for (int row = 0; row < kGroup; ++row) {
        store(scale[row] + at, all(share) * reciprocal(sum[row]));
        least = lesser_of(sum[row], least);
    }
    if (at_least(widest, all(kMaxStep)) || at_least(all(kLeastSum), least))
        for (int row = 0; row < kGroup; ++row)
            exact_row(above, below, 0.125f + 0.25f * float(row), classes, stride, column, share, out[row] + at,
                      scale[row] + at);
}

}  // namespace
