"""`histoloom init`: a study from the stages, from recipes, and from the repository's own cluster.yaml."""

from __future__ import annotations

import csv
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from ruamel.yaml import YAML

import histoloom
from histoloom.cli.draft import Draft, draft_slides
from histoloom.cli.draft_tiles import TilesDraft
from histoloom.cli.fresh_repository import begin_history, made_whole, surrounding_repository
from histoloom.cli.params_file import params_text
from histoloom.cli.recipe import merge, read_recipes
from histoloom.config.extractors import TRAIN
from histoloom.data.remote import is_address
from histoloom.data.schema import REQUIRED_SLIDE_COLUMNS
from histoloom.errors import HistoloomError
from histoloom.progress import console
from histoloom.studies.dvc_yaml import RESOLVED, VERSION_FILE, outputs, study_yaml
from histoloom.studies.stages import STAGES
from histoloom.systems import REAL, RECIPE, code_of, folder_of

_COLUMNS = (*REQUIRED_SLIDE_COLUMNS, "mpp", "label", "caption", "split", "annotations", "mask", "instances")

_IGNORED = ("data/slides/", ".work/", ".histoloom/*", ".venv/", "dvc_plots/", "**/__pycache__/")
_OF_SLIDES = "State your slides in `manifests/slides.csv`, and your choices in `params.yaml`."
_OF_TILES = "State your choices in `params.yaml`. `tile.sets` names the tiles."
_README = """# A histoloom study

1. {first}
2. `histoloom validate` lists every fault.
3. `dvc repro` makes the dataset and `reports/index.html`; run it again after any change, or after a crash.

Keep `.histoloom/salt` safe and private: the patient codes of emitted datasets come from it.
"""


@dataclass(frozen=True)
class SystemStudy:
    """A published system that a study is made of.

    data : a folder of real data; None draws some. fold : of several, which is held out.
    """

    name: str
    data: Path | None = None
    fold: int = 0


@dataclass(frozen=True)
class _Source:
    """What a study is made of: slides that were found in a folder, or a set of tiles."""

    slides: Path | None = None
    draft: Draft = field(default_factory=Draft)
    tiles: TilesDraft | None = None


def _template(name: str) -> Path:
    """A file that studies are made from: beside this one in an installed package, else at the repository's top."""
    here = Path(__file__).parent / "study" / name
    return here if here.exists() else Path(__file__).parents[3] / name


def recipe_names() -> list[str]:
    """The recipes that come with histoloom."""
    return sorted(path.stem for path in _template("recipes").glob("*.yaml"))


def make_study(
    folder: Path,
    recipes: tuple[str, ...] = (),
    slides: Path | None = None,
    system: SystemStudy | None = None,
    tiles: TilesDraft | None = None,
    *,
    trust_recipe: bool = False,
) -> None:
    """Make a study at `folder`, a git and DVC repository with one commit; after an error nothing is left of it.

    What a set of tiles tells is written before the recipes, which may state otherwise.

    Raises
    ------
    HistoloomError
        when the folder holds something already, a recipe isn't there or isn't confirmed, or git is missing or fails.
    """
    if shutil.which("git") is None:
        raise HistoloomError("git is not installed, and a study is a git repository. Install git, then run this again.")
    overlays = read_recipes(("study",), _template("recipes"), trust=True)
    overlays += [] if tiles is None else [{"tile": tiles.tile}]
    if system is not None:
        of_system = folder_of(system.name)
        names = [RECIPE, *([REAL] if system.data is not None and (of_system / REAL).is_file() else [])]
        overlays += read_recipes(tuple(str(of_system / name) for name in names), of_system, trust=True)
    overlays += read_recipes(recipes, _template("recipes"), trust=trust_recipe)
    source = _Source(slides, Draft() if slides is None else draft_slides(slides), tiles)
    with made_whole(folder) as staged:
        _write_study(staged, overlays, source)
        if system is not None:
            _copy_pieces(staged, folder_of(system.name))
            code_of(system.name).prepare(staged, system.data, system.fold)
        begin_history(staged, "A histoloom study")
    _say(folder, source)


