// What the entry point (crop.cpp) and the kernel built for each instruction set (band.h) agree on.
#pragma once

#include <cstdint>

namespace qanet {

constexpr int kChannels = 3;
constexpr int kRowPadding = 16;  // what may be read or written behind a row

// What each pixel of a crop is made of along one axis: pixel i of `count` image pixels, index[i * count] and following,
// with their weights. Where it takes fewer, the last ones weigh nothing.
struct AxisTaps {
    int count;
    const int* index;
    const float* weight;
};

// Some rows of one crop.
struct CropBand {
    const uint8_t* image;  // (H, W, 3), a row every `row_bytes`
    int64_t row_bytes;
    AxisTaps columns, rows;
    int first_column, last_column;  // image columns that `columns` reads, inclusive; last < first where there are none
    bool no_rows;                   // `rows` reads none
    int first_row, last_row;        // of the crop, the last one excluded
    int width;
    uint8_t* crop;  // (h, width, 3), contiguous
    float* sums;    // 3 (last_column - first_column + 1) + kRowPadding floats
    uint8_t* row;   // 3 width + kRowPadding bytes
};

}  // namespace qanet
