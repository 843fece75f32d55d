"""What networks of two streams share: one over the horizontal, one over the vertical flow."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


class TwoStreams(nn.Module):
    """Horizontal and vertical flow in streams of their own, their features classified together.

    Parameters
    ----------
    stream : callable
        Makes one stream: (B, 1, H, W) to features (B, n).

    Attributes
    ----------
    classifier : Module
        (B, 2 n) to logits; the network's own to make.

    Input: (B, 2, H, W) float32, or more channels, of which the first two are taken: (u, v,
    strain) maps serve as they are. Output: logits (B, n_classes).
    """

    classifier: nn.Module

    def __init__(self, stream: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.horizontal = stream()
        self.vertical = stream()

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        streams = [self.horizontal(maps[:, :1]), self.vertical(maps[:, 1:2])]
        logits: torch.Tensor = self.classifier(torch.cat(streams, dim=1))
        return logits
