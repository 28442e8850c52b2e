// Convolution as matrix products, a tile of 128×64 or 128×128 results by each block. conv.cu has the same sums one result at a time.
//
//   forward, grad_x   rows are pixels of the result, columns its channels; the sum runs over taps, and for each over the image's channels
//   grad_w            rows are weights (tap, channel), columns the outputs; the sum runs over pixels
//
// The matrix of the image is never made: a reader finds its numbers where they lie. This is "implicit GEMM": Chetlur et al., cuDNN,
// arXiv:1410.0759. What is beyond an edge of the image, or past the last row, column or term, is read as 0. Images, and the weights to
// multiply them with, are STORED: float32, or 16 bits. Sums are float32, and so are bias and gradients of weights.

#include "cuda.cuh"
#include "geometry.cuh"
#include "volumes.cuh"
#include "tile.cuh"

__device__ inline Four zeros() { return {0, 0, 0, 0}; }

// Whether lines of numbers can be read four at once: they are full of fours, and those stand at multiples of their size.
__device__ inline bool in_fours(const STORED* x, int length) {
    return length % 4 == 0 && reinterpret_cast<unsigned long long>(x) % sizeof(Four) == 0;
}

// The same for the channels of an image: they lie side by side too.
__device__ inline bool in_fours(const STORED* x, const Steps<5>& steps, int channels) {
    const long long others = steps.step[0] | steps.step[2] | steps.step[3] | steps.step[4];
    return in_fours(x, channels) && steps.step[1] == 1 && others % 4 == 0;
}

// Four numbers, of which `left` are there.
__device__ inline Four four(const STORED* x, long long step, int left, bool at_once) {
    if (left <= 0) return zeros();
    if (at_once) return *reinterpret_cast<const Four*>(x);
    const STORED zero = 0;
    return {x[0], left > 1 ? x[step] : zero, left > 2 ? x[2 * step] : zero, left > 3 ? x[3 * step] : zero};
}

// The gradient where the gate is open: the way back through a fused ReLU.
__device__ inline Four gated(const Four& v, const Four& gate) {
    const STORED zero = 0;
    return {gate.x > 0 ? v.x : zero, gate.y > 0 ? v.y : zero, gate.z > 0 ? v.z : zero, gate.w > 0 ? v.w : zero};
}

// ---- forward and grad_x ----

// Where the pixels of a block's rows stand, and what tap k adds to that.
//
// Forward, output pixel p meets image pixel s·p − before + d·k. Backward, pixel i meets output pixel (i + before − d·k)/s, if that is
// whole. Whether it is depends only on k and on the phase, (i + before) mod s. So all pixels of a block have one phase, and taps that do
// not meet it are left out. Both are place + shift(k), with
//     forward     place = s·p − before                    shift = d·k
//     backward    place = (i + before − phase)/s          shift = (phase − d·k)/s
template <bool BACK>
struct Pixels {
    const Geometry& g;
    int phase[3], first[3], sizes[3];  // first: the result's first pixel of this phase; sizes: how many there are along each axis

    __device__ Pixels(const Geometry& g, int number) : g(g) {
        split(number, g.stride, phase);
        for (int axis = 0; axis < 3; axis++) {
            const int s = g.stride[axis];
            if (!BACK) phase[axis] = 0;
            first[axis] = BACK ? ((phase[axis] - g.before[axis]) % s + s) % s : 0;
            sizes[axis] = BACK ? (g.in[axis] - first[axis] + s - 1) / s : g.out[axis];
        }
    }

    __device__ long long count() const { return g.samples * volume(sizes); }

    // Pixel `number`: its place and its sample, and where it stands in the result.
    __device__ int4 find(long long number, int* result) const {
        int place[3], q[3];
        const int n = split(number, sizes, q);
        for (int axis = 0; axis < 3; axis++) {
            const int s = g.stride[axis];
            result[axis] = BACK ? first[axis] + s * q[axis] : q[axis];
            place[axis] = BACK ? (first[axis] + g.before[axis] - phase[axis]) / s + q[axis] : s * q[axis] - g.before[axis];
        }
        return make_int4(place[0], place[1], place[2], n);
    }

