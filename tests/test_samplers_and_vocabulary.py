"""Samplers and collate functions of the DataLoader, vocabularies, and masked tokens."""

import json

import core_helpers as h
import numpy as np
import pytest
import torch

import dlnotes
from dlnotes import data

NUMBERS = data.TensorDataset(np.arange(10), np.arange(10) ** 2)


def firsts(loader):
    return [batch[0].tolist() for batch in loader]


# ---- DataLoader ----------------------------------------------------------------------------------


def test_a_sampler_says_the_order_as_in_torch():
    order = [7, 0, 3, 3, 9]
    for drop_last in (False, True):
        ours = data.DataLoader(NUMBERS, 2, sampler=order, drop_last=drop_last)
        theirs = torch.utils.data.DataLoader(range(10), 2, sampler=order, drop_last=drop_last)
        assert firsts(ours) == [batch.tolist() for batch in theirs]
        assert len(ours) == len(theirs)
    (first, second) = next(iter(data.DataLoader(NUMBERS, 3, sampler=order)))
    assert second.tolist() == [49, 0, 9]
    assert first.dtype == np.int64


def test_a_batch_sampler_makes_the_batches_as_in_torch():
    batches = [[1, 2, 3], [5], [9, 0]]
    ours = data.DataLoader(NUMBERS, batch_sampler=batches)
    assert firsts(ours) == batches
    assert len(ours) == 3


def test_collate_fn_gets_the_samples():
    """Sentences of different lengths, which cannot be stacked."""
    sentences = [np.arange(n) for n in (3, 1, 4)]

    def padded(samples):
        longest = max(map(len, samples))
        return np.stack([np.pad(s, (0, longest - len(s)), constant_values=-1) for s in samples])

    loader = data.DataLoader(sentences, 2, collate_fn=padded)
    assert [batch.tolist() for batch in loader] == [[[0, 1, 2], [0, -1, -1]], [[0, 1, 2, 3]]]


@pytest.mark.parametrize("stop", [0, 1, 3])
@pytest.mark.parametrize("kind", ["sampler", "batch_sampler"])
def test_a_pass_with_a_sampler_resumes(kind, stop):
    """What the sampler drew is remembered: the resumed pass draws nothing."""

    def loader():
        if kind == "sampler":
            sampler = data.WeightedRandomSampler(np.ones(10), 8)
            return data.DataLoader(NUMBERS, 2, sampler=sampler)
        labels = np.repeat(np.arange(5), 2)
        return data.DataLoader(NUMBERS, batch_sampler=data.IdentityBatchSampler(labels, 1, 2))

    dlnotes.manual_seed(0)
    first, seen = loader(), []
    batches = iter(first)
    seen += [next(batches)[0].tolist() for _ in range(stop)]
    state = json.loads(json.dumps(first.state_dict()))
    rest = [batch[0].tolist() for batch in batches]
    dlnotes.manual_seed(1)
    second = loader()
    second.load_state_dict(state)
    assert second.state_dict() == state
    assert firsts(second) == rest
    assert len(seen) + len(rest) == len(first)
    dlnotes.manual_seed(2)
    assert firsts(second) != rest + seen  # the next pass is a new one


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"sampler": [1], "shuffle": True}, ValueError, "leave shuffle out"),
        ({"batch_sampler": [[1]], "batch_size": 2}, ValueError, "makes the batches"),
        ({"batch_sampler": [[1]], "sampler": [1]}, ValueError, "makes the batches"),
        ({"sampler": 3}, TypeError, "sampler must be an iterable with a length, got int"),
        ({"batch_sampler": iter([])}, TypeError, "batch_sampler must be an iterable"),
        ({"collate_fn": 3}, TypeError, "collate_fn must be a function, got int"),
    ],
)
def test_the_loader_refuses(settings, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        data.DataLoader(NUMBERS, **settings)


# ---- samplers ------------------------------------------------------------------------------------


def test_weighted_draws():
    weights = np.array([1.0, 0, 3])
    sampler = data.WeightedRandomSampler(weights, 8000, generator=np.random.default_rng(0))
    counts = np.bincount(list(sampler), minlength=3)
    assert len(sampler) == counts.sum() == 8000
    assert counts[1] == 0
    assert counts[2] / 8000 == pytest.approx(0.75, abs=0.02)
    assert list(sampler) != list(sampler)
    once = data.WeightedRandomSampler(weights, 2, replacement=False)
    assert sorted(once) == [0, 2]


def test_identity_batches():
    labels = np.array([4] * 5 + [7] * 2 + [9] * 3 + [1])
    sampler = data.IdentityBatchSampler(labels, 2, 3, np.random.default_rng(0))
    assert len(sampler) == 2
    for _ in range(5):
        people = []
        for batch in sampler:
            assert len(batch) == 6
            for group in (batch[:3], batch[3:]):
                (who,) = set(labels[group])
                people.append(who)
                assert len(set(group)) == min(3, (labels == who).sum())
        assert sorted(people) == [1, 4, 7, 9]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.WeightedRandomSampler([1, -1], 2), "weights must be finite numbers"),
        (lambda: data.WeightedRandomSampler([0, 0], 2), "weights must not all be 0"),
        (lambda: data.WeightedRandomSampler([1, 0], 2, False), "at most 1 without replacement"),
        (lambda: data.IdentityBatchSampler(np.array([0, 0, 1]), 3, 2), "at most the 2 there are"),
        (lambda: data.IdentityBatchSampler(np.zeros(3), 1, 1), "labels must be integers"),
    ],
)
def test_samplers_refuse(call, message):
    with h.shapes_unchecked(), pytest.raises(ValueError, match=message):
        call()


