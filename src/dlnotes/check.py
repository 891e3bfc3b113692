"""Checks that raise: numerical gradients, compare tables, claims.

Every check of the book either raises `AssertionError` with a message that names what is wrong,
or prints (or returns) text that is the same on every machine: bounds and tolerances, never
the noisy digits of a difference. The digits stand in the returned object's attributes and in
the error messages.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "Comparison",
    "ComparisonRow",
    "GradcheckReport",
    "GradientRow",
    "between",
    "claim",
    "close",
    "compare",
    "gradcheck",
]

# Tolerances when none are given: (rtol, atol) by the coarser of the two dtypes compared.
_TOLERANCES = {
    np.dtype(np.float16): (1e-3, 1e-3),
    np.dtype(np.float32): (1e-5, 1e-6),
    np.dtype(np.float64): (1e-7, 1e-9),
}

# ---------------------------------------------------------------------------------------------
# Gradient checks
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GradientRow:
    """One argument of a checked function: its largest |analytic - numeric| and where."""

    name: str
    shape: tuple
    entries: int
    largest_difference: float
    worst_entry: tuple
    bound: str


@dataclass(frozen=True)
class GradcheckReport:
    """What `gradcheck` found; printing it gives the same text on every machine."""

    function: str
    forward_tested: bool
    rows: tuple

    @property
    def largest_difference(self) -> float:
        """The largest |analytic - numeric| over all arguments (its digits are noise)."""
        return max(row.largest_difference for row in self.rows)

    def __repr__(self) -> str:
        forward = "✓" if self.forward_tested else "not tested (give expected=)"
        head = f"gradcheck of {self.function}: forward value {forward}, gradients ✓"
        cells = [["argument", "shape", "entries", "largest difference"]]
        cells += [[r.name, str(r.shape), str(r.entries), r.bound] for r in self.rows]
        return head + "\n" + _table(cells, right={2})


def gradcheck(
    function: Any,
    inputs: Any,
    *,
    backward: Any = None,
    eps: float | int = 1e-6,
    rtol: float | int = 1e-6,
    atol: float | int = 1e-7,
    expected: Any = None,
    wrt: Any = None,
    seed: int = 0,
) -> GradcheckReport:
    """Hold every entry of every gradient of `function` against central differences.

    `inputs` is the tuple of positional arguments (a single array may stand alone); floating
    arrays are copied to float64 and differentiated, anything else (labels, None, a size) is
    passed on as it is. Two kinds of function:

    - a kernel: `function(*inputs)` gives an array and `backward(dy, *inputs)` the gradient, or a
      tuple of gradients in the order of the inputs (None for an input without one);
    - a function of Tensors (`backward=None`): the arrays become `dlnotes.autograd.Tensor`, or
      torch tensors where `inputs` holds torch tensors, and the tape gives the gradients.

    The upstream gradient dy is drawn from a standard normal distribution with `seed`, so a
    backward pass that ignores it fails. `expected` is the right forward value, or an oracle
    called as `expected(*inputs)`: give it, so that a function that computes something else, with
    a gradient to match, fails. Without it, a function that does not depend on one of the inputs
    fails. `wrt` restricts the check to some inputs (names or positions).

    An entry passes when |analytic - numeric| ≤ atol + rtol·|numeric| plus the rounding error of
    the difference quotient itself. The step is eps·max(1, |x|). Cost: two to four forward
    evaluations for each entry of the inputs.

    Raises AssertionError, naming the argument and its worst entry, for a wrong value, gradient,
    shape or dtype, a missing gradient, a random result, or an input changed in place; and
    ValueError or TypeError when the check cannot be made: at a kink or a jump, at the edge of
    the domain, on NaN, or with no floating-point entry at all.
    """
    problem = _Problem(function, inputs, backward, wrt)
    _check_positive("eps", eps)
    _check_tolerance(rtol, atol)

    value = problem.forward_checked()
    if expected is not None:
        _check_forward(problem, value, expected)
    upstream = np.random.default_rng(seed).standard_normal(value.shape)
    analytic = problem.gradients(upstream)

    rows = []
    for position in problem.checked:
        numeric, slack = _numeric_gradient(
            problem, position, analytic[position], value, upstream, eps, rtol, atol
        )
        if expected is None and not numeric.any() and numeric.size:
            raise AssertionError(
                f"{problem.label} does not depend on {problem.names[position]}: every numerical "
                "gradient is exactly 0, as of an empty stub. Where that is right, show it by "
                "giving the true forward value as expected=…"
            )
        name, given = problem.names[position], analytic[position]
        rows.append(_check_gradient(problem.label, name, given, numeric, slack, rtol, atol))
    return GradcheckReport(problem.label, expected is not None, tuple(rows))


def _numeric_gradient(problem, position, given, value, upstream, eps, rtol, atol):
    """Return central differences of sum(upstream · function) and their rounding error."""
    x = problem.arrays[position]
    numeric, slack = np.zeros(x.shape), np.zeros(x.shape)
    size = float(np.sum(np.abs(upstream * value)))
    for entry in np.ndindex(x.shape):
        h = eps * max(1.0, abs(x[entry]))
        right, left = _slopes(problem, position, entry, h, value, upstream)
        numeric[entry] = (right + left) / 2
        slack[entry] = 4 * np.finfo(np.float64).eps * size / h
        tolerance = atol + rtol * abs(numeric[entry])
        # Smooth: the one-sided slopes differ by h·f″, so a tenth of the step gives a tenth of
        # the gap, and the same slope between them. At a kink or a jump it does not.
        gap = right - left
        off = abs(given[entry] - numeric[entry]) > tolerance + slack[entry]
        if off or abs(gap) > 0.1 * tolerance + 2 * slack[entry]:
            right, left = _slopes(problem, position, entry, h / 10, value, upstream)
            bend = abs((right - left) - gap / 10)
            drift = abs((right + left) / 2 - numeric[entry])
            allowed = 0.02 * abs(gap) + 20 * slack[entry]
            if bend > 0.02 * tolerance + allowed or drift > 0.5 * tolerance + allowed:
                where = _at(problem.names[position], entry)
                raise ValueError(
                    f"{problem.label} has a kink or a jump at {where} = {x[entry]:.6g}: its slopes "
                    f"to the left and to the right, or over a smaller step, differ, so there is no "
                    f"derivative to check. Move {where} away from the kink, by 0.1 say, and check "
                    "again."
                )
    problem.assert_unchanged("the function")
    return numeric, slack


def _slopes(problem, position, entry, h, value, upstream):
    """Return the one-sided difference quotients (right, left) of sum(upstream · function)."""
    x = problem.arrays[position]
    centre = x[entry]
    slopes = []
    for moved in (centre + h, centre - h):
        x[entry] = moved
        try:
            y = problem.forward()
        finally:
            x[entry] = centre
        if not np.all(np.isfinite(y)):
            where = _at(problem.names[position], entry)
            raise ValueError(
                f"{problem.label} is not finite beside {where} = {centre:.6g}: move it away from "
                "the edge of the domain"
            )
        # Subtract before summing: the sum of the differences keeps more digits.
        slopes.append(float(np.sum(upstream * (y - value))) / (moved - centre))
    return slopes


def _check_gradient(label, name, given, numeric, slack, rtol, atol) -> GradientRow:
    """Compare one analytic gradient with the numeric one; raise with the worst entry."""
    difference = np.abs(given - numeric)
    excess = difference - (atol + rtol * np.abs(numeric) + slack)
    bad = ~(excess <= 0)
    if bad.any():
        ranked = np.where(np.isnan(excess), np.inf, excess)
        worst = np.unravel_index(np.argmax(ranked), numeric.shape)
        raise AssertionError(
            f"{label}: the gradient of {name} is wrong in {bad.sum()} of {bad.size} entries; worst "
            f"at {_at(name, worst)}: {given[worst]:.8g}, numerically {numeric[worst]:.8g}"
            f"{_factor_hint(given, numeric)}"
        )
    if not numeric.size:
        return GradientRow(name, numeric.shape, 0, 0.0, (), "no entries")
    worst = tuple(int(i) for i in np.unravel_index(np.argmax(difference), numeric.shape))
    limit = atol + rtol * float(np.max(np.abs(numeric)))
    largest = float(difference[worst])
    return GradientRow(name, numeric.shape, numeric.size, largest, worst, _bound(limit, largest))


def _factor_hint(given: np.ndarray, numeric: np.ndarray) -> str:
    """Say so when the whole gradient is off by one factor: a sign, a mean, a missing 2."""
    if numeric.size < 2 or not np.all(np.isfinite(given)) or not numeric.any():
        return ""
    if not given.any():
        return " (the gradient is 0 everywhere)"
    factor = float(np.sum(given * numeric) / np.sum(numeric * numeric))
    if factor and np.allclose(given, factor * numeric, rtol=1e-4, atol=1e-7):
        return f" (every entry is {factor:.4g} times what it should be)"
    return ""


class _Problem:
    """A function with float64 copies of its inputs, for one of the three engines."""

    def __init__(self, function, inputs, backward, wrt):
        if not callable(function):
            raise TypeError(f"function must be callable, got {type(function).__name__}")
        if backward is not None and not callable(backward):
            raise TypeError(f"backward must be callable, got {type(backward).__name__}")
        if not isinstance(inputs, tuple | list):
            inputs = (inputs,)
        self.function, self.backward = function, backward
        self.label = _function_name(function)
        self.names = _argument_names(function, len(inputs))
        self.torch = backward is None and any(_is_torch(value) for value in inputs)
        self.given = list(inputs)
        self.arrays = [self._float64(*pair) for pair in zip(self.names, inputs, strict=True)]
        self.checked = self._chosen(wrt)
        if not sum(self.arrays[position].size for position in self.checked):
            raise ValueError("inputs must hold at least one floating-point entry to check")
        # Every non-array argument and integer array is watched for in-place changes as well.
        self.originals = [_copy_array(self._watched(i)) for i in range(len(inputs))]

    def _float64(self, name: str, value: Any) -> np.ndarray | None:
        """Return a float64 copy of a floating input, None for anything else."""
        if isinstance(value, bool | int) or value is None or isinstance(value, str):
            return None
        array = _as_array(value) if _is_tensor(value) else value
        if not isinstance(array, np.ndarray | float | np.generic):
            return None
        array = np.asarray(array)
        if np.issubdtype(array.dtype, np.complexfloating):
            raise TypeError(f"{name} must be real, got {array.dtype}")
        if not np.issubdtype(array.dtype, np.floating):
            return None
        array = np.array(array, dtype=np.float64)
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} must be finite, got NaN or infinity")
        return array

    def _chosen(self, wrt: Any) -> list[int]:
        """Return the positions of the inputs to differentiate."""
        floating = [i for i, array in enumerate(self.arrays) if array is not None]
        if wrt is None:
            return floating
        chosen = []
        for key in wrt if isinstance(wrt, tuple | list) else [wrt]:
            if key not in (*self.names, *range(len(self.names))):
                raise ValueError(f"wrt must name inputs among {self.names}, got {key!r}")
            position = self.names.index(key) if isinstance(key, str) else key
            if position not in floating:
                raise TypeError(f"wrt names {self.names[position]}, which is not floating point")
            chosen.append(position)
        return chosen

    def _watched(self, position: int) -> Any:
        array = self.arrays[position]
        return self.given[position] if array is None else array

    def assert_unchanged(self, who: str) -> None:
        """Raise when an input is not, bit for bit, what it was at the start."""
        for position, original in enumerate(self.originals):
            if original is None:
                continue
            now = _as_array(self._watched(position))
            if now.shape != original.shape or now.tobytes() != original.tobytes():
                moved = np.argwhere(now != original) if now.shape == original.shape else []
                name = self.names[position]
                where = _at(name, tuple(int(i) for i in moved[0])) if len(moved) else name
                raise AssertionError(
                    f"{who} of {self.label} changed its input {name} in place (see {where}): "
                    "work on a copy, or write x = x - … instead of x -= …"
                )

    def arguments(self, requires_grad: bool = False) -> list:
        """Return the inputs as the engine's values, in float64."""
        if self.backward is not None:
            return [self._watched(i) for i in range(len(self.names))]
        arguments = []
        for position, array in enumerate(self.arrays):
            if array is None:
                arguments.append(self.given[position])
            elif self.torch:
                tensor = _torch().tensor(array)
                arguments.append(tensor.requires_grad_(requires_grad))
            else:
                arguments.append(_tensor_class()(array, requires_grad=requires_grad))
        return arguments

    def forward(self) -> np.ndarray:
        """Return the function's value at the present inputs, as an array of its own."""
        return np.array(_as_array(self.function(*self.arguments())))

    def forward_checked(self) -> np.ndarray:
        """Return the function's value after the checks that need be made only once."""
        raw = self.function(*self.arguments())
        self.assert_unchanged("the function")
        if raw is None:
            raise AssertionError(f"{self.label} returned None: is there a return statement?")
        if isinstance(raw, tuple | list | Mapping):
            raise TypeError(
                f"{self.label} returned a {type(raw).__name__}: gradcheck needs one array "
                "(wrap the function so that it returns one of them)"
            )
        if self.backward is None and not _is_tensor(raw):
            raise AssertionError(
                f"{self.label} returned {type(raw).__name__}, not a Tensor: the tape is cut "
                "(give backward=… to check a function of plain arrays)"
            )
        self.scalar = not isinstance(raw, np.ndarray) and not _is_tensor(raw)
        value = np.array(_as_array(raw))
        if value.dtype != np.float64:
            raise AssertionError(
                f"{self.label} returned {value.dtype} for float64 inputs: the precision of the "
                "result must be that of the inputs"
            )
        if not np.all(np.isfinite(value)):
            raise AssertionError(f"{self.label} returned NaN or infinity for finite inputs")
        again = self.forward()
        if again.shape != value.shape or again.tobytes() != value.tobytes():
            raise AssertionError(
                f"{self.label} returned two different values for the same inputs: seed it, or "
                "switch its randomness off"
            )
        return value

    def gradients(self, upstream: np.ndarray) -> dict[int, np.ndarray]:
        """Return the analytic gradient for each checked position, shapes and dtypes checked."""
        if self.backward is None:
            arguments = self.arguments(requires_grad=True)
            result = self.function(*arguments)
            result.backward(_torch().tensor(upstream) if self.torch else np.array(upstream))
            raw = {position: arguments[position].grad for position in self.checked}
        else:
            # A function that gave a NumPy scalar gets one; one that gave an array, an array.
            dy = np.float64(upstream) if self.scalar else np.array(upstream)
            raw = self._in_order(self.backward(dy, *self.arguments()))
            self.assert_unchanged("the backward pass")
            if np.asarray(dy).tobytes() != np.asarray(upstream).tobytes():
                raise AssertionError(
                    f"the backward pass of {self.label} changed dy, the upstream gradient, in place"
                )
        return {position: self._gradient(position, raw[position]) for position in self.checked}

    def _in_order(self, result: Any) -> dict[int, Any]:
        """Assign what `backward` returned to the inputs."""
        gradients = list(result) if isinstance(result, tuple | list) else [result]
        names = ", ".join(self.names[position] for position in self.checked)
        if len(gradients) == len(self.names):
            return dict(enumerate(gradients))
        if len(gradients) != len(self.checked):
            raise AssertionError(
                f"the backward pass of {self.label} returned {len(gradients)} gradient(s), but "
                f"{len(self.checked)} are checked: {names} (wrt=… chooses fewer)"
            )
        return dict(zip(self.checked, gradients, strict=True))

    def _gradient(self, position: int, gradient: Any) -> np.ndarray:
        name, shape = self.names[position], self.arrays[position].shape
        if gradient is None:
            raise AssertionError(f"{self.label}: no gradient reached {name} (it is None)")
        gradient = np.array(_as_array(gradient))
        if gradient.shape != shape:
            raise AssertionError(
                f"{self.label}: the gradient of {name} has shape {gradient.shape}, but {name} "
                f"has shape {shape}"
            )
        if gradient.dtype != np.float64:
            raise AssertionError(
                f"{self.label}: the gradient of {name} is {gradient.dtype} for float64 inputs"
            )
        return gradient


