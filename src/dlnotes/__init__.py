"""dlnotes: the library that the textbook teaches from.

`import dlnotes` loads nothing heavy; each room is imported when its name is first used:

>>> import dlnotes
>>> dlnotes.nn.Linear  # doctest: +SKIP
"""

import importlib

__version__ = "0.1.0"

_ROOMS = (
    "autograd",
    "check",
    "course",
    "cuda",
    "data",
    "kernels",
    "metrics",
    "models",
    "nn",
    "optim",
    "random",
    "train",
    "viz",
)
__all__ = ["__version__", "manual_seed", *_ROOMS]


def __getattr__(name: str):
    if name == "manual_seed":
        from dlnotes.random import manual_seed

        return manual_seed
    if name in _ROOMS:
        return importlib.import_module(f"dlnotes.{name}")
    raise AttributeError(f"module 'dlnotes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
