"""The table of mutations and copy numbers: a CSV with a row a patient, slide or spot and a column a marker."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from histoloom.config import Genotype
from histoloom.data.alterations import NOT_TESTED, Reading, look_like_stages, readings, whole_number
from histoloom.data.csv_table import read_csv_table
from histoloom.data.found import Found, listed
from histoloom.data.genotype import SEPARATORS, write_genotype
from histoloom.data.ids import looks_like_date, made_a_date, near_duplicates
from histoloom.data.keys import read_keys
from histoloom.errors import Fault, Note, faults_among, refuse_faults

GENE_COLUMNS = (
    "gene", "geneid", "genename", "genesymbol", "symbol", "hugosymbol", "hgncsymbol", "ensemblid", "ensemblgeneid",
)  # fmt: skip
"""Names of a column of genes, as `plain_name` gives them."""
_MUTATION_COLUMNS = (
    "tumorsamplebarcode", "variantclassification", "hgvspshort", "proteinchange", "mutation", "varianttype",
)  # fmt: skip
_CLINICAL = re.compile(
    r"(^|[_ .-])(age|sex|gender|race|ethnicity|grade|p?[tnm]?stage|vital|os|pfs|dfs|death|survival|months|days|years?|date"
    r"|smok\w*|bmi|weight|height|diagnosis|histology|[cpy]+[tnm])($|[_ .-])",
    re.IGNORECASE,
)
_MEANINGS = {
    "mutation": "0 wild type and 1 altered",
    "gistic": "-2 deep_deletion, -1 loss, 0 wild type, 1 gain and 2 amplification",
}


def plain_name(column: str) -> str:
    """A column's name without case, blanks and marks."""
    return re.sub(r"[\W_]+", "", column).casefold()


def column_like(name: str, columns: Sequence[str]) -> str | None:
    """The column that may be meant by a name that none has."""
    near = [column for column in columns if plain_name(str(column)) == plain_name(name)]
    return next(iter(near or difflib.get_close_matches(name, columns, 1)), None)


def dates_among(genes: Iterable[str]) -> list[str]:
    """Names of genes that a spreadsheet made into dates, as SEPTIN2 (once SEPT2) into 2-Sep."""
    return [name for name in genes if made_a_date(name) or looks_like_date(name)]


def read_genotype(config: Genotype) -> pd.Series:
    """Genotypes as text (see data/genotype.py), indexed by the ids of `config.key`.

    Raises
    ------
    ManifestFaults
        with every fault found.
    """
    genotypes, found = check_genotype(config)
    refuse_faults(found)
    return genotypes


def check_genotype(config: Genotype) -> tuple[pd.Series | None, list[Fault | Note]]:
    """Read the genotype table as far as it goes, with the list of its faults and notes."""
    if config.table is None:
        problem = f"'genotype' is a condition, and {config.section}.table names no table."
        return None, [Fault("params.yaml", problem, "name it.")]
    if _is_maf(Path(config.table)):
        return None, [_long_table(config.table, "a mutation (MAF)", config)]
    table, unread = read_csv_table(config.table)
    found = Found(config.table)
    wanted = config.columns or tuple(c for c in table.columns if c != config.key)
    form = [] if table.columns.empty else [*_form_faults(table, wanted, config)]
    if table.columns.empty or form:
        return None, [*unread, *form]
    ids, faults = read_keys(table[config.key].tolist(), config, table.index.tolist())
    states = _states(table, wanted, config, found)
    if not any(states.values()) and not faults_among(found.all):
        found.fault("no marker was tested in any row.", f"mend it, or {config.section}.not_tested.")
    texts = [write_genotype(states[line]) for line in table.index]
    genotypes = pd.Series(texts, index=pd.Index(ids, dtype=object), dtype=object)
    return genotypes, [*unread, *faults, *found.all]


