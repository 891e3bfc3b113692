"""Grade one submission: run its cells in a process of its own, then every check against it.

Whatever a cell or a function does, only the questions that depend on it lose points: a cell that
has to be stopped is left out and the notebook is run again without it, and a check in which the
student's code has to be stopped gets no points. docs/teaching.md explains the words used here.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import dlnotes
from dlnotes.course import cases, notebook_format
from dlnotes.course.cases import Case, Outcome
from dlnotes.course.layout import Layout
from dlnotes.course.remote import Nursery, Session, Stopped

# A submission's status, from best to worst; the worst that applies is given.
STATUSES = {
    "graded": "every cell ran and every check was answered",
    "cells failed": "some cells raised an error; everything was graded",
    "cells skipped": "some cells had to be stopped and were left out; the rest was graded",
    "checks stopped": "student code had to be stopped in some checks; the rest was graded",
    "out of time": "the submission used up its time; checks after that got no points",
    "unreadable": "not a notebook that can be read: no points, please look at the file",
    "exercise unknown": "no mark is given: say which exercise it is with --exercise",
    "not graded": "the grader itself failed: no mark is given, please report it",
}
# A question's status.
QUESTION_STATUSES = {
    "right": "full points",
    "partly": "some points",
    "wrong": "no points",
    "blank": "no points: the answer was not written",
    "missing": "no points: the notebook does not define what the question asks for",
    "stopped": "no points: the student's code had to be stopped",
}
PROBLEM_LIMIT = 12  # cells that may have to be stopped in one notebook


@dataclass(frozen=True)
class Limits:
    """What one submission may use: seconds, and bytes beyond the loaded libraries."""

    cell: int | float = 60.0
    check: int | float = 20.0
    total: int | float = 600.0
    memory: int = 2 << 30


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class GradedExercise:
    """An exercise as the grader needs it."""

    name: str
    titles: dict[str, str]
    cases: tuple[Case, ...]
    given: tuple[str, ...]
    shown: tuple[str, ...]  # given cells that only show something: not run while grading
    blanks: dict[str, str]
    digest: str
    note: str = ""

    @property
    def questions(self) -> list[str]:
        """The questions in order."""
        return list(self.titles)

    def points(self, question: str | None = None) -> int | float:
        """Points of one question, or of all."""
        return sum((c.points for c in self.cases if question in (None, c.question)), 0.0)


def load_exercise(layout: Layout, name: str, private: Path | None = None) -> GradedExercise:
    """Return the exercise with all its checks.

    `private` is a folder whose file `NAME.py`, if there, adds hidden checks of the teacher's own.
    Raises ValueError when there is no such exercise or a private check does not fit it.
    """
    path, note = layout.full_file(name), ""
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
    else:
        known = ", ".join(sorted(p.stem for p in layout.full.glob("*.json"))) or "none"
        raise ValueError(f"no exercise {name!r} in {layout.full}; there are: {known}")
    text = "\n".join(content["checks"]) + "\n"
    found = cases.load(text, f"{name} (all checks)")
    texts = [text]
    extra = private / f"{name}.py" if private else None
    if extra is not None and extra.is_file():
        texts.append(extra.read_text(encoding="utf-8"))
        added = cases.load(texts[1], str(extra))
        found += [Case(c.question, c.points, c.hint, True, c.function) for c in added]
        note = f"with {len(added)} private checks"
    for case in found:
        if case.question not in content["questions"]:
            raise ValueError(f"{extra}: {name} has no question {case.question!r}")
    questions = content["questions"]
    return GradedExercise(
        name,
        {q: about["title"] for q, about in questions.items()},
        tuple(sorted(found, key=lambda c: list(questions).index(c.question))),
        tuple("\n".join(lines) for lines in content["given"]),
        tuple("\n".join(lines) for lines in content.get("shown", ())),
        {q: "\n".join(about["blank"]) for q, about in questions.items()},
        hashlib.sha256("\0".join([json.dumps(content), *texts]).encode()).hexdigest(),
        note,
    )


@dataclass
class Cell:
    """A code cell of a submission; `number` counts the code cells from 1, 0 is a given cell."""

    number: int
    source: str
    tags: tuple[str, ...] = ()
    id: str = ""


def read_cells(text: str) -> list[Cell]:
    """Return the code cells of a notebook; raises ValueError when it is none."""
    if not text.strip():
        raise ValueError("the file is empty")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        merge = " (it holds marks of a merge conflict)" if "<<<<<<<" in text else ""
        raise ValueError(f"the file is not valid JSON{merge}: {str(error)[:80]}") from None
    found = document.get("cells") if isinstance(document, dict) else None
    if not isinstance(found, list):
        raise ValueError("the file is JSON but not a notebook: it has no list of cells")
    result = []
    for cell in found:
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        source = cell.get("source", "")
        source = "".join(map(str, source)) if isinstance(source, list) else str(source)
        metadata = cell.get("metadata")
        tags = metadata.get("tags", ()) if isinstance(metadata, dict) else ()
        tags = tuple(map(str, tags)) if isinstance(tags, list) else ()
        result.append(Cell(len(result) + 1, source, tags, str(cell.get("id", ""))))
    return result


def which_exercise(text: str, stem: str, known: Iterable[str]) -> str | None:
    """Return which of the `known` exercises a notebook belongs to, or None.

    Its set-up cell says so; else its file name; else the only exercise that there is.
    """
    known = list(known)
    for name in re.findall(r"Grader\(\s*\\?[\"'](\w+?)\\?[\"']", text):
        if name in known:
            return name
    for name in known:
        if name in stem:
            return name
    return known[0] if len(known) == 1 else None


@dataclass
class _Findings:
    """What went wrong while a submission ran."""

    skipped: dict[int, str] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    stopped: bool = False
    out_of_time: bool = False
    notes: list[str] = field(default_factory=list)


class _Attempt:
    """One submission being graded: starts its process as often as needed."""

    def __init__(
        self, cells: list[Cell], exercise: GradedExercise, nursery: Nursery, limits: Limits
    ):
        self.cells, self.exercise, self.nursery, self.limits = cells, exercise, nursery, limits
        self.found = _Findings()
        self.end = time.monotonic() + limits.total
        self.session: Session | None = None

    def close(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None

    def _kept(self) -> list[int]:
        return [i for i in range(len(self.cells)) if i not in self.found.skipped]

    def _left(self, limit: int | float) -> int | float:
        left = self.end - time.monotonic()
        if left <= 0:
            self.found.out_of_time = True
            raise _OutOfTime
        return min(limit, left)

    def _run(self, indices: list[int]) -> tuple[int | None, Stopped | None, float]:
        """Run these cells in a new process; return the cell that stopped it, how, and when."""
        self.close()
        self.session = Session(self.nursery, self.limits.memory)
        failed = {}
        for i in indices:
            try:
                self.session.run_cell(
                    self.cells[i].number, self.cells[i].source, self._left(self.limits.cell)
                )
            except Stopped as stopped:
                return i, stopped, time.monotonic() - self.session.started
            except Exception as error:
                failed[i] = str(error).removeprefix("your code raised ")
        self.found.failed = failed
        return None, None, time.monotonic() - self.session.started

    def _dies_idle(self, indices: list[int], seconds: int | float) -> bool:
        """Whether a process that has run these cells ends within `seconds` if left alone."""
        _, stopped, _ = self._run(indices)
        if stopped is not None:
            return stopped.by_itself
        began = time.monotonic()  # not before the cells: on a busy machine they may take longer
        try:
            while time.monotonic() < began + seconds:
                self.session.idle(min(0.25, self._left(0.25)))
        except Stopped as stopped:
            return stopped.by_itself
        return False

    def _culprit(self, before: list[int], seconds: int | float) -> int | None:
        """Return the cell among `before` that ends the process later on, or None.

        A cell can leave something behind, such as a timer, that ends the process while a later
        cell or a check runs. Those that run first are then left alone for as long as it took.
        """
        seconds = min(seconds, 10.0) + 1.0
        if not before or not self._dies_idle(before, seconds):
            return None
        low, high = 0, len(before)  # the first `low` cells live, the first `high` die
        while high - low > 1:
            middle = (low + high) // 2
            if self._dies_idle(before[:middle], seconds):
                high = middle
            else:
                low = middle
        return before[high - 1]

    def start(self) -> Session:
        """Run the notebook from top to bottom without the cells that have to be stopped."""
        while True:
            kept = self._kept()
            index, stopped, took = self._run(kept)
            if stopped is None:
                return self.session
            if stopped.by_itself:
                earlier = self._culprit(kept[: kept.index(index)], took)
                index = index if earlier is None else earlier
            self.found.skipped[index] = str(stopped)
            if len(self.found.skipped) > PROBLEM_LIMIT:
                self.found.out_of_time = True
                raise _OutOfTime

    def check(self, case: Case) -> Outcome:
        """Run one check; when the process ends in it, say so, and start anew for the next."""
        for _ in range(PROBLEM_LIMIT):
            if self.session is None:
                self.start()
            try:
                self.session.begin_check(case.seed, self._left(self.limits.check))
                return cases.run(case, self.session.student)
            except Stopped as stopped:
                took = time.monotonic() - self.session.started
                self.close()
                earlier = self._culprit(self._kept(), took) if stopped.by_itself else None
                self.close()
                if earlier is None:
                    self.found.stopped = True
                    return Outcome(case, False, f"your code was stopped: {stopped}", "stopped")
                self.found.skipped[earlier] = f"{stopped} some time after this cell"
        return Outcome(case, False, "your code was stopped again and again", "stopped")


class _OutOfTime(Exception):
    pass


def grade_text(
    text: str, exercise: GradedExercise, nursery: Nursery, limits: Limits = DEFAULT_LIMITS
) -> dict:
    """Grade the text of a notebook and return the result as plain values.

    The result depends on the text, the checks and the limits alone. About 0.1 s for a notebook
    that needs NumPy only, plus what its cells take.
    """
    result = _empty_result(exercise, nursery.sandbox.kind)
    result["submission_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    try:
        cells = read_cells(text)
    except ValueError as error:
        return _without_marks(result, exercise, "unreadable", str(error))
    missing = _missing_given(cells, exercise)
    shown = {source.strip() for source in exercise.shown}
    run = [cell for cell in cells if cell.source.strip() not in shown]
    attempt = _Attempt([*missing, *run], exercise, nursery, limits)
    outcomes = []
    try:
        for case in exercise.cases:
            try:
                outcomes.append(attempt.check(case))
            except _OutOfTime:
                outcomes.append(
                    Outcome(case, False, "not run: the submission used up its time", "stopped")
                )
    finally:
        attempt.close()
    found = attempt.found
    if missing:
        found.notes.append("given cells were missing or changed; the original ones were run first")
    found.notes += _doubled(cells)
    _fill(result, exercise, outcomes, attempt)
    return result


def _empty_result(exercise: GradedExercise, sandbox: str) -> dict:
    return {
        "exercise": exercise.name,
        "status": "graded",
        "score": 0.0,
        "points": exercise.points(),
        "notes": [],
        "questions": {},
        "cells": [],
        "sandbox": sandbox,
        "submission_sha256": "",
        "checks_sha256": exercise.digest,
        "dlnotes": dlnotes.__version__,
    }


def _without_marks(result: dict, exercise: GradedExercise, status: str, note: str) -> dict:
    graded = status == "unreadable"
    result.update(status=status, notes=[note], score=0.0 if graded else None)
    for q, title in exercise.titles.items():
        result["questions"][q] = {
            "title": title,
            "score": 0.0 if graded else None,
            "points": exercise.points(q),
            "status": "missing",
            "checks": [],
        }
    return result


def exercise_unknown(text: str, sandbox: str) -> dict:
    """Return the result of a submission that does not say which exercise it answers."""
    result = _empty_result(GradedExercise("", {}, (), (), (), {}, ""), sandbox)
    result["submission_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    result.update(status="exercise unknown", score=None)
    result["notes"] = ["its set-up cell names no exercise, and the folder holds several"]
    return result


def not_graded(text: str, exercise: GradedExercise, sandbox: str, error: BaseException) -> dict:
    """Return the result of a submission on which the grader itself failed."""
    result = _empty_result(exercise, sandbox)
    result["submission_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    note = f"{type(error).__name__}: {str(error)[:300]}"
    return _without_marks(result, exercise, "not graded", note)


def _missing_given(cells: list[Cell], exercise: GradedExercise) -> list[Cell]:
    there = {c.source.strip() for c in cells}
    ids = {c.id for c in cells}
    slug = f"exercises/{exercise.name}"
    return [
        Cell(0, source)
        for source in exercise.given
        if source.strip() not in there
        and notebook_format.cell_id(slug, "code", source, {}) not in ids
    ]


def _doubled(cells: list[Cell]) -> list[str]:
    count: dict[str, int] = {}
    for cell in cells:
        if "answer" in cell.tags:
            for tag in cell.tags:
                if re.fullmatch(r"q\d+", tag):
                    count[tag] = count.get(tag, 0) + 1
    return [
        f"{q} has {n} answer cells: the last definition counts" for q, n in count.items() if n > 1
    ]


def _why_missing(outcome: Outcome, attempt: _Attempt) -> Outcome:
    """Name the failed or skipped cell that would have defined what a check asks for."""
    name = outcome.message.split(" ", 1)[0]
    problems = attempt.found.skipped | attempt.found.failed
    for i, problem in sorted(problems.items()):
        if re.search(rf"\b{re.escape(name)}\b", attempt.cells[i].source):
            what = "was left out" if i in attempt.found.skipped else "failed"
            message = (
                f"{name} is not defined: code cell {attempt.cells[i].number} {what}: {problem}"
            )
            return Outcome(outcome.case, False, message, "missing")
    return outcome


def _fill(
    result: dict, exercise: GradedExercise, outcomes: list[Outcome], attempt: _Attempt
) -> None:
    found, cells = attempt.found, attempt.cells
    sources = {c.source.strip() for c in cells}
    for q, title in exercise.titles.items():
        own = [o for o in outcomes if o.case.question == q]
        own = [_why_missing(o, attempt) if o.kind == "missing" else o for o in own]
        score = sum((o.case.points for o in own if o.right), 0.0)
        kinds = {o.kind for o in own}
        if score == exercise.points(q):
            status = "right"
        elif score > 0:
            status = "partly"
        elif exercise.blanks[q].strip() in sources or kinds == {"blank"}:
            status = "blank"
        elif "stopped" in kinds:
            status = "stopped"
        else:
            status = "missing" if kinds == {"missing"} else "wrong"
        result["questions"][q] = {
            "title": title,
            "score": score,
            "points": exercise.points(q),
            "status": status,
            "checks": [
                {
                    "name": o.case.name,
                    "points": o.case.points,
                    "hidden": o.case.hidden,
                    "right": o.right,
                    "kind": o.kind,
                    "told": o.told,
                }
                for o in own
            ],
        }
    result["score"] = sum((q["score"] for q in result["questions"].values()), 0.0)
    problems = {i: f"left out: {why}" for i, why in found.skipped.items()}
    problems |= {i: why for i, why in found.failed.items() if i not in problems}
    result["cells"] = [
        {"cell": cells[i].number, "problem": cases.shortened(problem)}
        for i, problem in sorted(problems.items())
    ]
    result["notes"] = found.notes
    for applies, status in (
        (found.failed, "cells failed"),
        (found.skipped, "cells skipped"),
        (found.stopped, "checks stopped"),
        (found.out_of_time, "out of time"),
    ):
        if applies:
            result["status"] = status
