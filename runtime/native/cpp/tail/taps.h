// Where each row and column is sampled: the reference's two-tap tables (qanet.quality), in the layout of the kernel.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "tail/tail.h"

namespace qanet {

inline int round_up(int value, int step) { return (value + step - 1) / step * step; }

// Owns what a Taps points to.
struct TapsStore {
    std::vector<int> low, high;
    std::vector<float> low_weight, high_weight;
    bool windowed = false;

    void reserve(size_t count) {
        low.reserve(count), high.reserve(count);
        low_weight.reserve(count), high_weight.reserve(count);
    }
    void add(int low_index, int high_index, float weight_low, float weight_high) {
        low.push_back(low_index), high.push_back(high_index);
        low_weight.push_back(weight_low), high_weight.push_back(weight_high);
    }
    void repeat_last() { add(low.back(), high.back(), 0.0f, 0.0f); }
    void pad(int lanes) {
        while (low.size() % lanes) repeat_last();
    }
    // Whether each vector's lanes lie within as many neighbours.
    void check_windows(int lanes) {
        windowed = true;
        for (size_t at = 0; at < low.size(); at += lanes)
            for (const std::vector<int>* taps : {&low, &high})
                for (int lane = 0; lane < lanes; ++lane) {
                    const int offset = (*taps)[at + lane] - (*taps)[at];
                    windowed &= offset >= 0 && offset < lanes;
                }
    }
    Taps view(int from = 0) const {
        return {int(low.size()) - from, low.data() + from, high.data() + from,
                low_weight.data() + from, high_weight.data() + from, windowed};
    }
};

// Bilinear x4 with align_corners False: crop pixel `at` of an axis whose map has `size` pixels.
inline void add_upsample_tap(int at, int size, TapsStore& taps) {
    const double position = std::max((at + 0.5) / kUpsample - 0.5, 0.0);
    const int low = std::min(int(position), size - 1);
    const float fraction = float(position - low);
    taps.add(low, std::min(low + 1, size - 1), 1.0f - fraction, fraction);
}

inline void upsample_taps(int size, TapsStore& taps) {
    taps.reserve(size * kUpsample);
    for (int at = 0; at < size * kUpsample; ++at) add_upsample_tap(at, size, taps);
}

// Image pixels start..stop on a crop axis of `size` pixels laid over [origin, origin + extent); zero beyond it.
inline void paste_taps(int start, int stop, double origin, double extent, int size, TapsStore& taps) {
    const double scale = size / extent;
    taps.reserve(stop - start + 16);
    for (int at = start; at < stop; ++at) {
        const double position = (at + 0.5 - origin) * scale - 0.5;
        const double low = std::floor(position);
        const double fraction = position - low;
        const int index = int(std::min(std::max(low, -1.0), double(size - 1)));
        const bool low_inside = low >= 0 && low < size, high_inside = low + 1 >= 0 && low + 1 < size;
        taps.add(std::max(index, 0), std::min(index + 1, size - 1), low_inside ? float(1 - fraction) : 0.0f,
                 high_inside ? float(fraction) : 0.0f);
    }
}

// The column axis of one tile.
struct ColumnTaps {
    int first = 0, width = 0;          // image columns, from the region's left
    int map_first = 0, map_last = 0;   // map columns read, inclusive
    TapsStore columns, pixels;
    std::vector<int> cell_first, cell_last;  // of each block: the map columns it depends on
    std::vector<float> weights;              // as Blocks has them
    std::vector<uint32_t> weighed;

    void build(int lanes, int map_w) {
        width = int(pixels.low.size());
        pixels.pad(lanes);
        std::vector<int> needed;  // crop columns
        // Enlarged: neighbouring pixels share crop columns, so a run of them is computed once. Reduced: the taps lie
        // apart; only they are computed, all low taps and then all high taps, which puts them side by side.
        pixels.check_windows(lanes);
        if (pixels.windowed) {
            const int from = pixels.low.front();
            for (int at = from; at <= pixels.high.back(); ++at) needed.push_back(at);
            for (std::vector<int>* taps : {&pixels.low, &pixels.high})
                for (int& tap : *taps) tap -= from;
        } else {
            needed = pixels.low;
            needed.insert(needed.end(), pixels.high.begin(), pixels.high.end());
            const int count = int(pixels.low.size());
            for (int i = 0; i < count; ++i) pixels.low[i] = i, pixels.high[i] = count + i;
            pixels.windowed = true;
        }
        columns.reserve(needed.size() + lanes);
        for (const int at : needed) add_upsample_tap(at, map_w, columns);
        columns.pad(lanes);
        map_first = *std::min_element(columns.low.begin(), columns.low.end());
        map_last = *std::max_element(columns.high.begin(), columns.high.end());
        for (std::vector<int>* taps : {&columns.low, &columns.high})
            for (int& tap : *taps) tap -= map_first;
        columns.check_windows(lanes);
        find_cells(lanes);
        weigh(lanes);
    }

    void find_cells(int lanes) {
        for (size_t at = 0; at < pixels.low.size(); at += lanes) {
            int first = columns.low[pixels.low[at]], last = 0;
            for (size_t i = at; i < at + lanes; ++i)
                for (const int crop_column : {pixels.low[i], pixels.high[i]}) {
                    first = std::min(first, columns.low[crop_column]);
                    last = std::max(last, columns.high[crop_column]);
                }
            cell_first.push_back(first), cell_last.push_back(last);
        }
    }

    // A block counts as weighed if no lane is padding or partly beyond the crop, and one window holds all its taps.
    void weigh(int lanes) {
        weights.assign(pixels.low.size(), 0.0f);
        for (size_t at = 0; at < pixels.low.size(); at += lanes) {
            uint32_t bits = 0;
            bool whole = pixels.high[at + lanes - 1] - pixels.low[at] < lanes;
            for (size_t i = at; i < at + lanes && whole; ++i) {
                whole = pixels.low_weight[i] + pixels.high_weight[i] > kWhole;
                const int low = pixels.low[i] - pixels.low[at], high = pixels.high[i] - pixels.low[at];
                weights[at + low] += pixels.low_weight[i], weights[at + high] += pixels.high_weight[i];
                bits |= 1u << low | 1u << high;
            }
            weighed.push_back(whole ? bits : 0);
        }
    }

    Blocks blocks() const {
        const float heaviest = weights.empty() ? 1.0f : *std::max_element(weights.begin(), weights.end());
        return {cell_first.data(), cell_last.data(), weights.data(), weighed.data(), std::max(heaviest, 1.0f)};
    }
};

struct PersonTaps {
    TapsStore rows;
    std::vector<ColumnTaps> columns;

    // box: x0 y0 x1 y1 of the crop; region: the image pixels that it touches; part_width: columns of a tile.
    void build(const float* box, const int32_t* region, int map_h, int map_w, int part_width, int lanes) {
        const double left = box[0], top = box[1], right = box[2], bottom = box[3];
        paste_taps(region[1], region[3], top, bottom - top, map_h * kUpsample, rows);
        for (int start = region[0]; start < region[2]; start += part_width) {
            columns.emplace_back();
            ColumnTaps& part = columns.back();
            part.first = start - region[0];
            paste_taps(start, std::min(start + part_width, region[2]), left, right - left, map_w * kUpsample,
                       part.pixels);
            part.build(lanes, map_w);
        }
    }
};

}  // namespace qanet
