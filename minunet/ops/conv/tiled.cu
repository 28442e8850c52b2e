// Convolution as matrix products, a tile of 128×128 or 256×64 results by each block. conv.cu has the same sums one result at a time.
//
//   forward, grad_x   rows are pixels of the result, columns its channels; the sum runs over taps, and for each over the image's channels
//   grad_w            rows are weights (tap, channel), columns the outputs; the sum runs over pixels
//
// The matrix of the image is never made: a reader finds its numbers where they lie. This is "implicit GEMM": Chetlur et al., cuDNN,
// arXiv:1410.0759. What is beyond an edge of the image, or past the last row, column or term, is read as 0. Images, and the weights to
// multiply them with, are STORED: float32, or 16 bits. Sums are float32, and so are bias and gradients of weights.
//
// Where the channels of a pixel lie side by side in whole chunks of 16 bytes, they are copied as such (copies.cuh). Where they do not,
// as in an image of one channel, numbers are fetched one by one.

#include "cuda.cuh"
#include "geometry.cuh"
#include "tile.cuh"

constexpr long long NOWHERE = 1LL << 62;  // in place of an offset: any smaller number may be one, an array can run backwards

// ---- forward and grad_x ----

// Which pixels a block's rows are, and what tap k of each meets in the image.
//
// Forward, output pixel p meets image pixel s·p − before + d·k. Backward, pixel i meets output pixel (i + before − d·k)/s, if that is
// whole. Whether it is depends only on k and on the phase, (i + before) mod s. So all pixels of a block have one phase, and taps that do
// not meet it are left out. With a pixel's number q along an axis, among those of its phase, both are step·q + shift(k):
//     forward     p = q               step = s    shift = d·k − before
//     backward    i = first + s·q     step = 1    shift = (first + before − d·k)/s
template <bool BACK>
struct Pixels {
    const Geometry& g;
    int first[3], sizes[3];  // first: the result's first pixel of this phase; sizes: how many there are along each axis

    __device__ Pixels(const Geometry& g, int number) : g(g) {
        int phase[3];
        split(number, g.stride, phase);
        for (int axis = 0; axis < 3; axis++) {
            const int s = g.stride[axis];
            first[axis] = BACK ? ((phase[axis] - g.before[axis]) % s + s) % s : 0;
            sizes[axis] = BACK ? (g.in[axis] - first[axis] + s - 1) / s : g.out[axis];
        }
    }

    __device__ long long count() const { return g.samples * volume(sizes); }

    // Pixel `number` of the phase: q along each axis, and its sample; that is −1 past the last.
    __device__ int4 find(long long number) const {
        int q[3];
        const int n = number < count() ? split(number, sizes, q) : -1;
        return n < 0 ? make_int4(0, 0, 0, -1) : make_int4(q[0], q[1], q[2], n);
    }

    // Where a pixel is in the result.
    __device__ int result(int q, int axis) const { return BACK ? first[axis] + g.stride[axis] * q : q; }

    // What tap k of a pixel meets, if it is inside.
    __device__ int met(int q, int shift, int axis) const { return (BACK ? q : g.stride[axis] * q) + shift; }

    __device__ bool meets(const int* k, int* shift) const {
        bool whole = true;
        for (int axis = 0; axis < 3; axis++) {
            const int far = g.dilation[axis] * k[axis] - g.before[axis], s = g.stride[axis];
            shift[axis] = BACK ? first[axis] - far : far;
            if (!BACK || s == 1) continue;
            whole = whole && shift[axis] % s == 0;
            shift[axis] /= s;
        }
        return whole;
    }

    __device__ bool has(const int4& q, const int* shift) const {
        const int* const sizes = BACK ? g.out : g.in;
        const int d = met(q.x, shift[0], 0), h = met(q.y, shift[1], 1), w = met(q.z, shift[2], 2);
        return q.w >= 0 && 0 <= d && d < sizes[0] && 0 <= h && h < sizes[1] && 0 <= w && w < sizes[2];
    }
};

