"""Normalisation: batch, layer, group, instance and RMS normalisation, local response.

All but the last compute x̂ = (x - mean) / √(variance + eps), then weight · x̂ + bias. They differ in
what the mean and variance are taken over, for x of shape (n, channels, *size):

- batch_norm: batch and size, for each channel; or running statistics of the training;
- layer_norm: the last axes, for each sample (for images: channels and size);
- group_norm: a group of channels and size, for each sample;
- instance_norm: size, for each sample and channel;
- rms_norm: as layer_norm, with x̂ = x / √(mean of x² + eps).

The variance divides by the number of entries (only running variances, as in torch, by one less).
It is computed from the differences to the mean, so that a mean far from 0 costs no digits.

Backward functions recompute the statistics from x and return (dx, dweight, dbias), None for a
weight or bias that is None. With ŷ the normalised value and g = weight · dy,
dx = (g - mean(g) - x̂ mean(g x̂)) / √(variance + eps), the means being those of the forward pass.

In each: TypeError for arrays that are not float32 or float64 or differ in dtype, ValueError for
shapes that do not fit or a setting out of range.
"""

import math

import numpy as np
from jaxtyping import Float

from dlnotes import _validate
from dlnotes._validate import Number

Vector = Float[np.ndarray, " c"] | None
Last = Float[np.ndarray, "*last"] | None
Lengths = int | np.integer | tuple[int, ...] | list[int]  # of the last axes

# ---- batch normalisation ---------------------------------------------------------------------


def batch_norm(
    x: Float[np.ndarray, "n c *size"],
    running_mean: Vector,
    running_var: Vector,
    weight: Vector = None,
    bias: Vector = None,
    training: bool = False,
    momentum: Number = 0.1,
    eps: Number = 1e-5,
) -> Float[np.ndarray, "n c *size"]:
    """Return x normalised for each channel (Ioffe and Szegedy, 2015).

    training=True uses the statistics of this batch (more than one value for each channel),
    training=False the running ones. The running statistics are not changed here: see
    `batch_norm_statistics`, which is what `momentum` is for.
    """
    x, weight, bias, mean, var = _check_batch(
        x, running_mean, running_var, weight, bias, training, momentum, eps
    )
    flat = _channels(x)
    if training:
        mean, var = _batch_statistics(flat)
    y = flat - mean[:, None]
    y *= _scale(var, eps, weight)[:, None]
    if bias is not None:
        y += bias[:, None]
    return y.reshape(x.shape)


def batch_norm_backward(
    dy: Float[np.ndarray, "n c *size"],
    x: Float[np.ndarray, "n c *size"],
    running_mean: Vector,
    running_var: Vector,
    weight: Vector = None,
    bias: Vector = None,
    training: bool = False,
    momentum: Number = 0.1,
    eps: Number = 1e-5,
) -> tuple[Float[np.ndarray, "n c *size"], Vector, Vector]:
    """Return (dx, dweight, dbias); with training=False the statistics are constants."""
    x, weight, bias, mean, var = _check_batch(
        x, running_mean, running_var, weight, bias, training, momentum, eps
    )
    dy = _check_upstream(dy, x)
    flat, dy_flat = _channels(x), _channels(dy)
    if training:
        mean, var = _batch_statistics(flat)
    inverse = _scale(var, eps)
    centred = flat - mean[:, None]
    dbias = _sum_batch(dy_flat)
    dweight = np.einsum("ncl,ncl->c", dy_flat, centred) * inverse
    scale = _scale(var, eps, weight)
    if training:
        count = x.dtype.type(max(1, len(x) * flat.shape[2]))
        # dx = scale (dy - mean(dy) - x̂ mean(dy x̂)), x̂ = centred · inverse; in place.
        dx = centred
        dx *= (-dweight * inverse / count)[:, None]
        dx += dy_flat
        dx -= (dbias / count)[:, None]
        dx *= scale[:, None]
    else:
        dx = dy_flat * scale[:, None]
    dweight, dbias = _given(weight, dweight), _given(bias, dbias)
    return dx.reshape(x.shape), dweight, dbias


