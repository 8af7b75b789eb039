"""A command of the user's own, in place of the experiment's models."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from histoloom.config import Uplift
from histoloom.data.commit import command_files
from histoloom.errors import HistoloomError
from histoloom.learners.command import Command
from histoloom.learners.learner import Training
from histoloom.training.run import TrainingRun
from tests.uplift.studies import CLASSES, params_of, run_uplift, write_study

MINE = """
import sys
from dataclasses import dataclass
from pathlib import Path
import numpy as np, pandas as pd
from PIL import Image
dataset, output = Path(sys.argv[1]), sys.argv[2]
def mean(paths): return np.array([np.asarray(Image.open(p)).mean((0, 1)) for p in paths])
classes = sorted(p.name for p in (dataset / "train").iterdir())
centres = np.stack([mean((dataset / "train" / c).glob("*.png")).mean(0) for c in classes])
tests = sorted((dataset / "test").glob("*.png"))
near = np.exp(-np.linalg.norm(mean(tests)[:, None] - centres, axis=2))
table = pd.DataFrame(near / near.sum(1, keepdims=True), columns=classes)
table.assign(tile_id=[p.stem for p in tests]).to_parquet(output)
"""


def test_a_command_of_ones_own_trains_and_predicts(folder):
    labels = list(CLASSES) * 4
    write_study(folder, labels, labels)
    Path("mine.py").write_text(MINE)
    command = f"{sys.executable} mine.py {{dataset}} {{predictions}}"
    found = run_uplift(params_of(arms=["real", "synthetic"], seeds=1, learner="command", command=command))
    assert all(arm["balanced_accuracy"] == 1 for arm in found["arms"])
    before = command_files(command)
    assert list(before) == ["mine.py"] or set(before) == {"mine.py", sys.executable}
    Path("mine.py").write_text(MINE + "# changed")
    assert command_files(command)["mine.py"] != before["mine.py"]
    params = params_of(arms=["real", "synthetic"], seeds=1, learner="command", command=command)
    assert run_uplift(params)["protocols_tried"] == 2, "another script is another try at the same test"


def test_a_command_s_folders_stay_in_its_dataset_whatever_classes_are_called(folder):
    """And those whose names can be folders are: a command of before finds them."""
    look = "import json, pathlib, sys; d = pathlib.Path(sys.argv[1]); "
    look += "said = json.loads((d / 'classes.json').read_text()); "
    look += "said['found'] = [len(list((d / 'train' / f).glob('*.png'))) for f in said['folders']]; sys.exit(json.dumps(said))"
    Path("look.py").write_text(look)
    run, call = (
        TrainingRun("mine", 1, 1e-3, 0, Path("work"), 1),
        f"{sys.executable} look.py {{dataset}} {{predictions}}",
    )
    images = np.zeros((3, 8, 8, 3), np.uint8)
    for names, folders in ((("z", "a"), ["a", "z"]), (("../../up", "b"), ["0_.._.._up", "1_b"])):
        with pytest.raises(HistoloomError) as error:
            training = Training("command", "label", names, run, 8, command=call)
            Command.fit(images, np.array([0, 1, 0]), training).predict(images[:1], ["t"])
        said = json.loads(str(error.value).split(": ", 1)[1])
        assert said["classes"] == sorted(names) and said["folders"] == folders
        assert dict(zip(said["classes"], said["found"])) == {names[0]: 2, names[1]: 1}
    assert sorted(p.name for p in folder.iterdir()) == ["look.py", "work"]


@pytest.mark.parametrize(("script", "said"), [
    ("raise SystemExit('no such net')", "ended with 1: no such net"),
    (MINE.replace("tests = sorted(", "tests = 2 * sorted("), "wrote two rows for test-0"),
    ("import sys; open(sys.argv[2], 'w').write('no table')", "wrote no Parquet"),
    ("pass", "wrote no Parquet"),
    (MINE.replace("near / near.sum(1, keepdims=True)", "near * 0 + 2"), "are no probabilities"),
])  # fmt: skip
def test_a_command_that_fails_is_told_how(script, said, folder):
    labels = list(CLASSES) * 4
    write_study(folder, labels, labels)
    Path("mine.py").write_text(script)
    command = f"{sys.executable} mine.py {{dataset}} {{predictions}}"
    with pytest.raises(HistoloomError, match=said):
        run_uplift(params_of(arms=["real"], seeds=1, learner="command", command=command))


def test_a_command_is_asked_for_no_augmentation_that_it_would_not_know_of():
    command = {"learner": "command", "command": "mine {dataset} {predictions}"}
    assert Uplift.model_validate(command).arms == ("real", "real+synthetic", "synthetic")
    with pytest.raises(ValueError, match=r"names real\+classical, and a command is given the same tiles"):
        Uplift.model_validate(command | {"arms": ["real", "real+classical"]})
