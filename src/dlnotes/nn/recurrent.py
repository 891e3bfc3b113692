"""Recurrent layers and cells: RNN, LSTM, GRU, and the simplified GRU of lectures.

The functions themselves are in `dlnotes.kernels.recurrent`.

Arguments: input_size, hidden_size and num_layers, at least 1; bias=False leaves both biases out;
batch_first=True takes and gives (b, t, …); dropout, 0 … 1, drops outputs of all layers but the last
in training (a warning where there is only one); bidirectional=True runs a second set of weights
from the end. TypeError for flags that are not bool, states that are no pair where one is needed,
and dtypes that differ; ValueError for shapes that do not fit.
"""

import itertools
import math
import warnings

import numpy as np

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.autograd import Tensor, apply, cat, stack
from dlnotes.nn import functional as F
from dlnotes.nn import init
from dlnotes.nn.module import Module, Parameter
from dlnotes.nn.utils.rnn import PackedSequence

Int = int | np.integer


class _Recurrent(Module):
    """What cells and layers share: the kernel, its gates and states, and how weights start."""

    _op: str  # the name of the kernel
    _gates: int  # blocks of rows in the weights
    _states = 1
    _shown: tuple[tuple[str, object], ...]  # settings in `repr`, with the default not shown

    def __init__(self, input_size: Int, hidden_size: Int, bias: bool):
        super().__init__()
        self.input_size = _validate.integer("input_size", input_size, low=1)
        self.hidden_size = _validate.integer("hidden_size", hidden_size, low=1)
        self.bias = _flag("bias", bias)

    def _add_weights(self, suffix: str, input_size: int, dtype) -> None:
        """Add the weights of one layer and direction, with torch's names."""
        rows = self._gates * self.hidden_size
        self._parameter(f"weight_ih{suffix}", (rows, input_size), dtype)
        self._parameter(f"weight_hh{suffix}", (rows, self.hidden_size), dtype)
        for name in ("bias_ih", "bias_hh"):
            if self.bias:
                self._parameter(f"{name}{suffix}", (rows,), dtype)

    def _parameter(self, name, shape, dtype) -> None:
        self.register_parameter(name, Parameter(np.empty(shape, dtype)))

    def _weights(self, suffix: str) -> list[Parameter]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if self.bias else 2]
        return [getattr(self, f"{name}{suffix}") for name in names]

    def _settings(self) -> dict:
        """Return what the kernel takes besides arrays."""
        return {}

    def reset_parameters(self) -> None:
        """Draw all weights and biases anew, uniformly between ±1/√hidden_size."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _given_states(self, hx, shape: tuple[int, ...], like: Tensor) -> list[Tensor]:
        """Return the states, checked, or zeros of this shape."""
        if hx is None:
            return [Tensor(np.zeros(shape, like.dtype)) for _ in range(self._states)]
        names = ("h_0", "c_0")[: self._states]
        given = hx if self._states > 1 else (hx,)
        if not isinstance(given, tuple | list) or len(given) != len(names):
            raise TypeError(f"hx must be the tensors (h_0, c_0), got {type(hx).__name__}")
        states = [_tensor(state) for state in given]
        for name, state in zip(names, states, strict=True):
            _validate.has_shape(name, state.data, shape)
        return states

    def extra_repr(self) -> str:
        """Return the sizes and the settings that are not torch's defaults."""
        shown = [f"{self.input_size}, {self.hidden_size}"]
        for name, default in self._shown:
            if getattr(self, name) != default:
                shown.append(f"{name}={getattr(self, name)}")
        return ", ".join(shown)


# ---- cells -----------------------------------------------------------------------------------


class _Cell(_Recurrent):
    _shown = (("bias", True),)

    def __init__(self, input_size: Int, hidden_size: Int, bias: bool = True, *, dtype=np.float32):
        super().__init__(input_size, hidden_size, bias)
        self._add_weights("", self.input_size, dtype)
        self.reset_parameters()

    def forward(self, input, hx=None):
        """Return the next state of input (b, input_size), or (input_size,)."""
        input = _tensor(input)
        if input.ndim not in (1, 2):
            raise ValueError(f"input must have 1 or 2 axes, got shape {input.shape}")
        states = self._given_states(hx, (*input.shape[:-1], self.hidden_size), input)
        if input.ndim == 1:
            input, states = input.unsqueeze(0), [state.unsqueeze(0) for state in states]
            return self._squeezed(self._step(input, states))
        return self._step(input, states)

    def _step(self, input, states):
        return apply(f"{self._op}_cell", input, *states, *self._weights(""), **self._settings())

    def _squeezed(self, result):
        return result.squeeze(0)


