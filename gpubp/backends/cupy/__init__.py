"""CUDA through CuPy: the same programs on NVIDIA GPUs, from CUDA C++ kernels compiled by NVRTC."""
