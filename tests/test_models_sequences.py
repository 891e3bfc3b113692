"""Networks of words: recurrent and transformer networks, on both engines."""

import core_helpers as h
import numpy as np
import pytest
import torch

import dlnotes
from dlnotes import models, nn, optim
from dlnotes.autograd import Tensor

WORDS = 11
TRANSFORMERS = {
    "gpt": (models.GPT, {"vocabulary": WORDS, "max_len": 8, "d_model": 8, "nhead": 2}),
    "bert": (
        models.BERT,
        {"vocabulary": WORDS, "max_len": 8, "d_model": 8, "nhead": 2, "dropout": 0.0},
    ),
    "translate": (
        models.TransformerSeq2Seq,
        {"source_vocabulary": WORDS, "target_vocabulary": WORDS, "d_model": 8, "nhead": 2}
        | {"dim_feedforward": 12, "dropout": 0.0},
    ),
    "translate, pre-norm": (
        models.TransformerSeq2Seq,
        {"source_vocabulary": WORDS, "target_vocabulary": WORDS, "d_model": 8, "nhead": 2}
        | {"dim_feedforward": 12, "dropout": 0.0, "norm_first": True},
    ),
}
SMALL = {"vocabulary": WORDS, "embedding_dim": 5, "hidden_size": 6}
PAIR = {"source_vocabulary": WORDS, "target_vocabulary": WORDS} | {
    "embedding_dim": 5,
    "hidden_size": 6,
}
RECURRENT = {
    "lm, rnn": (models.RNNLanguageModel, {**SMALL, "cell": "rnn"}),
    "lm, lstm": (models.RNNLanguageModel, {**SMALL, "num_layers": 2}),
    "lm, tied": (models.RNNLanguageModel, {**SMALL, "hidden_size": 5, "tie_weights": True}),
    "tagger": (models.SequenceTagger, {**SMALL, "tags": WORDS, "padding_idx": 0}),
    "classifier": (models.SequenceClassifier, {**SMALL, "cell": "gru", "num_classes": WORDS}),
    "classifier, mean": (
        models.SequenceClassifier,
        {**SMALL, "bidirectional": True, "pool": "mean", "num_classes": WORDS},
    ),
    "translate": (models.Seq2Seq, PAIR),
    "translate, dot": (models.Seq2Seq, {**PAIR, "cell": "lstm", "attention": "dot"}),
    "translate, additive": (models.Seq2Seq, {**PAIR, "num_layers": 2, "attention": "additive"}),
}
NETWORKS = {**{f"transformer: {k}": v for k, v in TRANSFORMERS.items()}, **RECURRENT}


def words(seed, shape=(3, 6)):
    return np.random.default_rng(seed).integers(0, WORDS, shape)


def pair(name):
    """Return the network on both engines, in float64, with the same weights."""
    network, settings = NETWORKS[name]
    torch.manual_seed(0)
    ours, theirs = network(**settings).double(), network(nn=torch.nn, **settings).double()
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    assert list(ours.state_dict()) == list(theirs.state_dict())
    return ours, theirs


def logits(net, *inputs):
    """Run a network, with as many inputs as it takes, and return its logits as (rows, words)."""
    if not isinstance(net, models.Seq2Seq | models.TransformerSeq2Seq):
        inputs = inputs[:1]
    inputs = inputs if isinstance(net, nn.Module) else [torch.tensor(x) for x in inputs]
    output = net(*inputs)
    output = output[0] if isinstance(output, tuple) else output
    return output.reshape(-1, WORDS)


