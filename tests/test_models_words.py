"""Beam search, cached decoding, the n-gram network and ELMo, on both engines."""

import itertools

import core_helpers as h
import numpy as np
import pytest
import torch

import dlnotes
from dlnotes import models, nn, optim
from dlnotes.autograd import Tensor, no_grad

RNG = np.random.default_rng(0)
BEGIN, END = 1, 0

# ---- beam search ---------------------------------------------------------------------------------


def chain(seed, words=4):
    """A language whose next word depends on the last one, as log-probabilities (words, words)."""
    logits = 2 * np.random.default_rng(seed).standard_normal((words, words))
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def every_sentence(table, length):
    """Return {sentence: log p} of all that end, and of those cut off at `length`."""
    found, words = {}, [w for w in range(len(table)) if w != END]
    for size in range(length + 1):
        for start in itertools.product(words, repeat=size):
            p = sum(table[a, b] for a, b in itertools.pairwise((BEGIN, *start)))
            if size < length:
                found[*start, END] = p + table[(BEGIN, *start)[-1], END]
            else:
                found[start] = p
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all(seed, penalty):
    table, length = chain(seed), 4
    truth = every_sentence(table, length)
    assert sum(np.exp(p) for p in truth.values()) == pytest.approx(1)
    found = models.beam_search(
        lambda tokens, state: (table[tokens[:, -1]], state), BEGIN, END, 200, length,
        length_penalty=penalty,
    )  # fmt: skip
    score = {s: p / ((5 + len(s)) / 6) ** penalty for s, p in truth.items()}
    np.testing.assert_allclose([one.score for one in found], sorted(score.values())[::-1])
    assert {one.tokens for one in found} == score.keys()
    for one in found:
        assert one.log_probability == pytest.approx(truth[one.tokens])
        assert one.score == pytest.approx(score[one.tokens])


def test_greedy_search_falls_into_the_trap_and_a_beam_of_two_does_not():
    """The likeliest first word leads nowhere: 0.6 · 0.4 against 0.4 · 1."""
    table = np.full((4, 4), -np.inf)
    table[BEGIN, 2], table[BEGIN, 3] = np.log([0.6, 0.4])
    table[2, 2], table[2, END], table[2, 3] = np.log([0.3, 0.4, 0.3])
    table[3, END] = 0

    def step(tokens, state):
        return table[tokens[:, -1]], state

    (greedy,) = models.beam_search(step, BEGIN, END, 1)
    assert greedy.tokens == (2, END)
    best, second = models.beam_search(step, BEGIN, END, 2)
    assert best.tokens == (3, END)
    assert best.log_probability == pytest.approx(np.log(0.4))
    assert second.tokens == (2, END)


@pytest.mark.parametrize("engine", [nn, torch.nn])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_beam_over_a_recurrent_decoder(engine, cell):
    """The state goes with its sequence, and width 1 is what `translate` does."""
    torch.manual_seed(0)
    dlnotes.manual_seed(0)
    net = models.Seq2Seq(9, 7, 5, 6, cell=cell, attention="dot", nn=engine).eval()
    for parameter in net.parameters():  # far from uniform
        parameter.data = parameter.data * 3
    source = models._engine.numbers(RNG.integers(0, 9, (1, 5)), net)
    with no_grad(), torch.no_grad():
        memory, state = net.encode(source)

        def step(tokens, state):
            words = models._engine.numbers(tokens[:, -1:], net)
            repeated = models._engine.cat([memory] * len(tokens))
            logits, _, state = net.decode(words, repeated, state)
            return logits[:, 0], state

        (greedy,) = models.beam_search(step, 1, 6, 1, 8, state, batch_axis=1)
        expected = np.asarray(net.translate(source, 1, 8)[0]).tolist()[0]
        expected = expected[: expected.index(6) + 1] if 6 in expected else expected
        assert list(greedy.tokens) == expected
        found = models.beam_search(step, 1, 6, 5, 8, state, batch_axis=1)
        assert len(found) == 5
        for one in found:  # log p of the whole sentence at once
            target = models._engine.numbers(np.array([[1, *one.tokens[:-1]]]), net)
            logits = np.asarray(net(source, target), np.float64)[0]
            logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
            p = logits[np.arange(len(one.tokens)), list(one.tokens)].sum()
            assert one.log_probability == pytest.approx(p, abs=1e-4)
    assert found[0].score >= greedy.score - 1e-9


