"""NVRTC through ctypes: the compiler of the wheel needs no driver."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass

PACKAGE = "nvidia-cuda-nvrtc"
_USAGE = re.compile(
    r"Function properties for (?P<name>\w+)\n"
    r".*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads\n"
    r".*?Used (?P<registers>\d+) registers(?P<rest>.*)"
)
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Usage:
    """What a kernel takes of a multiprocessor."""

    registers: int
    stack_bytes: int
    spill_bytes: int
    shared_bytes: int


class CompileError(RuntimeError):
    """NVRTC refused a source; the message is its log."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return NVRTC of the installed wheel, or None."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if re.fullmatch(r"libnvrtc\.so(\.\d+)+", file.name):
            return ctypes.CDLL(str(file.locate()))
    return None


def compile_source(
    text: str, name: str, architecture: str, options: tuple[str, ...]
) -> tuple[str, dict[str, Usage]]:
    """Compile for a real architecture such as ``"sm_90"``.

    Returns
    -------
    warnings : str
        What the compiler says apart from what each kernel uses.
    usage : dict of str to Usage
        By kernel.
    """
    nvrtc = library()
    assert nvrtc is not None
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), name.encode(), 0, None, None)
    try:
        every = [*options, f"--gpu-architecture={architecture}", "--ptxas-options=-v"]
        array = (ctypes.c_char_p * len(every))(*[option.encode() for option in every])
        status = nvrtc.nvrtcCompileProgram(program, len(every), array)
        size = ctypes.c_size_t()
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    said = log.value.decode()
    if status != 0:
        raise CompileError(f"{name} for {architecture}:\n{said}")
    usual = ("ptxas info", "ptxas         .")
    warnings = [line for line in said.splitlines() if line and not line.startswith(usual)]
    return "\n".join(warnings), dict(_usage(said))


def _usage(log: str) -> Iterator[tuple[str, Usage]]:
    for found in _USAGE.finditer(log):
        shared = _SHARED.search(found["rest"])
        yield (
            found["name"],
            Usage(
                registers=int(found["registers"]),
                stack_bytes=int(found["stack"]),
                spill_bytes=int(found["stores"]) + int(found["loads"]),
                shared_bytes=int(shared[1]) if shared else 0,
            ),
        )
