// All persons of a frame, cropped from one image into one batch.
//
// Semantics of qanet.geometry.resample for an upright box: a crop pixel is the mean of nx x ny bilinear samples, nx and
// ny the shrink factors rounded up, zero outside the image. One thread makes one crop pixel. Bound: the image under the
// boxes read once (a pixel's samples, and its neighbours', overlap in the first-level cache) and the crops written once.

constexpr int BLOCK_X = 32, BLOCK_Y = 8;

// The crop pixel's lower edge on an image axis, split so that float keeps the fraction of a far box.
struct Edge {
    int whole;
    float fraction;
};

__device__ inline double step_of(float near_edge, float far_edge, int size) {
    return (static_cast<double>(far_edge) - near_edge) / size;  // image pixels a crop pixel
}

__device__ inline Edge edge_of(int crop_pixel, float near_edge, double step) {
    const double position = near_edge + crop_pixel * step;
    const double whole = floor(position);
    return {static_cast<int>(whole), static_cast<float>(position - whole)};
}

__device__ inline int samples_of(double step, int max_samples) {
    return static_cast<int>(fmin(fmax(ceil(step - 1e-6), 1.0), static_cast<double>(max_samples)));
}

// Lower of a sample's two image pixels, and the weight of the other; sample i of n.
__device__ inline int sample_at(const Edge& edge, int i, int n, float step, float& high_weight) {
    const float position = edge.fraction + (i + 0.5f) / n * step - 0.5f;
    const float low = floorf(position);
    high_weight = position - low;
    return edge.whole + static_cast<int>(low);
}

extern "C" __global__ void __launch_bounds__(BLOCK_X * BLOCK_Y)
crop_people(const unsigned char* image, long long row_stride_bytes, int image_height, int image_width,
            const float* boxes, int crop_height, int crop_width, int max_samples, unsigned char* crops,
            unsigned char* mirrored) {
    __shared__ Edge columns[BLOCK_X], rows[BLOCK_Y];  // the only double arithmetic, which small GPUs do slowly
    __shared__ float steps[2];
    __shared__ int samples[2];
    const float* box = boxes + 4 * blockIdx.z;
    const int left = blockIdx.x * BLOCK_X, top = blockIdx.y * BLOCK_Y;
    const int thread = threadIdx.y * BLOCK_X + threadIdx.x;
    if (thread < BLOCK_X + BLOCK_Y) {
        const int axis = thread >= BLOCK_X;  // 0: x, 1: y
        const double step = step_of(box[axis], box[axis + 2], axis ? crop_height : crop_width);
        if (axis)
            rows[thread - BLOCK_X] = edge_of(top + thread - BLOCK_X, box[1], step);
        else
            columns[thread] = edge_of(left + thread, box[0], step);
        if (thread == 0 || thread == BLOCK_X) {
            steps[axis] = static_cast<float>(step);
            samples[axis] = samples_of(step, max_samples);
        }
    }
    __syncthreads();
    const int x = left + threadIdx.x, y = top + threadIdx.y;
    if (x >= crop_width || y >= crop_height) return;

    const int nx = samples[0], ny = samples[1];
    float sum[3] = {0, 0, 0};
    for (int j = 0; j < ny; ++j) {
        float down;
        const int row = sample_at(rows[threadIdx.y], j, ny, steps[1], down);
        for (int i = 0; i < nx; ++i) {
            float across;
            const int column = sample_at(columns[threadIdx.x], i, nx, steps[0], across);
#pragma unroll
            for (int corner = 0; corner < 4; ++corner) {
                const int u = column + corner % 2, v = row + corner / 2;
                if (u < 0 || v < 0 || u >= image_width || v >= image_height) continue;  // zero outside
                const float weight = (corner % 2 ? across : 1 - across) * (corner / 2 ? down : 1 - down);
                const unsigned char* pixel = image + v * row_stride_bytes + 3ll * u;
                for (int channel = 0; channel < 3; ++channel) sum[channel] += weight * pixel[channel];
            }
        }
    }
    const long long row = (static_cast<long long>(blockIdx.z) * crop_height + y) * crop_width;
    for (int channel = 0; channel < 3; ++channel) {
        const unsigned char value = static_cast<unsigned char>(sum[channel] / (nx * ny) + 0.5f);
        crops[3 * (row + x) + channel] = value;
        if (mirrored) mirrored[3 * (row + crop_width - 1 - x) + channel] = value;
    }
}
