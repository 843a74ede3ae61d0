"""The shim that stands in for a GPU computes what CUDA's rules say: kernels with known answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shim_build
from launching import get, kernel, launch, pack, put
from shim_driver import ORDERS, ShimDriver

from gpubp.errors import BackendError, UnknownNameError

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

BLOCK_SUM = kernel(
    "const float *x; float *sums; int n;",
    """
    __shared__ float part[128];
    int t = threadIdx.x, i = blockIdx.x * 128 + t;
    part[t] = i < p.n ? p.x[i] : 0.0f;
    __syncthreads();
    for (int half = 64; half > 0; half /= 2) {
        if (t < half) part[t] += part[t + half];
        __syncthreads();
    }
    if (t == 0) p.sums[blockIdx.x] = part[0];
    """,
)


@pytest.fixture(params=ORDERS)
def driver(request):
    return ShimDriver(request.param, seed=3)


def integers(n, seed=0):
    """Floats whose sums are exact in any order."""
    return np.random.default_rng(seed).integers(-50, 50, n).astype(np.float32)


@pytest.mark.parametrize("n", [1, 127, 128, 129, 1000])
def test_blocks_reduce_through_shared_memory(driver, n):
    x, blocks = integers(n), -(-n // 128)
    _, sums = launch(driver, BLOCK_SUM, (x, np.zeros(blocks, np.float32), n), blocks, 128)
    padded = np.zeros(blocks * 128, np.float32)
    padded[:n] = x
    np.testing.assert_array_equal(sums, padded.reshape(blocks, 128).sum(1))


def test_every_thread_of_a_3d_grid_runs_once_at_its_place(driver):
    source = kernel(
        "int *count; int *place;",
        """
        int3 at = make_int3(blockIdx.x * blockDim.x + threadIdx.x,
                            blockIdx.y * blockDim.y + threadIdx.y,
                            blockIdx.z * blockDim.z + threadIdx.z);
        int width = gridDim.x * blockDim.x, height = gridDim.y * blockDim.y;
        int i = (at.z * height + at.y) * width + at.x;
        atomicAdd(p.count + i, 1);
        p.place[i] = at.x + 100 * at.y + 10000 * at.z;
        """,
    )
    shape = (2 * 2, 4 * 3, 3 * 5)
    zeros = np.zeros(shape, np.int32)
    count, place = launch(driver, source, (zeros, zeros), (3, 4, 2), (5, 3, 2))
    z, y, x = np.indices(shape)
    assert (count == 1).all()
    np.testing.assert_array_equal(place, x + 100 * y + 10000 * z)


def test_a_tile_is_transposed_through_shared_memory(driver):
    source = kernel(
        "const float *x; float *y; int rows; int columns;",
        """
        __shared__ float tile[8][9];
        int row = blockIdx.y * 8 + threadIdx.y, column = blockIdx.x * 8 + threadIdx.x;
        if (row < p.rows && column < p.columns)
            tile[threadIdx.y][threadIdx.x] = p.x[row * p.columns + column];
        __syncthreads();
        row = blockIdx.y * 8 + threadIdx.x, column = blockIdx.x * 8 + threadIdx.y;
        if (row < p.rows && column < p.columns)
            p.y[column * p.rows + row] = tile[threadIdx.x][threadIdx.y];
        """,
    )
    x = np.arange(13 * 21, dtype=np.float32).reshape(13, 21)
    y = np.zeros((21, 13), np.float32)
    _, y = launch(driver, source, (x, y, 13, 21), (3, 2, 1), (8, 8, 1))
    np.testing.assert_array_equal(y, x.T)


def test_dynamic_shared_memory(driver):
    source = kernel(
        "int *x; int n;",
        """
        GP_DYNAMIC_SHARED(int, held);
        held[threadIdx.x] = p.x[threadIdx.x];
        __syncthreads();
        p.x[threadIdx.x] = held[p.n - 1 - threadIdx.x];
        """,
    )
    x = np.arange(77, dtype=np.int32)
    (y,) = launch(driver, source, (x, 77), 1, 77, shared=77 * 4)
    np.testing.assert_array_equal(y, x[::-1])


@pytest.mark.parametrize(
    ("c_type", "dtype"),
    [
        ("float", np.float32),
        ("double", np.float64),
        ("int", np.int32),
        ("unsigned", np.uint32),
        ("long long", np.int64),
    ],
)
def test_shuffles_move_every_type(driver, c_type, dtype):
    source = kernel(
        f"const {c_type} *x; {c_type} *y;",
        """
        int t = threadIdx.x;
        p.y[t] = __shfl_xor_sync(0xffffffffu, p.x[t], 5);
        p.y[t + 32] = __shfl_sync(0xffffffffu, p.x[t], 7);
        p.y[t + 64] = __shfl_up_sync(0xffffffffu, p.x[t], 3);
        p.y[t + 96] = __shfl_down_sync(0xffffffffu, p.x[t], 3);
        """,
    )
    x = np.random.default_rng(1).integers(0, 2**31, 32).astype(dtype)
    _, y = launch(driver, source, (x, np.zeros(128, dtype)))
    lane = np.arange(32)
    up, down = np.where(lane < 3, lane, lane - 3), np.where(lane > 28, lane, lane + 3)
    np.testing.assert_array_equal(y, x[np.concatenate([lane ^ 5, 0 * lane + 7, up, down])])


def test_shuffles_in_groups_of_eight_lanes(driver):
    """The table of the Programming Guide: outside its group a lane reads itself, except that xor
    may read from groups before its own."""
    source = kernel(
        "int *y;",
        """
        int t = threadIdx.x;
        p.y[t] = __shfl_sync(0xffffffffu, t, 11, 8);
        p.y[t + 32] = __shfl_up_sync(0xffffffffu, t, 3u, 8);
        p.y[t + 64] = __shfl_down_sync(0xffffffffu, t, 3u, 8);
        p.y[t + 96] = __shfl_xor_sync(0xffffffffu, t, 9, 8);
        """,
    )
    (y,) = launch(driver, source, (np.zeros(128, np.int32),))
    lane = np.arange(32)
    group, inside = lane // 8 * 8, lane % 8
    np.testing.assert_array_equal(y[:32], group + 3)
    np.testing.assert_array_equal(y[32:64], np.where(inside < 3, lane, lane - 3))
    np.testing.assert_array_equal(y[64:96], np.where(inside > 4, lane, lane + 3))
    np.testing.assert_array_equal(y[96:], np.where(lane ^ 9 >= group + 8, lane, lane ^ 9))


def test_halves_of_a_warp_shuffle_apart_from_each_other(driver):
    source = kernel(
        "int *y;",
        """
        int t = threadIdx.x, v = t;
        unsigned mask = t < 16 ? 0x0000ffffu : 0xffff0000u;
        for (int i = 0; i < (t < 16 ? 3 : 5); ++i) v += __shfl_xor_sync(mask, v, 1);
        p.y[t] = v;
        """,
    )
    (y,) = launch(driver, source, (np.zeros(32, np.int32),))
    t = np.arange(32)
    times = np.where(t < 16, 2**2, 2**4)
    np.testing.assert_array_equal(y, (t + (t ^ 1)) * times)


def test_a_warp_that_is_not_full_and_lanes_that_have_ended(driver):
    source = kernel(
        "int *y;",
        """
        if (threadIdx.x % 32 >= 6) return;
        p.y[threadIdx.x] = __popc(__ballot_sync(0xffffffffu, 1));
        __syncthreads();
        p.y[threadIdx.x] += 100 * __shfl_xor_sync(0xffffffffu, int(threadIdx.x), 1);
        """,
    )
    (y,) = launch(driver, source, (np.full(36, -1, np.int32),), 1, 36)
    t = np.array([*range(6), *range(32, 36)])
    expected = np.full(36, -1)
    expected[t] = 100 * (t ^ 1) + np.where(t < 32, 6, 4)
    np.testing.assert_array_equal(y, expected)


def test_votes_and_barriers_that_count(driver):
    source = kernel(
        "int *y;",
        """
        int t = threadIdx.x;
        p.y[0] = __any_sync(0xffffffffu, t == 5);
        p.y[1] = __any_sync(0xffffffffu, t == 50);
        p.y[2] = __all_sync(0xffffffffu, t < 32);
        p.y[3] = __all_sync(0xffffffffu, t != 5);
        p.y[4] = __ballot_sync(0xffffffffu, t % 3 == 0);
        p.y[5] = __syncthreads_count(t % 3);
        p.y[6] = __syncthreads_or(t == 9);
        p.y[7] = __syncthreads_or(t == 90);
        p.y[8] = __syncthreads_and(t != 9);
        p.y[9] = __syncthreads_and(t != 90);
        """,
    )
    (y,) = launch(driver, source, (np.zeros(10, np.uint32),))
    ballot = sum(1 << t for t in range(0, 32, 3))
    np.testing.assert_array_equal(y, [1, 0, 1, 0, ballot, 21, 1, 0, 0, 1])


def test_device_functions_of_integers_are_cudas():
    source = kernel(
        "long long *y;",
        """
        int i = 5; unsigned u = 7; unsigned long long w = 1;
        long long values[] = {
            __umulhi(0xfffffffbu, 0xcd9e8d57u), __mulhi(-5, 1 << 30), __popc(0xf0f01u),
            __clz(1), __clz(0), __ffs(8), __ffs(0), __float_as_int(-2.5f),
            (long long)__float_as_uint(1.0f), (long long)__int_as_float(0x40490fdb),
            __double_as_longlong(1.0), min(-3, 2), max(3u, 9u), (long long)min(1.5f, 4.0f),
            atomicAdd(&i, 3), i, atomicMax(&u, 6u), u, atomicCAS(&i, 8, 1), i,
            atomicCAS(&i, 8, 2), i, (long long)atomicAdd(&w, 1ull << 40), (long long)w,
            atomicExch(&i, 4), i, (long long)__umul64hi(~0ull, 3ull)};
        for (int k = 0; k < int(sizeof values / 8); ++k) p.y[k] = values[k];
        """,
    )
    (y,) = launch(ShimDriver(), source, (np.zeros(27, np.int64),), 1, 1)
    product = (0xFFFFFFFB * 0xCD9E8D57) >> 32
    assert y.tolist() == [
        *(product, -5 * 2**30 >> 32, 9, 31, 32, 4, 0, int(np.float32(-2.5).view(np.int32))),
        *(0x3F800000, 3, 0x3FF0000000000000, -3, 9, 1, 5, 8, 7, 7, 8, 1, 1, 1, 1, 2**40 + 1),
        *(1, 4, 2),
    ]


def test_device_math_is_that_of_the_host():
    source = kernel(
        "const float *x; float *y;",
        """
        float x = p.x[threadIdx.x], *y = p.y + 6 * threadIdx.x;
        y[0] = expf(x), y[1] = tanhf(x), y[2] = rsqrtf(fabsf(x)), y[3] = erff(x);
        y[4] = fmaf(x, x, -1.0f), y[5] = isnan(x / 0.0f * 0.0f) ? 1.0f : 0.0f;
        """,
    )
    x = np.array([-3.0, -0.5, 0.25, 1.0000001], np.float32)
    _, y = launch(ShimDriver(), source, (x, np.zeros((4, 6), np.float32)), 1, 4)
    from scipy.special import erf

    wide = x.astype(np.float64)
    expected = [np.exp(wide), np.tanh(wide), abs(wide) ** -0.5, erf(wide), wide**2 - 1, 1 + 0 * x]
    np.testing.assert_allclose(y, np.stack(expected, 1), rtol=3e-7)


def test_halves_are_rounded_to_nearest_even():
    source = '#include <cuda_fp16.h>\n#include "cuda_bf16.h"\n' + kernel(
        "const float *x; unsigned short *half; unsigned short *brain; float *wide; int n;",
        """
        for (int i = threadIdx.x; i < p.n; i += blockDim.x) {
            p.half[i] = __half_as_ushort(__float2half_rn(p.x[i]));
            p.brain[i] = __bfloat16_as_ushort(__float2bfloat16(p.x[i]));
        }
        for (int i = threadIdx.x; i < 65536; i += blockDim.x) {
            p.wide[2 * i] = __half2float(__ushort_as_half((unsigned short)i));
            p.wide[2 * i + 1] = __bfloat162float(__ushort_as_bfloat16((unsigned short)i));
        }
        """,
    )
    every = np.arange(65536, dtype=np.uint16)
    middles = (every.astype(np.uint32) << 16) + 0x8000  # ties of bfloat16
    halves = every.view(np.float16).astype(np.float32)
    finite = halves[np.isfinite(halves)]
    ties = (finite[:-1] + finite[1:]) / 2
    bits = np.random.default_rng(0).integers(0, 2**32, 20000, dtype=np.uint32)
    x = np.concatenate([middles.view(np.float32), halves, ties, bits.view(np.float32)])
    x = x[~np.isnan(x)]
    y16, wide = np.zeros(len(x), np.uint16), np.zeros((65536, 2), np.float32)
    _, half, brain, wide = launch(ShimDriver(), source, (x, y16, y16, wide, len(x)), 1, 64)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(half, x.astype(np.float16).view(np.uint16))
    low, lower = (x.view(np.uint32) & 0xFFFF0000, x.view(np.uint32) & 0xFFFF)
    odd = low >> 16 & 1
    up = (lower > 0x8000) | ((lower == 0x8000) & (odd == 1))
    np.testing.assert_array_equal(brain, ((low >> 16) + up).astype(np.uint16))
    np.testing.assert_array_equal(wide[:, 0], halves)
    np.testing.assert_array_equal(wide[:, 1], (every.astype(np.uint32) << 16).view(np.float32))


def test_vectors_have_cudas_layout():
    source = kernel(
        "const float4 *x; float *y;",
        """
        static_assert(sizeof(float3) == 12 && alignof(float3) == 4, "");
        static_assert(alignof(float2) == 8 && alignof(float4) == 16 && alignof(double2) == 16, "");
        static_assert(alignof(ushort4) == 8 && alignof(int4) == 16 && sizeof(longlong2) == 16, "");
        float4 v = p.x[threadIdx.x];
        p.y[threadIdx.x] = v.x + 10 * v.y + 100 * v.z + 1000 * v.w;
        """,
    )
    x = np.arange(16, dtype=np.float32).reshape(4, 4)
    _, y = launch(ShimDriver(), source, (x, np.zeros(4, np.float32)), 1, 4)
    np.testing.assert_array_equal(y, x @ np.array([1, 10, 100, 1000], np.float32))


def test_random_orders_differ_by_seed_and_repeat_with_it():
    source = kernel("int *turn; int *y;", "p.y[threadIdx.x] = atomicAdd(p.turn, 1);")
    turn, y = np.zeros(1, np.int32), np.zeros(64, np.int32)

    def orders(order, seed):
        return launch(ShimDriver(order, seed), source, (turn, y), 1, 64)[1].tolist()

    assert orders("forward", 0) == list(range(64))
    assert orders("reverse", 0) == list(range(64))[::-1]
    assert orders("random", 1) == orders("random", 1) != orders("random", 2)
    assert sorted(orders("random", 1)) == list(range(64))


def test_blocks_run_in_the_order_asked_for():
    source = kernel("int *turn; int *y;", "p.y[blockIdx.x] = atomicAdd(p.turn, 1);")
    turn, y = np.zeros(1, np.int32), np.zeros(8, np.int32)
    found = {o: launch(ShimDriver(o), source, (turn, y), 8, 1)[1].tolist() for o in ORDERS}
    assert found["forward"] == list(range(8))
    assert found["reverse"] == list(range(8))[::-1]
    assert sorted(found["random"]) == list(range(8)) != found["random"]


def test_recorded_launches_run_again_with_the_parameters_they_had():
    driver = ShimDriver()
    source = kernel("float *x; float add;", "p.x[threadIdx.x] += p.add;")
    k = driver.compile(source).get("k")
    x = np.zeros(4, np.float32)
    memory = put(driver, x)
    add = [1.0]
    replay = driver.record(
        lambda: driver.launch(k, (1, 1, 1), (4, 1, 1), 0, pack(memory, add[0])),
    )
    np.testing.assert_array_equal(get(driver, memory, x), 0)
    add[0] = 100.0
    replay()
    replay()
    np.testing.assert_array_equal(get(driver, memory, x), 2)
    assert driver.launched["k"] == 2
    assert not any(driver.record(lambda: None)() or [])


def test_what_a_gpu_refuses_while_it_records_is_refused():
    driver = ShimDriver()
    x = np.zeros(4, np.float32)
    memory = put(driver, x)
    for work in (
        lambda: driver.upload(memory.address, x),
        lambda: driver.download(memory.address, x),
        lambda: driver.allocate(4),
        lambda: driver.synchronize(),
        lambda: driver.record(lambda: None),
    ):
        with pytest.raises(BackendError, match="while launches are recorded"):
            driver.record(work)
    driver.synchronize()


def test_the_cache_sees_changes_of_headers(tmp_path, monkeypatch):
    monkeypatch.setattr(shim_build, "KERNELS", tmp_path)
    header = tmp_path / "value.cuh"
    source = '#include "value.cuh"\n' + kernel("int *y;", "p.y[0] = VALUE;")
    for value in (3, 4, 3):
        header.write_text(f"#define VALUE {value}\n")
        (y,) = launch(ShimDriver(), source, (np.zeros(1, np.int32),), 1, 1)
        assert y[0] == value


def test_a_source_is_built_once(monkeypatch):
    path = ShimDriver().compile(BLOCK_SUM).path
    monkeypatch.setattr(shim_build, "_gcc", lambda *a: pytest.fail("built again"))
    assert ShimDriver("reverse").compile(BLOCK_SUM).path == path


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (kernel("int n;", "nonsense;"), "nonsense"),
        (kernel("float *x;", "atomicAdd(p.x, 1.0f);"), "atomicAdd"),  # an order nobody chose
        (BLOCK_SUM.replace("GP_KERNEL(k, P)", ""), r"no GP_KERNEL\(k"),
    ],
)
def test_sources_that_cannot_be_built(source, message):
    with pytest.raises(BackendError, match=message):
        ShimDriver().compile(source).get("k")


def test_unknown_names_of_the_test_device_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'reverse'"):
        ShimDriver("reversed")
    with pytest.raises(UnknownNameError, match="Did you mean 'sm_80'"):
        ShimDriver(architecture="sm_8")


def test_the_portable_switch_works_too(tmp_path):
    """ucontext, for processors that have no switch of their own."""
    here = Path(__file__).resolve().parent
    root = Path(shim_build.KERNELS).parent
    environment = dict(
        os.environ,
        GPUBP_SHIM_FLAGS="-DGP_UCONTEXT",
        GPUBP_CACHE_DIR=str(tmp_path),
        PYTHONPATH=os.pathsep.join([str(root), str(here), str(here.parent)]),
    )
    code = (
        "import numpy as np; from test_shim import *\n"
        "x = integers(300)\n"
        "for order in ORDERS:\n"
        "    values = (x, np.zeros(3, np.float32), 300)\n"
        "    _, y = launch(ShimDriver(order), BLOCK_SUM, values, 3, 128)\n"
        "    assert y.sum() == x.sum(), (order, y)\n"
        "print('done')"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "done\n"), run.stderr


# Each block waits until all have added one, as often as `rounds`; a sum of what the others wrote.
TOGETHER = kernel(
    "unsigned long long *arrived; int *sums; int *held; int rounds;",
    """
    __shared__ int mine;
    for (int r = 0; r < p.rounds; ++r) {
        if (threadIdx.x == 0) mine = blockIdx.x + r;
        __syncthreads();
        if (threadIdx.x == 5) p.held[blockIdx.x] = mine;
        for (int turn = 1; turn <= 2; ++turn) {
            __syncthreads();
            if (threadIdx.x == 0) {
                const unsigned long long wanted = (2 * r + turn) * WAITED;
                atomicAdd(p.arrived, 1ULL);
                while (*static_cast<volatile unsigned long long *>(p.arrived) < wanted) PAUSE;
            }
            __syncthreads();
            if (turn == 1 && threadIdx.x == 0)
                for (unsigned b = 0; b < gridDim.x; ++b) p.sums[blockIdx.x] += p.held[b];
        }
    }
    """,
)


def _together(driver, waited="gridDim.x", pause="GP_PAUSE()", blocks=4, plain=False):
    text = TOGETHER.replace("WAITED", waited).replace("PAUSE", pause)
    found = driver.compile(text).get("k")
    arrays = [np.zeros(1, np.uint64), np.zeros(blocks, np.int32), np.zeros(blocks, np.int32)]
    memories = [put(driver, array) for array in arrays]
    start = driver.launch if plain else driver.launch_together
    start(found, (blocks, 1, 1), (40, 1, 1), 0, pack(*memories, 3))
    driver.synchronize()
    return get(driver, memories[1], arrays[1])


def test_blocks_that_are_alive_together_meet(driver):
    """Each has shared memory of its own while the others have their turn."""
    sums = _together(driver)
    np.testing.assert_array_equal(sums, [sum(b + r for r in range(3) for b in range(4))] * 4)


def test_a_meeting_that_nobody_else_comes_to_is_an_error(driver):
    with pytest.raises(BackendError, match="waits forever in a loop that waits for other blocks"):
        _together(driver, waited="(gridDim.x + 1)")


def test_waiting_for_blocks_that_need_not_be_alive_is_an_error(driver):
    with pytest.raises(BackendError, match="whose blocks need not be alive together"):
        _together(driver, plain=True)


def test_more_blocks_than_there_is_room_for_are_refused(driver):
    with pytest.raises(BackendError, match="more than 4 blocks together"):
        _together(driver, blocks=5)