def test_a_state_may_be_nested():
    state = {"a": [np.arange(2), (Tensor(np.arange(2)), None)]}
    turned = models.search._rearranged(state, np.array([1, 0, 1]), 0)
    assert turned["a"][0].tolist() == turned["a"][1][0].data.tolist() == [1, 0, 1]
    assert turned["a"][1][1] is None


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((0, 1, 0), {}, "width must be at least 1"),
        ((0, 1, 2, 0), {}, "length must be at least 1"),
        ((0, 1), {"length_penalty": -1}, "length_penalty must be at least 0"),
        ((0, 9), {}, r"scores must have shape \(1, vocabulary\) with 9 in the vocabulary"),
    ],
)
def test_beam_search_refuses(arguments, settings, message):
    with h.shapes_unchecked(), pytest.raises(ValueError, match=message):
        models.beam_search(lambda t, s: (np.zeros((len(t), 3)), s), *arguments, **settings)


# ---- the key-value cache -------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [nn, torch.nn])
def test_cached_steps_are_the_forward_pass(engine):
    torch.manual_seed(0)
    net = models.GPT(11, 10, 8, 2, nn=engine).double().eval()
    tokens = models._engine.numbers(RNG.integers(0, 11, (3, 10)), net)
    whole, cache, pieces = net(tokens), None, []
    for first, last in ((0, 4), (4, 5), (5, 8), (8, 10)):
        logits, cache = net.step(tokens[:, first:last], cache)
        pieces.append(logits)
    joined = models._engine.cat(pieces, 1).detach().numpy()
    np.testing.assert_allclose(joined, whole.detach().numpy(), rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="at most max_len = 10 long, got 11"):
        net.step(tokens[:, :1], cache)


@pytest.mark.parametrize("engine", [nn, torch.nn])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_generating_with_and_without_a_cache_is_the_same(engine, temperature):
    torch.manual_seed(0)
    net = models.GPT(11, 9, 8, 2, nn=engine).double().eval()
    start = RNG.integers(0, 11, (2, 3))
    seen = []
    net.embedding.register_forward_hook(lambda m, inputs, y: seen.append(y.shape[1]))
    texts, work = [], []
    for use_cache in (True, False):
        rng = np.random.default_rng(3)
        texts.append(np.asarray(net.generate(start, 9, temperature, rng, use_cache)))
        work.append(list(seen))
        seen.clear()
    np.testing.assert_array_equal(*texts)
    assert texts[0].shape == (2, 12)
    assert work[0] == [3, 1, 1, 1, 1, 1, 1, 9, 9]  # max_len is passed at the end
    assert work[1] == [3, 4, 5, 6, 7, 8, 9, 9, 9]


# ---- word vectors from language models -----------------------------------------------------------


def both(network, *arguments, **settings):
    """The network on both engines, in float64, with the same weights."""
    torch.manual_seed(0)
    theirs = network(*arguments, nn=torch.nn, **settings).double()
    ours = network(*arguments, **settings).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def compare_gradients(ours, theirs):
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, q.grad, rtol=1e-8, atol=1e-11, err_msg=name)


@pytest.mark.parametrize("direct", [False, True])
def test_the_n_gram_network(direct):
    ours, theirs = both(models.NeuralLanguageModel, 11, 3, 4, 5, direct)
    tokens = RNG.integers(0, 11, (6, 3))
    y, expected = ours(tokens), theirs(torch.tensor(tokens))
    h.assert_close(y.data, expected, np.float64, factor=10)
    y.sum().backward(), expected.sum().backward()
    compare_gradients(ours, theirs)
    count = 11 * 4 + 5 * (1 + 3 * 4) + 11 * 6 + direct * 11 * 3 * 4
    assert models.count_parameters(ours) == count
    with pytest.raises(ValueError, match=r"tokens must be \(n, 3\), got \(6, 2\)"):
        ours(tokens[:, :2])


