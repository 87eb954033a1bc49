// The entry point: a request in plain C types is cut into tiles, and threads take the tiles in turn.
// Tiles depend on the shapes alone and their results are integers, so the number of threads never shows in a bit.

#include <atomic>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "kernels.h"
#include "tail/taps.h"
#include "workers.h"

using namespace qanet;

namespace {

constexpr int kTileRows = 128;        // image rows; a tile computes one or two crop rows that its neighbour has too
constexpr int kTileFloats = 8192;    // classes times columns: two wide rows stay in the second-level cache
constexpr int kMinTileColumns = 64;

}  // namespace

extern "C" {

struct Request {
    int32_t people, classes, map_h, map_w;
    int32_t views, half, threads, lanes;  // lanes: 0 takes the widest that this machine has
    const void* data[2];
    int64_t strides[2][4];       // bytes, of each view's (N, C, h, w)
    const int32_t* class_order;  // (views, C)
    const float* boxes;          // (N, 4) x0 y0 x1 y1, image pixels
    const int32_t* regions;      // (N, 4) x0 y0 x1 y1, whole image pixels
    uint8_t* const* labels;      // N arrays (y1 - y0, x1 - x0), contiguous; out
    float* scores;               // (N, C), the whole person in column 0; out
    float threshold;
};

// e^x as the kernel with so many lanes computes it; `count` a multiple of 16. 0, or 1 for lanes that are not there.
QANET_EXPORT int qanet_tail_exp(int32_t lanes, const float* x, float* out, int64_t count) {
    const Kernel* kernel = choose_kernel(lanes);
    if (!kernel) return 1;
    kernel->exp(x, out, count);
    return 0;
}

// 0; 1 where the request asks for lanes that are not there; 2 where memory ran out; 3 where a logit is not finite.
QANET_EXPORT int qanet_tail_run(const Request* request) noexcept {
    const Request& r = *request;
    const Kernel* kernel = choose_kernel(r.lanes);
    if (!kernel) return 1;
    try {
        View views[2];
        for (int v = 0; v < r.views; ++v)
            views[v] = {static_cast<const char*>(r.data[v]), r.strides[v][0], r.strides[v][1], r.strides[v][2],
                        r.strides[v][3], r.class_order + int64_t(v) * r.classes};
        TapsStore upsampled;
        upsample_taps(r.map_h, upsampled);
        std::vector<PersonTaps> people(r.people);
        std::vector<Tile> tiles;
        const int limit = std::max(kTileFloats / r.classes, kMinTileColumns);
        int64_t scratch = 0;
        for (int n = 0; n < r.people; ++n) {
            const int32_t* region = r.regions + 4 * n;
            const int width = region[2] - region[0], height = region[3] - region[1];
            if (width <= 0 || height <= 0) continue;
            PersonTaps& person = people[n];
            const int parts = (width + limit - 1) / limit;
            const int part_width = round_up((width + parts - 1) / parts, kernel->lanes);
            person.build(r.boxes + 4 * n, region, r.map_h, r.map_w, part_width, kernel->lanes);
            const int bands = (height + kTileRows - 1) / kTileRows, band = (height + bands - 1) / bands;
            for (int y = 0; y < height; y += band)
                for (size_t part = 0; part < person.columns.size(); ++part) {
                    const ColumnTaps& columns = person.columns[part];
                    Tile tile{};
                    tile.views = views, tile.num_views = r.views, tile.classes = r.classes;
                    tile.map_h = r.map_h, tile.map_w = r.map_w, tile.person = n, tile.half = r.half != 0;
                    tile.map_first = columns.map_first, tile.map_last = columns.map_last;
                    tile.columns = columns.columns.view(), tile.pixels = columns.pixels.view();
                    tile.blocks = columns.blocks();
                    tile.upsampled = upsampled.view(), tile.rows = person.rows.view(y);
                    tile.height = std::min(band, height - y), tile.width = columns.width;
                    tile.threshold = r.threshold, tile.label_stride = width;
                    tile.labels = r.labels[n] + int64_t(y) * width + columns.first;
                    scratch = std::max(scratch, kernel->scratch_floats(tile));
                    tiles.push_back(tile);
                }
        }

        const int64_t bins = 2 * int64_t(r.classes);  // sums, then counts
        std::vector<uint64_t> totals(bins * r.people);
        const size_t scans = size_t(r.people) * r.views;  // the first tasks look whether the logits are finite
        const size_t tasks = scans + tiles.size();
        const int threads = int(std::max<size_t>(1, std::min<size_t>(r.threads, tasks)));
        const int64_t slice = (scratch + 31) / 16 * 16;
        const std::unique_ptr<float[]> memory(new float[slice * threads + 16]);  // not zeroed: all is written first
        std::vector<uint64_t> local(bins * threads);
        float* const aligned = memory.get() + (64 - reinterpret_cast<uintptr_t>(memory.get()) % 64) % 64 / 4;
        std::atomic<size_t> next{0};
        std::atomic<bool> finite{true};
        std::mutex adding;
        const auto work = [&](int thread) {
            uint64_t* mine = local.data() + bins * thread;
            for (size_t i; (i = next.fetch_add(1)) < tasks && finite;) {
                if (i < scans) {
                    const int person = int(i) / r.views, view = int(i) % r.views;
                    if (!kernel->finite(views[view], person, r.classes, r.map_h, r.map_w, r.half)) finite = false;
                    continue;
                }
                Tile tile = tiles[i - scans];
                std::fill(mine, mine + bins, 0);
                tile.scratch = aligned + slice * thread, tile.sums = mine, tile.counts = mine + r.classes;
                kernel->run(tile);
                const std::lock_guard<std::mutex> lock(adding);
                for (int64_t bin = 0; bin < bins; ++bin) totals[bins * tile.person + bin] += mine[bin];
            }
        };
        on_threads(threads, work);

        if (!finite) return 3;
        for (int n = 0; n < r.people; ++n) {
            const uint64_t* sums = totals.data() + bins * n;
            const uint64_t* counts = sums + r.classes;
            float* scores = r.scores + int64_t(n) * r.classes;
            uint64_t sum = 0, count = 0;
            for (int c = 0; c < r.classes; ++c) {
                scores[c] = counts[c] ? float(double(sums[c]) / 16777216.0 / double(counts[c])) : 0.0f;
                sum += sums[c], count += counts[c];
            }
            scores[0] = count ? float(double(sum) / 16777216.0 / double(count)) : 0.0f;
        }
        return 0;
    } catch (const std::bad_alloc&) {
        return 2;
    }
}

}  // extern "C"
