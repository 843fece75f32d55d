"""Motion magnification: a clip whose motion is 1 + alpha times what it was.

`eulerian` amplifies how the gray levels of each place change, scale by scale; `by_flow` measures
the motion and warps by it. `band` is the temporal filter, `arguments` what both take.
"""

from apexflow.kernels.magnification.by_flow import FlowMagnified, magnify_flow
from apexflow.kernels.magnification.eulerian import EulerianMagnified, Level, magnify_eulerian

__all__ = ["EulerianMagnified", "FlowMagnified", "Level", "magnify_eulerian", "magnify_flow"]
