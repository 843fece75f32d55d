"""ResNet-18 over a flow map, over the apex frame, and over onset and apex side by side."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from apexflow.errors import ApexflowError

_FEATURES = 512
_DROPOUT = 0.5


class FlowResNet(nn.Module):
    """A flow map through ResNet-18 and a tapering classifier: 512-256-128-64-classes.

    The optical-flow model of the CASME II apex-frame classifier: torchvision's resnet18 [1]_
    without its last layer, ReLU and dropout between the layers of the classifier.

    Parameters
    ----------
    n_classes : int, default 4
    weights : path, optional
        A file of torchvision's resnet18 weights (a state dict), such as one trained on
        ImageNet. Without it the trunk begins at random; nothing is ever fetched.
    dropout : float, default 0.5

    Input: (B, 3, H, W) float32, normalised to mean 0.5 and deviation 0.5 a channel; published
    at 224x224. Output: logits (B, n_classes).

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition",
       CVPR 2016, doi:10.1109/CVPR.2016.90.
    """

    def __init__(
        self, n_classes: int = 4, *, weights: str | Path | None = None, dropout: float = _DROPOUT
    ) -> None:
        super().__init__()
        self.trunk = resnet_trunk(weights)
        self.classifier = nn.Sequential(
            *_embedding(dropout),
            nn.ReLU(),
            nn.Dropout(dropout),
            *_head(n_classes, dropout),
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.trunk(maps))
        return logits


class SiameseResNet(nn.Module):
    """The difference of two frames' embeddings, classified: (512-256-128) twice, 64, classes.

    The Siamese model of the CASME II apex-frame classifier: one trunk and one embedding see the
    onset and the apex; the difference of the two 128-vectors goes through 64 to the classes.

    Parameters as in `FlowResNet`.

    Input: (B, 2, channel, H, W) float32, onset and apex; gray frames (channel 1) are repeated
    to three channels. Output: logits (B, n_classes).
    """

    def __init__(
        self, n_classes: int = 4, *, weights: str | Path | None = None, dropout: float = _DROPOUT
    ) -> None:
        super().__init__()
        self.trunk = resnet_trunk(weights)
        self.embedding = nn.Sequential(*_embedding(dropout))
        self.classifier = nn.Sequential(*_head(n_classes, dropout))

    def forward(self, pair: torch.Tensor) -> torch.Tensor:
        # Both frames in one pass, so that batch norm sees the statistics of both.
        embedded = self.embedding(self.trunk(in_color(pair.flatten(0, 1))))
        onset, apex = embedded.unflatten(0, (-1, 2)).unbind(1)
        logits: torch.Tensor = self.classifier(apex - onset)
        return logits


class RgbResNet(nn.Module):
    """The baseline without motion: the apex frame through ResNet-18 and one linear layer.

    Parameters as in `FlowResNet`; dropout is 0.2.

    Input: (B, 1, channel, H, W) or (B, channel, H, W) float32; gray frames are repeated to
    three channels. Output: logits (B, n_classes).
    """

    def __init__(
        self, n_classes: int = 4, *, weights: str | Path | None = None, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.trunk = resnet_trunk(weights)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(_FEATURES, n_classes))

    def forward(self, frame: torch.Tensor) -> torch.Tensor:
        image = frame.flatten(0, 1) if frame.ndim == 5 else frame
        logits: torch.Tensor = self.classifier(self.trunk(in_color(image)))
        return logits


def resnet_trunk(weights: str | Path | None = None) -> nn.Module:
    """Return torchvision's resnet18 without its last layer: (B, 3, H, W) to (B, 512).

    Raises `ApexflowError` when the file of weights cannot be read or is of another network.
    """
    from torchvision.models import resnet18

    trunk: nn.Module = resnet18(weights=None)
    if weights is not None:
        try:
            trunk.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        except Exception as error:  # a pickle, a zip or a state dict may fail in any way
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ApexflowError(
                f"weights {weights}: no state dict of torchvision's resnet18 ({first_line})"
            ) from None
    trunk.fc = nn.Identity()
    return trunk


def in_color(images: torch.Tensor) -> torch.Tensor:
    """Repeat gray images (B, 1, H, W) to three channels; leave others as they are."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def _embedding(dropout: float) -> list[nn.Module]:
    return [nn.Linear(_FEATURES, 256), nn.ReLU(), nn.Dropout(dropout), nn.Linear(256, 128)]


def _head(n_classes: int, dropout: float) -> list[nn.Module]:
    return [nn.Linear(128, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, n_classes)]
