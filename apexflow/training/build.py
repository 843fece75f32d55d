"""A configuration, made into a data set and a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from apexflow.errors import ApexflowError, NotStoredError
from apexflow.storage.dataset import MEMORY, ClipDataset
from apexflow.storage.target import Target
from apexflow.training import models
from apexflow.training.config import PRESETS, TrainConfig


def make_dataset(
    stores: Target | Sequence[Target], config: TrainConfig, *, memory: int = MEMORY
) -> ClipDataset:
    """Return the clips as the configuration says, or as the model is best fed.

    Raises `ApexflowError` when the stores have nothing that the model can be fed.
    """
    options = [config.sample] if config.sample else PRESETS[config.model].samples
    reasons = []
    for option in options:
        try:
            return ClipDataset(stores, labels=config.protocol, memory=memory, **option)
        except NotStoredError as error:
            reasons.append(str(error))
    raise ApexflowError(f"nothing in the store to feed {config.model}: {'; '.join(reasons)}")


def make_network(config: TrainConfig, sample: torch.Tensor, n_classes: int) -> nn.Module:
    """Return a fresh network for samples of that shape.

    Raises `ApexflowError` when the network cannot take them.
    """
    preset = PRESETS[config.model]
    options = {**_fitting(preset.network, sample), **preset.options, **config.options}
    if preset.network.endswith("ResNet"):
        options["weights"] = config.weights
    network: nn.Module = getattr(models, preset.network)(n_classes, **options)
    try:
        # In the mode of use, which leaves no trace in batch norm.
        with torch.no_grad():
            network.eval()(sample[None])
    except (RuntimeError, ValueError, IndexError) as error:
        raise ApexflowError(
            f"{config.model} cannot take samples of shape {tuple(sample.shape)} "
            f"({str(error).splitlines()[0]})"
        ) from None
    return network.train()


def _fitting(network: str, sample: torch.Tensor) -> dict[str, Any]:
    """Return the arguments of a network that follow from what a sample is."""
    channels = sample.shape[-3]
    if network == "STSTNet":
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
