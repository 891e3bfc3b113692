"""Adam: rungs of optim.cu."""

import numpy as np

from dlnotes.cuda.ladders._base import Ladder, Rung, blocks, wide


def _adam_constants(step, lr, betas, eps):
    """As in kernels.adam_step: the correction of the first steps goes into rate and eps."""
    root = (1 - betas[1] ** step) ** 0.5
    return lr * root / (1 - betas[0] ** step), eps * root


def _adam_separate(s, p, g, m, v, step, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    n = p.size if isinstance(p, np.ndarray) else p.numel()
    rate, eps = _adam_constants(step, lr, betas, eps)
    grid = blocks(n, 256)
    s.launch("adam_mean", grid, 256, n, betas[0], weight_decay, p, g, m)
    s.launch("adam_square", grid, 256, n, betas[1], weight_decay, p, g, v)
    s.launch("adam_update", grid, 256, n, rate, eps, m, v, p)
    return p, m, v


def _adam(name: str, reason: str, each: int) -> Rung:
    """→ (p, m, v), changed in place. Arrays that begin anywhere go number by number."""

    def run(s, p, g, m, v, step, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        n = p.size if isinstance(p, np.ndarray) else p.numel()
        rate, eps = _adam_constants(step, lr, betas, eps)
        kernel, numbers = (name, each) if each == 1 or wide(p, g, m, v) else ("adam_fused", 1)
        grid = blocks(n, 256 * numbers)
        s.launch(kernel, grid, 256, n, rate, eps, *betas, weight_decay, p, g, m, v)
        return p, m, v

    return Rung(name, reason, run, (name, "adam_fused")[: 1 if each == 1 else 2])


FAMILY = (
    Ladder(
        "adam",
        "optim.cu",
        "adam_step",
        (
            Rung(
                "adam_separate",
                "A kernel for each line of the formula.",
                _adam_separate,
                ("adam_mean", "adam_square", "adam_update"),
            ),
            _adam("adam_fused", "One kernel: 7 numbers moved for each parameter, not 12.", 1),
            _adam("adam_vectorised", "16 bytes to a load: fewer instructions.", 4),
        ),
    ),
)
