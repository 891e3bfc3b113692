"""Seeds through one helper: every random number of the book comes from here."""

import random as _python_random
import sys

import numpy as np

_generator = np.random.default_rng(0)


def manual_seed(seed: int) -> None:
    """Seed Python, NumPy, dlnotes and, if it is already imported, torch.

    Initialisation and shuffling draw from dlnotes' generator (`generator()`). Named after
    `torch.manual_seed`, but returns nothing, so that a notebook cell may end with it.

    Raises TypeError when `seed` is not an integer and ValueError when it is
    outside 0 … 2**32 - 1 (the range that all four accept).
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed must be an int, got {type(seed).__name__}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be in 0 … 2**32 - 1, got {seed}")
    global _generator
    seed = int(seed)
    _python_random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (libraries such as scikit-learn draw from it by default)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
    _generator = np.random.default_rng(seed)


def generator() -> np.random.Generator:
    """Return the generator that `manual_seed` last set (seed 0 before the first call)."""
    return _generator


def get_state() -> dict:
    """Return dlnotes' generator state as plain values, for a checkpoint."""
    return _generator.bit_generator.state


def set_state(state: dict) -> None:
    """Restore what `get_state` returned."""
    _generator.bit_generator.state = state
