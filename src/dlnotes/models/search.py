"""Beam search: likely sequences from a model that scores one next word at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dlnotes import _validate, kernels
from dlnotes._validate import Number


class Hypothesis(NamedTuple):
    """A sequence that was found."""

    tokens: tuple[int, ...]  # without "begin"; the last one is "end" if it is complete
    log_probability: float
    score: float  # what hypotheses are ranked by


def beam_search(
    step: Callable[[np.ndarray, Any], tuple[Any, Any]],
    begin: int,
    end: int,
    width: int = 4,
    length: int = 50,
    state: Any = None,
    *,
    length_penalty: Number = 0.0,
    batch_axis: int = 0,
) -> list[Hypothesis]:
    """Return up to `width` sequences of at most `length` tokens, the best first.

    Of all one-word continuations of the live sequences, those among the `width` likeliest that
    choose `end` are complete, and the `width` likeliest of the others stay alive. width=1 takes the
    likeliest word at each step (greedy search); what greedy search throws away early, a wider beam
    may still find. The score is log p over ((5 + length) / 6)^length_penalty, with which longer
    sequences lose less against shorter ones (Wu et al., 2016); 0 ranks by log p. The search ends
    when no live sequence can still enter the best `width`, or at `length`: sequences that are cut
    off there count as they are.

    step(tokens, state) → (scores, state) scores the next word of k live sequences: tokens (k, t),
    int64, all so far, each starting with `begin`; scores (k, vocabulary), an array or a tensor of
    any engine, logits or log-probabilities. `state`, arrays or tensors in tuples, lists, dicts or
    None, is what the model carries from step to step; it starts as given, for one sequence, and
    its rows along `batch_axis` (1 for an LSTM's) are rearranged as the sequences are. Decode
    inside `no_grad()`.

    ValueError for settings out of range and scores of another shape. Cost: `length` steps of the
    model for `width` sequences, and O(width · vocabulary) for each.
    """
    width, length = (
        _validate.integer(name, n, low=1) for name, n in (("width", width), ("length", length))
    )
    power = _validate.number("length_penalty", length_penalty, low=0)
    tokens = np.full((1, 1), _validate.integer("begin", begin, low=0), np.int64)
    total, finished = np.zeros(1), []

    def ranked(words, log_probability):
        score = log_probability / ((5 + len(words)) / 6) ** power
        return Hypothesis(tuple(map(int, words)), float(log_probability), float(score))

    for _ in range(length):
        scores, state = step(tokens, state)
        scores = np.asarray(_validate.without_tensor(scores), np.float64)
        if scores.ndim != 2 or len(scores) != len(tokens) or scores.shape[1] <= max(begin, end):
            raise ValueError(
                f"scores must have shape ({len(tokens)}, vocabulary) with {max(begin, end)} in the "
                f"vocabulary, got {scores.shape}"
            )
        candidates = total[:, None] + kernels.log_softmax(scores, 1)
        # One sequence may end for each that is alive, so twice the width leaves enough alive.
        order = np.argsort(-candidates, axis=None, kind="stable")[: 2 * width]
        order = order[np.isfinite(candidates.reshape(-1)[order])]
        rows, words = np.unravel_index(order, candidates.shape)
        ends = words == end
        for row in rows[:width][ends[:width]]:
            finished.append(ranked([*tokens[row, 1:], end], candidates[row, end]))
        rows, words = rows[~ends][:width], words[~ends][:width]
        tokens = np.concatenate([tokens[rows], words[:, None]], axis=1)
        total, state = candidates[rows, words], _rearranged(state, rows, batch_axis)
        finished = sorted(finished, key=lambda one: -one.score)[:width]
        # log p can only fall, and no penalty divides by more than that of the full length.
        hope = total.max(initial=-np.inf) / ((5 + length) / 6) ** power
        if not len(rows) or (len(finished) == width and finished[-1].score >= hope):
            tokens = tokens[:0]
            break
    alive = [ranked(row[1:], p) for row, p in zip(tokens, total, strict=False)]
    return sorted([*finished, *alive], key=lambda one: -one.score)[:width]


def _rearranged(state, rows, axis):
    """Return a state with its rows in another order, some perhaps several times."""
    if state is None:
        return None
    if isinstance(state, dict):
        return {name: _rearranged(part, rows, axis) for name, part in state.items()}
    if isinstance(state, tuple | list):
        return type(state)(_rearranged(part, rows, axis) for part in state)
    return state[(slice(None),) * axis + (rows,)]
