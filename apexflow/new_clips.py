"""New clips through a trained run: stores as they are, videos processed as the training's were."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zarr.storage import LocalStore

from apexflow.catalog import Catalog, Clip
from apexflow.errors import ApexflowError
from apexflow.storage.target import Target

if TYPE_CHECKING:
    from apexflow.storage.dataset import ClipDataset
    from apexflow.training.predict import Predictions

_DATASET = "video"


def predict(
    run: str | Path,
    clips: ClipDataset | Target | Sequence[Target],
    *,
    onset: int | None = None,
    apex: int | None = None,
    offset: int | None = None,
    network: str = "auto",
    model: Callable[..., Any] | None = None,
    device: str = "auto",
) -> Predictions:
    """Predict the classes of clips with the networks of a finished training.

    Nobody is predicted by a network that has seen them: a clip of a person whom the training
    knows is given to the network of the fold that tested the person. On a training's own test
    clips this gives what its ``predictions.csv`` holds, bit for bit on the same machine.

    Parameters
    ----------
    run : path
        The output folder of a training of one seed.
    clips : path, URL or Zarr store, or a sequence of them, or ClipDataset
        Stores; what was read of them as the training read it; or videos (a video file, or a
        folder of numbered images, one clip each), which are processed with the recipe of the
        training's stores.
    onset, apex, offset : int, optional
        Frame numbers of a single video, by default its first frame, an apex estimated from the
        aligned frames, and its last frame.
    network : "auto", "folds" or "final"
        Who speaks of clips of people whom the training does not know: the network trained on all
        clips where there is one, or the mean of all folds.
    model : callable, optional
        The model, where it has no name by which it is found again.
    device : "auto", "cpu", "cuda", …

    Returns
    -------
    Predictions

    Raises
    ------
    ApexflowError
        The folder holds no finished training, weights are missing or damaged, a store was made by
        another recipe, a video cannot be processed.
    """
    from apexflow.storage.dataset import ClipDataset
    from apexflow.training.predict import predict_stores

    options: dict[str, Any] = {"network": network, "model": model, "device": device}
    if isinstance(clips, ClipDataset):
        return predict_stores(run, clips, **options)
    targets = [clips] if isinstance(clips, str | Path) or not isinstance(clips, Sequence) else clips
    videos = [Path(one) for one in targets if isinstance(one, str | Path) and _is_video(one)]
    key_frames = {"onset": onset, "apex": apex, "offset": offset}
    given = [name for name, number in key_frames.items() if number is not None]
    if given and len(videos) != 1:
        raise ApexflowError(f"{given[0]} is a frame of one video: name one video, and no store")
    if videos and len(videos) < len(targets):
        raise ApexflowError("give stores or videos, not both together")
    if not videos:
        return predict_stores(run, targets, **options)
    with tempfile.TemporaryDirectory(prefix="apexflow-") as folder:
        store = _VideoStore(Path(folder) / "videos.zarr", _called(videos))
        _process(run, [_clip(path, **key_frames) for path in videos], store)
        return predict_stores(run, store, **options)


class _VideoStore(LocalStore):
    """A store in a temporary folder, which messages call by the videos it is made of."""

    def __init__(self, root: Path, called: str = "videos", *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._called = called

    def __str__(self) -> str:
        return self._called


def _called(videos: Sequence[Path]) -> str:
    others = f" and {len(videos) - 1} more" if len(videos) > 1 else ""
    return f"{videos[0]}{others}"


def _is_video(target: str | Path) -> bool:
    """Whether a path is a clip's frames and no store; `ApexflowError` when there is nothing."""
    if "://" in str(target):
        return False
    path = Path(target)
    if not path.exists():
        raise ApexflowError(f"{path}: there is no such store, video or folder of frames")
    return path.is_file() or not (path / "zarr.json").is_file()


def _clip(path: Path, *, onset: int | None, apex: int | None, offset: int | None) -> Clip:
    from apexflow.datasets.sources import open_frames

    path = path.resolve()
    clip = Clip(
        dataset=_DATASET,
        subject=path.parent.name or _DATASET,
        name=path.name,
        root=path.parent,
        source=path.name,
        apex_source="annotated" if apex is not None else "difference",
    )
    numbers = open_frames(clip).numbers
    return replace(
        clip,
        onset=numbers[0] if onset is None else onset,
        apex=apex,
        offset=numbers[-1] if offset is None else offset,
    )


def _process(run: str | Path, clips: list[Clip], store: _VideoStore) -> None:
    from apexflow.engine.recipe import Recipe
    from apexflow.engine.run import process
    from apexflow.training.predict import TrainedRun

    described = TrainedRun.read(run).recipe()
    features = described.get("features")
    frames = (
        store if features is None else _VideoStore(store.root.with_name("frames.zarr"), str(store))
    )
    recipe = Recipe.from_dict(described if features is None else described["source"])
    summary = process(Catalog(clips), frames, recipe=recipe, workers=0, progress=False)
    if summary.failed:
        first = summary.failed[0]
        raise ApexflowError(f"{first.clip} cannot be processed: {first.reason}")
    if features is not None:
        _extract(frames, store, features)


def _extract(frames: Target, store: Target, features: dict[str, Any]) -> None:
    """Compute the features that a training's stores hold."""
    from apexflow.features.run import extract

    options = dict(features)
    window = options.pop("flow", None)
    found = extract(frames, store, window=window, progress=False, **options)
    if found.failed:
        clip, reason = found.failed[0]
        raise ApexflowError(f"{clip} has no {found.method}: {reason}")