# ---- vocabulary ----------------------------------------------------------------------------------

SENTENCES = [["the", "cat", "sat"], ["the", "dog", "sat"], ["the", "end"]]


def test_vocabulary_of_sentences():
    words = data.Vocabulary.build(SENTENCES)
    assert words.words == ("<pad>", "<unk>", "<bos>", "<eos>", "the", "sat", "cat", "dog", "end")
    assert words.counts.tolist() == [0, 0, 0, 0, 3, 2, 1, 1, 1]
    assert len(words) == 9
    assert "cat" in words
    assert "bird" not in words
    numbers = words.encode(["the", "bird", "sat"], begin=True, end=True)
    assert numbers.tolist() == [2, 4, 1, 5, 3]
    assert words.decode(numbers) == ["the", "<unk>", "sat"]
    assert words.decode([*numbers, 0, 0], specials=True)[-2:] == ["<pad>", "<pad>"]
    assert words.decode([4, 3, 5]) == ["the"]  # what comes after the end does not count
    few = data.Vocabulary.build(SENTENCES, min_count=2, specials=("<unk>",))
    assert few.words == ("<unk>", "the", "sat")
    assert few.counts.tolist() == [3, 3, 2]
    assert data.Vocabulary.build(SENTENCES, max_size=5).words[4:] == ("the",)
    assert data.Vocabulary.build(["abba"], specials=()).words == ("a", "b")


def test_batches_of_sentences():
    words = data.Vocabulary.build(SENTENCES)
    tokens, lengths = words.encode_batch(SENTENCES, end=True)
    assert tokens.tolist() == [[4, 6, 5, 3], [4, 7, 5, 3], [4, 8, 3, 0]]
    assert lengths.tolist() == [4, 4, 3]
    tokens, lengths = words.encode_batch(SENTENCES, 2)
    assert tokens.shape == (3, 2)
    assert lengths.tolist() == [2, 2, 2]
    assert words.encode_batch([])[0].shape == (0, 0)


def test_vocabulary_refuses():
    with pytest.raises(ValueError, match="words must be different, got 'a' more than once"):
        data.Vocabulary(["a", "b", "a"])
    with pytest.raises(KeyError, match="'c' is not in the vocabulary, which has no <unk>"):
        data.Vocabulary(["a"], specials=())["c"]
    with pytest.raises(ValueError, match="numbers must be in 0 … 4, got 5"):
        data.Vocabulary(["a"]).decode([5])


# ---- masked tokens -------------------------------------------------------------------------------


def test_masked_tokens_have_the_shares_of_the_paper():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 50, (200, 300))
    before = tokens.copy()
    corrupted, labels = data.mask_tokens(tokens, 50, 3, special=(0, 1), generator=rng)
    np.testing.assert_array_equal(tokens, before)
    asked, ordinary = labels != -100, ~np.isin(tokens, [0, 1, 3])
    assert not asked[~ordinary].any()
    assert asked[ordinary].mean() == pytest.approx(0.15, abs=0.01)
    np.testing.assert_array_equal(labels[asked], tokens[asked])
    np.testing.assert_array_equal(corrupted[~asked], tokens[~asked])
    now = corrupted[asked]
    assert (now == 3).mean() == pytest.approx(0.8, abs=0.02)
    other = (now != 3) & (now != tokens[asked])
    assert other.mean() == pytest.approx(0.1 * 46 / 47, abs=0.01)
    assert not np.isin(now[other], [0, 1]).any()
    same, none = data.mask_tokens(tokens, 50, 3, 0.0)
    np.testing.assert_array_equal(same, tokens)
    assert (none == -100).all()


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "message"),
    [
        ((np.array([0.5]), 5, 0), {}, TypeError, "tokens must hold integer labels"),
        ((np.array([5]), 5, 0), {}, ValueError, "tokens must hold labels in 0 … 4"),
        ((np.array([1]), 5, 5), {}, ValueError, "mask must be in 0 … 4"),
        ((np.array([1]), 5, 0, 2), {}, ValueError, "share must be in 0 … 1"),
        ((np.array([1]), 2, 0), {"special": [1]}, ValueError, "more than special tokens"),
    ],
)
def test_masking_refuses(arguments, settings, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        data.mask_tokens(*arguments, **settings)
