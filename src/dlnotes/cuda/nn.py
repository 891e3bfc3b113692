"""torch.nn on this book's CUDA kernels: torch modules with the same names, parameters and states.

>>> from dlnotes import cuda, models                               # doctest: +SKIP
>>> network = models.LeNet5(nn=cuda.nn)                            # doctest: +SKIP
>>> network.load_state_dict(models.LeNet5(nn=torch.nn).state_dict())  # doctest: +SKIP

Each layer is the class of torch.nn, which draws the weights, with a forward pass (and so a backward
pass) of `dlnotes.cuda.functional`, and it accepts what that accepts; in torch.autocast to bfloat16
it computes in mixed precision. `FROM_TORCH` names what is torch's own and has no kernel here:
containers, and operations entry by entry. A name that is neither is missing, so nothing runs on
torch's kernels unawares.
"""

import torch
from torch import Tensor
from torch import nn as torch_nn

from dlnotes.cuda import functional
from dlnotes.cuda.functional import _only

FROM_TORCH = (
    "CELU", "Dropout", "Dropout2d", "ELU", "Flatten", "GELU", "Hardtanh", "Identity", "LeakyReLU",
    "Module", "ModuleDict", "ModuleList", "MSELoss", "Parameter", "ReLU", "ReLU6", "Sequential",
    "SiLU", "Sigmoid", "Softplus", "Tanh", "Unflatten", "init", "utils",
)  # fmt: skip


def __getattr__(name: str):
    if name in FROM_TORCH:
        return getattr(torch_nn, name)
    raise AttributeError(
        f"dlnotes.cuda.nn has no {name}: the book has no kernel for it (torch.nn may have one)"
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *FROM_TORCH})


class Linear(torch_nn.Linear):
    """torch.nn.Linear on the ladder "linear"."""

    def forward(self, input: Tensor) -> Tensor:
        """Return input Wᵀ + b."""
        return functional.linear(input, self.weight, self.bias)


class Conv1d(torch_nn.Conv1d):
    """torch.nn.Conv1d on the ladder "conv2d": a sequence is an image one pixel high."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _convolve(self, functional.conv1d, input, weight, bias)


class Conv2d(torch_nn.Conv2d):
    """torch.nn.Conv2d on the ladder "conv2d"."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _convolve(self, functional.conv2d, input, weight, bias)


