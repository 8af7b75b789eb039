"""`histoloom package`: a study's models with a card, for other studies to start from."""

from __future__ import annotations

from pathlib import Path

import click

from histoloom.progress import console

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--attribution",
    type=_FILE,
    help="Markdown file that says whose data the models were trained on, and their licence.",
)
@click.option("--hardware", default="", help="The hardware that they were trained on, in words.")
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    help="Name of the data set, which is put before the codes of its groups and slides. With --public, it may be repeated.",
)
@click.option(
    "--public",
    is_flag=True,
    help="The data sets are public: their ids stay readable, so that other studies can check for overlap.",
)
@click.option("--limits", type=_FILE, help="Markdown file that lists what the models can't do, for the card.")
@click.option(
    "--model", help="With several models (`models` in params.yaml): which one; by default, the last of sample.chain."
)
@click.option(
    "--max-shard-size",
    default="5GB",
    show_default=True,
    help="Split files of weights that are larger than this, such as 14MB.",
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
    """Write the study's models to FOLDER, with a model card, for other studies to start from.

    Other studies name the folder in `train_denoiser.init`. Weights are in half precision. Ids of patients and slides are written as salted
    codes, unless --dataset NAME --public is given.
    """
    from histoloom.data.study_folder import Study
    from histoloom.emit.model import Words, package_few_steps, package_models
    from histoloom.emit.redaction import names_outside

    if distilled and (attribution or hardware or limits):
        raise click.UsageError("--distilled leaves the package's attribution, hardware and limits as they are.")
    if public and not datasets:
        raise click.UsageError("--public needs --dataset NAME: the public set whose ids stay clear.")
    study = Study()
    _ = study.params  # where there is no study, this says so before anything is written
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
