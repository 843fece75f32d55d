"""A configuration, made into a data set, a network, an optimiser, a loss and a schedule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from apexflow.errors import ApexflowError, NotStoredError
from apexflow.storage.dataset import MEMORY, ClipDataset
from apexflow.storage.labels import APEX
from apexflow.storage.target import Target
from apexflow.training import models, own
from apexflow.training.config import TrainConfig
from apexflow.training.estimators import EstimatorNetwork, is_estimator
from apexflow.training.learning import Learning, Loss

# Frames of a clip from which the apex is to be found, where nothing else is said: half as many
# as the sequence models take of a clip, at most 3% of it from one to the next.
_APEX_FRAMES = 32

_NO_FEATURES = (
    "no features are in every store; make them, as by `apexflow features STORE --method lbp-top "
    "-o lbp.zarr`, or say --maps, --flow or --roi"
)


def make_dataset(
    stores: Target | Sequence[Target], config: TrainConfig, *, memory: int = MEMORY
) -> ClipDataset:
    """Return the clips as the configuration says, or as the model is best fed.

    Raises `ApexflowError` when the stores have nothing that the model can be fed.
    """
    preset = config.preset
    kept: dict[str, Any] = {"labels": config.labels, "exclude": config.exclude, "memory": memory}
    if not config.sample and preset is None:
        raise ApexflowError(
            f"say what {config.model_name} is fed: --maps, --flow, --roi, --frames or --features, "
            "or a ClipDataset"
        )
    options = [config.sample] if config.sample or preset is None else preset.samples
    if config.labels == APEX and not config.sample:
        options = _without_cut(options)
    reasons = []
    for option in options:
        try:
            return ClipDataset(stores, **{**kept, **option})
        except NotStoredError as error:
            reasons.append(str(error))
    if len(options) > 1 and all("features" in option for option in options):
        reasons = [_NO_FEATURES]
    raise ApexflowError(f"nothing in the store to feed {config.model_name}: {'; '.join(reasons)}")


def _without_cut(options: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return samples that show clips to their end: as many frames, spread and not cut."""
    return [
        {**{name: v for name, v in one.items() if name != "max_frames"}, "n_frames": _APEX_FRAMES}
        if one.get("frames") == "interval"
        else one
        for one in options
    ]


def make_network(
    config: TrainConfig,
    sample: torch.Tensor,
    n_classes: int,
    *,
    model: Any = None,
    trunk: bool = True,
) -> nn.Module:
    """Return a fresh network for samples of that shape.

    Parameters
    ----------
    config : TrainConfig
    sample : tensor
    n_classes : int
    model : callable, optional
        In the place of the configuration's, where that is a name nobody can find.
    trunk : bool
        Whether a ResNet starts from the file of weights.

    Raises
    ------
    ApexflowError
        The network cannot be made, or cannot take such samples.
    """
    preset = config.preset
    if model is None and preset is not None:
        given = {} if is_estimator(config) else config.options
        options = {**_fitting(preset.network, sample), **preset.options, **given}
        if preset.network.endswith("ResNet"):
            options["weights"] = config.weights if trunk else None
        network: nn.Module = _preset_network(config, preset.network, n_classes, options)
    elif is_estimator(config):
        network = EstimatorNetwork(n_classes)
    else:
        network = _own_network(config, config.model if model is None else model, sample, n_classes)
    try:
        # In the mode of use, which leaves no trace in batch norm.
        with torch.no_grad():
            logits = network.eval()(sample[None])
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise ApexflowError(
            f"{config.model_name} cannot take samples of shape {tuple(sample.shape)} "
            f"({_first_line(error)})"
        ) from None
    if not isinstance(logits, torch.Tensor) or logits.shape != (1, n_classes):
        found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ApexflowError(
            f"{config.model_name} must give logits (batch, {n_classes}), one a class. Got {found} "
            "for a batch of one."
        )
    return network.train()


def make_optimizer(
    config: TrainConfig, parameters: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """Return the optimiser of the configuration; `ApexflowError` when it cannot be made."""
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    # Fused: 4x faster than the default on a CPU, where a ResNet's step is half of the time.
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, fused=True, **options)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **options)
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=0.9, fused=True, **options)
    made: torch.optim.Optimizer = _made(
        config.optimizer, torch.optim.Optimizer, parameters, **options
    )
    return made


