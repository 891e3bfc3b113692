"""Words as numbers: a vocabulary, padded batches of sentences, and gaps for a masked model."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int64, Integer

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.data._loader import _generator

PAD, UNKNOWN, BEGIN, END = "<pad>", "<unk>", "<bos>", "<eos>"


class Vocabulary:
    """Words (or characters) and their numbers: `encode` and `decode` go from one to the other.

    `words` are in the order of their numbers; `specials`, which stand in front of them and have the
    numbers from 0 on, may be <pad> (fills up), <unk> (for words that are not there), <bos> and
    <eos> (begin and end of a sentence). `counts` (len,), how often each word was seen, or None.

    ValueError for a word that occurs twice.
    """

    def __init__(
        self,
        words: Iterable[str],
        specials: Sequence[str] = (PAD, UNKNOWN, BEGIN, END),
        counts: Integer[np.ndarray, " words"] | None = None,
    ):
        self.words = (*specials, *words)
        self.specials = tuple(specials)
        self.index = {word: number for number, word in enumerate(self.words)}
        if len(self.index) < len(self.words):
            twice = next(word for word, n in Counter(self.words).items() if n > 1)
            raise ValueError(f"words must be different, got {twice!r} more than once")
        self.counts = counts

    @classmethod
    def build(
        cls,
        sentences: Iterable[Sequence[str]],
        *,
        max_size: int | None = None,
        min_count: int = 1,
        specials: Sequence[str] = (PAD, UNKNOWN, BEGIN, END),
    ) -> "Vocabulary":
        """Return the vocabulary of sentences of words, the most frequent word first.

        Words seen fewer than min_count times are left out, and all but the most frequent where
        max_size, specials included, would be passed; equally frequent ones stand in the order of
        the alphabet. `counts` then holds 0 for the specials, but for <unk> the words left out. A
        string counts as a sentence of its characters.
        """
        min_count = _validate.integer("min_count", min_count, low=1)
        most = None
        if max_size is not None:
            most = _validate.integer("max_size", max_size, low=len(specials)) - len(specials)
        seen = Counter(word for sentence in sentences for word in sentence)
        for special in specials:
            seen.pop(special, None)
        frequent = sorted(seen.items(), key=lambda pair: (-pair[1], pair[0]))
        kept = [(word, n) for word, n in frequent if n >= min_count][:most]
        missing = seen.total() - sum(n for _, n in kept)
        counts = [missing * (special == UNKNOWN) for special in specials] + [n for _, n in kept]
        return cls([word for word, _ in kept], specials, np.array(counts, np.int64))

    def __len__(self) -> int:
        """Return how many words there are, specials included."""
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self.index

    def __getitem__(self, word: str) -> int:
        """Return the number of a word, that of <unk> if it is not there; KeyError without <unk>."""
        number = self.index.get(word, self.index.get(UNKNOWN))
        if number is None:
            raise KeyError(f"{word!r} is not in the vocabulary, which has no {UNKNOWN}")
        return number

    def encode(
        self, sentence: Sequence[str], *, begin: bool = False, end: bool = False
    ) -> Int64[np.ndarray, " length"]:
        """Return the numbers of the words, with <bos> in front and <eos> behind if asked for."""
        words = [*[BEGIN] * begin, *sentence, *[END] * end]
        return np.array([self[word] for word in words], np.int64)

    def decode(self, numbers, *, specials: bool = False) -> list[str]:
        """Return the words of a row of numbers up to <eos>; specials only if asked for."""
        words = []
        for number in np.asarray(_validate.without_tensor(numbers)).tolist():
            word = self.words[_validate.integer("numbers", number, low=0, high=len(self) - 1)]
            if word == END and not specials:
                break
            if specials or word == UNKNOWN or word not in self.specials:
                words.append(word)
        return words

    def encode_batch(
        self,
        sentences: Sequence[Sequence[str]],
        length: int | None = None,
        *,
        begin: bool = False,
        end: bool = False,
    ) -> tuple[Int64[np.ndarray, "n length"], Int64[np.ndarray, " n"]]:
        """Return (tokens, lengths): sentences as rows of one length, filled up with <pad>.

        length, by default that of the longest sentence, cuts longer ones off (their <eos> too);
        lengths (n,) say where the padding begins.
        """
        rows = [self.encode(sentence, begin=begin, end=end) for sentence in sentences]
        longest = max(map(len, rows), default=0)
        length = longest if length is None else _validate.integer("length", length, low=1)
        rows = [row[:length] for row in rows]
        tokens = np.full((len(rows), length), self[PAD], np.int64)
        for row, numbers in zip(tokens, rows, strict=True):
            row[: len(numbers)] = numbers
        return tokens, np.array([len(row) for row in rows], np.int64)

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} words, {len(self.specials)} of them special)"


def mask_tokens(
    tokens: Integer[np.ndarray, "*shape"],
    vocabulary: int,
    mask: int,
    share: Number = 0.15,
    *,
    special: Sequence[int] = (),
    ignore_index: int = -100,
    generator: np.random.Generator | None = None,
) -> tuple[Int64[np.ndarray, "*shape"], Int64[np.ndarray, "*shape"]]:
    """Return (corrupted, labels) to train a masked language model on (Devlin et al., 2019, BERT).

    Each token is asked for with probability `share`: its number then stands in labels, and
    ignore_index everywhere else, as `cross_entropy` takes them. Of those asked for, 80 % are
    replaced by `mask`, 10 % by a number drawn from 0 … vocabulary - 1 that is not special, and 10 %
    stay, so that the model must keep a good vector for every word. Tokens in `special` (padding,
    begin, end) and `mask` are never asked for. Draws come from `generator`, by default
    `dlnotes.random.generator()`.

    TypeError for tokens that are no integers, ValueError for numbers that are not in the
    vocabulary, one that has nothing but special tokens, or a share outside [0, 1].
    """
    vocabulary = _validate.integer("vocabulary", vocabulary, low=1)
    mask = _validate.integer("mask", mask, low=0, high=vocabulary - 1)
    share = _validate.number("share", share, low=0, high=1)
    tokens = np.asarray(tokens)
    tokens = _validate.labels("tokens", tokens, classes=vocabulary, shape=tokens.shape)
    tokens = tokens.astype(np.int64)
    ordinary = np.setdiff1d(np.arange(vocabulary), [*special, mask])
    if not ordinary.size:
        raise ValueError("vocabulary must hold more than special tokens")
    rng = _generator(generator)
    asked = (rng.random(tokens.shape) < share) & np.isin(tokens, ordinary)
    fate, other = rng.random(tokens.shape), rng.choice(ordinary, tokens.shape)
    corrupted = np.where(asked & (fate < 0.8), mask, tokens)
    corrupted = np.where(asked & (fate >= 0.9), other, corrupted)
    return corrupted, np.where(asked, tokens, ignore_index)
