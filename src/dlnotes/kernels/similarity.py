"""Losses that compare: two scores, two vectors, or an anchor with two others.

Names, arguments, defaults and values are those of torch.nn.functional, but that nothing is
broadcast; `contrastive_loss` is not in torch. `target` holds 1 (alike; the first ranks higher) and
-1 (unlike), as integers or floats. Reduction and dy are those of `dlnotes.kernels.losses`; the
gradients come as a tuple in the order of the vectors.

In each: TypeError for arrays that are not float32 or float64 or differ in dtype, or a target of
bool or unsigned integers; ValueError for shapes that differ, a target that holds anything but 1 and
-1, a setting out of range and an unknown reduction. Cost: a few operations for each entry.
"""

import numpy as np
from jaxtyping import Float, Shaped

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.kernels.losses import Array, Loss, Upstream, _reduce, _spread

TINY = float(np.float32(1e-12))  # torch's, a float32 number: vectors of zeros have cosine 0
Signs = np.ndarray | np.integer | np.floating


def margin_ranking_loss(
    input1: Float[Array, "*shape"],
    input2: Float[Array, "*shape"],
    target: Shaped[Signs, "*shape"],
    margin: Number = 0.0,
    reduction: str = "mean",
) -> Loss:
    """Return max(0, -target · (input1 - input2) + margin).

    Scores of pairs whose order is known (Herbrich, Graepel and Obermayer, 2000).
    """
    input1, input2, target, margin = _pair(input1, input2, target, margin)
    return _reduce(np.maximum(-target * (input1 - input2) + margin, 0), reduction)


