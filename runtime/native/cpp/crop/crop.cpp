// The entry point: the crops of one image are cut into bands of rows, and threads take the bands in turn.

#include <atomic>
#include <new>
#include <vector>

#include "crop/axis.h"
#include "kernels.h"
#include "workers.h"

using namespace qanet;

namespace {

constexpr int kBandRows = 64;
constexpr int64_t kWorthAThread = 1 << 17;  // crop pixels: less is done before a thread has started

}  // namespace

extern "C" {

struct CropRequest {
    int32_t people, crop_h, crop_w, image_h, image_w, threads, lanes;  // lanes: 0 takes the widest
    int64_t row_bytes;
    const uint8_t* image;  // (image_h, image_w, 3), pixels contiguous
    const float* boxes;    // (N, 4) x0 y0 x1 y1, image pixels
    uint8_t* crops;        // (N, crop_h, crop_w, 3), contiguous; out
};

// 0; 1 where the request asks for lanes that are not there; 2 where memory ran out.
QANET_EXPORT int qanet_crop_run(const CropRequest* request) noexcept {
    const CropRequest& r = *request;
    const Kernel* kernel = choose_kernel(r.lanes);
    if (!kernel) return 1;
    try {
        std::vector<AxisStore> columns(r.people), rows(r.people);
        std::vector<CropBand> bands;
        int64_t widest = 0;
        for (int n = 0; n < r.people; ++n) {
            const float* box = r.boxes + 4 * n;
            columns[n].build(box[0], box[2], r.image_w, r.crop_w);
            rows[n].build(box[1], box[3], r.image_h, r.crop_h);
            widest = std::max<int64_t>(widest, columns[n].last - columns[n].first + 1);
            for (int y = 0; y < r.crop_h; y += kBandRows) {
                CropBand band{};
                band.image = r.image, band.row_bytes = r.row_bytes;
                band.columns = columns[n].view(), band.rows = rows[n].view();
                band.first_column = columns[n].first, band.last_column = columns[n].last;
                band.no_rows = rows[n].last < 0;
                band.first_row = y, band.last_row = std::min(y + kBandRows, int(r.crop_h)), band.width = r.crop_w;
                band.crop = r.crops + int64_t(kChannels) * r.crop_w * r.crop_h * n;
                bands.push_back(band);
            }
        }
        const int64_t pixels = int64_t(r.people) * r.crop_h * r.crop_w;
        const int64_t most = std::min<int64_t>({r.threads, int64_t(bands.size()), pixels / kWorthAThread});
        const int threads = int(std::max<int64_t>(most, 1));
        const int64_t slice = kChannels * widest + kRowPadding;
        const int64_t row_slice = kChannels * int64_t(r.crop_w) + kRowPadding;
        std::vector<float> sums(size_t(slice) * threads);
        std::vector<uint8_t> rows_out(size_t(row_slice) * threads);
        std::atomic<size_t> next{0};
        const auto work = [&](int thread) {
            for (size_t i; (i = next.fetch_add(1)) < bands.size();) {
                CropBand band = bands[i];
                band.sums = sums.data() + slice * thread, band.row = rows_out.data() + row_slice * thread;
                kernel->crop(band);
            }
        };
        on_threads(threads, work);
        return 0;
    } catch (const std::bad_alloc&) {
        return 2;
    }
}

}  // extern "C"
