"""Hand an exercise to a school that runs otter-grader or nbgrader.

Both run a student's code and the checks in one process, without a sandbox, so a student's
notebook can patch the checks; `dlnotes grade` cannot be patched that way (docs/teaching.md).
"""

import ast
import json
import textwrap

from dlnotes.course import build, notebook_format
from dlnotes.course.build import Exercise, Question
from dlnotes.course.cases import HELPERS
from dlnotes.course.layout import Layout

FORMATS = ("otter", "nbgrader")

# The helpers that checks use, for a process in which the student's names are there themselves.
_PREPARE = f'''import numpy as np
from dlnotes.course.cases import {", ".join(HELPERS)}


class _Names:
    """The student's names, as a check sees them."""

    def __init__(self, names):
        self._names = names

    def __getattr__(self, name):
        if name not in self._names:
            raise AssertionError(f"{{name}} is not defined")
        return self._names[name]
'''


def _functions(text: str) -> tuple[list[tuple[str, ast.FunctionDef]], str]:
    """Return the checks (question, node) and the helpers' source of a text of checks."""
    found, helpers = [], []
    for node in ast.parse(text).body:
        decorators = getattr(node, "decorator_list", [])
        is_test = decorators and ast.unparse(decorators[0]).startswith("test(")
        if is_test:
            found.append((ast.literal_eval(decorators[0].args[0]), node))
        else:
            helpers.append(ast.get_source_segment(text, node))
    return found, "\n\n\n".join(helpers)


def _source(text: str, node: ast.FunctionDef) -> str:
    return ast.get_source_segment(text, node)


def _otter_tests(exercise: Exercise, question: Question) -> str:
    """One file of otter's exception-based tests."""
    nodes, helpers = _functions(exercise.checks)
    by_name = {(c.question, c.function.__name__): c for c in exercise.cases}
    parts = [
        "from otter.test_files import test_case",
        f"OK_FORMAT = False\n\nname = {question.name!r}\npoints = None",
        _PREPARE.rstrip(),
        helpers,
    ]
    for q, node in nodes:
        if q != question.name:
            continue
        case = by_name[q, node.name]
        parts.append(
            f"@test_case(name={case.name!r}, points={case.points:g}, hidden={case.hidden}, "
            f"failure_message={('Hint: ' + case.hint)!r})\n"
            f"def test_{node.name}(env):\n    check_{node.name}(_Names(env))"
        )
        parts.insert(
            -1,
            _source(exercise.checks, node).replace(
                f"def {node.name}(", f"def check_{node.name}(", 1
            ),
        )
    return "\n\n\n".join(part for part in parts if part) + "\n"


def otter(exercise: Exercise) -> dict[str, str]:
    """Return path → text of an otter assignment: notebook, tests, and how to run it."""
    name = exercise.name
    student, _ = build.notebooks(exercise)
    document = json.loads(notebook_format.dumps(student))
    document["metadata"]["otter"] = {"assignment_name": name}
    for cell in document["cells"]:
        source = "".join(cell["source"])
        source = source.replace("from dlnotes.course import Grader", "import otter")
        source = source.replace(f'Grader("{name}")', 'otter.Notebook(tests_dir="tests")')
        source = source.replace("grader.score()", "grader.check_all()")
        cell["source"] = source.splitlines(keepends=True)
    files = {f"{name}.ipynb": json.dumps(document, indent=1, ensure_ascii=False) + "\n"}
    for q, question in exercise.questions.items():
        files[f"tests/{q}.py"] = _otter_tests(exercise, question)
    config = {"assignment_name": name, "show_hidden": False, "show_stdout": True}
    files["otter_config.json"] = json.dumps(config, indent=1) + "\n"
    files["README.md"] = (
        f"# {exercise.title}, for otter-grader\n\n"
        "Built by `dlnotes export --to otter`. Students get the notebook; grade with\n\n"
        "    otter generate -t tests -c otter_config.json -o autograder.zip\n"
        f"    otter run -a autograder.zip {name}.ipynb\n\n"
        "The environment needs the package dlnotes. Points are those of `dlnotes grade`.\n"
    )
    return files


