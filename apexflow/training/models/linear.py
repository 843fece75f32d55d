"""A linear classifier, as a linear SVM or a logistic regression leaves it."""

from __future__ import annotations

import torch
from torch import nn


class LinearClassifier(nn.Module):
    """Decision values of each class: weights times features, and an offset.

    Parameters
    ----------
    n_classes : int
    in_features : int
        Numbers of a sample, whatever its shape.

    The offset of a class that nobody was trained on is minus infinity: it is never predicted.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, n_classes: int, in_features: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(n_classes, in_features, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(n_classes, dtype=torch.float64))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(values.flatten(1).double(), self.weight, self.bias)
