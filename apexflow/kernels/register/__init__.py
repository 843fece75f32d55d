"""Registration: how a patch lies in an image, to a small part of a pixel, whatever deforms it.

`registration` holds the public class, `blocks` the compiled measurement of small blocks,
`robust` the compiled fit through what most blocks agree on.
"""

from apexflow.kernels.register.registration import Placement, Registration

__all__ = ["Placement", "Registration"]
