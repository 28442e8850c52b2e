// Dropout: the Philox generator of ref.py, bit by bit, and the product with the mask.

#include "cuda.cuh"

#define ROUNDS 10

// One thread for each counter, which decides about four elements. Sixteen neighbours write sixteen neighbouring bytes with each word.
// kept has whole blocks of 64 elements.
extern "C" __global__ void dropout_draw(
    bool* __restrict__ kept, const long long counters, const unsigned* __restrict__ key, const unsigned threshold)
{
    const long long counter = thread_number();
    if (counter >= counters) return;
    unsigned c0 = counter, c1 = counter >> 32, c2 = 0, c3 = 0, k0 = key[0], k1 = key[1];
    for (int round = 0; round < ROUNDS; round++) {
        const unsigned long long a = 0xD2511F53ull * c0, b = 0xCD9E8D57ull * c2;
        c0 = (unsigned)(b >> 32) ^ c1 ^ k0;
        c1 = b;
        c2 = (unsigned)(a >> 32) ^ c3 ^ k1;
        c3 = a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    bool* of_block = kept + counter / 16 * 64 + counter % 16;
    of_block[0] = c0 >= threshold;
    of_block[16] = c1 >= threshold;
    of_block[32] = c2 >= threshold;
    of_block[48] = c3 >= threshold;
}

// y = x·k·factor, arrays seen as (rows, width): one thread for each y, neighbours along the width, which follows x's memory.
extern "C" __global__ void dropout_scale(
    const STORED* __restrict__ x, const Steps<2> x_steps,
    const bool* __restrict__ kept, const Steps<2> kept_steps,
    STORED* __restrict__ y, const long long count, const long long width, const REAL factor)
{
    const long long number = thread_number();
    if (number >= count) return;
    const long long row = number / width, column = number % width;
    y[number] = x[x_steps(row, column)] * (kept[kept_steps(row, column)] ? factor : REAL(0));  // NaN stays
}
