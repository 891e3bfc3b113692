"""From one master text to everything the exercise consists of.

`solutions/NN_name.py` (jupytext's percent format; docs/exercises.md describes it) gives

- `exercises/NN_name.ipynb`, for the student, not executed;
- `solutions/NN_name.ipynb`, with solutions, reasoning and typical wrong answers, executed;
- `src/dlnotes/course/checks/NN_name.py`, the visible checks, which travel with the package;
- `solutions/checks/NN_name.json`, all checks and the wrong answers, for the grader.

The same master gives the same bytes each time.
"""

import ast
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from dlnotes.course import notebook_format
from dlnotes.course.cases import Case, load
from dlnotes.course.layout import Layout

BLANK = 'raise NotImplementedError("your code here")'
_QUESTION = re.compile(r"q[1-9]\d*")
_BEGIN, _END, _BLANK_LINE = "# BEGIN SOLUTION", "# END SOLUTION", "# BLANK:"
LOCKED = {"deletable": False, "editable": False}


class MasterError(ValueError):
    """A master text breaks the format; `problems` lists everything that is wrong with it."""

    def __init__(self, exercise: str, problems: list[str]):
        self.problems = problems
        lines = "\n".join(f"  - {problem}" for problem in problems)
        super().__init__(f"solutions/{exercise}.py:\n{lines}")


@dataclass(frozen=True)
class Wrong:
    """A typical wrong answer to a question and a part of the message that it must get."""

    question: str
    expect: str
    source: str


@dataclass
class Question:
    """One question as the master gives it."""

    name: str
    title: str = ""
    outcomes: list[int] = field(default_factory=list)
    blank: str = ""
    answer: str = ""
    visible: int | float = 0.0
    hidden: int | float = 0.0
    hidden_checks: int = 0

    @property
    def points(self) -> int | float:
        """Points of all its checks."""
        return self.visible + self.hidden


@dataclass
class Exercise:
    """Everything that a master text says."""

    name: str
    title: str
    questions: dict[str, Question]
    checks: str
    visible_checks: str
    wrong: list[Wrong]
    given: list[str]
    shown: list[str]
    cells: list[dict]

    @property
    def cases(self) -> list[Case]:
        """All checks, visible and hidden."""
        return load(self.checks, f"{self.name} (all checks)")


def blanked(source: str) -> str:
    """Return an answer cell as the student gets it.

    Each solution block becomes its `# BLANK:` lines, or where it has none, a line that raises
    NotImplementedError. Raises ValueError when a marker has no partner or when a block outside a
    function has no `# BLANK:` line (it would stop the notebook).
    """
    lines: list[str] = []
    block: list[str] | None = None
    for line in source.splitlines():
        text = line.strip()
        if text == _BEGIN:
            if block is not None:
                raise ValueError(f"{_BEGIN} inside a solution block")
            block = []
            indent = line[: len(line) - len(line.lstrip())]
        elif text == _END:
            if block is None:
                raise ValueError(f"{_END} without {_BEGIN}")
            if not block and not indent:
                raise ValueError(f"a solution block outside a function needs {_BLANK_LINE} lines")
            lines += block or [indent + BLANK]
            block = None
        elif block is None:
            lines.append(line)
        elif text.startswith(_BLANK_LINE):
            kept = line[: len(line) - len(line.lstrip())]
            block.append(kept + text.removeprefix(_BLANK_LINE).removeprefix(" "))
    if block is not None:
        raise ValueError(f"{_BEGIN} without {_END}")
    return "\n".join(lines)


def solved(source: str) -> str:
    """Return an answer cell without its markers."""
    keep = (
        line
        for line in source.splitlines()
        if line.strip() not in (_BEGIN, _END) and not line.strip().startswith(_BLANK_LINE)
    )
    return "\n".join(keep)


