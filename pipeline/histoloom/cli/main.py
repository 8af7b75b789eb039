"""The `histoloom` command. Heavy imports wait until a command needs them, so `--help` is quick and needs no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import histoloom
from histoloom.cli.convert import convert
from histoloom.cli.predict import predict
from histoloom.cli.sample import sample
from histoloom.cli.segment import segment
from histoloom.errors import HistoloomError, count_of, faults_among, lines_of, notes_among
from histoloom.progress import console
from histoloom.studies.stages import STAGES

if TYPE_CHECKING:
    from histoloom.data.study_folder import Study

_OF_STUDIES = [name for name, stage in STAGES.items() if not stage.demo]
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_NEW = click.Path(path_type=Path)


def _study() -> Study:
    """The study in this folder; where there is none, this says so before anything is written."""
    from histoloom.data.study_folder import Study

    study = Study()
    _ = study.params
    return study


class _Commands(click.Group):
    """Errors that the user can mend end as words, with exit code 1. Help lists commands in the order in which a study needs them."""

    def list_commands(self, context):
        return [*self.commands]

    def invoke(self, context):
        try:
            return super().invoke(context)
        except HistoloomError as error:
            console.print("error: " + str(error), style=None, markup=False)
            sys.exit(1)
        except ModuleNotFoundError as error:
            name = (error.name or "").partition(".")[0]
            if name in ("", "histoloom"):
                raise
            said = (
                f"error: this command needs the package '{name}', which is missing. Install all: pip install histoloom"
            )
            console.print(said, markup=False)
            sys.exit(1)


@click.group(cls=_Commands)
@click.version_option(histoloom.__version__, prog_name="histoloom")
def cli() -> None:
    """Synthetic histology: from slides to an augmented, versioned training set.

    The work itself is run by `dvc repro`, in the folder of a study.
    """


@cli.command()
@click.argument("folder", type=_NEW)
@click.option("--recipe", multiple=True, help="A recipe's name or file. Its changes are written to params.yaml.")
@click.option(
    "--slides",
    type=_FOLDER,
    help="Folder of your slides. A manifest is drafted from it; you fill in patient_id.",
)
@click.option(
    "--system", help="A published system (docs/systems.md). Its data are drawn, unless --data names real ones."
)
@click.option("--data", type=_FOLDER, help="With --system: folder of the real data that the system's page names.")
@click.option(
    "--trust-recipe", is_flag=True, help="Accept a recipe's commands, and its paths outside the study, without asking."
)
def init(
    folder: Path,
    recipe: tuple[str, ...],
    slides: Path | None,
    system: str | None,
    data: Path | None,
    *,
    trust_recipe: bool,
) -> None:
    """Make a study at FOLDER: a git and DVC repository of its own."""
    from histoloom.cli.init import SystemStudy, make_study

    if data is not None and system is None:
        raise click.UsageError("--data is of a --system; name your own slides with --slides.")
    make_study(folder, recipe, slides, SystemStudy(system, data) if system else None, trust_recipe=trust_recipe)


@cli.command()
@click.option("--deep", is_flag=True, help="Also search data/tiles for the same tissue under two patients.")
def validate(*, deep: bool) -> None:
    """List the faults of the study.

    Faults of params.yaml and cluster.yaml come first. When they are mended, those of manifests and slides are listed. A note says what is
    left out, and stops nothing.
    """
    from histoloom.data.study_folder import Study
    from histoloom.studies.checks.validate import check_study, check_tiles

    found = check_study(Study())
    if deep and not faults_among(found):
        found += check_tiles(Study())
    for line in lines_of(notes_among(found)):
        console.print(f"note: {line}", markup=False)
    if faults := faults_among(found):
        for line in lines_of(faults):
            console.print(f"- {line}", markup=False)
        console.print(count_of(faults))
        sys.exit(1)
    console.print("no faults")


@cli.command()
def params() -> None:
    """Print the reference of params.yaml: every key with its type, default and meaning."""
    from histoloom.cli.reference import reference

    click.echo(reference(), nl=False)


@cli.command(epilog=f"Stages, in the order in which they run: {', '.join(_OF_STUDIES)}.")
@click.argument("stage", type=click.Choice(_OF_STUDIES), metavar="STAGE")
@click.option("--model", help="With several models (`models` in params.yaml): the one to run the stage for.")
def run(stage: str, model: str | None) -> None:
    """Run one STAGE of the study in this folder. `dvc repro` calls this for each stage that is out of date."""
    from histoloom.studies.stage_work import main

    main(stage, model)


@cli.command()
def stages() -> None:
    """Print the dvc.yaml for params.yaml. After a change of `models`, run: histoloom stages > dvc.yaml"""
    from histoloom.studies.dvc_yaml import study_yaml

    click.echo(study_yaml(tuple(_study().stated.models)), nl=False)


@cli.command()
def plan() -> None:
    """Print which tiles would be sampled, why, and at what cost.

    Nothing is written. The study must have tiles: dvc repro tile.
    """
    from histoloom.cli.dry_run import print_dry_run

    print_dry_run(_study())


@cli.command()
def status() -> None:
    """Say which stages are done, out of date, or running."""
    from histoloom.cli.status import print_status

    print_status(_study())


@cli.command()
@click.argument("store", type=_FOLDER)
@click.option("--rows", type=_FOLDER, help="Take the tiles' rows from here, such as data/verdicts for data/synthetic.")
@click.option("--where", multiple=True, metavar="COLUMN=VALUE", help="Show only rows that match; may be repeated.")
@click.option("-n", "count", default=64, show_default=True, help="Number of tiles, evenly spread.")
@click.option("-o", "--output", default="preview.png", show_default=True, type=_NEW)
def preview(store: Path, rows: Path | None, where: tuple[str, ...], count: int, output: Path) -> None:
    """Write a contact sheet of any tile STORE."""
    from histoloom.cli.preview import write_preview

    shown, of = write_preview(store, rows, where, count, output)
    console.print(f"{output}: {shown} of {of} tiles")


@cli.command()
@click.argument("a")
@click.argument("b", default="")
def diff(a: str, b: str) -> None:
    """Say which tiles, models and params changed between two versions of the study.

    A and B are git revisions. Without B, A is compared with the workspace.
    """
    from histoloom.cli.diff import print_diff

    print_diff(a, b or None)


@cli.group()
def review() -> None:
    """Have a person judge tiles blind, and score the verdicts."""


@review.command()
@click.argument("folder", type=_NEW)
@click.option(
    "-n",
    "count",
    default=100,
    show_default=True,
    help="Number of tiles to compare, half of them real; more real ones are mixed in to hide the classes.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of the order of tiles.")
def make(folder: Path, count: int, seed: int) -> None:
    """Write FOLDER/review.html for the reader, and FOLDER/key.parquet, which you keep."""
    from histoloom.cli.review import make_review

    shown = make_review(_study(), folder, count, seed)
    console.print(f"{folder / 'review.html'}: {shown} tiles. Then: histoloom review score {folder} verdicts.csv")


@review.command()
@click.argument("folder", type=_FOLDER)
@click.argument("verdicts", type=_FILE)
def score(folder: Path, verdicts: Path) -> None:
    """Score a reader's VERDICTS against FOLDER's key. Tiles called unusable go to reviews/verdicts.csv."""
    from histoloom.quality.review import score_review

    for name, found in score_review(folder, verdicts, _study().reviews).items():
        if found["n"]:
            low, high = found["interval"]
            said = f"{found['fraction']:.0%} of {found['n']} ({low:.0%} to {high:.0%})"
            console.print(f"{name.replace('_', ' ')}: {said}")
    console.print("Add review to filter.use to reject what was found unusable.")


cli.add_command(segment)
cli.add_command(predict)
cli.add_command(convert)
cli.add_command(sample)


@cli.command()
@click.argument("folder", type=_NEW)
@click.option("--attribution", type=_FILE, help="Markdown that says whose data it was trained on, and their licence.")
@click.option("--hardware", default="", help="The hardware that it was trained on, in words.")
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    help="Name of the data set, put before the codes of its groups and slides. With --public, it may be repeated.",
)
@click.option(
    "--public",
    is_flag=True,
    help="The data sets are public: their ids stay readable, so that other studies can check for overlap.",
)
@click.option("--limits", type=_FILE, help="Markdown file with a list of what the model can't do, for the card.")
@click.option(
    "--model", help="With several models (`models` in params.yaml): which one; by default, the last of sample.chain."
)
@click.option(
    "--max-shard-size", default="5GB", show_default=True, help="Larger files of weights are split, such as at 14MB."
)
@click.option(
    "--distilled", is_flag=True, help="Add this study's distilled denoiser to the package that it was distilled from."
)
def package(
    folder: Path,
    attribution: Path | None,
    hardware: str,
    datasets: tuple[str, ...],
    limits: Path | None,
    model: str | None,
    max_shard_size: str,
    *,
    public: bool,
    distilled: bool,
) -> None:
    """Write the study's models to FOLDER, with a card.

    Weights are in half precision. Other studies name the folder in `train_denoiser.init`. Ids leave as salted codes, unless --dataset NAME
    --public is given.
    """
    from histoloom.emit.model import Words, package_few_steps, package_models
    from histoloom.emit.redaction import names_outside

    if distilled and (attribution or hardware or limits):
        raise click.UsageError("--distilled leaves the package's attribution, hardware and limits as they are.")
    if public and not datasets:
        raise click.UsageError("--public needs --dataset NAME: the public set whose ids stay clear.")
    study = _study()
    if model is not None and model not in study.params.models:
        raise click.UsageError(f"--model: params.yaml states no model '{model}'.")
    study = study.of(model or [*study.params.links][-1])
    names = names_outside(study, *datasets, public=public)
    if distilled:
        package_few_steps(study, folder, names)
    elif attribution is None:
        raise click.UsageError("Missing option '--attribution'.")
    else:
        cannot = limits.read_text(encoding="utf-8") if limits else ""
        words = Words(attribution.read_text(encoding="utf-8"), hardware, cannot)
        package_models(study, folder, words, names, max_shard_size)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    console.print(f"{folder}: {size / 1e6:.1f} MB")


@cli.command()
def doctor() -> None:
    """Say what is installed, and how to get what is missing."""
    from histoloom.cli.doctor import examine

    sys.exit(0 if examine() else 1)


if __name__ == "__main__":
    cli()