def batch_norm_statistics(
    x: Float[np.ndarray, "n c *size"],
    running_mean: Float[np.ndarray, " c"],
    running_var: Float[np.ndarray, " c"],
    momentum: Number = 0.1,
) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Return new running statistics: (1 - momentum) · running + momentum · that of this batch.

    The batch's variance divides by one less than the number of values, as in torch. An empty
    batch changes nothing.
    """
    x, _, _, mean, var = _check_batch(x, running_mean, running_var, None, None, True, momentum, 0)
    flat = _channels(x)
    count = len(x) * flat.shape[2]
    if not count:
        return running_mean.copy(), running_var.copy()
    mean, var = _batch_statistics(flat)
    old, new = x.dtype.type(1 - momentum), x.dtype.type(momentum)
    unbiased = x.dtype.type(count / (count - 1))
    return old * running_mean + new * mean, old * running_var + new * (unbiased * var)


def _batch_statistics(x):
    """Return mean and variance over batch and size of x (n, channels, length)."""
    count = x.dtype.type(max(1, len(x) * x.shape[2]))
    mean = _sum_batch(x) / count
    var = np.zeros_like(mean)
    for sample in x:  # one at a time: the differences then stay in the cache
        difference = sample - mean[:, None]
        var += np.einsum("cl,cl->c", difference, difference)
    return mean, var / count


def _sum_batch(x):
    # A product with ones is about three times as fast as .sum().
    return (x @ np.ones(x.shape[2], x.dtype)).sum(axis=0)


# ---- instance normalisation ------------------------------------------------------------------


def instance_norm(
    x: Float[np.ndarray, "n c *size"],
    running_mean: Vector = None,
    running_var: Vector = None,
    weight: Vector = None,
    bias: Vector = None,
    use_input_stats: bool = True,
    momentum: Number = 0.1,
    eps: Number = 1e-5,
) -> Float[np.ndarray, "n c *size"]:
    """Return x normalised for each sample and channel (Ulyanov et al., 2016).

    use_input_stats=False uses the running statistics, as `batch_norm` does in evaluation.
    """
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    x, weight, bias = _check_instance(x, running_mean, running_var, weight, bias, momentum, eps)
    return _groups_forward(x, x.shape[1], weight, bias, eps)


def instance_norm_backward(
    dy: Float[np.ndarray, "n c *size"],
    x: Float[np.ndarray, "n c *size"],
    running_mean: Vector = None,
    running_var: Vector = None,
    weight: Vector = None,
    bias: Vector = None,
    use_input_stats: bool = True,
    momentum: Number = 0.1,
    eps: Number = 1e-5,
) -> tuple[Float[np.ndarray, "n c *size"], Vector, Vector]:
    """Return (dx, dweight, dbias)."""
    statistics = (running_mean, running_var)
    if not use_input_stats:
        return batch_norm_backward(dy, x, *statistics, weight, bias, False, momentum, eps)
    x, weight, bias = _check_instance(x, *statistics, weight, bias, momentum, eps)
    return _groups_backward(_check_upstream(dy, x), x, x.shape[1], weight, bias, eps)


def instance_norm_statistics(
    x: Float[np.ndarray, "n c *size"],
    running_mean: Float[np.ndarray, " c"],
    running_var: Float[np.ndarray, " c"],
    momentum: Number = 0.1,
) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Return new running statistics, from the batch's mean of those of each sample."""
    x, _, _ = _check_instance(x, running_mean, running_var, None, None, momentum, 0)
    if not x.size:
        return running_mean.copy(), running_var.copy()
    flat = _channels(x)
    ones = np.ones(flat.shape[2], x.dtype)
    means = flat @ ones / x.dtype.type(len(ones))
    centred = flat - means[..., None]
    variances = np.einsum("ncl,ncl->nc", centred, centred) / x.dtype.type(len(ones) - 1)
    old, new = x.dtype.type(1 - momentum), x.dtype.type(momentum)
    mean, var = means.mean(axis=0), variances.mean(axis=0)
    return old * running_mean + new * mean, old * running_var + new * var


# ---- group normalisation ---------------------------------------------------------------------


def group_norm(
    x: Float[np.ndarray, "n c *size"],
    num_groups: int | np.integer,
    weight: Vector = None,
    bias: Vector = None,
    eps: Number = 1e-5,
) -> Float[np.ndarray, "n c *size"]:
    """Return x normalised for each sample over each of num_groups groups of channels.

    weight and bias: one number for each channel (Wu and He, 2018).
    """
    x, num_groups, weight, bias = _check_group(x, num_groups, weight, bias, eps)
    return _groups_forward(x, num_groups, weight, bias, eps)


