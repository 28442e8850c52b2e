// Winograd's convolution F(4×4, 3×3): sixteen results of a 3×3 window for 36 multiplications instead of 144.
//
//     Y = Aᵀ [ Σ_c (G w Gᵀ) ⊙ (Bᵀ X B) ] A                forward, and ∂x with turned weights
//     ∂w = Gᵀ [ Σ_tiles (Bᵀ X B) ⊙ (A ∂Y Aᵀ) ] G          X: 6×6 pixels of a channel, Y: 4×4, w: 3×3 taps, ⊙: place by place
//
// Tiles of X overlap by two pixels. minunet/ops/conv/cpu/winograd.py says where the matrices come from. Each sum is, at each of the 36
// places, a product of two matrices: first the factors are transformed into memory, then they are multiplied, then the sums are
// transformed back. In the transforms a thread has one channel of one tile, and neighbouring threads have neighbouring channels.

#include "cuda.cuh"
#include "tile.cuh"

constexpr int IN = 6, OUT = 4, TAPS = 3, PLACES = IN * IN;

// ---- the transforms ----

// The points are 0, ±P, ±Q and ∞. The rows of ±P differ in the signs of odd powers alone, and so do those of ±Q: what they share is
// computed once.
constexpr REAL P = REAL(0.75), Q = REAL(1.5), PP = P * P, QQ = Q * Q;
constexpr REAL AT_0 = 1 / (PP * QQ), AT_P = 1 / (2 * PP * (PP - QQ)), AT_Q = 1 / (2 * QQ * (QQ - PP));  // one over Π(p_i − p_j)

struct Image {  // Bᵀ
    static constexpr int FROM = IN, TO = IN;

    __device__ static void apply(const REAL* x, REAL* v) {
        const REAL even_p = x[4] - QQ * x[2], odd_p = P * (x[3] - QQ * x[1]);
        const REAL even_q = x[4] - PP * x[2], odd_q = Q * (x[3] - PP * x[1]);
        v[0] = PP * QQ * x[0] - (PP + QQ) * x[2] + x[4];
        v[1] = even_p + odd_p;
        v[2] = even_p - odd_p;
        v[3] = even_q + odd_q;
        v[4] = even_q - odd_q;
        v[5] = PP * QQ * x[1] - (PP + QQ) * x[3] + x[5];
    }
};

struct Weights {  // G
    static constexpr int FROM = TAPS, TO = IN;

    __device__ static void apply(const REAL* w, REAL* u) {
        const REAL even_p = AT_P * (w[0] + PP * w[2]), odd_p = AT_P * P * w[1];
        const REAL even_q = AT_Q * (w[0] + QQ * w[2]), odd_q = AT_Q * Q * w[1];
        u[0] = AT_0 * w[0];
        u[1] = even_p + odd_p;
        u[2] = even_p - odd_p;
        u[3] = even_q + odd_q;
        u[4] = even_q - odd_q;
        u[5] = w[2];
    }
};

struct Result {  // Aᵀ
    static constexpr int FROM = IN, TO = OUT;

    __device__ static void apply(const REAL* m, REAL* y) {
        const REAL even_p = m[1] + m[2], odd_p = P * (m[1] - m[2]), even_q = m[3] + m[4], odd_q = Q * (m[3] - m[4]);
        y[0] = m[0] + even_p + even_q;
        y[1] = odd_p + odd_q;
        y[2] = PP * even_p + QQ * even_q;
        y[3] = PP * odd_p + QQ * odd_q + m[5];
    }
};

struct Gradient {  // A
    static constexpr int FROM = OUT, TO = IN;

    __device__ static void apply(const REAL* y, REAL* v) {
        const REAL even_p = y[0] + PP * y[2], odd_p = P * (y[1] + PP * y[3]);
        const REAL even_q = y[0] + QQ * y[2], odd_q = Q * (y[1] + QQ * y[3]);
        v[0] = y[0];
        v[1] = even_p + odd_p;
        v[2] = even_p - odd_p;
        v[3] = even_q + odd_q;
        v[4] = even_q - odd_q;
        v[5] = y[3];
    }
};

struct WeightGradient {  // Gᵀ
    static constexpr int FROM = IN, TO = TAPS;

    __device__ static void apply(const REAL* s, REAL* w) {
        const REAL even_p = AT_P * (s[1] + s[2]), odd_p = AT_P * P * (s[1] - s[2]);
        const REAL even_q = AT_Q * (s[3] + s[4]), odd_q = AT_Q * Q * (s[3] - s[4]);
        w[0] = AT_0 * s[0] + even_p + even_q;
        w[1] = odd_p + odd_q;
        w[2] = PP * even_p + QQ * even_q + s[5];
    }
};

