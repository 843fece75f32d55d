"""Benchmarks: the compiled kernels against OpenCV, scikit-image and the truth, in one run.

`cases` is the one table of what is compared, for the benchmarks and for the tests; `timing`
measures on one pinned core, `accuracy` against flow that is known, `table` prints.

Examples
--------
>>> from apexflow import bench
>>> results = bench.run(smoke=True)
>>> print(bench.as_text(results))  # doctest: +SKIP
"""

from apexflow.bench.run import run
from apexflow.bench.table import as_text

__all__ = ["as_text", "run"]
