"""What the student's notebook uses: `grader.check("q1")` and `grader.score()`."""

import ast
import html
import os
from pathlib import Path
from typing import Any

from dlnotes.course import cases

CHECKS_FOLDER = "DLNOTES_CHECKS"  # environment: read the visible checks from this folder instead


class _Notebook:
    """The names that the student's notebook defines, as a check sees them."""

    def __init__(self, names: dict[str, Any]):
        self.__names = names

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__names[name]
        except KeyError:
            raise cases.NotDefined(f"{name} is not defined: run the cell that defines it") from None


class Report:
    """A list of findings that reads well as text, as HTML and to a screen reader."""

    def __init__(self, title: str, lines: list[tuple[bool, str]], closing: list[str]):
        self.title, self.lines, self.closing = title, lines, closing

    def __repr__(self) -> str:
        marks = (f"  {'✓' if right else '✗'} {text}" for right, text in self.lines)
        return "\n".join([self.title, *marks, *self.closing])

    def _repr_html_(self) -> str:
        rows = "".join(
            '<li style="list-style:none">'
            f'<span style="color:{"#00694f" if right else "#b3261e"};font-weight:bold">'
            f"{'✓ right' if right else '✗ not yet'}</span> {html.escape(text)}</li>"
            for right, text in self.lines
        )
        closing = "".join(f"<p>{html.escape(text)}</p>" for text in self.closing)
        return (
            f'<div role="status"><p><strong>{html.escape(self.title)}</strong></p>'
            f'<ul style="padding-left:1em">{rows}</ul>{closing}</div>'
        )


def _points(value: int | float) -> str:
    return f"{value:g} point" + ("" if value == 1 else "s")


def _table(text: str) -> dict[str, dict]:
    """Return what the file of checks says about its questions, without running it."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "QUESTIONS":
            return ast.literal_eval(node.value)
    raise ValueError("the file of checks does not define QUESTIONS")


class Grader:
    """The visible checks of one exercise, run in the notebook that made the grader.

    `exercise` is the exercise's name, such as "02_mlp". The grader looks for its checks in
    `checks_folder`, else in the folder that DLNOTES_CHECKS names, else in the package.

    Raises ValueError when there is no such exercise.
    """

    def __init__(self, exercise: str, *, checks_folder: str | Path | None = None):
        import __main__

        folder = Path(
            checks_folder or os.environ.get(CHECKS_FOLDER) or Path(__file__).parent / "checks"
        )
        known = sorted(p.stem for p in folder.glob("[!_]*.py"))
        if exercise not in known:
            raise ValueError(f"exercise must be one of {known}, got {exercise!r}")
        path = folder / f"{exercise}.py"
        text = path.read_text(encoding="utf-8")
        self.exercise = exercise
        self.questions = _table(text)
        self._cases = cases.load(text, str(path))
        self._names = vars(__main__)

    def __repr__(self) -> str:
        return f"Grader({self.exercise!r}): questions {', '.join(self.questions)}"

    def _run(self, question: str) -> list[cases.Outcome]:
        space = _Notebook(self._names)
        return [cases.run(case, space) for case in self._cases if case.question == question]

    def check(self, question: str) -> Report:
        """Run the visible checks of one question, such as "q1", and say what they found."""
        if question not in self.questions:
            raise ValueError(f"question must be one of {list(self.questions)}, got {question!r}")
        about = self.questions[question]
        outcomes = self._run(question)
        got = sum(o.case.points for o in outcomes if o.right)
        number, hidden = question.removeprefix("q"), about["hidden_checks"]
        noun = "check" if hidden == 1 else "checks"
        verb = "runs" if hidden == 1 else "run"
        return Report(
            f"Question {number} · {about['title']}",
            [(o.right, o.told) for o in outcomes],
            [
                f"Visible checks: {got:g} of {_points(about['visible'])}.",
                f"{hidden} hidden {noun} ({_points(about['hidden'])}) {verb} "
                "when the notebook is graded.",
            ],
        )

    def score(self) -> Report:
        """Run all visible checks and add the points up."""
        lines, total, most = [], 0.0, 0.0
        for question, about in self.questions.items():
            got = sum(o.case.points for o in self._run(question) if o.right)
            lines.append(
                (
                    got == about["visible"],
                    f"{question} · {about['title']}: {got:g} of {_points(about['visible'])}",
                )
            )
            total, most = total + got, most + about["visible"]
        hidden = sum(about["hidden"] for about in self.questions.values())
        return Report(
            f"Exercise {self.exercise}: {total:g} of {_points(most)} on the visible checks",
            lines,
            [f"A further {_points(hidden)} come from hidden checks when the notebook is graded."],
        )
