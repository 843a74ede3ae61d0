"""`gpubp.testing.check_cuda`: right kernels run, and each thing that a kernel must not do is named
with its line.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gpubp.backends.cuda.drivers import bare_nvrtc
from gpubp.errors import ArgumentError, BackendError
from gpubp.testing import KernelError, Output, check_cuda

pytestmark = pytest.mark.skipif(bool(bare_nvrtc.missing()), reason=bare_nvrtc.missing() or "-")

ADD = """extern "C" __global__ void add(const float* a, const float* b, float* c, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n)
    c[i] = a[i] + b[i];
}"""

SUM = """extern "C" __global__ void total(const float* x, float* y) {
  __shared__ float s[256];
  int t = threadIdx.x;
  s[t] = x[t];
  for (int half = blockDim.x / 2; half > 0; half /= 2) {
    __syncthreads();
    if (t < half)
      s[t] += s[t + half];
  }
  if (t == 0) *y = s[0];
}"""


def add(source: str = ADD, n: int = 100, **options: Any) -> np.ndarray:
    a = np.arange(100, dtype=np.float32)
    args = [a, 10 * a, Output(100), n]
    return check_cuda(source, grid=4, block=32, args=args, **options).arrays[2]


def total(source: str = SUM, block: int = 256) -> np.ndarray:
    x = np.arange(256, dtype=np.float32)
    return check_cuda(source, "total", grid=1, block=block, args=[x, Output(1)]).arrays[1]


def faulty(run: Any, *args: Any, **options: Any) -> KernelError:
    with pytest.raises(KernelError) as caught:
        run(*args, **options)
    return caught.value


def test_right_kernels_are_right() -> None:
    np.testing.assert_array_equal(add(), 11 * np.arange(100, dtype=np.float32))
    assert total() == 255 * 128
    # What is given stays as it is: the kernel works on copies.
    x = np.zeros(4, np.float32)
    kernel = 'extern "C" __global__ void k(float* x) { x[threadIdx.x] = 3; }'
    assert check_cuda(kernel, grid=1, block=4, args=[x]).arrays[0].tolist() == [3] * 4
    assert x.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("old", "new", "verb", "thread"),
    [
        (
            "i < n",
            "i <= n",
            "reads 4 bytes out of bounds: 0 bytes behind an allocation of 400",
            (4, 0, 0),
        ),
        (
            "a[i]",
            "a[i - 1]",
            "reads 4 bytes out of bounds: 4 bytes before an allocation",
            (0, 0, 0),
        ),
        ("c[i] =", "c[2 * i] =", "writes 4 bytes out of bounds", (18, 0, 0)),
    ],
)
def test_what_is_out_of_bounds(old: str, new: str, verb: str, thread: Any) -> None:
    fault = faulty(add, ADD.replace(old, new))
    assert (fault.kind, fault.kernel, fault.thread, fault.line) == ("bounds", "add", thread, 4)
    assert verb in str(fault)
    assert "c[" in fault.text


def test_what_is_left_unwritten() -> None:
    fault = faulty(add, n=98)
    assert fault.kind == "unwritten"
    assert "left 2 of 100 elements of array 2 unwritten, the first is (98,)" in str(fault)
    check_cuda(
        ADD, grid=4, block=32, args=[*[np.ones(100, np.float32)] * 2, Output(100, partial=True), 9]
    )
    reads = ADD.replace("c[i] =", "c[i] +=")
    fault = faulty(add, reads)
    assert (fault.kind, fault.line) == ("unwritten", 4)
    assert "reads 4 bytes that nobody wrote: byte 0 of an allocation of 400 bytes" in str(fault)


@pytest.mark.parametrize(
    ("old", "new", "kind", "line"),
    [
        ("__syncthreads();", "", "race", 8),
        ("t + half]", "t + half + 1]", "bounds", 8),
        ("s[256]", "s[255]", "bounds", 4),
        ("s[t] = x[t];", "if (t) s[t] = x[t];", "unwritten", 8),
        ("int t = ", "if (threadIdx.x == 77) return; int t = ", "barrier", 6),
        ("__syncthreads();", "if (t < 100) __syncthreads(); else __syncthreads();", "barrier", 6),
        ("__syncthreads();", "if (t < 128) __syncthreads();", "barrier", 6),
        ("if (t == 0) *y", "*y", "race", 10),
    ],
)
def test_seeded_faults_of_a_reduction(old: str, new: str, kind: str, line: int) -> None:
    fault = faulty(total, SUM.replace(old, new))
    assert (fault.kind, fault.line) == (kind, line), str(fault)
    assert fault.text == SUM.replace(old, new).splitlines()[line - 1]


def test_a_race_names_both_threads() -> None:
    fault = faulty(total, SUM.replace("__syncthreads();", ""))
    assert "thread (128, 0, 0) of block (0, 0, 0) wrote" in str(fault)
    assert fault.thread == (0, 0, 0)


def test_a_barrier_says_who_does_not_come() -> None:
    fault = faulty(total, SUM.replace("int t = ", "if (threadIdx.x == 77) return; int t = "))
    assert "waits in a barrier that not all reach: thread (77, 0, 0) has ended" in str(fault)


def test_threads_that_ended_may_be_left_out() -> None:
    source = """extern "C" __global__ void k(const int* x, int* y, int n) {
      __shared__ int s[64];
      int t = threadIdx.x;
      if (t >= n) return;
      s[t] = x[blockIdx.x * n + t];
      __syncthreads();
      y[blockIdx.x * n + t] = s[n - 1 - t];
    }"""
    x = np.arange(100, dtype=np.int32)
    args = [x, Output(100, np.int32), 50]
    assert faulty(check_cuda, source, grid=2, block=64, args=args).kind == "barrier"
    found = check_cuda(source, grid=2, block=64, args=args, early_exit=True).arrays[1]
    np.testing.assert_array_equal(found, x.reshape(2, 50)[:, ::-1].reshape(-1))
    racing = source.replace("__syncthreads();", "if (t) __syncthreads();")
    fault = faulty(check_cuda, racing, grid=2, block=64, args=args, early_exit=True)
    assert fault.kind in ("race", "unwritten")


def test_a_warp_needs_no_block_barrier() -> None:
    source = """extern "C" __global__ void k(float* x) {
      __shared__ float s[64];
      int t = threadIdx.x;
      s[t] = x[t];
      __syncwarp();
      x[t] = s[t ^ 1];
      __syncwarp();
      s[t] = 100;
      __syncwarp();
      x[t] += s[t ^ 1];
    }"""
    x = np.arange(64, dtype=np.float32)
    found = check_cuda(source, grid=1, block=64, args=[x]).arrays[0]
    np.testing.assert_array_equal(found, 100 + x.reshape(-1, 2)[:, ::-1].reshape(-1))
    for i in (0, 1, 2):
        pieces = source.split("__syncwarp();")
        bad = "__syncwarp();".join(pieces[: i + 1]) + "__syncwarp();".join(pieces[i + 1 :])
        assert faulty(check_cuda, bad, grid=1, block=64, args=[x]).kind == "race"
    across = source.replace("t ^ 1", "t ^ 32")
    assert faulty(check_cuda, across, grid=1, block=64, args=[x]).kind == "race"


def test_blocks_race_in_device_memory() -> None:
    source = """extern "C" __global__ void k(int* x) {
      x[threadIdx.x] = blockIdx.x;
    }"""
    fault = faulty(check_cuda, source, grid=2, block=8, args=[np.full(8, -1, np.int32)])
    assert (fault.kind, fault.line) == ("race", 2)
    one_value = source.replace("blockIdx.x", "7")  # all write the same: no harm
    check_cuda(one_value, grid=2, block=8, args=[np.zeros(8, np.int32)])
    counted = source.replace("x[threadIdx.x] = blockIdx.x", "atomicAdd(x, 1)")
    assert check_cuda(counted, grid=2, block=8, args=[np.zeros(8, np.int32)]).arrays[0][0] == 16
    mixed = source.replace("x[threadIdx.x] = blockIdx.x", "atomicAdd(x, 1); x[1] = x[0]")
    assert faulty(check_cuda, mixed, grid=2, block=8, args=[np.zeros(8, np.int32)]).kind == "race"


def test_what_is_misaligned() -> None:
    source = """extern "C" __global__ void k(float* x) {
      float4 v = *reinterpret_cast<float4*>(x + threadIdx.x);
      x[16 + threadIdx.x] = v.x + v.y + v.z + v.w;
    }"""
    fault = faulty(check_cuda, source, grid=1, block=4, args=[np.zeros(64, np.float32)])
    assert (fault.kind, fault.line, fault.thread) == ("alignment", 2, (1, 0, 0))


def test_shared_memory_of_the_launch() -> None:
    source = """extern "C" __global__ void k(int* x) {
      extern __shared__ int s[];
      s[threadIdx.x] = x[threadIdx.x];
      __syncthreads();
      x[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];
    }"""
    x = np.arange(40, dtype=np.int32)
    run = {"grid": 1, "block": 40, "args": [x]}
    np.testing.assert_array_equal(check_cuda(source, shared=160, **run).arrays[0], x[::-1])
    assert faulty(check_cuda, source, shared=156, **run).kind == "bounds"
    fault = faulty(check_cuda, source, shared=300_000, **run)
    assert (fault.kind, fault.block) == ("launch", None)


def test_what_a_gpu_refuses_to_launch() -> None:
    source = 'extern "C" __global__ void __launch_bounds__(64) k(float* x) {}'
    for options in (
        {"block": 2048},
        {"block": 65},
        {"block": (1, 1, 65)},
        {"grid": (1, 1 << 16), "block": 1},
    ):
        with pytest.raises(KernelError, match="cannot be launched"):
            check_cuda(source, **{"grid": 1, "args": [np.zeros(1)], **options})


def test_assertions_traps_and_printing() -> None:
    source = """extern "C" __global__ void k(int n) {
      if (threadIdx.x < 2) printf("thread %d of %s: %.2f\\n", threadIdx.x, "it", 0.5 * n);
      assert(threadIdx.x < n);
    }"""
    run = check_cuda(source, grid=1, block=4, args=[4])
    assert run.printed == "thread 0 of it: 2.00\nthread 1 of it: 2.00\n"
    fault = faulty(check_cuda, source, grid=1, block=4, args=[3])
    assert (fault.kind, fault.thread) == ("assertion", (3, 0, 0))
    assert "threadIdx.x < n" in str(fault)
    trap = 'extern "C" __global__ void k() { if (threadIdx.x == 5) __trap(); }'
    assert faulty(check_cuda, trap, grid=1, block=8).thread == (5, 0, 0)


def test_blocks_that_wait_for_each_other() -> None:
    source = """#include <cooperative_groups.h>
    extern "C" __global__ void k(int* x, int* y) {
      int i = blockIdx.x * blockDim.x + threadIdx.x;
      x[i] = i;
      cooperative_groups::this_grid().sync();
      y[i] = x[gridDim.x * blockDim.x - 1 - i];
    }"""
    args = [Output(96, np.int32), Output(96, np.int32)]
    run = check_cuda(source, grid=3, block=32, args=args, cooperative=True)
    np.testing.assert_array_equal(run.arrays[1], np.arange(96)[::-1])


def test_structs_numbers_and_functions() -> None:
    source = """struct P { const float* x; int n; double f; float* y; };
    __constant__ float table[3] = {1.0f, 2.5f, -3.0f};
    __device__ __noinline__ float at(const P& p, int i) { return p.x[i % p.n] * float(p.f); }
    extern "C" __global__ void k(P p, float more, unsigned char b, long long far) {
      int i = threadIdx.x;
      float v = at(p, i) + more + b + far;
      switch (i % 5) {
        case 0: v += table[i % 3]; break;
        case 1: v = sqrtf(v); break;
        case 3: v = -v; break;
        default: v *= 2;
      }
      p.y[i] = v;
    }"""
    x = np.arange(1, 9, dtype=np.float32)
    struct = (x, np.int32(8), np.float64(0.5), Output(64))
    found = check_cuda(source, grid=1, block=64, args=[struct, 1.5, 3, -2]).arrays[1]
    i = np.arange(64)
    v = x[i % 8] * np.float32(0.5) + np.float32(2.5)
    table = np.array([1, 2.5, -3], np.float32)[i % 3]
    expected = np.choose(i % 5, [v + table, np.sqrt(v), 2 * v, -v, 2 * v])
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_arguments_that_do_not_fit() -> None:
    x = np.zeros(4, np.float32)
    with pytest.raises(ArgumentError, match="takes 4 arguments, 1 were given"):
        check_cuda(ADD, grid=1, block=1, args=[x])
    with pytest.raises(ArgumentError, match="argument 3 of add takes 4 bytes, 8 were given"):
        check_cuda(ADD, grid=1, block=1, args=[x, x, x, np.int64(4)])
    with pytest.raises(ArgumentError, match="is a whole number"):
        check_cuda(ADD, grid=1, block=1, args=[x, x, x, 4.0])
    with pytest.raises(ArgumentError, match="is a list"):
        check_cuda(ADD, grid=1, block=1, args=[x, x, x, [4]])
    with pytest.raises(ArgumentError, match=r"must be one of \['a', 'b'\]"):
        two = 'extern "C" __global__ void a() {}\nextern "C" __global__ void b() {}'
        check_cuda(two, grid=1, block=1)
    with pytest.raises(BackendError, match="there is no kernel 'sub'"):
        check_cuda(ADD, "sub", grid=1, block=1, args=[x, x, x, 4])
    with pytest.raises(BackendError, match=r"(?s)does not compile.*nonsense"):
        check_cuda("nonsense", grid=1, block=1)
    with pytest.raises(ArgumentError, match="sm_90"):
        check_cuda(ADD, grid=1, block=1, architecture="90")


def test_a_kernel_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpubp.backends.cuda.emulator import executor

    monkeypatch.setattr(executor, "MOST_BLOCKS", 1000)
    source = """extern "C" __global__ void k(volatile int* x) {
      while (*x == 0) {}
    }"""
    fault = faulty(check_cuda, source, grid=1, block=1, args=[np.zeros(1, np.int32)])
    assert (fault.kind, fault.line) == ("endless", 2)


def test_tensor_cores() -> None:
    """A product of 16 x 16 and 16 x 8 by one warp, whose fragments are laid out after the ISA."""
    source = """#include <cuda_fp16.h>
    extern "C" __global__ void k(const __half* a, const __half* b, float* d) {
      int lane = threadIdx.x, g = lane / 4, t = lane % 4;
      unsigned A[4], B[2];
      float D[4] = {0, 0, 0, 0};
      for (int i = 0; i < 4; ++i)
        A[i] = *(const unsigned*)(a + (g + 8 * (i % 2)) * 16 + 2 * t + 8 * (i / 2));
      for (int i = 0; i < 2; ++i) {
        __half2 pair = __halves2half2(b[(2 * t + 8 * i) * 8 + g], b[(2 * t + 8 * i + 1) * 8 + g]);
        B[i] = *(unsigned*)&pair;
      }
      asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},"
          "{%0,%1,%2,%3};" : "+f"(D[0]), "+f"(D[1]), "+f"(D[2]), "+f"(D[3])
          : "r"(A[0]), "r"(A[1]), "r"(A[2]), "r"(A[3]), "r"(B[0]), "r"(B[1]));
      for (int i = 0; i < 4; ++i) d[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = D[i];
    }"""
    rng = np.random.default_rng(0)
    a, b = rng.integers(-4, 5, (16, 16)), rng.integers(-4, 5, (16, 8))
    args = [a.astype(np.float16), b.astype(np.float16), Output((16, 8))]
    found = check_cuda(source, grid=1, block=32, args=args).arrays[2]
    np.testing.assert_array_equal(found, a @ b)
    fault = faulty(check_cuda, source, grid=1, block=20, args=args)
    assert (fault.kind, "by 20 lanes of a warp" in str(fault)) == ("barrier", True)
    swapped = source.replace("D[4] = {0", "E[4], D[4] = {0").replace(
        "(g + 8 * (i / 2)) * 8 + 2", "(g + 8 * (i % 2)) * 8 + 2"
    )
    wrong = check_cuda(
        swapped, grid=1, block=32, args=[*args[:2], Output((16, 8), partial=True)]
    ).arrays[2]
    assert (wrong != a @ b).any()