def make_schedule(config: TrainConfig, optimizer: torch.optim.Optimizer) -> Any:
    """Return the schedule of the learning rate, stepped once an epoch."""
    if config.schedule == "constant":
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda epoch: 0.5 * (1 + float(np.cos(np.pi * epoch / config.epochs)))
        )
    return _made(config.schedule, torch.optim.lr_scheduler.LRScheduler, optimizer, config.epochs)


def make_loss(
    config: TrainConfig, learning: Learning, weights: torch.Tensor | None, n_classes: int
) -> Loss:
    """Return the loss, (outputs, labels) to a mean over the batch, classes weighed or not.

    Raises `ApexflowError` when there is no such loss of these labels, or the user's own cannot be
    made, or gives no number.
    """
    if not callable(config.loss) and not own.is_name(config.loss):
        if config.loss not in learning.losses:
            raise ApexflowError(
                f"loss of labels {config.labels!r} must be one of {', '.join(learning.losses)}, or "
                f"your own as package.module:name. Got {config.loss!r}."
            )
        return learning.loss(config.loss, weights)
    found = own.find(config.loss)
    # A class, as those of torch.nn are, is made; a function is taken as it is.
    loss: Loss = _made(found, object) if isinstance(found, type) else found
    outputs = torch.zeros(2, n_classes, requires_grad=True)
    value = _made(loss, torch.Tensor, outputs, learning.example(n_classes))
    if value.ndim or value.grad_fn is None:
        raise ApexflowError(
            f"{own.name_of(config.loss)} must return one number that depends on the logits. Got a "
            f"tensor of shape {tuple(value.shape)}."
        )
    return loss


def _preset_network(
    config: TrainConfig, name: str, n_classes: int, options: dict[str, Any]
) -> nn.Module:
    network: Callable[..., nn.Module] = getattr(models, name)
    try:
        inspect.signature(network).bind(n_classes, **options)
    except TypeError as error:
        raise ApexflowError(f"options of {config.model_name}: {error}") from None
    return network(n_classes, **options)


def _own_network(
    config: TrainConfig, model: Any, sample: torch.Tensor, n_classes: int
) -> nn.Module:
    if config.weights is not None:
        raise ApexflowError(f"weights are a ResNet's: {config.model_name} loads its own")
    arguments = (n_classes, sample) if _takes_sample(own.find(model)) else (n_classes,)
    network: nn.Module = _made(model, nn.Module, *arguments, **config.options)
    return network


def _takes_sample(model: Callable[..., Any]) -> bool:
    """Whether a second argument is a sample: one without a default, or of that name."""
    try:
        parameters = list(inspect.signature(model).parameters.values())
    except (TypeError, ValueError):  # written in C
        return True
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return True
    places = [
        one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    return len(places) > 1 and (places[1].default is places[1].empty or places[1].name == "sample")


def _made(what: Any, kind: type, *arguments: Any, **options: Any) -> Any:
    """Call what the user brought; `ApexflowError` in one line when that fails."""
    name = own.name_of(what)
    try:
        made = own.find(what)(*arguments, **options)
    except ApexflowError:
        raise
    except Exception as error:  # whatever the user's own code raises
        where = f"{type(error).__name__}: {_first_line(error)}"
        raise ApexflowError(f"{name} cannot be made ({where})") from error
    if not isinstance(made, kind):
        raise ApexflowError(
            f"{name} must return a {kind.__module__}.{kind.__qualname__}. "
            f"Got {type(made).__name__}."
        )
    return made


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _fitting(network: str, sample: torch.Tensor) -> dict[str, Any]:
    """Return the arguments of a network that follow from what a sample is."""
    if network == "LinearClassifier":
        return {"in_features": sample.numel()}
    channels = sample.shape[-3]
    if network in ("STSTNet", "SSSNet", "RCN"):
        return {"in_channels": channels}
    if network == "CnnBiLstm":
        return {"in_channels": channels, "size": tuple(sample.shape[-2:])}
    if not network.startswith("Roi"):
        return {}
    if sample.ndim != 5:
        raise ApexflowError(
            "a model of regions takes samples (window, roi, channel, H, W). "
            f"Got {tuple(sample.shape)}."
        )
    options = {"regions": sample.shape[1], "in_channels": channels}
    return options if network == "RoiGraph" else {**options, "windows": sample.shape[0]}