SIZES = {"char_dim": 3, "filters": ((1, 2), (3, 4)), "dim": 5, "hidden_size": 6}
CHARACTERS, WORDS = RNG.integers(1, 8, (3, 4, 6)), RNG.integers(0, 11, (3, 4))
LENGTHS = np.array([4, 2, 3])


def test_bilm_on_both_engines():
    ours, theirs = both(models.BiLM, 11, 8, **SIZES)
    for lengths in (None, LENGTHS):
        for net in (ours, theirs):
            net.zero_grad()
        loss = ours.loss(Tensor(CHARACTERS), WORDS, lengths)
        expected = theirs.loss(torch.tensor(CHARACTERS), torch.tensor(WORDS), lengths)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-11)
        loss.backward(), expected.backward()
        compare_gradients(ours, theirs)


def test_each_direction_sees_its_side_only():
    net = models.BiLM(11, 8, **SIZES).double()
    changed = CHARACTERS.copy()
    changed[:, 2] = 8 - changed[:, 2]
    forward, backward = net.directions(Tensor(CHARACTERS))
    other_forward, other_backward = net.directions(Tensor(changed))
    for state, other in zip(forward[1:], other_forward[1:], strict=True):
        np.testing.assert_array_equal(state.data[:, :2], other.data[:, :2])
        assert (state.data[:, 2:] != other.data[:, 2:]).any(axis=2).all()
    for state, other in zip(backward[1:], other_backward[1:], strict=True):
        np.testing.assert_array_equal(state.data[:, 3:], other.data[:, 3:])
        assert (state.data[:, :3] != other.data[:, :3]).any(axis=2).all()
    np.testing.assert_array_equal(forward[0].data, backward[0].data)


def test_padding_changes_nothing():
    """Neither that of words with characters, nor that of sentences with words."""
    net = models.BiLM(11, 8, **SIZES).double()
    short = net.layers(Tensor(CHARACTERS[:, :2]), [2, 2, 2])
    filled = np.zeros((3, 4, 9), np.int64)
    filled[..., :6] = CHARACTERS
    long = net.layers(Tensor(filled), [2, 2, 2])
    for a, b in zip(short, long, strict=True):
        np.testing.assert_allclose(a.data, b.data[:, :2], rtol=1e-12, atol=1e-14)
    alone = net.loss(Tensor(CHARACTERS[:1, :2]), WORDS[:1, :2])
    padded = net.loss(Tensor(filled[:1]), WORDS[:1], [2])
    assert alone.item() == pytest.approx(padded.item(), rel=1e-12)


@pytest.mark.parametrize("freeze", [True, False])
def test_elmo_mixes_the_layers(freeze):
    ours, theirs = both(
        lambda nn=nn: models.ELMo(models.BiLM(11, 8, **SIZES, nn=nn), freeze, nn=nn)
    )
    layers = ours.language_model.layers(Tensor(CHARACTERS), LENGTHS)
    y = ours(Tensor(CHARACTERS), LENGTHS)
    np.testing.assert_allclose(y.data, np.mean([one.data for one in layers], axis=0), rtol=1e-12)
    expected = theirs(torch.tensor(CHARACTERS), LENGTHS)
    h.assert_close(y.data, expected, np.float64, factor=100)
    (y * y).sum().backward(), (expected * expected).sum().backward()
    for one in ("weight", "gamma"):
        np.testing.assert_allclose(getattr(ours, one).grad, getattr(theirs, one).grad, rtol=1e-9)
    below = [p.grad is not None for p in ours.language_model.parameters()]
    assert any(below) != freeze
    ours.weight.data[:], ours.gamma.data[:] = [50, 0, 0], 2
    np.testing.assert_allclose(ours(Tensor(CHARACTERS), LENGTHS).data, 2 * layers[0].data)


def test_a_small_bilm_learns():
    dlnotes.manual_seed(0)
    words = np.array([[1, 2, 3, 4], [4, 3, 2, 1]] * 2)
    characters = np.stack([words, words + 3], axis=2)
    net = models.BiLM(5, 8, **{**SIZES, "hidden_size": 12})
    optimiser = optim.Adam(net.parameters(), 0.03)
    losses = []
    for _ in range(100):
        loss = net.loss(Tensor(characters), words)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 1.2
    assert losses[-1] < 0.1  # each word follows from those on its side, but not from one alone
