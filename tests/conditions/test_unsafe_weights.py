"""Files of weights are read as tensors alone, whichever library reads them: a pickle that runs code runs none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from histoloom.conditions import inception as published
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.conditions.inception import build_inception, read_weights
from histoloom.conditions.text import load_text_encoder
from histoloom.config import Params
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.studies.checks.validate import check_study
from tests.conditions.test_towers import own_clip


class _Trap:
    """What makes a folder when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def trap(tmp_path) -> Path:
    """A file of weights that runs code, and `tmp_path / "ran"`, which is there if it did."""
    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": _Trap(tmp_path / "ran")}, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_the_trap_works(trap, tmp_path):
    """In a process of torch's alone: in this one nobody can unpickle it."""
    command = "import sys, torch; torch.load(sys.argv[1], weights_only=False)"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TORCH_FORCE")}
    subprocess.run([sys.executable, "-c", command, str(trap)], env=environment, check=True)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite2", "timm:test_resnet", "inception-v3"])
def test_a_stated_file_of_weights_runs_nothing(trap, tmp_path, name):
    with pytest.raises(HistoloomError):
        load_extractor(name, "cpu", str(trap))
    assert not (tmp_path / "ran").exists()


def test_a_folder_of_timm_s_runs_nothing(trap, tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architecture": "test_resnet", "pretrained_cfg": {}}))
    trap.rename(folder / "pytorch_model.bin")
    with pytest.raises(HistoloomError, match="could not be loaded"):
        load_extractor(f"timm:local-dir:{folder}", "cpu")
    assert not (tmp_path / "ran").exists()


def test_a_clip_s_folder_whose_weights_are_a_pickle_runs_nothing(trap, tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    own_clip(folder)
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    trap.rename(folder / "open_clip_pytorch_model.bin")
    with pytest.raises(HistoloomError, match=r"The text encoder .* could not be loaded"):
        load_text_encoder(str(folder))
    with pytest.raises(HistoloomError, match=r"The feature extractor .* could not be loaded"):
        load_extractor(str(folder), "cpu")
    assert not (tmp_path / "ran").exists()


def test_whatever_a_library_asks_for_only_tensors_are_read(trap, tmp_path):
    for options in ({"weights_only": False}, {}):
        with pytest.raises(Exception, match=r"[Ww]eights"):
            torch.load(trap, **options)
    assert not (tmp_path / "ran").exists()


class _Unloaded(FeatureExtractorInceptionV3):
    """The network as it is made."""

    def load_state_dict(self, state):
        return None


@pytest.fixture(scope="module")
def inception(tmp_path_factory) -> tuple[dict, Path]:
    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "empty.pth")
    state = _Unloaded("bare", ["2048"], feature_extractor_weights_path=folder / "empty.pth").state_dict()
    torch.save(state, folder / "weights.pth")
    return state, folder / "weights.pth"


def test_inception_is_loaded_from_the_file_whose_hash_is_stated(inception, monkeypatch):
    state, file = inception
    monkeypatch.setattr(published, "SHA256", sha256(file.read_bytes()).hexdigest())
    loaded = build_inception(read_weights(str(file))).state_dict()
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[k], v) for k, v in state.items())


def test_another_file_of_inception_s_is_refused_with_both_hashes(inception):
    _, file = inception
    found = sha256(file.read_bytes()).hexdigest()
    with pytest.raises(HistoloomError, match=f"its sha256 is {found}, and that file's 6726825d0af5f729cebd"):
        read_weights(str(file))
    assert Path(published.URL).stem.endswith(published.SHA256[:8])


def test_a_cached_file_of_inception_s_is_compared_too(trap, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    place = tmp_path / "checkpoints" / Path(published.URL).name
    place.parent.mkdir()
    trap.rename(place)
    with pytest.raises(HistoloomError, match="is not the published file"):
        load_extractor("inception-v3", "cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "weights, said",
    [("lost.pth", "there is no file lost.pth"), ("weights.pth", "is not inception-v3's published file")],
)
def test_validate_knows_the_weights_that_evaluate_would_refuse(trap, monkeypatch, weights, said):
    monkeypatch.chdir(trap.parent)
    stated = f"evaluate: {{features: inception-v3, weights: {weights}}}\n"
    Path("params.yaml").write_text("tile: {mpp: 1.0, labels: {classes: [a]}}\n" + stated)
    assert [said in str(fault) for fault in check_study(Study())].count(True) == 1


def test_weights_beside_what_has_its_own_are_refused():
    evaluate = {"features": "transformers:vinid/plip", "weights": "a.pth"}
    with pytest.raises(ValueError, match=r"evaluate\.weights is not read"):
        Params.model_validate({"tile": {"mpp": 0.5, "labels": {"classes": ["x"]}}, "evaluate": evaluate})
