"""Gradient clipping, as in torch.nn.utils; sequences of different lengths are in `utils.rnn`."""

import math
from collections.abc import Iterable

import numpy as np

from dlnotes import _validate
from dlnotes._validate import Number
from dlnotes.autograd import Tensor
from dlnotes.nn.utils import rnn

__all__ = ["clip_grad_norm_", "clip_grad_value_", "get_total_norm", "rnn"]


def get_total_norm(
    tensors: Iterable, norm_type: Number = 2.0, error_if_nonfinite: bool = False
) -> np.floating:
    """Return the norm of all entries of all arrays (or tensors) together, as one long vector.

    norm_type: above 0, or math.inf for the largest absolute value. The norm has the arrays' dtype;
    no arrays have norm 0. ValueError for a norm that is not finite, with error_if_nonfinite.
    TypeError for what is no tensor and no array of floats. Cost: a few operations for each entry,
    as of clipping.
    """
    tensors = [tensors] if isinstance(tensors, Tensor | np.ndarray) else tensors
    arrays = [t.data if isinstance(t, Tensor) else t for t in tensors]
    return _norm([_validate.floats("tensors", a) for a in arrays], norm_type, error_if_nonfinite)


def clip_grad_norm_(
    parameters: Tensor | Iterable,
    max_norm: Number,
    norm_type: Number = 2.0,
    error_if_nonfinite: bool = False,
) -> np.floating:
    """Scale all gradients, in place, by one factor so that their total norm is at most max_norm.

    The factor is min(1, max_norm / (norm + 1e-6)): directions stay (Pascanu, Mikolov and Bengio,
    2013). Returns the norm before clipping (see `get_total_norm`). Parameters without a gradient
    are passed over. max_norm: at least 0; norm_type and error_if_nonfinite as in `get_total_norm`.
    TypeError for what is no tensor, ValueError for settings out of range.
    """
    max_norm = _validate.number("max_norm", max_norm, low=0)
    gradients = _gradients(parameters)
    total = _norm(gradients, norm_type, error_if_nonfinite)
    factor = min(1.0, max_norm / (float(total) + 1e-6)) if not np.isnan(total) else math.nan
    with np.errstate(invalid="ignore"):  # an infinite gradient becomes NaN, as in torch
        for g in gradients:
            g *= factor
    return total


def clip_grad_value_(parameters: Tensor | Iterable, clip_value: Number) -> None:
    """Cut every entry of every gradient, in place, off at ±clip_value.

    (Mikolov, 2012.) clip_value: at least 0. TypeError for what is no tensor, ValueError for a
    clip_value below 0.
    """
    clip_value = _validate.number("clip_value", clip_value, low=0)
    for g in _gradients(parameters):
        np.clip(g, -clip_value, clip_value, out=g)


def _norm(arrays: list[np.ndarray], norm_type, error_if_nonfinite) -> np.floating:
    if norm_type != math.inf and _validate.number("norm_type", norm_type, low=0) == 0:
        raise ValueError("norm_type must be above 0, got 0")
    arrays = [a for a in arrays if a.size]
    if not arrays:
        return np.float32(0)
    with np.errstate(over="ignore", invalid="ignore"):  # the norm says it: ∞ or NaN, as in torch
        if norm_type == math.inf:
            total = np.max([np.abs(a).max() for a in arrays])  # unlike max(), sees every NaN
        elif norm_type == 2:
            # Norm of the norms: squares of norms of many arrays overflow no sooner than their sum.
            total = _two_norm(np.array([_two_norm(a) for a in arrays]))
        else:
            norm_type = float(norm_type)
            total = sum((np.abs(a) ** norm_type).sum() for a in arrays) ** (1 / norm_type)
    if error_if_nonfinite and not np.isfinite(total):
        raise ValueError(f"the total norm of order {norm_type} is {total}, so nothing is clipped")
    return total


def _two_norm(a: np.ndarray) -> np.floating:
    flat = a.reshape(-1)
    return np.sqrt(flat @ flat)


def _gradients(parameters) -> list[np.ndarray]:
    """Return the gradients there are, each checked to be an array that can be changed."""
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    if not isinstance(parameters, Iterable):
        raise TypeError(
            f"parameters must be an iterable of tensors, got {type(parameters).__name__}"
        )
    gradients = []
    for p in parameters:
        if not isinstance(p, Tensor):
            raise TypeError(f"parameters must hold tensors, got {type(p).__name__}")
        if p.grad is not None:
            gradients.append(p.grad)
    return gradients