def _write_study(folder: Path, overlays: list[dict], source: _Source) -> None:
    (folder / "manifests" / "annotations").mkdir(parents=True)
    (folder / "reviews").mkdir()
    for place in ("manifests/annotations", "reviews"):
        (folder / place / ".gitkeep").touch()
    _write_params(folder, overlays, source)
    shutil.copy(_template("cluster.yaml"), folder / "cluster.yaml")
    _write_dvc_yaml(folder)
    (folder / VERSION_FILE).write_text(f"histoloom {histoloom.__version__}\n", encoding="utf-8")
    first = _OF_SLIDES if source.tiles is None else _OF_TILES
    (folder / "README.md").write_text(_README.format(first=first), encoding="utf-8")
    if source.tiles is None:
        _write_manifest(folder / "manifests" / "slides.csv", source.draft)


def _copy_pieces(folder: Path, of_system: Path) -> None:
    """The files of the system's own that params name under `extensions`."""
    stated = YAML(typ="safe").load((folder / "params.yaml").read_text(encoding="utf-8")).get("extensions") or {}
    for place in {place.partition(":")[0] for names in stated.values() for place in names.values()}:
        if (of_system / place).is_file():
            shutil.copy(of_system / place, folder / place)


def _say(folder: Path, source: _Source) -> None:
    said, fill = [], "fill in manifests/slides.csv and params.yaml, then "
    if source.slides is not None:
        draft = source.draft
        found = f"{len(draft.slides):,} slide(s)" if draft.slides else "No slide"
        said = [f"{found} found in {source.slides}.", *(f"Left out: {words}." for words in draft.words())]
    if source.tiles is not None:
        left = [f"To be stated in params.yaml: {each}." for each in source.tiles.left]
        said, fill = [*source.tiles.words, *left], "look at params.yaml, then "
    if outer := surrounding_repository(folder):
        how = "name it in the other's .gitignore, or make it elsewhere"
        said.append(f"The study is a git repository inside another, {outer}: {how}.")
    place = f"./{folder}" if str(folder).startswith("-") else str(folder)  # which is no option
    said.append(f"A study at {folder}. Next: {fill}cd {shlex.quote(place)}, histoloom validate, dvc repro.")
    for line in said:
        console.print(line, markup=False)


def _write_params(folder: Path, overlays: list[dict], source: _Source) -> None:
    params: dict = {}
    for overlay in overlays:
        merge(params, overlay)
    if source.tiles is not None:
        _without_slides(params, source.tiles)
    elif not isinstance(params.get("tile"), dict) or not isinstance(params["tile"].get("slides_root"), str):
        raise HistoloomError("A recipe leaves no text in tile.slides_root: mend its section 'tile'.")
    elif source.slides is not None:
        params["tile"]["slides_root"] = str(source.slides.resolve())
    elif is_address(params["tile"]["slides_root"]):
        pass
    elif (root := (folder / params["tile"]["slides_root"]).resolve()).is_relative_to(folder.resolve()):
        root.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(params_text(params), encoding="utf-8")


def _without_slides(params: dict, tiles: TilesDraft) -> None:
    """Without labels, what the recipe no-labels states; what the packaged model of another recipe is told, stays."""
    if tiles.has_labels:
        return
    told = params["train_denoiser"]["conditions"]
    trained = params["train_encoders"]["text"]["source"] == TRAIN  # on captions, which quote labels
    kept = [name for name in told if name != "label" and not (name == "text" and trained)]
    (overlay,) = read_recipes(("no-labels",), _template("recipes"), trust=True)
    merge(params, overlay)
    params["train_denoiser"]["conditions"] = [*kept, *({"image"} - {*kept})]


def _write_dvc_yaml(folder: Path) -> None:
    """The stages, and what git is to leave alone."""
    models = tuple(YAML(typ="safe").load((folder / "params.yaml").read_text(encoding="utf-8")).get("models") or ())
    (folder / "dvc.yaml").write_text(study_yaml(models), encoding="utf-8")
    # DVC names outputs to git as they are made, and takes that back where a later stage fails: they hold patients' ids.
    made = (place for stage in STAGES.values() if not stage.demo for place in outputs(stage, models))
    ignored = "".join(f"/{place}\n" for place in dict.fromkeys((*_IGNORED, *made)) if place != RESOLVED)
    kept = f"!/{RESOLVED}\n"  # as `dvc exp show` compares versions by it
    (folder / ".gitignore").write_text(ignored + kept, encoding="utf-8")


def _write_manifest(path: Path, draft: Draft) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, _COLUMNS, restval="")
        writer.writeheader()
        writer.writerows({"slide_id": name, "path": file} for name, file in draft.slides)
