"""Bad arguments are refused with the argument's name, the rule and the value."""

from __future__ import annotations

import numpy as np
import pytest

from apexflow.kernels._validate import (
    check_array,
    check_choice,
    check_flow,
    check_gray,
    check_image,
    check_integer,
    check_number,
    check_same_shape,
)

GRAY = np.zeros((4, 5), np.uint8)
COLOUR = np.zeros((4, 5, 3), np.uint8)
FLOW = np.zeros((4, 5, 2), np.float32)


def refused(message: str):
    return pytest.raises(ValueError, match=f"^{message}")


def test_good_values_come_back_unchanged():
    assert check_image("a", GRAY) is GRAY
    assert check_image("a", COLOUR) is COLOUR
    assert check_gray("a", GRAY[None])[0].shape == GRAY.shape
    assert check_flow("a", FLOW) is FLOW
    assert check_flow("a", FLOW[None]).shape == (1, 4, 5, 2)
    assert check_integer("a", np.int64(3), minimum=3, maximum=3) == 3
    assert check_number("a", 1, minimum=1, maximum=1, above=0, below=2) == 1.0
    assert check_number("a", np.float32(0.5)) == 0.5
    assert check_choice("a", "x", ("x", "y")) == "x"
    check_same_shape("a", GRAY, "b", GRAY)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[1]], "a must be a NumPy array. Got list"),
        (None, "a must be a NumPy array. Got NoneType"),
        (GRAY.astype(np.int64), "a must be uint8 or float32. Got int64"),
        (FLOW.astype(">f4"), "a must be uint8 or float32. Got >f4"),
        (GRAY[0], r"a must have 2 or 3 dimensions. Got shape \(5,\)"),
        (GRAY[:0], r"a must not be empty. Got shape \(0, 5\)"),
        (np.full((2, 2), np.nan, np.float32), "a must be finite. Got nan"),
        (np.full((2, 2), -np.inf, np.float32), "a must be finite. Got -inf"),
        (FLOW, r"a must have 1 or 3 channels. Got shape \(4, 5, 2\)"),
    ],
)
def test_images_are_refused_by_name_rule_and_value(value, message):
    with refused(message):
        check_image("a", value)


def test_other_arrays_are_refused_by_name_rule_and_value():
    with refused("a must be at least 16x16 pixels. Got shape"):
        check_gray("a", GRAY, minimum_size=16)
    with refused(r"a must hold \(x, y\) in its last dimension, of length 2. Got shape"):
        check_flow("a", COLOUR.astype(np.float32))
    with refused(r"a must have the shape of b, \(4, 5\). Got \(4, 5, 3\)"):
        check_same_shape("a", COLOUR, "b", GRAY)
    not_finite = np.full((2, 2), np.nan, np.float32)
    assert check_array("a", not_finite, dtypes=("float32",), ndim=(2,), finite=False) is not_finite


@pytest.mark.parametrize("value", [1.0, "1", True, None, np.float64(1), np.True_])
def test_an_integer_is_an_integer(value):
    with refused("a must be an integer. Got"):
        check_integer("a", value)


@pytest.mark.parametrize("value", ["1", True, None, np.nan, np.inf, 1j])
def test_a_number_is_finite(value):
    with refused("a must be a finite number. Got"):
        check_number("a", value)


def test_limits_are_named():
    with refused("a must be at least 1. Got 0"):
        check_integer("a", 0, minimum=1)
    with refused("a must be at most 3. Got 4"):
        check_integer("a", 4, maximum=3)
    with refused("a must be at least 1. Got 0.5"):
        check_number("a", 0.5, minimum=1)
    with refused("a must be at most 1. Got 1.5"):
        check_number("a", 1.5, maximum=1)
    with refused("a must be above 0. Got 0"):
        check_number("a", 0, above=0)
    with refused("a must be below 1. Got 1"):
        check_number("a", 1, below=1)
    with refused(r"a must be one of \['x', 'y'\]. Got 'z'"):
        check_choice("a", "z", ("x", "y"))


def test_float64_is_float32_where_that_is_taken():
    value = check_flow("a", FLOW.astype(np.float64) + 1 / 3)
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, FLOW + np.float32(1 / 3))
    with refused("a must be finite. Got inf"):
        check_flow("a", FLOW + np.float64(1e300))
    with refused("a must be uint8. Got float64"):
        check_image("a", GRAY.astype(np.float64), dtypes=("uint8",))
    both = np.array([1 / 3])
    assert check_array("a", both, dtypes=("float32", "float64"), ndim=(1,)) is both
