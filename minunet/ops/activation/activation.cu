// ReLU and leaky ReLU: one thread for each result. Arrays are seen as (rows, width), neighbouring threads along the width, which follows
// the memory.

#include "cuda.cuh"

// y = max(x, 0), where NaN stays NaN
extern "C" __global__ void relu_forward(
    const STORED* __restrict__ x, const Steps<2> x_steps,
    STORED* __restrict__ y, const long long count, const long long width)
{
    const long long number = thread_number();
    if (number >= count) return;
    const REAL value = x[x_steps(number / width, number % width)];
    y[number] = value < 0 ? REAL(0) : value;
}

// ∂x = ∂y where y > 0, else 0; NaN is no reason to stop it
extern "C" __global__ void relu_backward(
    const STORED* __restrict__ gy, const Steps<2> gy_steps,
    const STORED* __restrict__ y, const Steps<2> y_steps,
    STORED* __restrict__ gx, const long long count, const long long width)
{
    const long long number = thread_number();
    if (number >= count) return;
    const long long row = number / width, column = number % width;
    gx[number] = y[y_steps(row, column)] <= 0 ? REAL(0) : REAL(gy[gy_steps(row, column)]);
}

// y = x where x > 0, else slope·x; NaN stays NaN
extern "C" __global__ void leaky_relu_forward(
    const STORED* __restrict__ x, const Steps<2> x_steps,
    STORED* __restrict__ y, const long long count, const long long width, const REAL slope)
{
    const long long number = thread_number();
    if (number >= count) return;
    const REAL value = x[x_steps(number / width, number % width)];
    y[number] = value > 0 ? value : slope * value;
}

// ∂x = ∂y where `signs`, which has the sign of x, is above 0, else slope·∂y
extern "C" __global__ void leaky_relu_backward(
    const STORED* __restrict__ gy, const Steps<2> gy_steps,
    const STORED* __restrict__ signs, const Steps<2> signs_steps,
    STORED* __restrict__ gx, const long long count, const long long width, const REAL slope)
{
    const long long number = thread_number();
    if (number >= count) return;
    const long long row = number / width, column = number % width;
    const REAL g = gy[gy_steps(row, column)];
    gx[number] = signs[signs_steps(row, column)] > 0 ? g : slope * g;
}