    __device__ bool meets(int tap, int* shift) const {
        int k[3];
        split(tap, g.kernel, k);
        bool whole = true;
        for (int axis = 0; axis < 3; axis++) {
            const int far = g.dilation[axis] * k[axis], s = g.stride[axis];
            whole = whole && (!BACK || (phase[axis] - far) % s == 0);
            shift[axis] = BACK ? (phase[axis] - far) / s : far;
        }
        return whole;
    }
};

// Slices of the image and of the weights: tap after tap, and for each tap its channels.
template <int WIDTH, bool BACK>
struct ImageReader {
    static constexpr int THREADS = 2 * WIDTH, LINES = THREADS / 4;  // four threads read the 16 channels of a pixel
    const Pixels<BACK>& pixels;
    const STORED *x, *gate, *w;
    const Steps<5>&x_steps, &gate_steps;
    const int4* places;
    const int channels, columns, first_column;  // channels: those of the image, which the sum runs over
    const bool x_at_once, gate_at_once, w_at_once;
    const int line, quarter;

    int tap, channel;
    const STORED *row[ROWS / LINES], *opening[ROWS / LINES];  // where this thread's pixels of the tap begin; null beyond the edge
    Four image[ROWS / LINES], weights[WIDTH / LINES];

    __device__ ImageReader(const Pixels<BACK>& pixels, const STORED* x, const Steps<5>& x_steps, const STORED* gate,
                           const Steps<5>& gate_steps, const STORED* w, const int4* places, int channels, int columns, int first_column)
        : pixels(pixels), x(x), gate(BACK ? gate : nullptr), w(w), x_steps(x_steps), gate_steps(gate_steps), places(places),
          channels(channels), columns(columns), first_column(first_column), x_at_once(in_fours(x, x_steps, channels)),
          gate_at_once(in_fours(gate, gate_steps, channels)), w_at_once(in_fours(w, channels)), line(threadIdx.x / 4),
          quarter(threadIdx.x % 4 * 4), tap(-1), channel(channels) {}

    // On to the next slice; false after the last.
    __device__ bool advance() {
        channel += SLICE;
        if (channel < channels) return true;
        channel = 0;
        int shift[3];
        const int taps = volume(pixels.g.kernel);
        do tap++;
        while (tap < taps && !pixels.meets(tap, shift));
        if (tap == taps) return false;
        const int* sizes = BACK ? pixels.g.out : pixels.g.in;
        #pragma unroll
        for (int i = 0; i < ROWS / LINES; i++) {
            const int4 place = places[line + i * LINES];
            const int d = place.x + shift[0], h = place.y + shift[1], w = place.z + shift[2];
            const bool is_inside = place.w >= 0 && 0 <= d && d < sizes[0] && 0 <= h && h < sizes[1] && 0 <= w && w < sizes[2];
            row[i] = is_inside ? x + x_steps(place.w, 0, d, h, w) : nullptr;
            if (gate) opening[i] = is_inside ? gate + gate_steps(place.w, 0, d, h, w) : nullptr;
        }
        return true;
    }

    __device__ void fetch() {
        const int c = channel + quarter, left = channels - c;
        #pragma unroll
        for (int i = 0; i < ROWS / LINES; i++) {
            const int there = row[i] ? left : 0;
            image[i] = four(row[i] + c * x_steps.step[1], x_steps.step[1], there, x_at_once);
            if (gate) image[i] = gated(image[i], four(opening[i] + c * gate_steps.step[1], gate_steps.step[1], there, gate_at_once));
        }
        #pragma unroll
        for (int i = 0; i < WIDTH / LINES; i++) {
            const int column = first_column + line + i * LINES;
            weights[i] = four(w + ((long long)tap * columns + column) * channels + c, 1, column < columns ? left : 0, w_at_once);
        }
    }

    __device__ void put(Panel<ROWS>& a, Panel<WIDTH>& b) const {
        #pragma unroll
        for (int i = 0; i < ROWS / LINES; i++) a.put_down(quarter, line + i * LINES, image[i]);
        #pragma unroll
        for (int i = 0; i < WIDTH / LINES; i++) b.put_down(quarter, line + i * LINES, weights[i]);
    }
};

