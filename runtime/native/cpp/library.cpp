// What the library is as a whole: its version, and which of its kernels run here.

#include "kernels.h"

using namespace qanet;

namespace {

constexpr int kAbiVersion = 3;  // the same number as in library.py

// Widest first, null where there is none.
const Kernel* kernel_at(int place) {
    switch (place) {
        case 0: return avx512_kernel();
        case 1: return avx2_kernel();
        default: return baseline_kernel();
    }
}

constexpr int kKernels = 3;

}  // namespace

const Kernel* qanet::choose_kernel(int lanes) {
    for (int place = 0; place < kKernels; ++place)
        if (const Kernel* kernel = kernel_at(place); kernel && (lanes == 0 || kernel->lanes == lanes)) return kernel;
    return nullptr;
}

extern "C" {

QANET_EXPORT int qanet_abi() { return kAbiVersion; }

// Lanes of the kernels that this build and this machine have, widest first; returns how many.
QANET_EXPORT int qanet_lanes(int32_t out[3]) {
    int found = 0;
    for (int place = 0; place < kKernels; ++place)
        if (const Kernel* kernel = kernel_at(place)) out[found++] = kernel->lanes;
    return found;
}

}  // extern "C"
