"""cp.async on the emulator: bytes arrive when their thread waits for them, and not before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gpubp.backends.cuda.drivers import bare_nvrtc
from gpubp.testing import KernelError, Output, check_cuda

pytestmark = pytest.mark.skipif(bool(bare_nvrtc.missing()), reason=bare_nvrtc.missing() or "-")

# Threads copy 16 bytes each, twice, in two groups; `body` follows.
SOURCE = """extern "C" __global__ void k(const float4* x, float4* y, int taken) {
  __shared__ __align__(16) float4 s[2][32];
  const int t = threadIdx.x;
  for (int i = 0; i < 2; ++i) {
    unsigned at = (unsigned)__cvta_generic_to_shared(&s[i][t]);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(at), "l"(x + 32 * i + t), "r"(taken) : "memory");
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  BODY
}"""
WAIT = 'asm volatile("cp.async.wait_group {};" ::: "memory");'
MINE = "y[t] = s[0][t], y[32 + t] = s[1][t];"
OTHERS = "y[t] = s[0][t ^ 1], y[32 + t] = s[1][t ^ 1];"
X = np.arange(256, dtype=np.float32)


def run(body: str, taken: int = 16, x: NDArray[Any] = X) -> NDArray[np.float32]:
    args = [x, Output(256), taken]
    found = check_cuda(SOURCE.replace("BODY", body), grid=1, block=32, args=args)
    return np.asarray(found.arrays[1])


def error_of(body: str) -> KernelError:
    with pytest.raises(KernelError) as caught:
        run(body)
    return caught.value


def test_bytes_are_there_after_the_wait() -> None:
    np.testing.assert_array_equal(run(WAIT.format(0) + MINE), X)
    np.testing.assert_array_equal(run('asm volatile("cp.async.wait_all;" ::: "memory");' + MINE), X)
    turned = X.reshape(2, 16, 2, 4)[:, :, ::-1].reshape(-1)
    np.testing.assert_array_equal(run(WAIT.format(0) + "__syncthreads();" + OTHERS), turned)


def test_what_is_not_waited_for_is_on_its_way() -> None:
    error = error_of(MINE)
    assert error.kind == "race" and "cp.async" in error.reason and "s[0][t]" in error.text
    first = WAIT.format(1) + "y[t] = s[0][t];"  # but for the latest group
    np.testing.assert_array_equal(run(first + WAIT.format(0) + "y[32 + t] = s[1][t];"), X)
    assert error_of(first + "y[32 + t] = s[1][t];").kind == "race"
    assert error_of(WAIT.format(2) + "y[t] = s[0][t];").kind == "race"


def test_others_see_the_bytes_behind_a_barrier() -> None:
    """A barrier alone is as little as a wait alone, also within a warp."""
    for body in (WAIT.format(0), "__syncthreads();", "__syncthreads();" + WAIT.format(0)):
        assert error_of(body + OTHERS).kind == "race"


def test_nobody_may_write_where_a_copy_goes() -> None:
    error = error_of("s[1][t].x = 0; " + WAIT.format(0) + MINE)
    assert error.kind == "race" and "writes" in error.reason
    again = "s[0][t ^ 1].x = 0; __syncthreads();"
    assert error_of(WAIT.format(0) + again + MINE).kind == "race"
    run(WAIT.format(0) + "__syncthreads();" + again + MINE)


def test_a_copy_over_what_another_thread_still_reads_is_a_race() -> None:
    copy = SOURCE[SOURCE.index("    unsigned at") : SOURCE.index("  }\n  BODY")]
    over = copy.replace("s[i][t]", "s[0][t ^ 1]").replace("32 * i", "32")
    before = WAIT.format(0) + "__syncthreads(); y[t] = s[0][t];"
    after = WAIT.format(0) + "y[32 + t] = s[0][t ^ 1];"
    assert "fills" in error_of(before + "{" + over + "}" + after).reason
    run(before + "__syncthreads(); {" + over + "}" + after)


def test_two_copies_to_one_place_are_a_race() -> None:
    with pytest.raises(KernelError, match="another thread copies") as caught:
        check_cuda(
            SOURCE.replace("BODY", WAIT.format(0)).replace("&s[i][t]", "&s[i][t / 2]"),
            grid=1,
            block=32,
            args=[X, Output(256), 16],
        )
    assert caught.value.kind == "race"


@pytest.mark.parametrize("taken", [0, 1, 2, 4, 6, 11, 16])
def test_only_some_bytes_are_read_and_the_rest_is_zero(taken: int) -> None:
    """Nothing behind them is touched: the last thread's end the array."""
    found = run(WAIT.format(0) + MINE, taken)
    expected = X.view(np.uint8).reshape(64, 16).copy()
    expected[:, taken:] = 0
    np.testing.assert_array_equal(found.view(np.uint8).reshape(64, 16), expected)
    short = X.view(np.uint8)[: 63 * 16 + taken]
    run(WAIT.format(0) + MINE, taken, short)
    if taken:
        with pytest.raises(KernelError, match="out of bounds"):
            run(WAIT.format(0) + MINE, taken, short[:-1])


def test_more_bytes_than_the_copy_has_are_undefined() -> None:
    with pytest.raises(KernelError, match="copies 17 bytes as 16"):
        run(WAIT.format(0) + MINE, 17)


def test_what_is_copied_must_stay_until_it_is_there() -> None:
    """Also if a barrier stands before the write: the copy may read as late as at its wait."""
    source = SOURCE.replace("const float4* x", "float4* x").replace(
        "BODY", "__syncthreads(); x[t ^ 1].x = -1; __syncthreads();" + WAIT.format(0) + MINE
    )
    with pytest.raises(KernelError, match="changes before it is there") as caught:
        check_cuda(source, grid=1, block=32, args=[X.copy(), Output(256), 16])
    assert caught.value.kind == "race"


def test_addresses_are_whole() -> None:
    source = SOURCE.replace("BODY", WAIT.format(0) + MINE)
    for old, new in (("x + 32 * i + t", "(const float*)x + t"), ('"r"(at)', '"r"(at + 4)')):
        with pytest.raises(KernelError, match="no multiple of 16") as caught:
            check_cuda(source.replace(old, new), grid=1, block=32, args=[X, Output(256), 16])
        assert caught.value.kind == "alignment"


def test_several_blocks_have_copies_of_their_own() -> None:
    """Blocks run side by side; threads that do not copy need not wait."""
    source = """extern "C" __global__ void k(const int* x, int* y, int n) {
      __shared__ int s[64];
      const int t = threadIdx.x, i = blockIdx.x * 64 + t;
      if (i < n) {
        unsigned at = (unsigned)__cvta_generic_to_shared(s + t);
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"(at), "l"(x + i) : "memory");
        asm volatile("cp.async.wait_all;" ::: "memory");
      } else {
        s[t] = -1;
      }
      __syncthreads();
      y[i] = s[63 - t];
    }"""
    x = np.arange(150, dtype=np.int32)
    found = check_cuda(source, grid=3, block=64, args=[x, Output(192, np.int32), 150]).arrays[1]
    whole = np.r_[x, np.full(42, -1)].reshape(3, 64)
    np.testing.assert_array_equal(found, whole[:, ::-1].reshape(-1))