// Slices of the image and of the weights, in chunks: tap after tap, and for each tap its channels.
template <int WIDTH, bool BACK>
struct ChunkReader {
    static constexpr int LINES = THREADS / 4, PIXELS = ROWS<WIDTH> / LINES;  // four threads copy the four chunks of a line
    const Pixels<BACK>& pixels;
    const Steps<5>& x_steps;
    const int4* places;
    const int channels, columns;  // channels: those of the image, which the sum runs over; columns: from the tile's first to the last
    const int line, first;        // of this thread: its first line, and its first channel of a slice

    int k[3], channel;            // the tap
    const STORED* from[PIXELS];   // where this thread's pixels begin
    const STORED* weights;        // and the tap's weights for the first of its lines
    long long shifted, of_a_tap;  // what the tap adds to the former; how far its weights are from those of the one before
    unsigned is_inside;           // a bit for each pixel: what is beyond the edge is not read

    __device__ ChunkReader(const Pixels<BACK>& pixels, const STORED* x, const Steps<5>& x_steps, const STORED* w, const int4* places,
                           int channels, int columns, int first_column)
        : pixels(pixels), x_steps(x_steps), places(places), channels(channels), columns(columns - first_column),
          line(threadIdx.x / 4), first(threadIdx.x % 4 * WIDE), k{0, 0, -1}, channel(channels) {
        #pragma unroll
        for (int i = 0; i < PIXELS; i++) {
            const int4 q = places[line + i * LINES];
            from[i] = x + (x_steps(q.w, 0, pixels.met(q.x, 0, 0), pixels.met(q.y, 0, 1), pixels.met(q.z, 0, 2)) + first);
        }
        of_a_tap = columns * (long long)channels;
        weights = w + ((first_column + line) * (long long)channels + first - of_a_tap);
    }

    __device__ bool next() {
        channel += SLICE;
        if (channel < channels) return true;
        channel = 0;
        int shift[3];
        do {
            weights += of_a_tap;
            for (int axis = 2; ++k[axis] == pixels.g.kernel[axis]; axis--) {
                if (axis == 0) return false;
                k[axis] = 0;
            }
        } while (!pixels.meets(k, shift));
        shifted = x_steps(0, 0, shift[0], shift[1], shift[2]);
        is_inside = 0;
        #pragma unroll
        for (int i = 0; i < PIXELS; i++) is_inside |= unsigned(pixels.has(places[line + i * LINES], shift)) << i;
        return true;
    }

    __device__ void copy(Down<ROWS<WIDTH>>& a, Down<WIDTH>& b) const {
        const bool there = channel + first < channels;
        const int number = threadIdx.x % 4;  // chunks of lines that are a multiple of 8 apart have the same place in them
        #pragma unroll
        for (int i = 0; i < PIXELS; i++)
            copy_chunk(a.chunk(line, number) + i * LINES * 4, from[i] + (shifted + channel), there && is_inside >> i & 1);
        #pragma unroll
        for (int i = 0; i < WIDTH / LINES; i++)
            copy_chunk(b.chunk(line, number) + i * LINES * 4, weights + channel + i * LINES * channels,
                       there && line + i * LINES < columns);
    }
};

// The same one by one. The terms are numbered through, tap·channels + channel, so that a slice of an image of few channels has several taps.
template <int WIDTH, bool BACK>
struct NumberReader {
    static constexpr int LINES = THREADS / 4;
    const Pixels<BACK>& pixels;
    const STORED *x, *w;
    const Steps<5>& x_steps;
    const int4* places;
    const int channels, columns, first_column;
    const int line, number, terms;

    int first;  // term of the slice

    __device__ NumberReader(const Pixels<BACK>& pixels, const STORED* x, const Steps<5>& x_steps, const STORED* w, const int4* places,
                            int channels, int columns, int first_column)
        : pixels(pixels), x(x), w(w), x_steps(x_steps), places(places), channels(channels), columns(columns),
          first_column(first_column), line(threadIdx.x / 4), number(threadIdx.x % 4), terms(volume(pixels.g.kernel) * channels),
          first(-SLICE) {}

    __device__ bool next() {
        first += SLICE;
        return first < terms;
    }

