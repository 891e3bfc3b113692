"""Interactive demonstrations that leave a still picture where nothing can be dragged."""

import base64
import html
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from numbers import Real as Number
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from dlnotes import _validate
from dlnotes.viz._show import (
    check_alt,
    check_figure,
    display,
    live_widgets,
    picture,
    png_bytes,
    widget_view,
)
from dlnotes.viz._style import DISPLAY_DPI

CHECK_VARIABLE = "DLNOTES_CHECK_DEMOS"


@dataclass(frozen=True)
class Slider:
    """A number that the reader drags; made by `slider`."""

    low: int | float
    high: int | float
    value: int | float
    step: int | float
    label: str
    log: bool

    @property
    def corners(self) -> tuple[int | float, ...]:
        """The values that a corner test draws: both ends."""
        return (self.low, self.high)

    def clean(self, value: int | float) -> int | float:
        """The widget's value without the dust of float arithmetic (0.30000000000000004)."""
        return value if isinstance(value, int) else float(f"{value:.8g}")

    def widget(self, label_width: str) -> Any:
        """The ipywidgets slider."""
        import ipywidgets

        common = {"continuous_update": True, **_look(self.label, label_width)}
        if self.log:
            return ipywidgets.FloatLogSlider(
                value=self.value,
                base=10,
                min=math.log10(self.low),
                max=math.log10(self.high),
                step=self.step,
                readout_format=".3g",
                **common,
            )
        if isinstance(self.value, int):
            kind = ipywidgets.IntSlider
        else:
            kind = ipywidgets.FloatSlider
            decimals = next(n for n in range(16) if math.isclose(round(self.step, n), self.step))
            common["readout_format"] = f".{min(decimals, 4)}f"
        return kind(value=self.value, min=self.low, max=self.high, step=self.step, **common)


@dataclass(frozen=True)
class Choice:
    """One of several options; made by `choice`."""

    options: tuple[Any, ...]
    value: Any
    label: str

    @property
    def corners(self) -> tuple[Any, ...]:
        """The values that a corner test draws: every option."""
        return self.options

    def clean(self, value: Any) -> Any:
        """The widget's value as `draw` gets it."""
        return value

    def widget(self, label_width: str) -> Any:
        """The ipywidgets drop-down list."""
        import ipywidgets

        options = [(str(option), option) for option in self.options]
        return ipywidgets.Dropdown(
            options=options, value=self.value, **_look(self.label, label_width)
        )


@dataclass(frozen=True)
class Toggle:
    """A yes or no; made by `toggle`."""

    value: bool
    label: str

    @property
    def corners(self) -> tuple[bool, bool]:
        """The values that a corner test draws: both."""
        return (False, True)

    def clean(self, value: bool) -> bool:
        """The widget's value as `draw` gets it."""
        return value

    def widget(self, label_width: str) -> Any:
        """The ipywidgets check box."""
        import ipywidgets

        return ipywidgets.Checkbox(value=self.value, indent=False, **_look(self.label, label_width))


Control = Slider | Choice | Toggle


def _look(label: str, label_width: str) -> dict[str, Any]:
    # Labels beneath each other are equally wide; nothing is wider than a phone.
    return {
        "description": label,
        "tooltip": label,
        "style": {"description_width": label_width},
        "layout": {"width": "min(100%, 30rem)"},
    }


