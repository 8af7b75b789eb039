"""The `histoloom` command. Heavy imports wait until a command needs them, so `--help` is quick and needs no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import histoloom
from histoloom.cli.convert import convert
from histoloom.cli.package import package
from histoloom.cli.predict import predict
from histoloom.cli.sample import sample
from histoloom.cli.segment import segment
from histoloom.exit_codes import FAULT, ends_in_words
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


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine to read.")


class _Commands(click.Group):
    """Errors end as words and exit codes. Help lists commands in the order in which a study needs them."""

    def list_commands(self, context):
        return [*self.commands]

    def invoke(self, context):
        with ends_in_words():
            return super().invoke(context)


@click.group(cls=_Commands)
@click.version_option(histoloom.__version__, prog_name="histoloom")
def cli() -> None:
    """Synthetic histology: from slides to an augmented, versioned training set.

    These commands make, check and look at a study. `dvc repro`, in the study's folder, does its work.
    """


def _recipes(context: click.Context, param: click.Parameter, begun: str) -> list[str]:
    """Names of recipes that begin so, for the shell to complete."""
    from histoloom.cli.init import recipe_names

    return [name for name in recipe_names() if name.startswith(begun)]


def _systems(context: click.Context, param: click.Parameter, begun: str) -> list[str]:
    from histoloom.systems import names

    return [name for name in names() if name.startswith(begun)]


@cli.command()
@click.argument("folder", type=_NEW)
@click.option(
    "--recipe",
    multiple=True,
    shell_complete=_recipes,
    help="A recipe's name or file. Its changes are written to params.yaml.",
)
@click.option(
    "--slides",
    type=_FOLDER,
    help="Folder of your slides. A manifest is drafted from it; you fill in patient_id.",
)
@click.option(
    "--tiles",
    metavar="PATH",
    help="Tiles that are cut already: a folder of pictures, a CSV of paths, or .tar, .parquet, .npz or .h5.",
)
@click.option("--mpp", type=click.FloatRange(0.01, 100), help="With --tiles: the scale of the pictures, µm/px.")
@click.option(
    "--system",
    shell_complete=_systems,
    help="Name of a published system (docs/systems.md). It runs on pictures made by code, unless --data names real ones.",
)
@click.option("--data", type=_FOLDER, help="With --system: folder of the real data that the system's page names.")
@click.option(
    "--trust-recipe", is_flag=True, help="Accept a recipe's commands, and its paths outside the study, without asking."
)
def init(
    folder: Path,
    recipe: tuple[str, ...],
    slides: Path | None,
    tiles: str | None,
    mpp: float | None,
    system: str | None,
    data: Path | None,
    *,
    trust_recipe: bool,
) -> None:
    """Make a study in FOLDER: params.yaml, dvc.yaml and manifests, in a git and DVC repository of its own."""
    from histoloom.cli.init import SystemStudy, make_study

    if data is not None and system is None:
        raise click.UsageError("--data is of a --system; name your own slides with --slides.")
    if tiles is not None and (slides is not None or system is not None):
        raise click.UsageError(
            "--tiles begins a study of tiles alone. Beside slides, state them in params.yaml: tile.sets."
        )
    if mpp is not None and tiles is None:
        raise click.UsageError(
            "--mpp is of --tiles; the scale of a slide stands in its file or in manifests/slides.csv."
        )
    draft = None
    if tiles is not None:
        from histoloom.cli.draft_tiles import draft_tiles

        draft = draft_tiles(tiles, mpp)
    of_system = SystemStudy(system, data) if system else None
    make_study(folder, recipe, slides, of_system, draft, trust_recipe=trust_recipe)


@cli.command()
@click.option("--deep", is_flag=True, help="Also search data/tiles for the same tissue under two patients.")
@_json
def validate(*, deep: bool, as_json: bool) -> None:
    """List the faults of the study.

    Faults of params.yaml and cluster.yaml come first. When they are mended, those of manifests and slides are listed. A note is no fault: it
    says what is left out.
    """
    from histoloom.cli.validate import print_faults
    from histoloom.data.study_folder import Study

    sys.exit(print_faults(Study(), deep=deep, as_json=as_json))


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
@_json
def plan(*, as_json: bool) -> None:
    """Print which tiles would be sampled, why, and at what cost.

    Nothing is written. The study must have tiles: dvc repro tile.
    """
    from histoloom.cli.dry_run import print_dry_run

    print_dry_run(_study(), as_json=as_json)


@cli.command()
@_json
def status(*, as_json: bool) -> None:
    """Say which stages are done, out of date and why, or running and how far."""
    from histoloom.cli.status import print_status

    print_status(_study(), as_json=as_json)


@cli.command()
@click.option("--dry-run", is_flag=True, help="List what may go, and delete nothing.")
@click.option("--yes", is_flag=True, help="Delete it without asking.")
@click.option(
    "--parts",
    is_flag=True,
    help="Also delete the kept parts of tile, sample_slides and uplift. After a change, these stages then redo all, not only what changed.",
)
def clean(*, dry_run: bool, yes: bool, parts: bool) -> None:
    """Delete what no stage of the study needs any more.

    It deletes only inside .work: parts and checkpoints of stages that are done, what a killed run left, and the work of models that params no
    longer name. The stages' outputs, DVC's cache and your files stay.
    """
    from histoloom.cli.clean import clean as clean_study

    clean_study(_study(), parts=parts, yes=yes, dry_run=dry_run)


@cli.command()
@click.argument("store", type=_FOLDER)
@click.option(
    "--rows",
    type=_FOLDER,
    help="Folder to take the tiles' rows from. For data/synthetic, data/verdicts has the filters' verdicts.",
)
@click.option("--where", multiple=True, metavar="COLUMN=VALUE", help="Show only rows that match; may be repeated.")
@click.option("-n", "count", default=64, show_default=True, help="Number of tiles, evenly spread.")
@click.option("-o", "--output", default="preview.png", show_default=True, type=_NEW)
def preview(store: Path, rows: Path | None, where: tuple[str, ...], count: int, output: Path) -> None:
    """Write a contact sheet of a tile STORE, such as data/tiles."""
    from histoloom.cli.preview import write_preview

    shown, of = write_preview(store, rows, where, count, output)
    console.print(f"{output}: {shown} of {of} tiles")


@cli.command()
@click.argument("a")
@click.argument("b", default="")
@_json
def diff(a: str, b: str, *, as_json: bool) -> None:
    """Say which tiles, models and params changed between two versions of the study.

    A and B are git revisions. Without B, A is compared with the workspace.
    """
    from histoloom.cli.diff import print_diff

    print_diff(a, b or None, as_json=as_json)


@cli.group()
def review() -> None:
    """Have a person judge tiles without knowing which are real, and score the verdicts."""


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


@cli.command()
def advise() -> None:
    """Say which recipe is likely to help this study, what it costs, and when not to bother.

    It counts labels, classes, patients and unlabelled tiles, and compares them with experiments on public sets.
    """
    from histoloom.cli.advise import print_advice

    print_advice(_study())


cli.add_command(segment)
cli.add_command(predict)
cli.add_command(convert)
cli.add_command(sample)
cli.add_command(package)


@cli.command()
@_json
def doctor(*, as_json: bool) -> None:
    """Say what is installed, and how to get what is missing."""
    from histoloom.cli.doctor import examine

    sys.exit(0 if examine(as_json=as_json) else FAULT)


if __name__ == "__main__":
    cli()
