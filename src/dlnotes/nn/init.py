"""Initialisers: each fills a tensor in place and returns it, as torch.nn.init does.

Random numbers come from `generator`, by default `dlnotes.random.generator()`. For a weight of
shape (out, in, …) fan_in = in · … and fan_out = out · …; the variance of the outputs then stays
that of the inputs (Glorot and Bengio, 2010; He et al., 2015).

In each: TypeError for what is no Tensor, and settings that are no numbers; ValueError for a tensor
that is the result of an operation, a shape that the rule has no meaning for and settings out of
range. Cost: one draw, or one number written, for each entry, where nothing else is said.
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
    """Draw from the uniform distribution between a and b.

    a, b: numbers, a ≤ b; density 1 / (b - a).
    """
    a, b = _validate.number("a", a), _validate.number("b", b)
    if a > b:
        raise ValueError(f"a must not exceed b, got a={a} and b={b}")
    return _fill(tensor, _rng(generator).uniform(a, b, _floats(tensor).shape))


def normal_(tensor: Tensor, mean: Number = 0.0, std: Number = 1.0, generator=None) -> Tensor:
    """Draw from the normal distribution with deviation `std`, at least 0, around `mean`."""
    mean, std = _validate.number("mean", mean), _validate.number("std", std, low=0)
    return _fill(tensor, _rng(generator).normal(mean, std, _floats(tensor).shape))


def xavier_uniform_(tensor: Tensor, gain: Number = 1.0, generator=None) -> Tensor:
    """Draw uniformly between ±gain · √(6 / (fan_in + fan_out)).

    gain: at least 0 (see `calculate_gain`); tensor: two axes or more, none of length 0. (Glorot and
    Bengio, 2010.)
    """
    fan_in, fan_out = _fans(tensor)
    bound = _validate.number("gain", gain, low=0) * math.sqrt(6 / (fan_in + fan_out))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: Number = 1.0, generator=None) -> Tensor:
    """Draw normally with standard deviation gain · √(2 / (fan_in + fan_out)).

    Arguments, errors and source as in `xavier_uniform_`.
    """
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
    """Draw uniformly between ±gain · √(3 / fan); `a` is the slope that leaky_relu's gain uses.

    gain = calculate_gain(nonlinearity, a), fan = fan_in or fan_out, as mode says; tensor: two axes
    or more, none of length 0. (He et al., 2015.)
    """
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: Number = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator=None,
) -> Tensor:
    """Draw normally with standard deviation gain / √fan.

    Arguments, errors and source as in `kaiming_uniform_`.
    """
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def trunc_normal_(
    tensor: Tensor,
    mean: Number = 0.0,
    std: Number = 1.0,
    a: Number = -2.0,
    b: Number = 2.0,
    generator=None,
) -> Tensor:
    """Draw from the normal distribution cut off at a and b (numbers, not multiples of std).

    mean + std · Φ⁻¹(u), u uniform between Φ((a - mean) / std) and Φ((b - mean) / std). ValueError
    unless a < b and std > 0.
    """
    from scipy.special import ndtr, ndtri

    mean, std = _validate.number("mean", mean), _validate.number("std", std, low=0)
    a, b = _validate.number("a", a), _validate.number("b", b)
    if a >= b or std == 0:
        raise ValueError(f"a must be below b and std above 0, got a={a}, b={b} and std={std}")
    low, high = ndtr((a - mean) / std), ndtr((b - mean) / std)
    quantiles = _rng(generator).uniform(low, high, _floats(tensor).shape)
    return _fill(tensor, np.clip(mean + std * ndtri(quantiles), a, b))


def orthogonal_(tensor: Tensor, gain: Number = 1, generator=None) -> Tensor:
    """Fill with gain times a random orthogonal matrix, trailing axes joined into one.

    Rows are orthonormal where there are no more rows than columns, else columns are; lengths then
    pass a linear layer unchanged (Saxe, McClelland and Ganguli, 2014). ValueError for fewer than
    two axes. Cost: a QR decomposition, O(rows · columns · the smaller of both).
    """
    gain = _validate.number("gain", gain)
    shape = _floats(tensor).shape
    if len(shape) < 2:
        raise ValueError(f"tensor must have two or more axes, got {shape}")
    if 0 in shape:
        return tensor
    rows, columns = shape[0], math.prod(shape[1:])
    q, r = np.linalg.qr(_rng(generator).normal(size=(max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))  # so that all orthogonal matrices are equally likely
    return _fill(tensor, gain * (q if rows >= columns else q.T).reshape(shape))


def eye_(tensor: Tensor) -> Tensor:
    """Fill a matrix with ones on the diagonal and zeros elsewhere; ValueError unless 2 axes."""
    shape = _leaf(tensor).shape
    if len(shape) != 2:
        raise ValueError(f"tensor must have 2 axes, got {shape}")
    return _fill(tensor, np.eye(*shape))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fill a convolution's weight (out, in / groups, …) so that it passes channels on unchanged.

    In each group the first channels are passed on, as many as there are on both sides. ValueError
    unless 3 to 5 axes, of which `groups` divides the first. (Zagoruyko and Komodakis, 2017.)
    """
    shape, groups = _leaf(tensor).shape, _validate.integer("groups", groups, low=1)
    if len(shape) not in (3, 4, 5):
        raise ValueError(f"tensor must have 3, 4 or 5 axes, got {shape}")
    if shape[0] % groups:
        raise ValueError(f"groups must divide the {shape[0]} output channels, got {groups}")
    values, size = np.zeros(shape), shape[0] // groups
    centre = tuple(n // 2 for n in shape[2:])
    for group in range(groups):
        for channel in range(min(size, shape[1])):
            values[(group * size + channel, channel, *centre)] = 1
    return _fill(tensor, values)


def sparse_(tensor: Tensor, sparsity: Number, std: Number = 0.01, generator=None) -> Tensor:
    """Draw normally, then set the share `sparsity` of each column to 0 (Martens, 2010).

    Of rows entries, ⌈sparsity · rows⌉ are 0; sparsity: 0 … 1, std: of those that stay. ValueError
    unless 2 axes.
    """
    sparsity = _validate.number("sparsity", sparsity, low=0, high=1)
    shape, rng = _leaf(tensor).shape, _rng(generator)
    if len(shape) != 2:
        raise ValueError(f"tensor must have 2 axes, got {shape}")
    normal_(tensor, 0.0, std, rng)
    for column in range(shape[1]):
        tensor.data[rng.permutation(shape[0])[: math.ceil(sparsity * shape[0])], column] = 0
    return tensor


def calculate_gain(nonlinearity: str, param: Number | None = None) -> float:
    """Return the factor by which torch widens an initialisation for this activation.

    1 for "linear" and "sigmoid", 5/3 for "tanh", √2 for "relu", 3/4 for "selu" and √(2 / (1 +
    param²)) for "leaky_relu", whose negative slope `param` is (0.01 when None). ValueError for
    another name.
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


def _floats(tensor) -> Tensor:
    """Return a leaf that can hold what is drawn: integers would cut it off in silence."""
    _validate.floats("tensor", _leaf(tensor).data)
    return tensor


def _rng(generator) -> np.random.Generator:
    if generator is None:
        return random.generator()
    return _validate.generator("generator", generator)
