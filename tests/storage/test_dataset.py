import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler, Subset

import apexflow as af
from apexflow.errors import ApexflowError
from apexflow.protocols import Protocol
from apexflow.storage.collate import Padded, SampleBatch
from apexflow.storage.dataset import ClipDataset
from tests.storage.stores import Made, make_store, random_clips

TINY = 3000  # bytes: nothing fits
CLIPS = random_clips(11, frames=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset") / "made.zarr"
    make_store(folder, CLIPS)
    return folder


@pytest.fixture(params=[1 << 30, TINY], ids=["memory", "store"])
def memory(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float32))


def test_maps_are_the_stored_bytes_scaled(path: Path, memory: int) -> None:
    dataset = af.ClipDataset(path, maps="hsv", memory=memory)
    assert len(dataset) == len(CLIPS)
    assert dataset.in_memory is (memory > TINY)
    for clip, (image, label) in zip(CLIPS, dataset, strict=True):
        assert image.dtype == torch.float32
        wanted = as_tensor(clip.maps["hsv"]).permute(2, 0, 1) / 255
        torch.testing.assert_close(image, wanted, rtol=1e-6, atol=1e-7)
        assert dataset.classes[label] == clip.emotion


def test_flow_is_in_pixels_and_windows_follow_one_another(path: Path, memory: int) -> None:
    one = ClipDataset(path, flow="apex-offset", memory=memory)
    both = ClipDataset(path, flow=("onset-apex", "apex-offset"), memory=memory)
    for clip, (alone, _), (pair, _) in zip(CLIPS, one, both, strict=True):
        np.testing.assert_array_equal(alone, clip.flow["apex-offset"])
        np.testing.assert_array_equal(pair, np.stack(list(clip.flow.values())))


def test_regions_have_windows_first(path: Path, memory: int) -> None:
    both = ClipDataset(path, roi=("onset-apex", "apex-offset"), memory=memory)
    one = ClipDataset(path, roi="apex-offset", memory=memory)
    for clip, (pair, _), (alone, _) in zip(CLIPS, both, one, strict=True):
        np.testing.assert_array_equal(pair, np.stack(list(clip.roi.values())))
        np.testing.assert_array_equal(alone, clip.roi["apex-offset"][None])


def test_maps_made_when_reading_equal_those_of_the_kernel(path: Path, memory: int) -> None:
    dataset = ClipDataset(path, flow="onset-apex", encode="hsv", size=(16, 16), memory=memory)
    regions = ClipDataset(path, roi="onset-apex", encode="hsv", size=(4, 4), memory=memory)
    for clip, (image, _), (parts, _) in zip(CLIPS, dataset, regions, strict=True):
        flow = np.ascontiguousarray(np.moveaxis(clip.flow["onset-apex"], 0, -1))
        bytes_ = np.round(image.numpy() * 255).astype(np.uint8)
        np.testing.assert_array_equal(
            np.moveaxis(bytes_, 0, -1), af.kernels.encode_hsv(flow, size=(16, 16))
        )
        assert parts.shape == (1, 3, 3, 4, 4)


def test_a_function_of_ones_own_makes_maps(path: Path) -> None:
    dataset = ClipDataset(path, flow="onset-apex", encode=lambda f: np.moveaxis(f, -3, -1) * 2)
    np.testing.assert_array_equal(dataset[4][0], CLIPS[4].flow["onset-apex"] * 2)


def test_frames_of_the_interval_are_padded_with_a_mask(path: Path, memory: int) -> None:
    dataset = ClipDataset(path, frames="interval", max_frames=20, memory=memory)
    loader = DataLoader(dataset, batch_size=4, collate_fn=dataset.collate)
    seen = 0
    for (frames, mask), labels in loader:
        for one, valid, label in zip(frames, mask, labels, strict=True):
            crops = CLIPS[seen].frames
            assert crops is not None
            count = min(len(crops), 20)
            assert valid.tolist() == [True] * count + [False] * (len(valid) - count)
            torch.testing.assert_close(one[:count, 0], as_tensor(crops[:count]) / 255)
            assert not one[count:].any()
            assert dataset.classes[label] == CLIPS[seen].emotion
            seen += 1
    assert seen == len(CLIPS)


