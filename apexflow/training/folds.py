"""Leave-one-subject-out folds over a data set of clips."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Subset

from apexflow.storage.dataset import ClipDataset

ClipSubset = Subset[tuple[torch.Tensor, int]]


def loso(dataset: ClipDataset) -> Iterator[tuple[ClipSubset, ClipSubset]]:
    """Yield (train, test) for each subject, test holding all of the subject's clips and no other.

    A subject is a (data set, subject) pair: subject 1 of one data set is nobody of another.
    Folds come in sorted order.
    """
    people = [(sample.dataset, sample.subject) for sample in dataset.samples]
    for person in sorted(set(people)):
        test = [i for i, who in enumerate(people) if who == person]
        train = [i for i, who in enumerate(people) if who != person]
        yield Subset(dataset, train), Subset(dataset, test)
