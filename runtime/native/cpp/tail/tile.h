// The pixel score of one tile, written once and built for each instruction set (LANES floats a vector).
//
// Everything flows through row buffers that stay in the cache; no map of the image exists at any time:
//   map row    U[view][2]     logits of a map row, spread over the crop columns that the tile needs (blocks, C, LANES)
//   crop rows  E[view][2][4]  numerators of the softmax between two map rows, `scale` beside them   (C, columns)
//   block      X[5]           probabilities of those and the next crop row at LANES image columns, of candidates only
//   image row                 lerp of two rows of X, maximum and its class, in registers
// Rows are interpolated after columns, the reference does it the other way round: the same to rounding. Where one class
// is certain to win a block, its labels are known and the sum of its probabilities is a weighted sum of the crop's.
#pragma once

#include "tail/candidates.h"
#include "tail/finite.h"
#include "tail/rows.h"
#include "simd.h"
#include "tail/softmax.h"
#include "tail/statistics.h"
#include "tail/tail.h"

namespace {

// The buffers of one tile, and which row each holds.
struct Rows {
    int crop_stride, line_stride;  // floats
    float* spread[2][2];           // view, parity of the map row
    int spread_row[2][2];
    float* crop[2][2][kGroup];  // view, parity of the group, crop row of the group
    float* scale[2][2][kGroup];
    int group[2][2];  // of each: crop rows 4 group - 2 .. 4 group + 1 lie between map rows group - 1 and group
    float* block[kGroup + 1];  // (C, LANES)
    float* lines;              // (C, line_stride) a map row's own columns
    int32_t* top;              // (line_stride,) the class that is greatest
    float* column;             // (C, LANES)
    Candidates candidates;
};

// Image rows whose upper crop row lies in the same group. A crop row is counted from the group's first; 4 is the next
// group's first.
struct Batch {
    int first, count, group;
    bool whole;                 // all rows lie within the crop
    bool across;                // some lie between crop rows 3 and 4
    uint32_t used;              // which crop rows, bit by bit
    float weight[kGroup + 1];   // what the image rows together give to each
    // Of each image row: its two crop rows, the one with the greater weight first; that weight, and the other's ratio
    // to it. Classes compare without the weight.
    uint8_t major[kMostRows], minor[kMostRows];
    float most[kMostRows], ratio[kMostRows];
};

QANET_INLINE int group_of(int crop_row) { return (crop_row + 2) / kGroup; }

// Lays the buffers out in `memory`, 64-byte aligned; returns how many floats they take.
QANET_INLINE int64_t lay_out(const Tile& t, float* memory, Rows& rows) {
    int64_t used = 0;
    const auto take = [&](int64_t floats) {
        float* taken = memory + used;
        used += (floats + 15) / 16 * 16;
        return taken;
    };
    const int64_t classes = t.classes;
    const int cells = (t.map_last - t.map_first + LANES) / LANES * LANES;
    rows.crop_stride = t.columns.count + LANES;  // a window that starts at the last column reads past it
    rows.line_stride = cells + LANES;
    for (int view = 0; view < t.num_views; ++view) {
        for (float*& row : rows.spread[view]) row = take(t.columns.count * classes);
        for (int parity = 0; parity < 2; ++parity) {
            for (float*& row : rows.crop[view][parity]) row = take(rows.crop_stride * classes);
            for (float*& row : rows.scale[view][parity]) row = take(rows.crop_stride);
        }
    }
    for (float*& row : rows.block) row = take(LANES * classes);
    rows.column = take(LANES * classes);
    Candidates& k = rows.candidates;
    k.classes = t.classes, k.padded = (t.classes + LANES - 1) / LANES * LANES, k.blocks = t.pixels.count / LANES;
    rows.lines = take(int64_t(rows.line_stride) * k.padded);
    rows.top = reinterpret_cast<int32_t*>(take(rows.line_stride));
    // With two views a class would have to stay behind in both; and where rows are skipped there is little to save.
    k.pruned = t.num_views == 1 && t.classes <= kMaxPruned && k.blocks > 0 &&
               t.rows.high[t.height - 1] - t.rows.low[0] <= 2 * t.height;
    for (int block = 0; block < k.blocks; ++block)
        k.pruned = k.pruned && t.blocks.last[block] - t.blocks.first[block] < kMaxCells;
    if (!k.pruned) return used;
    const auto take_masks = [&] { return reinterpret_cast<Mask*>(take(2 * k.blocks)); };
    for (float*& row : k.cells) row = take(int64_t(cells) * k.padded);
    for (Mask*& row : k.tops) row = take_masks();
    k.inside = take_masks(), k.across = take_masks();
    return used;
}

QANET_INLINE void start(const Tile& t, Rows& rows) {
    for (int slot = 0; slot < 2; ++slot)
        for (int view = 0; view < 2; ++view) rows.spread_row[view][slot] = rows.group[view][slot] = -1;
    Candidates& k = rows.candidates;
    for (int& row : k.row) row = -1;
    k.group = -1, k.with_across = false;
    for (int64_t i = 0; i < int64_t(k.padded) * rows.line_stride; ++i) rows.lines[i] = 0.0f;
    // What lies past the last column is read with weights of zero, and so has to be a number.
    for (int view = 0; view < t.num_views; ++view)
        for (int parity = 0; parity < 2; ++parity)
            for (int row = 0; row < kGroup; ++row) {
                store(rows.scale[view][parity][row] + t.columns.count, all(0.0f));
                for (int c = 0; c < t.classes; ++c)
                    store(rows.crop[view][parity][row] + (c + 1) * int64_t(rows.crop_stride) - LANES, all(0.0f));
            }
}

// The lines of a map row as softmax.h wants them, and the greatest class of each column.
QANET_INLINE void relate(Rows& rows, int classes, int count) {
    const int64_t stride = rows.line_stride;
    for (int at = 0; at < count; at += LANES) {
        float* line = rows.lines + at;
        Floats greatest = load<Floats>(line);
        Ints winner = all(0);
        for (int c = 1; c < classes; ++c) {
            const Floats logit = load<Floats>(line + c * stride);
            winner = pick_greater(logit, greatest, all(int32_t(c)), winner);
            greatest = greater_of(logit, greatest);
        }
        store(rows.top + at, winner);
        for (int c = 0; c < classes; ++c)  // however far below, it stays finite
            store(line + c * stride,
                  greater_of((load<Floats>(line + c * stride) - greatest) * all(kLog2E), all(-3e38f)));
    }
}

// A map row's logits: U, and what the candidates need of it.
QANET_INLINE void spread_map_row(const Tile& t, Rows& rows, int v, int y) {
    Candidates& k = rows.candidates;
    const int parity = y & 1, slot = y % kRing;
    if (rows.spread_row[v][parity] == y && (!k.pruned || k.row[slot] == y)) return;
    const qanet::View& view = t.views[v];
    const Taps taps = t.columns;
    const int classes = t.classes, count = t.map_last - t.map_first + 1;
    const char* row = view.data + t.person * view.person_bytes + y * view.row_bytes + t.map_first * view.column_bytes;
    for (int c = 0; c < classes; ++c) {
        const char* from = row + view.class_order[c] * view.class_bytes;
        float* line = rows.lines + int64_t(c) * rows.line_stride;
        if (t.half) read_row<uint16_t>(from, view.column_bytes, count, line);
        else read_row<float>(from, view.column_bytes, count, line);
    }
    relate(rows, classes, count);
    if (k.pruned) {
        enter_row(t, k, slot, rows.lines, rows.line_stride, count, rows.top);
        k.row[slot] = y;
    }
    float* out = rows.spread[v][parity];
    for (int at = 0; at < taps.count; at += LANES) {
        const Floats low_weight = load<Floats>(taps.low_weight + at), high_weight = load<Floats>(taps.high_weight + at);
        float* to = out + int64_t(at) * classes;
        each_row(fetch_of(taps, at), rows.lines, rows.line_stride, classes, [&](int c, Floats low, Floats high) {
            store(to + c * LANES, fma(high, high_weight, low * low_weight));
        });
    }
    rows.spread_row[v][parity] = y;
}

QANET_INLINE int clamped(int row, int size) { return row < 0 ? 0 : row >= size ? size - 1 : row; }

// E and scale of the four crop rows of a group.
QANET_INLINE void crop_rows(const Tile& t, Rows& rows, int v, int group) {
    const int slot = group & 1;
    if (rows.group[v][slot] == group) return;
    const int above = clamped(group - 1, t.map_h), below = clamped(group, t.map_h);
    spread_map_row(t, rows, v, above);
    spread_map_row(t, rows, v, below);
    const float share = 1.0f / float(t.num_views);
    for (int at = 0; at < t.columns.count; at += LANES) {
        const int64_t block = int64_t(at) * t.classes;
        softmax_block(rows.spread[v][above & 1] + block, rows.spread[v][below & 1] + block, t.classes,
                      rows.crop_stride, rows.column, share, rows.crop[v][slot], rows.scale[v][slot], at);
    }
    rows.group[v][slot] = group;
}

// The candidates of a batch's blocks.
QANET_INLINE void find_masks(const Tile& t, Rows& rows, const Batch& batch) {
    Candidates& k = rows.candidates;
    if (!k.pruned || (k.group == batch.group && k.with_across >= batch.across)) return;
    int slots[3];
    for (int i = 0; i < 3; ++i) {
        const int row = clamped(batch.group - 1 + i, t.map_h);
        slots[i] = row % kRing;
        if (k.row[slots[i]] != row && (i < 2 || batch.across)) spread_map_row(t, rows, 0, row);
    }
    find_candidates(t, k, batch.group, slots, batch.across);
}

// Classes, ascending.
struct List {
    uint8_t classes[qanet::kMaxClasses];
    int count;