def _check_forward(problem: _Problem, value: np.ndarray, expected: Any) -> None:
    """Hold the forward value against the true one before any gradient is looked at."""
    if callable(expected) and not _is_tensor(expected):
        # The oracle gets copies: it may be somebody's first version, too.
        copies = [_copy_array(problem._watched(i)) for i in range(len(problem.names))]
        expected = expected(
            *[
                given if copy is None else copy
                for copy, given in zip(copies, problem.given, strict=True)
            ]
        )
    row = _compare_one(f"the value of {problem.label}", value, _as_array(expected), 1e-7, 1e-9)
    if not row.close:
        raise AssertionError(f"wrong forward value: {row.fault}")


# ---------------------------------------------------------------------------------------------
# Compare tables
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ComparisonRow:
    """One compared pair. `largest_difference` and `exact` may differ between machines."""

    name: str
    shape: tuple
    exact: bool
    close: bool
    largest_difference: float
    bound: str
    fault: str


@dataclass(frozen=True)
class Comparison:
    """A table of compared pairs; printing it gives the same text on every machine."""

    rows: tuple

    def __repr__(self) -> str:
        cells = [["name", "shape", "close", "largest difference"]]
        for row in self.rows:
            mark = "✓" if row.close else "✗"
            cells.append([row.name, str(row.shape), mark, row.bound])
        return _table(cells)

    @property
    def largest_difference(self) -> float:
        """The largest difference over all rows (its digits are noise)."""
        return max(row.largest_difference for row in self.rows)

    @property
    def exact(self) -> bool:
        """Whether every pair is equal, bit for bit up to the sign of zero."""
        return all(row.exact for row in self.rows)


