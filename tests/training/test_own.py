"""What people bring of their own: models, losses, optimisers, schedules, loops."""

import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import apexflow as af
from apexflow.errors import ApexflowError
from apexflow.training import own
from apexflow.training.build import make_loss, make_network, make_optimizer, make_schedule
from apexflow.training.checkpoint import Checkpoint
from apexflow.training.config import TrainConfig
from apexflow.training.learning import learning_of
from tests.training.folders import checkpoints


class Linear(nn.Module):
    def __init__(self, n_classes: int, sample: torch.Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.Linear(sample.numel(), n_classes)
        self.scale = scale

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.layer(values.flatten(1) * self.scale)


class ByClasses(nn.Module):
    """Its second argument is no sample: it has a default."""

    def __init__(self, n_classes: int, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, n_classes)
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.layers(values)


def smooth(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(logits, targets, label_smoothing=0.1)


def halves(optimizer: torch.optim.Optimizer, epochs: int) -> Any:
    return torch.optim.lr_scheduler.StepLR(optimizer, max(1, epochs // 2), 0.5)


def two_logits(n_classes: int, sample: torch.Tensor) -> nn.Module:
    return Linear(n_classes + 1, sample)


def no_module(n_classes: int, sample: torch.Tensor) -> Any:
    return "a network"


@pytest.fixture(scope="module")
def dataset() -> af.ClipDataset:
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 12)
    values = rng.normal(size=(24, 6, 6, 2))
    values[np.arange(24), labels * 3, 2] += 6
    return af.ClipDataset.from_arrays(
        values, labels.tolist(), subjects=[f"{i // 4}" for i in range(24)]
    )


def trained(dataset: Any, output: Path, model: Any = Linear, **changes: Any) -> Any:
    settings = {"epochs": 12, "lr": 0.05, "folds": 3, "progress": False, "device": "cpu"}
    return af.train(dataset, output, model=model, **{**settings, **changes})


def test_a_model_of_ones_own_learns(dataset: af.ClipDataset, tmp_path: Path) -> None:
    result = trained(dataset, tmp_path / "a", options={"scale": 0.5})
    assert result.scores.uar > 0.8
    assert result.model == "Linear"
    # By its name: the same files, and networks that are found again.
    name = f"{__name__}:Linear"
    assert own.name_of(Linear) == name
    again = trained(dataset, tmp_path / "b", model=name, options={"scale": 0.5})
    assert again.predictions == result.predictions
    kept = Checkpoint.read(checkpoints(tmp_path / "b")[0])
    assert kept.network().scale == 0.5


def test_optimiser_loss_and_schedule_of_ones_own(dataset: af.ClipDataset, tmp_path: Path) -> None:
    result = trained(
        dataset,
        tmp_path,
        optimizer=torch.optim.RMSprop,
        loss=smooth,
        schedule=f"{__name__}:halves",
        lr=0.01,
    )
    assert result.scores.uar > 0.8
    with pytest.raises(
        ApexflowError, match=r"results with loss .*smooth', now it is 'cross-entropy"
    ):
        trained(dataset, tmp_path, optimizer=torch.optim.RMSprop, lr=0.01)


def test_a_class_that_was_changed_is_refused(
    dataset: af.ClipDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(dataset, tmp_path, epochs=1)
    monkeypatch.setattr(own.inspect, "getsource", lambda _: "class Linear: other")
    with pytest.raises(ApexflowError, match="own code"):
        trained(dataset, tmp_path, epochs=1)


def test_a_second_argument_is_a_sample_unless_it_has_a_default() -> None:
    sample = torch.zeros(2, 6, 6)
    for model in (Linear, ByClasses, functools.partial(Linear, scale=2.0)):
        network = make_network(TrainConfig.of(model), sample, 3)
        assert network(sample[None]).shape == (1, 3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (two_logits, r"must give logits \(batch, 2\)"),
        (no_module, r"must return a torch.nn.modules.module.Module. Got str"),
        (lambda n, s: nn.Linear(99, n), r"cannot take samples of shape \(2, 6, 6\)"),
        ("no.such.module:Net", "module no.such.module cannot be imported"),
        (f"{__name__}:Nothing", "has no attribute 'Nothing'"),
        (f"{__name__}:__name__", "cannot be called"),
        ("vgg", "model must be one of ststnet"),
    ],
)
def test_a_model_that_does_not_fit_is_one_line(
    dataset: af.ClipDataset, tmp_path: Path, model: Any, message: str
) -> None:
    with pytest.raises(ApexflowError, match=message) as said:
        trained(dataset, tmp_path, model)
    assert "\n" not in str(said.value)


def test_what_else_does_not_fit_is_one_line() -> None:
    parameters = [nn.Parameter(torch.zeros(2))]
    config = TrainConfig.of(Linear, loss=lambda logits, targets: logits)
    with pytest.raises(ApexflowError, match="must return one number"):
        make_loss(config, learning_of("class"), None, 2)
    with pytest.raises(ApexflowError, match=r"must return a torch.optim.optimizer.Optimizer"):
        make_optimizer(TrainConfig.of(Linear, optimizer=lambda p, **_: p), parameters)
    optimizer = torch.optim.SGD(parameters)
    with pytest.raises(ApexflowError, match="cannot be made"):
        make_schedule(TrainConfig.of(Linear, schedule=lambda: None), optimizer)
    with pytest.raises(ApexflowError, match="balance 'weights' weighs the losses of ours"):
        TrainConfig.of(Linear, loss=smooth, balance="weights")


def test_a_loop_of_ones_own(dataset: af.ClipDataset) -> None:
    names = []
    for fold in af.folds(dataset, 3):
        loader = torch.utils.data.DataLoader(fold.train, batch_size=8, collate_fn=dataset.collate)
        assert sum(len(labels) for _, labels in loader) == len(fold.train)
        assert not {dataset.samples[i].person for i in fold.train.indices} & {
            dataset.samples[i].person for i in fold.test.indices
        }
        names.append(fold.name)
    assert names == ["group-1", "group-2", "group-3"]
    assert [len(test) for _, test in af.subject_kfold(dataset, 3)] == [8, 8, 8]


def test_with_skorch(dataset: af.ClipDataset) -> None:
    skorch = pytest.importorskip("skorch", reason="skorch is not installed")
    right = []
    for fold in af.folds(dataset, 2):
        torch.manual_seed(0)
        net = skorch.NeuralNetClassifier(
            Linear(2, dataset[0][0]),
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            lr=0.05,
            max_epochs=12,
            train_split=None,
            verbose=0,
        )
        net.fit(fold.train, y=None)
        predicted = net.predict(fold.test)
        right += (predicted == dataset.labels[list(fold.test.indices)].numpy()).tolist()
    assert np.mean(right) > 0.8


# Of Lightning's own: its version of torch's trees is to be replaced, how many workers to take.
@pytest.mark.filterwarnings("default")
def test_with_lightning(dataset: af.ClipDataset, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning", reason="Lightning is not installed")

    class Task(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = Linear(2, dataset[0][0])

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.05)

    fold = next(af.folds(dataset, 2))
    loader = torch.utils.data.DataLoader(fold.train, batch_size=8, collate_fn=dataset.collate)
    trainer = lightning.Trainer(
        max_epochs=12,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    task = Task()
    trainer.fit(task, loader)
    values, labels = dataset.batch(list(fold.test.indices))
    assert (task.network(values).argmax(1) == labels).float().mean() > 0.8


class TestToml:
    def test_is_read_and_changed(self, tmp_path: Path) -> None:
        path = tmp_path / "t.toml"
        path.write_text(
            'model = "ststnet"\nfolds = 10\nlr = 1\n[sample]\nmaps = "hsv"\n'
            "[options]\ndropout = 0.2\n"
        )
        config = TrainConfig.from_toml(path, epochs=7)
        assert (config.folds, config.epochs, config.lr, config.batch_size) == (10, 7, 1.0, 256)
        assert dict(config.sample) == {"maps": "hsv"}
        assert dict(config.options) == {"dropout": 0.2}
        assert TrainConfig.from_dict(config.to_dict()) == config

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("epochs = 3", "names no model"),
            ('model = "ststnet"\nepoch = 3', "a training has no setting 'epoch'"),
            ('model = "ststnet"\nepochs = "3"', "epochs must be a whole number. Got '3'"),
            ('model = "ststnet"\nshuffle = 1', "shuffle must be true or false"),
            ('model = "ststnet"\nsample = "hsv"', "sample must be a table"),
            ("model = ", "cannot be read as settings"),
        ],
    )
    def test_mistakes_are_told(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "t.toml").write_text(text)
        with pytest.raises(ApexflowError, match=message):
            TrainConfig.from_toml(tmp_path / "t.toml")


def test_every_setting_has_an_option() -> None:
    from dataclasses import fields

    from apexflow.cli.train import train

    options = {parameter.name for parameter in train.params}
    settings = {field.name for field in fields(TrainConfig)} - {"sample"}
    assert settings <= options


def test_a_model_of_this_folder_is_found(
    dataset: af.ClipDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "my_nets_of_a_test.py").write_text(
        "from torch import nn\n"
        "def net(n_classes, sample):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(sample.numel(), n_classes))\n"
    )
    result = trained(dataset, tmp_path / "out", "my_nets_of_a_test:net", epochs=1)
    assert result.model == "net"
