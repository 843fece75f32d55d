"""The CPU kernels against OpenCV, scikit-image and known flow: the same as `apexflow bench`."""

from apexflow.cli.bench import bench

if __name__ == "__main__":
    bench()
