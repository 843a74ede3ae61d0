"""The shim catches what a kernel must not do: every fault here is seeded, and must be found."""

from __future__ import annotations

import re

import numpy as np
import pytest
import shim_build
from launching import get, kernel, launch, pack, put
from shim_driver import ORDERS, KernelError, ShimDriver

from gpubp.errors import BackendError

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))


@pytest.fixture(params=ORDERS)
def driver(request):
    return ShimDriver(request.param, seed=3)


def _rotate(barrier: str) -> str:
    """Every thread takes its neighbour's value, through shared memory."""
    return kernel(
        "float *x;",
        f"""
        __shared__ float held[64];
        int t = threadIdx.x;
        held[t] = p.x[t];
        {barrier}
        p.x[t] = held[(t + 1) % 64];
        """,
    )


def test_a_missing_barrier_shows_in_every_order(driver):
    x = np.arange(64, dtype=np.float32)
    (good,) = launch(driver, _rotate("__syncthreads();"), (x,), 1, 64)
    np.testing.assert_array_equal(good, np.roll(x, -1))
    (bad,) = launch(driver, _rotate(""), (x,), 1, 64)
    assert np.isnan(bad).any()


def test_a_missing_barrier_that_one_order_hides_shows_in_another():
    """Threads read what threads before them wrote: right in the order forward."""
    source = kernel(
        "float *x;",
        """
        __shared__ float held[64];
        int t = threadIdx.x;
        held[t] = p.x[t];
        if (t > 0) p.x[t] = held[t - 1];
        """,
    )
    x = np.arange(64, dtype=np.float32)
    nans = {o: np.isnan(launch(ShimDriver(o), source, (x,), 1, 64)[0]).sum() for o in ORDERS}
    assert nans["forward"] == 0
    assert nans["reverse"] == 63
    assert 0 < nans["random"] < 63


def test_a_missing_barrier_between_the_rounds_of_a_loop():
    """The first thread writes the second tile before the others have read the first one."""
    source = kernel(
        "const int *x; int *y;",
        """
        __shared__ int tile;
        int sum = 0;
        for (int i = 0; i < 4; ++i) {
            if (threadIdx.x == 0) tile = p.x[i];
            __syncthreads();
            sum += tile;
            BARRIER
        }
        p.y[threadIdx.x] = sum;
        """,
    )
    x, y = np.array([1, 20, 300, 4000], np.int32), np.zeros(64, np.int32)
    for order in ORDERS:
        driver = ShimDriver(order)
        _, good = launch(driver, source.replace("BARRIER", "__syncthreads();"), (x, y), 1, 64)
        assert (good == 4321).all()
    _, bad = launch(ShimDriver("forward"), source.replace("BARRIER", ""), (x, y), 1, 64)
    assert (bad != 4321).any()


def test_a_missing_warp_barrier_shows():
    source = kernel(
        "int *y;",
        """
        __shared__ int held[32];
        held[threadIdx.x] = threadIdx.x;
        BARRIER
        p.y[threadIdx.x] = held[31 - threadIdx.x];
        """,
    )
    y = np.zeros(32, np.int32)
    for order in ORDERS:
        (good,) = launch(ShimDriver(order), source.replace("BARRIER", "__syncwarp();"), (y,))
        assert good.tolist() == list(range(32))[::-1]
        (bad,) = launch(ShimDriver(order), source.replace("BARRIER", ""), (y,))
        assert (bad == -1).any()


def test_shared_memory_is_poisoned_before_each_block(driver):
    source = kernel(
        "float *y; double *z;",
        """
        __shared__ float fixed[4];
        __shared__ double wide[4];
        GP_DYNAMIC_SHARED(float, given);
        int i = blockIdx.x * 4 + threadIdx.x;
        p.y[i] = fixed[threadIdx.x] + given[threadIdx.x];
        p.z[i] = wide[threadIdx.x];
        __syncthreads();
        fixed[threadIdx.x] = given[threadIdx.x] = 1.0f;
        wide[threadIdx.x] = 1.0;
        """,
    )
    y, z = np.zeros(12, np.float32), np.zeros(12)
    for found in launch(driver, source, (y, z), 3, 4, shared=16):
        assert np.isnan(found).all()


def test_variables_that_are_not_set_are_not_zero():
    source = kernel("float *y;", "float s; for (int i = 0; i < 3; ++i) s += 1; p.y[0] = s;")
    (y,) = launch(ShimDriver(), source, (np.zeros(1, np.float32),), 1, 1)
    assert abs(y[0]) > 1e30


