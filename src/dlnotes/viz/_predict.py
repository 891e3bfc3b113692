"""A question that the reader answers before running what answers it."""

import html
from collections.abc import Sequence
from typing import Any

from dlnotes.viz._show import display, live_widgets, widget_view

_LONGEST = 40  # characters of an option that a button on a phone shows whole
_TEXT = "line-height:1.35;max-width:40rem;white-space:normal"


def predict(question: str, options: Sequence[str], answer: str, why: str) -> None:
    """Ask the reader for a prediction.

    Live it is one button per option and an answer after the first press; stored it is the
    question with its answer folded away, and as plain text the question alone.

    Args:
        question: what will happen? One or two sentences.
        options: at least two different answers, each a few words (no formulas).
        answer: the right one of `options`.
        why: the reason, shown with the answer.

    Raises:
        TypeError: if a text is not a string.
        ValueError: if a text is empty, there are fewer than two different options, or `answer`
            is none of them.
    """
    options = tuple(options)
    texts = {"question": question, "answer": answer, "why": why}
    texts |= {f"options[{i}]": option for i, option in enumerate(options)}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"{name} must be a string, got {text!r}")
        if not text.strip():
            raise ValueError(f"{name} must not be empty")
    if len(options) < 2 or len(set(options)) != len(options):
        raise ValueError(f"options must be at least two different answers, got {options!r}")
    if answer not in options:
        raise ValueError(f"answer must be one of {options!r}, got {answer!r}")

    lettered = [f"{chr(ord('a') + i)}) {option}" for i, option in enumerate(options)]
    data: dict[str, Any] = {
        "text/plain": "\n".join([f"Predict: {question}", *lettered]),
        "text/html": _folded(question, lettered, answer, why),
    }
    if live_widgets() is not None:
        data |= widget_view(_live(question, options, answer, why))
    display(data)


def _folded(question: str, lettered: Sequence[str], answer: str, why: str) -> str:
    lines = "<br>\n".join(html.escape(line, quote=False) for line in lettered)
    return (
        f"<p><strong>Predict:</strong> {html.escape(question, quote=False)}</p>\n"
        f"<p>{lines}</p>\n"
        f"<details><summary>Answer</summary>\n"
        f"<p><strong>{html.escape(answer, quote=False)}.</strong> "
        f"{html.escape(why, quote=False)}</p>\n</details>"
    )


def _live(question: str, options: Sequence[str], answer: str, why: str) -> Any:
    """The widget: the question, a button per option, and the answer after a press."""
    import ipywidgets

    letters = [chr(ord("a") + i) for i in range(len(options))]
    # Buttons do not break lines: long options stand in the text, lettered, as on a phone they
    # would be cut off.
    short = max(len(option) for option in options) <= _LONGEST
    asked = ipywidgets.HTMLMath(
        f"<div style='{_TEXT}'><strong>Predict:</strong> {html.escape(question)}"
        + "".join(
            f"<br>{letter}) {html.escape(option)}"
            for letter, option in zip(letters, options, strict=True)
            if not short
        )
        + "</div>"
    )
    buttons = [
        ipywidgets.Button(
            description=option if short else letter,
            tooltip=f"Predict: {option}",
            layout={"width": "auto", "min_width": "12rem", "max_width": "100%"},
        )
        for letter, option in zip(letters, options, strict=True)
    ]
    feedback = ipywidgets.HTMLMath("<div role='status'></div>")

    def respond(pressed: Any) -> None:
        chosen = options[buttons.index(pressed)]
        verdict = "Yes" if chosen == answer else f"You chose “{chosen}”; it is “{answer}”"
        for button, option in zip(buttons, options, strict=True):
            button.button_style = "primary" if button is pressed else ""
            button.icon = "check" if option == answer else ""
        feedback.value = (
            f"<div role='status' style='{_TEXT}'>"
            f"<strong>{html.escape(verdict)}.</strong> {html.escape(why)}</div>"
        )

    for button in buttons:
        button.on_click(respond)
    return ipywidgets.VBox([asked, *buttons, feedback], layout={"align_items": "flex-start"})
