// Which element of a volume (N, C, D, H, W) a thread has, and which its window meets; minunet/volumes.py says in which order the volume lies in memory.

struct Element {
    int n, c, i[3];  // i: along D, H, W
};

__device__ inline long long volume(const int* sizes) { return (long long)sizes[0] * sizes[1] * sizes[2]; }

// Numbers that lie side by side, read and written by one instruction: the first of them stands at a multiple of what that one moves.
template <class T, int count>
struct alignas(count * sizeof(T) < 16 ? count * sizeof(T) : 16) Together {
    T number[count];
};

// How many channels of an image that is: an instruction moves 16 bytes at most.
#define WIDE (16 / int(sizeof(STORED)))

template <int count, class T>
__device__ inline Together<T, count> together(const T* first) {
    return *reinterpret_cast<const Together<T, count>*>(first);
}
template <int count, class T>
__device__ inline void put(T* first, const Together<T, count>& numbers) {
    *reinterpret_cast<Together<T, count>*>(first) = numbers;
}

// What is left when `number` is divided by `size`; number becomes the quotient. A division takes as long as 20 or 30 additions (that of
// numbers above 2³², which the compiler tells from the others, four times as long), so a thread divides no more than it must.
__device__ inline int rest(long long& number, int size) {
    if (size == 1) return 0;  // an axis that is absent
    const long long whole = number / size;
    const int left = number - whole * size;
    number = whole;
    return left;
}

// Number `number` of a volume's pixels, counted row by row: its place (d, h, w). What is left of the number counts whole volumes.
__device__ inline long long split(long long number, const int* sizes, int* place) {
    for (int axis = 2; axis >= 0; axis--) place[axis] = rest(number, sizes[axis]);
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

// The elements counted as they lie in memory, so that the threads of a warp write side by side; or every `count`-th channel of them.
template <int count = 1>
__device__ inline Element element_of(long long number, int channels, const int* sizes, bool channels_last) {
    Element e;
    if (channels_last) e.c = count * rest(number, channels / count);
    number = split(number, sizes, e.i);
    if (!channels_last) e.c = count * rest(number, channels / count);
    e.n = number;
    return e;
}