template <int SIZE>
struct Square {
    REAL of[SIZE][SIZE];
};

// T·x·Tᵀ
template <class T>
__device__ inline Square<T::TO> both_ways(const Square<T::FROM>& x) {
    REAL half[T::FROM][T::TO];  // (T·x)ᵀ
    #pragma unroll
    for (int j = 0; j < T::FROM; j++) {
        REAL line[T::FROM];
        #pragma unroll
        for (int i = 0; i < T::FROM; i++) line[i] = x.of[i][j];
        T::apply(line, half[j]);
    }
    Square<T::TO> all;
    #pragma unroll
    for (int i = 0; i < T::TO; i++) {
        REAL line[T::FROM];
        #pragma unroll
        for (int j = 0; j < T::FROM; j++) line[j] = half[j][i];
        T::apply(line, all.of[i]);
    }
    return all;
}

// ---- images to places and back ----

// Tiles `first` to `first` + `count` of all images, which are held at a time.
struct Tiles {
    int first, count, down, across;  // down, across: how many an image has
};

// Which channel of which tile a thread has.
struct Spot {
    int at, channel, number, n, h, w;  // at: in (tiles, channels); number: of the tile there; h, w: its first pixel of the result

    __device__ Spot(const Tiles& t, int channels) {
        const int i = thread_number();
        at = i;
        channel = i % channels;
        number = i / channels;
        const int tile = t.first + number;
        n = tile / t.across / t.down;
        h = tile / t.across % t.down * OUT;
        w = tile % t.across * OUT;
    }
};

// SIZE×SIZE pixels from (h, w) on, 0 beyond the edge.
template <int SIZE>
__device__ inline Square<SIZE> pixels(const STORED* x, const Steps<4>& x_steps, int n, int c, int h, int w, int height, int width) {
    Square<SIZE> found;
    const STORED* const corner = x + x_steps(n, c, h, w);
    #pragma unroll
    for (int i = 0; i < SIZE; i++) {
        #pragma unroll
        for (int j = 0; j < SIZE; j++) {
            const bool is_inside = 0 <= h + i && h + i < height && 0 <= w + j && w + j < width;
            found.of[i][j] = is_inside ? REAL(corner[i * x_steps.step[2] + j * x_steps.step[3]]) : 0;
        }
    }
    return found;
}

// A number at each place, to an array (36, …) and from there: `at` is where the first stands, `step` how far it is to the next.
__device__ inline void scatter(const Square<IN>& square, STORED* to, long long at, long long step) {
    #pragma unroll
    for (int place = 0; place < PLACES; place++) to[at + place * step] = square.of[place / IN][place % IN];
}

__device__ inline Square<IN> gather(const STORED* from, long long at, long long step) {
    Square<IN> square;
    #pragma unroll
    for (int place = 0; place < PLACES; place++) square.of[place / IN][place % IN] = from[at + place * step];
    return square;
}

// v = Bᵀ X B: (36, tiles, C)
extern "C" __global__ void __launch_bounds__(256) winograd_image(
    const STORED* __restrict__ x, const Steps<4> x_steps,
    STORED* __restrict__ v, const Tiles t, const int channels, const int height, const int width, const int above, const int before)
{
    const Spot s(t, channels);
    if (s.number >= t.count) return;
    const auto square = pixels<IN>(x, x_steps, s.n, s.channel, s.h - above, s.w - before, height, width);
    scatter(both_ways<Image>(square), v, s.at, (long long)t.count * channels);
}

// u = G w Gᵀ: (36, O, C)
extern "C" __global__ void __launch_bounds__(256) winograd_weights(
    const REAL* __restrict__ w, const Steps<4> w_steps,
    STORED* __restrict__ u, const int channels, const int outputs)
{
    const int number = thread_number(), c = number % channels, o = number / channels;
    if (o >= outputs) return;
    Square<TAPS> taps;
    #pragma unroll
    for (int i = 0; i < TAPS; i++) {
        #pragma unroll
        for (int j = 0; j < TAPS; j++) taps.of[i][j] = w[w_steps(o, c, i, j)];
    }
    scatter(both_ways<Weights>(taps), u, number, (long long)outputs * channels);
}

