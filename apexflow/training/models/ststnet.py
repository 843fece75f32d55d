"""STSTNet: three shallow streams over one flow map."""

from __future__ import annotations

import torch
from torch import nn


class STSTNet(nn.Module):
    """Shallow triple stream three-dimensional CNN [1]_.

    Three parallel streams, each a 3x3 convolution (3, 5 and 8 filters, padding 2), ReLU, batch
    norm, 3x3 max pool (stride 3, padding 1) and dropout; then their channels together, 2x2
    average pool and one linear layer. 1,683 parameters for three classes, in the published
    order: the three convolutions, the three batch norms, the linear layer.

    Parameters
    ----------
    n_classes : int, default 3
    in_channels : int, default 3
        Horizontal flow, vertical flow, optical strain.
    dropout : float, default 0.5

    Input: (B, in_channels, 28, 28) float32. Output: logits (B, n_classes).

    References
    ----------
    .. [1] S.-T. Liong, Y. S. Gan, J. See, H.-Q. Khor, Y.-C. Huang, "Shallow Triple Stream
       Three-dimensional CNN (STSTNet) for Micro-expression Recognition", FG 2019,
       doi:10.1109/FG.2019.8756567.
    """

    def __init__(self, n_classes: int = 3, *, in_channels: int = 3, dropout: float = 0.5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 3, kernel_size=3, padding=2)
        self.conv2 = nn.Conv2d(in_channels, 5, kernel_size=3, padding=2)
        self.conv3 = nn.Conv2d(in_channels, 8, kernel_size=3, padding=2)
        self.bn1 = nn.BatchNorm2d(3)
        self.bn2 = nn.BatchNorm2d(5)
        self.bn3 = nn.BatchNorm2d(8)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=3, padding=1)
        self.avgpool = nn.AvgPool2d(kernel_size=2, stride=2)
        self.dropout = nn.Dropout(dropout)
        # 28 -> 30 by the padding, -> 10 by the max pool, -> 5 by the average pool.
        self.fc = nn.Linear(5 * 5 * 16, n_classes)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        streams = [
            self.dropout(self.maxpool(norm(torch.relu(convolution(maps)))))
            for convolution, norm in (
                (self.conv1, self.bn1),
                (self.conv2, self.bn2),
                (self.conv3, self.bn3),
            )
        ]
        pooled: torch.Tensor = self.avgpool(torch.cat(streams, dim=1))
        logits: torch.Tensor = self.fc(pooled.flatten(1))
        return logits
