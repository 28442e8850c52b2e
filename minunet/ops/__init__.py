"""Everything differentiable. Light operations are a file each, heavy ones a folder with `ref`, `cpu` and `gpu` kernels."""
