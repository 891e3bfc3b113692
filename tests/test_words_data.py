"""Windows, pairs, co-occurrences, noise and thinning against loops and formulas."""

import core_helpers as h
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import dlnotes
from dlnotes import data

kinds = st.sampled_from([np.int64, np.int32, np.uint8])


@st.composite
def corpora(draw):
    """Draw (tokens, sentences or None), empty corpora and sentences of one token among them."""
    tokens = draw(st.lists(st.integers(0, 4), max_size=14))
    kind, layout = draw(kinds), draw(h.layouts)
    sentences = None
    if draw(st.booleans()):
        steps = draw(st.lists(st.integers(0, 1), min_size=len(tokens), max_size=len(tokens)))
        sentences = h.laid_out(np.cumsum(steps, dtype=np.int64).astype(kind), layout)
    return h.laid_out(np.array(tokens, kind), layout), sentences


def windows_loops(tokens, sentences, reach):
    """Return each center's list of context words; `reach` says how far each window goes."""
    result = []
    for i in range(len(tokens)):
        near = [
            int(tokens[j])
            for j in range(max(0, i - reach[i]), min(len(tokens), i + reach[i] + 1))
            if j != i and (sentences is None or sentences[i] == sentences[j])
        ]
        result.append(near)
    return result


@settings(deadline=None, max_examples=60)
@given(corpora(), st.integers(1, 4), st.booleans(), h.seeds)
def test_pairs_and_windows(corpus, window, dynamic, seed):
    tokens, sentences = corpus
    reach = np.full(len(tokens), window)
    if dynamic:
        reach = np.random.default_rng(seed).integers(1, window + 1, len(tokens))
    expected = windows_loops(tokens, sentences, reach)

    def keywords():
        return {
            "sentences": sentences,
            "dynamic": dynamic,
            "generator": np.random.default_rng(seed) if dynamic else None,
        }

    given_ = [tokens] if sentences is None else [tokens, sentences]
    center, context = h.assert_pure(
        lambda *a: data.skip_gram_pairs(tokens, window, **keywords()), *given_
    )
    pairs = [(int(t), c) for t, near in zip(tokens, expected, strict=True) for c in near]
    assert list(zip(center.tolist(), context.tolist(), strict=True)) == pairs
    assert center.dtype == context.dtype == np.int64

    contexts, offsets, center = data.cbow_windows(tokens, window, **keywords())
    filled = [(int(t), near) for t, near in zip(tokens, expected, strict=True) if near]
    assert center.tolist() == [t for t, _ in filled]
    bags = np.split(contexts, offsets[1:]) if len(offsets) else []
    assert [bag.tolist() for bag in bags] == [near for _, near in filled]
    assert contexts.dtype == offsets.dtype == center.dtype == np.int64


def test_near_words_are_drawn_more_often():
    """A word d places away lies in 1 - (d - 1)/window of the windows."""
    tokens = np.arange(50_000)
    center, context = data.skip_gram_pairs(tokens, 4, generator=np.random.default_rng(0))
    counts = np.bincount(np.abs(center - context), minlength=5)[1:]
    shares = counts / (2 * len(tokens))
    np.testing.assert_allclose(shares, [1, 0.75, 0.5, 0.25], atol=0.01)


def test_the_books_generator_draws_the_windows():
    tokens = np.arange(30)
    dlnotes.manual_seed(1)
    first = data.skip_gram_pairs(tokens, 5)[1]
    dlnotes.manual_seed(1)
    np.testing.assert_array_equal(data.skip_gram_pairs(tokens, 5)[1], first)
    state = dlnotes.random.get_state()
    data.skip_gram_pairs(tokens, 5, dynamic=False)
    data.skip_gram_pairs(tokens, 5, generator=np.random.default_rng(0))
    assert dlnotes.random.get_state() == state


