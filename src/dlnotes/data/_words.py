"""From a text as numbers to what word vectors are trained on: windows, pairs, counts, noise.

A corpus is an array `tokens` (n,) of word numbers. Windows do not reach across the borders of
sentences when `sentences` (n,), which rises, says in which sentence each token stands. Random
numbers come from `generator`, by default `dlnotes.random.generator()`.

Windows of all tokens are made at once and take about 30 bytes for each token and place in the
window: cut a long corpus into pieces.

TypeError for what are not arrays of integers, ValueError for numbers below 0, shapes that do not
fit and settings out of range.
"""

import numpy as np
from jaxtyping import Float, Integer

from dlnotes import _validate, kernels
from dlnotes._validate import Number
from dlnotes.data._loader import _generator
from dlnotes.kernels.embedding import _indices

Tokens = Integer[np.ndarray, "n"]
Words = Integer[np.ndarray, "pairs"]
Counts = Integer[np.ndarray, "words"] | Float[np.ndarray, "words"]
Shares = Float[np.ndarray, "words"]
Int = int | np.integer


def skip_gram_pairs(
    tokens: Tokens,
    window: Int,
    *,
    sentences: Tokens | None = None,
    dynamic: bool = True,
    generator: np.random.Generator | None = None,
) -> tuple[Words, Words]:
    """Return (center, context): every token with each token at most `window` places away.

    With dynamic=True the window of each token is drawn from 1 … window, equally likely, so that
    near words count more (Mikolov et al., 2013). Pairs stand in the order of their centers.
    """
    tokens, near, inside = _windows(tokens, window, sentences, dynamic, generator)
    return np.repeat(tokens, inside.sum(axis=1)), tokens[near[inside]]


def cbow_windows(
    tokens: Tokens,
    window: Int,
    *,
    sentences: Tokens | None = None,
    dynamic: bool = True,
    generator: np.random.Generator | None = None,
) -> tuple[Words, Integer[np.ndarray, " windows"], Integer[np.ndarray, " windows"]]:
    """Return (contexts, offsets, center): the windows of `skip_gram_pairs`, each as one bag.

    contexts[offsets[i] : offsets[i + 1]] are the words around center[i], as EmbeddingBag takes
    them; tokens with no word around them are left out.
    """
    tokens, near, inside = _windows(tokens, window, sentences, dynamic, generator)
    sizes = inside.sum(axis=1)
    filled = sizes > 0
    sizes = sizes[filled]
    return tokens[near[inside]], np.cumsum(sizes) - sizes, tokens[filled]


def cooccurrences(
    tokens: Tokens,
    window: Int,
    *,
    sentences: Tokens | None = None,
    weighting: str = "inverse",
    symmetric: bool = True,
) -> tuple[Words, Words, Float[np.ndarray, " pairs"]]:
    """Return (center, context, count): how often words stand near each other, 0s left out.

    A context word d places away counts 1/d (weighting="inverse", as GloVe does; Pennington, Socher
    and Manning, 2014) or 1 ("flat"); symmetric=False takes only context words before the center.
    Pairs are sorted and each is there once; count is float64.
    """
    _validate.one_of("weighting", weighting, ["inverse", "flat"])
    tokens, sentences = _corpus(tokens, sentences)
    window = _validate.integer("window", window, low=1)
    words = int(tokens.max(initial=-1)) + 1
    keys, counts = [], []
    for distance in range(1, min(window, len(tokens) - 1) + 1):
        together = sentences[distance:] == sentences[:-distance]
        later, earlier = tokens[distance:][together], tokens[:-distance][together]
        found = [later * words + earlier] + ([earlier * words + later] if symmetric else [])
        unique, times = np.unique(np.concatenate(found), return_counts=True)
        keys.append(unique)
        counts.append(times / distance if weighting == "inverse" else times)
    keys = np.concatenate(keys) if keys else np.zeros(0, np.int64)
    counts = np.concatenate(counts) if counts else np.zeros(0)
    pairs, which = np.unique(keys, return_inverse=True)
    center, context = np.divmod(pairs, max(words, 1))
    return center, context, np.bincount(which, counts, len(pairs)).astype(np.float64)


