"""``apexflow train``: a store and a model in, a table of results out."""

from __future__ import annotations

import json
from typing import Any

import click

from apexflow.cli import completion
from apexflow.cli.own_modules import find_in_current_folder


def _listed(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return tuple(value.split(",")) if value else None


def _pairs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Any] | None:
    """Read NAME=VALUE options; a value is JSON where it is that, else text."""
    found: dict[str, Any] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"write NAME=VALUE. Got {text!r}.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found or None


def _folds(_: click.Context, __: click.Parameter, value: str | None) -> str | int | None:
    return int(value) if value is not None and value.isdecimal() else value


# \b keeps click from filling the lines of the list.
_HELP = """\
Train a model on stores, leaving out one person at a time, and print the scores.

Each model starts from its published settings; options and a TOML file (--config) change
them. The person who is tested has no say in anything. Running the same command again goes
on where the last run ended, inside a fold too.

\b
ststnet            maps uv-strain 28x28
off-apexnet        maps uv-strain 28x28
dual-inception     maps uv-strain 28x28
sssnet             maps uv-strain 64x64, of stored flow
rcn                maps uv-strain 60x60, of stored flow
flow-resnet        maps hsv
siamese-resnet     onset and apex frames
rgb-resnet         apex frame
roi-temporal, roi-graph, roi-hybrid
                   hsv maps of regions over windows
cnn-bilstm, cnn-bilstm-pooled
                   all frames from onset to offset
svm, logistic      features of `apexflow features`: linear, C chosen on people of the
                   training clips (--option C=0.001 fixes it)
package.module:name
                   your own: called with the number of classes and a sample, it returns a
                   torch.nn.Module; modules of this folder are found; or a class of
                   scikit-learn, as sklearn.ensemble:RandomForestClassifier

\b
A configuration file has the options' names with _ for -, and two tables:
  model = "ststnet"
  epochs = 400
  folds = 10
  [sample]                # what ClipDataset takes
  maps = "uv-strain"
  [options]               # what the model takes
  dropout = 0.4
"""


