// A band of one crop, written once and built for each instruction set.
//
// A crop pixel is the mean of nx x ny bilinear samples: for an upright box, a weighted sum of rows and then of columns.
// One image row's worth of floats lies between the two and stays in the first-level cache.
#pragma once

#include "crop/crop.h"
#include "simd.h"

namespace {

using qanet::CropBand;
using qanet::kChannels;

typedef float Pixel __attribute__((vector_size(16)));

QANET_INLINE Pixel add_product(float weight, Pixel value, Pixel sum) {
#if LANES > 4
    return (Pixel)_mm_fmadd_ps(_mm_set1_ps(weight), (__m128)value, (__m128)sum);
#else
    return sum + weight * value;
#endif
}

// The three numbers rounded down, four bytes.
QANET_INLINE void store_pixel(uint8_t* to, Pixel value) {
#if LANES > 4
    const __m128i low_bytes = _mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    store(to, _mm_cvtsi128_si32(_mm_shuffle_epi8(_mm_cvttps_epi32((__m128)value), low_bytes)));
#elif defined(__x86_64__)
    const __m128i ints = _mm_cvttps_epi32((__m128)value), pairs = _mm_packs_epi32(ints, ints);
    store(to, _mm_cvtsi128_si32(_mm_packus_epi16(pairs, pairs)));
#else
    store_bytes(to, __builtin_convertvector(value, Ints));
#endif
}

// The weighted sum of the image rows that crop row `y` is made of, `values` numbers from the first column that is read.
QANET_INLINE void sum_rows(const CropBand& band, int y, int values, float* sums) {
    const int taps = band.rows.count;
    const int* index = band.rows.index + int64_t(taps) * y;
    const float* weight = band.rows.weight + int64_t(taps) * y;
    const uint8_t* corner = band.image + int64_t(kChannels) * band.first_column;
    const int64_t row_bytes = band.row_bytes;
    if (values < LANES) {
        for (int x = 0; x < values; ++x) {
            float sum = 0.0f;
            for (int tap = 0; tap < taps; ++tap) sum += weight[tap] * float(corner[row_bytes * index[tap] + x]);
            sums[x] = sum;
        }
        return;
    }
    for (int at = 0; at < values; at += LANES) {
        const int x = at + LANES <= values ? at : values - LANES;  // the last vector overlaps the one before
        Floats sum{};
        for (int tap = 0; tap < taps; ++tap)
            sum = fma(all(weight[tap]), floats_of_bytes(corner + row_bytes * index[tap] + x), sum);
        store(sums + x, sum);
    }
}

// A crop row from the sums: kTaps columns a pixel, or `taps` where kTaps is 0. Writes one byte more than the row has.
template <int kTaps>
QANET_INLINE void sum_columns(
    const float* sums, const int* index, const float* weight, int taps, int first, int width, uint8_t* out
) {
    const int step = kTaps ? kTaps : taps;
    const float* row = sums - int64_t(kChannels) * first;
    for (int x = 0; x < width; ++x, out += kChannels, index += step, weight += step) {
        Pixel sum = Pixel{} + 0.5f;
        for (int tap = 0; tap < step; ++tap)
            sum = add_product(weight[tap], load<Pixel>(row + kChannels * index[tap]), sum);
        store_pixel(out, sum);
    }
}

void crop_band(const CropBand& band) {
    const int columns = band.last_column - band.first_column + 1, values = kChannels * columns;
    const int row_bytes = kChannels * band.width, taps = band.columns.count;
    uint8_t* row = band.row;
    if (columns > 0)
        for (int i = 0; i < qanet::kRowPadding; ++i) band.sums[values + i] = 0.0f;
    for (int y = band.first_row; y < band.last_row; ++y) {
        uint8_t* out = band.crop + int64_t(row_bytes) * y;
        if (columns <= 0 || band.no_rows) {
            __builtin_memset(out, 0, row_bytes);
            continue;
        }
        sum_rows(band, y, values, band.sums);
        switch (taps) {
#define QANET_CASE(TAPS) \
    case TAPS: \
        sum_columns<TAPS>(band.sums, band.columns.index, band.columns.weight, taps, band.first_column, band.width, row); \
        break;
            QANET_CASE(2) QANET_CASE(3) QANET_CASE(4) QANET_CASE(5)
#undef QANET_CASE
            default:
                sum_columns<0>(
                    band.sums, band.columns.index, band.columns.weight, taps, band.first_column, band.width, row
                );
        }
        __builtin_memcpy(out, row, row_bytes);
    }
}

}  // namespace
