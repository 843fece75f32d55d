"""The CUDA sources as C++: a device without a GPU, see `shim.hpp`."""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.gpu import Kernel, source_text

COMPILER = shutil.which("g++")
_KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\s*\([^()]*\)\s*)?(\w+)\s*\(")
# Contraction off, as on the GPU: without it the two round alike. -O1 builds in a third of the
# time of -O2; the sanitizer, not the optimiser, decides how fast it runs.
_LANGUAGE = ["-std=c++17", "-O1", "-g1", "-ffp-contract=off", "-march=native", "-U_FORTIFY_SOURCE"]
_LIBRARY = ["-fPIC", "-shared", "-fno-sanitize-recover=all"]
_WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-subobject-linkage"]
_UNDEFINED = "-fsanitize=undefined,float-cast-overflow"


def kernel_names(text: str) -> list[str]:
    """Return the names of the kernels that a source defines."""
    return _KERNEL.findall(text)


class ShimDevice:
    """A `Device` whose kernels are C++ and whose arrays are NumPy's.

    Parameters
    ----------
    folder : path
        Where the libraries are built; one that is there already is not built again.
    addresses : bool
        Whether AddressSanitizer watches, whose runtime the process must have preloaded.
    free : int
        What `free_bytes` answers.
    """

    xp: Any = np

    def __init__(self, folder: Path, *, addresses: bool = False, free: int = 1 << 30) -> None:
        self._folder = folder
        self._addresses = addresses
        self.free = free
        self.launches: list[str] = []
        self._kernels: dict[tuple[str, str], Kernel] = {}

    def kernel(self, source: str, name: str) -> Kernel:
        if (source, name) not in self._kernels:
            self._kernels[source, name] = self._load(source, name)
        return self._kernels[source, name]

    def free_bytes(self) -> int:
        return self.free

    def to_host(self, array: Any) -> NDArray[Any]:
        return np.array(array)

    def _load(self, source: str, name: str) -> Kernel:
        library = _library(build(source_text(source), source, self._folder, self._addresses))
        signature = getattr(library, f"shim_signature_{name}")
        signature.restype = ctypes.c_char_p
        types = signature().decode().split()
        launch = getattr(library, f"shim_launch_{name}")
        launch.restype = ctypes.c_char_p

        def start(
            grid: tuple[int, ...],
            block: tuple[int, ...],
            args: tuple[Any, ...],
            *,
            shared_bytes: int = 0,
        ) -> None:
            if len(args) != len(types):
                raise TypeError(f"{name} takes {len(types)} arguments. Got {len(args)}.")
            cells = [_cell(name, i, t, a) for i, (t, a) in enumerate(zip(types, args, strict=True))]
            pointers = (ctypes.c_void_p * len(cells))(*[cell.ctypes.data for cell in cells])
            self.launches.append(name)
            error = launch(_dim3(grid), _dim3(block), ctypes.c_size_t(shared_bytes), pointers)
            if error is not None:
                raise RuntimeError(f"{name}{grid, block}: {error.decode()}")

        return start


def _cell(name: str, position: int, wanted: str, value: Any) -> NDArray[Any]:
    """Return one element that holds the argument as C takes it, if its type is exactly right."""
    where = f"argument {position} of {name}"
    if "*" not in wanted:
        if not isinstance(value, np.generic) or value.dtype.str[1:] != wanted:
            raise TypeError(f"{where} must be a NumPy scalar {wanted}. Got {value!r}.")
        return np.array([value])
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{where} must be an array. Got {value!r}.")
    element, constant = wanted.split("*")
    kind = "u1" if value.dtype.kind == "b" else value.dtype.str[1:]
    # A complex array is one of pairs.
    kind = {"c8": "f4", "c16": "f8"}.get(kind, kind)
    if kind != element:
        raise TypeError(f"{where} must be an array of {element}. Got {value.dtype}.")
    if not value.flags.c_contiguous:
        raise TypeError(f"{where} must be C-contiguous. Got strides {value.strides}.")
    if not constant and not value.flags.writeable:
        raise TypeError(f"{where} is written to. Got a read-only array.")
    return np.array([value.ctypes.data], np.uintp)


def _dim3(size: tuple[int, ...]) -> Any:
    return (ctypes.c_uint * 3)(*size, *[1] * (3 - len(size)))


@functools.cache
def _library(path: Path) -> ctypes.PyDLL:
    # The shim has one set of threadIdx and fibers: PyDLL keeps the GIL, so calls cannot meet.
    return ctypes.PyDLL(str(path))


def build(text: str, source: str, folder: Path, addresses: bool = False) -> Path:
    """Compile a source as C++ and return the library."""
    stem = source.replace("/", "_").removesuffix(".cu") + ("_addresses" if addresses else "")
    library = folder / f"{stem}.so"
    if library.exists():
        return library
    assert COMPILER is not None
    exports = "\n".join(f"SHIM_EXPORT({name})" for name in kernel_names(text))
    written = folder / f"{stem}.cpp"
    written.write_text(f"{text}\n{exports}\n", encoding="utf-8")
    sanitizers = [_UNDEFINED, "-static-libubsan"]
    if addresses:
        sanitizers = ["-fsanitize=address", "-fsanitize-sections=cuda_shared"]
    shim = Path(__file__).with_name("shim.hpp")
    command = [
        COMPILER,
        *_LANGUAGE,
        *_LIBRARY,
        *_WARNINGS,
        *sanitizers,
        "-include",
        str(shim),
        str(written),
    ]
    done = subprocess.run(
        [*command, "-o", str(library)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{source} does not build as C++:\n{done.stderr}")
    return library


def runtime_of_address_sanitizer() -> str | None:
    """Return the libraries that a child process must preload, or None where there are none.

    The one of C++ is among them so that AddressSanitizer finds how exceptions are thrown, which
    OpenCV does.
    """
    if COMPILER is None:
        return None
    paths = []
    for name in ("libasan.so", "libstdc++.so"):
        command = [COMPILER, f"-print-file-name={name}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        paths.append(done.stdout.strip())
    return " ".join(paths) if all(Path(path).is_absolute() for path in paths) else None