def compare(
    actual: Any,
    expected: Any,
    *,
    names: Sequence[str] | None = None,
    rtol: float | int | None = None,
    atol: float | int | None = None,
) -> Comparison:
    """Compare arrays pair by pair; return a table, or raise with the table and the faults.

    `actual` and `expected` are two arrays, two sequences of arrays, or two dictionaries with the
    same keys (two `state_dict`s, say); an array may be NumPy's, a dlnotes or a torch tensor, or
    a number. A pair is close when shapes are equal and |actual - expected| ≤ atol +
    rtol·|expected| everywhere; NaN is close to nothing. Tolerances not given follow the coarser
    dtype (float64: 1e-7 and 1e-9; float32: 1e-5 and 1e-6; float16: 1e-3 and 1e-3); integers,
    booleans and strings must be equal. rtol=0, atol=0 asks for exact equality.

    The printed table states a bound, a power of ten that follows from the tolerances, so that
    it reads the same on every machine; the measured differences are in `.rows`.

    Raises AssertionError, with the table and the worst entry of each pair that is not close;
    ValueError when there is nothing to compare or `names` do not fit.
    """
    _check_tolerance(rtol, atol)
    pairs = _pairs(actual, expected, names)
    table = Comparison(tuple(_compare_one(name, a, e, rtol, atol) for name, a, e in pairs))
    faults = [row.fault for row in table.rows if not row.close]
    if faults:
        raise AssertionError(
            f"{len(faults)} of {len(table.rows)} not close\n{table!r}\n" + "\n".join(faults)
        )
    return table


