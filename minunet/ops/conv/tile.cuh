// A tile of a matrix product, by one block: sum[row][column] += Σ_k A[row][k]·B[k][column], SLICE terms at a time.
//
//   memory → registers   a reader fetches the next slice while this one is multiplied
//   registers → panels   it puts the numbers into shared memory, as the words that the tensor cores take where those multiply
//   panels → sums        each thread has 64 sums in registers, and each number that it reads from a panel serves 8 of them or more

#include "tensor_cores.cuh"

constexpr int ROWS = 128;  // of a tile; WIDTH, the number of its columns, is 64 or 128
constexpr int SLICE = 16;  // terms

#ifdef TENSOR_CORES
typedef unsigned Word;
#else
typedef float Word;
__device__ inline Word word_of(float x) { return x; }
#endif

#if defined(FP16) || defined(BF16)
#define TWO_IN_A_WORD
constexpr int WORDS = SLICE / 2;
#else
constexpr int WORDS = SLICE;
#endif

struct __align__(16) Words {
    Word x, y, z, w;
};

// Numbers that lie side by side in memory: they are read and written at once.
struct __align__(4 * sizeof(STORED)) Four {
    STORED x, y, z, w;
};

struct __align__(2 * sizeof(STORED)) Two {
    STORED x, y;
};

// A slice of A or of B. Line `word` has that word of every row (column).
//
// Shared memory has 32 banks, and a warp is fast where its 32 words come from different ones. Eight words beside a line, and an exchange
// of neighbouring eights that changes every four lines, see to it for all ways in which panels are written and read here.
template <int COLUMNS>
struct __align__(16) Panel {
    Word words[WORDS][COLUMNS + 8];

    __device__ Word* at(int word, int column) { return &words[word][column ^ word / 4 % 4 * 8]; }

    // Terms k to k + 3 of one column; 4 divides k.
    __device__ void put_down(int k, int column, const Four& v) {
#ifdef TWO_IN_A_WORD
        *at(k / 2, column) = word_of(v.x, v.y);
        *at(k / 2 + 1, column) = word_of(v.z, v.w);
#else
        *at(k, column) = word_of(v.x);
        *at(k + 1, column) = word_of(v.y);
        *at(k + 2, column) = word_of(v.z);
        *at(k + 3, column) = word_of(v.w);
#endif
    }

    // Terms k and k + 1 of four columns; 2 divides k, 4 divides the column.
    __device__ void put_across(int k, int column, const Four& u, const Four& v) {
#ifdef TWO_IN_A_WORD
        four(k / 2, column) = {word_of(u.x, v.x), word_of(u.y, v.y), word_of(u.z, v.z), word_of(u.w, v.w)};
#else
        four(k, column) = {word_of(u.x), word_of(u.y), word_of(u.z), word_of(u.w)};
        four(k + 1, column) = {word_of(v.x), word_of(v.y), word_of(v.z), word_of(v.w)};
#endif
    }

    __device__ Words& four(int word, int column) { return *reinterpret_cast<Words*>(at(word, column)); }
};

#ifdef TENSOR_CORES

// The sums of one thread. A warp has 64×32 of the tile, as 4×4 pieces of 16×8, which its lanes share as tensor_cores.cuh says.
template <int WIDTH>
struct Sums {
    static constexpr int RUN = 2;  // sums that lie side by side in a row
    float of[4][4][4];

    __device__ static int row() { return threadIdx.x / 32 / (WIDTH / 32) * 64; }  // the warp's first
    __device__ static int column() { return threadIdx.x / 32 % (WIDTH / 32) * 32; }

    __device__ void add(Panel<ROWS>& a, Panel<WIDTH>& b) {
        const int q = threadIdx.x % 32 / 4, r = threadIdx.x % 4;
        #pragma unroll
        for (int word = 0; word < WORDS; word += 8) {
            unsigned x[4][4], y[4][2];
            #pragma unroll
            for (int i = 0; i < 4; i++) {
                x[i][0] = *a.at(word + r, row() + 16 * i + q);
                x[i][1] = *a.at(word + r, row() + 16 * i + q + 8);
                x[i][2] = *a.at(word + r + 4, row() + 16 * i + q);
                x[i][3] = *a.at(word + r + 4, row() + 16 * i + q + 8);
            }
            #pragma unroll
            for (int j = 0; j < 4; j++) {
                y[j][0] = *b.at(word + r, column() + 8 * j + q);
                y[j][1] = *b.at(word + r + 4, column() + 8 * j + q);
            }
            #pragma unroll
            for (int i = 0; i < 4; i++) {
                #pragma unroll
                for (int j = 0; j < 4; j++) tensor_step(of[i][j], x[i], y[j]);
            }
        }
    }

    // Calls take(row, column, sums) for each RUN of them.
    template <class Take>
    __device__ void each(Take take) {
        const int q = threadIdx.x % 32 / 4, r = threadIdx.x % 4;
        #pragma unroll
        for (int i = 0; i < 4; i++) {
            #pragma unroll
            for (int j = 0; j < 4; j++) {
                take(row() + 16 * i + q, column() + 8 * j + 2 * r, &of[i][j][0]);
                take(row() + 16 * i + q + 8, column() + 8 * j + 2 * r, &of[i][j][2]);
            }
        }
    }
};

#else

// The sums of one thread: 8×8 of the tile, as 2×2 pieces of 4×4, half a tile apart.
template <int WIDTH>
struct Sums {
    static constexpr int RUN = 4;  // sums that lie side by side in a row
    float of[8][8];

    __device__ static int row(int i) { return threadIdx.x / (WIDTH / 8) * 4 + i / 4 * (ROWS / 2) + i % 4; }
    __device__ static int column(int j) { return threadIdx.x % (WIDTH / 8) * 4 + j / 4 * (WIDTH / 2) + j % 4; }

    __device__ void add(Panel<ROWS>& a, Panel<WIDTH>& b) {
        #pragma unroll
        for (int k = 0; k < SLICE; k++) {
            const Words low = a.four(k, row(0)), high = a.four(k, row(4)), left = b.four(k, column(0)), right = b.four(k, column(4));
            const float x[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
            const float y[8] = {left.x, left.y, left.z, left.w, right.x, right.y, right.z, right.w};
            #pragma unroll
            for (int i = 0; i < 8; i++) {
                #pragma unroll
                for (int j = 0; j < 8; j++) of[i][j] += x[i] * y[j];
            }
        }
    }

    // Calls take(row, column, sums) for each RUN of them.
    template <class Take>
    __device__ void each(Take take) {
        #pragma unroll
        for (int i = 0; i < 8; i++) {
            take(row(i), column(0), &of[i][0]);
            take(row(i), column(4), &of[i][4]);
        }
    }
};

#endif

// Adds all slices that the reader has. Two pairs of panels take turns: while one is read the other is filled, and one barrier a slice is
// enough.
template <int WIDTH, class Reader>
__device__ inline void add_slices(Reader& reader, Sums<WIDTH>& sums) {
    __shared__ Panel<ROWS> a[2];
    __shared__ Panel<WIDTH> b[2];
    if (!reader.advance()) return;
    reader.fetch();
    reader.put(a[0], b[0]);
    for (int turn = 0;; turn = 1 - turn) {
        __syncthreads();  // this pair is filled, and nobody reads the other any more
        const bool more = reader.advance();
        if (more) reader.fetch();
        sums.add(a[turn], b[turn]);
        if (!more) return;
        reader.put(a[1 - turn], b[1 - turn]);
    }
}
