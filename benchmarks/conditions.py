"""Whether pictures follow their conditions: mask, label, RNA, text and genotype, alone and together.

Each condition is measured on unfiltered samples of held-out conditions (purpose `evaluate`), by a judge that is
trained on real train tiles alone. Beside what was asked for stands what the judge would say had conditions been
dealt at random, and KID, so that a caricature that pleases the judge is seen.

In full it needs the real data that HISTOLOOM_REAL_DATA names; with --smoke it draws slides of its own.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from benchmarks.inputs import drawn, eosin, nuclei, planted, spots
from benchmarks.judges import (
    Network,
    Segmenter,
    agreement,
    correlation,
    judged,
    segmentation_loss,
    train_judge,
)
from benchmarks.run import arguments, flat, report
from benchmarks.studies import Study
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.config import Params
from histoloom.data.expression import read_expression
from histoloom.data.expression_values import normalised
from histoloom.data.genotype import parse_genotype
from histoloom.data.genotype_table import read_genotype
from histoloom.data.rows import spread, train_rows
from histoloom.learners.dice import dice
from histoloom.quality.kid import kid
from histoloom.report.pictures import contact_sheet

SCALE = 2.0
PROGRAMMES = 5
MOST_TRAIN_TILES = 4000
KID_SUBSETS = 50


@dataclass(frozen=True)
class Judgement:
    """What the judges work with: a study, how long they train, and where pictures go."""

    study: Study
    steps: int
    pictures: Path

    def train_tiles(self):
        rows = spread(train_rows(self.study.tiles), MOST_TRAIN_TILES)
        return rows, self.study.tiles.read(rows)

    def real(self) -> np.ndarray:
        return self.study.tiles.read(self.study.sources())

    def sample(self, *given: str) -> np.ndarray:
        """The plan's tiles under the named conditions, the others null."""
        every = self.study.params["train_denoiser"]["conditions"]
        return self.study.sample("-".join(given), {name: SCALE if name in given else 0.0 for name in every})

    def kid(self, images: np.ndarray) -> float:
        extractor = load_extractor("efficientnet-lite0", "cpu")
        return kid(extractor.features(images), extractor.features(self.real()), KID_SUBSETS, 0)["mean"]

    def kid_floor(self) -> float:
        """Of real train tiles, as many."""
        return self.kid(self.study.tiles.read(spread(train_rows(self.study.tiles), len(self.study.plan))))

    def classes(self, of: Callable[[pd.DataFrame], np.ndarray]):
        """A judge of what `of` says of rows, trained on the real train tiles of which it says something."""
        rows, images = self.train_tiles()
        truth = of(rows)
        images, truth = images[truth != ""], truth[truth != ""]
        names, targets = np.unique(truth, return_inverse=True)
        weights = torch.from_numpy(len(targets) / (len(names) * np.bincount(targets))).float()
        judge = train_judge(
            lambda: Network(len(names)), images, targets, lambda o, t: F.cross_entropy(o, t, weights), self.steps, 0
        )
        return lambda pictures: names[judged(judge, pictures).argmax(1)]

    def agreement(self, of: Callable[[pd.DataFrame], np.ndarray], judge, images: np.ndarray, groups: str) -> dict:
        """Of the pictures whose conditions say something, with the judge's accuracy on their real tiles."""
        sources = self.study.sources()
        stated, by = of(sources), sources[groups].to_numpy(str)
        said = stated != ""
        real = float((judge(self.real()[said]) == stated[said]).mean())
        return agreement(judge(images[said]), stated[said], by[said], 0) | {"real": real}


def column(name: str) -> Callable[[pd.DataFrame], np.ndarray]:
    return lambda rows: rows[name].fillna("").to_numpy(str)