    __device__ void copy(Down<ROWS<WIDTH>>& a, Down<WIDTH>& b) const {
        const STORED zero = 0;
        #pragma unroll 4  // that many loads are on their way together
        for (int i = 0; i < WIDE; i++) {
            const int term = first + number * WIDE + i, tap = term / channels, channel = term % channels;
            int k[3], shift[3];
            split(tap, pixels.g.kernel, k);
            const bool meets = term < terms && pixels.meets(k, shift);
            #pragma unroll
            for (int j = 0; j < ROWS<WIDTH> / LINES; j++) {
                const int4 q = places[line + j * LINES];
                const bool there = meets && pixels.has(q, shift);
                const int d = pixels.met(q.x, shift[0], 0), h = pixels.met(q.y, shift[1], 1), w = pixels.met(q.z, shift[2], 2);
                const long long from = x_steps(q.w, channel, d, h, w);
                a.chunk(line + j * LINES, number)->number[i] = there ? x[from] : zero;
            }
            #pragma unroll
            for (int j = 0; j < WIDTH / LINES; j++) {
                const int column = first_column + line + j * LINES;
                const long long at = ((long long)tap * columns + column) * channels + channel;
                b.chunk(line + j * LINES, number)->number[i] = meets && column < columns ? w[at] : zero;
            }
        }
    }
};

