"""Write every param with its default, and what the files hold that params name.

The other stages depend on keys of that file, so that a key may be absent from params.yaml and a file may lie anywhere.
"""

from __future__ import annotations

from ruamel.yaml import YAML

from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.studies.named_files import files_of, resolved_models
from histoloom.studies.stage_work import Work


def run(work: Work) -> None:
    _check_models(work.study)
    write_resolved(work.study)


def _check_models(study: Study) -> None:
    """Refuse a dvc.yaml that was written for other models than params name: DVC would look for what no stage makes.

    Raises
    ------
    HistoloomError
    """
    path = study.root / "dvc.yaml"
    stages = (YAML(typ="safe").load(path) or {}).get("stages", {}) if path.is_file() else {}
    written, named = (stages.get("train_denoiser") or {}).get("foreach", []), list(study.stated.models)
    if stages and [*written] != named:
        has, wants = (", ".join(models) or "one without a name" for models in (written, named))
        raise HistoloomError(
            f"dvc.yaml has stages of other models ({has}) than params.yaml names ({wants}). Write it anew: histoloom stages > dvc.yaml"
        )


def write_resolved(study: Study) -> None:
    """Write the resolved params of a study whole."""
    meant = study.stated.model_dump(mode="json") | {"files": files_of(study), "models": resolved_models(study)}
    study.resolved.parent.mkdir(parents=True, exist_ok=True)
    whole = study.resolved.with_name(".resolved.new")
    with whole.open("w", encoding="utf-8") as stream:
        YAML(typ="safe").dump(meant, stream)
    whole.replace(study.resolved)
