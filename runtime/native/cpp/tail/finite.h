// Whether logits are finite: an exponent of all ones is an infinity or not a number.
#pragma once

#include "simd.h"
#include "tail/tail.h"

namespace {

template <typename Bits>
QANET_INLINE bool finite_run(const char* from, int64_t step_bytes, int64_t count, Bits exponent) {
    Bits wrong = 0;
    if (step_bytes == int64_t(sizeof(Bits))) {  // side by side: the loop that the compiler makes vectors of
        for (int64_t i = 0; i < count; ++i) {
            Bits bits;
            __builtin_memcpy(&bits, from + i * sizeof(Bits), sizeof bits);
            wrong |= Bits((bits & exponent) == exponent);
        }
    } else {
        for (int64_t i = 0; i < count; ++i, from += step_bytes) {
            Bits bits;
            __builtin_memcpy(&bits, from, sizeof bits);
            wrong |= Bits((bits & exponent) == exponent);
        }
    }
    return wrong == 0;
}

// All logits of one person in one view, whatever their strides; rows and classes that follow each other are one run.
bool finite_person(const qanet::View& view, int person, int classes, int map_h, int map_w, bool half) {
    const char* base = view.data + person * view.person_bytes;
    int64_t rows = map_h, planes = classes, run = map_w;
    if (view.row_bytes == run * view.column_bytes) run *= rows, rows = 1;
    if (rows == 1 && view.class_bytes == run * view.column_bytes) run *= planes, planes = 1;
    for (int64_t plane = 0; plane < planes; ++plane)
        for (int64_t row = 0; row < rows; ++row) {
            const char* from = base + plane * view.class_bytes + row * view.row_bytes;
            const bool finite = half ? finite_run<uint16_t>(from, view.column_bytes, run, 0x7c00)
                                     : finite_run<uint32_t>(from, view.column_bytes, run, 0x7f800000u);
            if (!finite) return false;
        }
    return true;
}

}  // namespace