class RNNCell(_Cell):
    """One step of the plain recurrent network: input (b, input_size), h (b, hidden_size) → h'.

    h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or with relu. weight_ih: (hidden_size, input_size),
    weight_hh: (hidden_size, hidden_size), drawn as in torch, uniformly between ±1/√hidden_size. The
    state is zero if none is given; the batch axis may be left out. bias_ih, bias_hh:
    (hidden_size,); nonlinearity: "tanh" or "relu". (Elman, 1990.)
    """

    _op, _gates = "rnn", 1
    _shown = (("bias", True), ("nonlinearity", "tanh"))

    def __init__(
        self,
        input_size: Int,
        hidden_size: Int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        dtype=np.float32,
    ):
        super().__init__(input_size, hidden_size, bias, dtype=dtype)
        self.nonlinearity = _validate.one_of("nonlinearity", nonlinearity, ["tanh", "relu"])

    def _settings(self) -> dict:
        return {"nonlinearity": self.nonlinearity}


class LSTMCell(_Cell):
    """One step of an LSTM: input (b, input_size), (h, c) each (b, hidden_size) → (h', c').

    weight_ih: (4 hidden_size, input_size), weight_hh: (4 hidden_size, hidden_size), the gates in
    the order input, forget, cell, output; drawn as in `RNNCell`.
    (Hochreiter and Schmidhuber, 1997; Gers et al., 2000.)
    """

    _op, _gates, _states = "lstm", 4, 2

    def _step(self, input, states):
        both = super()._step(input, states)
        return both[0], both[1]

    def _squeezed(self, result):
        return tuple(state.squeeze(0) for state in result)


class GRUCell(_Cell):
    """One step of a GRU: input (b, input_size), h (b, hidden_size) → h'.

    weight_ih: (3 hidden_size, input_size), weight_hh: (3 hidden_size, hidden_size), the gates in
    the order reset, update, new; drawn as in `RNNCell`.
    (Cho et al., 2014.)
    """

    _op, _gates = "gru", 3


class SimpleGRUCell(_Cell):
    """One step of a GRU without the reset gate, not in torch; see `kernels.simple_gru_cell`.

    weight_ih: (2 hidden_size, input_size), weight_hh: (2 hidden_size, hidden_size), the gates in
    the order update, new; drawn as in `RNNCell`.
    """

    _op, _gates = "simple_gru", 2


# ---- layers ----------------------------------------------------------------------------------


class _Layers(_Recurrent):
    """Layers of cells along sequences, in one direction or both."""

    _shown: tuple[tuple[str, object], ...] = (
        ("num_layers", 1),
        ("bias", True),
        ("batch_first", False),
        ("dropout", 0.0),
        ("bidirectional", False),
    )

    def __init__(
        self,
        input_size: Int,
        hidden_size: Int,
        num_layers: Int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: Number = 0.0,
        bidirectional: bool = False,
        *,
        dtype=np.float32,
    ):
        super().__init__(input_size, hidden_size, bias)
        self.num_layers = _validate.integer("num_layers", num_layers, low=1)
        self.batch_first = _flag("batch_first", batch_first)
        self.dropout = _validate.number("dropout", dropout, low=0, high=1)
        self.bidirectional = _flag("bidirectional", bidirectional)
        if self.dropout and self.num_layers == 1:
            warnings.warn(
                "dropout acts between layers, so with num_layers=1 it does nothing", stacklevel=3
            )
        self._directions = ("", "_reverse") if self.bidirectional else ("",)
        width = len(self._directions) * self.hidden_size
        for layer, direction in itertools.product(range(self.num_layers), self._directions):
            self._add_weights(f"_l{layer}{direction}", width if layer else self.input_size, dtype)
        self.reset_parameters()

    def forward(self, input, hx=None):
        """Return (output, last state), for an LSTM (output, (last state, last cell)).

        input: (t, b, input_size), with batch_first (b, t, input_size), without a batch
        (t, input_size), or a `PackedSequence`, and then so is the output: (t, b, d · hidden_size),
        the state of the last layer after each step, both directions (d = 2) side by side.
        hx and the last state: (d · num_layers, b, hidden_size), layer by layer; zeros if none is
        given.
        """
        if isinstance(input, PackedSequence):
            data, sizes, order, back = input
            data, last = self._run(data, sizes.data, hx, order, back)
            return PackedSequence(data, sizes, order, back), last
        input = _tensor(input)
        if input.ndim not in (2, 3):
            raise ValueError(f"input must have 2 or 3 axes, got shape {input.shape}")
        if input.ndim == 2:
            hx = self._each(hx, lambda state: _tensor(state).unsqueeze(1))
            output, last = self._padded(input.unsqueeze(1), hx)
            return output.squeeze(1), self._each(last, lambda state: state.squeeze(1))
        if not self.batch_first:
            return self._padded(input, hx)
        output, last = self._padded(input.transpose(0, 1), hx)
        return output.transpose(0, 1), last

    def _padded(self, input: Tensor, hx):
        """Run sequences (t, b, input_size) that are all of one length."""
        steps, batch, features = input.shape
        sizes = np.full(steps, batch)
        data, last = self._run(input.reshape(steps * batch, features), sizes, hx, batch=batch)
        return data.reshape(steps, batch, data.shape[1]), last

    def _run(self, data: Tensor, batch_sizes, hx, order=None, back=None, batch=None):
        """Run packed sequences, whose states `order` sorts and `back` puts back, layer by layer."""
        if data.shape[-1] != self.input_size:
            raise ValueError(
                f"the last axis of input must have length {self.input_size}, got {data.shape[-1]}"
            )
        batch = int(batch_sizes[0]) if batch is None else batch
        count = self.num_layers * len(self._directions)
        first = self._given_states(hx, (count, batch, self.hidden_size), data)
        last, rows = [], len(data)
        for layer in range(self.num_layers):
            outputs = []
            for direction in self._directions:
                states = [state[len(last)] for state in first]
                states = states if order is None else [state[order] for state in states]
                weights = self._weights(f"_l{layer}{direction}")
                settings = {"batch_sizes": batch_sizes, "reverse": bool(direction)}
                y = apply(self._op, data, *states, *weights, **settings, **self._settings())
                output, *ends = y.split([rows] + [batch] * self._states)
                outputs.append(output)
                last.append(ends if back is None else [state[back] for state in ends])
            data = outputs[0] if len(outputs) == 1 else cat(outputs, dim=1)
            if layer + 1 < self.num_layers:
                data = F.dropout(data, self.dropout, self.training)
        last = tuple(stack(states) for states in zip(*last, strict=True))
        return data, last if self._states > 1 else last[0]

    def _each(self, hx, function):
        """Apply a function to the state, or to each of the states, or to None."""
        if self._states > 1 and isinstance(hx, tuple | list):
            return tuple(function(state) for state in hx)
        return None if hx is None else function(hx)


