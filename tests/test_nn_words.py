"""Modules of word vectors: output layers, GloVe, highway, character CNN, scalar mix."""

import core_helpers as h
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import dlnotes
from dlnotes import data, kernels, nn, optim
from dlnotes.autograd import Tensor, no_grad

COUNTS = np.array([9, 1, 5, 2, 2, 1, 7])
WORDS, D = len(COUNTS), 4
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def shake(module, seed=0):
    """Move every parameter off its starting value."""
    for i, parameter in enumerate(module.parameters()):
        parameter.data += h.draw(seed + i, parameter.shape, parameter.dtype, 0.5)
    return module


def torch_state(module):
    return {k: v.requires_grad_(v.is_floating_point())
            for k, v in nn.to_torch(module.state_dict()).items()}  # fmt: skip


def assert_gradients(module, state, dtype, scale=10):
    for name, parameter in module.named_parameters():
        theirs = state[name].grad
        assert (parameter.grad is None) == (theirs is None), name
        if theirs is not None:
            h.assert_close(parameter.grad, theirs, dtype, scale, 10)


# ---- output layers ---------------------------------------------------------------------------


def hidden_layers():
    """Skip-gram and CBOW: what makes hidden vectors, and the kernel's step with the words."""
    center = np.array([3, 3, 0, 6])
    contexts, offsets = np.array([1, 2, 3, 3, 0, 5]), np.array([0, 2, 2, 5])
    return {
        "skip_gram": (nn.Embedding, (center,), {}),
        "cbow": (nn.EmbeddingBag, (contexts, offsets), {"mode": "mean"}),
    }


@pytest.mark.parametrize("model", ["skip_gram", "cbow"])
@pytest.mark.parametrize("loss", ["negative_sampling", "hierarchical_softmax"])
@dtypes
def test_one_step_of_sgd_through_the_tape_is_the_step_of_the_kernel(model, loss, dtype):
    layer, words, keywords = hidden_layers()[model]
    layer = layer(WORDS, D, **keywords, dtype=dtype)
    target, noise = np.array([1, 1, 4, 6]), np.array([[0, 1], [1, 1], [4, 2], [5, 5]])
    if loss == "negative_sampling":
        head = nn.NegativeSampling(
            WORDS, D, remove_accidental_hits=True, reduction="sum", dtype=dtype
        )
        questions, constants = (noise,), {"remove_accidental_hits": True}
    else:
        head = nn.HierarchicalSoftmax(D, COUNTS, reduction="sum", dtype=dtype)
        questions, constants = (), {}
    assert not head.weight.data.any()
    shake(head)
    tables = layer.weight.data.copy(), head.weight.data.copy()
    optimizer = optim.SGD([*layer.parameters(), *head.parameters()], lr=0.1)
    value = head(layer(*words), target, *questions)
    value.backward()
    optimizer.step()
    step = getattr(kernels, f"{model}_{loss}_step")
    if loss == "hierarchical_softmax":
        questions = (head.codes.data, head.points.data)
    mean = step(*tables, *words, target, *questions, lr=0.1, **constants)
    h.assert_close(value.data, np.asarray(4 * mean), dtype, 10)
    h.assert_close(layer.weight.data, tables[0], dtype, 1, 5)
    h.assert_close(head.weight.data, tables[1], dtype, 1, 5)


def test_three_output_layers_learn_which_word_follows():
    """Full softmax, hierarchical softmax and negative sampling take the same hidden vectors."""
    center = np.arange(WORDS)
    target = (center + 1) % WORDS
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((WORDS, 16)).astype(np.float32)
    full = nn.Linear(16, WORDS, bias=False)
    tree = nn.HierarchicalSoftmax(16, COUNTS)
    sampled = nn.NegativeSampling(WORDS, 16)
    losses = {
        full: lambda: nn.CrossEntropyLoss()(full(hidden), target),
        tree: lambda: tree(hidden, target),
        sampled: lambda: sampled(hidden, target, rng.integers(0, WORDS, (WORDS, 3))),
    }
    for head, loss in losses.items():
        optimizer = optim.Adam(head.parameters(), lr=0.1)
        for _ in range(60):
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
    with no_grad():
        scores = hidden @ sampled.weight.data.T
        for predicted in (full(hidden).data, tree.log_prob(hidden).data, scores):
            np.testing.assert_array_equal(predicted.argmax(axis=1), target)


@dtypes
def test_log_prob(dtype):
    head = shake(nn.HierarchicalSoftmax(D, COUNTS, reduction="none", dtype=dtype))
    hidden = h.draw(0, (5, D), dtype)
    log_p = head.log_prob(Tensor(hidden, requires_grad=True))
    assert not log_p.requires_grad
    np.testing.assert_allclose(np.exp(log_p.data).sum(axis=1), 1, rtol=1e-5)
    target = np.array([0, 6, 3, 3, 1])
    h.assert_close(-log_p.data[np.arange(5), target], head(hidden, target).data, dtype, 10)