def group_norm_backward(
    dy: Float[np.ndarray, "n c *size"],
    x: Float[np.ndarray, "n c *size"],
    num_groups: int | np.integer,
    weight: Vector = None,
    bias: Vector = None,
    eps: Number = 1e-5,
) -> tuple[Float[np.ndarray, "n c *size"], Vector, Vector]:
    """Return (dx, dweight, dbias)."""
    x, num_groups, weight, bias = _check_group(x, num_groups, weight, bias, eps)
    return _groups_backward(_check_upstream(dy, x), x, num_groups, weight, bias, eps)


def _groups_forward(x, groups, weight, bias, eps):
    y, _ = _normalise(_as_groups(x, groups), eps)
    y = y.reshape(_channels(x).shape)
    if weight is not None:
        y *= weight[:, None]
    if bias is not None:
        y += bias[:, None]
    return y.reshape(x.shape)


def _groups_backward(dy, x, groups, weight, bias, eps):
    normal, inverse = _normalise(_as_groups(x, groups), eps)
    dy_channels = _channels(dy)
    normal_channels = normal.reshape(dy_channels.shape)
    dweight = _given(weight, lambda: np.einsum("ncl,ncl->c", dy_channels, normal_channels))
    dbias = _given(bias, lambda: _sum_batch(dy_channels))
    g = dy_channels if weight is None else dy_channels * weight[:, None]
    dx = _normalise_backward(g.reshape(normal.shape), normal, inverse)
    return dx.reshape(x.shape), dweight, dbias


# ---- layer and RMS normalisation -------------------------------------------------------------


def layer_norm(
    x: Float[np.ndarray, "*shape"],
    normalized_shape: Lengths,
    weight: Last = None,
    bias: Last = None,
    eps: Number = 1e-5,
) -> Float[np.ndarray, "*shape"]:
    """Return x normalised over its last axes, whose lengths are `normalized_shape`.

    weight and bias: of that shape, one number for each entry (Ba et al., 2016).
    """
    x, rows, weight, bias = _check_layer(x, normalized_shape, weight, bias, eps)
    y, _ = _normalise(rows, eps)
    if weight is not None:
        y *= weight.ravel()
    if bias is not None:
        y += bias.ravel()
    return y.reshape(x.shape)


def layer_norm_backward(
    dy: Float[np.ndarray, "*shape"],
    x: Float[np.ndarray, "*shape"],
    normalized_shape: Lengths,
    weight: Last = None,
    bias: Last = None,
    eps: Number = 1e-5,
) -> tuple[
    Float[np.ndarray, "*shape"],
    Float[np.ndarray, "*last"] | None,
    Float[np.ndarray, "*last"] | None,
]:
    """Return (dx, dweight, dbias)."""
    x, rows, weight, bias = _check_layer(x, normalized_shape, weight, bias, eps)
    dy_rows = _check_upstream(dy, x).reshape(rows.shape)
    normal, inverse = _normalise(rows, eps)
    dbias = _given(bias, lambda: np.ones(len(rows), x.dtype) @ dy_rows)
    g = dy_rows if weight is None else dy_rows * weight.ravel()
    dweight = _given(weight, lambda: np.einsum("rd,rd->d", dy_rows, normal))
    dx = _normalise_backward(g, normal, inverse)
    return dx.reshape(x.shape), _like(weight, dweight), _like(bias, dbias)


def rms_norm(
    x: Float[np.ndarray, "*shape"],
    normalized_shape: Lengths,
    weight: Last = None,
    eps: Number | None = None,
) -> Float[np.ndarray, "*shape"]:
    """Return x / √(mean of x² + eps) · weight, the mean over the last axes.

    eps=None is the spacing of the dtype's numbers at 1 (Zhang and Sennrich, 2019).
    """
    eps = _default_eps(x, eps)
    x, rows, weight, _ = _check_layer(x, normalized_shape, weight, None, eps)
    y = rows * _inverse_rms(rows, eps)[:, None]
    if weight is not None:
        y *= weight.ravel()
    return y.reshape(x.shape)


