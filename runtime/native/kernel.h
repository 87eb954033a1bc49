// The pixel score of one tile, written once and built for each instruction set (LANES floats a vector).
//
// Everything flows through row buffers that stay in the cache; no map of the image exists at any time:
//   map row    U[view][2]  logits of a map row, spread over the crop columns that the tile needs  (blocks, C, LANES)
//   crop rows  E[view][4]  e^(logit - max) of the crop rows between two map rows, `scale` beside them     (C, columns)
//   wide row   X[2]        probabilities of a crop row at the image's columns, of candidates only (blocks, C, LANES)
//   image row              lerp of two wide rows, maximum and its class, in registers
// Rows are interpolated after columns, the reference does it the other way round: the same to rounding.
#pragma once

#include "candidates.h"
#include "finite.h"
#include "rows.h"
#include "simd.h"
#include "softmax.h"
#include "statistics.h"
#include "tail.h"

namespace {

// The buffers of one tile, and which row each holds.
struct Rows {
    int crop_stride, line_stride;  // floats
    float* spread[2][2];           // view, parity of the map row
    float* greatest[2][2];         // (columns,) over the classes of each
    int spread_row[2][2];
    float* crop[2][kGroup];  // view, crop row of the group
    float* scale[2][kGroup];
    int group[2];    // of each view: crop rows 4 group - 2 .. 4 group + 1 lie between map rows group - 1 and group
    float* wide[2];  // parity of the crop row
    int wide_row[2];
    float* lines;   // (C, line_stride) a map row's own columns
    float* column;  // (C, LANES)
    Candidates candidates;
};

// Lays the buffers out in `memory`, 64-byte aligned; returns how many floats they take.
QANET_INLINE int64_t lay_out(const Tile& t, float* memory, Rows& rows) {
    int64_t used = 0;
    const auto take = [&](int64_t floats) {
        float* taken = memory + used;
        used += (floats + 15) / 16 * 16;
        return taken;
    };
    const int64_t classes = t.classes;
    const int cells = padded_cells(t);
    rows.crop_stride = t.columns.count + LANES;  // a window that starts at the last column reads past it
    rows.line_stride = cells + LANES + t.cells.window;
    for (int view = 0; view < t.num_views; ++view) {
        for (float*& row : rows.spread[view]) row = take(t.columns.count * classes);
        for (float*& row : rows.greatest[view]) row = take(t.columns.count);
        for (float*& row : rows.crop[view]) row = take(rows.crop_stride * classes);
        for (float*& row : rows.scale[view]) row = take(rows.crop_stride);
    }
    for (float*& row : rows.wide) row = take(t.pixels.count * classes);
    rows.lines = take(rows.line_stride * classes);
    rows.column = take(LANES * classes);
    Candidates& k = rows.candidates;
    // With two views a class would have to stay behind in both; and where rows are skipped there is little to save.
    k.pruned = t.cells.window > 0 && t.num_views == 1 && t.rows.high[t.height - 1] - t.rows.low[0] <= 2 * t.height;
    k.classes = t.classes, k.cells = k.pruned ? cells : LANES, k.stride = cells;
    if (k.pruned) {
        for (float*& row : k.high) row = take(k.stride * classes);
        for (float*& row : k.low) row = take(k.stride * classes);
    }
    for (int slot = 0; slot < 2; ++slot) {
        k.list[slot] = reinterpret_cast<uint8_t*>(take((k.cells * classes + 3) / 4));
        k.count[slot] = reinterpret_cast<uint16_t*>(take((k.cells + 1) / 2));
    }
    k.wanted = reinterpret_cast<uint32_t*>(take(k.cells / LANES));
    return used;
}

QANET_INLINE void start(const Tile& t, Rows& rows) {
    for (int slot = 0; slot < 2; ++slot) {
        rows.spread_row[0][slot] = rows.spread_row[1][slot] = rows.wide_row[slot] = rows.group[slot] = -1;
        rows.candidates.group[slot] = -1;
    }
    Candidates& k = rows.candidates;
    for (int& row : k.row) row = -1;
    if (!k.pruned) {
        for (int c = 0; c < t.classes; ++c) k.list[0][c] = uint8_t(c);
        k.count[0][0] = uint16_t(t.classes);
        return;
    }
    for (int at = 0; at < k.cells / LANES; ++at) k.wanted[at] = 0;
    for (int block = 0; block < t.pixels.count / LANES; ++block)
        k.wanted[t.cells.first[block] / LANES] |= 1u << t.cells.first[block] % LANES;
}

// A map row's logits: U, the greatest of each column, and, for the candidates, the extremes of its windows.
QANET_INLINE void spread_map_row(const Tile& t, Rows& rows, int v, int y) {
    Candidates& k = rows.candidates;
    const int parity = y & 1, ring = y % kRing;
    if (rows.spread_row[v][parity] == y && (!k.pruned || k.row[ring] == y)) return;
    const qanet::View& view = t.views[v];
    const Taps taps = t.columns;
    const int classes = t.classes, count = t.map_last - t.map_first + 1;
    const char* row = view.data + t.person * view.person_bytes + y * view.row_bytes + t.map_first * view.column_bytes;
    for (int c = 0; c < classes; ++c) {
        const char* from = row + view.class_order[c] * view.class_bytes;
        float* line = rows.lines + int64_t(c) * rows.line_stride;
        if (t.half) read_row<uint16_t>(from, view.column_bytes, count, line);
        else read_row<float>(from, view.column_bytes, count, line);
        for (int i = count; i < rows.line_stride; ++i) line[i] = line[count - 1];
    }
    if (k.pruned) {
        find_extremes(t, k, ring, rows.lines, rows.line_stride);
        k.row[ring] = y;
    }
    float* out = rows.spread[v][parity];
    for (int at = 0; at < taps.count; at += LANES) {
        const Floats low_weight = load<Floats>(taps.low_weight + at), high_weight = load<Floats>(taps.high_weight + at);
        float* to = out + int64_t(at) * classes;
        Floats greatest = all(-3.402823466e38f);
        each_row(fetch_of(taps, at), rows.lines, rows.line_stride, classes, [&](int c, Floats low, Floats high) {
            const Floats logit = fma(high, high_weight, low * low_weight);
            store(to + c * LANES, logit);
            greatest = greater_of(logit, greatest);
        });
        store(rows.greatest[v][parity] + at, greatest);
    }
    rows.spread_row[v][parity] = y;
}

QANET_INLINE int clamped(int row, int size) { return row < 0 ? 0 : row >= size ? size - 1 : row; }

// E and scale of the four crop rows of a group.
QANET_INLINE void crop_rows(const Tile& t, Rows& rows, int v, int group) {
    if (rows.group[v] == group) return;
    const int above = clamped(group - 1, t.map_h), below = clamped(group, t.map_h);
    spread_map_row(t, rows, v, above);
    spread_map_row(t, rows, v, below);
    const float share = 1.0f / float(t.num_views);
    for (int at = 0; at < t.columns.count; at += LANES) {
        const Floats greatest = greater_of(load<Floats>(rows.greatest[v][above & 1] + at),
                                           load<Floats>(rows.greatest[v][below & 1] + at));
        const int64_t block = int64_t(at) * t.classes;
        softmax_block(rows.spread[v][above & 1] + block, rows.spread[v][below & 1] + block, greatest, t.classes,
                      rows.crop_stride, rows.column, share, rows.crop[v], rows.scale[v], at);
    }
    rows.group[v] = group;
}

// The candidates of image rows whose upper crop row lies in a group.
QANET_INLINE void candidates_of(const Tile& t, Rows& rows, int group) {
    Candidates& k = rows.candidates;
    if (!k.pruned || k.group[group & 1] == group) return;
    int slots[3];
    for (int i = 0; i < 3; ++i) {
        const int row = clamped(group - 1 + i, t.map_h);
        slots[i] = row % kRing;
        if (k.row[slots[i]] != row) spread_map_row(t, rows, 0, row);
    }
    find_candidates(k, group, slots);
}

struct List {
    const uint8_t* classes;
    int count;
};

QANET_INLINE List list_of(const Tile& t, const Candidates& k, int group, int block) {
    if (!k.pruned) return {k.list[0], k.count[0][0]};
    const int cell = t.cells.first[block];
    return {k.list[group & 1] + int64_t(cell) * k.classes, k.count[group & 1][cell]};
}

// Candidates' probabilities of a crop row at the image's columns, X; further views are added to the first. Blocks whose
// only candidate is that of the group `done` have it already, where that is another group.
QANET_INLINE void widen(const Tile& t, const Rows& rows, int v, int crop_row, int group, int done, float* out) {
    const Taps taps = t.pixels;
    const int64_t stride = rows.crop_stride;
    const float* crop = rows.crop[v][(crop_row + 2) % kGroup];
    const float* scale = rows.scale[v][(crop_row + 2) % kGroup];
    for (int at = 0; at < taps.count; at += LANES) {
        const List list = list_of(t, rows.candidates, group, at / LANES);
        if (group != done && list.count == 1) {
            const List other = list_of(t, rows.candidates, done, at / LANES);
            if (other.count == 1 && other.classes[0] == list.classes[0]) continue;
        }
        const Fetch f = fetch_of(taps, at);
        Floats low_weight = load<Floats>(taps.low_weight + at), high_weight = load<Floats>(taps.high_weight + at);
        each_row(f, scale, 0, 1, [&](int, Floats low, Floats high) { low_weight *= low, high_weight *= high; });
        float* to = out + int64_t(at) * t.classes;
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

// X of a crop row. The first row of a group is also the lower one of image rows whose candidates are the group's above.
QANET_INLINE void wide_row(const Tile& t, Rows& rows, int crop_row) {
    if (rows.wide_row[crop_row & 1] == crop_row) return;
    const int group = (crop_row + 2) / kGroup;
    float* out = rows.wide[crop_row & 1];
    for (int v = 0; v < t.num_views; ++v) {
        crop_rows(t, rows, v, group);
        candidates_of(t, rows, group);
        widen(t, rows, v, crop_row, group, group, out);
        const Candidates& k = rows.candidates;
        if (k.pruned && (crop_row + 2) % kGroup == 0 && k.group[(group - 1) & 1] == group - 1)
            widen(t, rows, v, crop_row, group - 1, group, out);
    }
    rows.wide_row[crop_row & 1] = crop_row;
}

// Labels and statistics of image rows that lie between the same two crop rows, from those rows' wide rows.
QANET_INLINE void image_rows(const Tile& t, const Rows& rows, int first, int count, Statistics& s) {
    const int crop_row = t.rows.low[first], group = (crop_row + 2) / kGroup, classes = t.classes, width = t.width;
    const float* above = rows.wide[crop_row & 1];
    const float* below = rows.wide[t.rows.high[first] & 1];
    const float* low_weight = t.rows.low_weight + first;
    const float* high_weight = t.rows.high_weight + first;
    const Certainty certainty(t);
    const int64_t stride = t.label_stride;
    uint8_t* labels = t.labels + first * stride;
    for (int at = 0; at < width; at += LANES, labels += LANES) {
        const float* x0 = above + int64_t(at) * classes;
        const float* x1 = below + int64_t(at) * classes;
        const List list = list_of(t, rows.candidates, group, at / LANES);
        const int valid = width - at < LANES ? width - at : LANES;
        if (list.count == 1 && valid == LANES && t.threshold > 0) {
            const int c = list.classes[0];
            const Floats p0 = load<Floats>(x0 + c * LANES), p1 = load<Floats>(x1 + c * LANES);
            record_one(t, s, c, count, [&](int i, Ints& certain) {
                const Floats best = fma(p1, all(high_weight[i]), p0 * all(low_weight[i]));
                store_bytes(labels + i * stride, certainty.label(best, all(int32_t(c))));
                return certainty.units(best, certain);
            });
            continue;
        }
        const bool few = list.count <= kFew && valid == LANES && t.threshold > 0;
        if (few)
            for (int j = 0; j < list.count; ++j) make_room(t, s, list.classes[j], count);
        for (int i = 0; i < count; ++i) {
            const Floats wa = all(low_weight[i]), wb = all(high_weight[i]);
            // Beyond the crop every class has nothing, and the first of equals is class 0.
            Floats best = all(0.0f);
            Ints winner = all(0);
            for (int j = 0; j < list.count; ++j) {
                const int c = list.classes[j];
                const Floats value = fma(load<Floats>(x1 + c * LANES), wb, load<Floats>(x0 + c * LANES) * wa);
                winner = pick_greater(value, best, all(int32_t(c)), winner);
                best = greater_of(value, best);
            }
            if (few) record_few(s, certainty, best, winner, list.classes, list.count, labels + i * stride);
            else record_many(s, certainty, best, winner, valid, labels + i * stride);
        }
    }
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
    for (int y = 0, count; y < t.height; y += count) {
        count = 1;
        const int most = rows_at_once(t);
        while (count < most && y + count < t.height && t.rows.low[y + count] == t.rows.low[y] &&
               t.rows.high[y + count] == t.rows.high[y])
            ++count;
        wide_row(t, rows, t.rows.low[y]);
        wide_row(t, rows, t.rows.high[y]);
        candidates_of(t, rows, (t.rows.low[y] + 2) / kGroup);
        make_room(t, statistics, count);
        image_rows(t, rows, y, count, statistics);
    }
    flush(t, statistics);
}

void exp_row(const float* x, float* out, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES) store(out + i, exp_of_negative(load<Floats>(x + i)));
}

}  // namespace