// w: (taps, columns, channels), as the slices are read.
template <int WIDTH, bool BACK>
__device__ inline void image_product(const STORED* x, const Steps<5>& x_steps, const STORED* gate, const Steps<5>& gate_steps,
                                     const STORED* w, const float* b, const Steps<1>& b_steps, STORED* y, const Steps<5>& y_steps,
                                     const Geometry& g, bool relu) {
    __shared__ int4 places[ROWS];
    __shared__ long long results[ROWS];
    const int phases = BACK ? volume(g.stride) : 1, channels = BACK ? g.outputs : g.channels, columns = BACK ? g.channels : g.outputs;
    const int tile = blockIdx.x / phases, across = (columns + WIDTH - 1) / WIDTH, first_column = tile % across * WIDTH;
    const Pixels<BACK> pixels(g, blockIdx.x % phases);  // blocks that read the same pixels have neighbouring numbers
    const long long first = (long long)(tile / across) * ROWS, count = pixels.count();
    if (first >= count) return;
    for (int row = threadIdx.x; row < ROWS; row += 2 * WIDTH) {
        int place[3];
        const bool is_there = first + row < count;
        places[row] = is_there ? pixels.find(first + row, place) : make_int4(0, 0, 0, -1);
        if (is_there) results[row] = y_steps(places[row].w, 0, place[0], place[1], place[2]);
    }
    __syncthreads();

    Sums<WIDTH> sums = {};
    ImageReader<WIDTH, BACK> reader(pixels, x, x_steps, gate, gate_steps, w, places, channels, columns, first_column);
    add_slices(reader, sums);

    const long long step = y_steps.step[1];
    const bool at_once = in_fours(y, y_steps, columns);
    sums.each([&](int row, int column, const float* sum) {
        constexpr int RUN = Sums<WIDTH>::RUN;
        const int channel = first_column + column;
        if (places[row].w < 0 || channel >= columns) return;
        float out[RUN];
        #pragma unroll
        for (int i = 0; i < RUN; i++) {
            out[i] = sum[i] + (b && channel + i < columns ? b[b_steps(channel + i)] : 0);
            if (relu && out[i] < 0) out[i] = 0;
        }
        STORED* const to = y + results[row] + channel * step;
        if (at_once && RUN == 4) {
            *reinterpret_cast<Four*>(to) = {out[0], out[1], out[RUN - 2], out[RUN - 1]};
        } else if (at_once) {
            *reinterpret_cast<Two*>(to) = {out[0], out[1]};
        } else {
            #pragma unroll
            for (int i = 0; i < RUN; i++)
                if (channel + i < columns) to[i * step] = out[i];
        }
    });
}

extern "C" __global__ void __launch_bounds__(128, 3) tiled_forward_64(
    const STORED* __restrict__ x, const Steps<5> x_steps,
    const STORED* __restrict__ w,
    const float* __restrict__ b, const Steps<1> b_steps,
    STORED* __restrict__ y, const Steps<5> y_steps,
    const Geometry g, const bool relu)
{
    image_product<64, false>(x, x_steps, nullptr, x_steps, w, b, b_steps, y, y_steps, g, relu);
}

extern "C" __global__ void __launch_bounds__(256) tiled_forward_128(
    const STORED* __restrict__ x, const Steps<5> x_steps,
    const STORED* __restrict__ w,
    const float* __restrict__ b, const Steps<1> b_steps,
    STORED* __restrict__ y, const Steps<5> y_steps,
    const Geometry g, const bool relu)
{
    image_product<128, false>(x, x_steps, nullptr, x_steps, w, b, b_steps, y, y_steps, g, relu);
}

extern "C" __global__ void __launch_bounds__(128) tiled_grad_x_64(
    const STORED* __restrict__ gy, const Steps<5> gy_steps,
    const STORED* __restrict__ gate, const Steps<5> gate_steps,
    const STORED* __restrict__ w,
    const float* __restrict__ b, const Steps<1> b_steps,
    STORED* __restrict__ gx, const Steps<5> gx_steps,
    const Geometry g, const bool relu)
{
    image_product<64, true>(gy, gy_steps, gate, gate_steps, w, b, b_steps, gx, gx_steps, g, relu);
}

extern "C" __global__ void __launch_bounds__(256) tiled_grad_x_128(
    const STORED* __restrict__ gy, const Steps<5> gy_steps,
    const STORED* __restrict__ gate, const Steps<5> gate_steps,
    const STORED* __restrict__ w,
    const float* __restrict__ b, const Steps<1> b_steps,
    STORED* __restrict__ gx, const Steps<5> gx_steps,
    const Geometry g, const bool relu)
{
    image_product<128, true>(gy, gy_steps, gate, gate_steps, w, b, b_steps, gx, gx_steps, g, relu);
}

