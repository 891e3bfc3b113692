"""Prove an exercise: the blank scores nothing, the solution everything, and each typical wrong
answer loses its own question only, with the message that its author promised.
"""

import json
from collections.abc import Iterator

from dlnotes.course import notebook_format
from dlnotes.course.build import Exercise, full_file, notebooks, read_master
from dlnotes.course.grading import GradedExercise, Limits, grade_text, load_exercise
from dlnotes.course.layout import Layout
from dlnotes.course.remote import Nursery
from dlnotes.course.sandbox import Sandbox


def submissions(exercise: Exercise) -> Iterator[tuple[str, str, str | None, str]]:
    """Yield (what, notebook text, question that must lose points, message that must be told)."""
    blank, _ = notebooks(exercise)

    def with_answers(answers: dict[str, str]) -> str:
        nb = json.loads(notebook_format.dumps(blank))
        for cell in nb["cells"]:
            tags = cell["metadata"].get("tags", [])
            if "answer" in tags:
                q = next(t for t in tags if t in answers)
                cell["source"] = answers[q]
        return json.dumps(nb)

    right = {q: question.answer for q, question in exercise.questions.items()}
    yield "blank", notebook_format.dumps(blank), None, ""
    yield "solution", with_answers(right), None, ""
    for number, wrong in enumerate(exercise.wrong, 1):
        answers = right | {wrong.question: wrong.source}
        what = f"wrong answer {number} ({wrong.question}: {wrong.expect})"
        yield what, with_answers(answers), wrong.question, wrong.expect


def judge(what: str, result: dict, question: str | None, expect: str) -> list[str]:
    """Return what is wrong with how a submission was marked; nothing if all is as promised."""
    problems = []
    for q, marks in result["questions"].items():
        told = [check["told"] for check in marks["checks"] if not check["right"]]
        got = f"{marks['score']:g} of {marks['points']:g}"
        if what == "blank":
            if marks["score"] != 0:
                problems.append(f"{q}: the blank gets {got}")
        elif q != question:
            if marks["score"] != marks["points"]:
                problems.append(f"{q}: gets {got}: {'; '.join(told)}")
        elif marks["score"] == marks["points"]:
            problems.append(f"{q}: this wrong answer gets full points")
        elif not any(expect in text for text in told):
            problems.append(f"{q}: nothing told contains {expect!r}: {'; '.join(told)}")
    if what != "blank" and result["status"] != "graded":
        cells = "; ".join(f"cell {c['cell']}: {c['problem']}" for c in result["cells"])
        problems.append(f"status {result['status']!r}: {cells}")
    return problems


def prove(layout: Layout, name: str, sandbox: Sandbox) -> Iterator[tuple[str, list[str]]]:
    """Grade the blank, the solution and every wrong answer of one exercise.

    Yields (what, problems) for each. Works from the master text, so nothing need be built first.
    """
    exercise = read_master(layout.master(name))
    graded = graded_exercise(exercise)
    with Nursery(sandbox, graded.given) as nursery:
        for what, text, question, expect in submissions(exercise):
            result = grade_text(text, graded, nursery, Limits())
            yield what, judge(what, result, question, expect)


def graded_exercise(exercise: Exercise) -> GradedExercise:
    """Return a master's exercise as the grader reads it from the built file."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        layout.full.mkdir(parents=True)
        layout.full_file(exercise.name).write_text(full_file(exercise), encoding="utf-8")
        return load_exercise(layout, exercise.name)