@settings(deadline=None, max_examples=60)
@given(corpora(), st.integers(1, 4), st.sampled_from(["inverse", "flat"]), st.booleans())
def test_cooccurrences(corpus, window, weighting, symmetric):
    tokens, sentences = corpus
    expected = np.zeros((5, 5))
    for i in range(len(tokens)):
        for j in range(max(0, i - window), i):
            if sentences is None or sentences[i] == sentences[j]:
                count = 1 / (i - j) if weighting == "inverse" else 1
                expected[tokens[i], tokens[j]] += count
                if symmetric:
                    expected[tokens[j], tokens[i]] += count
    keywords = {"weighting": weighting, "symmetric": symmetric}
    center, context, count = data.cooccurrences(tokens, window, sentences=sentences, **keywords)
    table = np.zeros((5, 5))
    table[center, context] = count
    np.testing.assert_allclose(table, expected, rtol=1e-14)
    assert len(count) == (expected > 0).sum()  # each pair once, no zeros
    assert sorted(zip(center, context, strict=True)) == list(zip(center, context, strict=True))
    assert count.dtype == np.float64


def test_three_noise_distributions():
    counts = np.array([16, 81, 0, 1])
    np.testing.assert_allclose(data.noise_distribution(counts, 1), counts / 98)
    np.testing.assert_allclose(data.noise_distribution(counts, 0), np.full(4, 0.25))
    np.testing.assert_allclose(data.noise_distribution(counts), np.array([8, 27, 0, 1]) / 36)


def test_two_formulas_that_keep_words():
    counts = np.array([900, 90, 9, 1, 0])
    ratio = 0.01 / (counts[:4] / 1000)
    paper = data.keep_probability(counts, 0.01, "paper")
    np.testing.assert_allclose(paper, [*np.minimum(np.sqrt(ratio), 1), 1])
    program = data.keep_probability(counts, 0.01, "word2vec.c")
    np.testing.assert_allclose(program, [*np.minimum((np.sqrt(1 / ratio) + 1) * ratio, 1), 1])
    np.testing.assert_array_equal(data.keep_probability(counts)[3:], 1)


def test_sampler():
    p = data.noise_distribution(1 / np.arange(1, 1001))
    sampler = data.AliasSampler(p)
    draws = sampler.sample((400, 500), np.random.default_rng(0))
    counts = np.bincount(draws.reshape(-1), minlength=1000)
    assert scipy.stats.chisquare(counts, p * draws.size).pvalue > 0.01
    assert len(sampler) == 1000
    assert repr(sampler) == "AliasSampler(1000 outcomes)"
    dlnotes.manual_seed(4)
    first = sampler.sample(20)
    dlnotes.manual_seed(4)
    np.testing.assert_array_equal(sampler.sample(20), first)
    assert first.dtype == np.int64


tokens = np.array([0, 1, 2])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: data.skip_gram_pairs(tokens, 0), ValueError, "window must be at least 1, got 0"),
        (lambda: data.skip_gram_pairs([1, 2], 1), TypeError, "tokens must be a NumPy array"),
        (lambda: data.skip_gram_pairs(tokens / 2, 1), TypeError, "tokens must hold integers"),
        (lambda: data.cbow_windows(-tokens, 1), ValueError, "tokens must be at least 0, got -1"),
        (lambda: data.cbow_windows(tokens[None], 1), ValueError, r"tokens must have shape \(n,\)"),
        (
            lambda: data.cooccurrences(tokens, 1, sentences=tokens[:2]),
            ValueError,
            r"sentences must have shape \(3,\)",
        ),
        (
            lambda: data.cooccurrences(tokens, 1, sentences=tokens[::-1]),
            ValueError,
            "sentences must rise",
        ),
        (
            lambda: data.cooccurrences(tokens, 1, weighting="half"),
            ValueError,
            "weighting must be one of 'inverse', 'flat'",
        ),
        (lambda: data.noise_distribution(tokens, -1), ValueError, "power must be at least 0"),
        (lambda: data.noise_distribution(-tokens), ValueError, "at least 0 and not all 0"),
        (lambda: data.noise_distribution(0 * tokens), ValueError, "at least 0 and not all 0"),
        (lambda: data.noise_distribution([1, 2]), TypeError, "counts must be a NumPy array"),
        (lambda: data.noise_distribution(tokens > 0), TypeError, "numbers, got bool"),
        (lambda: data.keep_probability(tokens, formula="C"), ValueError, "formula must be one of"),
        (lambda: data.keep_probability(tokens, -1), ValueError, "threshold must be at least 0"),
        (lambda: data.AliasSampler(tokens), TypeError, "probabilities must be float32 or float64"),
        (
            lambda: data.AliasSampler(np.ones(2)).sample(2, 7),
            TypeError,
            "generator must be a numpy.random.Generator",
        ),
    ],
)
def test_bad_input(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()
