// A tile of a matrix product, by one block: sum[row][column] += Σ_k A[row][k]·B[k][column], SLICE terms at a time.
//
//   memory → panels   a reader begins to copy a slice of A and one of B into shared memory, two slices ahead of what is multiplied
//   panels → sums     each warp has 64×64 sums in its registers, so that a number read from a panel serves many of them
//
// A tile has 128×128 sums or 256×64, where there are few columns: the same number, by 2×2 warps or by 4×1.

#include "copies.cuh"
#include "tensor_cores.cuh"
#include "volumes.cuh"

constexpr int THREADS = 128;
constexpr int STAGES = 3;                              // pairs of panels: one is read, the others are being filled
constexpr int SLICE = 4 * WIDE;                        // terms
template <int WIDTH>
constexpr int ROWS = 128 * 128 / WIDTH;                // of a tile, whose columns are WIDTH

typedef Together<STORED, WIDE> Chunk;  // the 16 bytes that are copied at once

// Two ways to lie for a slice of A or B. A *line* is a row of A or a column of B.
//
// Shared memory has 32 banks of 4 bytes, and 8 lanes that read 16 bytes each are fast where they meet all of them. So chunks change
// places within a line (Down) or a term (Across), others from line to line and from term to term.

#ifdef TENSOR_CORES
// 16 lines and 8 words are four matrices. For A they come as a[0…3] has them (tensor_cores.cuh), for B as b[0…1] of 8 lines and then of
// the 8 others: registers that an instruction reads together must be neighbours, or they are copied first.
template <bool of_b>
__device__ inline int half_of_lines(int matrix) { return of_b ? matrix / 2 : matrix % 2; }
template <bool of_b>
__device__ inline int half_of_words(int matrix) { return of_b ? matrix % 2 : matrix / 2; }
#endif

// The terms of a line lie side by side.
template <int LINES>
struct Down {
    Chunk chunks[LINES][4];

    __device__ Chunk* chunk(int line, int number) { return &chunks[line][number ^ line / 2 % 4]; }
    __device__ STORED* at(int line, int term) { return &chunk(line, term / WIDE)->number[term % WIDE]; }

#ifdef TENSOR_CORES
    // What a lane holds of 16 lines and 8 words. step: 0 or 1, a half of the slice.
    template <bool of_b>
    __device__ void pieces(int line, int step, unsigned (&words)[4]) {
        const int lane = threadIdx.x % 32, matrix = lane / 8;
        load_matrices(chunk(line + lane % 8 + 8 * half_of_lines<of_b>(matrix), 2 * step + half_of_words<of_b>(matrix)), words);
        round_words(words);
    }
#else
    __device__ static int own(int i) { return threadIdx.x % 8 + 8 * i; }  // which of a warp's 64 lines is a thread's line i
#endif
};

// The same term of all lines lies side by side.
template <int LINES>
struct Across {
    Chunk chunks[SLICE][LINES / WIDE];

    __device__ Chunk* chunk(int term, int number) { return &chunks[term][sizeof(STORED) == 2 ? number ^ term % 8 : number ^ term % 4 * 2]; }
    __device__ STORED* at(int line, int term) { return &chunk(term, line / WIDE)->number[line % WIDE]; }

#ifdef TENSOR_CORES
    template <bool of_b>
    __device__ void pieces(int line, int step, unsigned (&words)[4]) {
        const int lane = threadIdx.x % 32;
#ifdef TF32  // matrices of 16 bits alone can be turned as they are loaded
        #pragma unroll
        for (int i = 0; i < 4; i++)
            words[i] = __float_as_uint(*at(line + lane / 4 + 8 * half_of_lines<of_b>(i), 8 * step + lane % 4 + 4 * half_of_words<of_b>(i)));
        round_words(words);
#else
        const int matrix = lane / 8;
        load_turned(chunk(16 * step + lane % 8 + 8 * half_of_words<of_b>(matrix), line / WIDE + half_of_lines<of_b>(matrix)), words);
#endif
    }
#else
    __device__ static int own(int i) { return threadIdx.x % 8 * 4 + i / 4 * 32 + i % 4; }
#endif
};

// The sums of one thread. Panel: how A and B lie.
template <int WIDTH, template <int> class Panel>
struct Sums {
    typedef Panel<ROWS<WIDTH>> A;
    typedef Panel<WIDTH> B;

    __device__ static int row() { return threadIdx.x / 32 / (WIDTH / 64) * 64; }  // the warp's first
    __device__ static int column() { return threadIdx.x / 32 % (WIDTH / 64) * 64; }

#ifdef TENSOR_CORES

    static constexpr int RUN = 2;  // sums that lie side by side in a row
    float of[4][8][4];             // pieces of 16×8, which the lanes share