// y = Aᵀ m A + b from m (36, tiles, O)
extern "C" __global__ void __launch_bounds__(256) winograd_result(
    const STORED* __restrict__ m,
    const REAL* __restrict__ b, const Steps<1> b_steps,
    STORED* __restrict__ y, const Steps<4> y_steps,
    const Tiles t, const int outputs, const int height, const int width, const bool relu)
{
    const Spot s(t, outputs);
    if (s.number >= t.count) return;
    const auto square = both_ways<Result>(gather(m, s.at, (long long)t.count * outputs));
    const REAL shift = b ? b[b_steps(s.channel)] : 0;
    STORED* const corner = y + y_steps(s.n, s.channel, s.h, s.w);
    #pragma unroll
    for (int i = 0; i < OUT; i++) {
        #pragma unroll
        for (int j = 0; j < OUT; j++) {
            if (s.h + i >= height || s.w + j >= width) continue;
            const REAL value = square.of[i][j] + shift;
            corner[i * y_steps.step[2] + j * y_steps.step[3]] = relu && value < 0 ? REAL(0) : value;
        }
    }
}

// v = A ∂Y Aᵀ: (36, tiles, O). totals: (all tiles, O), the sum of each ∂Y, where it is wanted.
extern "C" __global__ void __launch_bounds__(256) winograd_gradient(
    const STORED* __restrict__ gy, const Steps<4> gy_steps,
    STORED* __restrict__ v, REAL* __restrict__ totals, const Tiles t, const int outputs, const int height, const int width)
{
    const Spot s(t, outputs);
    if (s.number >= t.count) return;
    const auto square = pixels<OUT>(gy, gy_steps, s.n, s.channel, s.h, s.w, height, width);
    scatter(both_ways<Gradient>(square), v, s.at, (long long)t.count * outputs);
    if (!totals) return;
    REAL total = 0;
    #pragma unroll
    for (int i = 0; i < OUT * OUT; i++) total += square.of[i / OUT][i % OUT];
    totals[(long long)(t.first + s.number) * outputs + s.channel] = total;
}

// ∂w (3, 3, C, O) = Gᵀ [ Σ_part parts ] G, the first part first.
extern "C" __global__ void __launch_bounds__(256) winograd_grad_w(
    const STORED* __restrict__ parts, const Steps<4> parts_steps,
    REAL* __restrict__ gw, const int count, const int channels, const int outputs)
{
    const int number = thread_number(), o = number % outputs, c = number / outputs;
    if (c >= channels) return;
    Square<IN> sum = {};
    for (int part = 0; part < count; part++) {
        #pragma unroll
        for (int place = 0; place < PLACES; place++) sum.of[place / IN][place % IN] += parts[parts_steps(part, place, c, o)];
    }
    const auto taps = both_ways<WeightGradient>(sum);
    #pragma unroll
    for (int tap = 0; tap < TAPS * TAPS; tap++) gw[((long long)tap * channels + c) * outputs + o] = taps.of[tap / TAPS][tap % TAPS];
}

// ∂b[o] = Σ_tile totals[tile, o]: one block for each.
extern "C" __global__ void __launch_bounds__(1024) winograd_grad_b(
    const REAL* __restrict__ totals, REAL* __restrict__ gb, const int tiles, const int outputs)
{
    REAL sum = 0;
    for (long long tile = threadIdx.x; tile < tiles; tile += blockDim.x) sum += totals[tile * outputs + blockIdx.x];
    sum = block_sum(sum);
    if (threadIdx.x == 0) gb[blockIdx.x] = sum;
}

// ---- the products ----

// Lines `first` and after of a matrix, a slice at a time. Here the matrix is (lines, terms).
struct TermsBeside {
    const STORED* const matrix;
    const int first, lines, terms;

    template <int LINES>
    __device__ void copy(Down<LINES>& panel, int slice) const {
        const int number = threadIdx.x % 4, term = slice + number * WIDE;
        #pragma unroll
        for (int i = 0; i < LINES * 4 / THREADS; i++) {
            const int line = threadIdx.x / 4 + i * THREADS / 4;
            const bool there = first + line < lines && term < terms;
            copy_chunk(panel.chunk(line, number), matrix + (long long)(first + line) * terms + term, there);
        }
    }
};

// Here it is (terms, lines).
struct LinesBeside {
    const STORED* const matrix;
    const int first, lines, terms;

    template <int LINES>
    __device__ void copy(Across<LINES>& panel, int slice) const {
        constexpr int OF_A_TERM = LINES / WIDE;
        const int number = threadIdx.x % OF_A_TERM, line = first + number * WIDE;
        #pragma unroll
        for (int i = 0; i < SLICE * OF_A_TERM / THREADS; i++) {
            const int term = threadIdx.x / OF_A_TERM + i * (THREADS / OF_A_TERM);
            const bool there = line < lines && slice + term < terms;
            copy_chunk(panel.chunk(term, number), matrix + (long long)(slice + term) * lines + line, there);
        }
    }
};

