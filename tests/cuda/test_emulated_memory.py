"""Memory on the emulator: atomics, copies of a warp, pointers of any space, what lies where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpubp.backends.cuda.drivers import bare_nvrtc
from gpubp.backends.cuda.drivers.base import DeviceMemoryError
from gpubp.backends.cuda.emulator.driver import EmulatedDriver
from gpubp.backends.cuda.emulator.launches import Device
from gpubp.backends.cuda.emulator.memory import ALLOCATED, DeviceSpace
from gpubp.errors import BackendError, UnknownNameError
from gpubp.testing import KernelError, Output, check_cuda

needs_nvrtc = pytest.mark.skipif(bool(bare_nvrtc.missing()), reason=bare_nvrtc.missing() or "-")

ATOMICS: dict[str, Callable[[int, int], int]] = {
    "atomicAdd": lambda a, b: a + b,
    "atomicSub": lambda a, b: a - b,
    "atomicMin": min,
    "atomicMax": max,
    "atomicAnd": lambda a, b: a & b,
    "atomicOr": lambda a, b: a | b,
    "atomicXor": lambda a, b: a ^ b,
    "atomicInc": lambda a, b: 0 if a >= b else a + 1,
    "atomicDec": lambda a, b: b if a == 0 or a > b else a - 1,
}


@needs_nvrtc
@pytest.mark.parametrize("name", ATOMICS)
def test_atomics_take_turns(name: str) -> None:
    """Each lane finds what the one before it left; three places, in shared and in device memory."""
    source = f"""extern "C" __global__ void k(unsigned* x, unsigned* old, const unsigned* by) {{
      __shared__ unsigned s[3];
      int t = threadIdx.x;
      if (t < 3) s[t] = x[t];
      __syncthreads();
      old[t] = {name}(s + t % 3, by[t]);
      old[64 + t] = {name}(x + t % 3, by[t]);
      __syncthreads();
      if (t < 3) x[3 + t] = s[t];
    }}"""
    rng = np.random.default_rng(0)
    start, by = rng.integers(0, 50, 3), rng.integers(0, 50, 64)
    x = np.r_[start, 0, 0, 0].astype(np.uint32)
    args = [x, Output(128, np.uint32), by.astype(np.uint32)]
    found, old, _ = check_cuda(source, grid=1, block=64, args=args).arrays
    now, seen = [int(v) for v in start], []
    for t in range(64):
        seen.append(now[t % 3])
        now[t % 3] = ATOMICS[name](now[t % 3], int(by[t])) % 2**32
    assert found.tolist() == [*now, *now]
    assert old.tolist() == [*seen, *seen]


@needs_nvrtc
def test_atomics_of_floats_and_exchanges() -> None:
    source = """#include <cuda_fp16.h>
    extern "C" __global__ void k(float* f, double* d, __half2* h, int* lock) {
      int t = threadIdx.x;
      atomicAdd(f, 0.5f);
      atomicAdd(d, 0.25);
      atomicAdd(h, __floats2half2_rn(1.0f, 2.0f));
      if (atomicCAS(lock, 0, 1 + t) == 0) atomicExch(lock + 1, t);
    }"""
    args = [np.zeros(1, np.float32), np.zeros(1), np.zeros(2, np.float16), np.zeros(2, np.int32)]
    f, d, h, lock = check_cuda(source, grid=2, block=48, args=args).arrays
    assert (f[0], d[0], h.tolist(), lock.tolist()) == (48, 24, [96, 192], [1, 0])


@needs_nvrtc
def test_pointers_of_any_space() -> None:
    """One load that reads device, shared and a thread's own memory, lane by lane."""
    source = """extern "C" __global__ void k(const int* x, int* y) {
      __shared__ int s[32];
      int own[4];
      int t = threadIdx.x;
      s[t] = 100 + t;
      for (int i = 0; i < 4; ++i) own[i] = 1000 * i + x[t];
      __syncthreads();
      const int* p = t % 3 == 0 ? x : t % 3 == 1 ? s : own;
      y[t] = p[t % 4] + own[x[t] % 4];
    }"""
    x = np.arange(32, dtype=np.int32) * 3
    found = check_cuda(source, grid=1, block=32, args=[x, Output(32, np.int32)]).arrays[1]
    t = np.arange(32)
    first = np.choose(t % 3, [x[t % 4], 100 + t % 4, 1000 * (t % 4) + x])
    np.testing.assert_array_equal(found, first + 1000 * (x % 4) + x)
    beyond = source.replace("own[x[t] % 4]", "own[x[t] % 4 + 4 * (t == 7)]")
    with pytest.raises(KernelError, match="of local memory"):
        check_cuda(beyond, grid=1, block=32, args=[x, Output(32, np.int32)])


