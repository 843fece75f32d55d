"""What lies where in the folder of a training."""

from pathlib import Path


def checkpoints(folder: Path) -> list[Path]:
    """The networks of a finished training of one seed, in the order of its folds."""
    return sorted(folder.glob("folds/*/checkpoint.pt"))
