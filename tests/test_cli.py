"""The command line, and the marks that it writes for a class."""

import csv
import json
import os
import subprocess
import sys

import pytest
from course_helpers import NAME, Notebook, build_tiny
from typer.testing import CliRunner

from dlnotes import cli
from dlnotes.course import marks, sandbox

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="grading needs Linux or macOS")


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    return build_tiny(tmp_path_factory.mktemp("course"))


@pytest.fixture
def folder(layout, tmp_path):
    """A small class, with the ways in which learning platforms name things."""
    right, blank = Notebook(layout), Notebook(layout, blank=True)
    texts = {
        "Müller, José (1).ipynb": right.text(),
        "Müller, José.ipynb": blank.text(),
        "anna/90_tiny.ipynb": right.answer("q2", "def slope(f, x, eps=1e-5):\n    return 0").text(),
        "ANNA.ipynb": blank.insert("import os\nos._exit(1)").text(),
        "=1+1.ipynb": "",
        ".ipynb_checkpoints/anna-checkpoint.ipynb": blank.text(),
        "<b>.ipynb": blank.text(),
    }
    for name, text in texts.items():
        path = tmp_path / "class" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "class"


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


@posix
def test_a_class_is_graded(layout, folder, tmp_path):
    out = tmp_path / "marks.csv"
    done = run("grade", folder, "--out", out, "--root", layout.root, "--jobs", 2)
    assert done.exit_code == 0, done.output
    assert "6 submissions" in done.output
    assert "unreadable: not a notebook that can be read" in done.output
    rows = rows_of(out)
    scores = {file: row["score"] for file, row in rows.items()}
    assert scores == {
        "'=1+1.ipynb": "0",
        "<b>.ipynb": "0",
        "ANNA.ipynb": "0",
        "Müller, José (1).ipynb": "8",
        "Müller, José.ipynb": "0",
        "anna/90_tiny.ipynb": "5",
    }
    assert rows["anna/90_tiny.ipynb"]["student"] == "anna"
    assert rows["anna/90_tiny.ipynb"]["q2"] == "0"
    assert rows["ANNA.ipynb"]["status"] == "cells skipped"
    assert "perhaps the same student as Müller, José" in rows["Müller, José (1).ipynb"]["notes"]
    assert "the same content as" in rows["<b>.ipynb"]["notes"]
    reports = sorted(p.name.casefold() for p in (tmp_path / "marks").iterdir())
    assert len(set(reports)) == 12
    page = next((tmp_path / "marks").glob("_b_*.html")).read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    result = json.loads((tmp_path / "marks" / "Müller, José (1).json").read_text())
    assert result["sandbox"] == sandbox.find().kind

    # Again: the same bytes, and with --resume nothing is graded twice.
    first = {p.name: p.read_bytes() for p in (tmp_path / "marks").iterdir()}
    table = out.read_bytes()
    assert run("grade", folder, "--out", out, "--root", layout.root).exit_code == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "marks").iterdir()} == first
    assert out.read_bytes() == table


@posix
def test_resume_grades_only_what_changed(layout, folder, tmp_path, monkeypatch):
    out = tmp_path / "marks.csv"
    arguments = ["grade", folder, "--out", out, "--root", layout.root, "--resume"]
    assert run(*arguments).exit_code == 0
    table = out.read_bytes()
    graded = []
    real = marks.grade_one
    monkeypatch.setattr(
        marks, "grade_one", lambda job: graded.append(job.submission.file) or real(job)
    )
    assert run(*arguments).exit_code == 0
    assert graded == []
    assert out.read_bytes() == table
    (folder / "<b>.ipynb").write_text(Notebook(layout).text())
    (tmp_path / "marks" / "ANNA.json").write_text("{")
    assert run(*arguments).exit_code == 0
    assert sorted(graded) == ["<b>.ipynb", "ANNA.ipynb"]
    assert rows_of(out)["<b>.ipynb"]["score"] == "8"


@posix
def test_one_submission_alone_and_private_checks(layout, folder, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / f"{NAME}.py").write_text(
        '@test("q1", 2, hint="none")\ndef never(s):\n    assert False, "private"\n'
    )
    out = tmp_path / "one.csv"
    done = run(
        "grade",
        folder / "Müller, José (1).ipynb",
        "--out",
        out,
        "--root",
        layout.root,
        "--checks",
        own,
    )
    assert done.exit_code == 0, done.output
    (row,) = rows_of(out).values()
    assert (row["score"], row["points"], row["q1"]) == ("8", "10", "2")