def _nbgrader_cell(kind: str, source: str, grade_id: str, **nbgrader) -> dict:
    metadata = {"grade_id": grade_id, "schema_version": 3, **nbgrader}
    make = build._code if kind == "code" else None
    cell = make(source, []) if make else build._markdown(source)
    cell["metadata"]["nbgrader"] = metadata
    return cell


def nbgrader(exercise: Exercise) -> dict[str, str]:
    """Return path → text of an nbgrader source notebook (`source/NAME/NAME.ipynb`)."""
    nodes, helpers = _functions(exercise.checks)
    by_name = {(c.question, c.function.__name__): c for c in exercise.cases}
    cells = []
    for i, cell in enumerate(exercise.cells):
        q, source = cell["question"], cell["source"]
        locked = {"grade": False, "locked": True, "solution": False}
        if cell["role"] in ("given", "question"):
            cells.append(_nbgrader_cell(cell["kind"], source, f"given-{i}", **locked))
        elif cell["role"] == "answer":
            answer = _nbgrader_solution(source)
            kind = {"grade": False, "locked": False, "solution": True}
            cells.append(_nbgrader_cell("code", answer, f"{q}-answer", **kind))
            for asked, node in nodes:
                if asked != q:
                    continue
                case = by_name[q, node.name]
                kind = {"grade": True, "locked": True, "solution": False, "points": case.points}
                test = _nbgrader_test(exercise.checks, helpers, node, case.hidden)
                cells.append(_nbgrader_cell("code", test, f"{q}-{node.name}", **kind))
    import nbformat

    nb = nbformat.v4.new_notebook(cells=cells)
    nb["metadata"] = {
        "kernelspec": notebook_format.KERNELSPEC,
        "language_info": notebook_format.LANGUAGE_INFO,
    }
    seen: dict[str, int] = {}
    for cell in nb["cells"]:
        cell["id"] = notebook_format.cell_id(
            f"nbgrader/{exercise.name}", cell["cell_type"], cell["source"], seen
        )
    nbformat.validate(nb)
    return {f"source/{exercise.name}/{exercise.name}.ipynb": notebook_format.dumps(nb)}


def _nbgrader_solution(source: str) -> str:
    """Return an answer with nbgrader's markers in place of ours."""
    lines = []
    for line in source.splitlines():
        text = line.strip()
        if text.startswith("# BLANK:"):
            continue
        if text in ("# BEGIN SOLUTION", "# END SOLUTION"):
            line = line.replace("# BEGIN SOLUTION", "### BEGIN SOLUTION")
            line = line.replace("# END SOLUTION", "### END SOLUTION")
        lines.append(line)
    return "\n".join(lines)


def _nbgrader_test(text: str, helpers: str, node: ast.FunctionDef, hidden: bool) -> str:
    """Return a test cell that runs one check on the notebook's own names."""
    body = f"{_PREPARE}\n\n{helpers}\n\n\n{_source(text, node)}\n\n\n{node.name}(_Names(globals()))"
    # In a function of its own: nothing of it may shadow the student's names.
    names = f"def _check():\n{textwrap.indent(body, '    ')}\n\n\n_check()"
    if hidden:
        return f"### BEGIN HIDDEN TESTS\n{names}\n### END HIDDEN TESTS"
    return names


def export(layout: Layout, name: str, to: str) -> dict[str, str]:
    """Return path → text of the exercise in another grader's form.

    Raises ValueError for an unknown form and MasterError for a bad master.
    """
    if to not in FORMATS:
        raise ValueError(f"--to must be one of {', '.join(FORMATS)}, got {to!r}")
    exercise = build.read_master(layout.master(name))
    return otter(exercise) if to == "otter" else nbgrader(exercise)
