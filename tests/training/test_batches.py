from pathlib import Path

import numpy as np
import pytest
import torch

from apexflow.storage.collate import Padded
from apexflow.storage.dataset import ClipDataset
from apexflow.training.augmentation import augmented
from apexflow.training.batches import Feeder, Normalization
from apexflow.training.learning import learning_of
from tests.storage.stores import make_store, random_clips


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("batches") / "s.zarr"
    make_store(folder, random_clips(12, frames=True))
    return folder


def test_channels_are_measured_over_the_given_clips_alone(path: Path) -> None:
    dataset = ClipDataset(path, flow="onset-apex")
    learnt = [0, 3, 4, 8]
    found = Normalization.fit("channel", dataset, learnt, batch_size=3)
    pixels = np.stack([dataset[i][0].numpy() for i in learnt]).astype(np.float64)
    np.testing.assert_allclose(found.mean, pixels.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(found.deviation, pixels.std((0, 2, 3)), rtol=1e-6)
    normal = found(dataset.batch(learnt)[0])
    assert isinstance(normal, torch.Tensor)
    np.testing.assert_allclose(normal.mean((0, 2, 3)), 0, atol=1e-5)


def test_padding_neither_counts_nor_changes(path: Path) -> None:
    dataset = ClipDataset(path, frames="all")
    found = Normalization.fit("channel", dataset, [1, 2])
    pixels = torch.cat([dataset[i][0] for i in (1, 2)]).double()
    assert found.mean[0] == pytest.approx(float(pixels.mean()))
    batch, _ = dataset.batch([1, 2])
    normal = found(batch)
    assert isinstance(normal, Padded)
    assert not normal.values[~normal.mask].any()
    brighter = augmented(batch, "frames", torch.Generator().manual_seed(0))
    assert isinstance(brighter, Padded)
    assert not brighter.values[~brighter.mask].any()


def test_each_sample_by_itself(path: Path) -> None:
    images, _ = ClipDataset(path, maps="hsv").batch([0, 1])
    normal = Normalization("sample")(images)
    assert isinstance(normal, torch.Tensor)
    np.testing.assert_allclose(normal.flatten(1).mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(normal.flatten(1).std(1), 1, atol=1e-3)


def test_augmented_frames_change_as_a_whole() -> None:
    frames = torch.rand(16, 4, 1, 6, 6) * 0.6 + 0.2
    found = augmented(frames, "frames", torch.Generator().manual_seed(1))
    assert isinstance(found, torch.Tensor)
    flipped = 0
    for one, plain in zip(found, frames, strict=True):
        fits = []
        for candidate in (plain, plain.flip(-1)):
            x = torch.stack([candidate.flatten(), torch.ones(candidate.numel())], 1)
            line = torch.linalg.lstsq(x, one.flatten()).solution
            fits.append(float((x @ line - one.flatten()).abs().max()))
            if fits[-1] < 1e-5:
                assert 0.9 <= float(line[0]) <= 1.1
        assert min(fits) < 1e-5
        flipped += fits[1] < 1e-5
    assert 0 < flipped < 16


def test_weights_of_classes() -> None:
    weights = learning_of("class").weights(torch.tensor([0, 0, 0, 2]), 3)
    np.testing.assert_allclose(weights, [4 / 6, 0, 2])


def test_oversampling_makes_classes_equal(path: Path) -> None:
    dataset = ClipDataset(path, maps="hsv")
    indices = [0, 3, 6, 1, 4, 2]
    feeder = Feeder(dataset, indices, batch_size=3, seed=0, oversample=True)
    labels = torch.cat([labels for _, labels in feeder.epoch(1)])
    assert labels.bincount().tolist() == [3, 3, 3]


@pytest.mark.parametrize("memory", [1 << 30, 1])
def test_every_epoch_has_an_order_of_its_own(path: Path, memory: int) -> None:
    dataset = ClipDataset(path, maps="hsv", memory=memory)

    def order(seed: int, epoch: int) -> bytes:
        feeder = Feeder(dataset, range(12), batch_size=6, seed=seed)
        return b"".join(x.numpy().tobytes() for x, _ in feeder.epoch(epoch))

    assert order(0, 1) == order(0, 1)
    assert len({order(0, 1), order(0, 2), order(1, 1)}) == 3


def test_a_batch_of_one_is_left_out(path: Path) -> None:
    dataset = ClipDataset(path, maps="hsv")
    feeder = Feeder(dataset, range(9), batch_size=4, seed=0)
    assert [len(labels) for _, labels in feeder.epoch(0)] == [4, 4]
