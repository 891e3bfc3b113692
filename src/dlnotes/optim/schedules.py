"""Functions of the epoch for LambdaLR: each returns factor(epoch), a multiple of initial_lr.

    scheduler = optim.lr_scheduler.LambdaLR(optimizer, optim.schedules.inverse_time(1.0))

Epochs count from 0, and epoch 0 is trained with factor(0). `first` is the number that the formula
gives to that epoch: formulas that divide by e, such as k / √e, count from 1.

In each: TypeError for a setting that is no number (or no int where epochs are counted), ValueError
for one out of range: numbers and `first` at least 0 (in `inverse_sqrt` first at least 1), counts of
epochs at least 1. A call costs a few operations. In the formulas e is the epoch, plus `first` where
there is one.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping

from dlnotes import _validate
from dlnotes._validate import Number

Schedule = Callable[[int], float]


def inverse_time(decay: Number, first: int = 0) -> Schedule:
    """Return 1 / (1 + decay · e): from 0.2 with decay 1, it goes 0.2, 0.1, 0.067, 0.05, 0.04.

    (Robbins and Monro, 1951; Darken and Moody, 1991.)
    """
    decay = _validate.number("decay", decay, low=0)
    first = _validate.integer("first", first, low=0)
    return lambda epoch: 1 / (1 + decay * (epoch + first))


def inverse_sqrt(k: Number = 1.0, first: int = 1) -> Schedule:
    """Return k / √e (Zinkevich, 2003)."""
    k = _validate.number("k", k, low=0)
    first = _validate.integer("first", first, low=1)
    return lambda epoch: k / math.sqrt(epoch + first)


def exponential(base: Number, first: int = 0) -> Schedule:
    """Return base^e, for instance 0.95^e."""
    base = _validate.number("base", base, low=0)
    first = _validate.integer("first", first, low=0)
    return lambda epoch: base ** (epoch + first)


def staircase(every: int, factor: Number = 0.5) -> Schedule:
    """Return factor^⌊e / every⌋: halved every so many epochs, by default."""
    every = _validate.integer("every", every, low=1)
    factor = _validate.number("factor", factor, low=0)
    return lambda epoch: factor ** (epoch // every)


def manual(factors: Mapping[int, Number]) -> Schedule:
    """Return the factor of the last epoch that is named: {0: 1, 30: 0.1} is 0.1 from epoch 30 on.

    Before the first epoch that is named, the factor is 1. factors: a dict of epochs from 0 and
    numbers from 0.
    """
    if not isinstance(factors, Mapping):
        raise TypeError(f"factors must be a dict of epochs, got {type(factors).__name__}")
    epochs = sorted(_validate.integer("factors", epoch, low=0) for epoch in factors)
    values = [1.0, *(_validate.number("factors", factors[epoch], low=0) for epoch in epochs)]
    return lambda epoch: values[bisect_right(epochs, epoch)]


def cosine(epochs: int, floor: Number = 0.0) -> Schedule:
    """Return half a cosine from 1 at epoch 0 to floor at `epochs`, and floor after it.

    floor + (1 - floor) · (1 + cos(π · epoch / epochs)) / 2 (Loshchilov and Hutter, 2017).
    """
    epochs = _validate.integer("epochs", epochs, low=1)
    floor = _validate.number("floor", floor, low=0)
    return lambda epoch: (
        floor + (1 - floor) * (1 + math.cos(math.pi * min(epoch, epochs) / epochs)) / 2
    )


def cyclic(low: Number, half_period: int) -> Schedule:
    """Return a triangle: low at epoch 0, 1 after half_period epochs, low after as many again.

    1 - (1 - low) · |(epoch mod 2 half_period) / half_period - 1| (Smith, 2017).
    """
    low = _validate.number("low", low, low=0)
    half_period = _validate.integer("half_period", half_period, low=1)
    return lambda epoch: 1 - (1 - low) * abs(epoch % (2 * half_period) / half_period - 1)


def warmup(epochs: int, then: Schedule | None = None) -> Schedule:
    """Return (e + 1) / epochs while e < epochs, in equal steps up to 1; then `then`(e - epochs).

    Without `then`, the factor stays at 1 (Goyal et al., 2017). then: a function of the epoch, such
    as those here.
    """
    epochs = _validate.integer("epochs", epochs, low=1)
    if then is not None and not callable(then):
        raise TypeError(f"then must be a function of the epoch, got {type(then).__name__}")

    def factor(epoch: int) -> float:
        if epoch < epochs:
            return (epoch + 1) / epochs
        return 1.0 if then is None else then(epoch - epochs)

    return factor