    // A step takes a half of the slice. What the next 16 columns need is loaded while these are multiplied, and so is the next step's A.
    __device__ void add(A& a, B& b) {
        unsigned x[2][4][4], y[2][4];
        #pragma unroll
        for (int i = 0; i < 4; i++) a.template pieces<false>(row() + 16 * i, 0, x[0][i]);
        b.template pieces<true>(column(), 0, y[0]);
        #pragma unroll
        for (int turn = 0; turn < 8; turn++) {
            const int step = turn / 4, j = turn % 4, next = turn + 1;
            if (next < 8) b.template pieces<true>(column() + 16 * (next % 4), next / 4, y[next % 2]);
            if (step == 0) a.template pieces<false>(row() + 16 * j, 1, x[1][j]);
            const unsigned left[2] = {y[turn % 2][0], y[turn % 2][1]}, right[2] = {y[turn % 2][2], y[turn % 2][3]};
            #pragma unroll
            for (int i = 0; i < 4; i++) {
                tensor_step(of[i][2 * j], x[step][i], left);
                tensor_step(of[i][2 * j + 1], x[step][i], right);
            }
        }
    }

    // Calls take(row, column, sums) for each RUN of them.
    template <class Take>
    __device__ void each(Take take) {
        const int q = threadIdx.x % 32 / 4, r = threadIdx.x % 4;
        #pragma unroll
        for (int j = 0; j < 8; j++) {
            #pragma unroll
            for (int i = 0; i < 4; i++) {
                take(row() + 16 * i + q, column() + 8 * j + 2 * r, &of[i][j][0]);
                take(row() + 16 * i + q + 8, column() + 8 * j + 2 * r, &of[i][j][2]);
            }
        }
    }

#else

    static constexpr int RUN = 4;
    float of[8][16];

    __device__ static int own_column(int j) { return threadIdx.x % 32 / 8 * 4 + j / 4 * 16 + j % 4; }

    __device__ void add(Down<ROWS<WIDTH>>& a, Down<WIDTH>& b) {
        #pragma unroll 1  // more at once would need more registers than there are
        for (int number = 0; number < 4; number++) {
            Chunk x[8];
            #pragma unroll
            for (int i = 0; i < 8; i++) x[i] = *a.chunk(row() + A::own(i), number);
            #pragma unroll
            for (int j = 0; j < 16; j++) {
                const Chunk y = *b.chunk(column() + own_column(j), number);
                #pragma unroll
                for (int k = 0; k < 4; k++) {
                    #pragma unroll
                    for (int i = 0; i < 8; i++) of[i][j] += x[i].number[k] * y.number[k];
                }
            }
        }
    }

    __device__ void add(Across<ROWS<WIDTH>>& a, Across<WIDTH>& b) {
        #pragma unroll
        for (int term = 0; term < SLICE; term++) {
            Chunk x[2], y[4];
            #pragma unroll
            for (int i = 0; i < 2; i++) x[i] = *a.chunk(term, (row() + A::own(4 * i)) / 4);
            #pragma unroll
            for (int j = 0; j < 4; j++) y[j] = *b.chunk(term, (column() + own_column(4 * j)) / 4);
            #pragma unroll
            for (int i = 0; i < 8; i++) {
                #pragma unroll
                for (int j = 0; j < 16; j++) of[i][j] += x[i / 4].number[i % 4] * y[j / 4].number[j % 4];
            }
        }
    }

    // Calls take(row, column, sums) for each RUN of them.
    template <class Take>
    __device__ void each(Take take) {
        #pragma unroll
        for (int j = 0; j < 16; j += 4) {
            #pragma unroll
            for (int i = 0; i < 8; i++) take(row() + A::own(i), column() + own_column(j), &of[i][j]);
        }
    }

#endif
};

// The shared memory that the launch gives to the block: STAGES pairs of panels, 64 bytes for a line of each.
__device__ inline Chunk* panels() {
    extern __shared__ Chunk memory[];
    return memory;
}

// Adds all slices that the reader has. It goes on to the next with `next()`, false after the last, and begins the copies with `copy(a, b)`.
// see(b): called for each slice of B when it is there.
template <int WIDTH, template <int> class Panel, class Reader, class See>
__device__ inline void add_slices(Reader& reader, Sums<WIDTH, Panel>& sums, See see) {
    struct Stage {
        Panel<ROWS<WIDTH>> a;
        Panel<WIDTH> b;
    };
    Stage* const stages = reinterpret_cast<Stage*>(panels());
    int begun = 0, filled = 0, read = 0;  // slices whose copies have begun; the stage that is filled next, and the one that is read
    bool more = true;
    const auto begin = [&]() {
        more = more && reader.next();
        if (more) {
            reader.copy(stages[filled].a, stages[filled].b);
            filled = (filled + 1) % STAGES;
            begun++;
        }
        end_group();
    };
    for (int i = 0; i < STAGES - 1; i++) begin();
    for (int i = 0; i < begun; i++) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();  // slice i has come, for all threads, and nobody reads the panels of the slice before any more:
        begin();          // they are filled anew
        sums.add(stages[read].a, stages[read].b);
        see(stages[read].b);
        read = (read + 1) % STAGES;
    }
}
