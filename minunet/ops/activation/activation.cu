// ReLU and leaky ReLU. Arrays are seen as (rows, width), neighbouring threads along the width, which follows the memory: one thread for
// each result, or for as many as one instruction moves (`wide`).

#include "cuda.cuh"
#include "volumes.cuh"

// y[i] = f(x[i]) for the `count` numbers of this thread
template <int count, class F>
__device__ inline void forward(const STORED* x, const Steps<2>& x_steps, STORED* y, long long size, long long width, F f) {
    const long long number = thread_number() * count;
    if (number >= size) return;
    const auto values = together<count>(x + x_steps(number / width, number % width));
    Together<STORED, count> results;
    for (int i = 0; i < count; i++) results.number[i] = f(REAL(values.number[i]));
    put(y + number, results);
}

// ∂x[i] = f(∂y[i], s[i]), where s has the sign of x
template <int count, class F>
__device__ inline void backward(const STORED* gy, const Steps<2>& gy_steps, const STORED* signs, const Steps<2>& signs_steps, STORED* gx,
                                long long size, long long width, F f) {
    const long long number = thread_number() * count;
    if (number >= size) return;
    const long long row = number / width, column = number % width;
    const auto values = together<count>(gy + gy_steps(row, column));
    const auto sides = together<count>(signs + signs_steps(row, column));
    Together<STORED, count> results;
    for (int i = 0; i < count; i++) results.number[i] = f(REAL(values.number[i]), REAL(sides.number[i]));
    put(gx + number, results);
}

// y = max(x, 0), where NaN stays NaN
extern "C" __global__ void relu_forward(
    const STORED* __restrict__ x, const Steps<2> x_steps,
    STORED* __restrict__ y, const long long size, const long long width, const bool wide)
{
    const auto f = [](REAL value) { return value < 0 ? REAL(0) : value; };
    if (wide) forward<WIDE>(x, x_steps, y, size, width, f);
    else forward<1>(x, x_steps, y, size, width, f);
}

// ∂x = ∂y where y > 0, else 0; NaN is no reason to stop it
extern "C" __global__ void relu_backward(
    const STORED* __restrict__ gy, const Steps<2> gy_steps,
    const STORED* __restrict__ y, const Steps<2> y_steps,
    STORED* __restrict__ gx, const long long size, const long long width, const bool wide)
{
    const auto f = [](REAL gradient, REAL value) { return value <= 0 ? REAL(0) : gradient; };
    if (wide) backward<WIDE>(gy, gy_steps, y, y_steps, gx, size, width, f);
    else backward<1>(gy, gy_steps, y, y_steps, gx, size, width, f);
}

// y = x where x > 0, else slope·x; NaN stays NaN
extern "C" __global__ void leaky_relu_forward(
    const STORED* __restrict__ x, const Steps<2> x_steps,
    STORED* __restrict__ y, const long long size, const long long width, const bool wide, const REAL slope)
{
    const auto f = [=](REAL value) { return value > 0 ? value : slope * value; };
    if (wide) forward<WIDE>(x, x_steps, y, size, width, f);
    else forward<1>(x, x_steps, y, size, width, f);
}

// ∂x = ∂y where `signs`, which has the sign of x, is above 0, else slope·∂y
extern "C" __global__ void leaky_relu_backward(
    const STORED* __restrict__ gy, const Steps<2> gy_steps,
    const STORED* __restrict__ signs, const Steps<2> signs_steps,
    STORED* __restrict__ gx, const long long size, const long long width, const bool wide, const REAL slope)
{
    const auto f = [=](REAL gradient, REAL side) { return side > 0 ? gradient : slope * gradient; };
    if (wide) backward<WIDE>(gy, gy_steps, signs, signs_steps, gx, size, width, f);
    else backward<1>(gy, gy_steps, signs, signs_steps, gx, size, width, f);
}
