"""Masters: what is built from them, that it is the same each time, and what is refused."""

import json
import shutil
import sys
import types

import nbformat
import pytest
from course_helpers import NAME, TINY, build_tiny

from dlnotes.course import build, cases, export, notebook_format
from dlnotes.course.layout import Layout, find_layout
from dlnotes.course.notebook import CHECKS_FOLDER, Grader, Report

MASTER = TINY / "solutions" / f"{NAME}.py"


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    return build_tiny(tmp_path_factory.mktemp("course"))


@pytest.fixture(scope="module")
def exercise(layout):
    return build.read_master(layout.master(NAME))


def sources(nb):
    return ["".join(c["source"]) for c in nb["cells"]]


def test_built_twice_it_has_the_same_bytes_and_the_solution_runs(tmp_path):
    (tmp_path / "solutions").mkdir()
    shutil.copy(MASTER, tmp_path / "solutions")
    layout = Layout(tmp_path)
    files = build.build(layout, NAME)
    assert len(build.write(files)) == 4
    assert build.build(layout, NAME) == files
    assert build.write(files) == []
    assert build.differences(files, tmp_path) == []
    solution = files[layout.solutions / f"{NAME}.ipynb"]
    assert "Visible checks: 2 of 2 points." in solution
    assert "✗" not in solution
    # Without running: the stored outputs stay.
    assert build.build(layout, NAME, execute=False) == files
    path = layout.exercises / f"{NAME}.ipynb"
    path.write_text(path.read_text().replace("Softmax", "Sofmax"))
    (diff,) = build.differences(files, tmp_path)
    assert '-    "## Question 1 · Sofmax' in diff
    assert '+    "## Question 1 · Softmax' in diff


def test_the_student_gets_no_solution_and_no_hidden_check(layout):
    nb = nbformat.read(layout.exercises / f"{NAME}.ipynb", 4)
    text = "\n".join(sources(nb))
    for secret in ("np.exp", "SOLUTION", "BLANK", "Typical wrong", "cancels", "@test"):
        assert secret not in text
    assert text.count('raise NotImplementedError("your code here")') == 4
    assert "diverging = ...\n" in text
    assert [s for s in sources(nb) if s.startswith("grader.")] == [
        'grader.check("q1")',
        'grader.check("q2")',
        'grader.check("q3")',
        "grader.score()",
    ]
    assert all(
        c.execution_count is None and not c.outputs for c in nb.cells if c.cell_type == "code"
    )
    visible = (layout.visible / f"{NAME}.py").read_text()
    assert "large_entries" not in visible
    assert "stays hidden" not in visible
    assert "hidden=True" not in visible


def test_the_solution_holds_reasoning_and_wrong_answers(layout):
    text = "\n".join(sources(nbformat.read(layout.solutions / f"{NAME}.ipynb", 4)))
    assert "it cancels" in text
    assert "<summary>exp overflows</summary>" in text
    assert "SOLUTION" not in text


def test_points_and_outcomes(exercise):
    assert {q: (x.visible, x.hidden) for q, x in exercise.questions.items()} == {
        "q1": (1, 1),
        "q2": (1, 2),
        "q3": (2, 1),
    }
    assert exercise.questions["q3"].outcomes == [1, 3]
    assert exercise.title == "90 · A tiny exercise"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("    # END SOLUTION\n", "", "# BEGIN SOLUTION without # END SOLUTION"),
        ("# BLANK: diverging = ...\n", "", "outside a function needs # BLANK: lines"),
        ('Grader("90_tiny")', 'Grader("91")', 'must contain: grader = Grader("90_tiny")'),
        ("# # 90 · A tiny exercise", "# ## A tiny exercise", "no title"),
        ("## Question 2 ·", "## Question 3 ·", "its title says Question 3, its tag q2"),
        ("## Question 2 · Numeric", "Numeric", "q2 lacks a markdown cell that starts with"),
        ('["q1", "outcome-1"]', '["q1"]', "q1 lacks a tag such as `outcome-2`"),
        ('["answer", "q2"]', '["answer", "q1"]', "q1 has a second answer cell"),
        ('["reasoning", "q2"]', '["reasoning"]', "tag `reasoning` needs one question tag"),
        ("# expect: one-sided?\n", "", "its first line must be `# expect:"),
        ('hint="counts.get(key, 0)"', 'hint=""', "check counts has no hint"),
        ('@test("q2", 1,', '@test("q5", 1,', "no question q5"),
        ('@test("q2", 1,', '@test("q2", -1,', "points must be a positive number"),
        ("def cube(s):", "def cube(s:", "never closed"),
        ("def order(s):", "def cube(s):", "two checks of q2 are called cube"),
    ],
)
def test_a_bad_master_is_refused_with_every_problem(tmp_path, old, new, problem):
    text = MASTER.read_text()
    assert old in text
    (tmp_path / "solutions").mkdir()
    path = tmp_path / "solutions" / f"{NAME}.py"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(build.MasterError) as error:
        build.read_master(path)
    assert problem in str(error.value)


