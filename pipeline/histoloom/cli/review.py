"""`histoloom review`: a page for a person who can't know which tiles are real, and their verdicts back."""

from __future__ import annotations

from pathlib import Path

from histoloom.data.commit import digest
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.quality.review import KEY, classes_asked, draw_review
from histoloom.report.review import write_review


def make_review(study: Study, folder: Path, count: int, seed: int) -> int:
    """Write `review.html` and the key to a new folder; returns how many tiles there are."""
    if folder.exists() and any(folder.iterdir()):
        raise HistoloomError(f"{folder} is not empty. Name a new folder, so that no review is overwritten.")
    images, key = draw_review(study, count, seed)
    folder.mkdir(parents=True, exist_ok=True)
    key.to_parquet(folder / KEY)
    write_review(images, digest(key["image_sha256"].tolist())[:12], classes_asked(key), folder / "review.html")
    return len(key)
