"""Multi-head attention, the cache of step-by-step decoding, and encodings of positions.

The functions themselves are in `dlnotes.kernels.attention`.

TypeError for sequences that are not float32 or float64 and masks that hold neither bool nor floats,
ValueError for shapes and settings that do not fit.
"""

import numpy as np

from dlnotes import _validate, kernels
from dlnotes._validate import Number
from dlnotes.autograd import Tensor
from dlnotes.nn import functional as F
from dlnotes.nn import init
from dlnotes.nn.embedding import Embedding
from dlnotes.nn.layers import Linear
from dlnotes.nn.module import Module, Parameter

Int = int | np.integer


class KeyValueCache:
    """The keys and values (n, heads, s, head_dim) of the positions that one attention has seen.

    Given to `MultiheadAttention`, it spares decoding one position at a time the work on all
    earlier ones. With growing=False the first keys and values are kept and used again: those of an
    encoder's output. It holds no history, so decoding must run inside `no_grad()`.
    """

    def __init__(self, growing: bool = True):
        self.growing = growing
        self.key: np.ndarray | None = None
        self.value: np.ndarray | None = None

    def __len__(self) -> int:
        """Return how many positions are held."""
        return 0 if self.key is None else self.key.shape[2]

    def append(self, key: Tensor, value: Tensor) -> None:
        """Add positions at the end; RuntimeError where a gradient is recorded."""
        if key.requires_grad or value.requires_grad:
            raise RuntimeError("a KeyValueCache keeps no gradients: decode inside no_grad()")
        if self.key is None:
            self.key, self.value = key.data, value.data
            return
        expected = (*self.key.shape[:2], key.shape[2], self.key.shape[3])
        _validate.has_shape("key", key.data, expected, "the batch and heads of the cache")
        self.key = np.concatenate([self.key, key.data], axis=2)
        self.value = np.concatenate([self.value, value.data], axis=2)

    def __repr__(self) -> str:
        return f"KeyValueCache(positions={len(self)}, growing={self.growing})"