def test_state_and_repr_of_the_output_layers():
    tree = nn.HierarchicalSoftmax(D, COUNTS)
    assert list(tree.state_dict()) == ["weight", "codes", "points"]
    assert list(dict(tree.named_parameters())) == ["weight"]
    assert tree.weight.shape == (WORDS - 1, D)
    assert repr(tree) == "HierarchicalSoftmax(4, words=7, depth=4)"
    other = nn.HierarchicalSoftmax(D, COUNTS[::-1].copy())
    other.load_state_dict(tree.state_dict())
    np.testing.assert_array_equal(other.codes.data, tree.codes.data)
    assert tree.double().codes.dtype == np.int8
    assert repr(nn.NegativeSampling(9, 2)) == "NegativeSampling(9, 2)"


# ---- GloVe -----------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_glove(dtype, reduction):
    model = shake(nn.GloVe(WORDS, D, x_max=8, alpha=0.5, reduction=reduction, dtype=dtype))
    center, context = np.array([0, 3, 3, 6]), np.array([1, 3, 1, 0])
    counts = np.array([0.5, 3.0, 8.0, 100.0])
    loss = model(center, context, counts)
    state = torch_state(model)
    w, c = state["center.weight"][center], state["context.weight"][context]
    biases = state["center_bias.weight"][center, 0] + state["context_bias.weight"][context, 0]
    x = torch.tensor(counts.astype(dtype))
    expected = (x / 8).clamp(max=1) ** 0.5 * ((w * c).sum(1) + biases - x.log()) ** 2
    expected = expected if reduction == "none" else getattr(expected, reduction)()
    h.assert_close(loss.data, expected, dtype, 100)
    dy = h.draw(0, loss.shape, dtype)
    loss.backward(dy)
    expected.backward(torch.tensor(dy))
    assert_gradients(model, state, dtype, 100)
    mean = (model.center.weight.data + model.context.weight.data) / 2
    np.testing.assert_array_equal(model.vectors(), mean)
    assert not np.shares_memory(model.vectors(), model.center.weight.data)


def test_glove_starts_small_and_fits_a_text_with_adagrad():
    dlnotes.manual_seed(0)
    tokens = np.random.default_rng(0).choice(5, 400, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    center, context, counts = data.cooccurrences(tokens, 3)
    model = nn.GloVe(5, 8, dtype=np.float64)
    for parameter in model.parameters():
        assert 0 < np.abs(parameter.data).max() <= 0.5 / 8
    optimizer = optim.Adagrad(model.parameters(), lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        model(center, context, counts).backward()
        optimizer.step()
    with no_grad():
        products = model.center.weight.data @ model.context.weight.data.T
        fitted = products + model.center_bias.weight.data + model.context_bias.weight.data.T
    np.testing.assert_allclose(fitted[center, context], np.log(counts), atol=0.02)


# ---- words from characters -------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_highway(dtype, num_layers):
    layer = shake(nn.Highway(D, num_layers, activation=nn.functional.tanh, dtype=dtype))
    x = h.draw(7, (2, 3, D), dtype)
    given_ = Tensor(x, requires_grad=True)
    y = layer(given_)
    state = torch_state(layer)
    theirs = torch.tensor(x, requires_grad=True)
    expected = theirs
    for i in range(num_layers):
        t, g = (F.linear(expected, state[f"{n}.{i}.weight"], state[f"{n}.{i}.bias"])
                for n in ("transform", "gate"))  # fmt: skip
        expected = torch.sigmoid(g) * torch.tanh(t) + (1 - torch.sigmoid(g)) * expected
    h.assert_close(y.data, expected, dtype, 1, 5)
    if num_layers:
        (y * y).sum().backward()
        (expected * expected).sum().backward()
        h.assert_close(given_.grad, theirs.grad, dtype, 10, 5)
        assert_gradients(layer, state, dtype)


def test_a_highway_begins_near_the_identity():
    layer = nn.Highway(D, 2)
    np.testing.assert_array_equal(layer.gate[1].bias.data, -2)
    x = h.draw(0, (50, D), np.float32)
    far = nn.Highway(D, 2, gate_bias=-30.0)
    np.testing.assert_allclose(far(x).data, x, atol=1e-6)
    assert np.abs(layer(x).data - x).mean() < np.abs(x).mean() / 2


def torch_characters(state, word, filters, num_highway, projection):
    """Return the vector of one word without padding: windows start at each of its characters."""
    x = state["embedding.weight"][torch.tensor(word)]
    features = []
    for i, (width, _) in enumerate(filters):
        filled = torch.cat([x, x.new_zeros(width - 1, x.shape[1])])
        weight, bias = (state[f"convolutions.{i}.{n}"] for n in ("weight", "bias"))
        features.append(F.conv1d(filled.T[None], weight, bias)[0].amax(dim=1))
    y = F.relu(torch.cat(features))
    for i in range(num_highway):
        t, g = (F.linear(y, state[f"highway.{n}.{i}.weight"], state[f"highway.{n}.{i}.bias"])
                for n in ("transform", "gate"))  # fmt: skip
        y = torch.sigmoid(g) * F.relu(t) + (1 - torch.sigmoid(g)) * y
    return F.linear(y, state["projection.weight"], state["projection.bias"]) if projection else y


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.lists(st.integers(1, 6), max_size=6), min_size=1, max_size=5),
    *(st.integers(0, 3), st.integers(0, 2), st.booleans(), h.dtypes, h.seeds),
)
def test_character_cnn(words, padding, num_highway, projection, dtype, seed):
    filters = [(1, 2), (3, 4), (2, 1)]
    settings_ = {"num_highway": num_highway, "output_dim": 3 if projection else None}
    layer = shake(nn.CharacterCNN(7, 5, filters, dtype=dtype, **settings_), seed)
    layer.embedding.weight.data[0] = 0  # padding
    length = max(1, max(map(len, words))) + padding
    ids = np.array([word + [0] * (length - len(word)) for word in words])
    y = layer(ids)
    state = torch_state(layer)
    # A word without characters counts as one character of padding.
    rows = [torch_characters(state, word or [0], filters, num_highway, projection)
            for word in words]  # fmt: skip
    expected = torch.stack(rows)
    h.assert_close(y.data, expected, dtype, 20, 5)
    dy = h.draw(seed, y.shape, dtype)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    state["embedding.weight"].grad[0] = 0
    assert_gradients(layer, state, dtype, 200)
    # However far the words are filled up, however they are arranged.
    wider = np.pad(ids, [(0, 0), (0, 4)])
    h.assert_close(layer(wider).data, y.data, dtype, 20, 5)
    h.assert_close(layer(Tensor(ids[None])).data[0], y.data, dtype, 20, 5)