def rms_norm_backward(
    dy: Float[np.ndarray, "*shape"],
    x: Float[np.ndarray, "*shape"],
    normalized_shape: Lengths,
    weight: Last = None,
    eps: Number | None = None,
) -> tuple[Float[np.ndarray, "*shape"], Last]:
    """Return (dx, dweight): dx = (g - x̂ mean(g x̂)) / √(mean of x² + eps) with g = weight · dy."""
    eps = _default_eps(x, eps)
    x, rows, weight, _ = _check_layer(x, normalized_shape, weight, None, eps)
    dy_rows = _check_upstream(dy, x).reshape(rows.shape)
    inverse = _inverse_rms(rows, eps)
    normal = rows * inverse[:, None]
    dweight = _given(weight, lambda: np.einsum("rd,rd->d", dy_rows, normal))
    g = dy_rows if weight is None else dy_rows * weight.ravel()
    share = np.einsum("rd,rd->r", g, normal) / x.dtype.type(max(1, rows.shape[1]))
    normal *= -share[:, None]
    normal += g
    normal *= inverse[:, None]
    return normal.reshape(x.shape), _like(weight, dweight)


def _inverse_rms(rows, eps):
    squares = np.einsum("rd,rd->r", rows, rows) / rows.dtype.type(max(1, rows.shape[1]))
    return _scale(squares, eps)


# ---- local response normalisation ------------------------------------------------------------


def local_response_norm(
    x: Float[np.ndarray, "n c *size"],
    size: int | np.integer,
    alpha: Number = 1e-4,
    beta: Number = 0.75,
    k: Number = 1.0,
) -> Float[np.ndarray, "n c *size"]:
    """Return x / (k + alpha · mean of x²)^beta, the mean over `size` channels around each.

    Channels that do not exist count as 0 (Krizhevsky et al., 2012, with alpha / size for alpha).
    """
    x, size, alpha, beta, k = _check_response(x, size, alpha, beta, k)
    return x * _response(x, size, alpha, k) ** -beta


