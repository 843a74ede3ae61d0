"""Tokens to indices and back."""

from __future__ import annotations

import numpy as np
import pytest

from gpubp.data import Vocabulary, words
from gpubp.errors import ArgumentError, DataError, IndexRangeError


def test_words_are_lower_case_and_marks_stand_alone():
    assert words("Don't stop, Zoë\u2019s 2nd!") == ["don't", "stop", ",", "zoë's", "2nd", "!"]
    assert words(" \n") == []


def test_the_most_frequent_tokens_come_first_and_equals_by_the_alphabet():
    vocabulary = Vocabulary.of(["banana", "cab"])
    assert vocabulary.tokens[4:] == ("a", "b", "n", "c")
    assert Vocabulary.of(["banana", "cab"], least=2).tokens[4:] == ("a", "b", "n")
    assert Vocabulary.of(["banana", "cab"], most=1).tokens[4:] == ("a",)


def test_codes_are_padded_behind_and_come_back():
    vocabulary = Vocabulary(["a", "b", "c"])
    codes, lengths = vocabulary.encode(["ab", "cabx", ""], start=True, end=True)
    np.testing.assert_array_equal(
        codes, [[1, 4, 5, 2, 0, 0], [1, 6, 4, 5, 3, 2], [1, 2, 0, 0, 0, 0]]
    )
    assert lengths.tolist() == [4, 6, 2] and codes.dtype == np.int64
    assert vocabulary.decode(codes[0]) == ["a", "b"]
    assert vocabulary.decode(codes[1]) == ["c", "a", "b", "<unknown>"]


def test_a_length_cuts_what_stands_behind_and_keeps_the_ends():
    codes, lengths = Vocabulary(["a", "b", "c"]).encode(["abcabc", "a"], length=4, end=True)
    np.testing.assert_array_equal(codes, [[4, 5, 6, 2], [4, 2, 0, 0]])
    assert lengths.tolist() == [4, 2]


def test_no_sequences_are_no_rows():
    codes, lengths = Vocabulary(["a", "b", "c"]).encode([])
    assert codes.shape == (0, 0) and lengths.shape == (0,)


def test_bad_vocabularies_and_codes_are_refused():
    with pytest.raises(DataError, match="'a' stands twice"):
        Vocabulary(["a", "b", "a"])
    with pytest.raises(DataError, match="<end>"):
        Vocabulary(["<end>"])
    with pytest.raises(DataError, match="no room"):
        Vocabulary(["a"]).encode(["a"], length=1, end=True)
    for code in (5, -1):
        with pytest.raises(IndexRangeError, match="below 5"):
            Vocabulary(["a"]).decode([code])
    with pytest.raises(ArgumentError, match="tokens"):
        Vocabulary("abc")