def test_frames_of_moments(path: Path, memory: int) -> None:
    dataset = ClipDataset(path, frames=("onset", "apex"), memory=memory)
    for clip, (pair, _) in zip(CLIPS, dataset, strict=True):
        assert clip.frames is not None
        crops = clip.frames[[0, len(clip.frames) // 2]]
        torch.testing.assert_close(pair[:, 0], as_tensor(crops) / 255)


def test_several_things_come_by_name(path: Path, memory: int) -> None:
    dataset = ClipDataset(path, maps="hsv", frames="all", memory=memory)
    sample, _ = dataset[0]
    assert set(sample) == {"maps", "frames"}
    values, labels = dataset.collate([dataset[i] for i in range(3)])
    again, _ = next(iter(DataLoader(dataset, batch_size=3, collate_fn=dataset.collate)))
    torch.testing.assert_close(values["maps"], again["maps"])
    torch.testing.assert_close(values["frames"].values, again["frames"].values)
    assert len(labels) == 3


def test_windows_of_steps_and_windows_as_long_as_the_clip(tmp_path: Path, memory: int) -> None:
    rng = np.random.default_rng(3)
    clips = [
        Made(
            subject=f"{i}",
            name="c",
            emotion="joy",
            frames=np.ones((length, 16, 16), np.uint8),
            flow={
                "onset-mid-apex": rng.normal(size=(2, 2, 16, 16)).astype(np.float32),
                "consecutive": rng.normal(size=(length - 1, 2, 16, 16)).astype(np.float32),
            },
        )
        for i, length in enumerate((5, 3, 40))
    ]
    make_store(tmp_path / "s.zarr", clips)
    steps = ClipDataset(tmp_path / "s.zarr", flow="onset-mid-apex", memory=memory)
    every = ClipDataset(tmp_path / "s.zarr", flow="consecutive", memory=memory)
    for clip, (two, _), (all_, _) in zip(clips, steps, every, strict=True):
        np.testing.assert_array_equal(two, clip.flow["onset-mid-apex"])
        np.testing.assert_array_equal(all_, clip.flow["consecutive"])
    (values, mask), _ = every.batch([2, 1])
    assert values.shape == (2, 39, 2, 16, 16)
    assert mask.sum(1).tolist() == [39, 2]


@pytest.mark.parametrize("collate_fn", ["ours", "default"])
def test_batches_are_the_samples(path: Path, memory: int, collate_fn: str) -> None:
    dataset = ClipDataset(path, maps="hsv", memory=memory)
    options: dict[str, Any] = {"collate_fn": dataset.collate} if collate_fn == "ours" else {}
    loader = DataLoader(dataset, batch_sampler=[[7, 1, 1], [0, 10]], **options)
    for indices, (images, labels) in zip([[7, 1, 1], [0, 10]], loader, strict=True):
        torch.testing.assert_close(images, torch.stack([dataset[i][0] for i in indices]))
        assert labels.tolist() == [dataset[i][1] for i in indices]


def test_a_fold_keeps_the_fast_way(path: Path) -> None:
    dataset = ClipDataset(path, maps="hsv")
    train, _ = next(iter(af.loso(dataset)))
    assert isinstance(train.__getitems__([0, 2]), SampleBatch)
    (images, _), *_ = DataLoader(train, batch_size=100, collate_fn=dataset.collate)
    assert len(images) == len(train)


def test_transform_is_applied_in_every_way_of_reading(path: Path, memory: int) -> None:
    plain = ClipDataset(path, maps="hsv", memory=memory)
    dataset = ClipDataset(path, maps="hsv", memory=memory, transform=lambda x: x[:1] * 2)
    wanted = torch.stack([plain[i][0][:1] * 2 for i in range(5)])
    torch.testing.assert_close(torch.stack([dataset[i][0] for i in range(5)]), wanted)
    torch.testing.assert_close(dataset.batch(range(5))[0], wanted)
    stream = dataset.stream(range(5), shuffle=False)
    torch.testing.assert_close(next(iter(stream))[0], wanted)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_what_one_process_reads(path: Path, memory: int, method: str) -> None:
    dataset = ClipDataset(path, frames="all", memory=memory)
    wanted, _ = dataset.batch(range(len(dataset)))
    loader = DataLoader(
        Subset(dataset, range(len(dataset))),
        batch_size=len(dataset),
        num_workers=1,
        multiprocessing_context=method,
        collate_fn=dataset.collate,
    )
    ((found, _),) = list(loader)
    assert isinstance(found, Padded)
    torch.testing.assert_close(found.values, wanted.values)


def test_distributed_samplers_see_each_clip(path: Path) -> None:
    dataset = ClipDataset(path, maps="hsv")
    indices = [
        i for rank in range(2) for i in DistributedSampler(dataset, num_replicas=2, rank=rank)
    ]
    assert set(indices) == set(range(len(dataset)))


def test_a_pickled_copy_reads_the_store_for_itself(path: Path) -> None:
    dataset = ClipDataset(path, maps="hsv", memory=TINY)
    copy = pickle.loads(pickle.dumps(dataset))
    torch.testing.assert_close(copy[3][0], dataset[3][0])


def test_stores_follow_one_another(tmp_path: Path, memory: int) -> None:
    first, second = random_clips(3, seed=1), random_clips(4, seed=2)
    for clip in second:
        clip.dataset = "other"
    make_store(tmp_path / "a.zarr", first)
    make_store(tmp_path / "b.zarr", second)
    dataset = ClipDataset([tmp_path / "a.zarr", tmp_path / "b.zarr"], maps="hsv", memory=memory)
    for clip, (image, _) in zip([*first, *second], dataset, strict=True):
        wanted = as_tensor(clip.maps["hsv"]).permute(2, 0, 1) / 255
        torch.testing.assert_close(image, wanted, rtol=1e-6, atol=1e-7)
    images, _ = dataset.batch([5, 0, 6, 2])
    torch.testing.assert_close(images[1], dataset[0][0])
    torch.testing.assert_close(images[2], dataset[6][0])


def test_labels_by_protocol_leave_out_what_has_no_class(path: Path) -> None:
    protocol = Protocol(
        name="two", classes=("bad", "good"), emotions={"": {"rage": "bad", "joy": "good"}}
    )
    dataset = ClipDataset(path, maps="hsv", labels=protocol)
    assert dataset.classes == ("bad", "good")
    kept = [clip for clip in CLIPS if clip.emotion != "fear"]
    assert [sample.clip for sample in dataset.samples] == [clip.name for clip in kept]
    assert [label for _, label in dataset] == [int(clip.emotion == "joy") for clip in kept]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": "uv"}, r"has no maps 'uv'; it has \['hsv'\]"),
        ({"flow": "onset-offset"}, "has no flow of window 'onset-offset'"),
        ({"frames": "some"}, "frames must be 'all', 'interval', 'interpolated', or some of"),
        ({"flow": "onset-apex", "encode": "abc"}, "abc"),
    ],
)
def test_what_is_not_there_is_named(path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ApexflowError, match=message):
        ClipDataset(path, **options)


