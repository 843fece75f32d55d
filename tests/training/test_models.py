from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

import apexflow as af
from apexflow.errors import ApexflowError

models = af.training.models


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_ststnet_has_the_published_parameters_in_the_published_order() -> None:
    shapes = [(name, tuple(p.shape)) for name, p in models.STSTNet().named_parameters()]
    assert shapes == [
        ("conv1.weight", (3, 3, 3, 3)),
        ("conv1.bias", (3,)),
        ("conv2.weight", (5, 3, 3, 3)),
        ("conv2.bias", (5,)),
        ("conv3.weight", (8, 3, 3, 3)),
        ("conv3.bias", (8,)),
        *(
            (f"bn{i}.{kind}", (n,))
            for i, n in ((1, 3), (2, 5), (3, 8))
            for kind in ("weight", "bias")
        ),
        ("fc.weight", (3, 400)),
        ("fc.bias", (3,)),
    ]


def test_ststnet_is_its_definition() -> None:
    torch.manual_seed(0)
    model = models.STSTNet().eval()
    for norm in (model.bn1, model.bn2, model.bn3):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.rand(4, 3, 28, 28)
    streams = []
    for conv, norm in (
        (model.conv1, model.bn1),
        (model.conv2, model.bn2),
        (model.conv3, model.bn3),
    ):
        y = torch.relu(nn.functional.conv2d(x, conv.weight, conv.bias, padding=2))
        y = nn.functional.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        streams.append(nn.functional.max_pool2d(y, 3, 3, 1))
    flat = nn.functional.avg_pool2d(torch.cat(streams, 1), 2).reshape(4, -1)
    torch.testing.assert_close(model(x), flat @ model.fc.weight.T + model.fc.bias)


# (model, input, parameters): the counts follow from the published layers.
CASES = {
    "flow-resnet": (models.FlowResNet, (2, 3, 64, 64), 11_176_512 + 131_328 + 32_896 + 8_256 + 260),
    "siamese": (
        models.SiameseResNet,
        (2, 2, 1, 64, 64),
        11_176_512 + 131_328 + 32_896 + 8_256 + 260,
    ),
    "rgb": (models.RgbResNet, (2, 1, 1, 64, 64), 11_176_512 + 4 * 513),
    "roi-temporal": (models.RoiTemporal, (2, 4, 3, 3, 32, 32), None),
    "roi-graph": (models.RoiGraph, (2, 4, 3, 3, 32, 32), None),
    "roi-graph, no windows": (models.RoiGraph, (2, 3, 3, 32, 32), None),
    "roi-hybrid": (models.RoiHybrid, (2, 4, 3, 3, 32, 32), None),
}


@pytest.mark.parametrize("case", CASES)
def test_shapes_and_sizes(case: str) -> None:
    make, shape, count = CASES[case]
    model = make(4)
    assert model(torch.rand(shape)).shape == (2, 4)
    if count is not None:
        assert parameters(model) == count


def test_roi_encoder_is_four_convolutions_and_a_linear_layer() -> None:
    encoder = models.RoiEncoder()
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.stride) for c in convolutions] == [
        (3, 32, (2, 2)),
        (32, 64, (2, 2)),
        (64, 128, (2, 2)),
        (128, 256, (2, 2)),
    ]
    assert encoder(torch.rand(2, 3, 224, 224)).shape == (2, 256)


def test_regions_have_encoders_of_their_own() -> None:
    model = models.RoiTemporal(4, windows=2).eval()
    nn.init.normal_(model.position)
    maps = torch.randn(1, 2, 3, 3, 32, 32) * 10
    assert not torch.allclose(model(maps), model(maps.flip(2)))
    assert not torch.allclose(model(maps), model(maps.flip(1)))


def test_siamese_sees_the_difference_of_its_frames() -> None:
    model = models.SiameseResNet(4).eval()
    frame = torch.rand(1, 1, 1, 64, 64)
    still = model(frame.expand(1, 2, 1, 64, 64))
    other = torch.rand(1, 1, 1, 64, 64)
    torch.testing.assert_close(still, model(other.expand(1, 2, 1, 64, 64)))


def test_the_full_cnn_bilstm_has_95_million_parameters() -> None:
    with torch.device("meta"):
        full, pooled = models.CnnBiLstm(), models.CnnBiLstm(pooled=True)
    assert round(parameters(full) / 1e6, 1) == 95.6
    assert parameters(pooled) < 600_000