@posix
def test_without_a_sandbox_it_warns_once(layout, folder, tmp_path):
    out = tmp_path / "marks.csv"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "dlnotes.cli",
            "grade",
            folder,
            "--out",
            out,
            "--root",
            layout.root,
            "--sandbox",
            "none",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.count("WARNING: no sandbox") == 1
    assert {row["sandbox"] for row in rows_of(out).values()} == {"none"}


@posix
def test_check_exercises_passes_and_fails(layout, tmp_path):
    done = run("check-exercises", "--root", layout.root)
    assert done.exit_code == 0, done.output
    assert "90_tiny: 11 submissions graded" in done.output
    text = (layout.solutions / f"{NAME}.py").read_text()
    (tmp_path / "solutions").mkdir()
    bad = text.replace("# expect: is 12, got 24", "# expect: no such words").replace(
        "diverging = ...", 'diverging = "b"'
    )
    (tmp_path / "solutions" / f"{NAME}.py").write_text(bad)
    done = run("check-exercises", "--root", tmp_path)
    assert done.exit_code == 1
    assert "wrong answer 5 (q2: no such words): q2: nothing told contains" in done.output
    assert "q3: the blank gets 1 of 3" in done.output


def test_build_check_shows_a_diff(layout, tmp_path):
    build_tiny(tmp_path / "course")
    root = tmp_path / "course"
    arguments = ["build-exercises", "--root", root, "--no-execute"]
    assert run(*arguments, "--check").exit_code == 0
    path = root / "src" / "dlnotes" / "course" / "checks" / f"{NAME}.py"
    path.write_text(path.read_text().replace("12", "13"))
    done = run(*arguments, "--check")
    assert done.exit_code == 1
    assert "+    assert np.isclose(got, 12.0, rtol=1e-6)" in done.output
    assert "out of step" in done.output
    done = run(*arguments)
    assert done.output == f"wrote src/dlnotes/course/checks/{NAME}.py\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["grade", "nowhere", "--out", "m.csv"], "there is no file or folder nowhere"),
        (["grade", ".", "--out", "m.txt"], "--out must end in .csv"),
        (["grade", ".", "--out", "m.csv", "--checks", "nowhere"], "--checks: there is no folder"),
        (["grade", ".", "--out", "m.csv", "--sandbox", "box"], "sandbox must be auto or one of"),
        (["grade", ".", "--out", "m.csv", "--exercise", "99_x"], "no exercise '99_x'"),
        (["build-exercises", "99_x"], "no exercise '99_x'"),
        (["check-exercises", "99_x"], "no exercise '99_x'"),
        (["export", "--to", "moodle", "--out", "x"], "--to must be one of otter, nbgrader"),
        (["build-exercises", "--root", "nowhere"], "--root: there is no folder nowhere"),
    ],
)
@posix
def test_errors_are_plain(layout, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    if "--root" not in arguments:
        arguments = [*arguments, "--root", str(layout.root)]
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


def test_a_folder_without_notebooks_is_an_error(layout, tmp_path):
    done = run("grade", tmp_path, "--out", tmp_path / "m.csv", "--root", layout.root)
    assert done.exit_code == 2
    assert "no notebooks (*.ipynb)" in done.output or "needs Linux or macOS" in done.output


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom dlnotes.cli import app\n"
        "heavy = {'numpy', 'torch', 'matplotlib', 'nbformat', 'jupytext'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    done = run("--help")
    assert done.exit_code == 0
    for command in ("build-exercises", "check-exercises", "grade", "export", "check-chapter"):
        assert command in done.output


def test_without_fork_grading_says_what_to_do(layout, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "fork", raising=False)
    done = run("grade", tmp_path, "--out", tmp_path / "m.csv", "--root", layout.root)
    assert done.exit_code == 2
    assert "run it in WSL" in done.output


@posix
@pytest.mark.parametrize("others", ["one exercise", "none"])
def test_a_damaged_file_belongs_to_the_exercise_of_the_others(
    layout, tmp_path, monkeypatch, others
):
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "carl.ipynb").write_text('{"cells": 3', encoding="utf-8")
    if others == "one exercise":
        (tmp_path / "class" / "anna.ipynb").write_text(Notebook(layout).text(), encoding="utf-8")
    # As if the course had several exercises, so that a file must say which one it is.
    monkeypatch.setattr(
        marks.grading, "which_exercise", lambda text, stem, known: NAME if stem == "anna" else None
    )
    out = tmp_path / "marks.csv"
    done = run("grade", tmp_path / "class", "--out", out, "--root", layout.root)
    row = rows_of(out)["carl.ipynb"]
    if others == "one exercise":
        assert done.exit_code == 0, done.output
        assert (row["status"], row["score"], row["points"]) == ("unreadable", "0", "8")
    else:
        assert done.exit_code == 1
        assert (row["status"], row["score"]) == ("exercise unknown", "")
        assert "--exercise" in done.output
