// What the entry point (tail.cpp) and the kernel built for each instruction set (tile.h) agree on.
#pragma once

#include <cstdint>

namespace qanet {

constexpr int kMaxClasses = 256;
constexpr int kUpsample = 4;  // the logits' stride
constexpr float kWhole = 0.99999f;  // two taps whose weights add up to more lie within the crop

// One augmented view's logits (N, C, h, w), of any strides; a mirrored view has a negative column stride.
struct View {
    const char* data;
    int64_t person_bytes, class_bytes, row_bytes, column_bytes;
    const int32_t* class_order;  // (C,): class c is read from channel class_order[c]
};

// Two-tap linear interpolation along an axis: value[i] = low_weight[i] * a[low[i]] + high_weight[i] * a[high[i]].
// `count` is a whole number of vectors; entries past the last real one repeat its taps with weights of zero.
// `windowed`: the taps of each vector's lanes lie within LANES neighbours, so that a load and a permute fetch them.
struct Taps {
    int count;
    const int* low;
    const int* high;
    const float* low_weight;
    const float* high_weight;
    bool windowed;
};

// What a vector of image columns, a block, comes from.
struct Blocks {
    const int* first;         // (blocks,) the first map column, from the tile's map_first
    const int* last;          // (blocks,) the last
    const float* weights;     // (blocks, LANES) what the block's image columns together give to the crop columns
                              // pixels.low[block * LANES] and following
    const uint32_t* weighed;  // (blocks,) which of those have a weight, bit by bit; 0 where they are not all of it
    float heaviest;           // of `weights`, at least 1
};

// A rectangle of one person's region: image rows y0..y1 and columns x0..x1, counted from the region's corner.
struct Tile {
    const View* views;  // (num_views,)
    int num_views, classes, map_h, map_w, person;
    bool half;                // logits are IEEE half precision
    int map_first, map_last;  // map columns that the tile reads, inclusive
    Taps columns;             // map column (from map_first) -> crop column that the tile needs
    Taps pixels;              // those crop columns -> image column
    Blocks blocks;
    Taps upsampled;           // map row -> crop row, for every crop row
    Taps rows;                // crop row -> image row; entry 0 is y0
    int height, width;        // image pixels
    float threshold;
    uint8_t* labels;  // (height, width) of the tile's corner
    int64_t label_stride;
    float* scratch;     // scratch_floats() floats, 64-byte aligned
    uint64_t* sums;     // (C,) out: sum of m in units of 2^-24 over the pixels with m >= threshold, by winning class
    uint64_t* counts;   // (C,) out: how many
};

}  // namespace qanet