// w: (taps, columns, channels), as the slices are read.
template <int WIDTH, bool BACK, template <int, bool> class Reader>
__device__ inline void image_product(const STORED* x, const Steps<5>& x_steps, const STORED* w, const float* b, const Steps<1>& b_steps,
                                     STORED* y, const Steps<5>& y_steps, const Geometry& g, bool relu) {
    __shared__ int4 places[ROWS<WIDTH>];
    const int phases = BACK ? volume(g.stride) : 1, channels = BACK ? g.outputs : g.channels, columns = BACK ? g.channels : g.outputs;
    const int tile = blockIdx.x / phases, across = (columns + WIDTH - 1) / WIDTH, first_column = tile % across * WIDTH;
    const Pixels<BACK> pixels(g, blockIdx.x % phases);  // blocks that read the same pixels have neighbouring numbers
    const long long first = (long long)(tile / across) * ROWS<WIDTH>;
    if (first >= pixels.count()) return;
    for (int row = threadIdx.x; row < ROWS<WIDTH>; row += THREADS) places[row] = pixels.find(first + row);
    __syncthreads();

    Sums<WIDTH, Down> sums = {};
    Reader<WIDTH, BACK> reader(pixels, x, x_steps, w, places, channels, columns, first_column);
    add_slices(reader, sums, [](Down<WIDTH>&) {});

    __syncthreads();  // nobody reads the panels any more: from here on their memory holds
    long long* const begins = reinterpret_cast<long long*>(panels());      // where each row is in the result, or NOWHERE
    float* const shifts = reinterpret_cast<float*>(begins + ROWS<WIDTH>);  // and the bias of each column
    for (int row = threadIdx.x; row < ROWS<WIDTH>; row += THREADS) {
        const int4 q = places[row];
        const int d = pixels.result(q.x, 0), h = pixels.result(q.y, 1), w = pixels.result(q.z, 2);
        begins[row] = q.w < 0 ? NOWHERE : y_steps(q.w, first_column, d, h, w);
    }
    const int left = columns - first_column;
    for (int column = threadIdx.x; column < WIDTH; column += THREADS) shifts[column] = b && column < left ? b[b_steps(first_column + column)] : 0;
    __syncthreads();
    constexpr int RUN = Sums<WIDTH, Down>::RUN;
    const long long step = y_steps.step[1], others = y_steps.step[0] | y_steps.step[2] | y_steps.step[3] | y_steps.step[4];
    const float least = relu ? 0 : -infinity();
    const auto finished = [&](float sum, int column) {
        const float value = sum + shifts[column];
        return value < least ? least : value;
    };
    if (step == 1 && (others | columns) % RUN == 0 && reinterpret_cast<unsigned long long>(y) % (RUN * sizeof(STORED)) == 0) {
        sums.each([&](int row, int column, const float* sum) {
            if (begins[row] == NOWHERE || column >= left) return;
            Together<STORED, RUN> run;
            #pragma unroll
            for (int i = 0; i < RUN; i++) run.number[i] = finished(sum[i], column + i);
            put(y + begins[row] + column, run);
        });
    } else {
        sums.each([&](int row, int column, const float* sum) {
            if (begins[row] == NOWHERE) return;
            #pragma unroll
            for (int i = 0; i < RUN; i++)
                if (column + i < left) y[begins[row] + (column + i) * step] = finished(sum[i], column + i);
        });
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) tiled_forward_64(
    const STORED* __restrict__ x, const Steps<5> x_steps,
    const STORED* __restrict__ w,
    const float* __restrict__ b, const Steps<1> b_steps,
    STORED* __restrict__ y, const Steps<5> y_steps,
    const Geometry g, const bool relu)
{
    image_product<64, false, ChunkReader>(x, x_steps, w, b, b_steps, y, y_steps, g, relu);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) tiled_forward_128(
    const STORED* __restrict__ x, const Steps<5> x_steps,
    const STORED* __restrict__ w,
    const float* __restrict__ b, const Steps<1> b_steps,
    STORED* __restrict__ y, const Steps<5> y_steps,
    const Geometry g, const bool relu)
{
    image_product<128, false, ChunkReader>(x, x_steps, w, b, b_steps, y, y_steps, g, relu);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) tiled_forward_numbers(
    const STORED* __restrict__ x, const Steps<5> x_steps,
    const STORED* __restrict__ w,
    const float* __restrict__ b, const Steps<1> b_steps,
    STORED* __restrict__ y, const Steps<5> y_steps,
    const Geometry g, const bool relu)
{
    image_product<64, false, NumberReader>(x, x_steps, w, b, b_steps, y, y_steps, g, relu);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) tiled_grad_x_64(
    const STORED* __restrict__ gy, const Steps<5> gy_steps,
    const STORED* __restrict__ w,
    const float* __restrict__ b, const Steps<1> b_steps,
    STORED* __restrict__ gx, const Steps<5> gx_steps,
    const Geometry g, const bool relu)
{
    image_product<64, true, ChunkReader>(gy, gy_steps, w, b, b_steps, gx, gx_steps, g, relu);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) tiled_grad_x_128(
    const STORED* __restrict__ gy, const Steps<5> gy_steps,
    const STORED* __restrict__ w,
    const float* __restrict__ b, const Steps<1> b_steps,
    STORED* __restrict__ gx, const Steps<5> gx_steps,
    const Geometry g, const bool relu)
{
    image_product<128, true, ChunkReader>(gy, gy_steps, w, b, b_steps, gx, gx_steps, g, relu);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) tiled_grad_x_numbers(
    const STORED* __restrict__ gy, const Steps<5> gy_steps,
    const STORED* __restrict__ w,
    const float* __restrict__ b, const Steps<1> b_steps,
    STORED* __restrict__ gx, const Steps<5> gx_steps,
    const Geometry g, const bool relu)
{
    image_product<64, true, NumberReader>(gy, gy_steps, w, b, b_steps, gx, gx_steps, g, relu);
}

// ---- grad_w ----

// Slices of the image and of the gradient: some pixels of one line of the result at a time, and of these all rows and columns of the tile.
template <int WIDTH>
struct WeightReader {
    static constexpr int IMAGES = ROWS<WIDTH> / WIDE, GRADIENTS = WIDTH / WIDE;        // chunks of a pixel
    static constexpr int IMAGE_PIXELS = THREADS / IMAGES, GRADIENT_PIXELS = THREADS / GRADIENTS;  // that the block copies at once
    static constexpr int NOTHING = -1;  // in place of a channel: past the last row
    const Geometry& g;
    const STORED *x, *gy;
    const Steps<5>&x_steps, &gy_steps;
    const int4* weights;  // for each row its tap's place d·k − before, and its channel
    const int first_column;
    const bool x_in_chunks, gy_in_chunks;

    long long left;         // slices
    int n, line[2], pixel;  // the slice's sample, its line along D and H, and its first pixel

    __device__ WeightReader(const Geometry& g, const STORED* x, const Steps<5>& x_steps, const STORED* gy, const Steps<5>& gy_steps,
                            const int4* weights, int first_column, bool x_in_chunks, bool gy_in_chunks, long long first, long long end)
        : g(g), x(x), gy(gy), x_steps(x_steps), gy_steps(gy_steps), weights(weights), first_column(first_column),
          x_in_chunks(x_in_chunks), gy_in_chunks(gy_in_chunks), left(end - first) {
        const int lines[3] = {g.out[0], g.out[1], (g.out[2] + SLICE - 1) / SLICE};
        int place[3];
        n = split(first, lines, place);
        line[0] = place[0];
        line[1] = place[1];
        pixel = (place[2] - 1) * SLICE;
    }

    __device__ bool next() {
        if (--left < 0) return false;
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

    __device__ void copy(Across<ROWS<WIDTH>>& a, Across<WIDTH>& b) const {
        const STORED zero = 0;
        const int chunk = threadIdx.x % IMAGES, first_term = threadIdx.x / IMAGES, pixels_left = g.out[2] - pixel;
        // what row k of the chunk has at each of this thread's pixels
        const auto each_pixel = [&](int k, auto take) {
            const int4 weight = weights[chunk * WIDE + k];
            const int d = g.stride[0] * line[0] + weight.x, h = g.stride[1] * line[1] + weight.y;
            const int w = g.stride[2] * (pixel + first_term) + weight.z, between = g.stride[2] * IMAGE_PIXELS;
            const bool line_is_inside = weight.w != NOTHING && 0 <= d && d < g.in[0] && 0 <= h && h < g.in[1];
            const STORED* const from = x + x_steps(n, weight.w, d, h, w);
            #pragma unroll
            for (int i = 0; i < SLICE / IMAGE_PIXELS; i++) {
                const int term = first_term + i * IMAGE_PIXELS, at = w + i * between;
                take(term, from + i * between * x_steps.step[4], line_is_inside && term < pixels_left && 0 <= at && at < g.in[2]);
            }
        };
        if (x_in_chunks) {
            each_pixel(0, [&](int term, const STORED* from, bool there) { copy_chunk(a.chunk(term, chunk), from, there); });
        } else {
            #pragma unroll 2  // that many loads are on their way together
            for (int k = 0; k < WIDE; k++)
                each_pixel(k, [&](int term, const STORED* from, bool there) { a.chunk(term, chunk)->number[k] = there ? *from : zero; });
        }
        const int column = threadIdx.x % GRADIENTS, o = first_column + column * WIDE, own_term = threadIdx.x / GRADIENTS;
        const STORED* const from = gy + gy_steps(n, o, line[0], line[1], pixel + own_term);
        #pragma unroll
        for (int i = 0; i < SLICE / GRADIENT_PIXELS; i++) {
            const int term = own_term + i * GRADIENT_PIXELS;
            const STORED* const read = from + i * GRADIENT_PIXELS * gy_steps.step[4];
            Chunk* const to = b.chunk(term, column);
            if (gy_in_chunks) {
                copy_chunk(to, read, term < pixels_left && o < g.outputs);
            } else {
                for (int k = 0; k < WIDE; k++)
                    to->number[k] = term < pixels_left && o + k < g.outputs ? read[k * gy_steps.step[1]] : zero;
            }
        }
    }
};

// parts: (gridDim.y, rows, O): each part sums some of the slices. rows: C·taps, and one more where ∂b is wanted, the sum of ∂y: the blocks
// of the first rows add it up, as the gradient passes through their panels.
template <int WIDTH>
__device__ inline void weight_product(const STORED* x, const Steps<5>& x_steps, const STORED* gy, const Steps<5>& gy_steps, float* parts,
                                      const Geometry& g, int rows, int slices_of_a_part, bool x_in_chunks, bool gy_in_chunks) {
    typedef WeightReader<WIDTH> Reader;
    __shared__ int4 weights[ROWS<WIDTH>];
    const int tile = blockIdx.x, across = (g.outputs + WIDTH - 1) / WIDTH, count = volume(g.kernel) * g.channels;
    const int first_row = tile / across * ROWS<WIDTH>, first_column = tile % across * WIDTH;
    for (int row = threadIdx.x; row < ROWS<WIDTH>; row += THREADS) {
        const int weight = first_row + row;
        int k[3];
        split(weight / g.channels, g.kernel, k);
        for (int axis = 0; axis < 3; axis++) k[axis] = g.dilation[axis] * k[axis] - g.before[axis];
        weights[row] = make_int4(k[0], k[1], k[2], weight < count ? weight % g.channels : Reader::NOTHING);
    }
    __syncthreads();

    const long long all = (long long)g.samples * g.out[0] * g.out[1] * ((g.out[2] + SLICE - 1) / SLICE);
    const long long first = (long long)blockIdx.y * slices_of_a_part, end = min(first + slices_of_a_part, all);
    const bool bias = first_row == 0 && rows > count && threadIdx.x < WIDTH;
    float* const part = parts + (long long)blockIdx.y * rows * g.outputs;
    float gb = 0;
    Sums<WIDTH, Across> sums = {};
    Reader reader(g, x, x_steps, gy, gy_steps, weights, first_column, x_in_chunks, gy_in_chunks, first, end);
    add_slices(reader, sums, [&](Across<WIDTH>& gradient) {
        if (bias)
            for (int term = 0; term < SLICE; term++) gb += *gradient.at(threadIdx.x, term);
    });

    if (bias && first_column + threadIdx.x < g.outputs) part[(long long)count * g.outputs + first_column + threadIdx.x] = gb;
    sums.each([&](int row, int column, const float* sum) {
        const int weight = first_row + row, o = first_column + column;
        float* const to = part + (long long)weight * g.outputs + o;
        #pragma unroll
        for (int i = 0; i < Sums<WIDTH, Across>::RUN; i++)
            if (weight < count && o + i < g.outputs) to[i] = sum[i];
    });
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) tiled_grad_w_64(
    const STORED* __restrict__ x, const Steps<5> x_steps,
    const STORED* __restrict__ gy, const Steps<5> gy_steps,
    float* __restrict__ parts, const Geometry g, const int rows, const int slices_of_a_part, const bool x_in_chunks, const bool gy_in_chunks)
{
    weight_product<64>(x, x_steps, gy, gy_steps, parts, g, rows, slices_of_a_part, x_in_chunks, gy_in_chunks);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) tiled_grad_w_128(
    const STORED* __restrict__ x, const Steps<5> x_steps,
    const STORED* __restrict__ gy, const Steps<5> gy_steps,
    float* __restrict__ parts, const Geometry g, const int rows, const int slices_of_a_part, const bool x_in_chunks, const bool gy_in_chunks)
{
    weight_product<128>(x, x_steps, gy, gy_steps, parts, g, rows, slices_of_a_part, x_in_chunks, gy_in_chunks);
}

// parts: (gridDim.x, O): each block sums ∂y over some of the lines of pixels, each warp over some pixels of these, each lane for a channel.
extern "C" __global__ void tiled_grad_b(
    const STORED* __restrict__ gy, const Steps<5> gy_steps, float* __restrict__ parts, const Geometry g, const int lines_of_a_part)
{
    __shared__ float of_warp[WARP][WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP, o = blockIdx.y * WARP + lane;
    const int sizes[3] = {1, g.out[0], g.out[1]};
    const long long first = (long long)blockIdx.x * lines_of_a_part;
    const long long end = min(first + lines_of_a_part, (long long)g.samples * g.out[0] * g.out[1]);
    float sum = 0;
    for (long long number = first; number < end && o < g.outputs; number++) {
        int line[3];
        const int n = split(number, sizes, line);
        const STORED* const from = gy + gy_steps(n, o, line[1], line[2], 0);
        #pragma unroll 4
        for (int w = warp; w < g.out[2]; w += warps) sum += from[w * gy_steps.step[4]];
    }
    of_warp[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || o >= g.outputs) return;
    for (int i = 1; i < warps; i++) sum += of_warp[i][lane];
    parts[(long long)blockIdx.x * g.outputs + o] = sum;
}

// sum[i] = Σ_part parts[part, i], the first part first: one thread for each sum.
extern "C" __global__ void tiled_add_parts(
    const float* __restrict__ parts, float* __restrict__ sum, const int count, const long long size)
{
    const long long i = thread_number();
    if (i >= size) return;
    float total = 0;
    #pragma unroll 8
    for (int part = 0; part < count; part++) total += parts[part * size + i];
    sum[i] = total;
}
