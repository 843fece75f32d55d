"""A small CNN in every frame, a bidirectional LSTM over them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from torch.utils.checkpoint import checkpoint

# Frames that go through the convolutions at once.
_FRAMES = 4


class CnnBiLstm(nn.Module):
    """Frames through two convolutions, their features through a BiLSTM.

    Convolution 32, 2x2 max pool, convolution 64, 2x2 max pool (3x3, no padding, ReLU), flatten,
    BiLSTM of 64, dropout 0.5, dense 64, classes. At 224x224 the flatten gives 186,624 features
    a frame and the LSTM 95.6 million weights; ``pooled`` averages them to 4x4 a channel first,
    1,024 features, 0.6 million weights.

    Parameters
    ----------
    n_classes : int, default 8
    size : (height, width), default (224, 224)
    in_channels : int, default 1
    pooled : bool, default False
    dropout : float, default 0.5

    Input: (B, time, in_channels, height, width) float32 in 0..1, and optionally a mask
    (B, time) that is True where there is a frame; without it all frames count, padding too.
    Output: logits (B, n_classes).
    """

    def __init__(
        self,
        n_classes: int = 8,
        *,
        size: tuple[int, int] = (224, 224),
        in_channels: int = 1,
        pooled: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        height, width = (((side - 2) // 2 - 2) // 2 for side in size)
        self.frame = nn.Sequential(
            nn.Conv2d(in_channels, 32, kernel_size=3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, kernel_size=3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            *([nn.AdaptiveAvgPool2d(4)] if pooled else []),
            nn.Flatten(),
        )
        features = 64 * (16 if pooled else height * width)
        self.lstm = nn.LSTM(features, 64, batch_first=True, bidirectional=True)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, n_classes)
        )

    def forward(self, frames: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        if mask is None:
            mask = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        # Packed are the frames that are there: only they are worth a convolution.
        packed = pack_padded_sequence(
            frames, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        features = torch.cat([self._features(few) for few in torch.split(packed.data, _FRAMES)])
        _, (last, _) = self.lstm(PackedSequence(features, *packed[1:]))
        # The forward direction's state after the last frame, the backward one's after the first.
        logits: torch.Tensor = self.classifier(torch.cat([last[0], last[1]], dim=1))
        return logits

    def _features(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the features (n, features) of some frames.

        What the convolutions give is computed again for the gradient: kept, it takes 16 MB a frame
        of 224x224, 8 GB a batch.
        """
        found: torch.Tensor = checkpoint(
            self.frame, frames, use_reentrant=False, preserve_rng_state=False
        )
        return found