class TestStream:
    def test_gives_every_sample_once(self, path: Path, memory: int) -> None:
        dataset = ClipDataset(path, frames="all", memory=memory)
        found: dict[int, torch.Tensor] = {}
        for (values, mask), labels in dataset.stream(batch_size=4, seed=5):
            for one, valid, label in zip(values, mask, labels, strict=True):
                matches = [
                    i
                    for i in range(len(dataset))
                    if dataset[i][1] == label and torch.equal(dataset[i][0], one[valid])
                ]
                found[matches[0]] = one
        assert sorted(found) == list(range(len(dataset)))

    def test_batches_are_full_but_for_the_last(self, path: Path, memory: int) -> None:
        dataset = ClipDataset(path, maps="hsv", memory=memory)
        assert [len(y) for _, y in dataset.stream(batch_size=4)] == [4, 4, 3]
        assert [len(y) for _, y in dataset.stream(batch_size=4, drop_last=True)] == [4, 4]
        assert [len(y) for _, y in dataset.stream([1, 5, 9], batch_size=2)] == [2, 1]

    def test_order_follows_seed_and_epoch(self, path: Path, memory: int) -> None:
        dataset = ClipDataset(path, maps="hsv", memory=memory)

        def order(seed: int, epoch: int) -> bytes:
            stream = dataset.stream(seed=seed, batch_size=100)
            stream.set_epoch(epoch)
            return next(iter(stream))[0].numpy().tobytes()

        assert order(1, 0) == order(1, 0)
        assert len({order(1, 0), order(1, 1), order(2, 0)}) == 3

    def test_unshuffled_is_the_order_of_the_store(self, path: Path, memory: int) -> None:
        dataset = ClipDataset(path, maps="hsv", memory=memory)
        images = torch.cat([x for x, _ in dataset.stream(shuffle=False, batch_size=3)])
        torch.testing.assert_close(images, torch.stack([x for x, _ in dataset]))

    def test_workers_share_the_clips_out(self, path: Path) -> None:
        dataset = ClipDataset(path, maps="hsv", memory=TINY)
        loader = DataLoader(dataset.stream(batch_size=2), batch_size=None, num_workers=2)
        images = torch.cat([x for x, _ in loader])
        assert len({image.numpy().tobytes() for image in images}) == len(images) == len(dataset)

    def test_ranks_get_equally_many_and_together_all(self, path: Path) -> None:
        dataset = ClipDataset(path, maps="hsv", memory=TINY)
        shares = [
            torch.cat([x for x, _ in dataset.stream(rank=rank, world_size=3, batch_size=2)])
            for rank in range(3)
        ]
        assert {len(share) for share in shares} == {4}
        assert len({image.numpy().tobytes() for image in torch.cat(shares)}) == len(dataset)
