"""SSSNet: one shallow stream over a flow map."""

from __future__ import annotations

import torch
from torch import nn


class SSSNet(nn.Module):
    """Shallow single stream network [1]_, the best flow network of [2]_ in action units.

    Convolution 5x5 of 32 filters, ReLU, 3x3 max pool, batch norm, dropout of whole channels;
    convolution 3x3 of 64, ReLU, 2x2 max pool, batch norm, dropout of channels; 256, ReLU,
    dropout, classes. No padding. 1,349,251 parameters for three classes.

    Parameters
    ----------
    n_classes : int, default 3
    in_channels : int, default 3
        Horizontal flow, vertical flow, optical strain.
    dropout : float, default 0.5

    Input: (B, in_channels, 64, 64) float32. Output: logits (B, n_classes).

    References
    ----------
    .. [1] T. Varanka, W. Peng, G. Zhao, "Micro-expression recognition with noisy labels",
       Electronic Imaging 33, 2021, doi:10.2352/ISSN.2470-1173.2021.11.HVEI-157.
    .. [2] T. Varanka, Y. Li, W. Peng, G. Zhao, "Data leakage and evaluation issues in
       micro-expression analysis", IEEE Transactions on Affective Computing, 2023,
       arXiv:2211.11425.
    """

    def __init__(self, n_classes: int = 3, *, in_channels: int = 3, dropout: float = 0.5) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(in_channels, 32, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(3),
            nn.BatchNorm2d(32),
            nn.Dropout2d(dropout),
            nn.Conv2d(32, 64, kernel_size=3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(64),
            nn.Dropout2d(dropout),
            nn.Flatten(),
        )
        # 64 -> 60 -> 20 by the pool, -> 18 -> 9 by the pool.
        self.classifier = nn.Sequential(
            nn.Linear(9 * 9 * 64, 256), nn.ReLU(), nn.Dropout(dropout), nn.Linear(256, n_classes)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.convolutions(maps))
        return logits
