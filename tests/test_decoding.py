"""Beam search, labels of CTC, and error rates, each against the sum over everything there is."""

from __future__ import annotations

from itertools import groupby, product

import numpy as np
import pytest

import gpubp as gp
from gpubp import nn, ops
from gpubp.errors import DataError, ShapeError
from gpubp.train import beam_search, ctc_beam, ctc_greedy, edit_distance, error_rate

START, END, TOKENS = 3, 0, 4


def a_model(seed, samples):
    """Logarithms of the next token's probabilities, by sample, last token and round."""
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(samples, 6, TOKENS, TOKENS))
    table[..., START] = -40.0
    return table - np.log(np.exp(table).sum(-1, keepdims=True))


def stepped(table):
    def step(last, state):
        sample, round_ = state["sample"], state["round"]
        return table[sample, round_, last], {"sample": sample, "round": round_ + 1}

    samples = len(table)
    return step, {"sample": np.arange(samples), "round": np.zeros(samples, int)}


def every_sequence(table, longest):
    """(score, tokens) of one sample's sequences, those that end and those that are cut."""
    found = []
    for tokens in product(range(TOKENS), repeat=longest):
        if END in tokens[:-1] and any(tokens[tokens.index(END) :]):
            continue
        steps = tokens[: tokens.index(END) + 1] if END in tokens else tokens
        score = sum(table[t, a, b] for t, (a, b) in enumerate(zip((START, *steps), steps)))
        found.append((score, tokens))
    return sorted(found, reverse=True)


def test_a_wide_beam_finds_the_likeliest_of_all_sequences():
    table = a_model(0, 5)
    found = beam_search(*stepped(table), START, END, width=200, max_length=4)
    for i in range(5):
        right = every_sequence(table[i], 4)[:20]
        np.testing.assert_allclose(found.scores[i, :20], [score for score, _ in right])
        assert [tuple(row) for row in found.tokens[i, :20]] == [tokens for _, tokens in right]


def test_a_beam_of_one_takes_the_likeliest_token_each_time():
    table = a_model(1, 8)
    found = beam_search(*stepped(table), START, END, width=1, max_length=5)
    for i in range(8):
        last, score = START, 0.0
        for t, token in enumerate(found.tokens[i, 0]):
            assert token == (END if last == END else table[i, t, last].argmax())
            score += 0.0 if last == END else table[i, t, last, token]
            last = token
        assert found.scores[i, 0] == pytest.approx(score)


def test_samples_do_not_meet():
    table = a_model(2, 6)
    together = beam_search(*stepped(table), START, END, width=3, max_length=5)
    for i in range(6):
        alone = beam_search(*stepped(table[i : i + 1]), START, END, width=3, max_length=5)
        length = alone.tokens.shape[2]
        np.testing.assert_array_equal(together.tokens[i, :, :length], alone.tokens[0])
        assert (together.tokens[i, :, length:] == END).all()
        np.testing.assert_array_equal(together.scores[i], alone.scores[0])


def test_a_length_penalty_ranks_by_the_mean():
    # Ending at once has probability 0.4; "1 1 end" has 0.6 * 0.6, with more a token.
    table = np.log(np.full((1, 6, TOKENS, TOKENS), 1e-9))
    table[0, 0, START, [END, 1]] = np.log([0.4, 0.6])
    table[0, 1, 1, [1, END]] = np.log([0.6, 0.3])
    table[0, 2, 1, END] = 0.0
    short = beam_search(*stepped(table), START, END, width=3, max_length=4)
    assert short.tokens[0, 0].tolist() == [END] * 3
    long = beam_search(*stepped(table), START, END, width=3, max_length=4, length_penalty=1.0)
    assert long.tokens[0, 0].tolist() == [1, 1, END]
    assert long.scores[0, 0] == pytest.approx(np.log(0.36) / 3)


def test_a_compiled_step_serves_every_round():
    gp.manual_seed(0)
    cell, letters, head = nn.GRUCell(8, 8), nn.Embedding(TOKENS, 8), nn.Linear(8, TOKENS)

    @gp.compile
    def step(last, h):
        h = cell(letters(last), h)
        return ops.log_softmax(head(h), -1), h

    h = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    found = beam_search(step, h, START, END, width=2, max_length=6)
    assert found.tokens.shape[:2] == (3, 2) and (np.diff(found.scores) <= 0).all()