def _pairs(actual: Any, expected: Any, names: Sequence[str] | None) -> list[tuple]:
    """Return (name, actual array, expected array) for every pair to compare."""
    if isinstance(actual, Mapping) != isinstance(expected, Mapping):
        raise TypeError("actual and expected must both be dictionaries, or neither")
    if isinstance(actual, Mapping):
        missing, extra = expected.keys() - actual.keys(), actual.keys() - expected.keys()
        if missing or extra:
            raise AssertionError(
                f"actual and expected have different names: missing {sorted(missing)}, "
                f"unexpected {sorted(extra)}"
            )
        keys = list(expected)
        actual, expected = [actual[key] for key in keys], [expected[key] for key in keys]
        names = [str(key) for key in keys] if names is None else names
    elif _several(actual, expected):
        if len(actual) != len(expected):
            raise AssertionError(f"actual has {len(actual)} arrays, expected has {len(expected)}")
    else:
        actual, expected = [actual], [expected]
    if not actual:
        raise ValueError("actual and expected must hold something to compare, got nothing")
    if names is None:
        names = ["value"] if len(actual) == 1 else [f"[{i}]" for i in range(len(actual))]
    names = [names] if isinstance(names, str) else list(names)
    if len(names) != len(actual):
        raise ValueError(f"names must have {len(actual)} entries, got {len(names)}")
    arrays = [(_as_array(a), _as_array(e)) for a, e in zip(actual, expected, strict=True)]
    return [(name, a, e) for name, (a, e) in zip(names, arrays, strict=True)]


