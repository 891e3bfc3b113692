"""Show a figure as a PNG that carries its alternative text."""

import base64
import io
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from dlnotes.viz._style import DISPLAY_DPI, DPI

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_PHOTOGRAPH = 20_000  # a picture with more colours than this is not a drawing
_NO_DITHER = Image.Dither.NONE
MIN_ALT = 20  # characters; "A plot." describes nothing


def show(fig: Figure, *, alt: str) -> None:
    """Show a figure in the notebook, with its alternative text, and close it.

    The output holds the picture (`image/png`) and the text "Figure: …" (`text/plain`), which a
    terminal, a text export and the comparison of stored outputs see. The alternative text also
    stands in the picture's metadata, where converters look for it.

    Args:
        fig: the figure; every axis that is on needs a label on x and on y (`ax.set_axis_off()`
            for drawings and images).
        alt: what the figure shows, in words, for somebody who cannot see it.

    Raises:
        TypeError: if `fig` is not a matplotlib figure or `alt` not a string.
        ValueError: if `alt` is shorter than 20 characters, the figure is empty, or an axis
            that is on lacks a label.
    """
    try:
        alt = check_alt(alt)
        check_figure(fig)
        data, metadata = picture(fig, alt)
    finally:
        if isinstance(fig, Figure):
            plt.close(fig)
    display({**data, "text/plain": f"Figure: {alt}"}, metadata)


def check_alt(alt: Any) -> str:
    """Return the alternative text on one line; raise if it says too little."""
    if not isinstance(alt, str):
        raise TypeError(f"alt must be a string that describes the figure, got {alt!r}")
    text = " ".join(alt.split())
    if len(text) < MIN_ALT:
        raise ValueError(
            f"alt must describe the figure in at least {MIN_ALT} characters, got {text!r}"
        )
    return text


def check_figure(fig: Any) -> None:
    """Raise if the figure is empty or an axis that is on lacks a label."""
    if not isinstance(fig, Figure):
        raise TypeError(f"fig must be a matplotlib Figure, got {type(fig).__name__}")
    if not fig.axes:
        raise ValueError("fig is empty: it has no axes")
    for number, ax in enumerate(fig.axes):
        missing = _missing_labels(fig, ax)
        if missing:
            name = f"axes {number}" + (f" ({ax.get_title()!r})" if ax.get_title() else "")
            raise ValueError(
                f"{name} of the figure lacks a label on {' and '.join(missing)}: call "
                "ax.set_xlabel and ax.set_ylabel, or ax.set_axis_off() for a drawing"
            )


def _missing_labels(fig: Figure, ax: Axes) -> list[str]:
    # Three-dimensional axes switch the flat ones off and keep a switch of their own.
    is_on = getattr(ax, "_axis3don", ax.axison)
    if not is_on or not ax.get_visible() or ax.name == "polar":
        return []
    if hasattr(ax, "_colorbar"):  # a colour bar is labelled along its long side only
        labelled = ax.get_xlabel() or ax.get_ylabel() or ax.get_title()
        return [] if labelled else ["the colour bar"]
    missing = []
    for axis, common in (("x", fig.get_supxlabel()), ("y", fig.get_supylabel()), ("z", "")):
        if not hasattr(ax, f"get_{axis}label"):
            continue
        # Axes that share an axis are labelled once for all of them.
        shared = getattr(ax, f"get_shared_{axis}_axes", None)
        group = shared().get_siblings(ax) if shared is not None else [ax]
        if not common and not any(getattr(other, f"get_{axis}label")() for other in group):
            missing.append(axis)
    return missing


def picture(fig: Figure, alt: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The figure as the `image/png` part of an output, and that part's metadata."""
    png = png_bytes(fig)
    width = round(fig.get_figwidth() * DISPLAY_DPI)
    metadata = {"image/png": {"alt": alt, "width": width}}
    return {"image/png": base64.b64encode(png).decode("ascii")}, metadata


def png_bytes(fig: Figure, *, small: bool = True) -> bytes:
    """The figure as a PNG: the same bytes for the same figure.

    With `small` the colours beyond 256 (of smoothed edges) are merged where nobody can see it,
    which cuts a drawing's file to about a third; photographs keep all of theirs. Without, it is
    about a third faster: what a live demo needs.
    """
    buffer = io.BytesIO()
    # "Software" would hold matplotlib's version, and the bytes would change with it.
    fig.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return _fewer_colours(buffer) if small else buffer.getvalue()


def _fewer_colours(buffer: io.BytesIO) -> bytes:
    image = Image.open(buffer).convert("RGB")
    if image.getcolors(_PHOTOGRAPH) is None:
        return _encoded(image)
    merged = image.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=1, dither=_NO_DITHER)
    moved = np.abs(np.asarray(merged.convert("RGB"), int) - np.asarray(image, int))
    # In 255 levels: nearly every pixel exactly its own colour, and hardly any far from it.
    alike = moved.mean() <= 0.5 and (moved.max(axis=-1) > 16).mean() <= 0.001
    return _encoded(merged if alike else image)


def _encoded(image: Image.Image) -> bytes:
    result = io.BytesIO()
    image.save(result, format="PNG", optimize=True)
    return result.getvalue()


def live_widgets() -> ModuleType | None:
    """The module ipywidgets if a notebook's kernel runs this code, otherwise None."""
    try:
        import ipywidgets
        from IPython import get_ipython
    except ImportError:
        return None
    return ipywidgets if getattr(get_ipython(), "kernel", None) is not None else None


def widget_view(widget: Any) -> dict[str, Any]:
    """The part of an output that shows a live widget."""
    return {WIDGET_VIEW: {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}}


def display(data: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
    """Send one output to the notebook; outside a notebook print its text."""
    try:
        from IPython import get_ipython
        from IPython.display import display as ipython_display
    except ImportError:
        shell = None
    else:
        shell = get_ipython()
    if shell is None:
        print(data["text/plain"])
    else:
        ipython_display(data, metadata=metadata or {}, raw=True)
