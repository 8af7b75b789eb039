"""A genotype's text: what is written is read, and what would be read otherwise is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoloom.data.genotype import SEPARATORS, parse_genotype, write_genotype

NAMES = st.text(min_size=1).filter(lambda name: not any(mark in name for mark in SEPARATORS))


@given(st.dictionaries(NAMES, NAMES))
def test_what_is_written_is_read(states):
    assert parse_genotype(write_genotype(states)) == states


@pytest.mark.parametrize("states", [{"HLA=A": "wt"}, {"A;B": "wt"}, {"A": "x;B=y"}, {"": "wt"}, {"A": ""}])
def test_names_that_would_be_read_otherwise_are_refused(states):
    with pytest.raises(ValueError, match="can't be in a genotype's text"):
        write_genotype(states)