def test_bad_searches_are_refused():
    step, state = stepped(a_model(0, 2))
    with pytest.raises(DataError, match="width 0"):
        beam_search(step, state, START, END, width=0)
    with pytest.raises(DataError, match="end is 9"):
        beam_search(step, state, START, 9)
    with pytest.raises(DataError, match="first axis"):
        beam_search(step, {}, START, END)
    with pytest.raises(DataError, match="first axis"):
        beam_search(step, (np.zeros(2), np.zeros(3)), START, END)
    with pytest.raises(ShapeError, match="expected \\(8, tokens\\)"):
        beam_search(lambda last, s: (np.zeros(3), s), state, START, END)


def of_all_paths(scores, blank):
    """The probability of each labelling: the sum over all paths that say it."""
    found = {}
    for path in product(range(scores.shape[1]), repeat=len(scores)):
        labels = tuple(k for k, _ in groupby(path) if k != blank)
        chance = np.exp(sum(scores[t, k] for t, k in enumerate(path)))
        found[labels] = found.get(labels, 0.0) + chance
    return found


@pytest.mark.parametrize("blank", [0, 2])
def test_a_wide_beam_finds_the_likeliest_labels_of_all_alignments(blank):
    logits = np.random.default_rng(3).normal(size=(5, 12, 3))
    scores = np.asarray(ops.log_softmax(logits, -1))
    lengths = np.array([5] * 8 + [4, 3, 1, 0])
    found = ctc_beam(scores, lengths, width=500, blank=blank)
    for i, length in enumerate(lengths):
        chances = of_all_paths(scores[:length, i], blank)
        assert tuple(found[i]) == max(chances, key=chances.__getitem__), i


def test_a_narrow_beam_says_the_same_with_classes_that_hardly_count():
    logits = np.random.default_rng(4).normal(size=(12, 6, 4), scale=3.0)
    wide = np.concatenate([logits, np.full((12, 6, 30), -60.0)], 2)
    lengths = np.full(6, 12)
    few, many = (ctc_beam(np.asarray(ops.log_softmax(x, -1)), lengths, 3) for x in (logits, wide))
    assert few == many


def test_greedy_labels_drop_repetitions_then_blanks():
    path = np.array([[1, 1, 0, 1, 2, 2, 0], [0, 3, 3, 3, 1, 0, 1]]).T
    scores = np.asarray(ops.one_hot(path, 4, dtype="float32"))
    assert ctc_greedy(scores, [7, 5]) == [[1, 1, 2], [3, 1]]
    assert ctc_greedy(scores, [0, 1]) == [[], []]


def test_beams_sum_what_greedy_takes_one_of():
    # Blank is likeliest at both moments (0.36), yet "1" has 0.24 + 0.24 + 0.16.
    scores = np.log(np.array([[[0.6, 0.4]], [[0.6, 0.4]]]))
    assert ctc_greedy(scores, [2]) == [[]] and ctc_beam(scores, [2]) == [[1]]


def test_bad_scores_are_refused():
    scores = np.zeros((4, 2, 3))
    for decode in (ctc_greedy, ctc_beam):
        with pytest.raises(ShapeError, match="whole numbers"):
            decode(scores[0], [4])
        with pytest.raises(ShapeError):
            decode(scores, [4])
        with pytest.raises(DataError, match="T is 4"):
            decode(scores, [5, 1])
        with pytest.raises(DataError, match="blank is 3"):
            decode(scores, [4, 4], blank=3)
    with pytest.raises(DataError, match="width is 0"):
        ctc_beam(scores, [4, 4], width=0)


def distance_by_definition(a, b):
    if not a or not b:
        return len(a) + len(b)
    below = distance_by_definition(a[1:], b[1:]) + (a[0] != b[0])
    return min(below, 1 + distance_by_definition(a[1:], b), 1 + distance_by_definition(a, b[1:]))


def test_edit_distances_are_those_of_the_definition():
    assert edit_distance("kitten", "sitting") == 3
    rng = np.random.default_rng(0)
    for _ in range(60):
        a, b = ("".join(rng.choice(list("ab1"), n)) for n in rng.integers(0, 6, 2))
        assert edit_distance(a, b) == distance_by_definition(a, b), (a, b)


def test_error_rates_count_what_is_wanted():
    assert error_rate([["a", "b"], ["c"]], [["a", "b"], ["d", "e"]]) == 2 / 4
    assert error_rate(["xyz"], ["a"]) == 3.0
    with pytest.raises(DataError, match="1 sequences given, 2 wanted"):
        error_rate(["a"], ["a", "b"])
    with pytest.raises(DataError, match="no elements"):
        error_rate(["a"], [""])
