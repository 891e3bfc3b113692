"""Initialisers: each fills a tensor in place and returns it, as torch.nn.init does.

Random numbers come from `generator`, by default `dlnotes.random.generator()`. For a weight of
shape (out, in, …) fan_in = in · … and fan_out = out · …; the variance of the outputs then stays
that of the inputs (Glorot and Bengio, 2010; He et al., 2015).
"""

import math

import numpy as np

from dlnotes import _validate, random
from dlnotes._validate import Number
from dlnotes.autograd import Tensor


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with 1."""
    return constant_(tensor, 1.0)


def constant_(tensor: Tensor, val: Number) -> Tensor:
    """Fill with `val`."""
    return _fill(tensor, _validate.number("val", val))


def uniform_(tensor: Tensor, a: Number = 0.0, b: Number = 1.0, generator=None) -> Tensor:
    """Draw from the uniform distribution between a and b."""
    a, b = _validate.number("a", a), _validate.number("b", b)
    if a > b:
        raise ValueError(f"a must not exceed b, got a={a} and b={b}")
    return _fill(tensor, _rng(generator).uniform(a, b, _leaf(tensor).shape))


def normal_(tensor: Tensor, mean: Number = 0.0, std: Number = 1.0, generator=None) -> Tensor:
    """Draw from the normal distribution."""
    mean, std = _validate.number("mean", mean), _validate.number("std", std, low=0)
    return _fill(tensor, _rng(generator).normal(mean, std, _leaf(tensor).shape))


def xavier_uniform_(tensor: Tensor, gain: Number = 1.0, generator=None) -> Tensor:
    """Draw uniformly between ±gain · √(6 / (fan_in + fan_out))."""
    fan_in, fan_out = _fans(tensor)
    bound = _validate.number("gain", gain, low=0) * math.sqrt(6 / (fan_in + fan_out))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: Number = 1.0, generator=None) -> Tensor:
    """Draw normally with standard deviation gain · √(2 / (fan_in + fan_out))."""
    fan_in, fan_out = _fans(tensor)
    std = _validate.number("gain", gain, low=0) * math.sqrt(2 / (fan_in + fan_out))
    return normal_(tensor, 0.0, std, generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: Number = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator=None,
) -> Tensor:
    """Draw uniformly between ±gain · √(3 / fan); `a` is the slope that leaky_relu's gain uses."""
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: Number = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator=None,
) -> Tensor:
    """Draw normally with standard deviation gain / √fan."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def calculate_gain(nonlinearity: str, param: Number | None = None) -> float:
    """Return the factor by which torch widens an initialisation for this activation.

    `param` is the negative slope of leaky_relu (0.01 when None).
    """
    gains = {
        "linear": 1.0,
        "sigmoid": 1.0,
        "tanh": 5 / 3,
        "relu": math.sqrt(2),
        "leaky_relu": None,
        "selu": 3 / 4,
    }
    gain = gains[_validate.one_of("nonlinearity", nonlinearity, gains)]
    if gain is not None:
        return gain
    slope = 0.01 if param is None else _validate.number("param", param)
    return math.sqrt(2 / (1 + slope**2))


def _kaiming_std(tensor, a, mode, nonlinearity) -> float:
    fan_in, fan_out = _fans(tensor)
    fan = fan_in if _validate.one_of("mode", mode, ["fan_in", "fan_out"]) == "fan_in" else fan_out
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def _fans(tensor) -> tuple[int, int]:
    shape = _leaf(tensor).shape
    if len(shape) < 2 or 0 in shape:
        raise ValueError(f"tensor must have two or more axes, none of length 0, got {shape}")
    inner = math.prod(shape[2:])
    return shape[1] * inner, shape[0] * inner


def _fill(tensor, values) -> Tensor:
    _leaf(tensor).data[...] = values  # in place: float64 draws take the tensor's dtype here
    return tensor


def _leaf(tensor) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tensor must be a Tensor, got {type(tensor).__name__}")
    if tensor.parents:
        raise ValueError(f"tensor must be a leaf, but it is the result of {tensor.op!r}")
    return tensor


def _rng(generator) -> np.random.Generator:
    if generator is None:
        return random.generator()
    if not isinstance(generator, np.random.Generator):
        raise TypeError(
            f"generator must be a numpy.random.Generator, got {type(generator).__name__}"
        )
    return generator
