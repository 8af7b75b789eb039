"""`histoloom advise`: which recipe is likely to help this study, what it costs, and when not to bother."""

from __future__ import annotations

from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.progress import console
from histoloom.uplift.advice import advice, findings, situation_of


def print_advice(study: Study) -> None:
    """Print it.

    Raises
    ------
    HistoloomError
        when the study's tiles are not cut yet.
    """
    if not study.tiles.is_dir():
        raise HistoloomError("This study has no tiles yet, and advice counts them. Run: dvc repro tile")
    situation = situation_of(study.real().rows(), study.params)
    for paragraph in advice(situation, findings()):
        console.print(paragraph, markup=False, soft_wrap=False)
    console.print("Nobody measured your study. uplift does: dvc repro, then the first answers of reports/index.html.")