class MultiheadAttention(Module):
    """Attention in num_heads subspaces at once, joined by a linear layer (Vaswani et al., 2017).

    num_heads divides embed_dim; bias=False leaves out all biases; batch_first=True takes and gives
    (n, length, features). Shapes are at `forward`.

    in_proj_weight: (3 embed_dim, embed_dim), the projections of query, key and value one below the
    other, drawn by Xavier's uniform rule; in_proj_bias: (3 embed_dim,) of 0; out_proj: a Linear.
    Where keys or values have another number of features (kdim, vdim), q_proj_weight, k_proj_weight
    and v_proj_weight, (embed_dim, features), take in_proj_weight's place. `dropout` drops attention
    weights in training. Arguments as in torch, without add_bias_kv and add_zero_attn (and so, from
    there on, for keywords only); `forward` takes no is_causal, which is a hint in torch: give the
    mask itself.
    """

    def __init__(
        self,
        embed_dim: Int,
        num_heads: Int,
        dropout: Number = 0.0,
        bias: bool = True,
        *,
        kdim: Int | None = None,
        vdim: Int | None = None,
        batch_first: bool = False,
        dtype=np.float32,
    ):
        super().__init__()
        self.embed_dim = _validate.integer("embed_dim", embed_dim, low=1)
        self.kdim = self.embed_dim if kdim is None else _validate.integer("kdim", kdim, low=1)
        self.vdim = self.embed_dim if vdim is None else _validate.integer("vdim", vdim, low=1)
        self.num_heads = _validate.integer("num_heads", num_heads, low=1)
        if embed_dim % num_heads:
            raise ValueError(f"num_heads must divide embed_dim, got {num_heads} and {embed_dim}")
        self.head_dim = self.embed_dim // self.num_heads
        self.dropout = _validate.number("dropout", dropout, low=0, high=1)
        self.batch_first = batch_first
        features = {"q": self.embed_dim, "k": self.kdim, "v": self.vdim}
        shapes = {f"{name}_proj_weight": (self.embed_dim, d) for name, d in features.items()}
        joined = {"in_proj_weight": (3 * self.embed_dim, self.embed_dim)}
        for name in (*joined, *shapes, "in_proj_bias"):
            self.register_parameter(name, None)
        for name, shape in (joined if self.kdim == self.vdim == embed_dim else shapes).items():
            setattr(self, name, Parameter(np.empty(shape, dtype)))
        if bias:
            self.in_proj_bias = Parameter(np.empty(3 * self.embed_dim, dtype))
        self.out_proj = Linear(self.embed_dim, self.embed_dim, bias, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew; the biases start at 0."""
        for weight in (self.in_proj_weight, *self._separate()):
            if weight is not None:
                init.xavier_uniform_(weight)
        self.out_proj.reset_parameters()
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)

    def forward(
        self,
        query,
        key,
        value,
        key_padding_mask=None,
        need_weights: bool = True,
        attn_mask=None,
        average_attn_weights: bool = True,
        *,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return (output, weights); weights is None unless need_weights.

        query: (l, n, e), key and value: (s, n, e), with batch_first (n, l, e) and (n, s, e), or
        without n; kdim or vdim stands in place of e where given. key_padding_mask: (n, s),
        attn_mask: (l, s) or (n · heads, l, s); in both, True means "do not look", and floats are
        added to the scores. Weights: (n, l, s), the mean over the heads, or (n, heads, l, s) with
        average_attn_weights=False.
        A query that may look at nothing gets the output of weights 0; torch gives NaN there if
        weights are asked for.
        With a `cache`, key and value are those of the new positions, and s counts all.
        """
        sequences = [_sequence(n, x) for n, x in (("query", query), ("key", key), ("value", value))]
        query, key, value = self._with_batch_first(sequences)
        heads = self._split(self._project(query, 0))
        held = 0 if cache is None else len(cache)
        count = held if held and not cache.growing else held + key.shape[1]
        # A mask that is refused must not leave the cache longer.
        mask = _joined_mask(attn_mask, key_padding_mask, (*heads.shape[:3], count), heads)
        keys, values = self._keys_and_values(key, value, cache)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            weights = F.dropout(F.attention_weights(heads, keys, mask), dropout)
            y = weights @ values
        else:
            y = F.scaled_dot_product_attention(heads, keys, values, mask, dropout)
        y = y.permute(0, 2, 1, 3).reshape(*query.shape[:2], self.embed_dim)
        y = self.out_proj(y)
        if need_weights and average_attn_weights:
            weights = weights.mean(axis=1)
        if sequences[0].ndim == 2:
            return y[0], None if weights is None else weights[0]
        return y if self.batch_first else y.transpose(0, 1), weights

    def _with_batch_first(self, sequences):
        """Return query, key and value as (n, length, embed_dim)."""
        ndims = {x.ndim for x in sequences}
        if len(ndims) > 1:
            raise ValueError(
                "query, key and value must have the same number of axes, got "
                f"{', '.join(str(x.shape) for x in sequences)}"
            )
        if ndims == {2}:
            query, key, value = (x.reshape(1, *x.shape) for x in sequences)
        elif self.batch_first:
            query, key, value = sequences
        else:
            query, key, value = (x.transpose(0, 1) for x in sequences)
        fits = query.shape[0] == key.shape[0] and key.shape[:2] == value.shape[:2]
        features = (self.embed_dim, self.kdim, self.vdim)
        if not fits or tuple(x.shape[2] for x in (query, key, value)) != features:
            raise ValueError(
                f"query, key and value must have one batch and {self.embed_dim}, {self.kdim} and "
                f"{self.vdim} features, key and value one length, got "
                f"{', '.join(str(x.shape) for x in sequences)}"
            )
        return query, key, value

    def _keys_and_values(self, key, value, cache):
        """Return the keys and values of all heads, the cached ones first."""
        if cache is not None and len(cache) and not cache.growing:
            return Tensor(cache.key), Tensor(cache.value)
        keys, values = self._split(self._project(key, 1)), self._split(self._project(value, 2))
        if cache is None:
            return keys, values
        cache.append(keys, values)
        return Tensor(cache.key), Tensor(cache.value)

    def _project(self, x, which: int) -> Tensor:
        rows = slice(which * self.embed_dim, (which + 1) * self.embed_dim)
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        joined = self.in_proj_weight
        weight = self._separate()[which] if joined is None else joined[rows]
        return F.linear(x, weight, bias)

    def _separate(self) -> tuple[Parameter | None, ...]:
        return self.q_proj_weight, self.k_proj_weight, self.v_proj_weight

    def _split(self, x) -> Tensor:
        """Turn (n, length, embed_dim) into (n, heads, length, head_dim)."""
        return x.reshape(*x.shape[:2], self.num_heads, self.head_dim).permute(0, 2, 1, 3)


class PositionalEncoding(Module):
    """Add to each vector of a sequence a vector that says where it stands, then drop out.

    Sinusoidal (`kernels.sinusoidal_positions`, nothing to train), or with learned=True the rows of
    an Embedding (max_len, d_model), `positions`. Not in torch.nn; its layout is that of the
    transformer layers: (length, n, d_model), with batch_first (n, length, d_model).
    input (length, n, d_model) → the same; max_len: what ends behind it gives ValueError. (Vaswani
    et al., 2017.)
    """

    def __init__(
        self,
        d_model: Int,
        dropout: Number = 0.0,
        max_len: Int = 5000,
        learned: bool = False,
        batch_first: bool = False,
        *,
        dtype=np.float32,
    ):
        super().__init__()
        self.d_model = _validate.integer("d_model", d_model, low=1)
        self.dropout = _validate.number("dropout", dropout, low=0, high=1)
        self.max_len = _validate.integer("max_len", max_len, low=1)
        self.learned, self.batch_first = learned, batch_first
        if learned:
            self.positions = Embedding(self.max_len, self.d_model, dtype=dtype)

    def forward(self, input, start: Int = 0) -> Tensor:
        """Return input + positions; `start` is the position of the first vector."""
        input = _sequence("input", input)
        length = input.shape[1 if self.batch_first and input.ndim == 3 else 0]
        start = _validate.integer("start", start, low=0)
        if input.shape[-1] != self.d_model or start + length > self.max_len:
            raise ValueError(
                f"input must have {self.d_model} features and end by position {self.max_len}, got "
                f"shape {input.shape} from position {start}"
            )
        if self.learned:
            rows = self.positions(np.arange(start, start + length))
        else:
            table = kernels.sinusoidal_positions(start + length, self.d_model, input.dtype)
            rows = Tensor(table[start:])
        if input.ndim == 3 and not self.batch_first:
            rows = rows.reshape(length, 1, self.d_model)
        return F.dropout(input + rows, self.dropout, self.training)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"{self.d_model}, max_len={self.max_len}, learned={self.learned}"


def _sequence(name: str, x) -> Tensor:
    x = x if isinstance(x, Tensor) else Tensor(x)
    _validate.floats(name, x.data)
    if x.ndim not in (2, 3):
        raise ValueError(f"{name} must have 3 axes, or 2 without the batch, got shape {x.shape}")
    return x


def _joined_mask(attn_mask, key_padding_mask, scores: tuple[int, ...], like: Tensor):
    """Return one mask that broadcasts to the scores (n, heads, l, s), as F takes it, or None.

    In torch's modules True means "do not look", in its functions "look".
    """
    n, heads, length, keys = scores
    masks = []
    if attn_mask is not None:
        mask = _mask("attn_mask", attn_mask, [(length, keys), (n * heads, length, keys)])
        masks.append(mask.reshape(scores) if mask.ndim == 3 else mask)
    if key_padding_mask is not None:
        # Without the batch axis n is 1 and the mask (s,).
        allowed = [(n, keys), (keys,)] if n == 1 else [(n, keys)]
        mask = _mask("key_padding_mask", key_padding_mask, allowed)
        masks.append(mask.reshape(n, 1, 1, keys))
    if all(mask.dtype == np.bool_ for mask in masks):
        hidden = [mask.data for mask in masks]
        return ~np.logical_or(hidden[0], hidden[-1]) if hidden else None
    added = [_additive(mask, like.dtype) for mask in masks]
    return added[0] if len(added) == 1 else added[0] + added[1]


def _mask(name: str, mask, allowed) -> Tensor:
    mask = mask if isinstance(mask, Tensor) else Tensor(mask)
    if mask.dtype != np.bool_ and mask.dtype not in _validate.FLOATS:
        raise TypeError(f"{name} must hold bool or floats, got {mask.dtype}")
    if mask.shape not in allowed:
        listed = " or ".join(str(shape) for shape in allowed)
        raise ValueError(f"{name} must have shape {listed}, got {mask.shape}")
    return mask


def _additive(mask: Tensor, dtype) -> Tensor:
    """Return -∞ for True and 0 for False; floats as they are."""
    if mask.dtype != np.bool_:
        return mask
    return Tensor(np.where(mask.data, -np.inf, 0.0).astype(dtype))
