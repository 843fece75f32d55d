"""Optical strain: how much a flow deforms the skin, whatever it moves."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels._validate import check_choice, check_flow
from apexflow.kernels.compiled import njit
from apexflow.kernels.encode.scaling import SHEAR_WEIGHT
from apexflow.kernels.gpu import cuda_device, is_device_array


def optical_strain(
    flow: NDArray[np.float32], *, convention: Literal["half", "quarter"] = "half"
) -> NDArray[np.float32]:
    """Return the magnitude of the infinitesimal strain tensor of a flow.

    With exx = du/dx, eyy = dv/dy and exy = (du/dy + dv/dx) / 2, the magnitude is
    sqrt(exx^2 + eyy^2 + 2 exy^2), the Frobenius norm of the tensor [1]_. Derivatives are
    those of `numpy.gradient`: central differences inside, one-sided ones at the border.

    Parameters
    ----------
    flow : (H, W, 2) or (N, H, W, 2) float32
        Displacement (x, y) in pixels; at least 2x2.
    convention : {"half", "quarter"}, default "half"
        Published code disagrees about the weight of (du/dy + dv/dx)^2 under the root:
        "half" is the norm of the whole tensor, "quarter" counts exy^2 once.

    Returns
    -------
    (H, W) or (N, H, W) float32
        Strain, without unit; 0 for any uniform translation.

    Raises
    ------
    ValueError
        When the flow has another shape or dtype, is smaller than 2x2, is not finite or so
        large that its strain overflows, or when the convention is unknown.

    References
    ----------
    .. [1] M. Shreve et al., "Macro- and micro-expression spotting in long videos using
       spatio-temporal strain", FG 2011. DOI 10.1109/FG.2011.5771451

    Examples
    --------
    >>> import numpy as np
    >>> y, x = np.mgrid[:4, :4].astype(np.float32)
    >>> float(optical_strain(np.stack([0.5 * x, 0 * y], axis=-1))[0, 0])
    0.5
    """
    check_choice("convention", convention, SHEAR_WEIGHT)
    flow = check_flow("flow", flow)
    height, width = flow.shape[-3:-1]
    if min(height, width) < 2:
        raise ValueError(f"flow must be at least 2x2 pixels. Got shape {flow.shape}.")
    if is_device_array(flow):
        from apexflow.kernels.encode import gpu

        batch = flow.reshape(-1, height, width, 2)
        deformed = gpu.optical_strain(batch, convention, device=cuda_device())
        return deformed.reshape(flow.shape[:-1])
    flows = np.require(flow.reshape(-1, height, 2 * width), requirements=["C", "W"])
    strain = np.empty((len(flows), height, width), np.float32)
    _strain(flows, SHEAR_WEIGHT[convention], strain)
    if not np.isfinite(strain).all():
        raise ValueError("flow must be small enough for its strain to be finite in float32.")
    return strain.reshape(flow.shape[:-1])


@njit
def _strain(flows, shear_weight, strain):  # type: ignore[no-untyped-def]
    """Fill ``strain`` (N, H, W) from ``flows`` (N, H, 2 W)."""
    count, height, width = strain.shape
    half, one = np.float32(0.5), np.float32(1)
    for n in range(count):
        flow = flows[n]
        for y in range(height):
            above, below = max(y - 1, 0), min(y + 1, height - 1)
            y_scale = half if below - above == 2 else one
            for x in range(width):
                left, right = max(x - 1, 0), min(x + 1, width - 1)
                x_scale = half if right - left == 2 else one
                exx = (flow[y, 2 * right] - flow[y, 2 * left]) * x_scale
                eyy = (flow[below, 2 * x + 1] - flow[above, 2 * x + 1]) * y_scale
                shear = (flow[below, 2 * x] - flow[above, 2 * x]) * y_scale + (
                    flow[y, 2 * right + 1] - flow[y, 2 * left + 1]
                ) * x_scale
                strain[n, y, x] = np.sqrt(exx * exx + eyy * eyy + shear_weight * shear * shear)
