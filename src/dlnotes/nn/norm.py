"""Normalisation layers; the functions themselves are in `dlnotes.kernels.norm`.

Outputs have the input's shape. Arguments: eps, at least 0, is added to the variance; affine
(elementwise_affine) says whether there is a weight, which starts at 1, and a bias, which starts at
0; bias=False leaves out the bias alone. track_running_stats=True keeps running_mean and
running_var, buffers that each batch in training moves by the share `momentum` (0 … 1) and that
evaluation normalises with; without them the statistics are always the batch's.

Instance normalisation (Ulyanov, Vedaldi and Lempitsky, 2016) has by default neither weight and
bias, both (c,), nor running statistics; num_features is c. ValueError for samples of one entry for
each channel.
"""

import numpy as np

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.autograd import Tensor
from dlnotes.nn import functional as F
from dlnotes.nn import init
from dlnotes.nn.module import Module, Parameter

Int = int | np.integer
Lengths = Int | tuple[int, ...] | list[int]


class _Norm(Module):
    """What all share: a weight that starts at 1 and a bias that starts at 0, or neither.

    affine=False (elementwise_affine=False) leaves out both, bias=False the bias.
    """

    def _add_affine(self, shape, weight: bool, bias: bool, dtype) -> None:
        self.register_parameter("weight", Parameter(np.empty(shape, dtype)) if weight else None)
        self.register_parameter("bias", Parameter(np.empty(shape, dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight to 1 and the bias to 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self._parameters.get("bias") is not None:
            init.zeros_(self.bias)


class _RunningNorm(_Norm):
    """Batch and instance normalisation: for each channel, with or without running statistics.

    Buffers, as in torch: running_mean, running_var and num_batches_tracked, an integer. With
    momentum=None the running statistics are the plain mean over all batches seen.
    """

    axes: tuple[int, ...] = ()

    def __init__(self, num_features, eps, momentum, affine, track_running_stats, bias, dtype):
        super().__init__()
        self.num_features = _validate.integer("num_features", num_features, low=1)
        self.eps = _validate.number("eps", eps, low=0)
        if momentum is not None:
            _validate.number("momentum", momentum, low=0, high=1)
        self.momentum, self.affine = momentum, affine
        self.track_running_stats = track_running_stats
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, None)
        if track_running_stats:
            self.running_mean = Tensor(np.zeros(self.num_features, dtype))
            self.running_var = Tensor(np.ones(self.num_features, dtype))
            self.num_batches_tracked = Tensor(np.zeros((), np.int64))
        self._add_affine(self.num_features, affine, affine and bias, dtype)

    def reset_running_stats(self) -> None:
        """Start the running statistics anew: mean 0, variance 1, no batches."""
        if self.track_running_stats:
            self.running_mean.data[...] = 0
            self.running_var.data[...] = 1
            self.num_batches_tracked.data[...] = 0

    def reset_parameters(self) -> None:
        """Set weight, bias and running statistics to what they start from."""
        self.reset_running_stats()
        super().reset_parameters()

    def _check_input(self, input):
        input = input if isinstance(input, Tensor) else Tensor(input)
        if input.ndim not in self.axes:
            allowed = " or ".join(map(str, self.axes))
            raise ValueError(f"input must have {allowed} axes, got shape {input.shape}")
        return input

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_RunningNorm):
    def __init__(
        self,
        num_features: Int,
        eps: Number = 1e-5,
        momentum: Number | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        dtype=np.float32,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias, dtype)

    def forward(self, input) -> Tensor:
        """Return the normalised input; in training, update the running statistics."""
        input = self._check_input(input)
        momentum = 0.0 if self.momentum is None else self.momentum
        tracking = self.track_running_stats and self.training
        if tracking:
            batches = self.num_batches_tracked.data + 1
            momentum = 1 / float(batches) if self.momentum is None else momentum
        y = F.batch_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            momentum,
            self.eps,
        )
        if tracking:  # only now: the batch may have been refused
            self.num_batches_tracked.data[...] = batches
        return y


