// How rows are read: logits of either precision and any stride, and the two taps of each lane of a vector.
#pragma once

#include "simd.h"
#include "tail/tail.h"

namespace {

using qanet::Taps;

// IEEE half to float: shift into place, and scale the exponent's bias away, which puts subnormals right as well.
QANET_INLINE float half_to_float(uint16_t h) {
    const uint32_t magnitude = uint32_t(h & 0x7fff) << 13;
    float value;
    __builtin_memcpy(&value, &magnitude, 4);
    value *= 5.192296858534828e33f;  // 2^112
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    bits = (magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : bits) | uint32_t(h & 0x8000) << 16;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}

QANET_INLINE float number(float stored) { return stored; }
QANET_INLINE float number(uint16_t stored) { return half_to_float(stored); }

template <typename Stored>
QANET_INLINE void read_row(const char* from, int64_t step_bytes, int count, float* out) {
    if (step_bytes == int64_t(sizeof(Stored))) {
        for (int i = 0; i < count; ++i) {
            Stored value;
            __builtin_memcpy(&value, from + i * sizeof(Stored), sizeof value);
            out[i] = number(value);
        }
        return;
    }
    for (int i = 0; i < count; ++i, from += step_bytes) {
        Stored value;
        __builtin_memcpy(&value, from, sizeof value);
        out[i] = number(value);
    }
}

// One vector of taps, ready to fetch from a row: one window where the lanes of both taps fit in it, else two, else
// (a map reduced more than LANES-fold) lane by lane.
struct Fetch {
    enum { kOneWindow, kTwoWindows, kAnywhere } kind;
    int low_base, high_base;
    Ints low, high;  // lanes of the windows; positions in the row for kAnywhere
};

QANET_INLINE Fetch fetch_of(const Taps& taps, int at) {
    Fetch f;
    f.low_base = taps.windowed ? taps.low[at] : 0;
    f.high_base = taps.windowed ? taps.high[at] : 0;
    f.kind = taps.windowed ? Fetch::kTwoWindows : Fetch::kAnywhere;
    if (taps.windowed && taps.high[at + LANES - 1] - f.low_base < LANES)
        f.kind = Fetch::kOneWindow, f.high_base = f.low_base;
    f.low = load<Ints>(taps.low + at) - all(f.low_base);
    f.high = load<Ints>(taps.high + at) - all(f.high_base);
    return f;
}

QANET_INLINE Floats gather(const float* row, Ints positions) {
    Floats value;
    for (int i = 0; i < LANES; ++i) value[i] = row[positions[i]];
    return value;
}

// use(c, low taps, high taps) for each of `count` rows that lie `stride` floats apart.
template <typename Use>
QANET_INLINE void each_row(const Fetch& f, const float* rows, int64_t stride, int count, Use use) {
    const float* low = rows + f.low_base;
    const float* high = rows + f.high_base;
    if (f.kind == Fetch::kOneWindow)
        for (int c = 0; c < count; ++c, low += stride) {
            const Floats window = load<Floats>(low);
            use(c, permute(window, f.low), permute(window, f.high));
        }
    else if (f.kind == Fetch::kTwoWindows)
        for (int c = 0; c < count; ++c, low += stride, high += stride)
            use(c, permute(load<Floats>(low), f.low), permute(load<Floats>(high), f.high));
    else
        for (int c = 0; c < count; ++c, low += stride) use(c, gather(low, f.low), gather(low, f.high));
}

// The same for the rows named in a list.
template <typename Use>
QANET_INLINE void each_listed(const Fetch& f, const float* rows, int64_t stride, const uint8_t* list, int count,
                              Use use) {
    const float* low = rows + f.low_base;
    const float* high = rows + f.high_base;
    if (f.kind == Fetch::kOneWindow)
        for (int i = 0; i < count; ++i) {
            const Floats window = load<Floats>(low + list[i] * stride);
            use(list[i], permute(window, f.low), permute(window, f.high));
        }
    else if (f.kind == Fetch::kTwoWindows)
        for (int i = 0; i < count; ++i)
            use(list[i], permute(load<Floats>(low + list[i] * stride), f.low),
                permute(load<Floats>(high + list[i] * stride), f.high));
    else
        for (int i = 0; i < count; ++i)
            use(list[i], gather(low + list[i] * stride, f.low), gather(low + list[i] * stride, f.high));
}

}  // namespace
