import os
import shutil
import subprocess
import sys
from pathlib import Path

import apexflow

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


def test_a_changed_file_of_the_kernels_counts_for_all(tmp_path: Path) -> None:
    package = tmp_path / "apexflow"
    source = Path(apexflow.__file__).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    code = """
import numpy as np
from apexflow.kernels.template.cpu import score_of
score_of(3, 4)
print(sum(score_of.stats.cache_hits.values()))
"""

    def hits() -> int:
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "kept")}
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
        )
        return int(done.stdout)

    assert hits() == 0
    assert hits() == 1
    with (package / "kernels" / "simd.py").open("a") as other:
        other.write("# A later version.\n")
    assert hits() == 0
    assert hits() == 1
