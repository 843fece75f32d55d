"""RCN: a recurrent convolution over a small flow map, with attention that has no parameters."""

from __future__ import annotations

import torch
from torch import nn

_POOLED = 5
_STEPS = 2


class RCN(nn.Module):
    """Recurrent convolutional network with the parameter-free attention unit, RCN-A of [1]_.

    Convolution 5x5 without padding, batch norm, ReLU, 2x2 max pool, dropout; one recurrent
    convolution (1x1 forward, 3x3 recurrent with shared weights, twice), 2x2 max pool, dropout;
    adaptive average pool to 5x5; one linear layer. The pooled features are weighted by where the
    features before the recurrence speak for the classes, which the linear layer's own weights
    tell.

    Parameters
    ----------
    n_classes : int, default 3
    in_channels : int, default 3
    filters : int, default 64
    attention : bool, default True
        False is the plain RCN, with the same parameters.
    dropout : float, default 0.5

    Input: (B, in_channels, H, W) float32, 24 px a side at least; published on inputs of low
    resolution. Output: logits (B, n_classes).

    References
    ----------
    .. [1] Z. Xia, W. Peng, H.-Q. Khor, X. Feng, G. Zhao, "Revealing the Invisible with Model and
       Data Shrinking for Composite-database Micro-expression Recognition", IEEE Transactions on
       Image Processing 29, 2020, doi:10.1109/TIP.2020.3018222, arXiv:2006.09674.
    """

    def __init__(
        self,
        n_classes: int = 3,
        *,
        in_channels: int = 3,
        filters: int = 64,
        attention: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.first = nn.Sequential(
            nn.Conv2d(in_channels, filters, kernel_size=5),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(dropout),
        )
        self.forward_step = _normed(filters, 1)
        self.recurrent_step = _normed(filters, 3)
        self.reduce = nn.Sequential(nn.MaxPool2d(2), nn.Dropout(dropout))
        self.pool = nn.AdaptiveAvgPool2d(_POOLED)
        self.classifier = nn.Linear(filters * _POOLED**2, n_classes)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        inputs = self.first(maps)
        state = self.forward_step(inputs)
        for _ in range(_STEPS):
            state = self.recurrent_step(inputs + state)
        pooled = self.pool(self.reduce(state))
        if self.attention:
            pooled = pooled * self._attended(self.pool(inputs))
        logits: torch.Tensor = self.classifier(pooled.flatten(1))
        return logits

    def _attended(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, 1, 5, 5) in 0..1: the mean over classes of their activation maps."""
        weights = self.classifier.weight.reshape(-1, *features.shape[1:])
        maps = (weights * features[:, None]).mean(2)
        low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
        # A map that is the same everywhere attends to nothing more than to the rest.
        flat = high == low
        return torch.where(flat, 1, (maps - low) / torch.where(flat, 1, high - low)).mean(
            1, keepdim=True
        )


def _normed(filters: int, size: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(filters, filters, size, padding=size // 2), nn.BatchNorm2d(filters), nn.ReLU()
    )