@pytest.mark.parametrize("name", NETWORKS)
@h.shapes_unchecked()  # they are checked in float32; here they take most of the time
def test_training_as_on_torch(name):
    """Values, gradients and weights over three steps of SGD with momentum, then Adam."""
    ours, theirs = pair(name)
    for optimizer, settings in (("SGD", {"lr": 0.1, "momentum": 0.9}), ("Adam", {"eps": 1e-4})):
        mine = getattr(optim, optimizer)(ours.parameters(), **settings)
        torchs = getattr(torch.optim, optimizer)(theirs.parameters(), **settings)
        for step in range(3):
            inputs = (words(step), words(step + 10, (3, 4)))
            y, expected = logits(ours, *inputs), logits(theirs, *inputs)
            target = words(step + 20, (len(y),))
            loss = nn.functional.cross_entropy(y, target)
            torch_loss = torch.nn.functional.cross_entropy(expected, torch.tensor(target))
            assert loss.item() == pytest.approx(torch_loss.item(), rel=1e-11)
            mine.zero_grad(), torchs.zero_grad()
            loss.backward(), torch_loss.backward()
            for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
                np.testing.assert_allclose(p.grad, q.grad, rtol=1e-8, atol=1e-10, err_msg=key)
            mine.step(), torchs.step()
    state = ours.state_dict()
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(state[key], value, rtol=1e-8, atol=1e-10, err_msg=key)
    inputs = (words(5, (1, 3)), words(6, (1, 1)))
    ours.eval(), theirs.eval()
    y, expected = logits(ours, *inputs), logits(theirs, *inputs).detach().numpy()
    np.testing.assert_allclose(y.data, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", NETWORKS)
def test_float32(name):
    network, settings = NETWORKS[name]
    torch.manual_seed(1)
    ours, theirs = network(**settings), network(nn=torch.nn, **settings)
    ours.load_state_dict(theirs.state_dict())
    inputs = (words(0), words(1, (3, 4)))
    y, expected = logits(ours, *inputs), logits(theirs, *inputs).detach().numpy()
    assert y.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(y.data, expected, atol=2e-5)


# ---- what follows from the design, on either engine ----------------------------------------------


def small(name, engine, **more):
    dlnotes.manual_seed(0)
    torch.manual_seed(0)
    network, settings = NETWORKS[name]
    return network(nn=engine, **{**settings, **more}).double().eval()


def numbers(values, engine):
    return Tensor(values) if engine is nn else torch.tensor(values)


def array(x):
    return x.detach().numpy()


ENGINES = pytest.mark.parametrize("engine", [nn, torch.nn])


@ENGINES
@pytest.mark.parametrize("name", ["transformer: gpt", "lm, rnn", "lm, lstm"])
def test_a_language_model_sees_no_later_word(name, engine):
    net = small(name, engine)
    first, second = words(0), words(0)
    second[:, 4:] = (second[:, 4:] + 1) % WORDS
    one, other = (net(numbers(x, engine)) for x in (first, second))
    if isinstance(one, tuple):
        one, other = one[0], other[0]
    assert one.shape == (3, 6, WORDS)
    np.testing.assert_allclose(array(one)[:, :4], array(other)[:, :4], rtol=1e-12)
    assert np.abs(array(one)[:, 4:] - array(other)[:, 4:]).max(axis=(0, 2)).min() > 1e-3


@ENGINES
def test_bert_sees_both_sides_but_no_padding(engine):
    net = small("transformer: bert", engine)
    x = words(0)
    hidden = np.zeros(x.shape, bool)
    hidden[0, 4:] = True
    changed = x.copy()
    changed[0, 4:] = (x[0, 4:] + 3) % WORDS
    settings = {"padding": numbers(hidden, engine)}
    one, other = (array(net(numbers(t, engine), **settings)) for t in (x, changed))
    np.testing.assert_allclose(one[0, :4], other[0, :4], rtol=1e-10)
    free = array(net(numbers(changed, engine)))
    assert np.abs(free[0, :4] - one[0, :4]).max() > 1e-6  # small weights, small effect
    second = array(net(numbers(x, engine), segments=numbers(np.ones_like(x), engine)))
    assert np.abs(second - array(net(numbers(x, engine)))).max() > 1e-3


@ENGINES
@pytest.mark.parametrize("name", ["transformer: translate", "transformer: translate, pre-norm"])
def test_translation_ignores_padding_and_later_words(name, engine):
    net = small(name, engine)
    source, target = words(0), words(1, (3, 4))
    hidden = np.zeros(source.shape, bool)
    hidden[1, 3:] = True
    y = array(net(*(numbers(x, engine) for x in (source, target, hidden))))
    short = array(net(numbers(source[1:2, :3], engine), numbers(target[1:2], engine)))
    np.testing.assert_allclose(y[1:2], short, rtol=1e-9, atol=1e-12)
    earlier = array(net(*(numbers(x, engine) for x in (source, target[:, :2], hidden))))
    np.testing.assert_allclose(y[:, :2], earlier, rtol=1e-9, atol=1e-12)


@ENGINES
@pytest.mark.parametrize(
    "name",
    [n for n in RECURRENT if not n.startswith("lm")],
)
def test_recurrent_networks_ignore_padding(name, engine):
    net = small(name, engine)
    source, target, lengths = words(0), words(1, (3, 4)), np.array([6, 2, 4])
    given = (source, target) if isinstance(net, models.Seq2Seq) else (source,)
    y = array(net(*(numbers(x, engine) for x in given), lengths))
    for i, length in enumerate(lengths):
        alone = [x[i : i + 1] for x in given]
        alone[0] = alone[0][:, :length]
        expected = array(net(*(numbers(x, engine) for x in alone)))[0]
        mine = y[i, :length] if name == "tagger" else y[i]
        np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-12)