// ---- grad_w ----

// Slices of the image and of the gradient: 16 pixels of one line of the result at a time, and of these all rows and columns of the tile.
template <int WIDTH>
struct WeightReader {
    static constexpr int THREADS = 2 * WIDTH, FOURS = ROWS / 4;
    static constexpr int BIAS = -1, NOTHING = -2;  // in place of a channel: the row whose image is 1 everywhere, and one past the last
    const Geometry& g;
    const STORED *x, *gy, *gate;
    const Steps<5>&x_steps, &gy_steps, &gate_steps;
    const int4* weights;  // for each row its tap's place d·k − before, and its channel
    const int first_column;
    const bool x_at_once, gy_at_once, gate_at_once;

    long long slice;
    const long long end;
    int n, line[2], pixel;  // the slice's sample, its line along D and H, and its first pixel
    Four image[FOURS * SLICE / 2 / THREADS][2], gradient[2];  // of two pixels, which may share a word

    __device__ WeightReader(const Geometry& g, const STORED* x, const Steps<5>& x_steps, const STORED* gy, const Steps<5>& gy_steps,
                            const STORED* gate, const Steps<5>& gate_steps, const int4* weights, int first_column, long long first,
                            long long end)
        : g(g), x(x), gy(gy), gate(gate), x_steps(x_steps), gy_steps(gy_steps), gate_steps(gate_steps), weights(weights),
          first_column(first_column), x_at_once(in_fours(x, x_steps, g.channels)), gy_at_once(in_fours(gy, gy_steps, g.outputs)),
          gate_at_once(in_fours(gate, gate_steps, g.outputs)), slice(first - 1), end(end) {
        const int lines[3] = {g.out[0], g.out[1], (g.out[2] + SLICE - 1) / SLICE};
        int place[3];
        n = split(first, lines, place);
        line[0] = place[0];
        line[1] = place[1];
        pixel = (place[2] - 1) * SLICE;
    }

    // On to the next slice; false after the last.
    __device__ bool advance() {
        if (++slice >= end) return false;
        pixel += SLICE;
        if (pixel >= g.out[2]) {
            pixel = 0;
            if (++line[1] == g.out[1]) {
                line[1] = 0;
                if (++line[0] == g.out[0]) {
                    line[0] = 0;
                    n++;
                }
            }
        }
        return true;
    }

    // What the tile's rows `row` to `row` + 3 see at a pixel of the line.
    __device__ Four image_at(int row, int at) const {
        if (at >= g.out[2]) return zeros();
        if (x_at_once) {
            const STORED* const from = address(weights[row], at);
            return from ? *reinterpret_cast<const Four*>(from) : Four{float(weights[row].w == BIAS), 0, 0, 0};
        }
        STORED v[4];
        #pragma unroll
        for (int i = 0; i < 4; i++) {
            const STORED* const from = address(weights[row + i], at);
            v[i] = from ? *from : STORED(weights[row + i].w == BIAS);
        }
        return {v[0], v[1], v[2], v[3]};
    }

    // Null beyond the edge.
    __device__ const STORED* address(const int4& weight, int at) const {
        const int d = g.stride[0] * line[0] + weight.x, h = g.stride[1] * line[1] + weight.y, w = g.stride[2] * at + weight.z;
        const bool is_inside = weight.w >= 0 && 0 <= d && d < g.in[0] && 0 <= h && h < g.in[1] && 0 <= w && w < g.in[2];
        return is_inside ? x + x_steps(n, weight.w, d, h, w) : nullptr;
    }

    __device__ Four gradient_at(int column, int at) const {
        const int o = first_column + column, left = at < g.out[2] ? g.outputs - o : 0;
        const Four v = four(gy + gy_steps(n, o, line[0], line[1], at), gy_steps.step[1], left, gy_at_once);
        return gate ? gated(v, four(gate + gate_steps(n, o, line[0], line[1], at), gate_steps.step[1], left, gate_at_once)) : v;
    }

    __device__ void fetch() {
        #pragma unroll
        for (int i = 0; i < FOURS * SLICE / 2 / THREADS; i++) {
            const int number = threadIdx.x + i * THREADS, row = number % FOURS * 4, at = pixel + number / FOURS * 2;
            image[i][0] = image_at(row, at);
            image[i][1] = image_at(row, at + 1);
        }
        const int column = threadIdx.x % (WIDTH / 4) * 4, at = pixel + threadIdx.x / (WIDTH / 4) * 2;
        gradient[0] = gradient_at(column, at);
        gradient[1] = gradient_at(column, at + 1);
    }

