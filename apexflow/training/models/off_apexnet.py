"""OFF-ApexNet: horizontal and vertical flow in two streams of their own."""

from __future__ import annotations

from torch import nn

from apexflow.training.models.two_streams import TwoStreams


class OffApexNet(TwoStreams):
    """Optical flow features from apex frame network [1]_.

    Two streams, one for the horizontal and one for the vertical flow, each of two 5x5
    convolutions (6 and 16 filters, padding 2), ReLU and 2x2 max pool; their 784 features each
    together, 1024, 1024, classes, with ReLU and dropout behind the two hidden layers. 2,664,475
    parameters for three classes.

    Parameters
    ----------
    n_classes : int, default 3
    dropout : float, default 0.5

    Input: (B, 2, 28, 28) float32, or more channels, of which the first two are taken: (u, v,
    strain) maps serve as they are. Output: logits (B, n_classes).

    References
    ----------
    .. [1] Y. S. Gan, S.-T. Liong, W.-C. Yau, Y.-C. Huang, L.-K. Tan, "OFF-ApexNet on
       micro-expression recognition system", Signal Processing: Image Communication 74, 2019,
       doi:10.1016/j.image.2019.02.005, arXiv:1805.08699.
    """

    def __init__(self, n_classes: int = 3, *, dropout: float = 0.5) -> None:
        super().__init__(_stream)
        self.classifier = nn.Sequential(
            nn.Linear(2 * 16 * 7 * 7, 1024),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(1024, 1024),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(1024, n_classes),
        )


def _stream() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((1, 6), (6, 16)):
        layers += [nn.Conv2d(before, after, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten())
