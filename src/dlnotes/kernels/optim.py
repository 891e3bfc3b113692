"""Update rules of the optimisers: one step for one parameter, in place, as in torch.optim.

Each `*_step(param, grad, state…, **settings)` CHANGES `param` and the state arrays, which are
named as in torch's state_dict, and returns nothing; `grad` stays as it is. All arrays have one
shape and one dtype, and none may overlap another. A state array starts as zeros unless its
function says otherwise, and `step` counts the steps of this parameter from 1.

The rules are written block by block: the temporaries of a formula that runs over sixty thousand
numbers stay in the processor's cache, so that the formula as it stands in a book is as fast as one
with work buffers.

In each: TypeError for arrays that are not float32 or float64 or differ in dtype, ValueError for
shapes that differ, a read-only array, and settings below 0 (only dampening may be) or betas not
below 1. As in torch, eps=0 gives NaN where all gradients were 0.

Settings that they share: `lr`, the learning rate; `weight_decay` adds weight_decay · p to the
gradient g before anything else, the gradient of weight_decay / 2 · |p|² (but see `adam_step`);
`maximize` turns the gradient round before that, so that the step climbs; `eps` keeps a denominator
above 0.

Cost: about 2 to 20 operations for each entry, and a few blocks of 256 KiB of work memory; arrays
that are not contiguous are done in one block.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from dlnotes import _validate
from dlnotes._validate import Number

Array = np.ndarray | np.floating
BLOCK_BYTES = 1 << 18  # of each array: the blocks of a rule fit into a level-2 cache of 1 to 2 MiB


def sgd_step(
    param: Float[np.ndarray, "*shape"],
    grad: Float[Array, "*shape"],
    momentum_buffer: Float[np.ndarray, "*shape"] | None = None,
    *,
    lr: Number = 1e-3,
    momentum: Number = 0,
    dampening: Number = 0,
    weight_decay: Number = 0,
    nesterov: bool = False,
    maximize: bool = False,
    first: bool = False,
) -> None:
    """Step down the gradient: p ← p - lr · g; with momentum, p ← p - lr · v.

    v ← momentum · v + (1 - dampening) · g (Polyak, 1964), but v = g on the `first` step. With
    nesterov, g + momentum · v takes the place of v (Nesterov, 1983; Sutskever et al., 2013).
    `momentum_buffer` is v; it is needed when momentum is not 0.
    """
    lr, momentum, weight_decay = _numbers(lr=lr, momentum=momentum, weight_decay=weight_decay)
    dampening = _validate.number("dampening", dampening)
    if momentum and momentum_buffer is None:
        raise ValueError(f"momentum_buffer must be given when momentum is {momentum}, got None")
    _check(param, grad, momentum_buffer=momentum_buffer)
    for p, g, v in _blocks(param, grad, momentum_buffer):
        g = _descended(p, g, weight_decay, maximize)
        if momentum:
            if first:
                v[...] = g
            else:
                v *= momentum
                v += (1 - dampening) * g
            g = g + momentum * v if nesterov else v
        p -= lr * g


def adagrad_step(
    param: Float[np.ndarray, "*shape"],
    grad: Float[Array, "*shape"],
    sum: Float[np.ndarray, "*shape"],
    step: int,
    *,
    lr: Number = 1e-2,
    lr_decay: Number = 0,
    weight_decay: Number = 0,
    eps: Number = 1e-10,
    maximize: bool = False,
) -> None:
    """Divide by the root of the sum s of all squared gradients (Duchi, Hazan and Singer, 2011).

    s ← s + g², p ← p - lr / (1 + (step - 1) · lr_decay) · g / (√s + eps). `sum` is s.
    """
    lr, lr_decay, weight_decay, eps = _numbers(
        lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps
    )
    step = _validate.integer("step", step, low=1)
    _check(param, grad, sum=sum)
    rate = lr / (1 + (step - 1) * lr_decay)
    for p, g, s in _blocks(param, grad, sum):
        g = _descended(p, g, weight_decay, maximize)
        s += g * g
        p -= rate * g / (np.sqrt(s) + eps)


def rmsprop_step(
    param: Float[np.ndarray, "*shape"],
    grad: Float[Array, "*shape"],
    square_avg: Float[np.ndarray, "*shape"],
    momentum_buffer: Float[np.ndarray, "*shape"] | None = None,
    grad_avg: Float[np.ndarray, "*shape"] | None = None,
    *,
    lr: Number = 1e-2,
    alpha: Number = 0.99,
    eps: Number = 1e-8,
    weight_decay: Number = 0,
    momentum: Number = 0,
    maximize: bool = False,
) -> None:
    """Divide by the root of a running mean of squared gradients (Tieleman and Hinton, 2012).

    s ← alpha · s + (1 - alpha) · g², p ← p - lr · g / (√s + eps); there is no bias correction.
    Centred (Graves, 2013), when `grad_avg` m is given: m ← m + (1 - alpha)(g - m), and s - m², the
    variance, takes the place of s under the root. With momentum, v ← momentum · v + g / (√s + eps)
    and p ← p - lr · v. `square_avg` is s and `momentum_buffer` v, needed when momentum is not 0.
    """
    lr, alpha, eps, weight_decay, momentum = _numbers(
        lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum
    )
    if momentum and momentum_buffer is None:
        raise ValueError(f"momentum_buffer must be given when momentum is {momentum}, got None")
    _check(param, grad, square_avg=square_avg, momentum_buffer=momentum_buffer, grad_avg=grad_avg)
    for p, g, s, v, m in _blocks(param, grad, square_avg, momentum_buffer, grad_avg):
        g = _descended(p, g, weight_decay, maximize)
        s *= alpha
        s += (1 - alpha) * g * g
        if m is None:
            root = np.sqrt(s)
        else:
            m += (1 - alpha) * (g - m)
            # Rounding may leave a variance of 0 just below 0 (torch then has NaN).
            root = np.sqrt(np.maximum(s - m * m, 0))
        update = g / (root + eps)
        if momentum:
            v *= momentum
            v += update
            update = v
        p -= lr * update


def adadelta_step(
    param: Float[np.ndarray, "*shape"],
    grad: Float[Array, "*shape"],
    square_avg: Float[np.ndarray, "*shape"],
    acc_delta: Float[np.ndarray, "*shape"],
    *,
    lr: Number = 1.0,
    rho: Number = 0.9,
    eps: Number = 1e-6,
    weight_decay: Number = 0,
    maximize: bool = False,
) -> None:
    """Make the update in the parameter's own units, from past updates (Zeiler, 2012).

    s ← rho · s + (1 - rho) · g², Δ = √(d + eps) / √(s + eps) · g, d ← rho · d + (1 - rho) · Δ²,
    p ← p - lr · Δ. `square_avg` is s and `acc_delta` d.
    """
    lr, rho, eps, weight_decay = _numbers(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay)
    _check(param, grad, square_avg=square_avg, acc_delta=acc_delta)
    for p, g, s, d in _blocks(param, grad, square_avg, acc_delta):
        g = _descended(p, g, weight_decay, maximize)
        s *= rho
        s += (1 - rho) * g * g
        delta = np.sqrt(d + eps) / np.sqrt(s + eps) * g
        d *= rho
        d += (1 - rho) * delta * delta
        p -= lr * delta


def adam_step(
    param: Float[np.ndarray, "*shape"],
    grad: Float[Array, "*shape"],
    exp_avg: Float[np.ndarray, "*shape"],
    exp_avg_sq: Float[np.ndarray, "*shape"],
    step: int,
    max_exp_avg_sq: Float[np.ndarray, "*shape"] | None = None,
    *,
    lr: Number = 1e-3,
    betas: Sequence[Number] = (0.9, 0.999),
    eps: Number = 1e-8,
    weight_decay: Number = 0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> None:
    """Divide a running mean of gradients by the root of one of their squares (Kingma and Ba, 2015).

    m ← β₁ m + (1 - β₁) g and v ← β₂ v + (1 - β₂) g²; both start at 0, so they are divided by what
    their weights add up to: m̂ = m / (1 - β₁^step), v̂ = v / (1 - β₂^step).
    p ← p - lr · m̂ / (√v̂ + eps).

    Weight decay adds weight_decay · p to g or, with decoupled_weight_decay=True (AdamW; Loshchilov
    and Hutter, 2019), shrinks p by lr · weight_decay beside the step. When `max_exp_avg_sq` is
    given, it keeps the largest v so far, which takes the place of v (AMSGrad; Reddi, Kale and
    Kumar, 2018). `exp_avg` is m and `exp_avg_sq` v.
    """
    lr, eps, weight_decay = _numbers(lr=lr, eps=eps, weight_decay=weight_decay)
    beta1, beta2 = check_betas(betas)
    step = _validate.integer("step", step, low=1)
    _check(param, grad, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq, max_exp_avg_sq=max_exp_avg_sq)
    # With √v̂ = √v / root, numerator and denominator are multiplied by root: one pass less.
    root = (1 - beta2**step) ** 0.5
    rate, eps = lr * root / (1 - beta1**step), eps * root
    for p, g, m, v, largest in _blocks(param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq):
        if decoupled_weight_decay:
            g = -g if maximize else g
            p *= 1 - lr * weight_decay
        else:
            g = _descended(p, g, weight_decay, maximize)
        m += (1 - beta1) * (g - m)
        v += (1 - beta2) * (g * g - v)
        if largest is not None:
            v = np.maximum(largest, v, out=largest)
        p -= rate * m / (np.sqrt(v) + eps)


def check_betas(betas) -> tuple[float, float]:
    """Return Adam's two decay rates as floats, each at least 0 and below 1."""
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise TypeError(f"betas must be a pair of numbers, got {betas!r}")
    for i, beta in enumerate(betas):
        if _validate.number(f"betas[{i}]", beta, low=0) >= 1:
            raise ValueError(f"betas[{i}] must be below 1, got {beta}")
    return float(betas[0]), float(betas[1])


