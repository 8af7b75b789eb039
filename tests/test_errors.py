"""Faults stop a stage, notes are said beside them."""

from __future__ import annotations

from pipeline.errors import Fault, Note, faults_among, notes_among


def test_a_note_says_its_place_and_is_told_from_a_fault():
    fault, note = Fault("a.csv", "it is empty.", "fill it in.", 3, "label"), Note("a.geojson", "2 points left out.", 4)
    assert str(note) == "a.geojson, row 4: 2 points left out."
    assert str(fault) == "a.csv, row 3, column 'label': it is empty. Remedy: fill it in."
    assert (faults_among([fault, note]), notes_among([fault, note])) == ([fault], [note])