@click.command(help=_HELP, short_help="Train a model on stores and print the scores.")
@click.argument("stores", metavar="STORE...", nargs=-1, required=True)
@click.option(
    "--model", metavar="NAME", shell_complete=completion.models, help="See the list above."
)
@click.option(
    "--config", metavar="FILE", help="A TOML file of settings; options go before what it says."
)
@click.option(
    "--labels",
    "--protocol",
    "labels",
    metavar="NAME|FILE",
    shell_complete=completion.protocols,
    help="What is learnt. Classes: megc2019, samm5, casme2_5, casme2_4 or a TOML file; emotion or "
    "objective, as the table has them. au: the 12 action units of CD6ME, or au:1,2,12. apex: where "
    "it lies. Without it, the labels or the emotions in the store.",
)
@click.option(
    "--exclude", metavar="FILE", help="Leave out the clips that this file of marks calls bad."
)
@click.option("-o", "--output", metavar="DIR", required=True, help="The folder of results.")
@click.option("--maps", metavar="NAME", help="Feed these stored maps.")
@click.option("--flow", metavar="WINDOW,…", callback=_listed, help="Feed the flow of windows.")
@click.option("--roi", metavar="WINDOW,…", callback=_listed, help="Feed the flow of regions.")
@click.option(
    "--frames", metavar="WHICH", help="Feed frames: all, interval, interpolated, or onset,apex."
)
@click.option("--features", metavar="NAME", help="Feed these stored features, as lbp-top.")
@click.option("--encode", metavar="NAME", help="Make maps of --flow or --roi: hsv, uv-strain, …")
@click.option("--size", type=click.IntRange(min=8), metavar="N", help="Side of these maps.")
@click.option("--max-frames", type=click.IntRange(min=1), metavar="N", help="Cut longer clips.")
@click.option(
    "--n-frames", type=click.IntRange(min=1), metavar="N", help="Take N frames of each, evenly."
)
@click.option(
    "--folds",
    metavar="WHAT",
    callback=_folds,
    help="What is left out in each fold: subject (LOSO), dataset, one of K groups of people (a "
    "number), or what a CSV file says (columns fold, and dataset, subject, person or clip).",
)
@click.option(
    "--choose",
    type=click.Choice(["last", "checkpoint", "epochs"]),
    help="last: learn from all training clips, and test the last network. checkpoint: keep people "
    "for inner validation, and test the best network there. epochs: train again on all for as "
    "many epochs.",
)
@click.option("--validation", type=float, metavar="PART", help="Of training clips, that chooses.")
@click.option("--patience", type=click.IntRange(min=0), metavar="N", help="0 never stops early.")
@click.option(
    "--report-leak/--no-report-leak",
    default=None,
    help="Print beside the result what choosing the epoch on the tested clips would have claimed.",
)
@click.option("--seed", type=int, metavar="N", help="The first seed.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, metavar="N", help="How many.")
@click.option("--epochs", type=click.IntRange(min=1), metavar="N")
@click.option("--batch-size", type=click.IntRange(min=2), metavar="N")
@click.option("--lr", type=float, metavar="RATE", help="Learning rate.")
@click.option("--weight-decay", type=float, metavar="RATE")
@click.option("--optimizer", metavar="NAME", help="adam, adamw, sgd or your own.")
@click.option(
    "--loss",
    metavar="NAME",
    help="cross-entropy, focal; of the apex absolute, squared; or your own.",
)
@click.option("--schedule", metavar="NAME", help="constant, cosine or your own.")
@click.option("--clip-norm", type=float, metavar="NORM", help="Largest norm of the gradient.")
@click.option(
    "--normalize",
    type=click.Choice(["none", "half", "bytes", "channel", "feature", "sample"]),
    help="Values.",
)
@click.option("--balance", type=click.Choice(["none", "weights", "oversample"]), help="Classes.")
@click.option("--augment", type=click.Choice(["none", "frames", "mirror"]), help="Training clips.")
@click.option(
    "--jitter",
    type=click.IntRange(min=0),
    metavar="K",
    help="Each epoch, move onset and apex of each training clip by up to K frames, and make its "
    "maps again from the store's frames.",
)
@click.option(
    "--jitter-test",
    type=click.IntRange(min=0),
    default=0,
    metavar="K",
    help="After training, also score each fold's network with the key frames of its test clips "
    "moved by up to K frames; of a finished run, too.",
)
@click.option("--shuffle/--no-shuffle", default=None, help="Another order each epoch.")
@click.option("--weights", metavar="FILE", help="torchvision's resnet18 weights, to start from.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_pairs,
    help="An argument of the model, as dropout=0.4; may be given again.",
)
@click.option("--jobs", type=click.IntRange(min=0), default=1, help="Folds at once; 0: one a core.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads of a fold.")
@click.option("--final", is_flag=True, help="Train a network on all clips, too, for predict.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")
@click.option("--mixed/--full", default=None, help="Mixed precision; on a GPU by default.")
@click.option("--workers", type=click.IntRange(min=0), default=0, help="Processes that read.")
@click.option("--memory", type=click.IntRange(min=1), default=1024, show_default=True, metavar="MB")
@click.option("--quiet", is_flag=True, help="No progress, only the table.")
def train(**values: Any) -> None:
    """Train and test a model, and print the table of its scores."""
    from apexflow.training.config import TrainConfig
    from apexflow.training.run import train as run

    find_in_current_folder()
    result = run(
        values["stores"],
        values["output"],
        _config(values, TrainConfig),
        seeds=values["seeds"],
        jobs=values["jobs"],
        final=values["final"],
        jitter_test=values["jitter_test"],
        device=values["device"],
        mixed=values["mixed"],
        workers=values["workers"],
        memory=values["memory"] << 20,
        progress=not values["quiet"],
    )
    click.echo(result.table())
    click.echo(f"results in {values['output']}")


def _config(values: dict[str, Any], config: Any) -> Any:
    """Return the settings of the file, as far as no option says otherwise."""
    from dataclasses import fields

    from apexflow.training.config import read_toml, settings_of

    names = {one.name for one in fields(config)} - {"sample"}
    given = {name: values[name] for name in names if values[name] is not None}
    sample = _sample(values)
    said = {} if values["config"] is None else settings_of(read_toml(values["config"]))
    if sample:
        given["sample"] = sample
    if "model" not in given and "model" not in said:
        raise click.UsageError("say which --model, or name it in the --config file")
    return config.of(**{**said, **given})


def _sample(values: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `ClipDataset` that were given; none leaves it to the model."""
    sample = {
        "maps": values["maps"],
        "flow": _one_or_several(values["flow"]),
        "roi": values["roi"],
        "frames": values["frames"],
        "features": values["features"],
        "encode": values["encode"],
        "size": values["size"] and (values["size"], values["size"]),
        "max_frames": values["max_frames"],
        "n_frames": values["n_frames"],
    }
    given = {name: value for name, value in sample.items() if value is not None}
    frames = given.get("frames")
    if frames is not None and frames not in ("all", "interval", "interpolated"):
        given["frames"] = tuple(frames.split(","))
    if given and not given.keys() & {"maps", "flow", "roi", "frames", "features"}:
        raise click.UsageError(
            f"say what {', '.join(json.dumps(name) for name in given)} is for: "
            "--maps, --flow, --roi, --frames or --features"
        )
    return given


def _one_or_several(windows: tuple[str, ...] | None) -> str | tuple[str, ...] | None:
    return windows[0] if windows is not None and len(windows) == 1 else windows
