"""Checks: how a file of them is loaded and how one is run.

The same checks run in two places: in the student's notebook, where `s` is the notebook's own
namespace, and in the grader, where `s` stands for the namespace of a separate process
(`dlnotes.course.grading`). A check therefore uses only what both offer (docs/exercises.md).
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

MESSAGE_LIMIT = 600  # characters of a message that reach the student


class NotDefined(AssertionError, AttributeError):
    """The student's notebook does not define a name that a check asks for."""


class StudentError(Exception):
    """The student's code raised; the message says what and where."""


class CannotCheck(Exception):
    """This machine lacks what a check needs: no answer is to blame, and nothing is marked."""


@dataclass(frozen=True)
class Case:
    """One check: a function of the student's namespace, worth `points` in `question`."""

    question: str
    points: int | float
    hint: str
    hidden: bool
    function: Callable[[Any], None]

    @property
    def name(self) -> str:
        """What the check looks at, in words: its docstring's first line, or its name."""
        doc = (self.function.__doc__ or "").strip().splitlines()
        return doc[0].rstrip(".") if doc else self.function.__name__.replace("_", " ")

    @property
    def seed(self) -> int:
        """The seed with which every run of this check starts: it follows from its name."""
        import hashlib

        text = f"{self.question}.{self.function.__name__}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@dataclass(frozen=True)
class Outcome:
    """What one check found: right or not, and what the student is told."""

    case: Case
    right: bool
    message: str = ""
    kind: str = "right"  # right, wrong, blank, missing, error, stopped

    @property
    def told(self) -> str:
        """The message with the hint, as the student reads it."""
        if self.right:
            return self.case.name
        hint = f" Hint: {self.case.hint}" if self.case.hint else ""
        return f"{self.case.name}: {self.message}{hint}"


def array(value: Any) -> np.ndarray:
    """Return a NumPy array of an array, a torch or dlnotes tensor, a number or a list."""
    for step in ("detach", "cpu"):
        if not isinstance(value, np.ndarray) and _has(value, step):
            value = getattr(value, step)()
    if not isinstance(value, np.ndarray) and _has(value, "numpy"):
        value = value.numpy()
    return np.asarray(value)


def _has(value: Any, name: str) -> bool:
    # A stand-in for a student's object converts itself: asking it would cost a message each.
    return not hasattr(type(value), "__dlnotes_remote__") and callable(getattr(value, name, None))


def module(s: Any, name: str) -> Any:
    """Return the library `name` as the student's process has it, to build arguments from."""
    if hasattr(type(s), "__dlnotes_remote__"):
        return s.__dlnotes_import__(name)
    return importlib.import_module(name)


_FAULTS = {
    "compile": "your kernel does not compile",
    "no kernel": "your source does not have the kernel asked for",
    "arguments": "your kernel's parameters are not those asked for",
    "race": "your kernel has a race: two threads meet at one address with nothing between that "
    "orders them",
    "out of bounds": "your kernel reaches outside of an array",
    "misaligned": "your kernel loads several numbers at once from an address that is no multiple "
    "of their size",
    "uninitialised": "your kernel reads shared memory that no thread has written",
    "divergent barrier": "not all threads of a block come to the same __syncthreads()",
    "divergent warp": "not all lanes named in a mask come to the shuffle or vote",
    "deadlock": "your kernel waits for ever",
    "error": "your kernel fails",
}


@dataclass(frozen=True)
class KernelRun:
    """What a kernel of a student's did on the CPU engine.

    `run["y"]` is the array of the parameter y after the run; `requests`, `sectors`,
    `shared_requests` and `passes` are the launch's sums, as in `dlnotes.cuda.Totals`.
    """

    arrays: dict[str, np.ndarray]
    rows: list[dict[str, Any]]
    requests: int
    sectors: int
    shared_requests: int
    passes: int

    def __getitem__(self, name: str) -> np.ndarray:
        assert name in self.arrays, f"your kernel has no pointer called {name}"
        return self.arrays[name]

    def count(self, name: str, kind: str | None = None, what: str = "requests") -> int:
        """Return the requests (or "sectors") to one array, of one kind or of all kinds."""
        rows = [r for r in self.rows if r["name"] == name and kind in (None, r["kind"])]
        each = [1 if what == "requests" else r["sectors"] for r in rows]
        return round(sum(r["requests"] * e for r, e in zip(rows, each, strict=True)))


