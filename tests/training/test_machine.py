import pytest

from apexflow.errors import ApexflowError
from apexflow.training.machine import find_machine


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ApexflowError, match="device moon"):
        find_machine("moon", None, 0)


def test_a_machine_has_a_name() -> None:
    assert find_machine("cpu", None, 0).name
