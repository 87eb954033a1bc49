// Which pixels of an image axis each pixel of a crop is made of: the samples of qanet.geometry.resample, summed up.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "crop/crop.h"

namespace qanet {

constexpr int kMaxSamples = 8;  // a crop pixel and axis, as in qanet.geometry

struct AxisStore {
    std::vector<int> index;
    std::vector<float> weight;
    int count = 0;
    int first = 0, last = -1;  // pixels that are read at all

    // From `low` to `high` on an axis of `size` image pixels, onto `crop` pixels; zero outside the image.
    void build(float low, float high, int size, int crop) {
        const double step = (double(high) - low) / crop;  // image pixels a crop pixel
        const int samples = int(std::min(std::max(std::ceil(step - 1e-6), 1.0), double(kMaxSamples)));
        Pixel pixel;
        count = 1;
        first = size, last = -1;
        for (const bool measuring : {true, false}) {  // rounding may give one more than the samples let expect
            if (!measuring) index.assign(size_t(crop) * count, 0), weight.assign(size_t(crop) * count, 0.0f);
            for (int i = 0; i < crop; ++i) {
                pixel.taps = 0;
                for (int s = 0; s < samples; ++s) {
                    const double at = low + (i + (s + 0.5) / samples) * step - 0.5, whole = std::floor(at);
                    pixel.add(whole, (1 - (at - whole)) / samples, size);
                    pixel.add(whole + 1, (at - whole) / samples, size);
                }
                if (measuring)
                    count = std::max(count, pixel.taps);
                else
                    write(pixel, size_t(i) * count);
            }
        }
        if (last < 0) return;
        for (size_t i = 0; i < index.size(); ++i)  // what weighs nothing reads a pixel that is there
            if (weight[i] == 0.0f) index[i] = i % count ? index[i - 1] : first;
    }
    AxisTaps view() const { return {count, index.data(), weight.data()}; }

private:
    struct Pixel {
        int taps = 0, index[2 * kMaxSamples];
        double weight[2 * kMaxSamples];

        void add(double where, double share, int size) {
            if (where < 0 || where >= size || share == 0) return;
            if (taps && index[taps - 1] == int(where)) {
                weight[taps - 1] += share;
                return;
            }
            index[taps] = int(where), weight[taps++] = share;
        }
    };

    void write(const Pixel& pixel, size_t at) {
        for (int tap = 0; tap < pixel.taps; ++tap) {
            index[at + tap] = pixel.index[tap], weight[at + tap] = float(pixel.weight[tap]);
            first = std::min(first, pixel.index[tap]), last = std::max(last, pixel.index[tap]);
        }
    }
};

}  // namespace qanet
