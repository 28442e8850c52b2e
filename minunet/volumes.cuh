// Which element of a volume (N, C, D, H, W) a thread has, and which its window meets; minunet/volumes.py says in which order the volume lies in memory.

struct Element {
    int n, c, i[3];  // i: along D, H, W
};

__device__ inline long long volume(const int* sizes) { return (long long)sizes[0] * sizes[1] * sizes[2]; }

// Number `number` of a volume's pixels, counted row by row: its place (d, h, w). What is left of the number counts whole volumes.
__device__ inline long long split(long long number, const int* sizes, int* place) {
    for (int axis = 2; axis >= 0; axis--) {
        place[axis] = number % sizes[axis];
        number /= sizes[axis];
    }
    return number;
}

// i = s·p + d·k − before, the element at place k of the window at p; false where it lies outside the input.
template <class Windows>
__device__ inline bool inside(const Windows& g, const int* p, const int* k, int* i) {
    bool is_inside = true;
    for (int axis = 0; axis < 3; axis++) {
        i[axis] = g.stride[axis] * p[axis] + g.dilation[axis] * k[axis] - g.before[axis];
        is_inside = is_inside && 0 <= i[axis] && i[axis] < g.in[axis];
    }
    return is_inside;
}

// The elements counted as they lie in memory, so that the threads of a warp write side by side.
__device__ inline Element element_of(long long number, int channels, const int* sizes, bool channels_last) {
    Element e;
    if (channels_last) {
        e.c = number % channels;
        number /= channels;
    }
    number = split(number, sizes, e.i);
    if (!channels_last) {
        e.c = number % channels;
        number /= channels;
    }
    e.n = number;
    return e;
}
