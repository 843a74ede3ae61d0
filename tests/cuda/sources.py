"""Every CUDA source that the tests build, with a name for each.

Until the backend generates sources these are samples, each of which uses what generated kernels do.
"""

from __future__ import annotations

_CONVENTION = """
#ifndef GP_KERNEL
#define GP_KERNEL(name, Params)
#define GP_DYNAMIC_SHARED(type, name)                      \\
    extern __shared__ __align__(16) unsigned char gp_dynamic_shared_[]; \\
    type *name = reinterpret_cast<type *>(gp_dynamic_shared_)
#endif
"""

_CHAIN = """
struct P { const float *x; float *y; long long n; };
extern "C" __global__ void __launch_bounds__(256) chain(const P p) {
    long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < p.n; i += step) {
        float x = __ldg(p.x + i);
        p.y[i] = tanhf(x) * rsqrtf(fmaf(x, x, 1.0f)) + (isnan(x) ? 0.0f : fmaxf(x, 0.0f));
    }
}
GP_KERNEL(chain, P)
"""

_ROWS = """
#include <cuda_bf16.h>
#include <cuda_fp16.h>
struct P { const float *x; __half *half_sums; __nv_bfloat16 *brain_sums; int columns; };
extern "C" __global__ void __launch_bounds__(128) row_sums(const P p) {
    GP_DYNAMIC_SHARED(float, part);
    float sum = 0.0f;
    for (int j = threadIdx.x; j < p.columns; j += blockDim.x)
        sum += p.x[(long long)blockIdx.x * p.columns + j];
    for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lane);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int warp = 1; warp < int(blockDim.x / 32); ++warp) sum += part[warp];
    p.half_sums[blockIdx.x] = __float2half_rn(sum);
    p.brain_sums[blockIdx.x] = __float2bfloat16(sum);
}
GP_KERNEL(row_sums, P)
"""


def all_sources() -> dict[str, str]:
    """Name -> text."""
    return {"sample_chain": _CONVENTION + _CHAIN, "sample_rows": _CONVENTION + _ROWS}
