"""Template search: where in a region does a patch fit best, exactly.

`matcher` holds the public function and class, `spectrum` the correlation at all positions by
one DFT, `sums` the compiled integer sums over windows.
"""

from apexflow.kernels.template.matcher import Match, TemplateMatcher, match_template

__all__ = ["Match", "TemplateMatcher", "match_template"]
