"""What a stage's work is kept under: its own params, inputs and code, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import histoloom
from histoloom.config import Params
from histoloom.data.slide_entry import SlideEntry
from histoloom.slides.summarise import summarised
from histoloom.studies import code_identity
from histoloom.studies.named_files import Hashes, _of_source
from histoloom.studies.stages import STAGES


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Iterator[Path]:
    """A copy of the package's sources, whose code counts in place of the installed one's."""
    root = tmp_path_factory.mktemp("report") / "histoloom"  # wherever it is installed
    shutil.copytree(Path(histoloom.__file__).parent, root, ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(histoloom, "__file__", str(root / "__init__.py"))
        _forget()
        yield root
    _forget()


@pytest.fixture(scope="module")
def before(package) -> dict[str, str]:
    return _codes("latents")


def _codes(target: str, **sections: dict) -> dict[str, str]:
    tile = {"mpp": 1.0, "tile_px": 8, "stride_px": 8, "labels": {"source": "slide", "classes": ["tumour"]}}
    params = Params.model_validate({"tile": tile, "train_denoiser": {"target": target}} | sections)
    return {name: code_identity.code_sha256(name, params) for name in STAGES}


def _forget() -> None:
    for function in (code_identity._sha256, code_identity._imported, code_identity._meaning):
        function.cache_clear()


@pytest.fixture
def changed(package, before) -> Callable[..., set[str]]:
    """Gives the stages whose code is another after an edit of a file."""

    def changed(file: str, edit: Callable[[str], str]) -> set[str]:
        path = package / file
        text = path.read_text(encoding="utf-8")
        path.write_text(edit(text), encoding="utf-8")
        _forget()
        found = {name for name, sha256 in _codes("latents").items() if sha256 != before[name]}
        path.write_text(text, encoding="utf-8")
        return found

    return changed


def add_code(text: str) -> str:
    return text + "\n_ADDED = 1\n"


@pytest.mark.parametrize(
    "file, stages",
    [
        ("studies/emit.py", {"emit"}),
        ("emit/formats.py", {"emit"}),
        ("slides/grid.py", {"tile", "tile_slides"}),
        ("canvas/torus.py", {"sample_slides"}),
        ("config/uplift.py", {"uplift"}),
        ("targets/latents.py", {"train_autoencoder", "encode", "plan", "sample", "sample_slides", "evaluate"}),
        ("report/page.py", {"report"}),
        ("data/store.py", set(STAGES) - {"fetch"}),
        ("cli/main.py", set()),
        ("cluster.py", set()),
        ("studies/stages.py", set()),
    ],
)
def test_a_stage_s_code_is_what_it_imports(changed, file, stages):
    assert changed(file, add_code) == stages


def test_a_target_that_no_param_names_counts_for_nothing(package, before):
    pixels = _codes("pixels")
    assert {name for name in STAGES if pixels[name] != before[name]} == {
        "train_autoencoder",
        "encode",
        "plan",
        "sample",
        "sample_slides",
        "evaluate",
    }


def test_a_learner_counts_where_params_name_it_and_nowhere_else(changed, before):
    assert changed("learners/classifier.py", add_code) == {"uplift"}
    assert changed("learners/unet.py", add_code) == changed("learners/command.py", add_code) == set()
    masks = _codes("latents", uplift={"task": "mask"}, filter={"use": ["mask"]})
    assert {name for name in STAGES if masks[name] != before[name]} == {"train_filters", "filter", "uplift"}


def test_a_learner_that_loads_the_denoiser_counts_with_all_that_this_loads(changed):
    assert "uplift" not in changed("targets/latents.py", add_code)
    tile = {"mpp": 1.0, "tile_px": 8, "stride_px": 8, "labels": {"source": "slide", "classes": ["tumour"]}}
    params = Params.model_validate({"tile": tile, "uplift": {"learner": "denoiser"}})
    found = code_identity.code_of("uplift", code_identity._pieces("uplift", params))
    assert {"histoloom.targets.latents", "histoloom.backbones.unet", "histoloom.conditions.label"} <= set(found)


def test_the_filter_that_looks_with_the_denoiser_counts_with_all_that_this_loads(before):
    _forget()
    found = _codes("latents", filter={"use": ["anomaly"]})
    assert {name for name in STAGES if found[name] != before[name]} == {"filter"}


def test_what_is_written_for_people_doesn_t_count(changed):
    def say(text: str) -> str:
        return '"""Another docstring."""\n' + text.split('"""', 2)[2] + "\n# a comment\n"

    assert changed("slides/tiler.py", say) == set()
    assert changed("config/tile.py", lambda text: text.replace("description=", "description='' + ", 1)) == set()


def test_a_new_key_of_another_section_discards_nothing(changed):
    assert changed("config/report.py", add_code) == {"report"}


def test_what_a_training_begins_from_counts_by_what_it_holds(tmp_path):
    (tmp_path / "model/denoiser").mkdir(parents=True)
    found = []
    for text in ("{}", "{ }"):
        (tmp_path / "model/denoiser/config.json").write_text(text)
        hashes = Hashes(tmp_path / "hashes.json")
        found.append([_of_source(name, hashes, "denoiser") for name in ("scratch", None, str(tmp_path / "model"))])
    before, after = found
    assert before[:2] == after[:2] == [None, None] and before[2] != after[2]


def test_an_edited_script_summarises_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entries = (SlideEntry("s", tmp_path / "s.svs", "p", 2, caption="a long report"),)
    said = []
    for words in ("short", "shorter"):
        (tmp_path / "mine.sh").write_text(f"cat > /dev/null; echo {words}")
        said.append(summarised(entries, "sh mine.sh", tmp_path / "kept")[0].caption)
    assert said == ["short", "shorter"]