// The slices of two matrices that begin at terms `slice` + SLICE to `end`.
template <class Lines>
struct Matrices {
    const Lines a, b;
    int slice;
    const int end;

    __device__ bool next() { return (slice += SLICE) < end; }

    template <class PanelA, class PanelB>
    __device__ void copy(PanelA& to_a, PanelB& to_b) const {
        a.copy(to_a, slice);
        b.copy(to_b, slice);
    }
};

// A tile of sums, to where it stands in a matrix (rows, columns); `more`: added to what is there.
template <int WIDTH, template <int> class Panel>
__device__ inline void write(Sums<WIDTH, Panel>& sums, STORED* matrix, int first_row, int first_column, int rows, int columns, bool more) {
    sums.each([&](int row, int column, const float* sum) {
        constexpr int RUN = Sums<WIDTH, Panel>::RUN;
        row += first_row;
        column += first_column;
        if (row >= rows || column >= columns) return;
        STORED* const to = matrix + (long long)row * columns + column;
        if constexpr (RUN == WIDE) {
            Chunk all = more ? *reinterpret_cast<Chunk*>(to) : Chunk{};
            #pragma unroll
            for (int i = 0; i < RUN; i++) all.number[i] += sum[i];
            *reinterpret_cast<Chunk*>(to) = all;
        } else {
            #pragma unroll
            for (int i = 0; i < RUN; i++) to[i] = (more ? float(to[i]) : 0) + sum[i];
        }
    });
}

// m (36, rows, columns) = a (36, rows, terms) · b (36, columns, terms) at place blockIdx.y
template <int WIDTH>
__device__ inline void product(const STORED* a, const STORED* b, STORED* m, int rows, int columns, int terms) {
    const int across = (columns + WIDTH - 1) / WIDTH, first_row = blockIdx.x / across * ROWS<WIDTH>, first_column = blockIdx.x % across * WIDTH;
    const long long place = blockIdx.y;
    Matrices<TermsBeside> matrices = {
        {a + place * rows * terms, first_row, rows, terms}, {b + place * columns * terms, first_column, columns, terms}, -SLICE, terms};
    Sums<WIDTH, Down> sums = {};
    add_slices(matrices, sums, [](Down<WIDTH>&) {});
    write(sums, m + place * rows * columns, first_row, first_column, rows, columns, false);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) winograd_product_64(
    const STORED* __restrict__ a, const STORED* __restrict__ b, STORED* __restrict__ m, const int rows, const int columns, const int terms)
{
    product<64>(a, b, m, rows, columns, terms);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) winograd_product_128(
    const STORED* __restrict__ a, const STORED* __restrict__ b, STORED* __restrict__ m, const int rows, const int columns, const int terms)
{
    product<128>(a, b, m, rows, columns, terms);
}

// parts (…, 36, rows, columns) = a (36, terms, rows)ᵀ · b (36, terms, columns) at place blockIdx.y, over the terms of part blockIdx.z;
// `more`: added to what is there
template <int WIDTH>
__device__ inline void sum_over_tiles(const STORED* a, const STORED* b, STORED* parts, int rows, int columns, int terms, int terms_of_a_part,
                                      bool more) {
    const int across = (columns + WIDTH - 1) / WIDTH, first_row = blockIdx.x / across * ROWS<WIDTH>, first_column = blockIdx.x % across * WIDTH;
    const int begin = blockIdx.z * terms_of_a_part, end = min(begin + terms_of_a_part, terms);
    const long long place = blockIdx.y;
    Matrices<LinesBeside> matrices = {
        {a + place * terms * rows, first_row, rows, end}, {b + place * terms * columns, first_column, columns, end}, begin - SLICE, end};
    Sums<WIDTH, Across> sums = {};
    add_slices(matrices, sums, [](Across<WIDTH>&) {});
    write(sums, parts + (blockIdx.z * PLACES + place) * rows * columns, first_row, first_column, rows, columns, more);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) winograd_sum_64(
    const STORED* __restrict__ a, const STORED* __restrict__ b, STORED* __restrict__ parts,
    const int rows, const int columns, const int terms, const int terms_of_a_part, const bool more)
{
    sum_over_tiles<64>(a, b, parts, rows, columns, terms, terms_of_a_part, more);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) winograd_sum_128(
    const STORED* __restrict__ a, const STORED* __restrict__ b, STORED* __restrict__ parts,
    const int rows, const int columns, const int terms, const int terms_of_a_part, const bool more)
{
    sum_over_tiles<128>(a, b, parts, rows, columns, terms, terms_of_a_part, more);
}