class BatchNorm1d(_BatchNorm):
    """Normalise each channel of (n, c) or (n, c, length) over the batch.

    num_features is c; weight, bias, running_mean (starts at 0) and running_var (at 1): (c,);
    num_batches_tracked counts. momentum=None: running statistics are the plain mean over the
    batches. ValueError in training with one value for each channel. (Ioffe and Szegedy, 2015.)
    """

    axes = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Normalise each channel of (n, c, h, w) over the batch (and over h and w).

    Arguments, parameters and source as in `BatchNorm1d`.
    """

    axes = (4,)


class InstanceNorm2d(_RunningNorm):
    """Normalise each channel of each sample of (n, c, h, w), or of one sample (c, h, w)."""

    axes = (3, 4)

    def __init__(
        self,
        num_features: Int,
        eps: Number = 1e-5,
        momentum: Number = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
        dtype=np.float32,
    ):
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias, dtype)

    def forward(self, input) -> Tensor:
        """Return the normalised input."""
        input = self._check_input(input)
        if input.ndim == 3:
            return self.forward(input.reshape(1, *input.shape))[0]
        return F.instance_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            self.momentum,
            self.eps,
        )


class GroupNorm(_Norm):
    """Normalise each of num_groups groups of channels of each sample of (n, c, …).

    num_groups divides num_channels, c; weight, bias: (c,) (Wu and He, 2018).
    """

    def __init__(
        self,
        num_groups: Int,
        num_channels: Int,
        eps: Number = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        dtype=np.float32,
    ):
        super().__init__()
        self.num_groups = _validate.integer("num_groups", num_groups, low=1)
        self.num_channels = _validate.integer("num_channels", num_channels, low=1)
        if num_channels % num_groups:
            raise ValueError(
                f"num_groups must divide num_channels, got {num_groups} and {num_channels}"
            )
        self.eps, self.affine = _validate.number("eps", eps, low=0), affine
        self._add_affine(self.num_channels, affine, affine and bias, dtype)

    def forward(self, input) -> Tensor:
        """Return the normalised input."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class LayerNorm(_Norm):
    """Normalise each sample over its last axes, whose lengths are normalized_shape.

    normalized_shape: an int or several, at least 1; weight, bias: of that shape (Ba et al., 2016).
    """

    def __init__(
        self,
        normalized_shape: Lengths,
        eps: Number = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype=np.float32,
    ):
        super().__init__()
        self.normalized_shape = _lengths(normalized_shape)
        self.eps = _validate.number("eps", eps, low=0)
        self.elementwise_affine = elementwise_affine
        affine = (elementwise_affine, elementwise_affine and bias)
        self._add_affine(self.normalized_shape, *affine, dtype)

    def forward(self, input) -> Tensor:
        """Return the normalised input."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the settings."""
        affine = f"elementwise_affine={self.elementwise_affine}"
        return f"{self.normalized_shape}, eps={self.eps}, {affine}"


class RMSNorm(_Norm):
    """Divide each sample by its root mean square over the last axes.

    normalized_shape as in `LayerNorm`; weight: of that shape, no bias; eps=None is the spacing of
    the dtype's numbers at 1 (Zhang and Sennrich, 2019).
    """

    def __init__(
        self,
        normalized_shape: Lengths,
        eps: Number | None = None,
        elementwise_affine: bool = True,
        *,
        dtype=np.float32,
    ):
        super().__init__()
        self.normalized_shape = _lengths(normalized_shape)
        self.eps = None if eps is None else _validate.number("eps", eps, low=0)
        self.elementwise_affine = elementwise_affine
        self.register_parameter("weight", None)
        if elementwise_affine:
            self.weight = Parameter(np.empty(self.normalized_shape, dtype))
        self.reset_parameters()

    def forward(self, x) -> Tensor:
        """Return the normalised input."""
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """Return the settings."""
        affine = f"elementwise_affine={self.elementwise_affine}"
        return f"{self.normalized_shape}, eps={self.eps}, {affine}"


class LocalResponseNorm(Module):
    """Divide each entry by a power of the mean square of its neighbouring channels.

    (n, c, …): x / (k + alpha · mean of x²)^beta over `size` channels (Krizhevsky et al., 2012, with
    alpha / size for alpha). No parameters.
    """

    def __init__(self, size: Int, alpha: Number = 1e-4, beta: Number = 0.75, k: Number = 1.0):
        super().__init__()
        self.size = _validate.integer("size", size, low=1)
        self.alpha, self.beta, self.k = alpha, beta, k

    def forward(self, input) -> Tensor:
        """Return the normalised input."""
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


def _lengths(normalized_shape) -> tuple[int, ...]:
    if not isinstance(normalized_shape, tuple | list):
        normalized_shape = (normalized_shape,)
    return tuple(_validate.integer("normalized_shape", n, low=1) for n in normalized_shape)