def slider(
    low: Number,
    high: Number,
    value: Number,
    step: Number | None = None,
    label: str = "",
    *,
    log: bool = False,
) -> Slider:
    """A slider for `demo`.

    Args:
        low: smallest value.
        high: largest value.
        value: value at the start, which the still picture shows.
        step: distance between neighbouring values; with `log` in powers of ten (0.1 gives ten
            steps from 0.01 to 0.1). Default: 1 if all three are integers, otherwise a
            hundredth of the range, with `log` 0.1.
        label: what the slider sets, shown beside it.
        log: equal steps multiply by equal factors, as learning rates need it.

    Raises:
        TypeError: if a number is not one.
        ValueError: if a number is not finite, not low ≤ value ≤ high with low < high, `step`
            is not positive, `label` is empty, or `log` and `low` is not positive.
    """
    given = {"low": low, "high": high, "value": value} | ({} if step is None else {"step": step})
    numbers = {name: _validate.number(name, number) for name, number in given.items()}
    if not low < high:
        raise ValueError(f"low must be below high, got {low} and {high}")
    if not low <= value <= high:
        raise ValueError(f"value must be in {low} … {high}, got {value}")
    if log and low <= 0:
        raise ValueError(f"low must be positive on a logarithmic slider, got {low}")
    if step is not None and step <= 0:
        raise ValueError(f"step must be positive, got {step}")
    if not log and all(isinstance(number, Integral) for number in given.values()):
        kind, default_step = int, 1
    else:
        kind, default_step = float, 0.1 if log else (high - low) / 100
    low, high, value = (kind(numbers[name]) for name in ("low", "high", "value"))
    step = kind(numbers.get("step", default_step))
    return Slider(low, high, value, step, _label(label), log)


def choice(options: Iterable[Any], value: Any = None, label: str = "") -> Choice:
    """A list for `demo` from which the reader picks one.

    Args:
        options: at least two different values; each is shown as `str(option)`.
        value: the one at the start; default the first.
        label: what is chosen, shown beside the list.

    Raises:
        ValueError: if there are fewer than two different options, `value` is none of them, or
            `label` is empty.
    """
    options = tuple(options)
    if len({str(option) for option in options}) != len(options) or len(options) < 2:
        raise ValueError(f"options must be at least two different values, got {options!r}")
    value = options[0] if value is None else value
    if value not in options:
        raise ValueError(f"value must be one of {options!r}, got {value!r}")
    return Choice(options, value, _label(label))


def toggle(value: bool = False, label: str = "") -> Toggle:
    """A check box for `demo`.

    Args:
        value: ticked at the start or not.
        label: what a tick means, shown beside the box.

    Raises:
        TypeError: if `value` is not a bool.
        ValueError: if `label` is empty.
    """
    if not isinstance(value, bool):
        raise TypeError(f"value must be True or False, got {value!r}")
    return Toggle(value, _label(label))


def _label(label: Any) -> str:
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"label must say what the control sets, got {label!r}")
    return label.strip()


def demo(
    draw: Callable[..., Figure],
    *,
    alt: str | Callable[..., str],
    **controls: Control,
) -> None:
    """Show an interactive figure, with a still picture for where nothing can be dragged.

    The one output holds the live widget (while a kernel runs), the picture at the controls'
    starting values (on GitHub, in print, in a stored notebook) and the text "Demo: …". Each move
    of a control calls `draw` again; the controls wait for it, so a drag skips the values in
    between and never lags behind. An error in `draw` appears as text below the controls.

    With the environment variable `DLNOTES_CHECK_DEMOS=1` every combination of slider ends,
    options and toggles is drawn first, and a failure raises with the values that caused it.

    Args:
        draw: called with the controls' values by name; returns a new figure. Aim at 0.3 s.
        alt: what the figure shows, as a string with the values' names in braces
            ("The fit of degree {degree} …") or a function of the values.
        **controls: `slider`, `choice` or `toggle`, one or more, named as `draw` names them.

    Raises:
        TypeError: if a control is none of these or `draw` does not return a figure.
        ValueError: if there is no control, or the figure or `alt` fails `show`'s checks.
        RuntimeError: in a corner test, with the failing values.
    """
    if not callable(draw):
        raise TypeError(f"draw must be a function that returns a figure, got {draw!r}")
    if not controls:
        raise ValueError("demo needs at least one control: slider, choice or toggle")
    for name, control in controls.items():
        if not isinstance(control, Control):
            raise TypeError(f"{name} must be a slider, choice or toggle, got {control!r}")
    if os.environ.get(CHECK_VARIABLE) == "1":
        check_corners(draw, alt=alt, **controls)
    values = {name: control.value for name, control in controls.items()}
    with _drawn(draw, values) as fig:
        text = _describe(alt, values)
        data, metadata = picture(fig, text)
        data["text/plain"] = f"Demo: {text}"
        if live_widgets() is not None:
            png = base64.b64decode(data["image/png"])
            data |= widget_view(_live(draw, alt, controls, png, text, fig.get_figwidth()))
    display(data, metadata)


