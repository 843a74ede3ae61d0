"""Every CUDA source compiles for real GPUs: no spills, no stack frame, no jump in registers."""

from __future__ import annotations

import re

import numpy as np
import nvrtc
import ptx_checks
import pytest
from conv_rows import OPS
from launching import kernel
from sources import STAYING, CollectingDriver, sources_for

import gpubp as gp
from gpubp import nn, ops
from gpubp.backends.cuda import CupyBackend
from gpubp.backends.cuda.codegen import staged
from gpubp.errors import BackendError

pytestmark = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_every_kernel_fits_its_registers(architecture):
    """Whichever NVRTC is installed: no spills, nothing slow in inner loops, no load that stores are
    not ordered with. Where there is a table for it: no jumps in registers either.
    """
    if not nvrtc.bare_nvrtc.knows(architecture):
        pytest.skip(f"this NVRTC does not know {architecture}")
    found = nvrtc.compile_all(sources_for(architecture), architecture)
    assert found
    lines, table = nvrtc.faults(found, architecture), nvrtc.read_table()
    if table is not None:
        lines += nvrtc.jumps(found, table[architecture])
    advice = "after a change that is meant: python tests/cuda/nvrtc.py --add, or without --add"
    assert not lines, "\n".join([*lines, advice])


@pytest.mark.parametrize("path", sorted(nvrtc.TABLES.glob("*.json")), ids=lambda path: path.stem)
def test_every_source_has_a_kernel_in_each_table(path):
    table = nvrtc.read_table(path)
    assert table is not None
    assert table.keys() == set(nvrtc.ARCHITECTURES)
    for architecture, kernels in table.items():
        assert {name.split("/")[0] for name in kernels} == sources_for(architecture).keys()


WIDE = re.compile(r"\b(?:div|rem)\.[su]64\b")


def test_nothing_divides_64_bit_numbers_for_each_element():
    """Batches that are gathered, operands that are broadcast or strided, slices and what is joined
    have positions of 32 bits; with them in 64 the divisions are seen.
    """
    found = {
        name: source
        for name, source in sources_for("sm_90").items()
        if not name.startswith(STAYING)  # these have sums, too
        and (
            name.split()[0] == "broadcast" or "gp::load_batch<" in source or "gp::gather<" in source
        )
    }
    assert len(found) > 5
    for name, source in found.items():
        assert not WIDE.search(nvrtc.ptx_of(source, "sm_90")), name
    batch = next(source for source in found.values() if "gp::load_batch<" in source)
    assert WIDE.search(nvrtc.ptx_of(batch.replace("gp::u32>(", "gp::i64>("), "sm_90"))


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_inner_loops_read_by_vectors(architecture):
    """Elements in a row, factors of products, and their slices in shared memory: 16 bytes at a
    time; from sm_80 on two numbers are rounded to 16 bits at once.
    """
    if not nvrtc.bare_nvrtc.knows(architecture):
        pytest.skip(f"this NVRTC does not know {architecture}")
    sources = sources_for(architecture)
    (text,) = (nvrtc.ptx_of(source, architecture) for source in _elementwise())
    found = (rf"\b{what}\.(?:global\.)?v4\.[fb]32" for what in ("ld", "st"))
    loads, stores = (re.findall(pattern, text) for pattern in found)
    assert len(loads) == 2 and len(stores) == 1  # a row of x and one of the bias at a time
    product = nvrtc.ptx_of(sources["product nn 2000"], architecture)
    assert re.search(r"ld\.shared\.v4\.[fb]32", product)  # of sm_100, 13.5 has no types
    assert not re.search(r"ld\.shared\.[fb]32", product)
    if architecture != "sm_75":
        text = nvrtc.ptx_of(sources["tensor bf16 nt 2000"], architecture)
        assert "cvt.rn.bf16x2.f32" in text and re.search(r"ld\.v4\.[fb]32", text)


@pytest.mark.parametrize("precision", ["bf16", "float16", "tf32"])
@pytest.mark.parametrize("layout", ["nn", "nt", "tn"])
def test_products_of_rounded_factors_only_copy_and_multiply(layout, precision):
    """A slice of k of a tile, for a thread: 4 copies of 16 bytes that go on beside, 12 times four
    8 by 8 elements, 32 products; nothing is rounded, loaded by hand, stored. TF32 is read by words
    where its neighbours are not along k. See docs/design.
    """
    of = sources_for("sm_80")
    names = (f"{kind} {precision} {layout} 2000" for kind in ("staged", "tensor"))
    counts, direct = (
        ptx_checks.slice_counts(nvrtc.ptx_of(of[name], "sm_80"), "kernel", 32) for name in names
    )
    words = {"nn": 16, "nt": 0, "tn": 48}[layout] if precision == "tf32" else 0
    assert counts["ldmatrix"] == 12 - words // 4 and counts["ld.shared"] == words
    assert counts["mma"] == 32 and counts["cp.async.cg"] == 4
    for once in ("cp.async.wait_group", "cp.async.commit_group", "bar"):
        assert counts[once] == 1
    assert not {"ld", "st", "st.shared", "cvt.rn"} & counts.keys()
    turned = {"nn": 4, "nt": 0, "tn": 12}[layout] if precision != "tf32" else 0
    assert counts["ldmatrix.trans"] == turned
    assert direct["mma"] == 32 and direct["ld.shared"] == 48 and not direct["ldmatrix"]
    elements = 16 if precision == "tf32" else 32
    assert direct["all"] - counts["all"] >= staged.PRODUCT_SAVES * elements


