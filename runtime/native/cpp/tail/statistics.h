// Sums and counts of the certain pixels by class. All are integers: they add up to the same in any order, so neither
// tiles nor threads show in the scores.
#pragma once

#include "simd.h"
#include "tail/tail.h"

namespace {

using qanet::Tile;

constexpr float kUnit = 16777216.0f;  // sums are in units of 2^-24
constexpr int kWays = 4;              // neighbours mostly share a class; their additions must not wait for one another
constexpr int kFlushPixels = 32767;   // the sum of so many stays below 2^40
constexpr int kFlushBlocks = 255;     // the sum of so many lanes stays below 2^32
constexpr int kMostRows = 100;        // image rows at once
constexpr float kSure = kMostRows;    // pixels a lane of a sure block: below 127, so that their sum stays below 2^31
constexpr int kFew = LANES == 16 ? 16 : 6;  // classes; for more the bins are faster

// Where few classes can win, whole vectors are added to their lanes. Elsewhere sum and count of a class share
// an integer: bits 40.. count pixels, the rest holds the sum; the last bin takes the pixels that are not certain.
struct Statistics {
    uint64_t bins[kWays][qanet::kMaxClasses + 1];
    int pixels;
    Ints sums[qanet::kMaxClasses], counts[qanet::kMaxClasses];
    int blocks[qanet::kMaxClasses];
};

QANET_INLINE void clear(Statistics& s) { __builtin_memset(&s, 0, sizeof s); }

QANET_INLINE void flush_class(const Tile& t, Statistics& s, int c) {
    for (int i = 0; i < LANES; ++i) t.sums[c] += uint32_t(s.sums[c][i]), t.counts[c] += uint32_t(s.counts[c][i]);
    s.sums[c] = s.counts[c] = all(0);
    s.blocks[c] = 0;
}

QANET_INLINE void flush_bins(const Tile& t, Statistics& s) {
    for (int way = 0; way < kWays; ++way)
        for (int c = 0; c <= qanet::kMaxClasses; ++c) {
            const uint64_t bin = s.bins[way][c];
            s.bins[way][c] = 0;
            if (c >= t.classes) continue;
            t.sums[c] += bin & ((uint64_t(1) << 40) - 1);
            t.counts[c] += bin >> 40;
        }
    s.pixels = 0;
}

QANET_INLINE void flush(const Tile& t, Statistics& s) {
    flush_bins(t, s);
    for (int c = 0; c < t.classes; ++c)
        if (s.blocks[c]) flush_class(t, s, c);
}

// How many image rows may be recorded before `make_room` is asked again.
QANET_INLINE int rows_at_once(const Tile& t) {
    const int most = kFlushPixels / t.width, sure = int(kSure / t.blocks.heaviest), least = most < sure ? most : sure;
    return least < 1 ? 1 : least;
}

// Before `count` image rows: room for their pixels in the bins.
QANET_INLINE void make_room(const Tile& t, Statistics& s, int count) {
    if (s.pixels + t.width * count > kFlushPixels) flush_bins(t, s);
    s.pixels += t.width * count;
}

// What a probability must reach to count, and to be shown.
struct Certainty {
    Floats certain_from, shown_from;

    QANET_INLINE_METHOD Certainty(const Tile& t)
        : certain_from(all(t.threshold)), shown_from(all(1.0f / float(t.classes))) {}
    QANET_INLINE_METHOD Ints units(Floats best, Where& certain) const {
        certain = where_at_least(best, certain_from);
        return __builtin_convertvector(fma(only(certain, best), all(kUnit), all(0.5f)), Ints);
    }
    QANET_INLINE_METHOD Ints label(Floats best, Ints winner) const {
        return only(where_at_least(best, shown_from), winner);
    }
};

// Room for `count` vectors in the lanes of a class.
QANET_INLINE void make_room(const Tile& t, Statistics& s, int c, int count) {
    if (s.blocks[c] + count > kFlushBlocks) flush_class(t, s, c);
    s.blocks[c] += count;
}

// What every probability must reach for a block to be sure: all counts, all is shown, whichever way it rounds.
QANET_INLINE float sure_from(const Tile& t) {
    const float shown_from = 1.0f / float(t.classes);
    return (t.threshold > shown_from ? t.threshold : shown_from) + 1e-5f;
}

// `rows` vectors of pixels of class `c`, all certain, whose probabilities add up to the lanes of `sum`.
QANET_INLINE void record_sure(const Tile& t, Statistics& s, int c, int rows, Floats sum) {
    const int weight = int(float(rows) * t.blocks.heaviest) + 1;
    make_room(t, s, c, weight > rows ? weight : rows);
    s.sums[c] += __builtin_convertvector(fma(sum, all(kUnit), all(0.5f)), Ints);
    s.counts[c] += all(int32_t(rows));
}

// A vector of pixels that few classes can win, each of which has room for it.
QANET_INLINE void record_few(Statistics& s, const Certainty& certainty, Floats best, Ints winner,
                             const uint8_t* classes, int count, uint8_t* labels) {
    Where certain;
    const Ints units = certainty.units(best, certain);
    store_bytes(labels, certainty.label(best, winner));
    for (int j = 0; j < count; ++j) {
        const int c = classes[j];
        const Where mine = where_equal(certain, winner, all(int32_t(c)));
        s.sums[c] = add_where(mine, s.sums[c], units);
        s.counts[c] = add_where(mine, s.counts[c], all(1));
    }
}

// `valid` pixels of a vector, each with its winner; writes the labels.
QANET_INLINE void record_many(Statistics& s, const Certainty& certainty, Floats best, Ints winner, int valid,
                              uint8_t* labels) {
    constexpr uint64_t kPixel = uint64_t(1) << 40;
    Where certain;
    const Ints units = certainty.units(best, certain), shown = certainty.label(best, winner);
    const Ints bins = select(certain, winner, all(int32_t(qanet::kMaxClasses)));
    if (valid == LANES) {
        store_bytes(labels, shown);
        if (all_equal(bins)) {  // inside a part, where most pixels are
            s.bins[0][bins[0]] += LANES * kPixel + uint64_t(sum_of(units));
            return;
        }
    }
    int32_t bin[LANES], amount[LANES], label[LANES];
    store(bin, bins), store(amount, units), store(label, shown);
    __asm__ volatile("" ::: "memory");  // scalar loads are cheaper than taking the vectors apart
    if (valid == LANES) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) s.bins[i % kWays][bin[i]] += kPixel + uint32_t(amount[i]);
    } else {
        for (int i = 0; i < valid; ++i) {
            labels[i] = uint8_t(label[i]);
            s.bins[i % kWays][bin[i]] += kPixel + uint32_t(amount[i]);
        }
    }
}

}  // namespace
