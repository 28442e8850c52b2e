// The Radon transform and its adjoint, as minunet/ops/radon/__init__.py writes them: one thread for each result, always a gather, so two
// runs are bit-identical.
//
// The threads of a warp have neighbouring detectors, or neighbouring pixels of a row: they read neighbours. Places are computed in double
// whatever REAL is: in float A and Aᵀ would differ by the rounding of places, 10⁻⁵ of a pixel.

#include "cuda.cuh"

struct Scan {
    int images, height, width, angles, detectors;
};

// t = by_column·u + by_row·v + start: where pixel (v, u) is seen on the line of detectors.
struct Rays {
    double by_column, by_row, start;

    __device__ Rays(const double* of_angle) : by_column(of_angle[0]), by_row(of_angle[1]), start(of_angle[2]) {}
    __device__ bool cross_rows() const { return fabs(by_column) >= fabs(by_row); }
    __device__ double width() const { return cross_rows() ? fabs(by_column) : fabs(by_row); }
};

// y[n,θ,j] = Σ over the rows (or columns) that the ray crosses of the image there, between two pixels, times the way to the next.
extern "C" __global__ void project(
    const REAL* __restrict__ x, const Steps<3> x_steps,
    const double* __restrict__ rays, REAL* __restrict__ y, const Scan scan)
{
    const long long number = thread_number();
    if (number >= (long long)scan.images * scan.angles * scan.detectors) return;
    const int j = number % scan.detectors, k = number / scan.detectors % scan.angles, n = number / scan.detectors / scan.angles;
    const Rays ray(rays + 3 * k);
    const bool rows = ray.cross_rows();
    const double along = rows ? ray.by_column : ray.by_row, across = rows ? ray.by_row : ray.by_column, step = 1 / along;
    const int lines = rows ? scan.height : scan.width, pixels = rows ? scan.width : scan.height;
    REAL sum = 0;
    for (int line = 0; line < lines; line++) {
        const double place = (j - ray.start - across * line) * step;
        if (!(place > -1 && place < pixels)) continue;
        const int low = (int)(place + 1) - 1;  // place > −1, so this rounds down
        const REAL upper = place - low;
        if (low >= 0) sum += (1 - upper) * x[rows ? x_steps(n, line, low) : x_steps(n, low, line)];
        if (low + 1 < pixels) sum += upper * x[rows ? x_steps(n, line, low + 1) : x_steps(n, low + 1, line)];
    }
    y[number] = sum * (REAL)fabs(step);
}

// x[n,v,u] = Σ over angles of the two detectors that the pixel's shadow may fall on. linear: by linear interpolation, c = 1.
extern "C" __global__ void back_project(
    const REAL* __restrict__ y, const Steps<3> y_steps,
    const double* __restrict__ rays, const bool linear, REAL* __restrict__ x, const Scan scan)
{
    const long long number = thread_number();
    if (number >= (long long)scan.images * scan.height * scan.width) return;
    const int u = number % scan.width, v = number / scan.width % scan.height, n = number / scan.width / scan.height;
    REAL sum = 0;
    for (int k = 0; k < scan.angles; k++) {
        const Rays ray(rays + 3 * k);
        const double t = ray.by_column * u + ray.by_row * v + ray.start;
        if (!(t > -1 && t < scan.detectors)) continue;
        const int low = (int)(t + 1) - 1;
        const REAL c = linear ? 1 : ray.width(), beyond = t - low;
        const REAL near = (1 - beyond / c) / c, far = (1 - (1 - beyond) / c) / c;
        if (low >= 0 && near > 0) sum += near * y[y_steps(n, k, low)];
        if (low + 1 < scan.detectors && far > 0) sum += far * y[y_steps(n, k, low + 1)];
    }
    x[number] = sum;
}
