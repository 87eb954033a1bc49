// The kernel for what the platform always has: SSE2 on x86-64, NEON on AArch64.
#define LANES 4
#include "kernel.h"

const qanet::Kernel* qanet::baseline_kernel() {
    static const Kernel kernel{LANES, scratch_floats, run, finite_person, exp_row};
    return &kernel;
}
