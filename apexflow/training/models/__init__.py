"""The networks: one file a family. Each takes what a `ClipDataset` gives and returns logits.

=================  ==========================================================
STSTNet            maps (B, 3, 28, 28)
OffApexNet         maps (B, 2 or more, 28, 28): horizontal and vertical flow
DualInception      maps (B, 2 or more, 28, 28): horizontal and vertical flow
SSSNet             maps (B, 3, 64, 64)
RCN                maps (B, 3, H, W)
FlowResNet         maps (B, 3, H, W)
RgbResNet          the apex frame (B, 1, channel, H, W)
SiameseResNet      onset and apex frames (B, 2, channel, H, W)
RoiEncoder         maps of one region (B, 3, H, W), to features
RoiTemporal        maps (B, window, roi, 3, H, W)
RoiGraph           maps (B, window, roi, 3, H, W)
RoiHybrid          maps (B, window, roi, 3, H, W)
CnnBiLstm          frames (B, time, 1, H, W) and their mask (B, time)
LinearClassifier   features (B, feature), or anything else, all values in a row
=================  ==========================================================

torchvision loads only where a network is built on it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_NAMES = {
    "CnnBiLstm": "cnn_bilstm",
    "DualInception": "dual_inception",
    "FlowResNet": "resnet",
    "LinearClassifier": "linear",
    "OffApexNet": "off_apexnet",
    "RCN": "rcn",
    "RgbResNet": "resnet",
    "RoiEncoder": "roi",
    "RoiGraph": "roi",
    "RoiHybrid": "roi",
    "RoiTemporal": "roi",
    "SSSNet": "sssnet",
    "STSTNet": "ststnet",
    "SiameseResNet": "resnet",
}

if TYPE_CHECKING:
    from apexflow.training.models.cnn_bilstm import CnnBiLstm
    from apexflow.training.models.dual_inception import DualInception
    from apexflow.training.models.linear import LinearClassifier
    from apexflow.training.models.off_apexnet import OffApexNet
    from apexflow.training.models.rcn import RCN
    from apexflow.training.models.resnet import FlowResNet, RgbResNet, SiameseResNet
    from apexflow.training.models.roi import RoiEncoder, RoiGraph, RoiHybrid, RoiTemporal
    from apexflow.training.models.sssnet import SSSNet
    from apexflow.training.models.ststnet import STSTNet

__all__ = [
    "RCN",
    "CnnBiLstm",
    "DualInception",
    "FlowResNet",
    "LinearClassifier",
    "OffApexNet",
    "RgbResNet",
    "RoiEncoder",
    "RoiGraph",
    "RoiHybrid",
    "RoiTemporal",
    "SSSNet",
    "STSTNet",
    "SiameseResNet",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"apexflow.training.models.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'apexflow.training.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_NAMES)