@needs_nvrtc
def test_bytes_and_vectors() -> None:
    source = """typedef unsigned char u8;
    extern "C" __global__ void k(const u8* x, short* y, double2* z, signed char* w) {
      int t = threadIdx.x;
      y[t] = x[t] - 200;
      z[t] = make_double2(x[t], -t);
      w[t] = (signed char)x[t];
    }"""
    x = np.arange(40, 240, 5, dtype=np.uint8)
    args = [x, Output(40, np.int16), Output((40, 2), np.float64), Output(40, np.int8)]
    _, y, z, w = check_cuda(source, grid=1, block=40, args=args).arrays
    np.testing.assert_array_equal(y, x.astype(np.int16) - 200)
    np.testing.assert_array_equal(z, np.stack([x, -np.arange(40.0)], 1))
    np.testing.assert_array_equal(w, x.astype(np.int8))
    racing = source.replace("w[t] =", "w[t / 2] =")
    args[3] = Output(20, np.int8)
    with pytest.raises(KernelError, match=r"writes byte 0 of an allocation of 20"):
        check_cuda(racing, grid=1, block=40, args=args)


@needs_nvrtc
def test_copies_beside_and_rows_of_a_matrix() -> None:
    """cp.async to shared memory, then ldmatrix: lane l has elements 2 (l % 4) and the next of row l
    / 4.
    """
    source = """extern "C" __global__ void k(const float4* x, unsigned* y) {
      __shared__ __align__(16) float4 s[32];
      int t = threadIdx.x;
      unsigned at = (unsigned)__cvta_generic_to_shared(s + t);
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(at), "l"(x + t));
      asm volatile("cp.async.commit_group;\\ncp.async.wait_group 0;");
      __syncthreads();
      unsigned a, b, c, d;
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "r"(at));
      y[4 * t] = a, y[4 * t + 1] = b, y[4 * t + 2] = c, y[4 * t + 3] = d;
      asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                   : "=r"(a) : "r"(at));
      y[128 + t] = a;
    }"""
    x = np.arange(256, dtype=np.uint16)
    args = [x.view(np.float32), Output(160, np.uint32)]
    found = check_cuda(source, grid=1, block=32, args=args).arrays[1]
    tiles, lane = x.reshape(4, 8, 8).astype(np.uint32), np.arange(32)
    g, m = lane // 4, 2 * (lane % 4)
    np.testing.assert_array_equal(
        found[:128].reshape(32, 4).T, tiles[:, g, m] | tiles[:, g, m + 1] << 16
    )
    np.testing.assert_array_equal(found[128:], tiles[0, m, g] | tiles[0, m + 1, g] << 16)


@needs_nvrtc
def test_matrices_of_a_warp() -> None:
    source = """#include <mma.h>
    using namespace nvcuda::wmma;
    extern "C" __global__ void k(const __half* a, const __half* b, float* c, int k) {
      fragment<accumulator, 16, 16, 16, float> sums;
      fill_fragment(sums, 1.0f);
      for (int i = 0; i < k; i += 16) {
        fragment<matrix_a, 16, 16, 16, __half, row_major> left;
        fragment<matrix_b, 16, 16, 16, __half, col_major> right;
        load_matrix_sync(left, a + i, k);
        load_matrix_sync(right, b + i, k);
        mma_sync(sums, left, right, sums);
      }
      for (int i = 0; i < sums.num_elements; ++i) sums.x[i] *= 2;
      store_matrix_sync(c, sums, 16, mem_row_major);
    }"""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-3, 4, (16, 48)).astype(np.float16) for _ in range(2))
    run = check_cuda(source, grid=1, block=32, args=[a, b, Output((16, 16)), 48])
    np.testing.assert_array_equal(run.arrays[2], 2 * (a.astype(np.float32) @ b.T + 1))