def _several(actual: Any, expected: Any) -> bool:
    """Whether these are two sequences of arrays: lists of numbers are one array each."""
    both = isinstance(actual, tuple | list) and isinstance(expected, tuple | list)
    return both and any(_holds_arrays(v) or not v for v in (actual, expected))


def _holds_arrays(values: Any) -> bool:
    return any(isinstance(v, np.ndarray) or _is_tensor(v) for v in values)


def _compare_one(name, actual, expected, rtol, atol) -> ComparisonRow:
    """Compare one pair of arrays."""

    def fails(fault: str, largest: float = math.inf, bound: str = "not comparable"):
        return ComparisonRow(name, actual.shape, False, False, largest, bound, fault)

    if actual.shape != expected.shape:
        return fails(f"{name} has shape {actual.shape}, expected {expected.shape}")
    numbers = [np.issubdtype(a.dtype, np.number) for a in (actual, expected)]
    exact = bool(np.array_equal(actual, expected))
    if not all(numbers):
        if not exact:
            return fails(f"{name} is not equal to what is expected", bound="not equal")
        return ComparisonRow(name, actual.shape, True, True, 0.0, "equal", "")
    rtol, atol = _tolerance(actual, expected, rtol, atol)
    if not actual.size:
        return ComparisonRow(name, actual.shape, True, True, 0.0, "no entries", "")
    wide = np.complex128 if np.iscomplexobj(actual) or np.iscomplexobj(expected) else np.float64
    a, e = actual.astype(wide), expected.astype(wide)
    same = a == e  # infinities that agree; their difference is NaN
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.where(same, 0.0, np.abs(a - e))
        limit = np.where(np.isfinite(e), atol + rtol * np.abs(e), 0.0)
    ranked = np.where(np.isnan(difference), np.inf, difference)
    good = difference <= limit
    if not good.all():
        excess = np.where(good, -1.0, np.where(np.isnan(difference), np.inf, difference - limit))
        worst = tuple(int(i) for i in np.unravel_index(np.argmax(excess), excess.shape))
        return fails(
            f"{_at(name, worst)} is {actual[worst]!s}, expected {expected[worst]!s} "
            f"({int(np.sum(~good))} of {good.size} entries differ by more than "
            f"{atol:g} + {rtol:g}·|expected|)",
            float(ranked.max()),
            f"{ranked.max():.1e}",
        )
    largest = float(difference.max())
    bound = "none" if rtol == atol == 0 else _bound(float(limit.max()), largest)
    return ComparisonRow(name, actual.shape, exact, True, largest, bound, "")


