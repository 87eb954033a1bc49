// The kernels for what the platform always has: SSE2 on x86-64, NEON on AArch64.
#include "kernels.h"

#define LANES 4
#include "crop/band.h"
#include "tail/tile.h"

const qanet::Kernel* qanet::baseline_kernel() {
    static const Kernel kernel{LANES, scratch_floats, run, finite_person, exp_row, crop_band};
    return &kernel;
}
