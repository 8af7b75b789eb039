"""Makes diffusers know the pipeline of a package's folder, once both are imported.

`DiffusionPipeline.from_pretrained` looks for the class that `model_index.json` names in the module `diffusers`. It is put there right after
diffusers' pipelines were imported, so that `import histoloom` imports neither diffusers nor torch.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_PIPELINES = "diffusers.pipelines.pipeline_utils"


def register_when_imported() -> None:
    """Put `HistoloomPipeline` into the module diffusers: now, or when its pipelines are imported."""
    if _PIPELINES in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _AfterPipelines())


def _register() -> None:
    import diffusers

    from histoloom.diffusers_pipeline import HistoloomPipeline

    diffusers.HistoloomPipeline = HistoloomPipeline  # type: ignore[attr-defined]  # which is what is added


class _AfterPipelines(MetaPathFinder):
    """Finds diffusers' pipelines as they are found without it, and registers once they are executed."""

    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != _PIPELINES:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