def check_corners(
    draw: Callable[..., Figure], *, alt: str | Callable[..., str], **controls: Control
) -> int:
    """Draw a demo at every corner of its controls; return how many were drawn.

    Raises:
        RuntimeError: if a corner fails; names the values and the error.
    """
    corners = list(itertools.product(*(control.corners for control in controls.values())))
    for corner in corners:
        values = dict(zip(controls, corner, strict=True))
        try:
            with _drawn(draw, values) as fig:
                fig.set_layout_engine("none")  # half of the time; it may warn, never fail
                fig.canvas.draw()
                _describe(alt, values)
        except Exception as error:
            raise RuntimeError(
                f"the demo {_name(draw)} fails at {_listed(values)}: "
                f"{type(error).__name__}: {error}"
            ) from error
    return len(corners)


@contextmanager
def _drawn(draw: Callable[..., Figure], values: dict[str, Any]) -> Iterator[Figure]:
    """The checked figure for these values; all figures that `draw` opened are closed after."""
    before = set(plt.get_fignums())
    fig = None
    try:
        fig = draw(**values)
        if not isinstance(fig, Figure):
            raise TypeError(f"{_name(draw)} must return a figure, got {type(fig).__name__}")
        check_figure(fig)
        yield fig
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)
        if isinstance(fig, Figure):  # one that was there before, drawn into again
            plt.close(fig)


def _describe(alt: Any, values: dict[str, Any]) -> str:
    if callable(alt):
        return check_alt(alt(**values))
    if not isinstance(alt, str):
        raise TypeError(f"alt must be a string or a function that returns one, got {alt!r}")
    try:
        return check_alt(alt.format(**values))
    except (KeyError, IndexError) as error:
        names = ", ".join(f"{{{name}}}" for name in values)
        raise ValueError(
            f"alt may name the controls {names} in braces (write {{{{ for a brace), got {alt!r}"
        ) from error


def _name(draw: Callable[..., Figure]) -> str:
    return getattr(draw, "__name__", type(draw).__name__)


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def _live(
    draw: Callable[..., Figure],
    alt: str | Callable[..., str],
    controls: dict[str, Control],
    png: bytes,
    text: str,
    width: float,
) -> Any:
    """The widget: the controls, the picture beneath and the alternative text below it."""
    import ipywidgets

    label_width = f"{0.6 * max(len(control.label) for control in controls.values()) + 0.5:.1f}em"
    widgets = {name: control.widget(label_width) for name, control in controls.items()}
    image = ipywidgets.Image(
        value=png,
        format="png",
        layout={"width": f"{round(width * DISPLAY_DPI)}px", "max_width": "100%"},
    )
    status = ipywidgets.HTML(_status(text))

    # The browser sends a control's next value only when the last one has been handled, and
    # then the newest: drawing at once, here, is what keeps a drag from queueing up.
    def redraw(_change: Any) -> None:
        values = {name: controls[name].clean(w.value) for name, w in widgets.items()}
        try:
            with _drawn(draw, values) as fig:
                said = _describe(alt, values)
                image.value = png_bytes(fig, small=False)
            status.value = _status(said)
        except Exception as error:  # shown to the reader: nobody sees a kernel's log
            status.value = _status(
                f"This cannot be drawn at {_listed(values)}; the picture shows the values before. "
                f"{type(error).__name__}: {error}",
                alarm=True,
            )

    for widget in widgets.values():
        widget.observe(redraw, names="value")
    return ipywidgets.VBox([*widgets.values(), image, status])


def _status(text: str, *, alarm: bool = False) -> str:
    # role="status" and "alert" make a screen reader speak what a moved control has changed.
    role, colour = ("alert", "#9c3a00") if alarm else ("status", "#555555")
    weight = "bold" if alarm else "normal"
    return (
        f'<div role="{role}" style="color:{colour};font-weight:{weight};line-height:1.35;'
        f'max-width:40rem;white-space:normal">{html.escape(text)}</div>'
    )