def noise_distribution(counts: Counts, power: Number = 0.75) -> Shares:
    """Return probabilities in proportion to counts^power, float64.

    power=1 is the distribution of the words themselves (unigram), 0 the uniform one over all words,
    and 3/4 what Mikolov et al. (2013) found best: it lifts rare words.
    """
    shares = _counts(counts) ** _validate.number("power", power, low=0)
    return shares / shares.sum()


def keep_probability(
    counts: Counts, threshold: Number = 1e-3, formula: str = "word2vec.c"
) -> Shares:
    """Return the probability of keeping each word when frequent ones are thinned out, float64.

    f being a word's share of the corpus and t the threshold, formula="paper" keeps √(t/f) (Mikolov
    et al., 2013, equation 5, with t about 1e-5) and "word2vec.c" √(t/f) + t/f, as their program
    does (t about 1e-3); both at most 1. Words that do not occur are kept.
    `tokens[generator.random(len(tokens)) < keep[tokens]]` thins a corpus out.
    """
    _validate.one_of("formula", formula, ["paper", "word2vec.c"])
    threshold = _validate.number("threshold", threshold, low=0)
    counts = _counts(counts)
    share = counts / counts.sum()
    ratio = np.divide(threshold, share, out=np.ones_like(share), where=share > 0)
    keep = np.sqrt(ratio) + (ratio if formula == "word2vec.c" else 0)
    return np.minimum(keep, 1)


class AliasSampler:
    """Draws word numbers from a distribution, each in constant time.

    `probabilities` (n,), float32 or float64, are divided by their sum. Holds the table of
    `dlnotes.kernels.alias_table`.
    """

    def __init__(self, probabilities: Shares):
        self.table = kernels.alias_table(probabilities)

    def sample(
        self, size: Int | tuple[Int, ...], generator: np.random.Generator | None = None
    ) -> Integer[np.ndarray, "..."]:
        """Return int64 numbers 0 … n - 1 of shape `size`, drawn independently."""
        return kernels.alias_sample(self.table, size, _generator(generator))

    def __len__(self) -> int:
        """Return how many outcomes there are."""
        return len(self.table[0])

    def __repr__(self) -> str:
        return f"AliasSampler({len(self)} outcomes)"


# ---- shared pieces ---------------------------------------------------------------------------


def _windows(tokens, window, sentences, dynamic, generator):
    """Return tokens, the places around each, (n, 2 window), and which lie inside its window."""
    tokens, sentences = _corpus(tokens, sentences)
    window = _validate.integer("window", window, low=1)
    n = len(tokens)
    steps = np.concatenate([np.arange(-window, 0), np.arange(1, window + 1)])
    near = np.arange(n)[:, None] + steps
    inside = (near >= 0) & (near < n)
    near = np.clip(near, 0, max(n - 1, 0))
    if n:
        inside &= sentences[near] == sentences[:, None]
    if dynamic:
        inside &= np.abs(steps) <= _generator(generator).integers(1, window + 1, (n, 1))
    return tokens, near, inside


def _corpus(tokens, sentences):
    tokens = _indices("tokens", tokens, None)
    if tokens.ndim != 1:
        raise ValueError(f"tokens must have shape (n,), got {tokens.shape}")
    tokens = tokens.astype(np.int64)
    if sentences is None:
        return tokens, np.zeros(len(tokens), np.int64)
    sentences = _indices("sentences", sentences, None).astype(np.int64)
    _validate.has_shape("sentences", sentences, tokens.shape, "one for each token")
    if (np.diff(sentences) < 0).any():
        raise ValueError("sentences must rise: each token's sentence, in the order of the text")
    return tokens, sentences


def _counts(counts):
    if not isinstance(counts, np.ndarray) or counts.dtype.kind not in "iuf":
        kind = getattr(counts, "dtype", type(counts).__name__)
        raise TypeError(f"counts must be a NumPy array of numbers, got {kind}")
    _validate.finite("counts", counts)
    if counts.ndim != 1 or not counts.sum() or counts.min() < 0:
        raise ValueError("counts must have shape (words,), be at least 0 and not all 0")
    return counts.astype(np.float64)
