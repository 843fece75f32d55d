"""Everything that changes a training result, as frozen data; and what each model starts from."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from apexflow.errors import ApexflowError
from apexflow.storage.labels import APEX, named_units
from apexflow.training.own import is_name, name_of

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "normalize": ("none", "half", "bytes", "channel", "feature", "sample"),
    "balance": ("none", "weights", "oversample"),
    "augment": ("none", "frames", "mirror"),
    "choose": ("last", "checkpoint", "epochs"),
}
# What `apexflow features` calls its methods.
FEATURES = ("lbp-top", "hog-top", "bi-woof", "hoof", "mdmo")
# What may be a name of ours, or the user's own: a callable or its "package.module:name".
_OWN: Mapping[str, tuple[str, ...]] = {
    "optimizer": ("adam", "adamw", "sgd"),
    "loss": ("cross-entropy", "focal", "absolute", "squared"),
    "schedule": ("constant", "cosine"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How a model is trained and tested, the same in every fold.

    What is the user's own (``model``, ``optimizer``, ``loss``, ``schedule``) is a callable, or
    its name as "package.module:name".

    Attributes
    ----------
    model : str or callable
        A key of `PRESETS`; or (n_classes, sample) to `torch.nn.Module`, ``sample`` being one
        sample's tensor; or (n_classes), where a second argument has a default. The module takes
        a batch (of sequences also their mask) and returns logits (n, n_classes). Or a class of
        scikit-learn's kind, with ``fit`` and ``predict``, which is made with the ``options``.
    labels : str or None
        What is learnt: the name or TOML file of the protocol that gives the classes; "emotion" or
        "objective", as the table has them; "au", the action units of CD6ME, or "au:1,2,12"; "apex",
        its position. None takes the labels that the store holds. `TrainConfig.of`, `train` and
        TOML files take the name ``protocol``, too.
    sample : dict
        What a sample holds: arguments of `ClipDataset`, such as {"maps": "hsv"}. Empty takes
        what the model is made for, as far as the store has it.
    folds : str or int
        What is left out in each fold: "subject" (LOSO), "dataset", one of so many groups of
        people, or what a CSV file says (`apexflow.training.folds.make_folds`).
    epochs, batch_size : int
    lr, weight_decay : float
    optimizer : str or callable
        "adam", "adamw", "sgd" (momentum 0.9); or (parameters, lr=…, weight_decay=…) to
        `torch.optim.Optimizer`, as the classes of `torch.optim` are.
    loss : str or callable
        Of classes, and of action units by a sigmoid each, "cross-entropy", the default, and
        "focal" with gamma 2 (doi:10.1109/ICCV.2017.324); of the apex "absolute", the default,
        and "squared"; or (outputs, labels) to a number.
    schedule : str or callable
        Of the learning rate: "constant", "cosine" to zero over all epochs; or
        (optimizer, epochs) to a scheduler of torch, which steps once an epoch.
    clip_norm : float
        Largest norm of the gradient; infinity leaves it.
    normalize : str
        "half" to mean and deviation 0.5, "bytes" to 0..255 what is stored as bytes, "sample"
        each sample by its own mean and deviation, "channel" by those of each channel over the
        clips that are learned from, "feature" by those of each number of a sample, "none".
    balance : str
        "weights" of classes, or of what is shown of each action unit, in the loss, or
        "oversample" of clips of rarer classes, by the clips that are learned from; "none".
    augment : str
        Of clips that are learned from: "frames" flips whole clips, and changes brightness and
        contrast by up to a tenth; "mirror" mirrors them as what they show is mirrored: u with its
        sign, the hue of an HSV map turned. "none".
    jitter : int
        Key frames: each epoch, each clip that is learned from is drawn with its onset and its apex
        moved by up to so many frames, its flow and maps made again from the store's frames.
    shuffle : bool
        Another order of the clips each epoch; False keeps the data set's.
    choose : str
        Which network is tested. "last": learn from all training clips, and test the network
        of the last epoch. "checkpoint": keep some people for inner validation, and test the
        network of the best epoch there. "epochs": find the best epoch so, then train again on
        all training clips for as many epochs.
    validation : float
        Part of the training clips, whole subjects, that chooses the epoch.
    patience : int
        Epochs without a better one on inner validation, after which a fold ends; 0 goes on to
        the last.
    report_leak : bool
        Also record what choosing each fold's epoch on the tested clips would have claimed.
    seed : int
    threads : int
        CPU threads that one fold computes with; another number rounds otherwise.
    weights : str or None
        A file of weights for the trunk of a ResNet.
    exclude : str or None
        A file of marks (`apexflow.marks`), as a report exports it: clips marked bad are left out.
    options : dict
        Further arguments of the model.
    """

    model: str | Callable[..., Any]
    labels: str | None = None
    sample: Mapping[str, Any] = field(default_factory=dict)
    folds: str | int = "subject"
    epochs: int = 100
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.0
    optimizer: str | Callable[..., Any] = "adam"
    loss: str | Callable[..., Any] = ""
    schedule: str | Callable[..., Any] = "constant"
    clip_norm: float = math.inf
    normalize: str = "none"
    balance: str = "none"
    augment: str = "none"
    jitter: int = 0
    shuffle: bool = True
    choose: str = "last"
    validation: float = 0.2
    patience: int = 0
    report_leak: bool = False
    seed: int = 0
    threads: int = 1
    weights: str | None = None
    exclude: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_types()
        if self.loss == "":
            object.__setattr__(self, "loss", _LOSS.get(str(self.labels), "cross-entropy"))
        for name, allowed in _CHOICES.items():
            _one_of(name, getattr(self, name), allowed)
        for name, allowed in _OWN.items():
            value = getattr(self, name)
            if not callable(value) and not is_name(value):
                _one_of(name, value, allowed, own=True)
        for name in ("epochs", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise ApexflowError(f"{name} must be 1 or more. Got {getattr(self, name)}.")
        for name in ("lr", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ApexflowError(f"{name} must be more than 0. Got {getattr(self, name)}.")
        for name in ("weight_decay", "patience", "jitter"):
            if not getattr(self, name) >= 0:
                raise ApexflowError(f"{name} must be 0 or more. Got {getattr(self, name)}.")
        if not 0 < self.validation < 1:
            raise ApexflowError(f"validation must lie between 0 and 1. Got {self.validation!r}.")
        if self.choose == "last" and self.patience:
            raise ApexflowError(
                "patience waits for inner validation, which choose 'last' does without: take "
                "choose 'checkpoint' or 'epochs', or patience 0"
            )
        self._check_balance()

    def _check_balance(self) -> None:
        several = named_units(self.labels) is not None
        if (self.balance == "oversample" and several) or (
            self.balance != "none" and self.labels == APEX
        ):
            raise ApexflowError(
                f"balance {self.balance!r} is of classes: labels {self.labels!r} take balance "
                f"{'weights or ' if several else ''}none"
            )
        if self.balance == "weights" and _own(self.loss):
            raise ApexflowError(
                "balance 'weights' weighs the losses of ours: let your own loss weigh classes, "
                "or take balance 'oversample'"
            )

    def _check_types(self) -> None:
        """Refuse what a TOML file or a caller may have written in another type."""
        for one in fields(self):
            value, kind = getattr(self, one.name), _TYPES.get(one.name)
            if kind is None:
                continue
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, one.name, float(value))
            elif not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise ApexflowError(f"{one.name} must be {_CALLED[kind]}. Got {value!r}.")

    @classmethod
    def of(cls, model: str | Callable[..., Any], **changes: Any) -> TrainConfig:
        """Return the published settings of a model, with changes; of an own model the defaults.

        Raises `ApexflowError` for an unknown model or setting.
        """
        changes = settings_of(changes)
        if callable(model) or is_name(model):
            return cls(model=model, **changes)
        if model not in PRESETS:
            raise ApexflowError(
                f"model must be one of {', '.join(PRESETS)}, or your own as package.module:name. "
                f"Got {model!r}."
            )
        settings = dict(PRESETS[model].settings)
        if changes.get("choose") == "last":
            settings.pop("patience", None)
        if changes.get("labels") == APEX:  # what is published is of classes
            settings.pop("loss", None)
            settings.pop("balance", None)
        return cls(model=model, **{**settings, **changes})

    @classmethod
    def from_toml(cls, path: str | Path, **changes: Any) -> TrainConfig:
        """Read settings from a TOML file, with changes; what it leaves out is the model's.

        Raises `ApexflowError` when the file cannot be read, names no model or an unknown
        setting, or a value is not allowed.
        """
        return cls.of(**{**read_toml(path), **changes})

    @property
    def preset(self) -> Preset | None:
        """What the model is published with; None of an own model."""
        return PRESETS.get(self.model) if isinstance(self.model, str) else None

    @property
    def model_name(self) -> str:
        """How tables call the model."""
        name = name_of(self.model)
        return name if ":" not in name else name.rpartition(":")[2]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; the user's own things by their names."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        for name in ("model", *_OWN):
            values[name] = name_of(values[name])
        for name in ("sample", "options"):
            values[name] = {key: _plain(value) for key, value in values[name].items()}
        values["clip_norm"] = None if math.isinf(self.clip_norm) else self.clip_norm
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Return what `to_dict` gave; what was given as a callable is its name now."""
        values = settings_of_today(values)
        found = {one.name: values[one.name] for one in fields(cls) if one.name in values}
        if found.get("clip_norm", 0) is None:
            found["clip_norm"] = math.inf
        return cls(**found)


def settings_of_today(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `TrainConfig.to_dict` of an earlier version gave as this one has it.

    A setting that did not exist then has its default, which does what was done without it.
    """
    found = dict(written)
    if "protocol" in found:
        found["labels"] = found.pop("protocol")
    defaults = TrainConfig(model="").to_dict()
    del defaults["model"]
    return {**defaults, **found}


def settings_of(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by their names: ``protocol`` is ``labels``.

    Raises `ApexflowError` for one that a training does not have, or labels said twice.
    """
    found = dict(changes)
    if "protocol" in found:
        if found.get("labels") is not None and found["protocol"] is not None:
            raise ApexflowError("labels and protocol are one setting: say it once")
        found["labels"] = found.pop("protocol") or found.get("labels")
    known = sorted(one.name for one in fields(TrainConfig))
    for name in found:
        if name not in known:
            raise ApexflowError(f"a training has no setting {name!r}; it has {known}")
    return found


def read_toml(path: str | Path) -> dict[str, Any]:
    """Return the settings of a TOML file as a dict; `ApexflowError` when it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            values = tomllib.load(file)
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ApexflowError(f"{path}: cannot be read as settings ({reason})") from None
    if "model" not in values:
        raise ApexflowError(f'{path}: names no model; write model = "ststnet" or another')
    return values


_LOSS: Mapping[str, str] = {APEX: "absolute"}
_TYPES: Mapping[str, type] = {
    "epochs": int,
    "batch_size": int,
    "lr": float,
    "weight_decay": float,
    "clip_norm": float,
    "shuffle": bool,
    "validation": float,
    "patience": int,
    "jitter": int,
    "report_leak": bool,
    "seed": int,
    "threads": int,
    "sample": Mapping,
    "options": Mapping,
}
_CALLED = {int: "a whole number", float: "a number", bool: "true or false", Mapping: "a table"}


def _one_of(name: str, value: Any, allowed: tuple[str, ...], *, own: bool = False) -> None:
    if value not in allowed:
        more = "; your own is named package.module:name" if own else ""
        raise ApexflowError(f"{name} must be one of {', '.join(allowed)}. Got {value!r}{more}.")


def _own(value: Any) -> bool:
    return callable(value) or is_name(value)


def _plain(value: Any) -> Any:
    if callable(value):
        return name_of(value)
    return list(value) if isinstance(value, tuple) else value


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
    "choose": "checkpoint",
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
_RESNET = {
    "choose": "checkpoint",
    "epochs": 50,
    "lr": 1e-4,
    "patience": 15,
    "normalize": "half",
}
_SEQUENCE = {
    "choose": "checkpoint",
    "epochs": 50,
    "batch_size": 8,
    "lr": 1e-3,
    "balance": "weights",
    "augment": "frames",
    "patience": 15,
}
# Settings of ours, one for all three: what learns in the time that a person waits.
_FLOW_MAPS = {"epochs": 100, "batch_size": 64, "lr": 1e-4, "normalize": "channel"}
_UV_STRAIN = ({"maps": "uv-strain"}, {**_FLOW, "encode": "uv-strain"})
_SEQUENCES = ({"frames": "interval", "max_frames": 60},)
# Whichever of them a store of features holds.
_FEATURES = tuple({"features": name} for name in FEATURES)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "ststnet": Preset(
            network="STSTNet",
            # Its published training: Adam at 5e-5, 800 epochs of batches of 256, maps as 0..255,
            # and the last network of all training clips.
            settings={"epochs": 800, "batch_size": 256, "lr": 5e-5, "normalize": "bytes"},
            # "maps": as `import_maps` calls what somebody else has made.
            samples=({"maps": "uv-strain"}, {**_FLOW, "encode": "uv-strain"}, {"maps": "maps"}),
        ),
        "off-apexnet": Preset(network="OffApexNet", settings=_FLOW_MAPS, samples=_UV_STRAIN),
        "dual-inception": Preset(network="DualInception", settings=_FLOW_MAPS, samples=_UV_STRAIN),
        "sssnet": Preset(
            network="SSSNet",
            settings=_FLOW_MAPS,
            samples=({**_FLOW, "encode": "uv-strain", "size": (64, 64)},),
        ),
        "rcn": Preset(
            network="RCN",
            settings=_FLOW_MAPS,
            samples=({**_FLOW, "encode": "uv-strain", "size": (60, 60)}, {"maps": "uv-strain"}),
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
        **{
            name: Preset(
                network="LinearClassifier", settings={"normalize": "feature"}, samples=_FEATURES
            )
            for name in ("svm", "logistic")
        },
    }
)