def test_one_module_per_filter_and_its_errors():
    layer = nn.CharacterCNN(30, 4, [(1, 8), (5, 16)])
    assert layer.projection is None
    assert layer(np.ones((2, 3, 6), int)).shape == (2, 3, 24)
    with pytest.raises(ValueError, match=r"words of 1 character or more, got \(2, 0\)"):
        layer(np.ones((2, 0), int))
    with pytest.raises(ValueError, match=r"filters must hold one pair \(width, number\) or more"):
        nn.CharacterCNN(30, 4, [])
    with pytest.raises(ValueError, match="input must be in 0 … 29, got 30"):
        layer(np.full((1, 4), 30))


# ---- scalar mix ------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 5), (0, 5)])
def test_scalar_mix(dtype, layer_norm, shape):
    mix = shake(nn.ScalarMix(3, layer_norm=layer_norm, dtype=dtype))
    arrays = [h.draw(i, shape, dtype) for i in range(3)]
    layers = [Tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    state = torch_state(mix)
    share = state["weight"].softmax(0)
    expected = state["gamma"] * sum(
        s * (F.layer_norm(x, (5,)) if layer_norm else x) for s, x in zip(share, theirs, strict=True)
    )
    y = mix(layers)
    h.assert_close(y.data, expected, dtype, 5)
    np.testing.assert_array_equal(mix(Tensor(np.stack(arrays))).data, y.data)
    dy = h.draw(4, shape, dtype)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    assert_gradients(mix, state, dtype)
    for mine, other in zip(layers, theirs, strict=True):
        h.assert_close(mine.grad, other.grad, dtype, 10, 10)


def test_a_mix_begins_as_the_mean():
    mix = nn.ScalarMix(2)
    layers = [h.draw(i, (4, 3), np.float32) for i in range(2)]
    np.testing.assert_allclose(mix([Tensor(a) for a in layers]).data, np.mean(layers, 0), rtol=1e-6)
    assert repr(mix) == "ScalarMix(2)"
    assert repr(nn.ScalarMix(2, layer_norm=True)) == "ScalarMix(2, layer_norm=True)"
    with pytest.raises(ValueError, match="layers must be 2 tensors, got 3"):
        mix([Tensor(layers[0])] * 3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.NegativeSampling(0, 3), ValueError, "num_embeddings must be at least 1"),
        (lambda: nn.NegativeSampling(3, 3, reduction="x"), ValueError, "reduction must be one of"),
        (lambda: nn.HierarchicalSoftmax(3, COUNTS / 2), TypeError, "counts must hold integers"),
        (lambda: nn.GloVe(3, 2, alpha="x"), TypeError, "alpha must be a number"),
        (lambda: nn.Highway(3, -1), ValueError, "num_layers must be at least 0"),
        (lambda: nn.ScalarMix(0), ValueError, "num_layers must be at least 1"),
    ],
)
def test_bad_settings(call, error, message):
    with h.shapes_unchecked(), pytest.raises(error, match=message):
        call()
