"""STSTNet: three shallow streams over one flow map."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

_SIDE = 28
_FILTERS = 16


class STSTNet(nn.Module):
    """Shallow triple stream three-dimensional CNN [1]_.

    Three parallel streams, each a 3x3 convolution (3, 5 and 8 filters, padding 2), ReLU, batch
    norm, 3x3 max pool (stride 3, padding 1) and dropout; then their channels together, 2x2
    average pool and one linear layer. 1,683 parameters for three classes, in the published
    order: the three convolutions, the three batch norms, the linear layer.

    In training on a CPU the streams are computed by compiled kernels, which agree with the layers
    to rounding; an epoch takes a third of the time (`apexflow.training.models.ststnet_kernels`).
    The layers are their specification, and what is used everywhere else: on a GPU, to predict,
    where a weight of a norm is not positive, or where maps need a gradient themselves.

    Parameters
    ----------
    n_classes : int, default 3
    in_channels : int, default 3
        Horizontal flow, vertical flow, optical strain.
    dropout : float, default 0.5
        Rounded to 1/256.

    Notes
    -----
    Input: (B, in_channels, 28, 28) float32, published as 0..255. Output: logits (B, n_classes).

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
        self.dropout = ByteDropout(dropout)
        # 28 -> 30 by the padding, -> 10 by the max pool, -> 5 by the average pool.
        self.fc = nn.Linear(5 * 5 * _FILTERS, n_classes)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        pooled = self._compiled(maps) if self._can_compile(maps) else self._layers(maps)
        logits: torch.Tensor = self.fc(pooled.flatten(1))
        return logits

    def _layers(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the streams together, (B, 16, 5, 5): the specification."""
        streams = [
            self.maxpool(norm(torch.relu(convolution(maps))))
            for convolution, norm in zip(self._convolutions, self._norms, strict=True)
        ]
        pooled: torch.Tensor = self.avgpool(self.dropout(torch.cat(streams, dim=1)))
        return pooled

    def _compiled(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the same by compiled kernels, and count this batch in the norms' statistics."""
        from apexflow.training.models.ststnet_kernels import PLACES, POOLED, Streams

        norms = self._norms
        kept, scale = self.dropout.draw((len(maps), _FILTERS, POOLED, POOLED))
        found: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = Streams.apply(
            maps,
            torch.cat([one.weight for one in self._convolutions]),
            torch.cat([one.bias for one in self._convolutions if one.bias is not None]),
            torch.cat([one.weight for one in norms]),
            torch.cat([one.bias for one in norms]),
            norms[0].eps,
            kept,
            scale,
        )
        pooled, mean, variance = found
        count = len(maps) * PLACES * PLACES
        sizes = [one.num_features for one in norms]
        unbiased = variance * (count / (count - 1))
        parts = zip(norms, torch.split(mean, sizes), torch.split(unbiased, sizes), strict=True)
        for norm, m, v in parts:
            for running, new in ((norm.running_mean, m), (norm.running_var, v)):
                assert running is not None
                assert norm.momentum is not None
                running.lerp_(new, norm.momentum)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked += 1
        return pooled

    def _can_compile(self, maps: torch.Tensor) -> bool:
        """Whether the compiled kernels compute what the layers would."""
        return (
            self.training
            and maps.device.type == "cpu"
            and maps.dtype == self.conv1.weight.dtype == torch.float32
            and maps.shape[2:] == (_SIDE, _SIDE)
            and not maps.requires_grad
            and not torch.is_autocast_enabled("cpu")
            and not torch.onnx.is_in_onnx_export()
            and not torch.compiler.is_compiling()
            and all(
                one.track_running_stats and one.momentum is not None and one.training
                for one in self._norms
            )
            and all(bool((one.weight > 0).all()) for one in self._norms)
        )

    @property
    def _convolutions(self) -> tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]:
        return self.conv1, self.conv2, self.conv3

    @property
    def _norms(self) -> tuple[nn.BatchNorm2d, nn.BatchNorm2d, nn.BatchNorm2d]:
        return self.bn1, self.bn2, self.bn3


class ByteDropout(nn.Module):
    """Dropout that draws a byte a value: a tenth of the time of `torch.nn.Dropout` on a CPU.

    Parameters
    ----------
    p : float
        The part that is dropped, rounded to 1/256. What is kept is divided by what is kept.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return values
        kept, scale = self.draw(values.shape, values.device)
        return values * (kept.to(values.dtype) * scale)

    def draw(
        self, shape: Sequence[int], device: torch.device | None = None
    ) -> tuple[torch.Tensor, float]:
        """Return what is kept, bool of that shape, and the factor of what is kept."""
        dropped = round(self.p * 256)
        count = math.prod(shape)
        words = torch.empty((count + 7) // 8, dtype=torch.int64, device=device)
        # All 64 bits of a word are drawn.
        drawn = words.random_(-(1 << 63), None).view(torch.uint8)[:count]
        return drawn.reshape(tuple(shape)) >= dropped, 256 / max(1, 256 - dropped)

    def extra_repr(self) -> str:
        return f"p={self.p}"
