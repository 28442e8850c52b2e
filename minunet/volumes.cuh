// Which element of a volume (N, C, D, H, W) a thread has; minunet/volumes.py says in which order the volume lies in memory.

struct Element {
    int n, c, i[3];  // i: along D, H, W
};

__device__ inline long long volume(const int* sizes) { return (long long)sizes[0] * sizes[1] * sizes[2]; }

// The elements counted as they lie in memory, so that the threads of a warp write side by side.
__device__ inline Element element_of(long long number, int channels, const int* sizes, bool channels_last) {
    Element e;
    if (channels_last) {
        e.c = number % channels;
        number /= channels;
    }
    for (int axis = 2; axis >= 0; axis--) {
        e.i[axis] = number % sizes[axis];
        number /= sizes[axis];
    }
    if (!channels_last) {
        e.c = number % channels;
        number /= channels;
    }
    e.n = number;
    return e;
}