def judge_masks(judgement: Judgement) -> tuple[dict, dict]:
    """Mask and label of one study, alone and together."""
    study = judgement.study
    rows, images = judgement.train_tiles()
    masks = (study.tiles.read(rows, "mask") > 0).astype(np.uint8)
    segmenter = train_judge(Segmenter, images, masks, segmentation_loss, judgement.steps, 0)

    def found(pictures: np.ndarray) -> np.ndarray:
        return judged(segmenter, pictures)[:, 0] > 0

    sources = study.sources()
    stated = study.tiles.read(sources, "mask") > 0
    deal = np.random.default_rng(0).permutation(len(stated))
    alone, label_alone, both = (judgement.sample(*names) for names in (("mask",), ("label",), ("mask", "label")))
    scores = {
        "floor": float(dice(found(alone), stated[deal], 1).mean()),
        "synthetic": float(dice(found(alone), stated, 1).mean()),
        "ceiling": float(dice(found(judgement.real()), stated, 1).mean()),
    }
    scores["share_of_the_way"] = (scores["synthetic"] - scores["floor"]) / (scores["ceiling"] - scores["floor"])
    organs = judgement.classes(column("label"))
    label, label_both = (
        judgement.agreement(column("label"), organs, images, "patient_id") for images in (label_alone, both)
    )
    together = {
        "mask_dice_over_alone": float(dice(found(both), stated, 1).mean()) / scores["synthetic"],
        "label_agreement_over_alone": label_both["matched"] / label["matched"],
    }
    _vary(judgement, "mask", stated.mean((1, 2)))
    _vary(judgement, "label", "label")
    _picture(judgement, "mask", study.tiles.read(sources, "mask"), judgement.real(), alone, both)
    keys = {"mask": {"dice": scores}, "label": {"agreement": label}, "together": together}
    kids = {"mask": alone, "label": label_alone, "together": both}
    return keys, {name: judgement.kid(images) for name, images in kids.items()} | {"real_train": judgement.kid_floor()}


def programmes_of(study: Study) -> tuple[pd.DataFrame, str]:
    """Expression programmes, principal components of the train samples' profiles, a row a sample; and the tiles' key."""
    config = Params.model_validate(study.params).train_encoders.rna
    config = config.model_copy(update={"table": str(study.folder / config.table)})
    table = normalised(read_expression(config), config.transform)
    profiles = table.loc[sorted(set(train_rows(study.tiles)[config.key]) & set(table.index))]
    mean, std = profiles.mean(0), profiles.std(0) + 1e-3
    axes = np.linalg.svd(((profiles - mean) / std).to_numpy(), full_matrices=False)[2][:PROGRAMMES]
    programmes = ((table - mean) / std) @ axes.T
    return programmes / programmes.loc[profiles.index].std(0), config.key


def rna_agreement(judgement: Judgement, made: np.ndarray, real: np.ndarray) -> dict:
    """Correlation of the programmes that a judge reads from pictures with those that were asked for."""
    programmes, key = programmes_of(judgement.study)
    rows, images = judgement.train_tiles()
    known = rows[key].isin(programmes.index).to_numpy()
    targets = programmes.loc[rows[key][known]].to_numpy(np.float32)
    judge = train_judge(lambda: Network(targets.shape[1]), images[known], targets, F.mse_loss, judgement.steps, 0)
    sources = judgement.study.sources()
    asked = sources[key].isin(programmes.index).to_numpy()
    stated, groups = programmes.loc[sources[key][asked]].to_numpy(), sources[key].to_numpy(str)[asked]
    found = correlation(judged(judge, made[asked]), stated, groups, 0)
    return found | {"real": correlation(judged(judge, real[asked]), stated, groups, 0)["matched"]}


def judge_spots(judgement: Judgement) -> tuple[dict, dict]:
    """RNA and text of one study, each alone."""
    study = judgement.study
    key, sources = study.params["train_encoders"]["rna"]["key"], study.sources()
    from_rna, from_text = judgement.sample("rna"), judgement.sample("text")
    rna = rna_agreement(judgement, from_rna, judgement.real())
    text = judgement.agreement(column("caption"), judgement.classes(column("caption")), from_text, key)
    _vary(judgement, "rna", programmes_of(study)[0].loc[sources[key]].to_numpy()[:, 0])
    _vary(judgement, "text", "caption")
    _picture(judgement, "rna-text", None, judgement.real(), from_rna, from_text)
    keys = {"rna": {"correlation": rna}, "text": {"agreement": text}}
    return keys, {
        "rna": judgement.kid(from_rna),
        "text": judgement.kid(from_text),
        "spots_real_train": judgement.kid_floor(),
    }


