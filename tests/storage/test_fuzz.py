import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("mutations", [12, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_stores_give_an_error_or_the_truth(tmp_path: Path, mutations: int) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "fuzz_store.py"
    spec = importlib.util.spec_from_file_location("fuzz_store", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    tally = module.run(mutations, mutations, tmp_path)
    assert not tally.faults, str(tally)
    assert tally.mutations.total() >= mutations
