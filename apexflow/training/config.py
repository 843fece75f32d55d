"""Everything that changes a training result, as frozen data; and what each model starts from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from apexflow.errors import ApexflowError

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "folds": ("subject", "dataset"),
    "loss": ("cross-entropy", "focal"),
    "schedule": ("constant", "cosine"),
    "normalize": ("none", "half", "channel", "sample"),
    "balance": ("none", "weights", "oversample"),
    "augment": ("none", "frames", "flow"),
    "choose": ("checkpoint", "epochs"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How a model is trained and tested, the same in every fold.

    Attributes
    ----------
    model : str
        A key of `PRESETS`.
    protocol : str or None
        Name or TOML file of the protocol that gives the classes; None takes the labels that
        the store holds.
    sample : dict
        What a sample holds: arguments of `ClipDataset`, such as {"maps": "hsv"}. Empty takes
        what the model is made for, as far as the store has it.
    folds : "subject" or "dataset"
        What is left out in each fold.
    epochs, batch_size : int
    lr, weight_decay : float
        Of Adam.
    loss : "cross-entropy" or "focal"
        Focal with gamma 2 (doi:10.1109/ICCV.2017.324).
    schedule : "constant" or "cosine"
        Of the learning rate, to zero over all epochs.
    clip_norm : float
        Largest norm of the gradient; infinity leaves it.
    normalize : str
        "half" to mean and deviation 0.5, "sample" each sample by its own mean and deviation,
        "channel" by those of each channel over the clips that are learned from, "none".
    balance : str
        "weights" of classes in the loss, or "oversample" of clips of rarer classes, by the clips
        that are learned from; "none".
    augment : str
        Of clips that are learned from: "frames" flips whole clips, and changes brightness and
        contrast by up to a tenth; "flow" flips stored flow, with the sign of its horizontal
        component. "none".
    validation : float
        Part of the training clips, whole subjects, that chooses the epoch.
    choose : "checkpoint" or "epochs"
        Test the network of the best epoch, or train again on all training clips for as many
        epochs.
    patience : int
        Epochs without a better one, after which a fold ends; 0 goes on to the last.
    seed : int
    weights : str or None
        A file of weights for the trunk of a ResNet.
    options : dict
        Further arguments of the model.
    """

    model: str
    protocol: str | None = None
    sample: Mapping[str, Any] = field(default_factory=dict)
    folds: str = "subject"
    epochs: int = 100
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.0
    loss: str = "cross-entropy"
    schedule: str = "constant"
    clip_norm: float = math.inf
    normalize: str = "none"
    balance: str = "none"
    augment: str = "none"
    validation: float = 0.2
    choose: str = "checkpoint"
    patience: int = 0
    seed: int = 0
    weights: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ApexflowError(
                    f"{name} must be one of {', '.join(allowed)}. Got {getattr(self, name)!r}."
                )
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ApexflowError(f"{name} must be 1 or more. Got {getattr(self, name)}.")
        for name in ("lr", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ApexflowError(f"{name} must be more than 0. Got {getattr(self, name)}.")

    @classmethod
    def of(cls, model: str, **changes: Any) -> TrainConfig:
        """Return the published settings of a model, with changes.

        Raises `ApexflowError` for an unknown model or setting.
        """
        if model not in PRESETS:
            raise ApexflowError(f"model must be one of {', '.join(PRESETS)}. Got {model!r}.")
        known = {f.name for f in fields(cls)}
        for name in changes:
            if name not in known:
                raise ApexflowError(f"a training has no setting {name!r}; it has {sorted(known)}")
        return replace(cls(model=model, **PRESETS[model].settings), **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = asdict(self)
        values["clip_norm"] = None if math.isinf(self.clip_norm) else self.clip_norm
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A model's class, its published settings and what it is fed.

    Attributes
    ----------
    network : str
        Its name in `apexflow.training.models`.
    settings : dict
        Settings of `TrainConfig`.
    samples : tuple of dict
        Arguments of `ClipDataset`, best first; the first that the store has is taken.
    options : dict
        Arguments of the network.
    """

    network: str
    samples: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)


_FLOW = {"flow": "onset-apex"}
# Its config file; 20 epochs without a better one, focal loss and clipping are its trainer's.
_ROI = {
    "epochs": 60,
    "lr": 1e-4,
    "loss": "focal",
    "schedule": "cosine",
    "clip_norm": 5.0,
    "normalize": "sample",
    "patience": 20,
}
_ROI_SAMPLES = (
    {"maps": "roi"},
    {"roi": "onset-mid-apex-mid-offset", "encode": "hsv", "size": (224, 224)},
    {"roi": ("onset-apex", "apex-offset"), "encode": "hsv", "size": (224, 224)},
    {"roi": "onset-apex", "encode": "hsv", "size": (224, 224)},
)
_RESNET = {"epochs": 50, "lr": 1e-4, "patience": 15, "normalize": "half"}
_SEQUENCE = {
    "epochs": 50,
    "batch_size": 8,
    "lr": 1e-3,
    "balance": "weights",
    "augment": "frames",
    "patience": 15,
}
_SEQUENCES = ({"frames": "interval", "max_frames": 60},)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "ststnet": Preset(
            network="STSTNet",
            # Its published training: Adam at 5e-5, 800 epochs of batches of 256.
            settings={"epochs": 800, "batch_size": 256, "lr": 5e-5},
            samples=({"maps": "uv-strain"}, {**_FLOW, "encode": "uv-strain"}),
        ),
        "flow-resnet": Preset(
            network="FlowResNet",
            settings=_RESNET,
            samples=({**_FLOW, "encode": "hsv", "size": (224, 224)}, {"maps": "hsv"}),
        ),
        "siamese-resnet": Preset(
            network="SiameseResNet", settings=_RESNET, samples=({"frames": ("onset", "apex")},)
        ),
        "rgb-resnet": Preset(
            network="RgbResNet", settings=_RESNET, samples=({"frames": ("apex",)},)
        ),
        "roi-temporal": Preset(network="RoiTemporal", settings=_ROI, samples=_ROI_SAMPLES),
        "roi-graph": Preset(network="RoiGraph", settings=_ROI, samples=_ROI_SAMPLES),
        "roi-hybrid": Preset(network="RoiHybrid", settings=_ROI, samples=_ROI_SAMPLES),
        "cnn-bilstm": Preset(network="CnnBiLstm", settings=_SEQUENCE, samples=_SEQUENCES),
        "cnn-bilstm-pooled": Preset(
            network="CnnBiLstm",
            settings=_SEQUENCE,
            samples=_SEQUENCES,
            options={"pooled": True},
        ),
    }
)