@pytest.mark.parametrize("precision", ["bf16", "float16", "tf32"])
@pytest.mark.parametrize("op", OPS)
def test_convolutions_of_rounded_images_only_copy_and_multiply(op, precision):
    """As products; what a thread does to find places is done for cells, not for elements."""
    of = sources_for("sm_80")
    staying, tiled = (
        next(
            source
            for name, source in of.items()
            if name.startswith(f"{kind} {precision} {op}") and f"gp::gemm_{kind}<" in source
        )
        for kind in ("staged", "tensor")
    )
    texts = (nvrtc.ptx_of(source, "sm_80") for source in (staying, tiled))
    counts, direct = (ptx_checks.slice_counts(text, "kernel", 32) for text in texts)
    assert counts["mma"] == direct["mma"] == 32 and counts["cp.async.cg"] == 4
    assert not {"ld", "st", "st.shared", "cvt.rn"} & counts.keys()
    elements = 16 if precision == "tf32" else 32
    assert direct["ld"] == elements
    assert direct["all"] - counts["all"] >= staged.WINDOWS_SAVE * elements


def _elementwise():
    """Rows and a bias, 16 bytes at a time: between arrays that stay where they are."""
    driver, bias = CollectingDriver(), nn.Parameter(np.zeros(64, np.float32))
    backend = CupyBackend(driver=driver)
    step = gp.compile(lambda x: ops.softmax(ops.tanh(ops.softmax(x) + bias) * 2.0), backend=backend)
    step(np.zeros((300, 64), np.float32))
    return [s for s in driver.sources if "Vector<" in s.split("struct Params")[-1]]


SLOW = {
    "a 64-bit division in an inner loop: div": "for (long long i = 0; i < p.n; ++i)\n"
    "  p.x[i / p.m] += p.x[i];",
    "local memory in an inner loop: ": "float held[64];\n"
    "for (int i = 0; i < 64; ++i) held[i] = p.x[i];\n"
    "for (int i = 0; i < p.n; ++i) p.x[i] = held[(i * 7) % 64 + p.x[i] > 0];",
    "a load that is not ordered with stores: .nc": "p.x[0] = __ldg(p.x + p.n);",
}


@pytest.mark.parametrize("said", SLOW)
def test_what_is_slow_is_seen(said):
    source = _for_cuda(kernel("float *x; long long n, m;", SLOW[said]))
    found = nvrtc.compile_all({"s": source}, "sm_80")
    assert found["s/k"].slow[0].startswith(said)
    assert any(said in line for line in nvrtc.faults(found, "sm_80"))


def test_loops_without_reads_and_outer_loops_may_divide():
    source = _for_cuda(
        kernel(
            "float *x; long long n, m;",
            "__shared__ long long at[32];\n"
            "for (long long i = threadIdx.x; i < 32; i += p.m) at[i] = (i + p.n) / p.m;\n"
            "__syncthreads();\n"
            "for (long long i = 0; i < p.n; ++i) {\n"
            "  float* row = p.x + at[i / p.m];\n"
            "  for (long long j = 0; j < p.m; ++j) row[j] *= 2.0f;\n"
            "}",
        )
    )
    assert nvrtc.compile_source(source, "sm_80")["k"].slow == ()


def test_whole_steps_read_what_other_blocks_wrote():
    """No load goes by the cache of what never changes; what a block wrote is fenced, twice at each
    meeting; and where rows are shared out, nothing divides 64-bit numbers.
    """
    source = sources_for("sm_90")["staying 64-100-10 adam float32"]
    text = nvrtc.ptx_of(source, "sm_90")
    assert "ld.global.nc" not in text and "ld.volatile" in text
    fences = len(re.findall(r"\b(?:membar\.gl|fence\.[\w.]*gpu)", text))
    assert fences == 2 * source.count("meeting.meet();")
    launched = "gp::first_of(p.shared_rows, blockIdx.x)"
    assert source.count(launched) > 8
    without = source.replace("low(rows) / gridDim.x", "1u").replace("low(rows) % gridDim.x", "0u")
    assert len(WIDE.findall(text)) == len(WIDE.findall(nvrtc.ptx_of(without, "sm_90")))