def _tolerance(actual, expected, rtol, atol) -> tuple[float, float]:
    """Fill in the tolerances that were not given from the coarser of the two dtypes."""
    floats = [a.dtype for a in (actual, expected) if np.issubdtype(a.dtype, np.inexact)]
    default = (0.0, 0.0)
    if floats:
        real = [np.dtype(f"f{d.itemsize // 2}") if d.kind == "c" else d for d in floats]
        default = max(_TOLERANCES.get(dtype, _TOLERANCES[np.dtype(np.float64)]) for dtype in real)
    return (
        default[0] if rtol is None else float(rtol),
        default[1] if atol is None else float(atol),
    )


# ---------------------------------------------------------------------------------------------
# Claims
# ---------------------------------------------------------------------------------------------


def claim(condition: Any, text: str) -> None:
    """Print "✓ text" when `condition` is true; raise AssertionError(text) when it is false.

    Raises TypeError when `condition` is not one truth value: a whole array needs `.all()`.
    """
    if not isinstance(text, str) or not text:
        raise TypeError("text must be a sentence that says what is claimed")
    array = _as_array(condition)
    if array.dtype != np.bool_ or array.shape != ():
        raise TypeError(
            f"condition must be one True or False, got {type(condition).__name__} of shape "
            f"{array.shape} and dtype {array.dtype} (use .all() or .any() on an array)"
        )
    if not array:
        raise AssertionError(text)
    print(f"✓ {text}")


