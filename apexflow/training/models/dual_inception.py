"""Dual-Inception: two streams of inception blocks over the components of flow."""

from __future__ import annotations

import torch
from torch import nn

from apexflow.training.models.two_streams import TwoStreams


class DualInception(TwoStreams):
    """Dual-inception network [1]_.

    Two streams, one for the horizontal and one for the vertical flow, each of two inception
    blocks (6 and 16 filters a branch, four branches) followed by a 2x2 max pool; their 3136
    features each together, 1024, ReLU, dropout, classes. 6,449,867 parameters for three classes.

    Parameters
    ----------
    n_classes : int, default 3
    dropout : float, default 0.5

    Input: (B, 2, 28, 28) float32, or more channels, of which the first two are taken. Output:
    logits (B, n_classes).

    References
    ----------
    .. [1] L. Zhou, Q. Mao, L. Xue, "Dual-Inception Network for Cross-Database Micro-Expression
       Recognition", FG 2019, doi:10.1109/FG.2019.8756579.
    """

    def __init__(self, n_classes: int = 3, *, dropout: float = 0.5) -> None:
        super().__init__(_stream)
        self.classifier = nn.Sequential(
            nn.Linear(2 * 64 * 7 * 7, 1024),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(1024, n_classes),
        )


class _Inception(nn.Module):
    """1x1, 1x1 and 3x3, 1x1 and 5x5, 3x3 max pool and 1x1, side by side, each with ReLU."""

    def __init__(self, before: int, filters: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                _branch(before, filters),
                _branch(before, filters, 3),
                _branch(before, filters, 5),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *_branch(before, filters)),
            ]
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(maps) for branch in self.branches], dim=1)


def _branch(before: int, filters: int, size: int | None = None) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(before, filters, 1), nn.ReLU()]
    if size is not None:
        layers += [nn.Conv2d(filters, filters, size, padding=size // 2), nn.ReLU()]
    return nn.Sequential(*layers)


def _stream() -> nn.Module:
    return nn.Sequential(
        _Inception(1, 6), nn.MaxPool2d(2), _Inception(24, 16), nn.MaxPool2d(2), nn.Flatten()
    )
