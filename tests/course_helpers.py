"""A built copy of the tiny exercise, and notebooks made from it, for the tests of grading."""

import copy
import json
import shutil
from pathlib import Path

from dlnotes.course import build, grading, notebook_format
from dlnotes.course.layout import Layout

TINY = Path(__file__).parent / "course_tiny"
NAME = "90_tiny"


def build_tiny(root: Path) -> Layout:
    """Build the tiny exercise in `root`, without running its solution."""
    (root / "solutions").mkdir(parents=True)
    shutil.copy(TINY / "solutions" / f"{NAME}.py", root / "solutions")
    layout = Layout(root)
    exercise = build.read_master(layout.master(NAME))
    student, solution = build.notebooks(exercise)
    build.write(
        {
            layout.exercises / f"{NAME}.ipynb": notebook_format.dumps(student),
            layout.solutions / f"{NAME}.ipynb": notebook_format.dumps(solution),
            layout.visible / f"{NAME}.py": build.visible_file(exercise),
            layout.full_file(NAME): build.full_file(exercise),
        }
    )
    return layout


class Notebook:
    """A submission under construction; `Notebook(layout)` has every answer right."""

    def __init__(self, layout: Layout, *, blank: bool = False):
        folder = layout.exercises if blank else layout.solutions
        self.document = json.loads((folder / f"{NAME}.ipynb").read_text())
        for cell in self.document["cells"]:
            cell["source"] = "".join(cell["source"])

    @property
    def cells(self) -> list[dict]:
        return self.document["cells"]

    def index(self, question: str) -> int:
        return next(
            i
            for i, c in enumerate(self.cells)
            if {"answer", question} <= set(c["metadata"].get("tags", []))
        )

    def answer(self, question: str, source: str) -> "Notebook":
        self.cells[self.index(question)]["source"] = source
        return self

    def insert(self, source: str, before: str = "q1") -> "Notebook":
        self.cells.insert(self.index(before), code(source))
        return self

    def append(self, source: str) -> "Notebook":
        self.cells.append(code(source))
        return self

    def delete(self, question: str) -> "Notebook":
        del self.cells[self.index(question)]
        return self

    def copy(self) -> "Notebook":
        return copy.deepcopy(self)

    def text(self) -> str:
        return json.dumps(self.document)


def code(source: str) -> dict:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": source,
    }


def scores(result: dict) -> dict[str, float]:
    return {q: about["score"] for q, about in result["questions"].items()}


def told(result: dict, question: str) -> str:
    return " | ".join(c["told"] for c in result["questions"][question]["checks"] if not c["right"])


QUICK = grading.Limits(cell=3, check=2, total=60, memory=512 << 20)
