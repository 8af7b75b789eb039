"""A blinded review: the page says nothing of what is real, and verdicts come back as a score and as a filter."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from histoloom.cli import review
from histoloom.cli.main import cli
from histoloom.data.schema import SYNTHETIC_ROW
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError, ManifestFaults
from histoloom.quality import review as reviews
from histoloom.quality.filters.base import Tiles
from histoloom.quality.filters.reviewed import ReviewFilter
from histoloom.quality.review import KEY
from tests.build import make_part, make_study, synthetic_rows, tile_rows, tiles, write_verdicts

REVIEWED = Study().reviews


def make_review(folder: Path, count: int, seed: int) -> int:
    return review.make_review(Study(), folder, count, seed)


def score_review(folder: Path, verdicts: Path) -> dict:
    return reviews.score_review(folder, verdicts, REVIEWED)


REVIEW = Path("review")


@pytest.fixture
def study(folder):
    """Twelve held-out real tiles and ten accepted synthetic ones; two more that were rejected."""
    make_study(".", [])
    make_part("data/tiles", "SLIDE", tile_rows(12, split="test", label="keratin"), tiles(12, 16, 1))
    rows = synthetic_rows(12, label="keratin")
    make_part("data/synthetic", "augment-00000", rows, tiles(12, 16, 2), SYNTHETIC_ROW)
    write_verdicts("data/verdicts/augment-00000", rows, [True] * 10 + [False] * 2)
    return folder


def _verdicts(*rows: tuple, asks: tuple[str, ...] = ()) -> Path:
    with Path("verdicts.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("number", "verdict", "usable", *asks), *rows])
    return Path("verdicts.csv")


def test_a_review_shows_both_kinds_and_tells_neither(study):
    assert make_review(REVIEW, 16, 0) == 16
    key, page = pd.read_parquet(REVIEW / KEY), (REVIEW / "review.html").read_text()
    assert key["source"].value_counts().to_dict() == {"real": 8, "synthetic": 8} and set(key["label"]) == {"keratin"}
    assert not set(key["tile_id"]) & {"synthetic-010", "synthetic-011"} and list(key["number"]) == list(range(1, 17))
    assert key["source"].ne(key["source"].shift()).sum() > 3  # mixed
    assert not any(name in page for name in key["tile_id"]) and "SLIDE" not in page
    assert not re.search(r"""(src|href)=["']?https?:""", page)


def test_a_review_is_not_overwritten_and_needs_tiles(study):
    make_review(REVIEW, 4, 0)
    with pytest.raises(HistoloomError, match="not empty"):
        make_review(REVIEW, 4, 0)
    shutil.rmtree("data/verdicts")
    with pytest.raises(HistoloomError, match="dvc repro filter"):
        make_review(Path("other"), 4, 0)


def test_each_label_shows_as_many_of_both_kinds(study):
    make_part("data/tiles", "MORE", tile_rows(30, split="test", label="dermis"), tiles(30, 16, 3))
    make_review(REVIEW, 100, 0)
    key = pd.read_parquet(REVIEW / KEY)
    mixed_in = {("dermis", "real"): 10}  # so that keratin can't be guessed
    assert key.groupby(["label", "source"]).size().to_dict() == {
        ("keratin", "real"): 10,
        ("keratin", "synthetic"): 10,
        **mixed_in,
    }
    shutil.rmtree("data/tiles/SLIDE")
    with pytest.raises(HistoloomError, match="No label has both"):
        make_review(Path("other"), 10, 0)


def test_real_tiles_fill_up_a_label_that_has_few_synthetic_ones(study):
    make_part("data/tiles", "OTHER", tile_rows(20, split="test", label="dermis"), tiles(20, 16, 3))
    rows = synthetic_rows(2, label="dermis").assign(tile_id=["few-0", "few-1"])
    make_part("data/synthetic", "augment-00001", rows, tiles(2, 16, 4), SYNTHETIC_ROW)
    write_verdicts("data/verdicts/augment-00001", rows, [True, True])
    make_review(REVIEW, 100, 0)
    key = pd.read_parquet(REVIEW / KEY)
    assert key.groupby(["label", "source"])["compared"].agg(["sum", "count"]).to_numpy().tolist() == [
        [2, 10], [2, 2], [10, 10], [10, 10],
    ]  # fmt: skip
    verdicts = [(n, "real", "yes", label) for n, label in zip(key["number"], key["label"])]
    score = score_review(REVIEW, _verdicts(*verdicts, asks=("class",)))
    assert score["right"]["n"] == 24 and score["right"]["fraction"] == 0.5 and score["real_named_rightly"]["n"] == 20


def test_a_reader_who_knows_and_one_who_guesses(study):
    make_review(REVIEW, 20, 0)
    key = pd.read_parquet(REVIEW / KEY)
    knows = score_review(REVIEW, _verdicts(*((r.number, r.source, "yes") for r in key.itertuples())))
    assert knows["right"]["fraction"] == 1 and knows["synthetic_taken_for_real"]["fraction"] == 0
    assert knows["right"]["interval"][0] == pytest.approx(20 / (20 + 1.96**2), abs=1e-3)  # Wilson's, all of n right
    fooled = score_review(REVIEW, _verdicts(*((r.number, "real", "yes") for r in key.itertuples())))
    assert fooled["right"]["fraction"] == 0.5 and fooled["right"]["interval"][0] < 0.5 < fooled["right"]["interval"][1]


