"""STSTNet's compiled streams against the layers, which are their specification."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from apexflow.training.models.ststnet import ByteDropout, STSTNet


def maps(n: int, *, channels: int = 3, seed: int = 0) -> torch.Tensor:
    """Whole numbers 0..255, half of each map flat, so that the pool has ties to break."""
    values = torch.randint(
        0, 256, (n, channels, 28, 28), generator=torch.Generator().manual_seed(seed)
    ).float()
    values[..., :14, :] = 128
    return values


def by_layers(network: STSTNet) -> STSTNet:
    plain = copy.deepcopy(network)
    plain._can_compile = lambda _: False
    return plain


def step(network: STSTNet, inputs: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(7)
    network.zero_grad()
    logits = network(inputs)
    targets = torch.arange(len(inputs)) % logits.shape[1]
    nn.functional.cross_entropy(logits, targets).backward()
    return logits.detach()


@pytest.mark.parametrize(("n", "channels", "scale"), [(2, 3, 1), (17, 3, 1 / 255), (9, 2, 1)])
def test_values_gradients_and_statistics_are_those_of_the_layers(
    n: int, channels: int, scale: float
) -> None:
    torch.manual_seed(n)
    fast = STSTNet(3, in_channels=channels)
    exact = by_layers(fast).double()
    inputs = maps(n, channels=channels) * scale
    assert fast._can_compile(inputs)
    np.testing.assert_allclose(
        step(fast, inputs).double(), step(exact, inputs.double()), rtol=0, atol=1e-5
    )
    for (name, found), wanted in zip(fast.named_parameters(), exact.parameters(), strict=True):
        largest = float(wanted.grad.abs().max())
        assert float((found.grad - wanted.grad).abs().max()) <= 2e-5 * largest, name
    for (name, found), wanted in zip(fast.named_buffers(), exact.buffers(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-6, err_msg=name)


def test_a_training_ends_where_the_layers_end_in_double_precision() -> None:
    torch.manual_seed(0)
    networks = [STSTNet()]
    networks += [by_layers(networks[0]), by_layers(networks[0]).double()]
    inputs, targets = maps(8), torch.arange(8) % 3
    ends = []
    for network in networks:
        optimizer = torch.optim.Adam(network.parameters(), lr=5e-5)
        torch.manual_seed(1)
        given = inputs.to(network.fc.weight.dtype)
        for _ in range(12):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network.train()(given), targets)
            loss.backward()
            optimizer.step()
        ends.append(network.eval()(given).detach().double())
    fast, layers, exact = ends
    # No further from the truth than the layers in single precision, with room for luck.
    assert (fast - exact).abs().max() <= max(2 * (layers - exact).abs().max(), 1e-5)


def test_nearly_constant_maps_keep_their_variance() -> None:
    """A large mean with a small spread: sums of squares alone would lose it."""
    torch.manual_seed(3)
    fast = STSTNet(dropout=0.0)
    exact = by_layers(fast).double()
    inputs = 200 + torch.rand(8, 3, 28, 28) * 0.05
    np.testing.assert_allclose(
        step(fast, inputs), step(exact, inputs.double()).float(), rtol=0, atol=2e-4
    )
    np.testing.assert_allclose(fast.bn3.running_var, exact.bn3.running_var, rtol=1e-4)


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_a_norm_that_is_not_rising_takes_the_layers(weight: float) -> None:
    torch.manual_seed(0)
    network = STSTNet()
    with torch.no_grad():
        network.bn2.weight[1] = weight
    inputs = maps(6)
    assert not network._can_compile(inputs)
    np.testing.assert_array_equal(step(network, inputs), step(by_layers(network), inputs))


def test_prediction_and_gradients_of_maps_take_the_layers() -> None:
    network = STSTNet()
    assert not network.eval()._can_compile(maps(2))
    assert not network.train()._can_compile(maps(2).requires_grad_())
    assert not network.train()._can_compile(maps(2).double())


def test_parameters_are_in_the_published_order() -> None:
    names = [name for name, _ in STSTNet().named_parameters()]
    layers = ["conv1", "conv2", "conv3", "bn1", "bn2", "bn3", "fc"]
    assert names == [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    assert sum(p.numel() for p in STSTNet().parameters()) == 1683


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_drops_its_part_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    values = torch.ones(400, 250)
    dropped = ByteDropout(p)(values)
    share = round(p * 256) / 256
    assert float((dropped == 0).float().mean()) == pytest.approx(share, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.01)
    assert float(dropped.max()) == pytest.approx(1 / (1 - share))
    assert torch.equal(ByteDropout(p).eval()(values), values)
