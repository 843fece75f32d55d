"""``apexflow train``: a store and a model in, a table of results out."""

from __future__ import annotations

import json
from typing import Any

import click


def _listed(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return tuple(value.split(",")) if value else None


# \b keeps click from filling the lines of the list.
_HELP = """\
Train a model on stores, leaving out one subject at a time, and print the scores.

Each model starts from its published settings; options change them. The epoch is chosen on
other training subjects, never on the one tested. Running the same command again goes on
where the last run ended.

\b
ststnet            maps uv-strain 28x28
flow-resnet        maps hsv
siamese-resnet     onset and apex frames
rgb-resnet         apex frame
roi-temporal, roi-graph, roi-hybrid
                   hsv maps of regions over windows
cnn-bilstm, cnn-bilstm-pooled
                   all frames from onset to offset
"""


@click.command(help=_HELP, short_help="Train a model on stores and print the scores.")
@click.argument("stores", metavar="STORE...", nargs=-1, required=True)
@click.option("--model", metavar="NAME", required=True, help="See the list above.")
@click.option(
    "--protocol",
    metavar="NAME|FILE",
    help="Who has which class: megc2019, samm5, casme2_5, casme2_4 or a TOML file; without it, "
    "the labels or the emotions in the store.",
)
@click.option("-o", "--output", metavar="DIR", required=True, help="The folder of results.")
@click.option("--maps", metavar="NAME", help="Feed these stored maps.")
@click.option("--flow", metavar="WINDOW,…", callback=_listed, help="Feed the flow of windows.")
@click.option("--roi", metavar="WINDOW,…", callback=_listed, help="Feed the flow of regions.")
@click.option("--frames", metavar="WHICH", help="Feed frames: all, interval, or onset,apex.")
@click.option("--encode", metavar="NAME", help="Make maps of --flow or --roi: hsv, uv-strain, …")
@click.option("--size", type=click.IntRange(min=8), metavar="N", help="Side of these maps.")
@click.option("--max-frames", type=click.IntRange(min=1), metavar="N", help="Cut longer clips.")
@click.option("--epochs", type=click.IntRange(min=1), metavar="N")
@click.option("--batch-size", type=click.IntRange(min=2), metavar="N")
@click.option("--lr", type=float, metavar="RATE", help="Learning rate of Adam.")
@click.option("--patience", type=click.IntRange(min=0), metavar="N", help="0 never stops early.")
@click.option("--normalize", type=click.Choice(["none", "half", "channel", "sample"]))
@click.option("--balance", type=click.Choice(["none", "weights", "oversample"]))
@click.option("--augment", type=click.Choice(["none", "frames", "flow"]))
@click.option(
    "--choose",
    type=click.Choice(["checkpoint", "epochs"]),
    help="Test the best epoch's network, or train again on all training clips for as many epochs.",
)
@click.option(
    "--folds",
    type=click.Choice(["subject", "dataset"]),
    help="What is left out in each fold: a subject (LOSO), or a data set.",
)
@click.option("--weights", metavar="FILE", help="torchvision's resnet18 weights, to start from.")
@click.option("--seed", type=int, metavar="N")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1.")
@click.option("--mixed/--full", default=None, help="Mixed precision; on a GPU by default.")
@click.option("--workers", type=click.IntRange(min=0), default=0, help="Processes that read.")
@click.option("--memory", type=click.IntRange(min=1), default=1024, show_default=True, metavar="MB")
@click.option("--quiet", is_flag=True, help="No progress, only the table.")
def train(**values: Any) -> None:
    """Train and test a model, and print the table of its scores."""
    from apexflow.training.config import TrainConfig
    from apexflow.training.run import train as run

    settings = {name: values[name] for name in _SETTINGS if values[name] is not None}
    config = TrainConfig.of(values["model"], sample=_sample(values), **settings)
    result = run(
        values["stores"],
        values["output"],
        config,
        device=values["device"],
        mixed=values["mixed"],
        workers=values["workers"],
        memory=values["memory"] << 20,
        progress=not values["quiet"],
    )
    click.echo(result.table())
    click.echo(f"results in {values['output']}")


_SETTINGS = (
    *("protocol", "epochs", "batch_size", "lr", "patience", "normalize", "balance", "augment"),
    *("choose", "folds", "weights", "seed"),
)


def _sample(values: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `ClipDataset` that were given; none leaves it to the model."""
    sample = {
        "maps": values["maps"],
        "flow": _one_or_several(values["flow"]),
        "roi": values["roi"],
        "frames": values["frames"],
        "encode": values["encode"],
        "size": values["size"] and (values["size"], values["size"]),
        "max_frames": values["max_frames"],
    }
    given = {name: value for name, value in sample.items() if value is not None}
    frames = given.get("frames")
    if frames is not None and frames not in ("all", "interval"):
        given["frames"] = tuple(frames.split(","))
    if given and not given.keys() & {"maps", "flow", "roi", "frames"}:
        raise click.UsageError(
            f"say what {', '.join(json.dumps(name) for name in given)} is for: "
            "--maps, --flow, --roi or --frames"
        )
    return given


def _one_or_several(windows: tuple[str, ...] | None) -> str | tuple[str, ...] | None:
    return windows[0] if windows is not None and len(windows) == 1 else windows