def test_too_few_wrong_answers_are_refused(tmp_path):
    text = MASTER.read_text()
    start = text.index('# %% tags=["wrong", "q3"]')
    (tmp_path / f"{NAME}.py").write_text(text[:start])
    with pytest.raises(build.MasterError, match="q3 lacks three typical wrong answers or more"):
        build.read_master(tmp_path / f"{NAME}.py")


def test_hidden_cells_stay_hidden(tmp_path):
    text = MASTER.read_text().replace(
        '# %% tags=["wrong", "q3"]',
        '# %% tags=["test", "hidden"]\nSECRET = 5\n\n\n@test("q3", 1, hint="none")\n'
        'def another(s):\n    """another"""\n\n\n# %% tags=["wrong", "q3"]',
        1,
    )
    (tmp_path / f"{NAME}.py").write_text(text)
    exercise = build.read_master(tmp_path / f"{NAME}.py")
    assert exercise.questions["q3"].hidden == 2
    assert "SECRET" in exercise.checks
    assert "SECRET" not in exercise.visible_checks


def test_an_unknown_exercise_is_refused(layout):
    with pytest.raises(ValueError, match=r"no exercise '91' .*there are: 90_tiny"):
        layout.master("91")


def test_the_layout_is_found_from_below(layout):
    below = layout.root / "exercises"
    assert find_layout(below) == Layout(layout.root.resolve())


def test_cells_that_only_show_are_told_apart(tmp_path):
    text = MASTER.read_text().replace(
        '# %% [markdown] tags=["q2", "outcome-2"]',
        '# %% tags=["look"]\nprint("curves")\n\n# %% [markdown] tags=["q2", "outcome-2"]',
    )
    (tmp_path / f"{NAME}.py").write_text(text)
    exercise = build.read_master(tmp_path / f"{NAME}.py")
    assert exercise.shown == ['print("curves")']
    assert len(exercise.given) == 1
    assert 'print("curves")' in sources(build.notebooks(exercise)[0])


# In the student's notebook.


@pytest.fixture
def notebook(layout, monkeypatch):
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setenv(CHECKS_FOLDER, str(layout.visible))
    return vars(main)


def test_the_notebook_is_told_what_is_wrong_and_the_hint(notebook):
    grader = Grader(NAME)
    report = repr(grader.check("q2"))
    assert "slope is not defined: run the cell that defines it" in report
    assert "Hint: f(x + eps)" in report
    notebook["slope"] = lambda f, x, eps=1e-5: 24.0
    assert "✗ the slope of x³ at 2: the slope of x**3 at 2 is 12, got 24.0" in repr(
        grader.check("q2")
    )
    notebook["slope"] = lambda f, x, eps=1e-5: 12.0
    assert repr(grader.check("q2")).splitlines() == [
        "Question 2 · Numeric derivative",
        "  ✓ the slope of x³ at 2",
        "Visible checks: 1 of 1 point.",
        "1 hidden check (2 points) runs when the notebook is graded.",
    ]


def test_the_notebook_score(notebook):
    notebook["diverging"] = "b"
    report = repr(Grader(NAME).score())
    assert report.startswith("Exercise 90_tiny: 1 of 4 points on the visible checks")
    assert "✗ q3 · A counter and a diagnosis: 1 of 2 points" in report
    assert "A further 4 points come from hidden checks" in report


def test_the_report_is_escaped_and_says_more_than_a_colour():
    page = Report("t", [(True, "<b>"), (False, "x")], ["c"])._repr_html_()
    assert "&lt;b&gt;" in page
    assert "✓ right" in page
    assert "✗ not yet" in page
    assert 'role="status"' in page


def test_wrong_names_are_refused(notebook):
    with pytest.raises(ValueError, match="exercise must be one of"):
        Grader("91_none")
    with pytest.raises(ValueError, match=r"question must be one of \['q1', 'q2', 'q3'\]"):
        Grader(NAME).check("q4")


# Running a check.


def outcome(body, **names):
    (case,) = cases.load(f'@test("q1", 1, hint="h")\ndef f(s):\n{body}', "f")
    return cases.run(case, types.SimpleNamespace(**names))


def test_messages_tell_apart_who_failed():
    def student(x):
        raise KeyError("k")

    assert outcome("    s.f(1)", f=student).message == "your code raised: KeyError: 'k'"
    got = outcome("    s.f(1).sum()", f=lambda x: None).message
    assert got.startswith("the check could not use what your code returned: AttributeError")
    assert outcome("    assert False").message == "not what was asked for"
    assert outcome("    raise NotImplementedError").kind == "blank"
    assert len(outcome("    assert False, 'x' * 5000").message) == cases.MESSAGE_LIMIT
    assert outcome("    pass").right


def test_checks_leave_numpys_generator_as_it_was():
    import numpy as np

    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    outcome("    np.random.rand()")
    assert np.random.rand() == expected


