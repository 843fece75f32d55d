"""Regions of the face over time: an encoder a region, attention over windows or regions."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

_FEATURES = 256
_HEADS = 8
_DROPOUT = 0.3


class RoiEncoder(nn.Module):
    """One region's map to 256 features.

    Convolutions 3-32-64-128-256, each 3x3 with stride 2, batch norm and ReLU; global average
    pool, linear 256, ReLU, dropout.

    Parameters
    ----------
    in_channels : int, default 3
    dropout : float, default 0.3

    Input: (B, in_channels, H, W) float32, standardised per sample; published at 224x224.
    Output: (B, 256).
    """

    def __init__(self, *, in_channels: int = 3, dropout: float = _DROPOUT) -> None:
        super().__init__()
        widths = (in_channels, 32, 64, 128, _FEATURES)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [
                nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.features = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(_FEATURES, _FEATURES),
            nn.ReLU(),
            nn.Dropout(dropout),
        )

    def forward(self, region: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.features(self.convolutions(region))
        return features


class RoiTemporal(nn.Module):
    """Attention over the windows of all regions together.

    One encoder a region; to each feature vector a learned position for its window and region
    is added; the regions of a window side by side (regions x 256) go through multi-head
    attention over the windows (8 heads), the mean over windows, 256, classes.

    Parameters
    ----------
    n_classes : int, default 4
    windows : int, default 4
    regions : int, default 3
    in_channels : int, default 3
    dropout : float, default 0.3

    Input: (B, windows, regions, in_channels, H, W) float32, standardised per sample.
    Output: logits (B, n_classes).
    """

    def __init__(
        self,
        n_classes: int = 4,
        *,
        windows: int = 4,
        regions: int = 3,
        in_channels: int = 3,
        dropout: float = _DROPOUT,
    ) -> None:
        super().__init__()
        width = regions * _FEATURES
        self.encoders = _encoders(regions, in_channels, dropout)
        self.position = nn.Parameter(torch.randn(1, windows, regions, _FEATURES) * 0.02)
        self.attention = nn.MultiheadAttention(width, _HEADS, dropout=dropout, batch_first=True)
        self.classifier = nn.Sequential(
            nn.Linear(width, 256), nn.ReLU(), nn.Dropout(dropout), nn.Linear(256, n_classes)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        tokens = (_encode(self.encoders, maps) + self.position).flatten(2)
        attended, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        logits: torch.Tensor = self.classifier(attended.mean(dim=1))
        return logits


class RoiGraph(nn.Module):
    """Attention over the regions, as over the nodes of a complete graph.

    One encoder a region; two residual multi-head attentions over the regions (256, 8 heads),
    each followed by layer norm; mean over regions, 256, 128, classes.

    Parameters
    ----------
    n_classes : int, default 4
    regions : int, default 3
    in_channels : int, default 3
    dropout : float, default 0.3

    Input: (B, regions, in_channels, H, W) float32, standardised per sample; of several windows
    (B, windows, regions, ...) the features are averaged. Output: logits (B, n_classes).
    """

    def __init__(
        self,
        n_classes: int = 4,
        *,
        regions: int = 3,
        in_channels: int = 3,
        dropout: float = _DROPOUT,
    ) -> None:
        super().__init__()
        self.encoders = _encoders(regions, in_channels, dropout)
        self.attentions = nn.ModuleList(
            nn.MultiheadAttention(_FEATURES, _HEADS, dropout=dropout, batch_first=True)
            for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(_FEATURES) for _ in range(2))
        self.classifier = nn.Sequential(
            nn.Linear(_FEATURES, 128), nn.ReLU(), nn.Dropout(dropout), nn.Linear(128, n_classes)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        windows = maps if maps.ndim == 6 else maps[:, None]
        nodes = _encode(self.encoders, windows).mean(dim=1)
        for attention, norm in zip(self.attentions, self.norms, strict=True):
            attended, _ = attention(nodes, nodes, nodes, need_weights=False)
            nodes = norm(nodes + attended)
        logits: torch.Tensor = self.classifier(nodes.mean(dim=1))
        return logits


class RoiHybrid(nn.Module):
    """`RoiTemporal` and `RoiGraph` together, with learned weights of regions and of the two.

    Each region's maps are weighted by a softmax over regions, for both branches; the logits of
    both are weighted by sigmoids and joined by one linear layer.

    Parameters
    ----------
    n_classes : int, default 4
    windows : int, default 4
    regions : int, default 3
    in_channels : int, default 3
    dropout : float, default 0.3

    Input: (B, windows, regions, in_channels, H, W) float32, standardised per sample; and
    optionally another (B, regions, in_channels, H, W) for the graph branch, which otherwise
    sees the same maps. Output: logits (B, n_classes).
    """

    def __init__(
        self,
        n_classes: int = 4,
        *,
        windows: int = 4,
        regions: int = 3,
        in_channels: int = 3,
        dropout: float = _DROPOUT,
    ) -> None:
        super().__init__()
        self.temporal = RoiTemporal(
            n_classes, windows=windows, regions=regions, in_channels=in_channels, dropout=dropout
        )
        self.graph = RoiGraph(n_classes, regions=regions, in_channels=in_channels, dropout=dropout)
        self.region_weights = nn.Parameter(torch.zeros(regions))
        self.branch_weights = nn.Parameter(torch.zeros(2))
        self.classifier = nn.Linear(2 * n_classes, n_classes)

    def forward(self, maps: torch.Tensor, graph: torch.Tensor | None = None) -> torch.Tensor:
        weights = torch.softmax(self.region_weights, 0)[:, None, None, None]
        temporal = self.temporal(maps * weights)
        related = self.graph((maps if graph is None else graph) * weights)
        ours, theirs = torch.sigmoid(self.branch_weights)
        logits: torch.Tensor = self.classifier(torch.cat([ours * temporal, theirs * related], 1))
        return logits


def _encoders(regions: int, in_channels: int, dropout: float) -> nn.ModuleList:
    return nn.ModuleList(
        RoiEncoder(in_channels=in_channels, dropout=dropout) for _ in range(regions)
    )


def _encode(encoders: nn.ModuleList, maps: torch.Tensor) -> torch.Tensor:
    """Encode (B, window, region, channel, H, W) to (B, window, region, 256)."""
    features = [
        encoder(maps[:, :, i].flatten(0, 1)).unflatten(0, maps.shape[:2])
        for i, encoder in enumerate(encoders)
    ]
    return torch.stack(features, dim=2)