    __device__ void put(Panel<ROWS>& a, Panel<WIDTH>& b) const {
        #pragma unroll
        for (int i = 0; i < FOURS * SLICE / 2 / THREADS; i++) {
            const int number = threadIdx.x + i * THREADS;
            a.put_across(number / FOURS * 2, number % FOURS * 4, image[i][0], image[i][1]);
        }
        b.put_across(threadIdx.x / (WIDTH / 4) * 2, threadIdx.x % (WIDTH / 4) * 4, gradient[0], gradient[1]);
    }
};

// parts: (gridDim.y, rows, O): each part sums some of the slices. rows: C·taps, and one more where ∂b is wanted, the sum over ∂y times 1.
template <int WIDTH>
__device__ inline void weight_product(const STORED* x, const Steps<5>& x_steps, const STORED* gy, const Steps<5>& gy_steps, const STORED* gate,
                                      const Steps<5>& gate_steps, float* parts, const Geometry& g, int rows, int slices_of_a_part) {
    typedef WeightReader<WIDTH> Reader;
    __shared__ int4 weights[ROWS];
    const int tile = blockIdx.x, across = (g.outputs + WIDTH - 1) / WIDTH, taps = volume(g.kernel);
    const int first_row = tile / across * ROWS, first_column = tile % across * WIDTH;
    for (int row = threadIdx.x; row < ROWS; row += 2 * WIDTH) {
        const int weight = first_row + row;
        int k[3];
        split(weight / g.channels, g.kernel, k);
        for (int axis = 0; axis < 3; axis++) k[axis] = g.dilation[axis] * k[axis] - g.before[axis];
        const int channel = weight < taps * g.channels ? weight % g.channels : weight < rows ? Reader::BIAS : Reader::NOTHING;
        weights[row] = make_int4(k[0], k[1], k[2], channel);
    }
    __syncthreads();

    const long long all = (long long)g.samples * g.out[0] * g.out[1] * ((g.out[2] + SLICE - 1) / SLICE);
    const long long first = (long long)blockIdx.y * slices_of_a_part;
    Sums<WIDTH> sums = {};
    Reader reader(g, x, x_steps, gy, gy_steps, gate, gate_steps, weights, first_column, first, min(first + slices_of_a_part, all));
    add_slices(reader, sums);

    sums.each([&](int row, int column, const float* sum) {
        const int weight = first_row + row, o = first_column + column;
        float* const to = parts + ((long long)blockIdx.y * rows + weight) * g.outputs + o;
        #pragma unroll
        for (int i = 0; i < Sums<WIDTH>::RUN; i++)
            if (weight < rows && o + i < g.outputs) to[i] = sum[i];
    });
}

extern "C" __global__ void __launch_bounds__(128, 3) tiled_grad_w_64(
    const STORED* __restrict__ x, const Steps<5> x_steps,
    const STORED* __restrict__ gy, const Steps<5> gy_steps,
    const STORED* __restrict__ gate, const Steps<5> gate_steps,
    float* __restrict__ parts, const Geometry g, const int rows, const int slices_of_a_part)
{
    weight_product<64>(x, x_steps, gy, gy_steps, gate, gate_steps, parts, g, rows, slices_of_a_part);
}

extern "C" __global__ void __launch_bounds__(256) tiled_grad_w_128(
    const STORED* __restrict__ x, const Steps<5> x_steps,
    const STORED* __restrict__ gy, const Steps<5> gy_steps,
    const STORED* __restrict__ gate, const Steps<5> gate_steps,
    float* __restrict__ parts, const Geometry g, const int rows, const int slices_of_a_part)
{
    weight_product<128>(x, x_steps, gy, gy_steps, gate, gate_steps, parts, g, rows, slices_of_a_part);
}

// sum[i] = Σ_part parts[part, i], the first part first: one thread for each sum.
extern "C" __global__ void tiled_add_parts(
    const float* __restrict__ parts, float* __restrict__ sum, const int count, const long long size)
{
    const long long i = thread_number();
    if (i >= size) return;
    float total = 0;
    for (int part = 0; part < count; part++) total += parts[part * size + i];
    sum[i] = total;
}
