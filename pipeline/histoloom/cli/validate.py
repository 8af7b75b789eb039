"""`histoloom validate`: the faults of a study, in words or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from histoloom.data.study_folder import Study
from histoloom.errors import count_of, faults_among, lines_of, notes_among
from histoloom.exit_codes import FAULT
from histoloom.progress import results
from histoloom.studies.checks.validate import check_study, check_tiles


def print_faults(study: Study, *, deep: bool, as_json: bool) -> int:
    """Print faults and notes; returns the exit code.

    deep : also search the cut tiles for the same tissue under two patients.
    """
    found = check_study(study)
    if deep and not faults_among(found):
        found += check_tiles(study)
    faults, notes = faults_among(found), notes_among(found)
    if as_json:
        out = {"faults": [asdict(fault) for fault in faults], "notes": [asdict(note) for note in notes]}
        click.echo(json.dumps(out, indent=2, ensure_ascii=False))
        return FAULT if faults else 0
    for line in lines_of(notes):
        results.print(f"note: {line}", markup=False)
    for line in lines_of(faults):
        results.print(f"- {line}", markup=False)
    results.print(count_of(faults) if faults else "no faults")
    return FAULT if faults else 0
