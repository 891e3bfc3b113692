"""Activation functions as modules; the functions themselves are in `dlnotes.kernels`.

torch's `inplace` is not taken: results are always new.
"""

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.autograd import Tensor
from dlnotes.nn import functional as F
from dlnotes.nn.module import Module


class Sigmoid(Module):
    """1 / (1 + e⁻ˣ), between 0 and 1; any shape to the same."""

    def forward(self, input) -> Tensor:
        """Return the activation."""
        return F.sigmoid(input)


class Tanh(Module):
    """Hyperbolic tangent, between -1 and 1; any shape to the same."""

    def forward(self, input) -> Tensor:
        """Return the activation."""
        return F.tanh(input)


class ReLU(Module):
    """max(x, 0); any shape to the same (Nair and Hinton, 2010)."""

    def forward(self, input) -> Tensor:
        """Return the activation."""
        return F.relu(input)


class LeakyReLU(Module):
    """The identity for x > 0, else negative_slope · x; any shape (Maas et al., 2013)."""

    def __init__(self, negative_slope: Number = 0.01):
        super().__init__()
        self.negative_slope = _validate.number("negative_slope", negative_slope)

    def forward(self, input) -> Tensor:
        """Return the activation."""
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        """Return the slope."""
        return f"negative_slope={self.negative_slope}"


class Hardtanh(Module):
    """x, cut off below min_val and above max_val; any shape to the same (Collobert, 2004)."""

    def __init__(self, min_val: Number = -1.0, max_val: Number = 1.0):
        super().__init__()
        self.min_val = _validate.number("min_val", min_val)
        self.max_val = _validate.number("max_val", max_val)
        if min_val >= max_val:
            raise ValueError(f"min_val must be below max_val, got {min_val} and {max_val}")

    def forward(self, input) -> Tensor:
        """Return the activation."""
        return F.hardtanh(input, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        """Return both ends."""
        return f"min_val={self.min_val}, max_val={self.max_val}"


class ReLU6(Module):
    """min(max(x, 0), 6); any shape to the same (Krizhevsky, 2010)."""

    def forward(self, input) -> Tensor:
        """Return the activation."""
        return F.relu6(input)


class ELU(Module):
    """The identity for x > 0, else alpha · (eˣ - 1); any shape (Clevert et al., 2016)."""

    def __init__(self, alpha: Number = 1.0):
        super().__init__()
        self.alpha = _validate.number("alpha", alpha)

    def forward(self, input) -> Tensor:
        """Return the activation."""
        return F.elu(input, self.alpha)

    def extra_repr(self) -> str:
        """Return alpha."""
        return f"alpha={self.alpha}"


class GELU(Module):
    """x · Φ(x), or its approximation by tanh; any shape (Hendrycks and Gimpel, 2016).

    approximate: "none" or "tanh", (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2 for Φ(x).
    """

    def __init__(self, approximate: str = "none"):
        super().__init__()
        self.approximate = _validate.one_of("approximate", approximate, ["none", "tanh"])

    def forward(self, input) -> Tensor:
        """Return the activation."""
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        """Return which form is used."""
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """x · σ(x); any shape (Elfwing et al., 2018; Ramachandran et al., 2017)."""

    def forward(self, input) -> Tensor:
        """Return the activation."""
        return F.silu(input)


class Softplus(Module):
    """log(1 + e^(beta x)) / beta, and x itself where beta · x > threshold.

    Any shape to the same (Dugas et al., 2001).
    """

    def __init__(self, beta: Number = 1.0, threshold: Number = 20.0):
        super().__init__()
        self.beta = _validate.number("beta", beta)
        self.threshold = _validate.number("threshold", threshold)

    def forward(self, input) -> Tensor:
        """Return the activation."""
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"beta={self.beta}, threshold={self.threshold}"


class Maxout(Module):
    """The largest of each `pool_size` consecutive features: (…, k · pool_size) → (…, k).

    ValueError where pool_size does not divide the last axis (Goodfellow et al., 2013).
    """

    def __init__(self, pool_size: int):
        super().__init__()
        self.pool_size = _validate.integer("pool_size", pool_size, low=1)

    def forward(self, input) -> Tensor:
        """Return the activation."""
        return F.maxout(input, self.pool_size)

    def extra_repr(self) -> str:
        """Return the size of a group."""
        return f"pool_size={self.pool_size}"


class Softmax(Module):
    """eˣ / Σ eˣ along `dim`: any shape of one axis or more to the same (Bridle, 1990)."""

    def __init__(self, dim: int = -1):
        super().__init__()
        self.dim = _validate.integer("dim", dim)

    def forward(self, input) -> Tensor:
        """Return the probabilities."""
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        """Return the axis."""
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """The logarithm of softmax along `dim`; any shape of one axis or more to the same."""

    def __init__(self, dim: int = -1):
        super().__init__()
        self.dim = _validate.integer("dim", dim)

    def forward(self, input) -> Tensor:
        """Return the log-probabilities."""
        return F.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        """Return the axis."""
        return f"dim={self.dim}"
