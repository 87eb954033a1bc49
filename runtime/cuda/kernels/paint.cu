// The frame's label map from the persons' regions, the best person on top; only what is not background paints.
//
// A thread owns four pixels, which leave as one word. Bound: the frame written once, and of the regions no more than
// what shows (a person below is read only where everybody above has background). Persons are looked at best first, so
// nothing is painted twice and no order between threads matters.

constexpr int PIXELS = 4;  // a thread

extern "C" __global__ void __launch_bounds__(256)
paint_people(const unsigned char* labels, const long long* label_offsets, const int* rois, const int* order, int count,
             int image_height, int image_width, unsigned char* frame) {
    const long long total = static_cast<long long>(image_height) * image_width;
    const long long first = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) * PIXELS;
    if (first >= total) return;
    int y = static_cast<int>(first / image_width), x = static_cast<int>(first % image_width);
    unsigned word = 0;
#pragma unroll
    for (int i = 0; i < PIXELS; ++i) {
        unsigned label = 0;
        for (int rank = 0; rank < count && label == 0 && first + i < total; ++rank) {
            const int person = order[rank];
            const int* roi = rois + 4 * person;
            if (x < roi[0] || y < roi[1] || x >= roi[2] || y >= roi[3]) continue;
            const long long pixel = static_cast<long long>(y - roi[1]) * (roi[2] - roi[0]) + x - roi[0];
            label = labels[label_offsets[person] + pixel];
        }
        word |= label << 8 * i;
        if (++x == image_width) {  // a group may run over the end of a row
            x = 0;
            ++y;
        }
    }
    if (first + PIXELS <= total) {
        *reinterpret_cast<unsigned*>(frame + first) = word;
    } else {
        for (int i = 0; first + i < total; ++i) frame[first + i] = static_cast<unsigned char>(word >> 8 * i);
    }
}
