"""Transformer layers and stacks, as in torch.nn (Vaswani et al., 2017).

Sequences are (length, n, d_model), with batch_first (n, length, d_model), or without n. In every
mask True means "do not look"; floats are added to the scores. There is no is_causal, which in torch
only hints at what a mask holds: give the mask. With norm_first a layer normalises what goes into
each part (Xiong et al., 2020), otherwise the sum that comes out of it.

The stacks and layers take a `cache` for decoding step by step inside `no_grad()`: made by
`new_cache()`, it keeps keys and values, and each call then brings the new positions alone. One
position at a time needs no causal mask; several at once need one of shape (new, all so far).
"""

import copy
from collections.abc import Callable

import numpy as np

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.autograd import Tensor
from dlnotes.nn import functional as F
from dlnotes.nn import init
from dlnotes.nn.attention import KeyValueCache, MultiheadAttention
from dlnotes.nn.dropout import Dropout
from dlnotes.nn.layers import Linear, ModuleList
from dlnotes.nn.module import Module
from dlnotes.nn.norm import LayerNorm

Int = int | np.integer
Activation = str | Callable[[Tensor], Tensor]


class _Layer(Module):
    """What encoder and decoder layers share: attention and a network of two linear layers, each
    added to its input, with a normalisation for each of the `parts`.
    """

    attentions: tuple[str, ...] = ()

    def __init__(
        self,
        d_model: Int,
        nhead: Int,
        dim_feedforward: Int = 2048,
        dropout: Number = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: Number = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        dtype=np.float32,
    ):
        super().__init__()
        if isinstance(activation, str):
            _validate.one_of("activation", activation, ["relu", "gelu"])
            activation = getattr(F, activation)
        elif not callable(activation):
            kind = type(activation).__name__
            raise TypeError(f'activation must be "relu", "gelu" or a function, got {kind}')
        for name in self.attentions:
            attention = MultiheadAttention(
                *(d_model, nhead, dropout, bias), batch_first=batch_first, dtype=dtype
            )
            self.add_module(name, attention)
        self.linear1 = Linear(d_model, dim_feedforward, bias, dtype=dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, dtype=dtype)
        self.norm_first, self.activation = norm_first, activation
        parts = range(1, len(self.attentions) + 2)
        for i in parts:
            self.add_module(f"norm{i}", LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype))
        for i in parts:
            self.add_module(f"dropout{i}", Dropout(dropout))

    def _add(self, x, i: int, part: Callable[[Tensor], Tensor]) -> Tensor:
        """Return x plus the i-th part of the layer, normalised before or after."""
        norm, dropout = getattr(self, f"norm{i}"), getattr(self, f"dropout{i}")
        if self.norm_first:
            return x + dropout(part(norm(x)))
        return norm(x + dropout(part(x)))

    def _feed_forward(self, x) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class TransformerEncoderLayer(_Layer):
    """Self-attention, then a network of two linear layers for each position.

    d_model: numbers for each position, which nhead, the number of heads, divides; dim_feedforward:
    units between linear1 and linear2; dropout: on the weights of attention, between those two, and
    on each part before it is added; activation: "relu", "gelu" or a function of a tensor;
    layer_norm_eps: eps of norm1 and norm2; bias=False: no biases at all. `Transformer` hands these
    arguments on. TypeError or ValueError for other settings. (Vaswani et al., 2017.)
    """

    attentions = ("self_attn",)

    def forward(
        self, src, src_mask=None, src_key_padding_mask=None, *, cache: KeyValueCache | None = None
    ) -> Tensor:
        """Return the encoded sequence, of src's shape."""

        def attend(x):
            settings = {"attn_mask": src_mask, "need_weights": False, "cache": cache}
            return self.self_attn(x, x, x, src_key_padding_mask, **settings)[0]

        x = self._add(_tensor(src), 1, attend)
        return self._add(x, 2, self._feed_forward)

    def new_cache(self) -> KeyValueCache:
        """Return an empty cache for decoding step by step."""
        return KeyValueCache()


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to an encoder's output `memory`, and two linear layers.

    tgt (t, n, d_model), memory (s, n, d_model) → as tgt. Arguments as in `TransformerEncoderLayer`,
    with a third normalisation, norm3.
    """

    attentions = ("self_attn", "multihead_attn")

    def forward(
        self,
        tgt,
        memory,
        tgt_mask=None,
        memory_mask=None,
        tgt_key_padding_mask=None,
        memory_key_padding_mask=None,
        *,
        cache: tuple[KeyValueCache, KeyValueCache] | None = None,
    ) -> Tensor:
        """Return the decoded sequence, of tgt's shape."""
        own, memorys = (None, None) if cache is None else cache
        memory = _tensor(memory)

        def attend_to_self(x):
            settings = {"attn_mask": tgt_mask, "need_weights": False, "cache": own}
            return self.self_attn(x, x, x, tgt_key_padding_mask, **settings)[0]

        def attend_to_memory(x):
            settings = {"attn_mask": memory_mask, "need_weights": False, "cache": memorys}
            return self.multihead_attn(x, memory, memory, memory_key_padding_mask, **settings)[0]

        x = self._add(_tensor(tgt), 1, attend_to_self)
        x = self._add(x, 2, attend_to_memory)
        return self._add(x, 3, self._feed_forward)

    def new_cache(self) -> tuple[KeyValueCache, KeyValueCache]:
        """Return empty caches, of the positions decoded and of the memory."""
        return KeyValueCache(), KeyValueCache(growing=False)