def judge_genotype(judgement: Judgement) -> tuple[dict, dict]:
    """A planted genotype, by measuring in pictures what was planted; and TP53 as it is, to explore."""
    study = judgement.study
    rows, images = judgement.train_tiles()
    config = Params.model_validate(study.params).train_encoders.genotype
    genotypes = read_genotype(config.model_copy(update={"table": str(study.folder / config.table)}))

    def state(marker: str) -> Callable[[pd.DataFrame], np.ndarray]:
        return lambda of: np.array([parse_genotype(genotypes[p]).get(marker, "") for p in of["patient_id"]])

    known, amounts = state("PLANTED")(rows), eosin(images)
    threshold = (amounts[known == "altered"].mean() + amounts[known == "wt"].mean()) / 2
    made = judgement.sample("genotype")

    def by_eosin(pictures: np.ndarray) -> np.ndarray:
        return np.where(eosin(pictures) > threshold, "altered", "wt")

    out = {
        "agreement": judgement.agreement(state("PLANTED"), by_eosin, made, "patient_id"),
        "tp53_exploratory": judgement.agreement(state("TP53"), judgement.classes(state("TP53")), made, "patient_id"),
    }
    _vary(judgement, "genotype", "genotype")
    _picture(judgement, "genotype", None, judgement.real(), made)
    return {"genotype": out}, {"genotype": judgement.kid(made), "planted_real_train": judgement.kid_floor()}


def _vary(judgement: Judgement, name: str, by: str | np.ndarray) -> None:
    """A row of pictures of one seed in which one condition takes different values and all else is fixed.

    Parameters
    ----------
    by : the plan's column whose distinct values are shown, or a number a row, whose range is shown.
    """
    plan = judgement.study.plan
    if isinstance(by, str):
        rows = plan.drop_duplicates(by).sort_values(by)
    else:
        rows = plan.iloc[np.argsort(by)[np.linspace(0, len(by) - 1, 8).astype(int)]]
    rows = rows.head(8).reset_index(drop=True)
    captions = None
    if isinstance(by, str):
        captions = [text.split(", ", 1)[-1] for text in rows[by].fillna("not tested")]
    judgement.pictures.mkdir(parents=True, exist_ok=True)
    images = judgement.study.varied(name, rows, SCALE)
    contact_sheet(images, columns=len(rows), captions=captions).save(judgement.pictures / f"varied-{name}.png")


def _picture(judgement: Judgement, name: str, masks: np.ndarray | None, *rows: np.ndarray, count: int = 10) -> None:
    """A row each: the masks, the real tiles that their conditions are taken from, and the synthetic tiles."""
    pick = np.linspace(0, len(rows[0]) - 1, count).astype(int)
    shown = [part[pick] for part in rows]
    if masks is not None:
        shown.insert(0, np.repeat((masks[pick] > 0).astype(np.uint8)[..., None] * 255, 3, -1))
    judgement.pictures.mkdir(parents=True, exist_ok=True)
    contact_sheet(np.concatenate(shown), columns=count).save(judgement.pictures / f"{name}.png")


REAL = {"nuclei": nuclei, "spots": spots, "planted": planted}
JUDGES = {"nuclei": judge_masks, "spots": judge_spots, "planted": judge_genotype}


def main() -> None:
    options = arguments(
        __doc__,
        tuple(JUDGES),
        work="keep the studies here, so that a broken run goes on where it stopped",
        pictures="write a row of pictures for each condition here",
    )
    keys, kids, details, budgets = {}, {}, {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.work or Path(temporary)).absolute()
        for name, judge in ((n, JUDGES[n]) for n in options.only):
            study = drawn(root, name) if options.smoke else REAL[name](root)
            start = time.monotonic()
            study.train()
            steps, pictures = (10, 600)[not options.smoke], options.pictures or root / "pictures"
            found, measured = judge(Judgement(study, steps, pictures))
            keys, kids = keys | found, kids | measured
            details[f"minutes_{name}"] = (time.monotonic() - start) / 60
            budgets[name] = study.params
    report("conditions", options.smoke, budgets, flat(keys | {"kid": kids}), details, options.json)


if __name__ == "__main__":
    main()