def local_response_norm_backward(
    dy: Float[np.ndarray, "n c *size"],
    x: Float[np.ndarray, "n c *size"],
    size: int | np.integer,
    alpha: Number = 1e-4,
    beta: Number = 0.75,
    k: Number = 1.0,
) -> Float[np.ndarray, "n c *size"]:
    """Return dx = dy / d^beta - x · (2 alpha beta / size) · Σ dy x / d^(beta + 1).

    d is the forward pass's denominator before the power; the sum runs over the channels that
    have this one in their neighbourhood.
    """
    x, size, alpha, beta, k = _check_response(x, size, alpha, beta, k)
    dy = _check_upstream(dy, x)
    d = _response(x, size, alpha, k)
    power = d**-beta
    # Channel c looks from c - size // 2 on, so it is seen from (size - 1) // 2 before it on.
    seen = _neighbours(dy * x * power / d, size, before=(size - 1) // 2)
    return dy * power - x * (2 * alpha * beta / size * seen)


def _response(x, size, alpha, k):
    """Return k + alpha · (mean of x² over the neighbouring channels)."""
    return k + alpha / size * _neighbours(x * x, size, before=size // 2)


def _neighbours(x, size, before):
    """Return the sum over the channels c - before … c - before + size - 1."""
    total, channels = np.zeros_like(x, order="C"), x.shape[1]
    for i in range(-before, size - before):
        if abs(i) < channels:
            first, last = max(0, -i), min(channels, channels - i)
            total[:, first:last] += x[:, first + i : last + i]
    return total


# ---- shared pieces ---------------------------------------------------------------------------


def _normalise(rows, eps):
    """Return each row minus its mean, over its standard deviation, and one over the latter."""
    count = rows.dtype.type(max(1, rows.shape[1]))
    # A product with ones is about three times as fast as rows.mean(axis=1).
    mean = rows @ np.ones(rows.shape[1], rows.dtype) / count
    centred = rows - mean[:, None]
    inverse = _scale(np.einsum("rd,rd->r", centred, centred) / count, eps)
    centred *= inverse[:, None]
    return centred, inverse


def _normalise_backward(g, normal, inverse):
    """Return (g - mean(g) - normal · mean(g · normal)) · inverse; `normal` is used up."""
    count = g.dtype.type(max(1, g.shape[1]))
    mean = g @ np.ones(g.shape[1], g.dtype) / count
    share = np.einsum("rd,rd->r", g, normal) / count
    normal *= -share[:, None]
    normal += g
    normal -= mean[:, None]
    normal *= inverse[:, None]
    return normal


def _scale(var, eps, weight=None):
    """Return weight / √(var + eps)."""
    inverse = 1 / np.sqrt(var + var.dtype.type(eps))
    return inverse if weight is None else inverse * weight


def _channels(x):
    """Return x as (n, channels, length)."""
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


def _as_groups(x, groups):
    """Return x as rows, one for each sample and group of channels."""
    return x.reshape(len(x) * groups, x.shape[1] // groups * math.prod(x.shape[2:]))


def _given(parameter, gradient):
    """Return the gradient (or what the function returns) if there is such a parameter."""
    if parameter is None:
        return None
    return gradient() if callable(gradient) else gradient


def _like(parameter, gradient):
    return None if parameter is None else gradient.reshape(parameter.shape)


# ---- arguments -------------------------------------------------------------------------------


def _check_batch(x, running_mean, running_var, weight, bias, training, momentum, eps):
    x = _validate.floats("x", x, min_ndim=2)
    _check_eps(eps)
    _validate.number("momentum", momentum, low=0, high=1)
    mean = _check_vector("running_mean", running_mean, x)
    var = _check_vector("running_var", running_var, x)
    if not training and (mean is None or var is None):
        raise ValueError("running_mean and running_var must be given unless training=True")
    if training and math.prod(x.shape[:1] + x.shape[2:]) == 1:
        raise ValueError(
            f"x must have more than one value for each channel in training, got shape {x.shape}"
        )
    return x, _check_vector("weight", weight, x), _check_vector("bias", bias, x), mean, var


def _check_instance(x, running_mean, running_var, weight, bias, momentum, eps):
    x = _validate.floats("x", x, min_ndim=3)
    _check_eps(eps)
    _validate.number("momentum", momentum, low=0, high=1)
    _check_vector("running_mean", running_mean, x)
    _check_vector("running_var", running_var, x)
    if math.prod(x.shape[2:]) == 1:
        raise ValueError(
            f"x must have more than one value for each sample and channel, got shape {x.shape}"
        )
    return x, _check_vector("weight", weight, x), _check_vector("bias", bias, x)


def _check_group(x, num_groups, weight, bias, eps):
    x = _validate.floats("x", x, min_ndim=2)
    _check_eps(eps)
    num_groups = _validate.integer("num_groups", num_groups, low=1)
    if x.shape[1] % num_groups:
        raise ValueError(
            f"num_groups must divide the channels of x, got {num_groups} for {x.shape[1]} channels"
        )
    return x, num_groups, _check_vector("weight", weight, x), _check_vector("bias", bias, x)


def _check_vector(name, value, x):
    """Check one number for each channel."""
    if value is None:
        return None
    value = _validate.floats(name, value, ndim=1)
    _validate.same_dtype(x=x, **{name: value})
    return _validate.has_shape(name, value, (x.shape[1],), "one for each channel of x")


def _check_layer(x, normalized_shape, weight, bias, eps):
    """Check, and return x also as rows that are normalised each."""
    x = _validate.floats("x", x, min_ndim=1)
    _check_eps(eps)
    if not isinstance(normalized_shape, tuple | list):
        normalized_shape = (normalized_shape,)
    last = tuple(_validate.integer("normalized_shape", n, low=0) for n in normalized_shape)
    if not last or x.shape[-len(last) :] != last:
        raise ValueError(
            f"normalized_shape must be the lengths of the last axes of x, got {last} for shape "
            f"{x.shape}"
        )
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            value = _validate.floats(name, value)
            _validate.same_dtype(x=x, **{name: value})
            _validate.has_shape(name, value, last, "normalized_shape")
    rows = x.reshape(math.prod(x.shape[: -len(last)]), math.prod(last))
    return x, rows, weight, bias


def _check_response(x, size, alpha, beta, k):
    x = _validate.floats("x", x, min_ndim=3)
    size = _validate.integer("size", size, low=1)
    alpha, beta = _validate.number("alpha", alpha), _validate.number("beta", beta)
    return x, size, alpha, beta, _validate.number("k", k)


def _check_upstream(dy, x):
    dy = _validate.floats("dy", dy)
    _validate.same_dtype(dy=dy, x=x)
    return _validate.has_shape("dy", dy, x.shape, "the shape of the output")


def _check_eps(eps):
    _validate.number("eps", eps, low=0)


def _default_eps(x, eps):
    return float(np.finfo(_validate.floats("x", x).dtype).eps) if eps is None else eps
