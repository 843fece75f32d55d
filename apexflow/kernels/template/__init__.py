"""Template search: where in a region does a patch fit best, exactly.

`matcher` holds the public function and class. `cpu` searches a region by bounds on `blocks`;
where they leave too much, `spectrum` correlates at all positions by DFT. `sums` are integer sums
over windows. `gpu` searches all frames of a clip at once on a GPU, with the kernels of
``template.cu``.
"""

from apexflow.kernels.template.matcher import Match, Matches, TemplateMatcher, match_template

__all__ = ["Match", "Matches", "TemplateMatcher", "match_template"]
