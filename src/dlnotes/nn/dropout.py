"""Dropout as modules: active in training mode only. torch's `inplace` is not taken."""

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.autograd import Tensor
from dlnotes.nn import functional as F
from dlnotes.nn.module import Module


class Dropout(Module):
    """In training, set each entry to 0 with probability p and scale the rest by 1/(1 - p).

    Any shape to the same; p: 0 … 1. Masks come from `dlnotes.random.generator()`, anew at each
    call. (Srivastava et al., 2014)
    """

    def __init__(self, p: Number = 0.5):
        super().__init__()
        self.p = _validate.number("p", p, low=0, high=1)

    def forward(self, input) -> Tensor:
        """Return the input, with entries dropped in training mode."""
        return F.dropout(input, self.p, self.training)

    def extra_repr(self) -> str:
        """Return the probability of dropping."""
        return f"p={self.p}"


class Dropout2d(Dropout):
    """In training, set whole channels of (n, channels, h, w) to 0 with probability p.

    The rest is scaled by 1/(1 - p). Neighbouring pixels are so alike that dropping them one by one
    drops little (Tompson et al., 2015).
    """

    def forward(self, input) -> Tensor:
        """Return the input, with channels dropped in training mode."""
        return F.dropout2d(input, self.p, self.training)
