"""Tokens to whole numbers and back: letters, words, phonemes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import checked
from gpubp.errors import DataError, IndexRangeError

SPECIALS = ("<pad>", "<start>", "<end>", "<unknown>")
PAD, START, END, UNKNOWN = range(4)
_WORDS = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[^\w\s]")


@checked
def words(text: str) -> list[str]:
    """The words of a text in lower case, and its punctuation, one mark a token.

    An apostrophe inside of a word belongs to it: `words("Don't!")` is `["don't", "!"]`.
    """
    return _WORDS.findall(text.lower().replace("\u2019", "'"))


class Vocabulary:
    """The tokens that a model knows, each with its index.

    Indices 0 to 3 are `<pad>`, `<start>`, `<end>` and `<unknown>`; the first token has 4.

    Args:
        tokens: all different.

    Raises:
        DataError: a token stands twice, or is one of the four.
    """

    @checked
    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens = (*SPECIALS, *tokens)
        self.index = {token: i for i, token in enumerate(self.tokens)}
        if len(self.index) != len(self.tokens):
            twice = next(token for token, n in Counter(self.tokens).items() if n > 1)
            raise DataError(f"Vocabulary: {twice!r} stands twice, expected tokens that differ.")

    @classmethod
    def of(
        cls, sequences: Iterable[Iterable[str]], least: int = 1, most: int | None = None
    ) -> Vocabulary:
        """The tokens of some sequences, the most frequent first; equals in alphabetical order.

        Args:
            sequences: of tokens; a text is the sequence of its letters.
            least: how often a token must occur.
            most: how many tokens to keep, without the four.
        """
        counts = Counter(token for sequence in sequences for token in sequence)
        kept = sorted((t for t, n in counts.items() if n >= least), key=lambda t: (-counts[t], t))
        return cls(kept[:most])

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        return f"Vocabulary of {len(self)} tokens"

    def encode(
        self,
        sequences: Iterable[Sequence[str]],
        length: int | None = None,
        start: bool = False,
        end: bool = False,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices of tokens, padded behind.

        Args:
            sequences: N of them.
            length: of all rows; longer sequences lose what stands behind it. Default: the longest.
            start, end: put `<start>` before, and `<end>` behind each sequence.

        Returns:
            Indices (N, length), and the length of each sequence, (N,), at most `length`.

        Raises:
            DataError: `length` has no room for a token.
        """
        before, behind = [START] * start, [END] * end
        rows = [list(sequence) for sequence in sequences]
        room = max(map(len, rows), default=0) if length is None else length - start - end
        if length is not None and room < 1:
            raise DataError(f"Vocabulary.encode: length {length} has no room for a token.")
        codes = np.full((len(rows), room + start + end), PAD, np.int64)
        lengths = np.zeros(len(rows), np.int64)
        for i, row in enumerate(rows):
            found = [*before, *(self.index.get(t, UNKNOWN) for t in row[:room]), *behind]
            codes[i, : len(found)], lengths[i] = found, len(found)
        return codes, lengths

    def decode(self, codes: Iterable[int]) -> list[str]:
        """The tokens of one sequence of indices, up to `<end>`; without `<pad>` and `<start>`.

        Raises:
            IndexRangeError: an index that no token has.
        """
        found = []
        for code in codes:
            if not 0 <= code < len(self.tokens):
                raise IndexRangeError(
                    f"Vocabulary.decode: index {code}, expected one below {len(self)}."
                )
            if code == END:
                break
            if code not in (PAD, START):
                found.append(self.tokens[code])
        return found