def test_memory_that_is_freed_is_nobody_s() -> None:
    memory = DeviceSpace(limit=1000)
    piece = memory.allocate(100, ALLOCATED)
    at = np.int64(memory.part(piece.address, 100).start)
    assert memory.lacking(at, 4, ALLOCATED) is None
    assert memory.lacking(at + 100, 4, ALLOCATED) is not None
    memory.write(piece.address, np.arange(25, dtype=np.float32))
    with pytest.raises(DeviceMemoryError, match="901 bytes were asked for, 900 are free"):
        memory.allocate(901)
    with pytest.raises(BackendError, match="not in one allocation"):
        memory.read(piece.address + 4, 100)
    big = memory.allocate(800)  # others keep their contents when memory grows
    assert memory.read(piece.address, 100).view(np.float32)[24] == 24
    assert not memory.read(big.address, 800).any()
    address = piece.address
    del piece
    assert memory.lacking(at, 4, ALLOCATED) is not None
    with pytest.raises(BackendError):
        memory.read(address, 100)
    assert memory.used == 800


def test_memory_grows() -> None:
    memory = DeviceSpace()
    pieces = [memory.allocate(1 << 18) for _ in range(9)]
    for i, piece in enumerate(pieces):
        memory.write(piece.address, np.full(1 << 16, i, np.float32))
    for i, piece in enumerate(pieces):
        assert (memory.read(piece.address, 1 << 18).view(np.float32) == i).all()


@needs_nvrtc
def test_the_driver_refuses_what_a_gpu_refuses() -> None:
    driver = EmulatedDriver("sm_80")
    assert driver.free_bytes() > 1 << 30
    kernels = driver.compile('extern "C" __global__ void k(int* x) { x[threadIdx.x] += 1; }')
    kernel, memory = kernels.get("k"), driver.allocate(256)
    arguments: Any = ((1, 1, 1), (64, 1, 1), 0, np.uint64(memory.address).tobytes())
    again = driver.record(lambda: driver.launch(kernel, *arguments))
    found = np.zeros(64, np.int32)
    driver.download(memory.address, found)
    assert not found.any()  # recorded, not run
    for _ in range(3):
        again()
    driver.download(memory.address, found)
    assert (found == 3).all()
    with pytest.raises(BackendError, match="while launches are recorded"):
        driver.record(lambda: driver.allocate(4) and None)
    with pytest.raises(BackendError, match="200000 bytes of shared memory"):
        driver.allow_shared(kernel, 200_000)
    with pytest.raises(BackendError, match="4 bytes of parameters, expected 8"):
        driver.launch(kernel, *arguments[:3], b"1234")
    with pytest.raises(BackendError, match="no kernel 'other'"):
        kernels.get("other")
    with pytest.raises(BackendError, match="NumPy"):
        driver.empty((3,), np.dtype(np.float32))


@needs_nvrtc
def test_races_are_looked_for_as_often_as_asked() -> None:
    source = 'extern "C" __global__ void k(int* x) { x[0] = x[0] + blockIdx.x + 1; }'
    for races, caught in (("all", 3), ("first", 2), ("off", 0)):
        driver = EmulatedDriver(races=races)
        kernel, memory = driver.compile(source).get("k"), driver.allocate(4)
        count = 0
        for _ in range(3):
            try:
                params = np.uint64(memory.address).tobytes()
                driver.launch(kernel, (2, 1, 1), (1, 1, 1), 0, params)
            except KernelError as error:
                count += error.kind == "race"
        assert count == caught
    with pytest.raises(UnknownNameError, match="sometimes"):
        EmulatedDriver(races="sometimes")


def test_launch_sizes_are_those_of_the_architecture() -> None:
    assert Device(DeviceSpace(), 75).most_shared() == 64 << 10
    assert Device(DeviceSpace(), 80).most_shared() == 163 << 10
    assert Device(DeviceSpace(), 87).most_shared() == 99 << 10
    assert Device(DeviceSpace(), 90).most_shared() == 227 << 10