def kernel(
    s: Any, source: Any, name: str, grid: Any, block: Any, *arguments: Any, shared_bytes: int = 0
) -> KernelRun:
    """Run the kernel `name` of a student's text on the CPU engine, every access watched.

    The arguments stay as they are. Fails with a message for what the kernel does wrong; raises
    CannotCheck where there is no compiler.
    """
    assert isinstance(source, str), (
        f"the kernel must be a string of CUDA C++, not {type(source).__name__}"
    )
    call = ("dlnotes.course.kernels", "observe")
    values = (source, name, grid, block, list(arguments), shared_bytes)
    if hasattr(type(s), "__dlnotes_remote__"):
        found = s.__dlnotes_outside__(*call, *values)
    else:
        found = getattr(importlib.import_module(call[0]), call[1])(*values)
    if found["fault"] == "tool":
        raise CannotCheck(f"kernels cannot be checked here: {found['text']}")
    assert not found["fault"], f"{_FAULTS[found['fault']]}. {found['text']}"
    return KernelRun(found["arrays"], found["rows"], **found["totals"])


def rng(seed: int) -> np.random.Generator:
    """Return a generator of random numbers, the same for the same seed."""
    return np.random.default_rng(seed)


def given(value: Any, name: str) -> Any:
    """Return what the student's function `name` returned; fail where it is None."""
    assert value is not None, f"{name} returned None: is there a return statement?"
    return value


def several(value: Any, name: str, count: int) -> Any:
    """Return what the student's function `name` returned; fail where it is not `count` values."""
    given(value, name)
    right = isinstance(value, tuple | list) and len(value) == count
    assert right, f"{name} must return {count} values"
    return value


def same_shape(value: Any, like: Any, name: str) -> None:
    """Fail where `value`, called `name`, has another shape than `like`."""
    assert np.shape(value) == np.shape(like), (
        f"{name} has the shape {np.shape(value)}, not {np.shape(like)}"
    )


@contextlib.contextmanager
def unchanged(**arrays: np.ndarray) -> Iterator[None]:
    """Fail when one of the named arrays is not what it was before the block."""
    before = {name: np.array(value, copy=True) for name, value in arrays.items()}
    yield
    for name, value in arrays.items():
        same = np.array_equal(before[name], value, equal_nan=value.dtype.kind in "fc")
        assert same, f"your code changed its input {name} in place; work on a copy"


@contextlib.contextmanager
def raises(error: type[Exception], what: str = "") -> Iterator[None]:
    """Fail when the block does not raise `error`; `what` says which input should be refused."""
    try:
        yield
    except NotImplementedError:
        raise
    except error:
        return
    about = f" for {what}" if what else ""
    raise AssertionError(f"expected {error.__name__}{about}, but nothing was raised")


# What a check may call by its name, in a notebook, in the grader and in other schools' formats.
HELPERS = {
    function.__name__: function
    for function in (array, given, kernel, module, raises, rng, same_shape, several, unchanged)
}


def load(text: str, filename: str) -> list[Case]:
    """Run the text of a file of checks and return its checks in order.

    Raises ValueError when two checks of one question share a name.
    """
    cases: list[Case] = []

    def test(question: str, points: int | float, *, hint: str = "", hidden: bool = False):
        if not isinstance(points, int | float) or not points > 0:
            raise ValueError(f"{filename}: points must be a positive number, got {points!r}")

        def register(function):
            cases.append(Case(question, float(points), hint, hidden, function))
            return function

        return register

    names = {
        "__name__": "dlnotes_checks",
        "__file__": filename,
        "np": np,
        "test": test,
        **HELPERS,
    }
    exec(compile(text, filename, "exec"), names)
    seen = set()
    for case in cases:
        key = (case.question, case.function.__name__)
        if key in seen:
            raise ValueError(f"{filename}: two checks of {key[0]} are called {key[1]}")
        seen.add(key)
    return cases


def run(case: Case, namespace: Any) -> Outcome:
    """Run one check and return what it found.

    Raises CannotCheck where the machine lacks what it needs, and otherwise only interrupts.
    """
    state = np.random.get_state()  # noqa: NPY002 (a check may use the global generator)
    np.random.seed(case.seed)  # noqa: NPY002
    try:
        case.function(namespace)
    except CannotCheck:
        raise
    except NotDefined as error:
        return Outcome(case, False, shortened(error), "missing")
    except AssertionError as error:
        return Outcome(case, False, shortened(error) or "not what was asked for", "wrong")
    except NotImplementedError:
        return Outcome(case, False, "not written yet (NotImplementedError)", "blank")
    except StudentError as error:
        return Outcome(case, False, shortened(error), "error")
    except Exception as error:
        return Outcome(case, False, shortened(_explain(error)), "error")
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return Outcome(case, True)


def _explain(error: Exception) -> str:
    """Say whether the student's code raised or the check could not use its result."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    in_check = last is not None and last.tb_frame.f_globals.get("__name__") == "dlnotes_checks"
    who = "the check could not use what your code returned" if in_check else "your code raised"
    text = str(error)
    return f"{who}: {type(error).__name__}" + (f": {text}" if text else "")


def shortened(message: object) -> str:
    """Return a message on one line and not too long."""
    text = " ".join(str(message).split())
    return text if len(text) <= MESSAGE_LIMIT else text[: MESSAGE_LIMIT - 1] + "…"
