// The sizes of a convolution, as minunet/ops/conv/gpu.py tells them to the kernels.

struct Geometry {
    int samples, channels, outputs, groups;                    // N, C, O, g
    int in[3], out[3], kernel[3], stride[3], before[3], dilation[3];  // along D, H, W
};
