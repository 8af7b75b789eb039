"""A condition, a target, a backbone and a reduction from outside the package, each in one file of the user's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from histoloom.config import load_params
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError, faults_among
from histoloom.registry import PLACES, extensions
from histoloom.studies.checks.validate import check_study
from histoloom.studies.code_identity import code_sha256
from tests.test_programs_study import TRAINED, make, run

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers"),
]

CONDITION = '''
import numpy as np
from histoloom.conditions.condition import Condition

class Darkness(Condition):
    """How dark a tile is: one number between 0 and 1, and whether it is given."""

    name, shape, reads = "darkness", "vector", ("image",)
    channels = ("darkness", "given")

    @classmethod
    def load(cls, source):
        return cls()

    def arrays(self, rows, tiles):
        dark = 1 - tiles("image").mean((1, 2, 3)) / 255
        return {self.name: np.stack([dark, np.ones_like(dark)], 1).astype(np.float32)}
'''
TARGET = '''
import numpy as np
import torch
from histoloom.targets.target import Raster

class Grey(Raster):
    """The mean of the three colours."""

    reads, makes, channels, factor, reach = ("image",), ("image",), 1, 1, 0

    @classmethod
    def load(cls, folder, device, precision="fp32"):
        return cls()

    def encode(self, arrays):
        return torch.from_numpy(arrays["image"]).float().mean(-1)[:, None] / 127.5 - 1

    def decode(self, data):
        values = ((data[:, 0].float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
        return {"image": np.repeat(values[..., None], 3, -1)}
'''
BACKBONE = '''
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from histoloom.backbones.backbone import Backbone

class Plain(Backbone):
    """Two convolutions, and what the vector and the time say added between."""

    def __init__(self, channels, told):
        super().__init__()
        self.sizes = channels, told
        self.first, self.last = nn.Conv2d(channels, 8, 3, padding=1), nn.Conv2d(8, channels, 3, padding=1)
        self.tell = nn.Linear(told + 1, 8)

    @classmethod
    def build(cls, config, specs, shape):
        return cls(shape[0], sum(spec.size for spec in specs))

    @classmethod
    def load(cls, source, record=None, revision=None):
        weights = load_file(f"{source}/plain.safetensors")
        made = cls(weights["first.weight"].shape[1], weights["tell.weight"].shape[1] - 1)
        made.load_state_dict(weights)
        return made

    def save(self, folder):
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, f"{folder}/plain.safetensors")

    @property
    def channels(self):
        return self.sizes[0]

    def predict(self, x, times, given):
        told = self.tell(torch.cat([given.vector, times[:, None] / 1000], 1))
        return self.last(torch.relu(self.first(x) + told[..., None, None]))
'''
REDUCE = '''
import numpy as np

def darkest(drawn, config):
    """Of each row the darkest sample."""
    images = np.stack([one["image"] for one in drawn.samples])
    chosen = images.mean((2, 3, 4)).argmin(0)
    return {"image": images[chosen, np.arange(len(chosen))]}
'''
EXTENSIONS = {
    "condition": {"darkness": "own/darkness.py:Darkness"},
    "target": {"grey": "own/grey.py:Grey"},
    "backbone": {"plain": "own/plain.py:Plain"},
    "reduce": {"darkest": "own/darkest.py:darkest"},
}
REQUESTS = [
    {"name": "one", "tiles": 4},
    {"name": "dark", "tiles": 4, "samples": 4, "reduce": "darkest", "purpose": "predict"},
    {"name": "each", "tiles": 4, "samples": 4, "purpose": "predict"},
]


def write(folder: Path) -> Study:
    """The four files, and a study that names them."""
    (folder / "own").mkdir()
    for name, text in (("darkness", CONDITION), ("grey", TARGET), ("plain", BACKBONE), ("darkest", REDUCE)):
        (folder / "own" / f"{name}.py").write_text(text)
    make(folder, {"target": "pixels", "conditions": ["label"]}, [REQUESTS[0]])
    params = YAML(typ="safe").load((folder / "params.yaml").read_text())
    params["extensions"], params["plan"]["requests"] = EXTENSIONS, REQUESTS
    params["train_denoiser"] |= {"target": "grey", "backbone": "plain", "conditions": ["darkness", "label"]}
    (folder / "params.yaml").write_text(json.dumps(params))
    return Study()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_study_runs_on_pieces_of_the_user_s(tmp_path, monkeypatch, workers):
    monkeypatch.chdir(tmp_path)
    study = write(tmp_path)
    (tmp_path / "cluster.yaml").write_text(f"workers: {workers}\ntraining_threads: 1\ntraining_processes: 2\n")
    assert not faults_among(check_study(study))
    run(*TRAINED, "plan", "sample", "sample_slides", "tile_slides", "train_filters", "filter")
    record = json.loads(Path("models/denoiser/conditions.json").read_text())
    assert record["training"]["target"] == "grey" and record["training"]["backbone"] == "plain"
    assert record["conditions"][0]["channels"] == ["darkness", "given"]
    store = TileStore("data/synthetic")
    images = store.read(store.rows())
    assert (images[..., 0] == images[..., 1]).all() and images.std() > 1
    predicted = TileStore("data/predicted")
    rows = predicted.rows()
    dark, each = (predicted.read(rows[rows["request"] == name]).mean() for name in ("dark", "each"))
    assert dark < each


def test_a_change_of_a_piece_counts_for_the_stages_that_load_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = write(tmp_path)
    before = {stage: code_sha256(stage, study.params) for stage in ("tile", "encode", "train_denoiser", "sample")}
    place = Path("own/grey.py")
    place.write_text(place.read_text().replace("mean(-1)", "amax(-1)"))
    from histoloom.studies import code_identity

    code_identity._sha256.cache_clear()
    code_identity._meaning.cache_clear()
    code_identity._imported.cache_clear()
    after = {stage: code_sha256(stage, study.params) for stage in before}
    assert {stage for stage in before if before[stage] != after[stage]} == {"encode", "sample"}


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"condition": {"darkness": "own/nowhere.py:Darkness"}}, "nowhere.py, which 'extensions' names, can't be read"),
        ({"condition": {"darkness": "own/grey.py:Darkness"}}, "has no 'Darkness'"),
        (
            {"condition": {"darkness": "own/broken.py:Darkness"}},
            "broken.py, which 'extensions' names, can't be read: invalid syntax",
        ),
        ({"condition": {"label": "own/darkness.py:Darkness"}}, "are names of histoloom's own"),
        ({"condition": {"darkness": "own/darkness.py"}}, "String|string|match"),
        ({"colour": {"darkness": "own/darkness.py:Darkness"}}, "condition"),
    ],
)
def test_what_is_no_piece_is_said(tmp_path, monkeypatch, stated, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    Path("own/broken.py").write_text("class Darkness(:\n")
    params = json.loads(Path("params.yaml").read_text())
    params["extensions"] = EXTENSIONS | stated
    Path("params.yaml").write_text(json.dumps(params))
    with pytest.raises(HistoloomError, match=message):
        load_params("params.yaml")
        run("tile", "train_encoders")
    assert set(extensions()) <= set(PLACES)  # a kind that is none stays unknown: other studies of this process go on
