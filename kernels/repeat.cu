// The last word of a loop of steps in a graph: whether there is another round. Counts down `left`,
// which begins as `times`, and is that again in the end. Launch: one thread, once a round.
#include "base.cuh"

#ifdef __CUDA_ARCH__
// Of the CUDA runtime's device part, which the driver has: declared here, as NVRTC finds no header.
extern "C" __device__ void cudaGraphSetConditional(cudaGraphConditionalHandle, unsigned int);
#endif

struct Params {
  gp::u64 left;
  gp::i64 times;
  gp::u64 handle;
};

extern "C" __global__ void repeat_steps(const Params p) {
  gp::i64* left = gp::fixed<gp::i64>(p.left);
  const gp::i64 now = *left - 1;
  *left = now > 0 ? now : p.times;
#ifdef __CUDA_ARCH__
  cudaGraphSetConditional(p.handle, now > 0);
#else
  *gp::fixed<unsigned>(p.handle) = now > 0;
#endif
}
GP_KERNEL(repeat_steps, Params)
