"""Flow for the steps of all windows of a clip: each pair once, each shared frame prepared once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow import kernels
from apexflow.engine.frames import Image
from apexflow.engine.recipe import Flow
from apexflow.engine.windows import Step

Vectors = NDArray[np.float32]


def flows_between(
    steps: Iterable[Step], image: Callable[[int], Image], recipe: Flow
) -> dict[Step, Vectors]:
    """Compute the flow of each step.

    Parameters
    ----------
    steps : iterable of (from, to)
        Frame numbers; a pair that comes twice is computed once.
    image : callable
        Gives the (height, width) uint8 image of a frame number.
    recipe : Flow

    Returns
    -------
    dict of (from, to) to (2, height, width) float32
        Rounded to the recipe's dtype, as a store holds it.
    """
    pairs = tuple(dict.fromkeys(steps))
    uses = Counter(number for pair in pairs for number in pair)
    prepared: dict[int, Any] = {}

    def frame(number: int) -> Any:
        if number not in prepared:
            prepared[number] = _prepare(image(number), recipe, shared=uses[number] > 1)
        found = prepared[number]
        uses[number] -= 1
        if not uses[number]:  # a clip of consecutive frames keeps two in memory
            del prepared[number]
        return found

    return {(a, b): _flow(frame(a), frame(b), recipe) for a, b in pairs}


def kernel_compiled(recipe: Flow) -> bool:
    """Whether the kernel that a recipe needs has been compiled on this machine before."""
    from apexflow.kernels.compiled import is_compiled

    if recipe.method == "tvl1":
        from apexflow.kernels.flow_tvl1.cpu import refine

        return is_compiled(refine)
    from apexflow.kernels.flow_farneback.cpu import blur

    return is_compiled(blur)


def stacked(
    steps: tuple[Step, ...], flows: Mapping[Step, Vectors], *, fixed: int, size: tuple[int, int]
) -> Vectors:
    """Return the flows of a window: (2, height, width) of one step, (step, 2, …) of several.

    ``fixed`` is the window's number of steps, 0 where the clip decides.
    """
    if fixed == 1:
        return flows[steps[0]]
    if not steps:
        return np.empty((0, 2, *size), np.float32)
    return np.stack([flows[step] for step in steps])


def _prepare(image: Image, recipe: Flow, *, shared: bool) -> Any:
    if not shared:
        return image
    options = recipe.options
    if recipe.method == "tvl1":
        from apexflow.kernels.flow_tvl1 import prepare_tvl1

        return prepare_tvl1(image, nscales=options["nscales"], scale_step=options["scale_step"])
    from apexflow.kernels.flow_farneback import prepare_farneback

    names = ("pyr_scale", "levels", "poly_n", "poly_sigma")
    return prepare_farneback(image, **{name: options[name] for name in names})


def _flow(first: Any, second: Any, recipe: Flow) -> Vectors:
    compute = getattr(kernels, recipe.method)
    flow = np.ascontiguousarray(np.moveaxis(compute(first, second, **recipe.options), -1, 0))
    return flow.astype(recipe.dtype).astype(np.float32)