def _is_hidden(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and any(
        isinstance(d, ast.Call)
        and any(
            k.arg == "hidden" and isinstance(k.value, ast.Constant) and k.value.value
            for k in d.keywords
        )
        for d in node.decorator_list
    )


def _without_hidden(source: str) -> str:
    """Return the source of a test cell without its hidden checks and the comments above them."""
    lines = source.splitlines()
    drop: set[int] = set()
    for node in ast.parse(source).body:
        if _is_hidden(node):
            first = min(d.lineno for d in node.decorator_list) - 1
            while first > 0 and lines[first - 1].startswith("#"):
                first -= 1
            drop.update(range(first, node.end_lineno))
    kept = "\n".join(line for i, line in enumerate(lines) if i not in drop)
    return re.sub(r"\n{3,}", "\n\n\n", kept).strip("\n")


def _question_of(tags: list[str]) -> str | None:
    found = [tag for tag in tags if _QUESTION.fullmatch(tag)]
    return found[0] if len(found) == 1 else None


def _read_cells(path: Path) -> list[dict]:
    import jupytext

    nb = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")
    return [
        {"kind": c.cell_type, "source": c.source, "tags": list(c.metadata.get("tags", []))}
        for c in nb.cells
        if c.source.strip()
    ]


def _expectation(source: str) -> tuple[str, str]:
    first, _, rest = source.partition("\n")
    if not first.startswith("# expect:") or not first.removeprefix("# expect:").strip():
        raise ValueError("its first line must be `# expect: part of the message`")
    return first.removeprefix("# expect:").strip(), rest.strip("\n")


def read_master(path: Path) -> Exercise:
    """Read a master text and hold it against the format.

    Raises MasterError, which lists every problem at once.
    """
    name = path.stem
    problems: list[str] = []
    cells = _read_cells(path)
    questions: dict[str, Question] = {}
    checks, visible, wrong, given, shown = [], [], [], [], []
    for number, cell in enumerate(cells, 1):
        tags, source = cell["tags"], cell["source"]
        q = cell["question"] = _question_of(tags)
        role = next((t for t in ("answer", "test", "wrong", "reasoning") if t in tags), None)
        cell["role"] = role or ("question" if q and cell["kind"] == "markdown" else "given")
        where = f"cell {number} ({source.splitlines()[0][:50]!r})"
        if role in ("answer", "wrong", "reasoning") and q is None:
            problems.append(f"{where}: tag `{role}` needs one question tag such as `q1`")
            continue
        question = questions.setdefault(q, Question(q)) if q and role != "test" else None
        try:
            if cell["role"] == "question":
                _take_question(question, source, tags)
            elif role == "answer":
                if question.answer:
                    raise ValueError(f"{q} has a second answer cell")
                question.blank, question.answer = blanked(source), solved(source)
                if question.blank == question.answer:
                    raise ValueError(f"no {_BEGIN} … {_END} in it")
            elif role == "test":
                ast.parse(source)
                if "hidden" in tags:
                    source = re.sub(
                        r"^@test\((?!.*hidden=)(.*)\)$",
                        r"@test(\1, hidden=True)",
                        source,
                        flags=re.MULTILINE,
                    )
                else:
                    visible.append(_without_hidden(source))
                checks.append(source)
            elif role == "wrong":
                wrong.append(Wrong(q, *_expectation(source)))
            elif cell["role"] == "given" and cell["kind"] == "code":
                (shown if "look" in tags else given).append(source)
        except (ValueError, SyntaxError) as error:
            problems.append(f"{where}: {error}")
    markdown = [c["source"] for c in cells if c["kind"] == "markdown"]
    titles = [source for source in markdown if source.startswith("# ")]
    title = titles[0].splitlines()[0].removeprefix("# ").strip() if titles else ""
    exercise = Exercise(
        name,
        title,
        questions,
        "\n\n\n".join(c for c in checks if c) + "\n",
        "\n\n\n".join(v for v in visible if v) + "\n",
        wrong,
        given,
        shown,
        cells,
    )
    if not title:
        problems.append("no title: a markdown cell must start with `# `")
    if not any(f'Grader("{name}")' in source for source in given):
        problems.append(f'the set-up cell must contain: grader = Grader("{name}")')
    _count_points(exercise, problems)
    _check_questions(exercise, problems)
    if problems:
        raise MasterError(name, problems)
    return exercise


def _take_question(question: Question, source: str, tags: list[str]) -> None:
    heading = re.match(r"## Question (\d+) · (.+)", source)
    if heading is None:
        return  # a further paragraph of the question
    if f"q{heading[1]}" != question.name:
        raise ValueError(f"its title says Question {heading[1]}, its tag {question.name}")
    question.title = heading[2].strip()
    question.outcomes = sorted(int(t[8:]) for t in tags if re.fullmatch(r"outcome-\d+", t))


def _count_points(exercise: Exercise, problems: list[str]) -> None:
    try:
        cases, shown = exercise.cases, load(exercise.visible_checks, "visible checks")
    except Exception as error:
        problems.append(f"the test cells do not load: {type(error).__name__}: {error}")
        return
    if [c.function.__name__ for c in shown] != [c.function.__name__ for c in cases if not c.hidden]:
        problems.append("hidden=True must be written out in the decorator of each hidden check")
    for case in cases:
        question = exercise.questions.get(case.question)
        if question is None:
            problems.append(f"check {case.function.__name__}: no question {case.question}")
            continue
        if case.hidden:
            question.hidden += case.points
            question.hidden_checks += 1
        else:
            question.visible += case.points
        if not case.hint:
            problems.append(f"{case.question}: check {case.function.__name__} has no hint")


def _check_questions(exercise: Exercise, problems: list[str]) -> None:
    if not exercise.questions:
        problems.append("no questions")
    for q, question in exercise.questions.items():
        count = sum(w.question == q for w in exercise.wrong)
        reasoning = any(c["role"] == "reasoning" and c["question"] == q for c in exercise.cells)
        needs = {
            "a markdown cell that starts with `## Question N · Title`": question.title,
            "a tag such as `outcome-2`": question.outcomes,
            "an answer cell": question.answer,
            "a visible check": question.visible,
            "a hidden check": question.hidden,
            "a markdown cell with the tag `reasoning`": reasoning,
            "three typical wrong answers or more": count >= 3,
        }
        problems += [f"{q} lacks {what}" for what, there in needs.items() if not there]


def _code(source: str, tags: list[str], **metadata) -> dict:
    import nbformat

    if tags:
        metadata["tags"] = tags
    return nbformat.v4.new_code_cell(source, metadata=metadata)


def _markdown(source: str, tags: list[str] = ()) -> dict:
    import nbformat

    metadata = {"tags": list(tags)} if tags else {}
    return nbformat.v4.new_markdown_cell(source, metadata=metadata)


def _wrong_answers(wrong: list[Wrong]) -> str:
    parts = ["**Typical wrong answers**, each with a part of the message that it gets:"]
    for answer in wrong:
        parts += [
            f"<details><summary>{_escape(answer.expect)}</summary>",
            f"```python\n{answer.source}\n```",
            "</details>",
        ]
    return "\n\n".join(parts)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def notebooks(exercise: Exercise) -> tuple[dict, dict]:
    """Return the student's notebook and the solution notebook, neither executed."""
    import nbformat

    student, solution = [], []
    last_of = {cell["question"]: i for i, cell in enumerate(exercise.cells)}
    for i, cell in enumerate(exercise.cells):
        q, source, tags = cell["question"], cell["source"], cell["tags"]
        if cell["role"] == "answer":
            check = _code(f'grader.check("{q}")', [], **LOCKED)
            student += [_code(exercise.questions[q].blank, tags), check]
            solution += [_code(exercise.questions[q].answer, tags), check]
        elif cell["role"] == "reasoning":
            solution.append(_markdown(source, tags))
        elif cell["role"] in ("given", "question"):
            made = _code(source, tags) if cell["kind"] == "code" else _markdown(source, tags)
            student.append(made)
            solution.append(made)
        if q and i == last_of[q]:
            solution.append(
                _markdown(_wrong_answers([w for w in exercise.wrong if w.question == q]))
            )
    score = _code("grader.score()", [], **LOCKED)
    return tuple(
        notebook_format.normalize(
            nbformat.v4.new_notebook(cells=[*cells, score]), f"{kind}/{exercise.name}"
        )
        for kind, cells in (("exercises", student), ("solutions", solution))
    )


def _number(value: int | float) -> int | float | int:
    return int(value) if value == int(value) else value


def visible_file(exercise: Exercise) -> str:
    """Return the text of the visible checks as they travel with the package."""
    table = {
        q: {
            "title": question.title,
            "visible": _number(question.visible),
            "hidden": _number(question.hidden),
            "hidden_checks": question.hidden_checks,
        }
        for q, question in exercise.questions.items()
    }
    rows = "".join(
        f"    {json.dumps(q)}: {json.dumps(row, ensure_ascii=False)},\n" for q, row in table.items()
    )
    return (
        f'"""Visible checks of exercises/{exercise.name}.ipynb.\n\n'
        f"Built from solutions/{exercise.name}.py by `dlnotes build-exercises`: change that.\n"
        f'"""\n\nQUESTIONS = {{\n{rows}}}\n\n\n{exercise.visible_checks}'
    )


def full_file(exercise: Exercise) -> str:
    """Return the text of the file from which the grader works."""
    content = {
        "exercise": exercise.name,
        "title": exercise.title,
        "questions": {
            q: {
                "title": question.title,
                "outcomes": question.outcomes,
                "points": _number(question.points),
                "blank": question.blank.splitlines(),
            }
            for q, question in exercise.questions.items()
        },
        "given": [source.splitlines() for source in exercise.given],
        "shown": [source.splitlines() for source in exercise.shown],
        "checks": exercise.checks.splitlines(),
        "wrong": [
            {"question": w.question, "expect": w.expect, "source": w.source.splitlines()}
            for w in exercise.wrong
        ],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _stored_outputs(path: Path, nb: dict) -> dict | None:
    """Return `nb` with the outputs that `path` stores, or None when its cells are others."""
    import nbformat

    if not path.is_file():
        return None
    stored = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    if [(c.cell_type, c.source) for c in stored.cells] != [
        (c.cell_type, c.source) for c in nb["cells"]
    ]:
        return None
    for cell, old in zip(nb["cells"], stored.cells, strict=True):
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = old.outputs, old.execution_count
    return nb


def build(layout: Layout, name: str, *, execute: bool = True) -> dict[Path, str]:
    """Return the text of every file that the master `name` gives; writes nothing but needs
    the visible checks on disk when it executes the solution (it puts them in a temporary folder).

    With `execute=False` the solution keeps the outputs that are stored, if its cells are the same.
    Raises MasterError for a bad master and nbclient's errors when the solution does not run.
    """
    exercise = read_master(layout.master(name))
    student, solution = notebooks(exercise)
    visible = visible_file(exercise)
    stored = None if execute else _stored_outputs(layout.solutions / f"{name}.ipynb", solution)
    if stored is not None:
        solution = notebook_format.normalize(stored, f"solutions/{name}")
    else:
        solution = _executed(layout, exercise, solution, visible)
    return {
        layout.exercises / f"{name}.ipynb": notebook_format.dumps(student),
        layout.solutions / f"{name}.ipynb": notebook_format.dumps(solution),
        layout.visible / f"{name}.py": visible,
        layout.full_file(name): full_file(exercise),
    }


def _executed(layout: Layout, exercise: Exercise, solution: dict, visible: str) -> dict:
    import os
    import tempfile

    from dlnotes.course.notebook import CHECKS_FOLDER

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{exercise.name}.py").write_text(visible, encoding="utf-8")
        before = os.environ.get(CHECKS_FOLDER)
        os.environ[CHECKS_FOLDER] = folder
        try:
            solution = notebook_format.execute(solution, layout.solutions)
        finally:
            if before is None:
                del os.environ[CHECKS_FOLDER]
            else:
                os.environ[CHECKS_FOLDER] = before
    return notebook_format.normalize(solution, f"solutions/{exercise.name}")


def differences(files: dict[Path, str], root: Path) -> list[str]:
    """Return a unified diff for each file whose stored text is not the built one."""
    import difflib

    found = []
    for path, text in files.items():
        name = path.relative_to(root).as_posix()
        stored = path.read_text(encoding="utf-8") if path.is_file() else ""
        if stored != text:
            lines = difflib.unified_diff(
                stored.splitlines(),
                text.splitlines(),
                f"{name} (stored)",
                f"{name} (built)",
                lineterm="",
            )
            found.append("\n".join(lines))
    return found


def write(files: dict[Path, str]) -> list[Path]:
    """Write the files that differ, each atomically, and return their paths."""
    from dlnotes.course.files import write_text

    changed = []
    for path, text in files.items():
        if not path.is_file() or path.read_bytes() != text.encode():
            write_text(path, text)
            changed.append(path)
    return changed
