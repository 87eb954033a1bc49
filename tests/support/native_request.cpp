// The native kernels as a program: a request on stdin, status and results on stdout. It is built for another
// processor and run by an emulator, so that what no machine at hand can run is tested all the same.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

struct Request {  // as in tail.cpp
    int32_t people, classes, map_h, map_w, views, half, threads, lanes;
    const void* data[2];
    int64_t strides[2][4];
    const int32_t* class_order;
    const float* boxes;
    const int32_t* regions;
    uint8_t* const* labels;
    float* scores;
    float threshold;
};

struct CropRequest {  // as in crop.cpp
    int32_t people, crop_h, crop_w, image_h, image_w, threads, lanes;
    int64_t row_bytes;
    const uint8_t* image;
    const float* boxes;
    uint8_t* crops;
};

extern "C" int qanet_crop_run(const CropRequest* request) noexcept;
extern "C" int qanet_tail_run(const Request* request) noexcept;
extern "C" int qanet_lanes(int32_t out[3]);
extern "C" int qanet_tail_exp(int32_t lanes, const float* x, float* out, int64_t count);

template <typename T>
std::vector<T> read(int64_t count) {
    std::vector<T> values(count);
    if (count && std::fread(values.data(), sizeof(T), count, stdin) != size_t(count)) std::exit(9);
    return values;
}

template <typename T>
void write(const std::vector<T>& values) {
    if (!values.empty()) std::fwrite(values.data(), sizeof(T), values.size(), stdout);
}

int main() {
    const int32_t what = read<int32_t>(1)[0];
    if (what == 0) {  // the lanes of each kernel
        std::vector<int32_t> lanes(3);
        lanes.resize(qanet_lanes(lanes.data()));
        write(lanes);
        return 0;
    }
    if (what == 1) {  // e^x of so many numbers, a multiple of 16
        const std::vector<float> x = read<float>(read<int64_t>(1)[0]);
        std::vector<float> out(x.size());
        qanet_tail_exp(0, x.data(), out.data(), int64_t(x.size()));
        write(out);
        return 0;
    }
    if (what == 3) {  // crops
        const std::vector<int32_t> n = read<int32_t>(7);
        const std::vector<uint8_t> image = read<uint8_t>(3 * int64_t(n[3]) * n[4]);
        const std::vector<float> boxes = read<float>(4 * n[0]);
        std::vector<uint8_t> crops(3 * int64_t(n[0]) * n[1] * n[2]);
        const CropRequest r{n[0], n[1], n[2], n[3], n[4], n[5], n[6], 3 * int64_t(n[4]), image.data(), boxes.data(),
                            crops.data()};
        write(std::vector<int32_t>{qanet_crop_run(&r)});
        write(crops);
        return 0;
    }
    Request r{};
    const std::vector<int32_t> head = read<int32_t>(8);
    r.people = head[0], r.classes = head[1], r.map_h = head[2], r.map_w = head[3];
    r.views = head[4], r.half = head[5], r.threads = head[6], r.lanes = head[7];
    r.threshold = read<float>(1)[0];
    const int64_t bytes = r.half ? 2 : 4, row = r.map_w * bytes, plane = row * r.map_h;
    std::vector<char> views[2];
    for (int v = 0; v < r.views; ++v) {
        views[v] = read<char>(plane * r.classes * r.people);
        r.data[v] = views[v].data();
        const int64_t strides[4] = {plane * r.classes, plane, row, bytes};
        for (int axis = 0; axis < 4; ++axis) r.strides[v][axis] = strides[axis];
    }
    const std::vector<int32_t> order = read<int32_t>(2 * r.classes), regions = read<int32_t>(4 * r.people);
    const std::vector<float> boxes = read<float>(4 * r.people);
    std::vector<std::vector<uint8_t>> labels;
    std::vector<uint8_t*> pointers;
    for (int n = 0; n < r.people; ++n) {
        const int32_t* region = regions.data() + 4 * n;
        labels.emplace_back(int64_t(region[2] - region[0]) * (region[3] - region[1]));
    }
    for (std::vector<uint8_t>& region : labels) pointers.push_back(region.data());
    std::vector<float> scores(int64_t(r.people) * r.classes);
    r.class_order = order.data(), r.boxes = boxes.data(), r.regions = regions.data();
    r.labels = pointers.data(), r.scores = scores.data();
    write(std::vector<int32_t>{qanet_tail_run(&r)});
    for (const std::vector<uint8_t>& region : labels) write(region);
    write(scores);
    return 0;
}
