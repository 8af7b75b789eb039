"""Checks the prose of markdown pages: `python -m tests.prose [PAGE ...]` lists what is too long, too crowded or linked to nothing.

Tables, headings, code and the targets of links are no prose. Inline code counts as one word.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_WORDS = 40
MOST_WORDS_ON_AVERAGE = 20
MOST_MEASUREMENTS = 2

_FENCE = re.compile(r"^\s*(```+|~~~+)")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+")
_NO_PROSE = re.compile(r"^\s*(?:\||#|<|!!!|\?\?\?|:::|---+\s*$|\[[^\]]+\]:\s)")
_PICTURE = re.compile(r"!\[[^\]]*\]\([^)]*\)")
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]*)[^)]*\)")
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
_PERIOD_WITHIN = re.compile(r"\b(et al|e\.g|i\.e|cf|vs|eq|fig|no|approx|resp|Dr|St)\.", re.IGNORECASE)
_END = re.compile(r"(?<=[.!?])[)\"'*_]*\s+")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_LEVEL = re.compile(r"\b95 %")  # of an interval: no measurement
_NUMBER = r"(?<![\w.])(?<!\w-)[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?![\w]|-\w)"
_UNIT = r"(?:\s?(?:%|µm/px|(?:px|s|ms|MB|GB|MiB|GiB|kB|dB|minutes|hours)\b))?"
_RANGE = rf"between\s{_NUMBER}{_UNIT}\sand\s{_NUMBER}"
_MEASUREMENT = re.compile(rf"{_RANGE}|{_NUMBER}{_UNIT}(?:\s*(?:to|x|×|–|-|of|in)\s*{_NUMBER})*")


@dataclass(frozen=True)
class Sentence:
    line: int
    text: str

    @property
    def words(self) -> int:
        return sum(any(letter.isalnum() for letter in word) for word in self.text.split())

    @property
    def measurements(self) -> list[str]:
        """Numbers; a range, a size or "3 of 5" is one. Years and the level of an interval are none."""
        return [found[0] for found in _MEASUREMENT.finditer(_LEVEL.sub("", _YEAR.sub("", self.text)))]


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "systems").rglob("README.md"))]


def sentences(markdown: str) -> list[Sentence]:
    """Of all paragraphs and items of lists, with the line on which each begins."""
    return [sentence for block in _blocks(markdown) for sentence in _split(block)]


def faults(markdown: str) -> Iterator[tuple[int, str, str]]:
    """(line, what is wrong, the sentence); line 1 for the page's average."""
    found = sentences(markdown)
    for sentence in found:
        if sentence.words > MOST_WORDS:
            yield sentence.line, f"{sentence.words} words, at most {MOST_WORDS}", sentence.text
        if len(numbers := sentence.measurements) > MOST_MEASUREMENTS:
            yield sentence.line, f"{len(numbers)} measurements ({'; '.join(numbers)}): use a table", sentence.text
    average = sum(sentence.words for sentence in found) / max(len(found), 1)
    if average > MOST_WORDS_ON_AVERAGE:
        yield 1, f"{average:.1f} words a sentence, at most {MOST_WORDS_ON_AVERAGE} on average", ""


def links(markdown: str) -> Iterator[tuple[int, str, str]]:
    """(line, file, anchor) of links and pictures that stay in the repository; no file where the anchor is of the page itself."""
    for number, line in _lines(markdown):
        for found in _LINK.finditer(_CODE.sub("", line)):
            target, _, anchor = found[2].partition("#")
            if not re.match(r"[a-z]+:", target):
                yield number, target, anchor


def anchors(markdown: str) -> set[str]:
    """What links may lead to: headings, as GitHub and the site name them, and ids."""
    found = {id_ for _, line in _lines(markdown) for id_ in re.findall(r'<a id="([^"]+)"', line)}
    for heading in [line for _, line in _lines(markdown) if line.startswith("#")]:
        words = re.sub(r"[^\w\s-]", "", _LINK.sub(r"\1", heading).lstrip("# ")).lower()
        found.add(re.sub(r"\s", "-", words.strip()))
    return found


def _lines(markdown: str) -> Iterator[tuple[int, str]]:
    """Lines outside fences, comments and front matter."""
    fence, hidden = "", False
    for number, line in enumerate(markdown.splitlines(), 1):
        if number == 1 and line == "---":
            fence = line
        elif fence:
            fence = "" if line.strip().startswith(fence) else fence
        elif found := _FENCE.match(line):
            fence = found[1]
        elif hidden or "<!--" in line:
            hidden = "-->" not in line
        else:
            yield number, line


def _blocks(markdown: str) -> Iterator[list[tuple[int, str]]]:
    block: list[tuple[int, str]] = []
    before = 0
    for number, line in [*_lines(markdown), (-1, "")]:
        ends = not line.strip() or _NO_PROSE.match(line) or _ITEM.match(line) or number != before + 1
        if ends and block:
            yield block
            block = []
        if line.strip() and not _NO_PROSE.match(line):
            block.append((number, _ITEM.sub("", line).lstrip("> ")))
        before = number


def _split(block: list[tuple[int, str]]) -> Iterator[Sentence]:
    starts, text = [], ""
    for number, line in block:
        starts.append((len(text), number))
        text += line.strip() + " "
    marked = _CODE.sub(lambda code: "Code".ljust(len(code[0]), "\0"), text)
    marked = _PICTURE.sub(lambda picture: "\0" * len(picture[0]), marked)
    marked = _LINK.sub(lambda link: "\0" + link[1] + "\0" * (len(link[0]) - len(link[1]) - 1), marked)
    marked = _PERIOD_WITHIN.sub(lambda short: short[0][:-1].replace(".", "\0") + "\0", marked)
    begin = 0
    for end in [*(found.end() for found in _END.finditer(marked)), len(marked)]:
        if any(letter.isalnum() for letter in marked[begin:end]):
            line = next(number for at, number in reversed(starts) if at <= begin)
            yield Sentence(line, " ".join(marked[begin:end].replace("\0", "").split()))
        begin = end


def main(arguments: list[str]) -> int:
    wrong = 0
    for page in [Path(name).resolve() for name in arguments] or pages():
        for line, what, text in faults(page.read_text(encoding="utf-8")):
            sys.stdout.write(f"{page.relative_to(ROOT)}:{line}: {what}\n    {text}\n")
            wrong += 1
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