    QANET_INLINE_METHOD void set(Mask mask) {
        for (count = 0; mask; mask &= mask - 1) classes[count++] = uint8_t(__builtin_ctzll(mask));
    }
    QANET_INLINE_METHOD void set_all(int size) {
        for (count = 0; count < size; ++count) classes[count] = uint8_t(count);
    }
};

QANET_INLINE const float* crop_row(float* const (&of)[2][kGroup], int group, int row) {
    return of[(group + row / kGroup) & 1][row % kGroup];
}

// Candidates' probabilities of one crop row at a block's columns, X; further views are added to the first.
QANET_INLINE void widen(const Tile& t, const Rows& rows, const Fetch& f, int at, int group, int row, const List& list) {
    const int64_t stride = rows.crop_stride;
    float* to = rows.block[row];
    for (int v = 0; v < t.num_views; ++v) {
        const float* crop = crop_row(rows.crop[v], group, row);
        Floats low_weight = load<Floats>(t.pixels.low_weight + at);
        Floats high_weight = load<Floats>(t.pixels.high_weight + at);
        each_row(f, crop_row(rows.scale[v], group, row), 0, 1,
                 [&](int, Floats low, Floats high) { low_weight *= low, high_weight *= high; });
        if (v == 0)
            each_listed(f, crop, stride, list.classes, list.count, [&](int c, Floats low, Floats high) {
                store(to + c * LANES, fma(high, high_weight, low * low_weight));
            });
        else
            each_listed(f, crop, stride, list.classes, list.count, [&](int c, Floats low, Floats high) {
                const Floats sum = fma(low, low_weight, load<Floats>(to + c * LANES));
                store(to + c * LANES, fma(high, high_weight, sum));
            });
    }
}

// A block whose only candidate is certain everywhere: labels without a look, and a sum at crop resolution. Returns
// false, having done nothing, where it is not.
QANET_INLINE bool sure_block(const Tile& t, const Rows& rows, const Batch& batch, int block, int c, Statistics& s) {
    const uint32_t weighed = t.blocks.weighed[block];
    const int64_t from = t.pixels.low[block * LANES], stride = rows.crop_stride;
    Floats sum = all(0.0f), least = all(1.0f);
    for (uint32_t bits = batch.used; bits; bits &= bits - 1) {
        const int row = __builtin_ctz(bits);
        const Floats probability = load<Floats>(crop_row(rows.crop[0], batch.group, row) + c * stride + from) *
                                   load<Floats>(crop_row(rows.scale[0], batch.group, row) + from);
        least = lesser_of(probability, least);
        sum = fma(probability, all(batch.weight[row]), sum);
    }
    if (~at_least(least, all(sure_from(t))) & weighed) return false;
    record_sure(t, s, c, batch.count, sum * load<Floats>(t.blocks.weights + block * LANES));
    uint8_t* labels = t.labels + batch.first * t.label_stride + block * LANES;
    for (int i = 0; i < batch.count; ++i, labels += t.label_stride) __builtin_memset(labels, c, LANES);
    return true;
}

// Labels and statistics of a block, from its X.
QANET_INLINE void block_rows(const Tile& t, const Rows& rows, const Batch& batch, int block, const List& inside,
                             const List& across, Statistics& s) {
    const Certainty certainty(t);
    const int at = block * LANES, valid = t.width - at < LANES ? t.width - at : LANES;
    const bool lanes = valid == LANES && t.threshold > 0, few = lanes && inside.count <= kFew && across.count <= kFew;
    if (few) {
        for (int j = 0; j < inside.count; ++j) make_room(t, s, inside.classes[j], batch.count);
        for (int j = 0; j < across.count; ++j) make_room(t, s, across.classes[j], batch.count);
    }
    uint8_t* labels = t.labels + batch.first * t.label_stride + at;
    for (int i = 0; i < batch.count; ++i, labels += t.label_stride) {
        const float* x0 = rows.block[batch.major[i]];
        const float* x1 = rows.block[batch.minor[i]];
        const List& list = batch.major[i] == kGroup || batch.minor[i] == kGroup ? across : inside;
        const float weight = batch.most[i];
        const Floats ratio = all(batch.ratio[i]);
        // Beyond the crop every class has nothing, and the first of equals is class 0.
        Floats best = all(0.0f);
        Ints winner = all(0);
        for (int j = 0; j < list.count && weight > 0; ++j) {
            const int c = list.classes[j];
            const Floats value = fma(load<Floats>(x1 + c * LANES), ratio, load<Floats>(x0 + c * LANES));
            winner = pick_greater(value, best, all(int32_t(c)), winner);
            best = greater_of(value, best);
        }
        best *= all(weight);
        if (few) record_few(s, certainty, best, winner, list.classes, list.count, labels);
        else record_many(s, certainty, best, winner, valid, labels);
    }
}

QANET_INLINE void image_rows(const Tile& t, Rows& rows, const Batch& batch, Statistics& s) {
    const Candidates& k = rows.candidates;
    List inside, across, both;
    if (!k.pruned) inside.set_all(t.classes), across.set_all(t.classes), both.set_all(t.classes);
    for (int block = 0; block < k.blocks; ++block) {
        if (k.pruned) {
            const Mask here = k.inside[block], there = batch.across ? k.across[block] : 0, any = here | there;
            if (!(any & (any - 1)) && batch.whole && t.blocks.weighed[block] &&
                sure_block(t, rows, batch, block, __builtin_ctzll(any), s))
                continue;
            inside.set(here), across.set(there), both.set(any);
        }
        const Fetch f = fetch_of(t.pixels, block * LANES);
        for (uint32_t bits = batch.used; bits; bits &= bits - 1) {
            const int row = __builtin_ctz(bits);
            const List& list = row == kGroup ? across : row == kGroup - 1 ? both : inside;
            widen(t, rows, f, block * LANES, batch.group, row, list);
        }
        block_rows(t, rows, batch, block, inside, across, s);
    }
}

// The batch that starts at an image row; it has `most` rows at most.
QANET_INLINE Batch batch_at(const Tile& t, int first, int most) {
    const auto whole = [&](int i) { return t.rows.low_weight[i] + t.rows.high_weight[i] > qanet::kWhole; };
    Batch batch;
    batch.count = 0, batch.across = false, batch.used = 0;
    for (float& weight : batch.weight) weight = 0.0f;
    batch.first = first, batch.group = group_of(t.rows.low[first]), batch.whole = whole(first);
    const int base = batch.group * kGroup - 2;
    for (int i = first; i < t.height && batch.count < most; ++i, ++batch.count) {
        if (group_of(t.rows.low[i]) != batch.group || whole(i) != batch.whole) break;
        const int low = t.rows.low[i] - base, high = t.rows.high[i] - base;
        batch.used |= 1u << low | 1u << high;
        batch.weight[low] += t.rows.low_weight[i], batch.weight[high] += t.rows.high_weight[i];
        batch.across |= high == kGroup;
        const float a = t.rows.low_weight[i], b = t.rows.high_weight[i];
        batch.major[batch.count] = uint8_t(a < b ? high : low), batch.minor[batch.count] = uint8_t(a < b ? low : high);
        batch.most[batch.count] = a < b ? b : a;
        batch.ratio[batch.count] = a < b ? a / b : a > 0 ? b / a : 0.0f;
    }
    return batch;
}

int64_t scratch_floats(const Tile& t) {
    Rows rows;
    return lay_out(t, nullptr, rows);
}

void run(const Tile& t) {
    Rows rows;
    lay_out(t, t.scratch, rows);
    start(t, rows);
    Statistics statistics;
    clear(statistics);
    const int most = rows_at_once(t);
    for (int y = 0; y < t.height;) {
        const Batch batch = batch_at(t, y, most);
        for (int v = 0; v < t.num_views; ++v) {
            crop_rows(t, rows, v, batch.group);
            if (batch.across) crop_rows(t, rows, v, batch.group + 1);
        }
        find_masks(t, rows, batch);
        make_room(t, statistics, batch.count);
        image_rows(t, rows, batch, statistics);
        y += batch.count;
    }
    flush(t, statistics);
}

void exp_row(const float* x, float* out, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) store(out + i, exp_of_negative(load<Floats>(x + i)));
}

}  // namespace