def _convolve(layer, convolution, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    padding = layer.padding
    if layer.padding_mode != "zeros":
        sides = layer._reversed_padding_repeated_twice
        input = torch_nn.functional.pad(input, sides, mode=layer.padding_mode)
        padding = 0
    return convolution(input, weight, bias, layer.stride, padding, layer.dilation, layer.groups)


class ConvTranspose2d(torch_nn.ConvTranspose2d):
    """torch.nn.ConvTranspose2d on the ladder "conv_transpose2d"."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the transposed convolution; output_size chooses among the sizes that are open."""
        more = self._output_padding(
            input, output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation
        )
        settings = self.stride, self.padding, more, self.groups, self.dilation
        return functional.conv_transpose2d(input, self.weight, self.bias, *settings)


class MaxPool2d(torch_nn.MaxPool2d):
    """torch.nn.MaxPool2d on the ladder "max_pool2d"."""

    def forward(self, input: Tensor):
        """Return the largest entries, with return_indices also their places."""
        settings = self.dilation, self.ceil_mode, self.return_indices
        return functional.max_pool2d(input, self.kernel_size, self.stride, self.padding, *settings)


class MaxPool1d(torch_nn.MaxPool1d):
    """torch.nn.MaxPool1d on the ladder "max_pool2d"."""

    def forward(self, input: Tensor):
        """Return the largest entries, with return_indices also their places."""
        settings = self.dilation, self.ceil_mode, self.return_indices
        return functional.max_pool1d(input, self.kernel_size, self.stride, self.padding, *settings)


class AvgPool1d(torch_nn.AvgPool1d):
    """torch.nn.AvgPool1d on the ladder "avg_pool2d"."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the means of the windows."""
        settings = self.ceil_mode, self.count_include_pad
        return functional.avg_pool1d(input, self.kernel_size, self.stride, self.padding, *settings)


class AvgPool2d(torch_nn.AvgPool2d):
    """torch.nn.AvgPool2d on the ladder "avg_pool2d"."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the means of the windows."""
        settings = self.ceil_mode, self.count_include_pad, self.divisor_override
        return functional.avg_pool2d(input, self.kernel_size, self.stride, self.padding, *settings)


class AdaptiveAvgPool2d(torch_nn.AdaptiveAvgPool2d):
    """torch.nn.AdaptiveAvgPool2d on the ladder "adaptive_avg_pool2d"."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the means of the rectangles."""
        return functional.adaptive_avg_pool2d(input, self.output_size)


class LayerNorm(torch_nn.LayerNorm):
    """torch.nn.LayerNorm on the ladder "layer_norm"."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input."""
        parameters = self.weight, self.bias
        return functional.layer_norm(input, self.normalized_shape, *parameters, self.eps)


class Softmax(torch_nn.Softmax):
    """torch.nn.Softmax on the ladder "softmax"; `dim` must be given."""

    def __init__(self, dim: int):
        super().__init__(dim)

    def forward(self, input: Tensor) -> Tensor:
        """Return the probabilities."""
        return functional.softmax(input, self.dim)


class Embedding(torch_nn.Embedding):
    """torch.nn.Embedding on the ladder "embedding"."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the rows of the table that input names."""
        settings = self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        return functional.embedding(input, self.weight, self.padding_idx, *settings)


class CrossEntropyLoss(torch_nn.CrossEntropyLoss):
    """torch.nn.CrossEntropyLoss on the ladder "cross_entropy"."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        return functional.cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NegativeSampling(torch_nn.Module):
    """`dlnotes.nn.NegativeSampling`, which torch.nn does not have, on "negative_sampling_loss"."""

    def __init__(self, num_embeddings: int, embedding_dim: int, *,
                 remove_accidental_hits: bool = False, reduction: str = "mean", device=None,
                 dtype=None):  # fmt: skip
        super().__init__()
        self.remove_accidental_hits, self.reduction = remove_accidental_hits, reduction
        weight = torch.zeros(num_embeddings, embedding_dim, device=device, dtype=dtype)
        self.weight = torch_nn.Parameter(weight)

    def forward(self, hidden: Tensor, target: Tensor, noise: Tensor) -> Tensor:
        """Return the loss of hidden (n, d), words (n,) and noise words (n, k)."""
        arguments = hidden, self.weight, target, noise, self.reduction
        remove = self.remove_accidental_hits
        return functional.negative_sampling_loss(*arguments, remove_accidental_hits=remove)


# ---- batch norm ----------------------------------------------------------------------------------


class _BatchNorm:
    """The forward pass of all batch norms."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input; in training the running statistics move."""
        self._check_input_dim(input)
        tracks = self.training and self.track_running_stats
        momentum = 0.0 if self.momentum is None else self.momentum
        if tracks and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # the mean over all batches so far
                momentum = 1 / float(self.num_batches_tracked)
        by_batch = self.training or self.running_mean is None
        running = (self.running_mean, self.running_var) if tracks or not by_batch else (None, None)
        parameters = self.weight, self.bias
        return functional.batch_norm(input, *running, *parameters, by_batch, momentum, self.eps)


class BatchNorm1d(_BatchNorm, torch_nn.BatchNorm1d):
    """torch.nn.BatchNorm1d on the ladder "batch_norm"."""


class BatchNorm2d(_BatchNorm, torch_nn.BatchNorm2d):
    """torch.nn.BatchNorm2d on the ladder "batch_norm"."""


class GroupNorm(torch_nn.GroupNorm):
    """torch.nn.GroupNorm on the ladder "group_norm"."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input."""
        return functional.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class InstanceNorm2d(torch_nn.InstanceNorm2d):
    """torch.nn.InstanceNorm2d on the ladder "group_norm", each channel being a group.

    There are no running statistics: track_running_stats=True is refused.
    """

    def _apply_instance_norm(self, input: Tensor) -> Tensor:
        _only(track_running_stats=(self.track_running_stats, False))
        if input.shape[2:].numel() == 1:
            raise ValueError(
                "input must have more than one value for each sample and channel, got shape "
                f"{tuple(input.shape)}"
            )
        return functional.group_norm(input, input.shape[1], self.weight, self.bias, self.eps)


class LocalResponseNorm(torch_nn.LocalResponseNorm):
    """torch.nn.LocalResponseNorm on the ladder "local_response_norm"."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input."""
        settings = self.size, self.alpha, self.beta, self.k
        return functional.local_response_norm(input, *settings)


class RMSNorm(torch_nn.RMSNorm):
    """torch.nn.RMSNorm on the ladder "rms_norm"."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised input."""
        return functional.rms_norm(x, self.normalized_shape, self.weight, self.eps)


# ---- recurrent -----------------------------------------------------------------------------------


class LSTMCell(torch_nn.LSTMCell):
    """torch.nn.LSTMCell on the ladder "lstm_cell"."""

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None):
        """Return (h, c); both start at 0."""
        x, (h, c) = _one_step(input, hx or (None, None), self.hidden_size)
        weights = self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh
        new = functional.lstm_cell(x, (h, c), *weights)
        return new if input.ndim == 2 else tuple(state[0] for state in new)