def _is_maf(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = [file.readline() for _ in range(50)]
    except OSError:
        return False
    header = next((line for line in head if line.strip() and not line.startswith("#")), "")
    names = {plain_name(name) for name in re.split("[\t,;]", header)}
    return "hugosymbol" in names and not names.isdisjoint(_MUTATION_COLUMNS)


def _long_table(where: str, of: str, config: Genotype) -> Fault:
    remedy = f"make a table with a row for each {config.key} and a column a gene: 'From a list of mutations' in the docs has the lines."
    return Fault(where, f"it has a row for {of}, not a row for each {config.key}.", remedy, 1)


def _form_faults(table: pd.DataFrame, wanted: tuple[str, ...], config: Genotype) -> Iterator[Fault]:
    """Faults of the header: what the columns are."""
    where, line, names = str(config.table), table.attrs.get("header_row", 1), list(table.columns)
    genes = next((name for name in names if plain_name(name) in GENE_COLUMNS), None)
    if genes is not None and config.key in names and genes in wanted:
        yield _long_table(where, f"a gene (column '{genes}')", config)
        return
    if genes is not None and config.key not in names:
        remedy = f"transpose it: a row for each {config.key}, a column a gene."
        yield Fault(where, f"it has genes in rows (column '{genes}').", remedy, line, config.key)
        return
    stated = config.numbers if isinstance(config.numbers, dict) else ()
    for column in dict.fromkeys((config.key, *wanted, *stated)):
        if column not in names:
            hint = f"rename '{near}' to it" if (near := column_like(column, names)) else "add it"
            yield Fault(where, "the column is missing.", f"{hint}, or mend {config.section}.", line, column)
    for column, twin in near_duplicates(wanted).items():
        problem = f"'{column}' and '{twin}' may be one marker, and would count as two."
        yield Fault(where, problem, "keep one of them, or rename it if it is another marker.", line, column)
    for column in wanted:
        if any(mark in column for mark in SEPARATORS):
            remedy = f"name the marker without them, or name the columns that are used in {config.section}.columns."
            yield Fault(where, "its name holds '=' or ';', which separate markers in a genotype.", remedy, line, column)
        twin = re.sub(r"\.\d+$", "", column)
        if twin != column and twin in names:
            problem = f"it looks like a second '{twin}', as pandas names it."
            yield Fault(where, problem, "keep one of them, or rename it if it is another marker.", line, column)


def _states(table: pd.DataFrame, wanted: tuple[str, ...], config: Genotype, found: Found) -> dict[int, dict[str, str]]:
    """Of each line, marker to state, those that were not tested left out."""
    how, unsure = readings({marker: table[marker] for marker in wanted}, config)
    unsure = [marker for marker in unsure if not _is_clinical(marker, config)]
    _check_columns(table, [marker for marker in wanted if marker not in unsure], how, config, found)
    states: dict[int, dict[str, str]] = {line: {} for line in table.index}
    if unsure:
        problem = f"0 and 1, or 1 and 2, may be a mutation's or GISTIC's levels here: column(s) {listed(unsure)}."
        found.fault(problem, f"state {config.section}.numbers: mutation, gistic, or one for each column.")
    for marker in wanted:
        for line, value in table[marker].items():
            if state := how[marker].state(value):
                states[line][marker] = state
    if untested := [m for m in wanted if all(how[m].state(value) == NOT_TESTED for value in table[m])]:
        found.note(f"nobody was tested for {len(untested)} column(s): {listed(untested)}.")
    for kind, meaning in _MEANINGS.items():
        if guessed := [marker for marker in wanted if how[marker].kind == kind and not _is_clinical(marker, config)]:
            fact = f"numbers are read as {meaning} in {len(guessed)} column(s): {listed(guessed)}"
            found.note(f"{fact} ({config.section}.numbers: {kind}).")
    if dates := dates_among(wanted):
        found.note(f"a spreadsheet made dates of {len(dates)} gene(s): {listed(dates)}.")
    return states


def _is_clinical(marker: str, config: Genotype) -> bool:
    """Whether a column that params don't name as a marker is named as what is no marker."""
    return not config.columns and bool(_CLINICAL.search(marker))


def _check_columns(
    table: pd.DataFrame, markers: list[str], how: dict[str, Reading], config: Genotype, found: Found
) -> None:
    """Values that mean nothing; columns that are no markers are one fault together, which names those that are."""
    strange, unread = {}, {}
    for marker in markers:
        states = table[marker].map(how[marker].state)
        values, unknown = table[marker][states != NOT_TESTED], table[marker][states.isna()]
        if len(unknown):
            unread[marker] = unknown
        if len(values) and (_is_clinical(marker, config) or len(unknown) == len(values) or look_like_stages(values)):
            strange[marker] = list(dict.fromkeys(values))[:3]
    rest = [marker for marker in markers if marker not in strange]
    if not rest:  # nothing shows what a marker is like here, so that the values are what has to be mended
        strange = {name: values for name, values in strange.items() if name not in unread or _is_clinical(name, config)}
    for marker in (marker for marker in unread if marker not in strange):
        _refuse_values(unread[marker], marker, config, found)
    if not strange:
        return
    shown = "; ".join(f"'{marker}' holds {listed(values)}" for marker, values in [*strange.items()][:5])
    more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
    use = f"name the markers alone in {config.section}.columns ({listed(rest)}), or " if rest else ""
    problem = f"{len(strange)} column(s) seem to be no markers: {shown}{more}."
    remedy = f"{use}say what the values mean: {config.section}.wild_type, altered, not_tested or numbers."
    found.fault(problem, remedy)


def _refuse_values(unknown: pd.Series, marker: str, config: Genotype, found: Found) -> None:
    values = list(dict.fromkeys(unknown))
    problem = f"{listed(values)} {'is' if len(values) == 1 else 'are'} neither wild type, nor an alteration, "
    problem += "nor 'not tested'" + (f" ({len(unknown)} row(s))." if len(unknown) > 1 else ".")
    remedy = f"mend it, or add it to {config.section}.wild_type, altered or not_tested."
    if any(whole_number(value) is not None for value in values):
        remedy = f"state {config.section}.numbers (mutation: 0 and 1; gistic: -2 to 2), or " + remedy
    found.fault(problem, remedy, int(unknown.index[0]), marker)