def test_helpers():
    import numpy as np

    with cases.raises(ValueError):
        raise ValueError
    with (
        pytest.raises(AssertionError, match="expected ValueError for x, but nothing"),
        cases.raises(ValueError, "x"),
    ):
        pass
    with pytest.raises(NotImplementedError), cases.raises(RuntimeError):
        raise NotImplementedError
    x = np.ones(2)
    with pytest.raises(AssertionError, match="changed its input x in place"), cases.unchanged(x=x):
        x += 1
    assert cases.array([1, 2]).tolist() == [1, 2]
    assert cases.module(types.SimpleNamespace(), "math").sqrt(4) == 2


# Notebooks in normal form.


def test_normal_form_folds_the_cells_that_say_so():
    v4 = nbformat.v4
    cells = [v4.new_code_cell("x", metadata={"tags": ["hide-input"]}), v4.new_code_cell("y")]
    folded, shown = notebook_format.normalize(v4.new_notebook(cells=cells), "01")["cells"]
    assert folded["metadata"]["jupyter"] == {"source_hidden": True}
    assert "jupyter" not in shown["metadata"]


def test_normal_form_is_stable_and_forgets_the_session():
    v4 = nbformat.v4
    view = "application/vnd.jupyter.widget-view+json"
    display = v4.new_output(
        "display_data", {view: {"model_id": "x"}, "image/png": "AA==", "text/plain": "Demo"}
    )
    only_view = v4.new_output("display_data", {view: {"model_id": "x"}})
    streams = [v4.new_output("stream", name="stdout", text=t) for t in ("a\n", "1%\r2%\n")]
    cell = v4.new_code_cell(
        "x",
        execution_count=7,
        outputs=[display, only_view, *streams],
        metadata={"execution": {"t": "1"}, "tags": ["setup"]},
    )
    nb = v4.new_notebook(
        cells=[cell, v4.new_code_cell("y"), v4.new_code_cell("y")],
        metadata={"widgets": {}, "kernelspec": {"name": "conda", "display_name": "conda"}},
    )
    normal = notebook_format.normalize(nb, "01")
    assert notebook_format.dumps(normal) == notebook_format.dumps(
        notebook_format.normalize(normal, "01")
    )
    outputs = normal["cells"][0]["outputs"]
    assert [o["output_type"] for o in outputs] == ["display_data", "stream"]
    assert set(outputs[0]["data"]) == {"image/png", "text/plain"}
    assert outputs[1]["text"] == "a\n2%\n"
    assert normal["cells"][0]["execution_count"] == 1
    assert normal["cells"][0]["metadata"] == {"tags": ["setup"]}
    assert "widgets" not in normal["metadata"]
    ids = [c["id"] for c in normal["cells"]]
    assert ids[2] == ids[1] + "-1"
    assert notebook_format.normalize(nb, "02")["cells"][0]["id"] != ids[0]
    assert nb["cells"][0]["execution_count"] == 7, "the argument was changed"


# For other graders.


def stub_otter(monkeypatch):
    found = []

    def test_case(**about):
        return lambda f: found.append((about, f)) or f

    module = types.ModuleType("otter.test_files")
    module.test_case = test_case
    monkeypatch.setitem(sys.modules, "otter", types.ModuleType("otter"))
    monkeypatch.setitem(sys.modules, "otter.test_files", module)
    return found


def test_export_to_otter(exercise, monkeypatch):
    files = export.otter(exercise)
    notebook = nbformat.reads(files["90_tiny.ipynb"], 4)
    assert "otter.Notebook" in notebook.cells[1].source
    assert "np.exp" not in files["90_tiny.ipynb"]
    right, blank = {}, {}
    for question in exercise.questions.values():
        exec("import numpy as np\n" + question.answer, right)
        exec("import numpy as np\n" + question.blank, blank)
    points = 0
    for q in exercise.questions:
        found = stub_otter(monkeypatch)
        exec(files[f"tests/{q}.py"], {})
        for about, function in found:
            points += about["points"]
            function(right)
            with pytest.raises((AssertionError, NotImplementedError)):
                function(blank)
    assert points == 8


def test_exports_offer_every_helper_of_checks():
    names = {}
    exec(export._PREPARE, names)
    assert {name: names[name] for name in cases.HELPERS} == cases.HELPERS
    assert "kernel" in cases.HELPERS


def test_export_to_nbgrader(exercise):
    ((path, text),) = export.nbgrader(exercise).items()
    assert path == "source/90_tiny/90_tiny.ipynb"
    nb = nbformat.reads(text, 4)
    names: dict = {}
    points, hidden = 0, 0
    for cell in nb.cells:
        about = cell.metadata["nbgrader"]
        points += about.get("points", 0)
        hidden += cell.source.count("### BEGIN HIDDEN TESTS")
        if cell.cell_type == "code" and "Grader(" not in cell.source:
            exec("import numpy as np\n" + cell.source, names)
    assert (points, hidden) == (8, 3)
    ids = [c.metadata["nbgrader"]["grade_id"] for c in nb.cells]
    assert len(set(ids)) == len(ids)
    assert json.loads(text)["cells"][2]["metadata"]["nbgrader"]["locked"]


def test_export_elsewhere_is_refused(layout):
    with pytest.raises(ValueError, match="--to must be one of otter, nbgrader, got 'moodle'"):
        export.export(layout, NAME, "moodle")
