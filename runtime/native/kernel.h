// The pixel score of one tile, written once and built for each instruction set (LANES floats a vector).
//
// Everything flows through four row buffers that stay in the cache; no map of the image exists at any time:
//   map row   U[view][2]  logits of a map row, spread over the crop columns that the tile needs   (blocks, C, LANES)
//   crop row  E           e^(logit - max) of a crop row; `scale` holds 1 / (sum * views)          (C, columns)
//   wide row  X[2]        probabilities of a crop row, sampled at the image's columns             (blocks, C, LANES)
//   image row             lerp of two wide rows, maximum and its class, in registers
// Rows are interpolated after columns, the reference does it the other way round: the same to rounding.
#pragma once

#include "rows.h"
#include "simd.h"
#include "tail.h"

namespace {

using qanet::Tile;

struct Buffers {
    int64_t spread, crop, wide;  // floats of one U row, of E, of one X row
    int crop_stride, map_stride;
    int64_t total;
};

QANET_INLINE Buffers layout(const Tile& t) {
    Buffers b;
    b.crop_stride = t.columns.count + LANES;  // a window that starts at the last column reads past it
    b.map_stride = t.map_last - t.map_first + 1 + LANES;
    b.spread = int64_t(t.columns.count) * t.classes;
    b.crop = int64_t(b.crop_stride) * t.classes;
    b.wide = int64_t(t.pixels.count) * t.classes;
    const int64_t small = t.columns.count + LANES + (b.map_stride + LANES) * int64_t(t.classes);
    b.total = b.spread * 2 * t.num_views + b.crop + b.wide * 2 + small + 16 * 16;  // and room to align each
    return b;
}

// A map row's logits at the tile's crop columns, U (blocks, C, LANES), by way of its own columns, `lines` (C, ...).
QANET_INLINE void spread_map_row(const Tile& t, const Buffers& b, const qanet::View& view, int y, float* lines,
                                 float* out) {
    const Taps taps = t.columns;
    const int classes = t.classes;
    const int count = t.map_last - t.map_first + 1;
    const char* row = view.data + t.person * view.person_bytes + y * view.row_bytes + t.map_first * view.column_bytes;
    for (int c = 0; c < classes; ++c) {
        const char* from = row + view.class_order[c] * view.class_bytes;
        float* line = lines + int64_t(c) * b.map_stride;
        if (t.half) read_row<uint16_t>(from, view.column_bytes, count, line);
        else read_row<float>(from, view.column_bytes, count, line);
    }
    for (int at = 0; at < taps.count; at += LANES) {
        const Floats low_weight = load<Floats>(taps.low_weight + at), high_weight = load<Floats>(taps.high_weight + at);
        float* to = out + int64_t(at) * classes;
        each_row(fetch_of(taps, at), lines, b.map_stride, classes, [&](int c, Floats low, Floats high) {
            store(to + c * LANES, fma(high, high_weight, low * low_weight));
        });
    }
}

// Softmax numerators of a crop row, E (C, columns), and what they are to be multiplied with, scale (columns,).
QANET_INLINE void crop_row(const Tile& t, const float* above, const float* below, float above_weight,
                           float below_weight, const Buffers& b, float* column, float* out, float* scale) {
    const Floats wa = all(above_weight), wb = all(below_weight), share = all(1.0f / float(t.num_views));
    const int classes = t.classes, count = t.columns.count;  // in registers: every store might change the originals
    const int64_t stride = b.crop_stride;
    for (int at = 0; at < count; at += LANES) {
        const float* u0 = above + int64_t(at) * classes;
        const float* u1 = below + int64_t(at) * classes;
        Floats greatest = fma(load<Floats>(u1), wb, load<Floats>(u0) * wa);
        store(column, greatest);
        for (int c = 1; c < classes; ++c) {
            const Floats logit = fma(load<Floats>(u1 + c * LANES), wb, load<Floats>(u0 + c * LANES) * wa);
            store(column + c * LANES, logit);
            greatest = greater_of(logit, greatest);
        }
        Floats sum = all(0.0f);
        float* to = out + at;
        for (int c = 0; c < classes; ++c, to += stride) {
            const Floats e = exp_of_negative(load<Floats>(column + c * LANES) - greatest);
            store(to, e);
            sum += e;
        }
        store(scale + at, share / sum);
    }
}

// A crop row's probabilities at the image's columns, X (blocks, C, LANES); further views are added to the first.
QANET_INLINE void widen(const Tile& t, const Buffers& b, const float* crop, const float* scale, bool add, float* out) {
    const Taps taps = t.pixels;
    const int classes = t.classes;
    for (int at = 0; at < taps.count; at += LANES) {
        const Fetch f = fetch_of(taps, at);
        Floats low_weight = load<Floats>(taps.low_weight + at), high_weight = load<Floats>(taps.high_weight + at);
        each_row(f, scale, 0, 1, [&](int, Floats low, Floats high) { low_weight *= low, high_weight *= high; });
        float* to = out + int64_t(at) * classes;
        if (add)
            each_row(f, crop, b.crop_stride, classes, [&](int c, Floats low, Floats high) {
                const Floats sum = fma(low, low_weight, load<Floats>(to + c * LANES));
                store(to + c * LANES, fma(high, high_weight, sum));
            });
        else
            each_row(f, crop, b.crop_stride, classes, [&](int c, Floats low, Floats high) {
                store(to + c * LANES, fma(high, high_weight, low * low_weight));
            });
    }
}

// Sum and count of one class in one integer: bits 40.. count pixels, the rest holds the sum of m in units of 2^-24.
// Integers add up to the same in any order, so neither tiles nor threads show in the scores.
constexpr int kWays = 4;  // neighbours mostly share a class; their additions must not wait for one another
constexpr int kFlushPixels = 32767;  // the sum of so many stays below 2^40
struct Histogram {
    uint64_t bins[kWays][qanet::kMaxClasses + 1];  // the last bin takes the pixels that are not certain
    int pixels;
};

QANET_INLINE void flush(const Tile& t, Histogram& h) {
    for (int way = 0; way < kWays; ++way)
        for (int c = 0; c <= qanet::kMaxClasses; ++c) {
            const uint64_t bin = h.bins[way][c];
            h.bins[way][c] = 0;
            if (c >= t.classes) continue;
            t.sums[c] += bin & ((uint64_t(1) << 40) - 1);
            t.counts[c] += bin >> 40;
        }
    h.pixels = 0;
}

// Labels and statistics of one image row from the wide rows above and below it.
QANET_INLINE void image_row(const Tile& t, const float* above, const float* below, float above_weight,
                            float below_weight, uint8_t* labels, Histogram& h) {
    const Floats wa = all(above_weight), wb = all(below_weight), unsure = all(1.0f / float(t.classes));
    const Floats certain_from = all(t.threshold);
    const Ints trash = all(int32_t(qanet::kMaxClasses)), zero = all(0), one = all(1);
    const int classes = t.classes, width = t.width;
    constexpr uint64_t kPixel = uint64_t(1) << 40;
    for (int at = 0; at < width; at += LANES) {
        const float* x0 = above + int64_t(at) * classes;
        const float* x1 = below + int64_t(at) * classes;
        Floats best = fma(load<Floats>(x1), wb, load<Floats>(x0) * wa);
        Ints winner = zero, which = zero;
        for (int c = 1; c < classes; ++c) {
            const Floats value = fma(load<Floats>(x1 + c * LANES), wb, load<Floats>(x0 + c * LANES) * wa);
            which += one;
            winner = pick_greater(value, best, which, winner);
            best = greater_of(value, best);
        }
        const Ints certain = (Ints)(best >= certain_from);
        const Floats counted = select(certain, best, all(0.0f));
        const Ints units = __builtin_convertvector(fma(counted, all(16777216.0f), all(0.5f)), Ints);
        const Ints bins = select(certain, winner, trash), shown = select((Ints)(best >= unsure), winner, zero);
        const int valid = width - at < LANES ? width - at : LANES;
        if (valid == LANES) {
            store_bytes(labels + at, shown);
            if (all_equal(bins)) {  // inside a part, where most pixels are
                h.bins[0][bins[0]] += LANES * kPixel + uint64_t(sum_of(units));
                continue;
            }
        }
        int32_t bin[LANES], amount[LANES], label[LANES];
        store(bin, bins), store(amount, units), store(label, shown);
        __asm__ volatile("" ::: "memory");  // scalar loads are cheaper than taking the vectors apart
        if (valid == LANES) {
#pragma GCC unroll 16
            for (int i = 0; i < LANES; ++i) h.bins[i % kWays][bin[i]] += kPixel + uint32_t(amount[i]);
        } else {
            for (int i = 0; i < valid; ++i) {
                labels[at + i] = uint8_t(label[i]);
                h.bins[i % kWays][bin[i]] += kPixel + uint32_t(amount[i]);
            }
        }
    }
}

int64_t scratch_floats(const Tile& t) { return layout(t).total; }

void run(const Tile& t) {
    const Buffers b = layout(t);
    float* next = t.scratch;
    const auto take = [&next](int64_t floats) {
        float* taken = next;
        next += (floats + 15) / 16 * 16;
        return taken;
    };
    float* spread[2][2];  // view, parity of the map row
    int spread_row[2][2] = {{-1, -1}, {-1, -1}};
    for (int view = 0; view < t.num_views; ++view)
        for (float*& row : spread[view]) row = take(b.spread);
    float* wide[2] = {take(b.wide), take(b.wide)};  // by parity of the crop row
    int wide_row[2] = {-1, -1};
    float* crop = take(b.crop);
    float* scale = take(t.columns.count + LANES);
    float* lines = take(int64_t(b.map_stride) * t.classes);
    float* column = take(int64_t(LANES) * t.classes);
    Histogram h;
    __builtin_memset(&h, 0, sizeof h);

    for (int y = 0; y < t.height; ++y) {
        const int needed[2] = {t.rows.low[y], t.rows.high[y]};
        for (const int row : needed) {
            if (wide_row[row & 1] == row) continue;
            const int sources[2] = {t.upsampled.low[row], t.upsampled.high[row]};
            for (int view = 0; view < t.num_views; ++view) {
                for (const int source : sources) {
                    if (spread_row[view][source & 1] == source) continue;
                    spread_map_row(t, b, t.views[view], source, lines, spread[view][source & 1]);
                    spread_row[view][source & 1] = source;
                }
                crop_row(t, spread[view][sources[0] & 1], spread[view][sources[1] & 1], t.upsampled.low_weight[row],
                         t.upsampled.high_weight[row], b, column, crop, scale);
                widen(t, b, crop, scale, view > 0, wide[row & 1]);
            }
            wide_row[row & 1] = row;
        }
        if (h.pixels + t.width > kFlushPixels) flush(t, h);
        h.pixels += t.width;
        image_row(t, wide[needed[0] & 1], wide[needed[1] & 1], t.rows.low_weight[y], t.rows.high_weight[y],
                  t.labels + y * t.label_stride, h);
    }
    flush(t, h);
}

void exp_row(const float* x, float* out, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) store(out + i, exp_of_negative(load<Floats>(x + i)));
}

}  // namespace