def test_a_stack_frame_is_seen():
    """An array whose elements are found only while it runs."""
    source = kernel(
        "float *x; const int *at; int n;",
        "float held[256]; for (int i = 0; i < 256; ++i) held[i] = p.x[i];\n"
        "for (int i = 0; i < p.n; ++i) held[p.at[i]] += held[p.at[i + 1]];\n"
        "for (int i = 0; i < 256; ++i) p.x[i] = held[i];",
    )
    found = nvrtc.compile_all({"frame": _for_cuda(source)}, "sm_80")
    assert found["frame/k"].stack >= 1024
    assert nvrtc.faults(found, "sm_80")[0].endswith("spills or has a stack frame")


def test_spills_are_seen():
    source = kernel(
        "float *x;",
        "float held[96];\n#pragma unroll\nfor (int i = 0; i < 96; ++i) held[i] = p.x[i * 7];\n"
        "__syncthreads();\n#pragma unroll\nfor (int i = 0; i < 96; ++i) p.x[i * 5] = held[i];",
    ).replace("void k", "void __launch_bounds__(1024) k")
    usage = nvrtc.compile_source(_for_cuda(source), "sm_80")["k"]
    assert usage.registers <= 64
    assert usage.spill_stores > 0
    assert usage.spill_loads > 0


def test_what_does_not_compile_says_why():
    with pytest.raises(BackendError, match=r"(?s)does not compile.*nonsense"):
        nvrtc.compile_source("nonsense", "sm_90")


def test_an_empty_log_is_not_written_into_what_python_shares():
    """The bindings write into whatever they are given, Python's only b" " too."""
    found = nvrtc.bare_nvrtc.built("__global__ void nothing() {}", ["--gpu-architecture=sm_90"])
    assert found.log == ""
    assert bytes([32])[0] == 32


def test_complaints_are_made_of_jumps_and_of_names(monkeypatch):
    usage = nvrtc.Usage(40, 0, 0, 0)
    found = {"a/k": usage}
    assert nvrtc.jumps(found, {"a/k": 36}) == []
    assert nvrtc.jumps(found, {"a/k": 60}) == []
    assert nvrtc.jumps(found, {"a/k": 35}) == ["a/k: 40 registers, 35 in the table"]
    assert nvrtc.jumps(found, {"b/k": 40}) == [
        "a/k: not in the table",
        "b/k: in the table, but gone",
    ]
    assert nvrtc.faults(found, "sm_80") == []
    assert nvrtc.faults({"op sin float32 0/k": nvrtc.Usage(40, 32, 0, 0)}, "sm_80") == []
    assert "any more" in nvrtc.faults({"op sin float32 0/k": usage}, "sm_80")[0]
    spilled = {"a/k": nvrtc.Usage(40, 8, 4, 4)}
    assert "spills" in nvrtc.faults(spilled, "sm_80")[0]
    monkeypatch.setattr(nvrtc, "SPILLS", {(*nvrtc.bare_nvrtc.version(), "sm_80"): {"a/k": 8}})
    assert nvrtc.faults(spilled, "sm_80") == []
    assert "spills" in nvrtc.faults(spilled, "sm_90")[0]
    assert "any more" in nvrtc.faults(found, "sm_80")[0]


def test_a_table_is_of_one_version(tmp_path, monkeypatch):
    assert nvrtc.read_table(tmp_path / "99.0.json") is None
    monkeypatch.setattr(nvrtc, "TABLES", tmp_path / "tables")
    monkeypatch.setattr(nvrtc, "ARCHITECTURES", ("sm_80",))
    monkeypatch.setattr(nvrtc.bare_nvrtc, "version", lambda: (99, 1))
    monkeypatch.setattr(nvrtc.bare_nvrtc, "knows", lambda _: True)
    compiled = []

    def compile_all(sources, architecture):
        compiled.append(sorted(sources))
        return {f"{name}/k": nvrtc.Usage(8, 0, 0, 0) for name in sources}

    monkeypatch.setattr(nvrtc, "compile_all", compile_all)
    nvrtc.write_table(lambda _: {"a": "1", "b": "2"}, add=True)
    nvrtc.write_table(lambda _: {"b": "2", "c": "3"}, add=True)
    assert compiled == [["a", "b"], ["c"]]  # and what is gone is taken out
    assert nvrtc.read_table() == {"sm_80": {"b/k": 8, "c/k": 8}}
    assert nvrtc.table_path().name == "99.1.json"
    nvrtc.write_table(lambda _: {"b": "2"}, add=False)
    assert compiled[-1] == ["b"]


def _for_cuda(source: str) -> str:
    return "#define GP_KERNEL(name, Params)\n" + source
