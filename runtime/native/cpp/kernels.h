// What is built once for each instruction set; which of them runs is chosen when it runs.
#pragma once

#include <cstdint>

#include "crop/crop.h"
#include "tail/tail.h"

#define QANET_EXPORT __attribute__((visibility("default")))

namespace qanet {

struct Kernel {
    int lanes;
    int64_t (*scratch_floats)(const Tile&);
    void (*run)(const Tile&);
    bool (*finite)(const View&, int person, int classes, int map_h, int map_w, bool half);
    void (*exp)(const float* x, float* out, int64_t count);  // count a multiple of lanes; for the tests
    void (*crop)(const CropBand&);
};

// Null where this build or this machine lacks the instructions.
const Kernel* baseline_kernel();
const Kernel* avx2_kernel();
const Kernel* avx512_kernel();

// The widest that this machine has, or the one with so many lanes; null where there is none of these.
const Kernel* choose_kernel(int lanes);

}  // namespace qanet