@ENGINES
@pytest.mark.parametrize("name", ["lm, rnn", "lm, lstm", "lm, tied"])
def test_the_state_carries_over(name, engine):
    """Two halves, the state given on, are the same as the whole."""
    net, x = small(name, engine), words(0)
    whole, end = net(numbers(x, engine))
    first, state = net(numbers(x[:, :2], engine))
    second, last = net(numbers(x[:, 2:], engine), state)
    joined = np.concatenate([array(first), array(second)], 1)
    np.testing.assert_allclose(joined, array(whole), rtol=1e-10)
    ends = (end, last) if isinstance(end, tuple) else ((end,), (last,))
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(array(one), array(other), rtol=1e-10)


@ENGINES
@pytest.mark.parametrize("name", ["transformer: gpt", "lm, lstm"])
def test_generating_text(name, engine):
    net, start = small(name, engine), words(0, (2, 3))
    likeliest = array(net.generate(start, 4, 0))
    np.testing.assert_array_equal(likeliest[:, :3], start)
    for i in range(4):  # each word is the largest logit after those before
        y = net(numbers(likeliest[:, : 3 + i], engine))
        y = y[0] if isinstance(y, tuple) else y
        np.testing.assert_array_equal(array(y)[:, -1].argmax(1), likeliest[:, 3 + i])
    draws = [net.generate(start, 5, 1.0, np.random.default_rng(s)) for s in (1, 1, 2)]
    np.testing.assert_array_equal(array(draws[0]), array(draws[1]))
    assert (array(draws[0]) != array(draws[2])).any()
    assert net.generate(start, 0).shape == (2, 3)
    assert all(parameter.grad is None for parameter in net.parameters())
    with h.shapes_unchecked(), pytest.raises(TypeError, match="tokens must be integers"):
        net.generate(np.ones((1, 2)), 1)


def test_draws_follow_the_temperature():
    """The share of each word among 20,000 draws is softmax(logits / T), within 4 deviations."""
    scores = np.log([0.5, 0.3, 0.2])
    many = Tensor(np.tile(scores, (20_000, 1)))
    for temperature in (1.0, 0.5):
        rng = np.random.default_rng(0)
        drawn = models._engine.draw(many, temperature, rng).data
        assert drawn.shape == (20_000, 1)
        p = np.exp(scores / temperature) / np.exp(scores / temperature).sum()
        shares = np.bincount(drawn[:, 0], minlength=3) / 20_000
        np.testing.assert_array_less(np.abs(shares - p), 4 * np.sqrt(p * (1 - p) / 20_000))


@ENGINES
def test_a_long_text_is_cut_to_what_gpt_sees(engine):
    net, start = small("transformer: gpt", engine), words(0, (1, 12))
    assert net.generate(start, 2, 0).shape == (1, 14)
    with pytest.raises(ValueError, match="tokens must be at most max_len = 8 long, got 12"):
        net(numbers(start, engine))


