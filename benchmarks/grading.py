"""How long a class takes to grade: makes the class, grades it, compares with the bound.

    python benchmarks/grading.py                       # 200 submissions of chapter 2, two jobs
    python benchmarks/grading.py --exercise 01_basics --students 20 --jobs 1
    python benchmarks/grading.py --make my_class       # only write the notebooks

The class is mixed as real ones are: full solutions, typical wrong answers, half-finished notebooks
and blanks, and one student in twenty whose notebook loops, exits, crashes or is corrupt.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from dlnotes.course import build, notebook_format
from dlnotes.course.layout import find_layout

BOUND = 180.0  # seconds for 200 submissions on two cores
HOSTILE = {
    "exits": "import os\nos._exit(0)",
    "leaves": "import sys\nsys.exit(0)",
    "raises": "1 / 0",
    "prints": "for i in range(100_000):\n    print('x' * 100)",
    "spawns": "import subprocess\np = subprocess.Popen(['sleep', '1000'])",
    "patches": "import numpy as np\nnp.allclose = lambda *a, **k: True",
    "loops": "while True:\n    pass",
}


def make_class(exercise: build.Exercise, students: int, seed: int = 0) -> dict[str, str]:
    """Return file name → notebook text for a class; the same for the same seed."""
    rng = random.Random(seed)
    base, _ = build.notebooks(exercise)
    text = notebook_format.dumps(base)
    wrong = {q: [w.source for w in exercise.wrong if w.question == q] for q in exercise.questions}
    files = {}
    for number in range(1, students + 1):
        document = json.loads(text)
        care = rng.random()  # how likely this student is to get a question right
        for cell in document["cells"]:
            tags = cell["metadata"].get("tags", [])
            if "answer" not in tags:
                continue
            q = next(t for t in tags if t in exercise.questions)
            if rng.random() < care:
                cell["source"] = exercise.questions[q].answer
            elif rng.random() < 0.7:
                cell["source"] = rng.choice(wrong[q])
        name = f"student-{number:03}"
        if number % 20 == 0:
            kinds = [*HOSTILE, "corrupt"]
            kind = kinds[number // 20 % len(kinds)]
            name += f"-{kind}"
            if kind == "corrupt":
                files[f"{name}.ipynb"] = json.dumps(document)[: len(text) // 2]
                continue
            cell = {"cell_type": "code", "id": "hostile", "metadata": {}, "outputs": []}
            cell |= {"execution_count": None, "source": HOSTILE[kind]}
            document["cells"].insert(2, cell)
        files[f"{name}.ipynb"] = json.dumps(document)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--exercise", default="02_mlp")
    parser.add_argument("--students", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--root", type=Path, default=None)
    parser.add_argument("--make", type=Path, help="write the class to this folder and stop")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    layout = find_layout(options.root)
    exercise = build.read_master(layout.master(options.exercise))
    files = make_class(exercise, options.students, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        target = options.make or Path(folder) / "class"
        target.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (target / name).write_text(text, encoding="utf-8")
        if options.make:
            print(f"{len(files)} notebooks in {target}")
            return
        from dlnotes.course import marks, sandbox

        found = sandbox.find("auto", (str(layout.solutions), str(target)))
        began = time.monotonic()
        rows = marks.grade_folder(
            target,
            Path(folder) / "marks.csv",
            layout=layout,
            sandbox=found,
            exercise=options.exercise,
            processes=options.jobs,
        )
        seconds = time.monotonic() - began
    count: dict[str, int] = {}
    for row in rows:
        count[row["status"]] = count.get(row["status"], 0) + 1
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{options.exercise}: {len(rows)} submissions, {options.jobs} jobs, {found.kind}{load}")
    print(f"{seconds:.1f} s, {1000 * seconds / len(rows):.0f} ms a submission; {count}")
    bound = BOUND * options.students / 200 * 2 / min(options.jobs, 2)
    if options.students >= 200 and seconds > bound:
        sys.exit(f"slower than the bound of {bound:.0f} s")


if __name__ == "__main__":
    main()