# ---- shared pieces ---------------------------------------------------------------------------


def _descended(p, g, weight_decay, maximize):
    """Return the gradient of what is minimised: turned round if asked for, with weight decay."""
    if maximize:
        g = -g
    return g + weight_decay * p if weight_decay else g


def _blocks(param, *arrays) -> Iterator[list]:
    """Yield matching pieces of the arrays, small enough for the cache; None stays None."""
    arrays = [param, *arrays]
    contiguous = all(a is None or a.flags.c_contiguous for a in arrays)
    size = BLOCK_BYTES // param.itemsize
    if not contiguous or param.size <= size:
        yield arrays
        return
    flat = [None if a is None else a.reshape(-1) for a in arrays]
    for start in range(0, param.size, size):
        yield [None if a is None else a[start : start + size] for a in flat]


def _check(param, grad, **state):
    """Refuse arrays that do not match, or that cannot be written to, before any is changed."""
    arrays = {"param": param, "grad": grad}
    arrays |= {name: array for name, array in state.items() if array is not None}
    for name, array in arrays.items():
        _validate.floats(name, array)
        if name != "grad" and not (isinstance(array, np.ndarray) and array.flags.writeable):
            raise ValueError(f"{name} is changed in place, so it must be a writable array")
    _validate.same_dtype(**arrays)
    _validate.same_shape(**arrays)


def _numbers(**settings) -> list[float]:
    """Return the settings as Python floats, which take the dtype of the array they meet."""
    return [_validate.number(name, value, low=0) for name, value in settings.items()]
