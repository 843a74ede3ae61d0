"""Every CUDA source compiles for real GPUs: no spills, no stack frame, no jump in registers."""

from __future__ import annotations

import re

import nvrtc
import pytest
from launching import kernel
from sources import STAYING, sources_for

from gpubp.errors import BackendError

pytestmark = pytest.mark.skipif(bool(nvrtc.missing()), reason=nvrtc.missing() or "-")


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
def test_every_kernel_fits_its_registers(architecture):
    found = nvrtc.compile_all(sources_for(architecture), architecture)
    assert found
    lines = nvrtc.complaints(found, nvrtc.read_table()[architecture])
    advice = "after a change that is meant: python tests/cuda/nvrtc.py"
    assert not lines, "\n".join([*lines, advice])


def test_every_source_has_a_kernel_in_the_table():
    table = nvrtc.read_table()
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


def test_factors_are_loaded_by_vectors_and_rounded_in_pairs():
    source = sources_for("sm_90")["tensor bf16 nt 2000"]
    text = nvrtc.ptx_of(source, "sm_90")
    assert "cvt.rn.bf16x2.f32" in text and "ld.v4.f32" in text
    product = nvrtc.ptx_of(sources_for("sm_90")["product nn 2000"], "sm_90")
    assert "ld.shared.v4.f32" in product and "ld.shared.f32" not in product


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
    assert nvrtc.complaints(found, {"frame/k": 255})[0].endswith("spills or has a stack frame")


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
    with pytest.raises(BackendError, match=r"(?s)for sm_90.*nonsense"):
        nvrtc.compile_source("nonsense", "sm_90")


def test_complaints_are_made_of_jumps_and_of_names():
    usage = nvrtc.Usage(40, 0, 0, 0)
    found = {"a/k": usage}
    assert nvrtc.complaints(found, {"a/k": 36}) == []
    assert nvrtc.complaints(found, {"a/k": 60}) == []
    assert nvrtc.complaints(found, {"a/k": 35}) == ["a/k: 40 registers, 35 in the table"]
    assert nvrtc.complaints(found, {"b/k": 40}) == [
        "a/k: not in the table",
        "b/k: in the table, but gone",
    ]
    sine = {"op sin float32 0/k": nvrtc.Usage(40, 32, 0, 0)}
    assert nvrtc.complaints(sine, {"op sin float32 0/k": 40}) == []
    straight = {"op sin float32 0/k": usage}
    assert "any more" in nvrtc.complaints(straight, {"op sin float32 0/k": 40})[0]
    spilled = {"a/k": nvrtc.Usage(40, 8, 4, 4)}
    assert "spills" in nvrtc.complaints(spilled, {"a/k": 40})[0]


def _for_cuda(source: str) -> str:
    return "#define GP_KERNEL(name, Params)\n" + source
