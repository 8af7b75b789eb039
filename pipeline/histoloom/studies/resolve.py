"""Write every param with its default, and what the files hold that params name.

The other stages depend on keys of that file, so that a key may be absent from params.yaml and a file may lie anywhere.
"""

from __future__ import annotations

from ruamel.yaml import YAML

from histoloom.data.study_folder import Study
from histoloom.studies.named_files import files_of, resolved_models
from histoloom.studies.stage_work import Work


def run(work: Work) -> None:
    write_resolved(work.study)


def write_resolved(study: Study) -> None:
    """Write the resolved params of a study whole."""
    meant = study.stated.model_dump(mode="json") | {"files": files_of(study), "models": resolved_models(study)}
    study.resolved.parent.mkdir(parents=True, exist_ok=True)
    whole = study.resolved.with_name(".resolved.new")
    with whole.open("w", encoding="utf-8") as stream:
        YAML(typ="safe").dump(meant, stream)
    whole.replace(study.resolved)
