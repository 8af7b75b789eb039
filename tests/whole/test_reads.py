"""A stage reads what dvc.yaml says that it depends on, and nothing else of the study."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from histoloom.data.study_folder import Study
from histoloom.studies.dvc_yaml import VERSION_FILE, outputs
from histoloom.studies.named_files import files_of
from histoloom.studies.stages import STAGES
from tests.whole.conftest import opened_file

pytestmark = pytest.mark.long

ANY_STAGE = (".histoloom", "params.yaml", "cluster.yaml", VERSION_FILE)
DVCLIVE = (".dvc", ".dvcignore", ".git", ".gitignore", "dvc.yaml")
"""The curves of a training are written by dvclive, which looks whose repository it is in."""


class HashesElsewhere(Study):
    """A study that keeps the hashes of what its params name in another folder."""

    hashes = Path()


@pytest.fixture(scope="module")
def opened(study) -> dict[str, set[str]]:
    """Stage to the files that it read under the study's folder, relative to it."""
    found = defaultdict(set)
    for line in opened_file(study).read_text(encoding="utf-8").splitlines():
        stage, place = line.split("\t")
        if Path(place).is_relative_to(study):
            found[stage].add(Path(place).relative_to(study).as_posix())
    return found


def named(study: Path, sections: list[str], kept: Path) -> list[str]:
    """The files and folders under a study that these sections of its params name."""
    if not sections:
        return []
    whose = HashesElsewhere(study)
    vars(whose)["hashes"] = kept
    files_of(whose, *sections)
    places = [Path(place) for place in json.loads(kept.read_text(encoding="utf-8"))] if kept.is_file() else []
    return [place.relative_to(study).as_posix() for place in places if place.is_relative_to(study)]


def within(place: str, folders) -> bool:
    return any(Path(place).is_relative_to(folder) for folder in folders)


@pytest.mark.parametrize("name", [name for name, stage in STAGES.items() if not (stage.demo or stage.always)])
def test_a_stage_reads_what_it_states(study, opened, name, tmp_path, monkeypatch):
    stage = STAGES[name]
    monkeypatch.chdir(study)
    sections = [key.removeprefix("files.") for key in stage.params if key.startswith("files.")]
    files = named(study, sections, tmp_path / "hashes.json")
    stated = (
        *stage.inputs,
        *stage.may_read,
        *files,
        *outputs(stage),
        f"reports/{name}",
        f".work/{name}",
        *ANY_STAGE,
        *(DVCLIVE if stage.curves else ()),
    )
    # What is being published has another name until it is whole.
    published = [str(Path(place).with_name(f".new-{Path(place).name}")) for place in outputs(stage)]
    read = {place for place in opened[name] if not place.startswith(tuple(published))}
    assert read, "nothing was written down"
    assert sorted(place for place in read if not within(place, stated)) == []
    unread = [place for place in stage.inputs if not any(within(file, [place]) for file in read)]
    assert unread == []
