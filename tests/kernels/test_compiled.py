import os
import subprocess
import sys
from pathlib import Path

CHECKING = """
import numpy as np
from apexflow.kernels.compiled import is_compiled
from apexflow.kernels.flow_farneback.cpu import reduce, row_pitch
before = is_compiled(row_pitch)
row_pitch(7)
print(before, is_compiled(row_pitch), is_compiled(reduce))
"""


def test_what_numba_keeps_is_known(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}

    def check() -> str:
        command = [sys.executable, "-c", CHECKING]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment
        ).stdout.strip()

    assert check() == "False True False"
    assert check() == "True True False"
    for index in tmp_path.rglob("*.nbi"):  # older than the source
        os.utime(index, (0, 0))
    assert check().startswith("False ")