@ENGINES
@pytest.mark.parametrize("name", ["translate, dot", "translate, additive", "translate"])
def test_attention_weights_are_shares_of_what_is_there(name, engine):
    net, lengths = small(name, engine), np.array([6, 2, 4])
    found, weights = net.translate(words(0), 1, 5, lengths)
    assert found.shape == (3, 5)
    if name == "translate":
        assert weights is None
        return
    weights = array(weights)
    assert weights.shape == (3, 5, 6)
    np.testing.assert_allclose(weights.sum(2), 1, rtol=1e-12)
    assert (weights[1, :, 2:] == 0).all()
    assert (weights[0] > 0).all()
    # What translate chose, given back as the target, has the largest logits.
    target = np.concatenate([np.ones((3, 1), int), array(found)[:, :-1]], 1)
    y = net(numbers(words(0), engine), numbers(target, engine), lengths)
    np.testing.assert_array_equal(array(y).argmax(2), array(found))


@ENGINES
def test_transformers_translate_word_by_word(engine):
    net, source = small("transformer: translate", engine), words(0)
    found = array(net.translate(source, 1, 5))
    target = np.concatenate([np.ones((3, 1), int), found[:, :-1]], 1)
    y = net(numbers(source, engine), numbers(target, engine))
    np.testing.assert_array_equal(array(y).argmax(2), found)


def test_weights_are_tied():
    for net in (models.GPT(5), models.BERT(5), small("lm, tied", nn)):
        assert net.fc.weight is net.embedding.weight
    untied = models.count_parameters(models.RNNLanguageModel(WORDS, 5, 5))
    assert (
        untied - models.count_parameters(models.RNNLanguageModel(WORDS, 5, 5, tie_weights=True))
        == 55
    )


def test_sizes_as_published():
    """GPT-2's smallest model; BERT's base with its head of masked words, without the pooler."""
    with torch.device("meta"):
        gpt = models.GPT(50_257, 1024, 768, 12, 12, nn=torch.nn)
        bert = models.BERT(30_522, 512, 768, 12, 12, nn=torch.nn)
        base = models.TransformerSeq2Seq(37_000, 37_000, 512, 8, 6, 2048, nn=torch.nn)
        summary = models.summary(gpt, np.zeros((1, 1024), int))
    assert models.count_parameters(gpt) == 124_439_808
    assert models.count_parameters(bert) == 109_514_298
    # Vaswani et al., table 3: 65 million, with one table where there are three here, one with bias.
    shared = models.count_parameters(base) - 2 * 37_000 * 512 - 37_000
    assert round(shared / 1e6) in (63, 65)
    # About one multiply-accumulate for each weight and word, and 2 · 12 · 768 · 1024² for looking.
    assert summary.macs == 1024 * (12 * 12 * 768**2 + 50_257 * 768) + 2 * 12 * 768 * 1024**2


def test_gpts_branches_start_small():
    dlnotes.manual_seed(0)
    net = models.GPT(100, d_model=64, num_layers=8)
    for block in net.blocks:
        for last in (block.attention.out_proj, block.mlp[2]):
            assert last.weight.data.std() == pytest.approx(0.02 / 4, rel=0.05)
            assert not last.bias.data.any()
        assert block.mlp[0].weight.data.std() == pytest.approx(0.02, rel=0.05)
    start = nn.functional.cross_entropy(net(words(0)).reshape(-1, 100), words(1).reshape(-1) + 50)
    assert start.item() == pytest.approx(np.log(100), abs=0.1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: models.RNNLanguageModel(5, cell="qrnn"), ValueError, "cell must be one of"),
        (
            lambda: models.RNNLanguageModel(5, 4, 3, tie_weights=True, nn=torch.nn),
            ValueError,
            "tied weights need embedding_dim = hidden_size, got 4 and 3",
        ),
        (lambda: models.SequenceClassifier(5, pool="max"), ValueError, "pool must be one of"),
        (
            lambda: models.Seq2Seq(5, 5, attention="soft", nn=torch.nn),
            ValueError,
            "attention must be one of",
        ),
        (lambda: models.GPT(5, max_len=0), ValueError, "max_len must be at least 1"),
    ],
)
def test_bad_arguments(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()
