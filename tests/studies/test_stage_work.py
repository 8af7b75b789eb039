"""What a stage finds when it was killed before."""

from histoloom.config import Params
from histoloom.studies.stage_work import open_work
from tests.stages import study_of


def test_what_a_killed_run_was_about_to_write_is_deleted(folder):
    tile = {"mpp": 1.0, "tile_px": 4, "stride_px": 4, "labels": {"source": "slide", "classes": ["tumour"]}}
    study = study_of(Params.model_validate({"tile": tile}), folder)
    with open_work("fetch", study) as work:
        unfinished = work.root / "checkpoints" / ".tmp-step-0000010-1a2b3c4d"
        whole = work.root / "checkpoints" / "step-0000005"
        for place in (unfinished, whole):
            place.mkdir(parents=True)
            (place / "state.safetensors").write_bytes(b"...")
        work.reports.mkdir(parents=True)
        metrics = work.reports / ".tmp-metrics.json-1a2b3c4d"
        metrics.write_text("{")
    with open_work("fetch", study):
        assert not unfinished.exists() and not metrics.exists()
        assert (whole / "state.safetensors").is_file()
