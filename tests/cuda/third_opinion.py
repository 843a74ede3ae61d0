"""The kernels' own sources on an executor that nobody here wrote: HIP-CPU, which runs CUDA C++ that
keeps to HIP on the CPU. Not part of the tests: it needs a checkout of it, and TBB.

    git clone https://github.com/ROCm/HIP-CPU
    python -m venv tbb && tbb/bin/pip install tbb-devel
    python tests/cuda/third_opinion.py HIP-CPU tbb

Comes in: the folders of both. Goes out: whole trainings, compared with the numpy backend; an error
if one differs. Added to HIP-CPU, as its headers do not have them, or not as CUDA has them: bit
casts, `rsqrt`, `__trap`, integer minima, and `__shfl_xor_sync` (its `__shfl_xor` keeps one table of
64 values a block, so blocks of more threads mix up their warps), by its own barrier.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from counting_driver import CountingDriver
from numpy.typing import NDArray

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.cuda import CupyBackend
from gpubp.backends.cuda.drivers.base import Dim
from gpubp.core.store import address_of

PREFIX = r"""
#include <hip/hip_runtime.h>
#include <cmath>
#include <cstring>
#include <tuple>
#undef __device__
#define __device__
#undef __global__
#define __global__
#undef __forceinline__
#define __forceinline__ inline
#define __align__(n) __attribute__((aligned(n)))
template <class To, class From> inline To gp_bits(From x) {
  static_assert(sizeof(To) == sizeof(From)); To y; std::memcpy(&y, &x, sizeof y); return y;
}
#define GP_CAST(name, to, from) inline to name(from x) { return gp_bits<to>(x); }
GP_CAST(__float_as_int, int, float)
GP_CAST(__int_as_float, float, int)
GP_CAST(__float_as_uint, unsigned, float)
GP_CAST(__uint_as_float, float, unsigned)
GP_CAST(__double_as_longlong, long long, double)
template <class T> inline T __shfl_xor_sync(unsigned, T mine, int other) {
  static thread_local T held[1024];
  const int t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  held[t] = mine;
  __syncthreads();
  const T found = held[t ^ other];
  __syncthreads();
  return found;
}
#define GP_DYNAMIC_SHARED(type, name) HIP_DYNAMIC_SHARED(type, name)
template <class F, class P>
void gp_grid(F kernel, const unsigned* of, unsigned shared, P p) {
  const std::tuple<P> args{p};
  struct {
    const F* fn;
    const std::tuple<P>* args;
    void operator()() const noexcept { std::apply(*fn, *args); }
  } tmp{&kernel, &args};
  hip::detail::Tiled_domain domain{dim3(of[3], of[4], of[5]), dim3(of[0], of[1], of[2]), shared,
                                   std::move(tmp)};
  for_each_tile(domain, kernel, args);
}
#define GP_KERNEL(name, Params)                                                              \
  extern "C" __attribute__((visibility("default"))) void start_##name(                      \
      const unsigned* of, unsigned shared, const void* bytes) {                              \
    Params p;                                                                                \
    std::memcpy(&p, bytes, sizeof p);                                                        \
    gp_grid([](Params q) { name(q); }, of, shared, p);                                       \
  }
"""


class Built:
    """The kernels of one source, built."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))

    def get(self, name: str) -> tuple[str, Any]:
        return name, getattr(self._library, f"start_{name}")


class HipCpuDriver(CountingDriver):
    """A `Driver` over HIP-CPU; memory is the process's.

    Args:
        hip, tbb: folders; see above.
        into: where libraries are built.

    Attributes:
        ran: launches, by kernel.
    """

    name = "HIP-CPU"
    processors = 4

    def __init__(self, hip: Path, tbb: Path, into: Path) -> None:
        super().__init__()
        self._into, self._lib = into, tbb / "lib"
        self._include = [f"-I{hip / 'include'}", f"-I{tbb / 'include'}", f"-I{into}"]
        (into / "prefix.h").write_text(PREFIX)
        self._work: list[Callable[[], None]] | None = None
        self.ran: Counter[str] = Counter()

    def allocate(self, nbytes: int) -> Any:
        return Room(nbytes)

    def upload(self, target: int, array: NDArray[Any]) -> None:
        super().upload(target, array)
        ctypes.memmove(target, address_of(array), array.nbytes)

    def download(self, source: int, array: NDArray[Any]) -> None:
        super().download(source, array)
        ctypes.memmove(address_of(array), source, array.nbytes)

    def compile(self, source: str) -> Any:
        path = self._into / f"{hashlib.sha256(source.encode()).hexdigest()[:20]}.so"
        path.with_suffix(".cpp").write_text(f'#include "prefix.h"\n{source}')
        command = ["g++", "-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-w"]
        command += ["-fno-gnu-unique", "-fvisibility=hidden"]  # each library has its own HIP-CPU
        command += [*self._include, str(path.with_suffix(".cpp")), "-o", str(path)]
        command += [f"-L{self._lib}", f"-Wl,-rpath,{self._lib.resolve()}", "-ltbb", "-lpthread"]
        subprocess.run(command, check=True)
        return Built(path)

    def launch(self, kernel: Any, grid: Dim, block: Dim, shared: int, params: bytes) -> None:
        name, start = kernel
        sizes = (ctypes.c_uint * 6)(*grid, *block)

        def work() -> None:
            self.ran[name] += 1
            start(sizes, shared, params)

        if self._work is None:
            work()
        else:
            self._work.append(work)

    def record_branches(self, nodes: Any) -> Callable[[], None]:
        self._work = taken = []
        try:
            for node in nodes:
                node.work()
        finally:
            self._work = None

        def replay() -> None:
            for work in taken:
                work()

        return replay


class Room:
    """Memory at a multiple of 256."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self._held = np.zeros(nbytes + 256, np.uint8)
        self.address = -(-address_of(self._held) // 256) * 256


RULES: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
    "adam_decay": lambda p: optim.Adam(p, lr=1e-2, weight_decay=1e-2),
}


def trained(backend: Any, rule: str) -> dict[str, NDArray[Any]]:
    """Ten steps of 64-100-10, the last of each epoch a short one; losses and parameters."""
    nn.init.manual_seed(3)
    model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
    loss = nn.CrossEntropyLoss()
    step = gp.compile_step(
        lambda x, y: loss(model(x), y), RULES[rule](model.parameters()), backend=backend
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(450, 64)).astype("f"), rng.integers(0, 10, 450)
    losses = step.run(x, y, batch_size=100, epochs=2, seed=1)
    return {"losses": losses, **model.state_dict()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("hip", type=Path, help="a checkout of ROCm/HIP-CPU")
    parser.add_argument("tbb", type=Path, help="a folder with TBB's include/ and lib/")
    options = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        driver = HipCpuDriver(options.hip, options.tbb, Path(folder))
        for rule in RULES:
            before = sum(driver.ran.values())
            found = trained(CupyBackend(driver=driver, execution="graph"), rule)
            expected = trained("numpy", rule)
            error = max(float(np.abs(found[n] - expected[n]).max()) for n in expected)
            worst = max(worst, error)
            launches = sum(driver.ran.values()) - before
            said = f"{launches} launches, the largest difference to numpy is {error:.2g}"
            print(f"{rule}: {said}", flush=True)
    return int(worst > 1e-5)


if __name__ == "__main__":
    sys.exit(main())