TAIL = kernel(
    "const float *x; float *y; int n;",
    "int i = blockIdx.x * 64 + threadIdx.x; if (i <= p.n) p.y[i] = 2 * p.x[i];",
)


@pytest.mark.parametrize("n", [1, 63, 65, 100])
def test_an_off_by_one_tail_damages_a_canary(driver, n):
    x = np.ones(n, np.float32)
    with pytest.raises(KernelError, match=f"kernel k.* past the end of an allocation of {4 * n} b"):
        launch(driver, TAIL, (x, x, n), n // 64 + 1, 64)


@pytest.mark.parametrize("n", [64, 128])
def test_an_off_by_one_tail_reaches_a_guard_page(driver, n):
    x = np.ones(n, np.float32)
    with pytest.raises(KernelError, match=f" 0 bytes past the end .* {4 * n} bytes") as caught:
        launch(driver, TAIL, (x, x, n), n // 64 + 1, 64)
    assert (caught.value.kernel, caught.value.block, caught.value.thread) == (
        *("k", (n // 64, 0, 0), (0, 0, 0)),
    )


@pytest.mark.parametrize("n", [63, 64, 65])
@pytest.mark.parametrize(
    "body",
    [
        "p.x[threadIdx.x] *= 2.0f;",
        "p.x[threadIdx.x] -= 0.5f * p.y[threadIdx.x];",
        "p.x[threadIdx.x] = p.y[threadIdx.x];",
    ],
)
@pytest.mark.parametrize("c_type", ["float", "double", "int"])
def test_an_off_by_one_tail_in_place(c_type, body, n):
    """NaN times two is the same NaN, unless it is a signalling one."""
    dtype = {"float": np.float32, "double": np.float64, "int": np.int32}[c_type]
    x = np.ones(n, dtype)
    source = kernel(f"{c_type} *x; {c_type} *y;", body)
    launch(ShimDriver(), source, (x, x), 1, n)
    with pytest.raises(KernelError, match="past the end"):
        launch(ShimDriver(), source, (x, x), 1, n + 1)


def test_reading_past_the_end_gives_nan_or_stops():
    source = kernel("const float *x; float *y; int n;", "p.y[0] = p.x[p.n];")
    y = np.zeros(1, np.float32)
    _, found = launch(ShimDriver(), source, (np.ones(5, np.float32), y, 5), 1, 1)
    assert np.isnan(found[0])
    with pytest.raises(KernelError, match="0 bytes past the end"):
        launch(ShimDriver(), source, (np.ones(64, np.float32), y, 64), 1, 1)


def test_writing_before_the_start():
    source = kernel("float *x; int at;", "p.x[p.at] = 1.0f;")
    with pytest.raises(KernelError, match="wrote before an allocation of 20 bytes"):
        launch(ShimDriver(), source, (np.ones(5, np.float32), -1), 1, 1)
    with pytest.raises(KernelError, match=" 4 bytes before an allocation of 4096 bytes"):
        launch(ShimDriver(), source, (np.ones(1024, np.float32), -1), 1, 1)


@pytest.mark.parametrize("past", [0, 1, 2, 3, 60, 1000])
def test_writing_past_the_end_of_dynamic_shared_memory(driver, past):
    source = kernel("int at;", "GP_DYNAMIC_SHARED(float, given); given[p.at] = 1.0f;")
    launch(driver, source, (32,), 1, 4, shared=33 * 4)
    with pytest.raises(KernelError, match=r"past the end of (132 bytes of|its) dynamic shared mem"):
        launch(driver, source, (33 + past,), 1, 4, shared=33 * 4)


def test_writing_before_dynamic_shared_memory(driver):
    source = kernel("int at;", "GP_DYNAMIC_SHARED(float, given); given[p.at] = 1.0f;")
    with pytest.raises(KernelError, match=r"block \(0, 0, 0\): .* wrote before its dynamic"):
        launch(driver, source, (-1,), 1, 4, shared=64)


def test_an_index_outside_an_array(driver):
    source = kernel(
        "int n;",
        "__shared__ float tile[8][9]; tile[p.n][threadIdx.x] = 1.0f; __syncthreads();",
    )
    launch(driver, source, (7,), 1, 9)
    with pytest.raises(KernelError, match=r"index 8 is outside the array at .*\.cu:3"):
        launch(driver, source, (8,), 1, 9)
    with pytest.raises(KernelError, match=r"thread \(9, 0, 0\): index 9 is outside"):
        launch(driver, source, (7,), 1, 10)


def test_a_misaligned_vector_access():
    source = kernel(
        "float *x; int at;", "*reinterpret_cast<float4 *>(p.x + p.at) = make_float4(1, 2, 3, 4);"
    )
    x = np.zeros(12, np.float32)
    assert launch(ShimDriver(), source, (x, 4), 1, 1)[0][4:8].tolist() == [1, 2, 3, 4]
    with pytest.raises(KernelError, match="misaligned access"):
        launch(ShimDriver(), source, (x, 5), 1, 1)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (  # a barrier in each branch
            "if (threadIdx.x < 40) __syncthreads();\nelse __syncthreads();",
            r"thread \(0, 0, 0\): waits in __syncthreads at .*\.cu:3, but thread \(40, 0, 0\)",
        ),
        (  # a barrier that the others never reach, because they wait for a whole warp
            "if (threadIdx.x < 40) __syncthreads();\nelse __syncwarp();",
            r"thread \(0, 0, 0\): waits in __syncthreads at .* \(40, 0, 0\) waits in __syncwarp",
        ),
        (  # a loop with a number of rounds of its own, and other barriers after it
            "for (int i = 0; i < int(threadIdx.x); ++i) __syncthreads();\n"
            "__syncthreads(); __syncwarp();",
            r"waits in __syncthreads at .*\.cu:4, but thread .* waits in __syncthreads at .*:3",
        ),
        (  # a shuffle that half of the lanes do not take part in
            "if (threadIdx.x % 2) __shfl_xor_sync(0xffffffffu, 1, 2); else __syncthreads();",
            r"waits in __syncthreads at .* \(1, 0, 0\) waits in __shfl_xor_sync",
        ),
        (  # masks that do not agree
            "__syncwarp(threadIdx.x == 0 ? 3u : 0xffffffffu);",
            r"thread \(0, 0, 0\): waits forever in __syncwarp .*mask 0x00000003",
        ),
        (
            "__ballot_sync(0xffu, 1);",
            r"lane 8 calls __ballot_sync at .* \(0x000000ff\) that leaves it out",
        ),
        ("__shfl_sync(0xffffffffu, 1, 0, 12);", "width 12 of __shfl_sync is not a power of two"),
        ("if (threadIdx.x == 7) __trap();", r"thread \(7, 0, 0\): __trap\(\) at .*\.cu:3"),
        ("assert(threadIdx.x != 7);", r"thread \(7, 0, 0\): assertion `.*x != 7` failed"),
        ("volatile int zero = 0; zero = 1 / zero;", "integer division by zero"),
        ("*(volatile int *)nullptr = 1;", "access to address 0x0, which is in no allocation"),
        ("volatile char big[100000]; big[p.n] = 1;", "stack overflow: more than 64 kB"),
    ],
)
def test_what_stops_a_kernel(body, message):
    driver = ShimDriver("forward")
    with pytest.raises(KernelError, match="kernel k, block .*" + message):
        launch(driver, kernel("int n;", body), (0,), 1, 64)
    (y,) = launch(driver, _rotate("__syncthreads();"), (np.arange(64, dtype=np.float32),), 1, 64)
    assert y[0] == 1, "the driver works on after an error"


def test_a_kernel_that_never_ends():
    """Block 0 waits for block 1, which runs only when block 0 is done."""
    source = kernel(
        "int *go;",
        "if (blockIdx.x) *p.go = 1; else while (!*(volatile int *)p.go) {}",
    )
    go = np.zeros(1, np.int32)
    launch(ShimDriver("reverse", seconds=0.2), source, (go,), 2, 1)
    with pytest.raises(KernelError, match=r"block \(0, 0, 0\).*does not end"):
        launch(ShimDriver("forward", seconds=0.2), source, (go,), 2, 1)


def test_a_reduction_that_is_right_for_one_block_only():
    """Each block adds up its own part, but only one result is kept."""
    source = kernel(
        "const float *x; float *sum; int n;",
        """
        __shared__ float part[32];
        int i = blockIdx.x * 32 + threadIdx.x;
        part[threadIdx.x] = i < p.n ? p.x[i] : 0.0f;
        __syncthreads();
        if (threadIdx.x == 0) {
            float total = 0.0f;
            for (int k = 0; k < 32; ++k) total += part[k];
            *p.sum = total;
        }
        """,
    )
    zero = np.zeros(1, np.float32)
    for n, right in ((31, True), (32, True), (33, False), (64, False)):
        x = np.arange(1, n + 1, dtype=np.float32)
        for order in ORDERS:
            _, found = launch(ShimDriver(order), source, (x, zero, n), -(-n // 32), 32)
            assert (found[0] == x.sum()) is np.bool_(right), (n, order)


def test_blocks_that_need_an_order_differ_by_order():
    """A plain sum into one place, block after block, is no race that a GPU would win."""
    source = kernel("float *x;", "p.x[0] = p.x[0] * 2.0f + float(blockIdx.x);")
    x = np.zeros(1, np.float32)
    found = {launch(ShimDriver(o), source, (x,), 4, 1)[0][0] for o in ORDERS}
    assert len(found) > 1


def test_a_frozen_learning_rate_shows_in_a_replay():
    """A rate among the parameters is recorded; one that is read from memory is not."""
    frozen = kernel("float *w; float lr;", "p.w[0] -= p.lr;")
    alive = kernel("float *w; const float *lr;", "p.w[0] -= p.lr[0];")
    found = []
    for source in (frozen, alive):
        driver = ShimDriver()
        w, lr = np.zeros(1, np.float32), np.ones(1, np.float32)
        memory, rate = put(driver, w), put(driver, lr)
        k = driver.compile(source).get("k")
        params = pack(memory, float(lr[0]) if source is frozen else rate)

        def work(driver=driver, k=k, params=params):
            driver.launch(k, (1, 1, 1), (1, 1, 1), 0, params)

        replay = driver.record(work)
        for value in (1.0, 10.0, 100.0):
            driver.upload(rate.address, np.array([value], np.float32))
            replay()
        found.append(-float(get(driver, memory, w)[0]))
    assert found == [3.0, 111.0]


@pytest.mark.parametrize(
    ("launching", "message"),
    [
        ({"grid": 0}, r"the grid is \(0, 1, 1\)"),
        ({"grid": (1, 65536, 1)}, r"the grid is \(1, 65536, 1\)"),
        ({"block": 0}, r"the block is \(0, 1, 1\)"),
        ({"block": 1025}, r"the block is \(1025, 1, 1\)"),
        ({"block": (64, 32, 1)}, "more than 1024 threads"),
        ({"block": (1, 1, 128)}, r"the block is \(1, 1, 128\)"),
        ({"shared": 164 << 10}, "bytes of shared memory"),
        ({"shared": -1}, "bytes of shared memory"),
    ],
)
def test_launches_that_a_gpu_refuses(launching, message):
    source = kernel("int n;", "")
    launch(ShimDriver(), source, (1,))
    with pytest.raises(KernelError, match=f"kernel k: cannot be launched: .*{message}"):
        launch(ShimDriver(), source, (1,), **launching)


def test_parameters_of_another_size_are_refused():
    source = kernel("int *x; int n;", "")
    with pytest.raises(KernelError, match="8 bytes of parameters, expected 16"):
        launch(ShimDriver(), source, (np.zeros(1, np.int32),))


def test_copies_stay_inside_one_allocation():
    driver = ShimDriver()
    memory = put(driver, np.zeros(4, np.float32))
    long = np.zeros(5, np.float32)
    for copy in (driver.upload, driver.download):
        for address in (memory.address, memory.address - 4, memory.address + 4, 0):
            with pytest.raises(BackendError, match="not in one allocation"):
                copy(address, long)
        with pytest.raises(BackendError, match="C-contiguous"):
            copy(memory.address, np.zeros((2, 2), np.float32).T)
    driver.upload(memory.address + 8, long[:2])


def test_memory_that_was_freed_cannot_be_used():
    driver = ShimDriver()
    memory = put(driver, np.zeros(1024, np.float32))
    address = memory.address
    assert address % 256 == 0
    del memory
    k = driver.compile(kernel("unsigned long long at;", "*(float *)p.at = 1.0f;")).get("k")
    with pytest.raises(KernelError, match=re.escape(f"{address:#x}")):
        driver.launch(k, (1, 1, 1), (1, 1, 1), 0, address.to_bytes(8, "little"))


def test_damage_is_found_when_memory_is_freed_too():
    """A host that writes where no kernel would."""
    import ctypes

    driver = ShimDriver()
    memory = driver.allocate(5)
    ctypes.memset(memory.address, 0, 6)
    with pytest.raises(BackendError, match="past the end of an allocation of 5 bytes"):
        driver.synchronize()
    driver.synchronize()
    ctypes.memset(memory.address, 0, 6)
    ShimDriver().synchronize()
    del memory
    with pytest.raises(BackendError, match="past the end of an allocation of 5 bytes"):
        driver.synchronize()
    driver.synchronize()


def test_memory_starts_as_zeros_and_any_size_works():
    driver = ShimDriver()
    for nbytes in (0, 1, 255, 256, 4096, 10000):
        memory = driver.allocate(nbytes)
        assert memory.nbytes == nbytes
        assert not get(driver, memory, np.ones(nbytes, np.uint8)).any()
