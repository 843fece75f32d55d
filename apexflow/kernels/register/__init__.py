"""Registration: how a patch lies in an image, to a small part of a pixel, whatever deforms it.

`registration` holds the public class, `blocks` the compiled measurement of small blocks,
`robust` the compiled fit through what most blocks agree on. `gpu` does the same for all frames of
a clip at once on a GPU, with the kernels of ``register.cu``.
"""

from apexflow.kernels.register.registration import Placement, Placements, Registration

__all__ = ["Placement", "Placements", "Registration"]