def test_a_reader_is_asked_for_the_class_where_there_are_several(study):
    make_part("data/tiles", "MORE", tile_rows(30, split="test", label="dermis"), tiles(30, 16, 3))
    make_review(REVIEW, 20, 0)
    key = pd.read_parquet(REVIEW / KEY)
    assert "dermis (1)" in (REVIEW / "review.html").read_text()
    named = {("keratin", "synthetic"): "dermis", ("keratin", "real"): "keratin", ("dermis", "real"): "none"}
    rows = [(r.number, "real", "yes", named[r.label, r.source]) for r in key.itertuples()]
    with pytest.raises(HistoloomError, match="no column class"):
        score_review(REVIEW, _verdicts(*(row[:3] for row in rows)))
    score = score_review(REVIEW, _verdicts(*rows, asks=("class",)))
    assert score["synthetic_named_rightly"]["fraction"] == 0 and score["real_named_rightly"]["fraction"] == 0.5
    assert score["real_named_rightly_of_keratin"]["fraction"] == 1
    assert score["right"] == {**score["right"], "fraction": 0.5, "n": 20}  # of dermis nothing is synthetic
    with pytest.raises(ManifestFaults, match="'skin' is none of dermis, keratin, none"):
        score_review(REVIEW, _verdicts((1, "real", "yes", "skin"), asks=("class",)))


def test_what_was_found_unusable_is_rejected_and_nothing_else_of_its_name(study):
    make_review(REVIEW, 20, 0)
    key = pd.read_parquet(REVIEW / KEY)
    own = key[key["source"] == "synthetic"]
    bad = own["number"].iloc[0]
    score_review(REVIEW, _verdicts(*((n, "synthetic", "no" if n == bad else "yes") for n in own["number"])))
    store = TileStore("data/synthetic")
    rows = store.rows().set_index("tile_id", drop=False).loc[own["tile_id"]]
    found, images = ReviewFilter(REVIEWED), store.read(rows)
    scores = found.scores(Tiles(images, rows, None, None))["review_score"].to_numpy()
    assert list(found.rejects(scores, found.threshold(scores, 0.1))) == list(own["number"] == bad)
    assert found.scores(Tiles(images + 1, rows, None, None))["review_score"].isna().all()
    score_review(REVIEW, _verdicts((bad, "synthetic", "yes")))  # they thought better of it
    table = pd.read_csv(REVIEWED)
    assert len(table) == len(own) and (table["usable"] == "yes").all()


def test_every_fault_of_the_verdicts_is_named(study):
    make_review(REVIEW, 8, 0)
    with pytest.raises(ManifestFaults) as caught:
        score_review(REVIEW, _verdicts((1, "real", "yes"), (1, "fake", "yes"), (99, "real", "maybe")))
    said = str(caught.value)
    for part in ("no tile 99", "row 3, column 'verdict': 'fake'", "'maybe' is none of yes, no", "tile 1 has two"):
        assert part in said
    Path("verdicts.csv").write_text("number,verdict\n1,real\n")
    with pytest.raises(HistoloomError, match="no column usable"):
        score_review(REVIEW, Path("verdicts.csv"))


def test_the_command_makes_and_scores(study):
    done = CliRunner().invoke(cli, ["review", "make", "review", "-n", "6"])
    assert done.exit_code == 0 and "6 tiles" in done.output, done.output
    done = CliRunner().invoke(
        cli, ["review", "score", "review", str(_verdicts((1, "real", "yes"), (2, "real", "yes")))]
    )
    assert done.exit_code == 0 and "right: " in done.output and "filter.use" in done.output
    done = CliRunner().invoke(cli, ["review", "make", "review"])
    assert done.exit_code == 1 and "not empty" in done.output


@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no chromium to open the page in")
@pytest.mark.parametrize(
    "labels, pressed, wanted",
    [
        (1, '"r", "s", "x"', "1,real,yes\n2,synthetic,yes"),
        (2, '"r", "1", "3", "x", "s"', '1,real,yes,"dermis"\n2,synthetic,no,"none"'),
    ],
)
def test_the_page_works_in_a_browser(study, tmp_path, labels, pressed, wanted):
    if labels == 2:
        make_part("data/tiles", "MORE", tile_rows(3, split="test", label="dermis"), tiles(3, 16, 3))
    shown = make_review(REVIEW, 6, 0)
    page = (REVIEW / "review.html").read_text()
    acts = f'for (const key of [{pressed}]) document.dispatchEvent(new KeyboardEvent("keydown", {{ key }}));'
    acts += 'document.body.append(table(), byId("tile").naturalWidth);'
    (REVIEW / "acted.html").write_text(
        page.replace(
            "show();\n</script>",
            f'show();\nbyId("tile").onload = () => {{ if (at === 0 && !given[1]) {{ {acts} }} }};</script>',
        )
    )
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
               "--virtual-time-budget=5000", "--dump-dom", f"file://{(REVIEW / 'acted.html').resolve()}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert wanted in done.stdout and f"tile 3 of {shown}, 2 judged" in done.stdout
