"""How much of a caption a text tower reads: captions cut into chunks of the tower's length, and what is left unread counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from histoloom.progress import console


@dataclass(frozen=True)
class TextReader:
    """What turns captions into a tower's tokens.

    tokenize : captions to (n, tokens) ids, longer ones cut
    padding : ids to (n, tokens) bool, True where a token is the caption's
    max_tokens : as params state it; None is one chunk
    count : a text to the tokens that all of it takes, start and end among them; None of a tower that can't tell
    """

    tokenize: Callable[[list[str]], torch.Tensor]
    padding: Callable[[torch.Tensor], torch.Tensor]
    max_tokens: int | None = None
    count: Callable[[str], int] | None = None

    @property
    def length(self) -> int:
        """Tokens of a chunk."""
        return self.tokenize([""]).shape[1]

    @property
    def chunk_count(self) -> int:
        """Chunks of a caption: `max_tokens` in whole chunks, or one."""
        length = self.length
        return max(1, -(-(self.max_tokens or length) // length))

    def chunks(self, caption: str) -> list[str]:
        """`chunk_count` texts, each as much of the caption as the tower reads; the last ones may be empty.

        A caption is cut between words. A word that a whole chunk doesn't hold, as text without spaces has them, is cut within.
        """
        rest, count = " ".join(caption.split()), self.chunk_count
        out: list[str] = []
        while rest and len(out) < count - 1:
            place = self._place_of_cut(rest)
            out.append(rest[:place].strip())
            rest = rest[place:].strip()
        return [*out, rest, *[""] * (count - len(out) - 1)]

    def ids(self, captions: list[str]) -> torch.Tensor:
        """(n * chunk_count, tokens) of all captions' chunks."""
        return self.tokenize([chunk for caption in captions for chunk in self.chunks(caption)])

    def measure(self, captions: Iterable[str | None]) -> dict[str, int]:
        """How much of the distinct captions is read, by name.

        distinct_captions : how many there are
        captions_cut : how many are longer than `tokens_read`
        captions_alike : how many read as another one does
        tokens_read : where captions are cut
        """
        distinct = sorted({caption for caption in captions if caption})
        read = self.ids(distinct).unflatten(0, (len(distinct), -1)) if distinct else []
        return {
            "distinct_captions": len(distinct),
            "captions_cut": sum(self._is_cut(caption) for caption in distinct),
            "captions_alike": len(distinct) - len({tuple(ids.flatten().tolist()) for ids in read}),
            "tokens_read": self.length * self.chunk_count,
        }

    def _is_cut(self, caption: str) -> bool:
        last = self.chunks(caption)[-1]
        return self._full(last) if self.count is None else self.count(last) > self.length

    def _full(self, text: str) -> bool:
        """Whether the end token stands at the last position, or was cut off."""
        return bool(self.padding(self.tokenize([text])).all())

    def _place_of_cut(self, text: str) -> int:
        """How many characters leave the last position free: whole words, where the word that is cut fits a chunk; at least one."""
        words = text.split(" ")
        whole = _most(len(words), lambda count: not self._full(" ".join(words[:count])))
        if whole == len(words):
            return len(text)
        before = len(" ".join(words[:whole]))
        if whole and not self._full(words[whole]):
            return before
        start = before + bool(whole)
        return start + max(_most(len(words[whole]), lambda n: not self._full(text[: start + n])), not start)


def _most(count: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `count` that fits, where all smaller ones do; 0 where none does."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def said(measured: dict[str, int]) -> str | None:
    """What is not read, in words; None where all is."""
    cut, alike = measured["captions_cut"], measured["captions_alike"]
    if not cut and not alike:
        return None
    of = f"of {measured['distinct_captions']} distinct captions"
    if not cut:
        return f"{alike} {of} read as another one does: they differ in blanks or case alone."
    words = f"{cut} {of} are cut at {measured['tokens_read']} tokens" + (
        f", and {alike} read as another one does" if alike else ""
    )
    return f"{words}. Raise train_encoders.text.max_tokens, or shorten the captions (tile.caption, tile.summarise)."


def tell_captions(reader: TextReader, captions: Iterable[str | None], stage: str) -> dict[str, int]:
    """`TextReader.measure` of captions, as metrics; what isn't read is said on the console."""
    measured = reader.measure(captions)
    if words := said(measured):
        console.print(f"{stage}: {words}", markup=False)
    return measured