class _Stack(Module):
    """Copies of one layer one after another; as in torch, all start with the same weights."""

    def __init__(self, layer: Module, num_layers: Int, norm: Module | None = None):
        super().__init__()
        self.num_layers = _validate.integer("num_layers", num_layers, low=1)
        self.layers = ModuleList(copy.deepcopy(layer) for _ in range(self.num_layers))
        self.add_module("norm", norm)

    def _run(self, x, *arguments, cache) -> Tensor:
        caches = [None] * self.num_layers if cache is None else cache
        if len(caches) != self.num_layers:
            raise ValueError(
                f"cache must have one entry for each of {self.num_layers} layers, got {len(caches)}"
            )
        for layer, own in zip(self.layers, caches, strict=True):
            x = layer(x, *arguments, cache=own)
        return x if self.norm is None else self.norm(x)

    def new_cache(self) -> list:
        """Return empty caches, one entry for each layer, for decoding step by step."""
        return [layer.new_cache() for layer in self.layers]


class TransformerEncoder(_Stack):
    """num_layers copies of an encoder layer, and `norm`, if given, at the end.

    With a causal mask it is the decoder of a language model without an encoder.
    num_layers: at least 1. (s, n, d_model) → the same. ValueError for a cache of another length.
    """

    def __init__(self, encoder_layer: Module, num_layers: Int, norm: Module | None = None):
        super().__init__(encoder_layer, num_layers, norm)

    def forward(
        self, src, mask=None, src_key_padding_mask=None, *, cache: list | None = None
    ) -> Tensor:
        """Return the encoded sequence, of src's shape."""
        return self._run(src, mask, src_key_padding_mask, cache=cache)


class TransformerDecoder(_Stack):
    """num_layers copies of a decoder layer, and `norm`, if given, at the end.

    tgt (t, n, d_model), memory (s, n, d_model) → as tgt. Otherwise as `TransformerEncoder`.
    """

    def __init__(self, decoder_layer: Module, num_layers: Int, norm: Module | None = None):
        super().__init__(decoder_layer, num_layers, norm)

    def forward(
        self,
        tgt,
        memory,
        tgt_mask=None,
        memory_mask=None,
        tgt_key_padding_mask=None,
        memory_key_padding_mask=None,
        *,
        cache: list | None = None,
    ) -> Tensor:
        """Return the decoded sequence, of tgt's shape."""
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        return self._run(tgt, memory, *masks, cache=cache)


class Transformer(Module):
    """An encoder and a decoder, each with a normalisation at the end.

    Every weight matrix is drawn by Xavier's uniform rule, as in torch. Without torch's
    custom_encoder and custom_decoder, and so for keywords only from there on.
    """

    def __init__(
        self,
        d_model: Int = 512,
        nhead: Int = 8,
        num_encoder_layers: Int = 6,
        num_decoder_layers: Int = 6,
        dim_feedforward: Int = 2048,
        dropout: Number = 0.1,
        activation: Activation = "relu",
        *,
        layer_norm_eps: Number = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        dtype=np.float32,
    ):
        super().__init__()
        layer = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps)
        settings = {"batch_first": batch_first, "norm_first": norm_first, "bias": bias}

        def norm():
            return LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)

        encoder_layer = TransformerEncoderLayer(*layer, **settings, dtype=dtype)
        self.encoder = TransformerEncoder(encoder_layer, num_encoder_layers, norm())
        decoder_layer = TransformerDecoderLayer(*layer, **settings, dtype=dtype)
        self.decoder = TransformerDecoder(decoder_layer, num_decoder_layers, norm())
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every weight matrix anew."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                init.xavier_uniform_(parameter)

    def forward(
        self,
        src,
        tgt,
        src_mask=None,
        tgt_mask=None,
        memory_mask=None,
        src_key_padding_mask=None,
        tgt_key_padding_mask=None,
        memory_key_padding_mask=None,
    ) -> Tensor:
        """Return the decoded sequence, of tgt's shape.

        src (s, n, d_model), tgt (t, n, d_model) → as tgt; masks as in `MultiheadAttention`.

        To decode step by step, call `encoder` once and then `decoder` with a cache.
        """
        memory = self.encoder(src, src_mask, src_key_padding_mask)
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        return self.decoder(tgt, memory, *masks)

    @staticmethod
    def generate_square_subsequent_mask(sz: Int, *, dtype=np.float32) -> Tensor:
        """Return the causal mask (sz, sz): 0 up to the diagonal and -∞ above it."""
        sz = _validate.integer("sz", sz, low=0)
        return Tensor(np.triu(np.full((sz, sz), -np.inf, dtype), k=1))


def _tensor(x) -> Tensor:
    return x if isinstance(x, Tensor) else Tensor(x)