class RNN(_Layers):
    """The plain recurrent network (Elman, 1990): h_t = tanh(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh).

    weight_ih_l0: (hidden_size, input_size), for further layers (hidden_size, d · hidden_size);
    weight_hh_l0: (hidden_size, hidden_size); bias_ih_l0, bias_hh_l0: (hidden_size,); the backward
    direction's end in _reverse. All are drawn as in torch, uniformly between ±1/√hidden_size.
    nonlinearity: "tanh" or "relu". `dropout` drops outputs of all layers but the last in training.
    Arguments, shapes and state_dict as in torch.
    """

    _op, _gates = "rnn", 1
    _shown = (*_Layers._shown, ("nonlinearity", "tanh"))

    def __init__(
        self,
        input_size: Int,
        hidden_size: Int,
        num_layers: Int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: Number = 0.0,
        bidirectional: bool = False,
        *,
        dtype=np.float32,
    ):
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            dtype=dtype,
        )  # fmt: skip
        self.nonlinearity = _validate.one_of("nonlinearity", nonlinearity, ["tanh", "relu"])

    def _settings(self) -> dict:
        return {"nonlinearity": self.nonlinearity}


class LSTM(_Layers):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997), in layers.

    weight_ih_l0: (4 hidden_size, input_size), weight_hh_l0: (4 hidden_size, hidden_size), the gates
    in the order input, forget, cell, output; otherwise as `RNN`. States are pairs (h, c). Arguments
    as in torch, without proj_size.
    """

    _op, _gates, _states = "lstm", 4, 2


class GRU(_Layers):
    """Gated recurrent units (Cho et al., 2014), in layers.

    weight_ih_l0: (3 hidden_size, input_size), weight_hh_l0: (3 hidden_size, hidden_size), the gates
    in the order reset, update, new; otherwise as `RNN`.
    """

    _op, _gates = "gru", 3


class SimpleGRU(_Layers):
    """Gated recurrent units without the reset gate, as lectures introduce them; not in torch.

    weight_ih_l0: (2 hidden_size, input_size), weight_hh_l0: (2 hidden_size, hidden_size), the gates
    in the order update, new; otherwise as `RNN`. The formula is that of `kernels.simple_gru_cell`.
    """

    _op, _gates = "simple_gru", 2


def _tensor(value) -> Tensor:
    return value if isinstance(value, Tensor) else Tensor(value)


def _flag(name: str, value) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__}")
    return value
