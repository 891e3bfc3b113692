"""Attention and transformer modules: equal to torch.nn in names, values, gradients and state."""

import warnings

import core_helpers as h
import numpy as np
import pytest
import torch

from dlnotes import nn
from dlnotes.autograd import Tensor, no_grad, tensor
from dlnotes.nn import functional as F

N, L, S, E, HEADS = 3, 4, 5, 8, 2
CAUSAL = np.triu(np.ones((L, L), bool), 1)
PADDING = np.array([[False] * 5, [False] * 3 + [True] * 2, [False] + [True] * 4])


def pair(name, *arguments, dtype=np.float64, **settings):
    """Return our module and torch's with the same weights, off their starting values."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="enable_nested_tensor")
        theirs = getattr(torch.nn, name)(*arguments, **settings)
    ours = getattr(nn, name)(*arguments, **settings)
    return together(ours, theirs, dtype)


def together(ours, theirs, dtype):
    ours.double() if dtype == np.float64 else ours.float()
    theirs.double() if dtype == np.float64 else theirs.float()
    for i, parameter in enumerate(ours.parameters()):
        parameter.data += h.draw(i, parameter.shape, dtype, 0.1)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(nn.to_torch(ours.state_dict()))
    return ours, theirs


def hold_together(ours, theirs, inputs, masks, dtype, scale=1.0, call=lambda y: y):
    """Compare outputs and the gradients of all inputs and parameters."""
    own = [tensor(x, requires_grad=True) for x in inputs]
    torchs = [torch.tensor(x, requires_grad=True) for x in inputs]
    y = call(ours(*own, **masks))
    as_torch = {
        key: torch.tensor(mask) if isinstance(mask, np.ndarray) else mask
        for key, mask in masks.items()
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Support for mismatched")
        expected = call(theirs(*torchs, **as_torch))
    h.assert_close(y.data, expected, dtype, 5 * scale, factor=2)
    dy = h.draw(9, y.shape, dtype)
    y.backward(dy)
    expected.backward(torch.tensor(dy))
    for mine, other in zip(own, torchs, strict=True):
        h.assert_close(mine.grad, other.grad, dtype, 20, factor=2)
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None, name
        h.assert_close(mine.grad, other.grad, dtype, 100 * scale, factor=2)


def sequence(seed, length, batch_first, dtype, n=N):
    return h.draw(seed, (n, length, E) if batch_first else (length, n, E), dtype)


ATTENTION_MASKS = {
    "none": {},
    "bool": {"attn_mask": np.triu(np.ones((L, S), bool), 2)},
    "padding": {"key_padding_mask": PADDING},
    "both": {"attn_mask": np.triu(np.ones((L, S), bool), 1), "key_padding_mask": PADDING},
    "each head": {"attn_mask": np.random.default_rng(0).random((N * HEADS, L, S)) < 0.3},
}


@pytest.mark.parametrize("masks", ATTENTION_MASKS)
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_multihead_attention(masks, need_weights, batch_first, dtype):
    ours, theirs = pair("MultiheadAttention", E, HEADS, batch_first=batch_first, dtype=dtype)
    inputs = [sequence(i, n, batch_first, dtype) for i, n in enumerate((L, S, S))]
    masks = {**ATTENTION_MASKS[masks], "need_weights": need_weights}
    hold_together(ours, theirs, inputs, masks, dtype, call=lambda y: y[0])
    if need_weights:
        for average in (True, False):
            masks["average_attn_weights"] = average
            hold_together_weights(ours, theirs, inputs, masks, dtype)


def hold_together_weights(ours, theirs, inputs, masks, dtype):
    weights = ours(*inputs, **masks)[1]
    as_torch = {k: torch.tensor(m) if isinstance(m, np.ndarray) else m for k, m in masks.items()}
    h.assert_close(weights.data, theirs(*map(torch.tensor, inputs), **as_torch)[1], dtype)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n", [1, 2])
def test_attention_of_length_1_and_float_masks(bias, n):
    ours, theirs = pair("MultiheadAttention", E, HEADS, bias=bias)
    inputs = [sequence(0, 1, False, np.float64, n)] * 3
    hold_together(ours, theirs, inputs, {}, np.float64, call=lambda y: y[0])
    ours, theirs = pair("MultiheadAttention", E, HEADS, bias=bias)
    inputs = [sequence(i, L, False, np.float64, n) for i in range(3)]
    padding = np.zeros((n, L))
    padding[:, -1] = -np.inf
    masks = {"attn_mask": h.draw(3, (L, L), np.float64), "key_padding_mask": padding}
    hold_together(ours, theirs, inputs, masks, np.float64, call=lambda y: y[0])


@pytest.mark.parametrize("sizes", [{"kdim": 3}, {"vdim": 5, "bias": False}, {"kdim": 2, "vdim": 3}])
def test_keys_and_values_of_other_sizes(sizes):
    ours, theirs = pair("MultiheadAttention", E, HEADS, **sizes)
    features = (E, sizes.get("kdim", E), sizes.get("vdim", E))
    inputs = [h.draw(i, (S if i else L, N, d), np.float64) for i, d in enumerate(features)]
    hold_together(ours, theirs, inputs, {}, np.float64, call=lambda y: y[0])
    with pytest.raises(ValueError, match=f"{features[1]} and {features[2]} features"):
        ours(inputs[0], inputs[0], inputs[0])


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_without_the_batch_axis(need_weights):
    ours, theirs = pair("MultiheadAttention", E, HEADS)
    inputs = [h.draw(i, (length, E), np.float64) for i, length in enumerate((L, S, S))]
    masks = {"need_weights": need_weights, "key_padding_mask": PADDING[1]}
    hold_together(ours, theirs, inputs, masks, np.float64, call=lambda y: y[0])
    if need_weights:
        hold_together_weights(ours, theirs, inputs, masks, np.float64)


def test_large_inputs_stay_finite():
    for scale in (1e4, -1e4):
        layer = nn.MultiheadAttention(E, HEADS)
        x = tensor(scale * sequence(0, L, False, np.float32), requires_grad=True)
        y, weights = layer(x, x, x, attn_mask=CAUSAL)
        y.backward(np.ones(y.shape, np.float32))
        assert np.isfinite(y.data).all()
        assert np.isfinite(x.grad).all()
        np.testing.assert_allclose(weights.data.sum(axis=-1), 1, rtol=1e-6)


def test_a_query_with_nothing_to_look_at_is_not_nan():
    layer = nn.MultiheadAttention(E, HEADS)
    x = sequence(0, L, False, np.float32, 1)
    for need_weights in (True, False):
        y, _ = layer(x, x, x, np.ones((1, L), bool), need_weights=need_weights)
        bias = np.broadcast_to(layer.out_proj.bias.data, y.shape)
        h.assert_close(y.data, bias, np.float32)


def test_self_attention_is_permutation_equivariant():
    layer = nn.TransformerEncoderLayer(E, HEADS, 16, 0.0).double()
    x, order = sequence(0, L, False, np.float64), np.array([2, 0, 3, 1])
    h.assert_close(layer(x[order]).data, layer(x).data[order], np.float64, 5)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layers(norm_first, activation, batch_first, dtype):
    settings = {"norm_first": norm_first, "batch_first": batch_first, "dtype": dtype}
    arguments = (E, HEADS, 16, 0.0, activation, 1e-4)
    source, target = (sequence(i, n, batch_first, dtype) for i, n in enumerate((S, L)))
    ours, theirs = pair("TransformerEncoderLayer", *arguments, **settings)
    masks = {"src_mask": np.triu(np.ones((S, S), bool), 1), "src_key_padding_mask": PADDING}
    hold_together(ours, theirs, [source], masks, dtype, 2)
    ours, theirs = pair("TransformerDecoderLayer", *arguments, **settings)
    masks = {"tgt_mask": CAUSAL, "memory_key_padding_mask": PADDING}
    hold_together(ours, theirs, [target, source], masks, dtype, 2)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transformer(norm_first, bias, dtype):
    settings = {"norm_first": norm_first, "bias": bias, "batch_first": True, "dtype": dtype}
    ours, theirs = pair("Transformer", E, HEADS, 2, 2, 16, 0.0, **settings)
    inputs = [sequence(0, S, True, dtype), sequence(1, L, True, dtype)]
    causal = nn.Transformer.generate_square_subsequent_mask(L, dtype=dtype)
    expected = torch.nn.Transformer.generate_square_subsequent_mask(L)
    np.testing.assert_array_equal(causal.data, expected)
    masks = {
        "tgt_mask": causal.data,
        "src_key_padding_mask": PADDING,
        "memory_key_padding_mask": PADDING,
    }
    hold_together(ours, theirs, inputs, masks, dtype, 10)
    fresh = nn.Transformer(
        E, HEADS, 2, 2, 16, 0.0, norm_first=norm_first, bias=bias, batch_first=True
    )
    fresh.load_state_dict(theirs.state_dict())
    for mine, other in zip(fresh.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_array_equal(mine.data, other.detach().numpy().astype(np.float32))


@pytest.mark.parametrize("with_norm", [True, False])
def test_stacks(with_norm):
    layer = nn.TransformerEncoderLayer(E, HEADS, 16, 0.0)
    torch_layer = torch.nn.TransformerEncoderLayer(E, HEADS, 16, 0.0)
    ours = nn.TransformerEncoder(layer, 2, nn.LayerNorm(E) if with_norm else None)
    norm = torch.nn.LayerNorm(E) if with_norm else None
    theirs = torch.nn.TransformerEncoder(torch_layer, 2, norm, enable_nested_tensor=False)
    together(ours, theirs, np.float64)
    assert ours.layers[0].linear1.weight is not ours.layers[1].linear1.weight
    hold_together(ours, theirs, [sequence(0, S, False, np.float64)], {}, np.float64, 5)


def test_fresh_weights_have_torchs_spread():
    ours = nn.Transformer(64, 4, 1, 1, 128).state_dict()
    theirs = torch.nn.Transformer(64, 4, 1, 1, 128, batch_first=True).state_dict()
    for name, value in ours.items():
        if name.endswith(("weight", "in_proj_bias", "out_proj.bias")):
            assert np.std(value) == pytest.approx(np.std(theirs[name].numpy()), rel=0.1), name
    attention = nn.MultiheadAttention(64, 4)
    theirs = torch.nn.MultiheadAttention(64, 4).state_dict()
    for name, value in attention.state_dict().items():
        assert np.std(value) == pytest.approx(np.std(theirs[name].numpy()), rel=0.1), name


def test_dropout_in_training_only():
    layer = nn.TransformerEncoderLayer(E, HEADS, 16, 0.5)
    x = sequence(0, L, False, np.float32)
    assert not np.array_equal(layer(x).data, layer(x).data)
    layer.eval()
    np.testing.assert_array_equal(layer(x).data, layer(x).data)
    attention = nn.MultiheadAttention(E, HEADS, dropout=0.5)
    _, weights = attention(x, x, x, average_attn_weights=False)
    assert (weights.data == 0).any()
    _, weights = attention.eval()(x, x, x)
    np.testing.assert_allclose(weights.data.sum(axis=-1), 1, rtol=1e-6)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("first", [1, 2])
def test_decoding_step_by_step_gives_the_full_pass(batch_first, first):
    """With a cache, `first` positions at once and then one at a time."""
    model = nn.Transformer(E, HEADS, 1, 2, 16, 0.0, batch_first=batch_first).double()
    lm_layer = nn.TransformerEncoderLayer(E, HEADS, 16, 0.0, batch_first=batch_first)
    lm = nn.TransformerEncoder(lm_layer, 2).double()
    source, target = (sequence(i, n, batch_first, np.float64) for i, n in enumerate((S, L)))
    axis = 1 if batch_first else 0
    cuts = [slice(0, first)] + [slice(t, t + 1) for t in range(first, L)]
    with no_grad():
        memory = model.encoder(source, src_key_padding_mask=PADDING)
        expected = model.decoder(target, memory, CAUSAL, memory_key_padding_mask=PADDING)
        expected_lm = lm(target, CAUSAL)
        cache, lm_cache = model.decoder.new_cache(), lm.new_cache()
        ys, lm_ys = [], []
        for cut in cuts:
            new = target[:, cut] if batch_first else target[cut]
            mask = CAUSAL[cut, : cut.stop]
            ys.append(
                model.decoder(new, memory, mask, memory_key_padding_mask=PADDING, cache=cache)
            )
            lm_ys.append(lm(new, None if cut.stop - cut.start == 1 else mask, cache=lm_cache))
    assert [len(c) for c in lm_cache] == [L, L]
    assert [(len(own), len(memorys)) for own, memorys in cache] == [(L, S), (L, S)]
    h.assert_close(np.concatenate([y.data for y in ys], axis), expected.data, np.float64, 5)
    h.assert_close(np.concatenate([y.data for y in lm_ys], axis), expected_lm.data, np.float64, 5)


def test_a_cache_refuses_what_it_cannot_hold():
    layer = nn.MultiheadAttention(E, HEADS)
    x = sequence(0, 1, False, np.float32)
    cache = nn.KeyValueCache()
    with pytest.raises(RuntimeError, match="keeps no gradients"):
        layer(x, x, x, cache=cache)
    with no_grad():
        layer(x, x, x, cache=cache)
        assert repr(cache) == "KeyValueCache(positions=1, growing=True)"
        with pytest.raises(ValueError, match="the batch and heads of the cache"):
            layer(x[:, :2], x[:, :2], x[:, :2], cache=cache)
        with pytest.raises(ValueError, match=r"attn_mask must have shape \(1, 2\)"):
            layer(x, x, x, attn_mask=np.zeros((1, 7), bool), cache=cache)
        assert len(cache) == 1  # a call that is refused adds nothing
    stack = nn.TransformerEncoder(nn.TransformerEncoderLayer(E, HEADS, 16), 2)
    with pytest.raises(ValueError, match="one entry for each of 2 layers"):
        stack(x, cache=[nn.KeyValueCache()])


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_positional_encoding(learned, batch_first):
    encoding = nn.PositionalEncoding(E, max_len=10, learned=learned, batch_first=batch_first)
    x = tensor(sequence(0, L, batch_first, np.float32), requires_grad=True)
    y = encoding(x)
    added = y.data - x.data
    first = added[0] if batch_first else added[:, 0]
    for i in range(N):
        np.testing.assert_allclose(added[i] if batch_first else added[:, i], first, atol=1e-6)
    np.testing.assert_allclose(encoding(x.data[0] if batch_first else x.data[:, 0]).data,
                               y.data[0] if batch_first else y.data[:, 0])  # fmt: skip
    last = x.data[:, 2:] if batch_first else x.data[2:]
    np.testing.assert_array_equal(
        encoding(last, start=2).data, y.data[:, 2:] if batch_first else y.data[2:]
    )
    y.backward(np.ones(y.shape, np.float32))
    np.testing.assert_array_equal(x.grad, np.ones(x.shape))
    assert list(encoding.state_dict()) == (["positions.weight"] if learned else [])
    if learned:
        expected = np.zeros((10, E), np.float32)
        expected[:L] = N
        np.testing.assert_array_equal(encoding.positions.weight.grad, expected)
        table = encoding.positions.weight.data[:L]
        np.testing.assert_allclose(first, table, atol=1e-6)
    else:
        np.testing.assert_allclose(first[3, :2], [np.sin(3), np.cos(3)], atol=1e-6)
        assert encoding(x.data.astype(np.float64)).dtype == np.float64
    with pytest.raises(ValueError, match="end by position 10"):
        encoding(x, start=7)
    assert f"{E}, max_len=10, learned={learned}" in repr(encoding)


def test_module_list():
    layers = nn.ModuleList([nn.Linear(2, 3), nn.ReLU()])
    layers.append(nn.Linear(3, 1)).extend([nn.Identity()])
    theirs = torch.nn.ModuleList([torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1)])
    assert list(layers.state_dict()) == list(theirs.state_dict())
    assert len(layers) == 4
    assert layers[-1] is list(layers)[3]
    assert isinstance(layers[:2], nn.ModuleList)
    assert len(list(layers[:2].parameters())) == 2
    with h.shapes_unchecked(), pytest.raises(TypeError, match="module 0 must be a Module"):
        nn.ModuleList([3])


def test_slices_and_repeated_indices_of_a_tensor():
    x = tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    (x[:, 1:] * 2 + x[1, None, :2]).backward(np.ones((2, 2)))
    np.testing.assert_array_equal(x.grad, [[0, 2, 2], [2, 4, 2]])
    x = tensor(np.arange(3.0), requires_grad=True)
    x[np.array([0, 0, 2])].backward(np.ones(3))
    np.testing.assert_array_equal(x.grad, [2, 0, 1])


def test_bad_input():
    layer = nn.MultiheadAttention(E, HEADS)
    x = np.zeros((L, N, E), np.float32)
    with pytest.raises(ValueError, match="num_heads must divide embed_dim, got 3 and 8"):
        nn.MultiheadAttention(E, 3)
    with pytest.raises(ValueError, match="dropout must be in"):
        nn.MultiheadAttention(E, HEADS, dropout=1.5)
    with pytest.raises(ValueError, match="query must have 3 axes"):
        layer(x[None], x, x)
    with pytest.raises(ValueError, match="the same number of axes"):
        layer(x[0], x, x)
    with pytest.raises(ValueError, match="8, 8 and 8 features"):
        layer(x[..., :4], x, x)
    with pytest.raises(ValueError, match="one batch"):
        layer(x[:, :1], x, x)
    with pytest.raises(ValueError, match="attn_mask must have shape"):
        layer(x, x, x, attn_mask=np.zeros((L, S), bool))
    with pytest.raises(ValueError, match="key_padding_mask must have shape"):
        layer(x, x, x, np.zeros((L, N), bool))
    with pytest.raises(TypeError, match="key_padding_mask must hold bool or floats"):
        layer(x, x, x, np.zeros((N, L), int))
    with pytest.raises(TypeError, match="query must be float32 or float64"):
        layer(x.astype(int), x, x)
    with pytest.raises(ValueError, match="activation must be one of"):
        nn.TransformerEncoderLayer(E, HEADS, activation="tanh")
    with h.shapes_unchecked(), pytest.raises(ValueError, match="num_layers must be at least 1"):
        nn.TransformerEncoder(nn.TransformerEncoderLayer(E, HEADS), 0)
    assert nn.TransformerEncoderLayer(E, HEADS, 16, activation=F.silu)(x).shape == x.shape
    assert isinstance(nn.Transformer.generate_square_subsequent_mask(0), Tensor)