def close(
    actual: Any,
    expected: Any,
    *,
    rtol: float | int | None = None,
    atol: float | int | None = None,
    name: str | None = None,
) -> None:
    """Raise AssertionError unless the two are close, as `compare` defines it.

    With a `name`, print "✓ name: largest difference below 1e-6" (the bound that follows from
    the tolerances); without one, print nothing.
    """
    several = isinstance(actual, Mapping) or _several(actual, expected)
    names = None if several or name is None else [name]
    table = compare(actual, expected, names=names, rtol=rtol, atol=atol)
    if name is None:
        return
    bounds = [row.bound for row in table.rows]
    plain = {"none", "equal", "no entries"}
    loosest = max(bounds, key=lambda b: 0.0 if b in plain else float(b.split()[-1]))
    print(f"✓ {name}: " + ("equal" if loosest in plain else f"largest difference {loosest}"))


def between(value: Any, low: float | int | None, high: float | int | None, name: str) -> None:
    """Raise AssertionError unless low ≤ value ≤ high; print the band, not the value.

    None leaves a side open: `between(accuracy, 0.95, None, "accuracy")` prints
    "✓ accuracy: 0.95 or more".
    """
    number = _as_array(value)
    if number.shape != () or not np.issubdtype(number.dtype, np.number):
        raise TypeError(f"value ({name}) must be one number, got shape {number.shape}")
    if low is None and high is None:
        raise ValueError("low and high must not both be None")
    if low is not None and high is not None and low > high:
        raise ValueError(f"low must not be above high, got {low} and {high}")
    if high is None:
        band = f"{low:g} or more"
    elif low is None:
        band = f"{high:g} or less"
    else:
        band = f"between {low:g} and {high:g}"
    if not ((low is None or number >= low) and (high is None or number <= high)):
        raise AssertionError(f"{name} is {number:.6g}, which is not {band}")
    print(f"✓ {name}: {band}")


# ---------------------------------------------------------------------------------------------
# Helpers
# ---------------------------------------------------------------------------------------------


def _table(cells: list[list[str]], right: set[int] = frozenset()) -> str:
    """Lay out rows of text in columns; columns in `right` are aligned to the right."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = []
    for row in cells:
        padded = [
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(padded).rstrip())
    return "\n".join(lines)


def _bound(limit: float, largest: float) -> str:
    """Return "below 10^k" for the power of ten at the tolerance, whatever the noise was.

    A limit a little above a power of ten (1e-5 + 1e-8) counts as that power, as long as the
    measured difference does stay below it.
    """
    exponent = math.ceil(math.log10(0.9 * limit)) if limit > 0 else -300
    while largest >= 10.0**exponent:
        exponent += 1
    return f"below 1e{exponent}" if exponent < -3 else f"below {10.0**exponent:g}"


def _at(name: str, entry: tuple) -> str:
    """Return "name[1, 2]", or the bare name for a scalar."""
    return f"{name}[{', '.join(str(int(i)) for i in entry)}]" if len(entry) else name


def _is_torch(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach")


def _is_tensor(value: Any) -> bool:
    """A torch or a dlnotes tensor (a Parameter likewise)."""
    return hasattr(value, "detach") and hasattr(value, "numpy")


def _as_array(value: Any) -> np.ndarray:
    """Return an array of whatever stands for one: tensors, arrays, lists, numbers."""
    if _is_torch(value):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # NumPy has none
            value = value.float()
        return value.numpy()
    if _is_tensor(value):
        return np.asarray(value.detach().numpy())
    if isinstance(value, tuple | list) and _holds_arrays(value):
        return np.asarray([_as_array(v) for v in value])
    return np.asarray(value)


def _copy_array(value: Any) -> np.ndarray | None:
    """Return a copy of an array or a tensor as an array, None for anything else."""
    if isinstance(value, np.ndarray) or _is_tensor(value):
        return np.array(_as_array(value))
    return None


def _torch():
    import torch

    return torch


def _tensor_class():
    from dlnotes.autograd import Tensor

    return Tensor


def _function_name(function: Callable) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    return "the function" if name == "<lambda>" else name


def _argument_names(function: Callable, count: int) -> list[str]:
    """Return the names of the first `count` positional parameters, as far as they can be seen."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        parameters = []
    positional = [
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return [positional[i] if i < len(positional) else f"input {i}" for i in range(count)]


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive, got {value}")


def _check_tolerance(rtol: float | int | None, atol: float | int | None) -> None:
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{name} must be 0 or more, got {value}")
