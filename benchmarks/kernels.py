"""Print the CPU kernels' speed and accuracy beside OpenCV's and scikit-image's.

    python benchmarks/kernels.py [--json] [--smoke] [--rounds N] [--middlebury FOLDER ...]

The same as `apexflow bench`.
"""

from __future__ import annotations

import argparse
import json
import sys

from apexflow.engine import bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, one round")
    parser.add_argument("--rounds", type=int, default=9, help="timings of each function")
    parser.add_argument("--middlebury", nargs="*", default=[], metavar="FOLDER")
    options = parser.parse_args()
    results = bench.run(
        smoke=options.smoke,
        rounds=options.rounds,
        middlebury=options.middlebury,
        progress=lambda text: print(text, file=sys.stderr),
    )
    print(json.dumps(results, indent=2) if options.json else bench.as_text(results))


if __name__ == "__main__":
    main()
