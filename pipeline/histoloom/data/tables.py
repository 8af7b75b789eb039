"""Tables of what is known of a patient, a slide or a spot beside the picture: expression and genotype."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from histoloom.config import Params, Rna
from histoloom.config.train_encoders import SampleTable
from histoloom.data.expression import check_expression
from histoloom.data.found import Found, listed
from histoloom.data.genotype import WILD_TYPE, parse_genotype
from histoloom.data.genotype_table import check_genotype
from histoloom.data.keys import StudyKeys, check_matches
from histoloom.errors import Fault, Note
from histoloom.registry import registered


def check_tables(
    params: Params, keys: Callable[[str], StudyKeys] | None = None, encoder: Path | None = None
) -> list[Fault | Note]:
    """Faults of the tables that the conditions in use need.

    keys : a table's key column to the ids that the study has in it, where those are known.
    encoder : folder of the expression encoder that is loaded, where one is.
    """
    config, names = params.train_encoders, params.conditions
    found: list[Fault | Note] = []
    if "rna" in names or any(request.where.gene for request in params.plan.requests):
        expression, faults = check_expression(config.rna)
        found += faults
        if expression is not None:
            found += [*_matches(expression, config.rna, keys), *_check_profiles(expression, params)]
            found += [] if encoder is None else check_fit(config.rna, expression, encoder)
    if "genotype" in names:
        genotypes, faults = check_genotype(config.genotype)
        found += faults
        if genotypes is not None:
            found += [*_matches(genotypes, config.genotype, keys), *_check_states(genotypes, params)]
    return found


def _matches(
    table: pd.DataFrame | pd.Series, config: SampleTable, keys: Callable[[str], StudyKeys] | None
) -> list[Fault | Note]:
    if keys is None:
        return []
    study = keys(config.key)
    if isinstance(table, pd.DataFrame) and not study.every & {*table.index} and study.every & {*table.columns}:
        problem = f"its columns are the study's ids and its rows are not: {listed(table.columns)}."
        remedy = "name its first column 'gene', for genes are in its rows."
        return [Fault(str(config.table), problem, remedy, None, config.key)]
    return check_matches(table.index, study, config)


def check_fit(config: Rna, table: pd.DataFrame, encoder: Path) -> list[Fault | Note]:
    """Whether an expression encoder that is loaded can read a table: its transform, and how many of its genes the table has."""
    try:
        facts = json.loads((encoder / "config.json").read_text(encoding="utf-8"))
        transform, genes = facts["transform"], facts["genes"]
    except (OSError, ValueError, KeyError):
        return []  # whoever loads it says what is wrong
    missing = sorted({*genes} - {*table.columns})
    found: list[Fault | Note] = []
    if transform != config.transform:
        problem = (
            f"the encoder '{config.init}' was fitted on transform: {transform}, and params state {config.transform}."
        )
        remedy = (
            f"give it a table for {transform} and state that, or fit one of your own ({config.section}.init: train)."
        )
        found.append(Fault("params.yaml", problem, remedy, None, f"{config.section}.transform"))
    if len(missing) == len(genes):
        problem = f"it has none of the genes of the encoder '{config.init}'; its own are {listed(table.columns)}."
        remedy = f"name genes as the encoder does ({listed(genes[:3])}), or set {config.section}.init: train."
        found.append(Fault(str(config.table), problem, remedy, None, "gene"))
    elif missing:
        fact = f"it lacks {len(missing)} of the encoder's {len(genes)} genes, which take the mean: {listed(missing)}."
        found.append(Note(str(config.table), fact, None, "gene"))
    return found


def _check_profiles(table: pd.DataFrame, params: Params) -> list[Fault | Note]:
    """Genes and profiles that requests name and the table has not."""
    where, genes, found = params.train_encoders.rna.table, {*table.columns}, Found("params.yaml")
    for number, request in enumerate(params.plan.requests):
        for gene in sorted({*request.where.gene} - genes):
            remedy = f"name one of its genes, such as {listed(table.columns[:3])}."
            found.fault(f"{where} has no gene '{gene}'.", remedy, column=f"plan.requests[{number}].where.gene")
    named = [(f"plan.requests[{n}].change.rna", request.change.rna) for n, request in enumerate(params.plan.requests)]
    named += [(f"sample_slides.slides, '{slide.name}'", slide.rna) for slide in params.sample_slides.slides]
    for place, profile in named:
        if profile is not None and profile not in table.index:
            remedy = f"name one of its samples, such as {listed(table.index[:3])}."
            found.fault(f"{where} has no profile '{profile}'.", remedy, column=place)
    return found.all


def _check_states(genotypes: pd.Series, params: Params) -> list[Fault | Note]:
    """Markers and states that requests and slides name and the table has not, which no model can have learnt."""
    known: dict[str, set[str]] = {}
    for text in genotypes:
        for marker, state in parse_genotype(text).items():
            known.setdefault(marker, {WILD_TYPE, "not_tested"}).add(state)
    named = [
        (f"plan.requests[{number}].{part}.genotype", states)
        for number, request in enumerate(params.plan.requests)
        for part, states in (("where", request.where.genotype), ("change", request.change.genotype))
    ]
    named += [(f"sample_slides.slides, '{s.name}'", parse_genotype(s.genotype)) for s in params.sample_slides.slides]
    found = Found("params.yaml")
    for place, states in named:
        for marker, state in ((m, s) for m, s in states.items() if s not in known.get(m, ())):
            has = f"of '{marker}' it has {listed(sorted(known[marker]))}" if marker in known else ""
            problem = f"nobody in {params.train_encoders.genotype.table} has '{marker}={state}'."
            remedy = f"{has or f'its markers are {listed(known)}'}: name one of those."
            found.fault(problem, remedy, column=place)
    return found.all


def with_conditions(rows: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Add to real rows what the conditions in use state of them: the columns `rna` (the key of a profile), `genotype` (text), `cohort` and
    `number` (JSON), which are empty where not in use."""
    out = rows.assign(rna=None, genotype=None, cohort=None, number=None)
    for link in params.run_models.values():
        for condition in (registered("condition", name) for name in link.train_denoiser.encoded):
            if (values := condition.stated(rows, link)) is not None:
                out[condition.column] = values
    return out