@pytest.mark.parametrize("pooled", [False, True])
def test_padding_does_not_change_what_the_bilstm_says(pooled: bool) -> None:
    model = models.CnnBiLstm(3, size=(24, 24), pooled=pooled).eval()
    frames = torch.rand(2, 6, 1, 24, 24)
    mask = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    alone = model(frames[:1, :4])
    torch.testing.assert_close(model(frames, mask)[:1], alone)
    frames[0, 4:] = 0
    torch.testing.assert_close(model(frames, mask)[:1], alone)


@pytest.mark.parametrize("pooled", [False, True])
def test_frames_are_convolved_a_few_at_a_time_with_the_gradient_of_all(pooled: bool) -> None:
    torch.manual_seed(0)
    model = models.CnnBiLstm(3, size=(24, 24), pooled=pooled, dropout=0.0)
    frames = torch.rand(2, 9, 1, 24, 24)
    _, (last, _) = model.lstm(model.frame(frames.flatten(0, 1)).unflatten(0, (2, 9)))
    expected = model.classifier(torch.cat([last[0], last[1]], 1))
    wanted = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
    at_once: list[int] = []
    model.frame.register_forward_pre_hook(lambda _, given: at_once.append(len(given[0])))
    found = model(frames)
    made = torch.autograd.grad(found.square().sum(), list(model.parameters()))
    torch.testing.assert_close(found, expected)
    for one, other in zip(made, wanted, strict=True):
        torch.testing.assert_close(one, other)
    # Of 18 frames, there and again for the gradient.
    assert max(at_once) <= 4
    assert sum(at_once) == 36


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(1)
    published = resnet18(weights=None)
    torch.save(published.state_dict(), tmp_path / "resnet18.pt")
    model = models.FlowResNet(4, weights=tmp_path / "resnet18.pt")
    torch.testing.assert_close(model.trunk.conv1.weight, published.conv1.weight)
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pt")
    for name in ("other.pt", "missing.pt"):
        with pytest.raises(ApexflowError, match="no state dict of torchvision's resnet18"):
            models.SiameseResNet(4, weights=tmp_path / name)


# (model, input, parameters): counted by hand from the layers; the first two are published as
# 2.66 M and 6.45 M by others.
FLOW_MODELS = {
    "off-apexnet": (
        models.OffApexNet,
        (2, 2, 28, 28),
        2 * (6 * 25 + 6 + 16 * 6 * 25 + 16) + 1568 * 1024 + 1024 + 1024 * 1025 + 1024 * 3 + 3,
    ),
    "dual-inception": (models.DualInception, (2, 2, 28, 28), 6_449_867),
    "sssnet": (models.SSSNet, (2, 3, 64, 64), 2_432 + 64 + 18_496 + 128 + 5_184 * 256 + 256 + 771),
    "rcn": (
        models.RCN,
        (2, 3, 60, 60),
        (75 + 3) * 64 + (64 + 3) * 64 + (9 * 64 + 3) * 64 + 25 * 64 * 3 + 3,
    ),
}


@pytest.mark.parametrize(("make", "shape", "count"), FLOW_MODELS.values(), ids=list(FLOW_MODELS))
def test_flow_models_have_the_published_shape(
    make: type[nn.Module], shape: tuple[int, ...], count: int
) -> None:
    model = make(3)
    assert parameters(model) == count
    assert model(torch.rand(shape)).shape == (2, 3)
    assert make(7).eval()(torch.rand(shape)).shape == (2, 7)


@pytest.mark.parametrize("make", [models.OffApexNet, models.DualInception])
def test_streams_see_their_own_component(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = make(3).eval()
    maps = torch.rand(1, 3, 28, 28)
    other_strain = torch.cat([maps[:, :2], torch.rand(1, 1, 28, 28)], 1)
    torch.testing.assert_close(model(maps), model(other_strain))
    assert not torch.allclose(model(maps), model(maps[:, [1, 0, 2]]))


def test_the_attention_of_rcn_is_its_definition() -> None:
    torch.manual_seed(0)
    model = models.RCN(3, filters=4).eval()
    features = torch.rand(2, 4, 5, 5)
    found = model._attended(features)
    for clip in range(2):
        total = torch.zeros(5, 5)
        for weights in model.classifier.weight.reshape(3, 4, 5, 5):
            activation = (weights * features[clip]).mean(0)
            total += (activation - activation.min()) / (activation.max() - activation.min())
        torch.testing.assert_close(found[clip, 0], total / 3)
    assert parameters(models.RCN(attention=False)) == parameters(models.RCN())
    assert torch.isfinite(model(torch.zeros(1, 3, 60, 60))).all()