class GRUCell(torch_nn.GRUCell):
    """torch.nn.GRUCell on the ladder "gru_cell"."""

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """Return h, which starts at 0."""
        x, (h,) = _one_step(input, (hx,), self.hidden_size)
        weights = self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh
        new = functional.gru_cell(x, h, *weights)
        return new if input.ndim == 2 else new[0]


def _one_step(input, states, units: int):
    """Return input and states as batches; a state that is None is 0."""
    if input.ndim not in (1, 2):
        raise ValueError(f"input must be (n, in) or (in,), got shape {tuple(input.shape)}")
    x = input if input.ndim == 2 else input[None]
    zeros = x.new_zeros(len(x), units)
    return x, tuple(zeros if s is None else s if s.ndim == 2 else s[None] for s in states)


class _Recurrent:
    """The forward pass of LSTM and GRU: a cell a step, layer by layer, direction by direction."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        if self.proj_size:
            raise ValueError(f"proj_size must be 0: there is no such kernel, got {self.proj_size}")

    def forward(self, input: Tensor, hx=None):
        """Return (output, last states): shapes as in torch, without packed sequences."""
        if not isinstance(input, Tensor) or input.ndim not in (2, 3):
            raise ValueError("input must be a tensor with 3 axes, or 2 without the batch")
        batched = input.ndim == 3
        x = input if batched else input[:, None]
        x = x.transpose(0, 1) if batched and self.batch_first else x  # (length, n, in)
        directions = 2 if self.bidirectional else 1
        states = self._states(hx, batched)
        shape = (self.num_layers * directions, x.shape[1], self.hidden_size)
        states = [x.new_zeros(shape) for _ in range(self._count)] if states is None else states
        for state in states:
            functional._shape("hx", state, shape, "layers · directions, n, units")
        last = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(directions):
                i = layer * directions + direction
                steps = x.flip(0) if direction else x
                y, state = self._run(steps, [s[i] for s in states], self.all_weights[i])
                outputs.append(y.flip(0) if direction else y)
                last.append(state)
            x = torch.cat(outputs, -1)
            if self.dropout and layer + 1 < self.num_layers:
                x = torch_nn.functional.dropout(x, self.dropout, self.training)
        states = [torch.stack(each) for each in zip(*last, strict=True)]
        if not batched:
            x, states = x[:, 0], [state[:, 0] for state in states]
        elif self.batch_first:
            x = x.transpose(0, 1)
        return x, tuple(states) if self._count > 1 else states[0]

    def _states(self, hx, batched: bool) -> list[Tensor] | None:
        if hx is None:
            return None
        return [s if batched else s[:, None] for s in (hx if self._count > 1 else (hx,))]

    def _run(self, x, states, weights):
        """Return the outputs (length, n, units) of one layer in one direction, and its states."""
        outputs = []
        for step in x:
            states = self._step(step, states, weights)
            outputs.append(states[0])
        return torch.stack(outputs), states


class LSTM(_Recurrent, torch_nn.LSTM):
    """torch.nn.LSTM on the ladder "lstm_cell", one launch or more a step."""

    _count = 2

    def _step(self, x, states, weights):
        return functional.lstm_cell(x, states, *weights)


class GRU(_Recurrent, torch_nn.GRU):
    """torch.nn.GRU on the ladder "gru_cell", one launch or more a step."""

    _count = 1

    def _step(self, x, states, weights):
        return (functional.gru_cell(x, *states, *weights),)


# ---- attention and transformers ------------------------------------------------------------------


class MultiheadAttention(torch_nn.MultiheadAttention):
    """torch.nn.MultiheadAttention on the ladders "linear" and "attention".

    Where the weights are asked for (need_weights) or dropped out, the matrix of them is needed: two
    of torch's matrix products make and use it, with the ladder "softmax" between. A query that may
    look at nothing gets the output of weights 0; torch gives NaN there if weights are asked for.
    """

    def __init__(self, embed_dim, num_heads, dropout=0.0, bias=True, add_bias_kv=False,
                 add_zero_attn=False, **settings):  # fmt: skip
        _only(add_bias_kv=(add_bias_kv, False), add_zero_attn=(add_zero_attn, False))
        super().__init__(embed_dim, num_heads, dropout, bias, **settings)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return (output, weights); weights is None unless need_weights.

        Shapes and masks as in torch: True means "do not look", floats are added to the scores.
        is_causal says that attn_mask is causal, so nothing follows from it here.
        """
        if is_causal and attn_mask is None:
            raise ValueError("attn_mask must be given with is_causal=True, which only describes it")
        batched = query.ndim == 3
        sequences = query, key, value
        if not batched:
            sequences = [x[None] for x in sequences]
        elif not self.batch_first:
            sequences = [x.transpose(0, 1) for x in sequences]
        heads, keys, values = map(self._heads, sequences, range(3))
        mask = self._mask(attn_mask, key_padding_mask, heads, keys)
        weights = None
        if need_weights or (self.dropout and self.training):
            weights = self._weights(heads, keys, mask)
            y = torch_nn.functional.dropout(weights, self.dropout, self.training) @ values
        else:
            y = functional.scaled_dot_product_attention(heads, keys, values, mask)
        y = y.transpose(1, 2).flatten(2)
        y = functional.linear(y, self.out_proj.weight, self.out_proj.bias)
        if not need_weights:
            weights = None
        elif average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return y[0], None if weights is None else weights[0]
        return y if self.batch_first else y.transpose(0, 1), weights

    def _heads(self, x: Tensor, which: int) -> Tensor:
        """Project x (n, length, features) and return it as (n, heads, length, head_dim)."""
        rows = slice(which * self.embed_dim, (which + 1) * self.embed_dim)
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        separate = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        joined = self.in_proj_weight
        weight = separate[which] if joined is None else joined[rows]
        return functional.linear(x, weight, bias).unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def _mask(self, attn_mask, key_padding_mask, query: Tensor, key: Tensor) -> Tensor | None:
        """Return one mask that broadcasts to the scores, True where a query may look, or floats."""
        n, heads, length, _ = query.shape
        scores, masks = (length, key.shape[2]), []
        if attn_mask is not None:
            if attn_mask.ndim == 3:
                functional._shape("attn_mask", attn_mask, (n * heads, *scores), "n · heads, l, s")
                attn_mask = attn_mask.reshape(n, heads, *scores)
            else:
                functional._shape("attn_mask", attn_mask, scores, "l, s")
            masks.append(attn_mask)
        if key_padding_mask is not None:
            shape = (n, scores[1]) if key_padding_mask.ndim == 2 or n > 1 else scores[1:]
            functional._shape("key_padding_mask", key_padding_mask, shape, "n, s")
            masks.append(key_padding_mask.reshape(n, 1, 1, scores[1]))
        if not masks:
            return None
        if all(mask.dtype == torch.bool for mask in masks):
            return ~masks[0] if len(masks) == 1 else ~(masks[0] | masks[1])
        added = [self._added(mask, query) for mask in masks]
        return added[0] if len(added) == 1 else added[0] + added[1]

    def _added(self, mask: Tensor, like: Tensor) -> Tensor:
        if mask.dtype != torch.bool:
            return mask
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -torch.inf)

    def _weights(self, query, key, mask) -> Tensor:
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        if mask is None:
            return functional.softmax(scores, -1)
        if mask.dtype == torch.bool:
            scores = scores.masked_fill(~mask, -torch.inf)
        else:
            scores = scores + mask
        blind = (scores == -torch.inf).all(-1, keepdim=True)
        return functional.softmax(scores.masked_fill(blind, 0), -1).masked_fill(blind, 0)


class TransformerEncoderLayer(torch_nn.TransformerEncoderLayer):
    """torch.nn.TransformerEncoderLayer, of the layers above."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        _use_kernels(self)

    def forward(self, src, src_mask=None, src_key_padding_mask=None, is_causal=False) -> Tensor:
        """Return the encoded sequence. (torch's own forward would leave these layers out.)"""
        masks = src_mask, src_key_padding_mask, is_causal
        if self.norm_first:
            x = src + self._sa_block(self.norm1(src), *masks)
            return x + self._ff_block(self.norm2(x))
        x = self.norm1(src + self._sa_block(src, *masks))
        return self.norm2(x + self._ff_block(x))


class TransformerDecoderLayer(torch_nn.TransformerDecoderLayer):
    """torch.nn.TransformerDecoderLayer, of the layers above."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        _use_kernels(self)


def _use_kernels(layer: torch_nn.Module) -> None:
    """Turn the parts of a layer of torch into those of this module, which only add a forward."""
    ours = {cls.__base__: cls for cls in (Linear, LayerNorm, MultiheadAttention)}
    for part in layer.modules():
        part.__class__ = ours.get(type(part), type(part))
