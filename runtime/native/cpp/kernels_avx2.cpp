// The kernels for x86-64 with AVX2: the instructions are allowed in this file alone, and run where there are any.
#include "kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#define LANES 8
#include "crop/band.h"
#include "tail/tile.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

const qanet::Kernel* qanet::avx2_kernel() {
    static const Kernel kernel{LANES, scratch_floats, run, finite_person, exp_row, crop_band};
    __builtin_cpu_init();
    const bool there = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return there ? &kernel : nullptr;
}
#else
const qanet::Kernel* qanet::avx2_kernel() { return nullptr; }
#endif
