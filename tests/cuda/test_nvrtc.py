"""Every CUDA source compiles for real GPUs: no spills, no stack frame, no jump in registers."""

from __future__ import annotations

import re

import nvrtc
import pytest
from launching import kernel
from sources import sources_for

from gpubp.errors import BackendError

pytestmark = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_every_kernel_fits_its_registers(architecture):
    """Whichever NVRTC is installed: no spills. Where there is a table for it: no jumps either."""
    if not nvrtc.knows(architecture):
        pytest.skip(f"this NVRTC does not know {architecture}")
    found = nvrtc.compile_all(sources_for(architecture), architecture)
    assert found
    lines, table = nvrtc.spills(found), nvrtc.read_table()
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
        if name.split()[0] == "broadcast" or "gp::load_batch<" in source or "gp::gather<" in source
    }
    assert len(found) > 5
    for name, source in found.items():
        assert not WIDE.search(nvrtc.ptx_of(source, "sm_90")), name
    batch = next(source for source in found.values() if "gp::load_batch<" in source)
    assert WIDE.search(nvrtc.ptx_of(batch.replace("gp::u32>(", "gp::i64>("), "sm_90"))


def test_factors_are_loaded_by_vectors_and_rounded_in_pairs():
    source = sources_for("sm_90")["tensor bf16 nt 2000"]
    text = nvrtc.ptx_of(source, "sm_90")
    assert "cvt.rn.bf16x2.f32" in text and "ld.v4.f32" in text
    product = nvrtc.ptx_of(sources_for("sm_90")["product nn 2000"], "sm_90")
    assert "ld.shared.v4.f32" in product and "ld.shared.f32" not in product


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
    assert nvrtc.spills(found)[0].endswith("spills or has a stack frame")


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


def test_complaints_are_made_of_jumps_and_of_names():
    usage = nvrtc.Usage(40, 0, 0, 0)
    found = {"a/k": usage}
    assert nvrtc.jumps(found, {"a/k": 36}) == []
    assert nvrtc.jumps(found, {"a/k": 60}) == []
    assert nvrtc.jumps(found, {"a/k": 35}) == ["a/k: 40 registers, 35 in the table"]
    assert nvrtc.jumps(found, {"b/k": 40}) == [
        "a/k: not in the table",
        "b/k: in the table, but gone",
    ]
    assert nvrtc.spills(found) == []
    assert nvrtc.spills({"op sin float32 0/k": nvrtc.Usage(40, 32, 0, 0)}) == []
    assert "any more" in nvrtc.spills({"op sin float32 0/k": usage})[0]
    assert "spills" in nvrtc.spills({"a/k": nvrtc.Usage(40, 8, 4, 4)})[0]


def test_a_table_is_of_one_version(tmp_path, monkeypatch):
    assert nvrtc.read_table(tmp_path / "99.0.json") is None
    monkeypatch.setattr(nvrtc, "TABLES", tmp_path / "tables")
    monkeypatch.setattr(nvrtc, "ARCHITECTURES", ("sm_80",))
    monkeypatch.setattr(nvrtc.compiler, "version", lambda: (99, 1))
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
