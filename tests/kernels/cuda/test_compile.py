"""Every CUDA source compiles for the GPUs in use, silently and without spilling registers."""

from __future__ import annotations

import re

import pytest

from apexflow.kernels.gpu import CUPY_OPTIONS, OPTIONS, source_text, sources
from tests.kernels.cuda.build import kernel_names
from tests.kernels.cuda.nvrtc import PACKAGE, CompileError, compile_source, library

ARCHITECTURES = ["sm_80", "sm_90", "sm_100"]
REGISTERS = 65536  # of a multiprocessor

needs_nvrtc = pytest.mark.skipif(library() is None, reason=f"no {PACKAGE}")


@needs_nvrtc
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", sources())
def test_source_compiles_without_spills(
    source: str, architecture: str, record_property: pytest.RecordProperty
) -> None:
    text = source_text(source)
    warnings, usage = compile_source(text, source, architecture, (*OPTIONS, *CUPY_OPTIONS))
    record_property("usage", str(usage))
    print(*(f"{architecture} {source} {name}: {used}" for name, used in usage.items()), sep="\n")
    assert warnings == ""
    assert sorted(usage) == sorted(kernel_names(text))
    for name, used in usage.items():
        assert used.spill_bytes == 0, name
        assert used.registers <= 128, name
        assert used.shared_bytes <= 48 * 1024, name


@needs_nvrtc
def test_what_does_not_compile_is_told() -> None:
    with pytest.raises(CompileError, match="undefined"):
        compile_source(
            'extern "C" __global__ void f(float* p) { *p = missing; }', "f.cu", "sm_90", OPTIONS
        )


@needs_nvrtc
def test_warnings_and_spills_are_seen() -> None:
    many = "".join(f"float v{i} = p[{i} * n];\n" for i in range(300))
    total = "".join(f"p[{i} * n + 1] = v{i} * v{299 - i};\n" for i in range(300))
    text = f"""extern "C" __global__ void __launch_bounds__(1024) f(volatile float* p, int n) {{
        int unused;
        {many} __syncthreads(); {total} }}"""
    warnings, usage = compile_source(text, "f.cu", "sm_90", OPTIONS)
    assert "unused" in warnings
    assert usage["f"].spill_bytes > 0


def test_sources_are_found_and_headers_are_put_in_place_once() -> None:
    assert "encode/strain.cu" in sources()
    for source in sources():
        text = source_text(source)
        assert not re.search(r"^\s*#\s*include", text, re.M), source
        assert text.count('#line 1 "device.cuh"') <= 1
