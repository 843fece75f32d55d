from __future__ import annotations

import subprocess
import sys

import pytest

NAMES = (
    *("farneback", "tvl1", "clg", "clg_sequence", "normalize_light", "match_template"),
    *("TemplateMatcher", "encode_hsv", "optical_strain"),
)


@pytest.mark.parametrize(
    "first",
    ["", "flow_farneback.levels", "flow_farneback", "flow_tvl1", "flow_clg", "light", "template"],
)
def test_public_names_are_no_modules_whatever_was_imported_first(first):
    code = (
        f"import apexflow.kernels{first and '.' + first}\nfrom apexflow import kernels\n"
        + "\n".join(f"assert callable(kernels.{name}), kernels.{name}" for name in NAMES)
    )
    subprocess.run([sys.executable, "-c", code], check=True)
