"""A data set larger than memory, in shuffled blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from apexflow.errors import ApexflowError
from apexflow.storage.collate import Batch
from apexflow.storage.packed import Packed, join


class Blocks(Protocol):
    """What a stream needs of a `ClipDataset`; its docstrings say what each does."""

    @property
    def nbytes(self) -> int: ...
    @property
    def memory(self) -> int: ...
    def __len__(self) -> int: ...
    def blocks(self, indices: Sequence[int]) -> list[list[int]]: ...
    def read(self, indices: Sequence[int]) -> dict[str, Packed]: ...
    def finish(self, packed: Mapping[str, Packed], indices: Sequence[int]) -> Batch: ...


class ClipStream(IterableDataset[Batch]):
    """Batches of a `ClipDataset`, read block by block in bounded memory.

    A block is what one chunk or shard of the store holds. Blocks come in random order; as many
    as fit into half the data set's ``memory`` allowance lie in memory together, and batches
    are drawn from them at random. Order depends on ``seed`` and the epoch alone.

    Take it as ``DataLoader(stream, batch_size=None)``: it gives whole batches. Workers share
    the blocks out among them; each needs an allowance of its own. With several ranks, each
    gets its own blocks and equally many samples, the ranks with fewer clips repeating some.

    Parameters
    ----------
    dataset : ClipDataset
    indices : sequence of int, optional
        The samples to give, such as the training side of a fold; all by default.
    batch_size : int, default 256
    shuffle : bool, default True
        False gives the samples in the order of the store.
    seed : int, default 0
    drop_last : bool, default False
        Leave out a last batch that is not full.
    rank, world_size : int, optional
        By default those of `torch.distributed` where it runs.
    """

    def __init__(
        self,
        dataset: Blocks,
        indices: Sequence[int] | None = None,
        *,
        batch_size: int = 256,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ApexflowError(f"batch_size must be 1 or more. Got {batch_size}.")
        self.dataset = dataset
        self.indices = range(len(dataset)) if indices is None else tuple(indices)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.rank, self.world_size = _place(rank, world_size)
        # Shared, so that set_epoch reaches workers that live on (persistent_workers).
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()  # type: ignore[no-untyped-call]

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next epoch; the same epoch gives the same order."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        blocks = self._blocks()
        shards = self.world_size * workers
        shares = [blocks[i::shards] for i in range(shards)]
        mine = shares[self.rank * workers + number]
        if self.world_size > 1:
            mine = _filled(mine or blocks[:1], max(_count(share) for share in shares))
        rng = np.random.default_rng((self.seed, int(self._epoch), self.rank, number))
        yield from self._batches(mine, rng)

    def _blocks(self) -> list[list[int]]:
        blocks = self.dataset.blocks(self.indices)
        if self.shuffle:
            order = np.random.default_rng((self.seed, int(self._epoch))).permutation(len(blocks))
            blocks = [blocks[i] for i in order]
        return blocks

    def _groups(self, blocks: list[list[int]]) -> Iterator[list[int]]:
        """Join blocks as far as half the allowance goes; the rest is for what is in flight."""
        each = self.dataset.nbytes / len(self.dataset)
        group: list[int] = []
        for block in blocks:
            if group and (len(group) + len(block)) * each > self.dataset.memory / 2:
                yield group
                group = []
            group += block
        if group:
            yield group

    def _batches(self, blocks: list[list[int]], rng: np.random.Generator) -> Iterator[Batch]:
        left = _Samples([], {})
        for group in self._groups(blocks):
            indices = sorted(group)
            samples = _Samples(indices, self.dataset.read(indices))
            order = rng.permutation(len(indices)) if self.shuffle else np.arange(len(indices))
            start = 0
            while start < len(order):
                stop = min(start + self.batch_size - len(left.indices), len(order))
                left = left.with_more(samples.select(order[start:stop]))
                start = stop
                if len(left.indices) == self.batch_size:
                    yield left.batch(self.dataset)
                    left = _Samples([], {})
            # Before the next group is read: two would take the whole allowance.
            del samples
        if left.indices and not self.drop_last:
            yield left.batch(self.dataset)


@dataclass(frozen=True, slots=True)
class _Samples:
    """Samples as read, and which they are."""

    indices: list[int]
    packed: dict[str, Packed]

    def select(self, positions: NDArray[np.intp]) -> _Samples:
        chosen = torch.from_numpy(positions)
        packed = {name: one.select(chosen) for name, one in self.packed.items()}
        return _Samples([self.indices[i] for i in positions], packed)

    def with_more(self, other: _Samples) -> _Samples:
        if not self.indices:
            return other
        packed = {name: join([one, other.packed[name]]) for name, one in self.packed.items()}
        return _Samples(self.indices + other.indices, packed)

    def batch(self, dataset: Blocks) -> Batch:
        return dataset.finish(self.packed, self.indices)


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    from torch import distributed

    running = distributed.is_available() and distributed.is_initialized()
    if rank is None:
        rank = distributed.get_rank() if running else 0
    if world_size is None:
        world_size = distributed.get_world_size() if running else 1
    if not 0 <= rank < world_size:
        raise ApexflowError(f"rank must lie in 0..{world_size - 1}. Got {rank}.")
    return rank, world_size


def _count(blocks: list[list[int]]) -> int:
    return sum(len(block) for block in blocks)


def _filled(blocks: list[list[int]], count: int) -> list[list[int]]:
    """Repeat blocks until they hold ``count`` samples."""
    filled: list[list[int]] = []
    for block in cycle(blocks):
        filled.append(block[: count - _count(filled)])
        if _count(filled) == count:
            return filled
    return filled