def margin_ranking_loss_backward(
    dy: Upstream,
    input1: Float[Array, "*shape"],
    input2: Float[Array, "*shape"],
    target: Shaped[Signs, "*shape"],
    margin: Number = 0.0,
    reduction: str = "mean",
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Return (dinput1, dinput2) = dy · (-target, target) where the loss is not cut off."""
    input1, input2, target, margin = _pair(input1, input2, target, margin)
    dloss = _spread(dy, input1.shape, input1.dtype, reduction)
    # A mask, no product: ∞ · 0 would be NaN.
    dinput2 = np.where(
        -target * (input1 - input2) + margin >= 0, dloss * target, input1.dtype.type(0)
    )
    return -dinput2, dinput2


def hinge_embedding_loss(
    input: Float[Array, "*shape"],
    target: Shaped[Signs, "*shape"],
    margin: Number = 1.0,
    reduction: str = "mean",
) -> Loss:
    """Return the distance `input` where target is 1, and max(0, margin - input) where it is -1."""
    input = _validate.floats("input", input)
    target = _signs(target, input.shape, input.dtype)
    margin = _validate.number("margin", margin)
    return _reduce(np.where(target > 0, input, np.maximum(margin - input, 0)), reduction)


def hinge_embedding_loss_backward(
    dy: Upstream,
    input: Float[Array, "*shape"],
    target: Shaped[Signs, "*shape"],
    margin: Number = 1.0,
    reduction: str = "mean",
) -> Float[Array, "*shape"]:
    """Return dinput: dy where target is 1; where it is -1, -dy up to the margin and 0 beyond."""
    input = _validate.floats("input", input)
    target = _signs(target, input.shape, input.dtype)
    margin = _validate.number("margin", margin)
    dloss = _spread(dy, input.shape, input.dtype, reduction)
    return np.where(target > 0, dloss, np.where(margin - input >= 0, -dloss, input.dtype.type(0)))


def cosine_embedding_loss(
    input1: Float[Array, "*shape d"],
    input2: Float[Array, "*shape d"],
    target: Shaped[Signs, "*shape"],
    margin: Number = 0.0,
    reduction: str = "mean",
) -> Loss:
    """Return 1 - cos where target is 1, and max(0, cos - margin) where it is -1.

    cos is the cosine of the angle between the vectors input1 and input2 (along the last axis). A
    vector of zeros has cosine 0.
    """
    input1, input2, target, margin = _vectors(input1, input2, target, margin)
    cosine = _cosine(input1, input2)[0]
    loss = np.where(target > 0, 1 - cosine, np.maximum(cosine - margin, 0))
    return _reduce(loss, reduction)


def cosine_embedding_loss_backward(
    dy: Upstream,
    input1: Float[Array, "*shape d"],
    input2: Float[Array, "*shape d"],
    target: Shaped[Signs, "*shape"],
    margin: Number = 0.0,
    reduction: str = "mean",
) -> tuple[Float[Array, "*shape d"], Float[Array, "*shape d"]]:
    """Return (dinput1, dinput2), with dcos/dx = y / (|x| |y|) - cos · x / |x|²."""
    input1, input2, target, margin = _vectors(input1, input2, target, margin)
    cosine, length, square1, square2 = _cosine(input1, input2)
    dloss = _spread(dy, target.shape, input1.dtype, reduction)
    dunlike = np.where(cosine - margin >= 0, dloss, dloss.dtype.type(0))
    dcosine = np.where(target > 0, -dloss, dunlike)
    dcosine, cosine, length = dcosine[..., None], cosine[..., None], length[..., None]
    return (
        dcosine * (input2 / length - cosine * input1 / square1[..., None]),
        dcosine * (input1 / length - cosine * input2 / square2[..., None]),
    )


def contrastive_loss(
    input1: Float[Array, "*shape d"],
    input2: Float[Array, "*shape d"],
    target: Shaped[Signs, "*shape"],
    margin: Number = 1.0,
    reduction: str = "mean",
) -> Loss:
    """Return D²/2 where target is 1, and max(0, margin - D)²/2 where it is -1.

    D = |input1 - input2| along the last axis (Hadsell, Chopra and LeCun, 2006).
    """
    input1, input2, target, margin = _vectors(input1, input2, target, margin)
    distance = _norm(input1 - input2, 2)
    gap = np.where(target > 0, distance, np.maximum(margin - distance, 0))
    return _reduce(gap * gap / 2, reduction)


def contrastive_loss_backward(
    dy: Upstream,
    input1: Float[Array, "*shape d"],
    input2: Float[Array, "*shape d"],
    target: Shaped[Signs, "*shape"],
    margin: Number = 1.0,
    reduction: str = "mean",
) -> tuple[Float[Array, "*shape d"], Float[Array, "*shape d"]]:
    """Return (dinput1, -dinput1); 0 for equal vectors, where an unlike pair has no direction."""
    input1, input2, target, margin = _vectors(input1, input2, target, margin)
    difference = input1 - input2
    distance = _norm(difference, 2)
    dloss = _spread(dy, target.shape, input1.dtype, reduction)
    ddistance = dloss * np.where(target > 0, distance, -np.maximum(margin - distance, 0))
    dinput1 = _norm_backward(ddistance, difference, distance, 2)
    return dinput1, -dinput1


def triplet_margin_loss(
    anchor: Float[Array, "*shape d"],
    positive: Float[Array, "*shape d"],
    negative: Float[Array, "*shape d"],
    margin: Number = 1.0,
    p: Number = 2.0,
    eps: Number = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Loss:
    """Return max(0, d(anchor, positive) - d(anchor, negative) + margin): the margin stands inside.

    d(x, y) is the p-norm (p ≥ 1) of x - y + eps along the last axis. With swap, d(positive,
    negative) takes the place of d(anchor, negative) where it is smaller (Schroff, Kalenichenko and
    Philbin, 2015; Balntas et al., 2016).
    """
    anchor, positive, negative = _triplet(anchor, positive, negative)
    margin, p, eps = _triplet_settings(margin, p, eps)
    near = _norm(anchor - positive + eps, p)
    far = _norm(anchor - negative + eps, p)
    if swap:
        far = np.minimum(far, _norm(positive - negative + eps, p))
    return _reduce(np.maximum(near - far + margin, 0), reduction)


def triplet_margin_loss_backward(
    dy: Upstream,
    anchor: Float[Array, "*shape d"],
    positive: Float[Array, "*shape d"],
    negative: Float[Array, "*shape d"],
    margin: Number = 1.0,
    p: Number = 2.0,
    eps: Number = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> tuple[Float[Array, "*shape d"], Float[Array, "*shape d"], Float[Array, "*shape d"]]:
    """Return (danchor, dpositive, dnegative); with swap, equal distances share the gradient."""
    anchor, positive, negative = _triplet(anchor, positive, negative)
    margin, p, eps = _triplet_settings(margin, p, eps)
    ap, an, pn = anchor - positive + eps, anchor - negative + eps, positive - negative + eps
    near, far = _norm(ap, p), _norm(an, p)
    closest, share = far, 1  # share: of d(anchor, negative) in the distance that counts
    if swap:
        far_too = _norm(pn, p)
        closest = np.minimum(far, far_too)
        share = ((far < far_too) + (far <= far_too).astype(far.dtype)) / 2
    dloss = _spread(dy, near.shape, anchor.dtype, reduction)
    dloss = np.where(near - closest + margin >= 0, dloss, dloss.dtype.type(0))
    dap = _norm_backward(dloss, ap, near, p)
    dan = _norm_backward(-dloss * share, an, far, p)
    if not swap:
        return dap + dan, -dap, -dan
    dpn = _norm_backward(-dloss * (1 - share), pn, far_too, p)
    return dap + dan, dpn - dap, -dan - dpn


# ---- shared pieces ---------------------------------------------------------------------------


def _norm(x, p):
    """Return the p-norm along the last axis."""
    if p == 2:
        return np.sqrt((x * x).sum(axis=-1))
    if p == 1:
        return np.abs(x).sum(axis=-1)
    return (np.abs(x) ** p).sum(axis=-1) ** (1 / p)


def _norm_backward(dnorm, x, norm, p):
    """Return dx = dnorm · sign(x) · (|x| / norm)^(p - 1), 0 where the norm is 0."""
    if p == 1:
        return dnorm[..., None] * np.sign(x)
    norm = np.where(norm > 0, norm, norm.dtype.type(1))[..., None]
    ratio = x / norm if p == 2 else np.sign(x) * (np.abs(x) / norm) ** (p - 1)
    return dnorm[..., None] * ratio


def _cosine(x, y):
    """Return the cosine, the product of the lengths, and the two squared lengths."""
    square_x, square_y = (x * x).sum(axis=-1) + TINY, (y * y).sum(axis=-1) + TINY
    length = np.sqrt(square_x * square_y)
    return (x * y).sum(axis=-1) / length, length, square_x, square_y


def _pair(input1, input2, target, margin):
    input1, input2 = _alike(input1=input1, input2=input2)
    target = _signs(target, input1.shape, input1.dtype)
    return input1, input2, target, _validate.number("margin", margin)


def _vectors(input1, input2, target, margin):
    input1, input2 = _alike(input1=input1, input2=input2, min_ndim=1)
    target = _signs(target, input1.shape[:-1], input1.dtype)
    return input1, input2, target, _validate.number("margin", margin)


def _triplet(anchor, positive, negative):
    return _alike(anchor=anchor, positive=positive, negative=negative, min_ndim=1)


def _triplet_settings(margin, p, eps):
    margin, eps = _validate.number("margin", margin), _validate.number("eps", eps)
    if margin <= 0:
        raise ValueError(f"margin must be above 0, got {margin}")
    return margin, _validate.number("p", p, low=1), eps


def _alike(*, min_ndim=0, **arrays):
    """Return arrays that must be floats of one dtype and one shape."""
    for name, array in arrays.items():
        arrays[name] = _validate.floats(name, array, min_ndim=min_ndim)
    _validate.same_dtype(**arrays)
    _validate.same_shape(**arrays)
    return tuple(arrays.values())


def _signs(target, shape, dtype):
    """Return the labels ±1 as floats of `dtype`."""
    numbers = np.ndarray | np.integer | np.floating
    if not isinstance(target, numbers) or target.dtype.kind not in "if":
        kind = target.dtype if isinstance(target, numbers) else type(target).__name__
        raise TypeError(f"target must be a NumPy array of 1 and -1, got {kind}")
    target = _validate.has_shape("target", np.asarray(target), shape, "one label for each pair")
    if not (np.abs(target) == 1).all():
        bad = target[np.abs(target) != 1][0]
        raise ValueError(f"target must hold 1 and -1, got {bad}")
    return target.astype(dtype)
