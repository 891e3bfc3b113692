"""`dlnotes check-chapter`: a good chapter passes, and each rule is seen to be broken."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from dlnotes.course import chapter

ROOT = Path(__file__).resolve().parents[1]
NAME = "07_scratch"

OPENING = """\
# 7 · A scratch chapter

[![Open in Colab](https://img.shields.io/badge/Colab-open-blue)](https://colab.research.google.com/github/dlnotes/dlnotes/blob/main/notebooks/07_scratch.ipynb)
[![Open in Binder](https://img.shields.io/badge/Binder-open-blue)](https://mybinder.org/v2/gh/dlnotes/dlnotes/main?urlpath=lab/tree/notebooks/07_scratch.ipynb)

How long is a line? The figure at the end shows it.

**You will be able to**

1. measure a line;
2. draw it,
   however long it is;
3. say why.

**Reading time:** about 5 minutes · **Running time:** about 2 s on two CPU cores (at full scale:
DLNOTES_SCALE=full)

**Builds on:** nothing.
"""
LENGTH = """\
## 7.1 Length

Drawn with a **pen** (笔) and **ink** (墨水; 墨), the **line** (直线) has the **length** (长度) of
[section 7.2](#7.2-Why), by equation (7.1):

$$\\ell = |b - a| \\tag{7.1}$$

```python
$$ this is code, not a formula, and obviously no prose $$
```
"""
CLOSING = """\
## Summary

| Idea | Formula | In `dlnotes` | When to use |
| --- | --- | --- | --- |
| length | $|b - a|$ | `kernels` | always |

## Key terms

| English | 中文 | Section |
| --- | --- | --- |
| line | 直线 | 7.1 |
| pen, ink | 笔, 墨水 | 7.1 |
| lengths | 长度 | 7.1 |
"""
SELF_TEST = "## Self-test\n\n" + "\n\n".join(
    f"{k}. What is {k} times $x$?\n\n"
    f"<details><summary>Answer</summary>\n\nIt is ${k}x$.\n\n</details>"
    for k in range(1, 11)
)
END = """\
## Exercises

The [exercises](../exercises/07_scratch.ipynb) test every outcome.

## References

- Euclid (1482). Elements. Ratdolt.
- B. Author (1998). A long title that
  runs over two lines. A venue.
- C. Author (2015). Another title. arXiv:1512.00001.

## Where to read on

The [notebook itself](07_scratch.ipynb#7.1-Length).
"""
QUESTION = """\
# %% [markdown] tags=["q{k}", "outcome-{outcome}"]
# ## Question {k} · Title

# %% tags=["answer", "q{k}"]
def f{k}():
    # BEGIN SOLUTION
    return {k}
    # END SOLUTION


# %% [markdown] tags=["reasoning", "q{k}"]
# Because.

# %% tags=["test"]
@test("q{k}", 1.0, hint="think")
def shown_{k}(s):
    assert s.f{k}() == {k}, "no"


@test("q{k}", 1.0, hint="think again", hidden=True)
def hidden_{k}(s):
    assert s.f{k}() == {k}, "no"


# %% tags=["wrong", "q{k}"]
# expect: no
def f{k}():
    return 100


# %% tags=["wrong", "q{k}"]
# expect: no
def f{k}():
    return 200


# %% tags=["wrong", "q{k}"]
# expect: no
def f{k}():
    return 300


"""
MASTER = """\
# %% [markdown]
# # Exercises 7 · A scratch chapter

# %%
from dlnotes.course import Grader

grader = Grader("07_scratch")


""" + "".join(QUESTION.format(k=k, outcome=min(k, 3)) for k in range(1, 6))


def display(text: str, **data: str) -> dict:
    return new_output("display_data", {"text/plain": text, **data})


def code(source: str, *outputs: dict, tags: list[str] | None = None) -> dict:
    cell = new_code_cell(source, execution_count=1, outputs=list(outputs))
    if tags:
        cell.metadata["tags"] = tags
    return cell


PNG = {"image/png": "iVBORw0KGgo="}
DEMO = display("Demo: a line that grows with the slider", **PNG)
CALL = "viz.demo(draw, alt='a line that grows with the slider', a=viz.slider(0, 1, 0.5, label='a'))"


class Scratch:
    """A repository with one good chapter, whose parts a test may break."""

    def __init__(self, root: Path):
        self.root = root
        self.setup = (ROOT / "tools" / "setup_cell.py").read_text(encoding="utf-8")
        self.master = MASTER
        self.cells = {
            "opening": new_markdown_cell(OPENING),
            "setup": code(self.setup.rstrip(), tags=["setup"]),
            "length": new_markdown_cell(LENGTH),
            "twin": code("# equation (7.1)\ncheck.close(abs(3 - 1), 2)"),
            "predict": code(
                "viz.predict('How long?', ['1', '2'], '2', 'it is')\n"
                "viz.predict('How wide?', ['1', '2'], '2', 'it is')",
                display("Predict: How long?"),
            ),
            "demo": code(CALL, DEMO),
            "demo 2": code(CALL, DEMO),
            "demo 3": code(CALL, DEMO),
            "exempt": code(
                "# exempt: it shows an error on purpose\n1 / 0", tags=["raises-exception"]
            ),
            "why": new_markdown_cell("## 7.2 Why\n\nText with `simply` in code."),
            "figure": code(
                "viz.show(fig, alt='a line from the left to the right')",
                display("Figure: a line from the left to the right", **PNG),
            ),
            "closing": new_markdown_cell(CLOSING),
            "self-test": new_markdown_cell(SELF_TEST),
            "end": new_markdown_cell(END),
        }

    def edit(self, name: str, old: str, new: str) -> None:
        assert old in self.cells[name].source
        self.cells[name].source = self.cells[name].source.replace(old, new)

    def problems(self) -> list[chapter.Problem]:
        for folder in ("notebooks", "exercises", "solutions", "tools"):
            (self.root / folder).mkdir(exist_ok=True)
        path = self.root / "notebooks" / f"{NAME}.ipynb"
        nbformat.write(new_notebook(cells=list(self.cells.values())), path)
        (self.root / "exercises" / f"{NAME}.ipynb").write_text("{}", encoding="utf-8")
        (self.root / "tools" / "setup_cell.py").write_text(self.setup, encoding="utf-8")
        if self.master is not None:
            (self.root / "solutions" / f"{NAME}.py").write_text(self.master, encoding="utf-8")
        return chapter.check_chapter(path)


@pytest.fixture
def scratch(tmp_path):
    return Scratch(tmp_path)


def test_a_good_chapter_has_no_problems(scratch):
    assert [str(problem) for problem in scratch.problems()] == []


EDITS = [
    ("opening", "# 7 · A", "# A", "must start with `# 7 · Title`"),
    ("opening", "colab.research.google.com", "example.org", "lacks the Colab badge"),
    ("opening", "mybinder.org", "example.org", "lacks the Binder badge"),
    ("opening", "How long is a line?", "A line is long.", "as a question"),
    ("opening", "The figure at the end", "The end", "point at the figure"),
    ("opening", "1. measure a line;\n", "", "3 to 6 outcomes; found 2"),
    ("opening", "1. measure a line;\n", "- measure a line;\n", "3 to 6 outcomes; found 2"),
    ("opening", "**Reading time:** about 5 minutes", "", "**Reading time:** about N minutes"),
    ("opening", "**Running time:** about 2 s", "", "**Running time:** about N s"),
    ("opening", "about 2 s", "about 91 s", "runs for 91 s; 90 s are allowed"),
    ("opening", "**Builds on:**", "", "lacks `**Builds on:** …`"),
    ("opening", "DLNOTES_SCALE", "", "how to run at full scale"),
    ("setup", "manual_seed(0)", "manual_seed(1)", "differs from tools/setup_cell.py"),
    ("length", "7.1 Length", "7.3 Length", "must be numbered 7.1"),
    ("length", "\\tag{7.1}", "", "a displayed formula without \\tag{7.k}"),
    ("length", "\\tag{7.1}", "\\tag{8.1}", "formula (8.1) must be numbered 7.k"),
    ("length", "equation (7.1)", "equation (7.2)", "refers to equation (7.2)"),
    ("length", "(长度)", "", "'lengths' is not introduced in the text as **lengths** (长度)"),
    ("length", "(长度)", "(长短)", "'lengths' is 长度 in the table, 长短 in the text"),
    ("length", "the **line**", "the **dot** (点) and **line**", "**dot** is introduced but"),
    ("length", "#7.2-Why", "#why", "#why: no such heading"),
    ("length", "Drawn with", "Simply drawn with", "the word 'Simply'"),
    ("length", "the **line**", "\U0001f600 the **line**", "the emoji"),
    ("length", "the **line**", "![](x.png) the **line**", "x.png has no alternative text"),
    ("length", "the **line**", "<img src='x.png'> the **line**", "an <img> without"),
    ("length", "the **line**", "[a](gone.ipynb) **line**", "gone.ipynb does not exist"),
    ("twin", "# equation (7.1)", "", "formula (7.1) has no twin"),
    ("twin", "# equation (7.1)", "# equation (7.9)", "there is no such formula"),
    ("twin", "check.close(abs(3 - 1), 2)", "abs(3 - 1)", "the twin of formula (7.1) checks"),
    ("twin", "check.close", "plt.show()\ncheck.close", "plt.show() leaves no alternative text"),
    ("twin", "check.close", "x = 1\n" * 30 + "check.close", "32 lines of code; aim at 25"),
    ("predict", "viz.predict('How long?'", "print('How long?'", "found 1"),
    ("demo", "viz.demo", "viz.demonstrate", "3 viz.demo or more are needed, found 2"),
    ("figure", "viz.show", "viz.display", "viz.show(fig, alt=…) is never called"),
    ("exempt", "# exempt: it shows an error on purpose\n", "", "must start with `# exempt: why`"),
    ("why", "7.2 Why", "Why", "section 'Why' must be numbered 7.2"),
    ("closing", "## Summary", "", "lacks the closing section `## Summary`"),
    ("closing", "| When to use ", "", "Summary needs a table"),
    ("closing", "| line | 直线 | 7.1 |", "| line | line | 7.1 |", "'line' has no Chinese name"),
    ("closing", "| English | 中文 | Section |\n", "", "Key terms needs a table"),
    ("closing", "## Key terms", "## Key terms\n\n## More", "'More' stands after 'Key terms'"),
    ("closing", "## Summary", "## Summary\n\n## Summary", "`## Summary` stands more than once"),
    ("self-test", "10. What", "And what", "self-test"),
    ("self-test", "</summary>\n\n", "</summary>\n", "leave an empty line after </summary>"),
    ("self-test", "<summary>Answer</summary>", "", "<details> lacks its <summary>"),
    ("end", "../exercises/07_scratch.ipynb", "07_scratch.ipynb", "Exercises does not link to"),
    ("end", " (2015)", "", "no year in the reference 'C. Author"),
    ("end", "- Euclid (1482). Elements. Ratdolt.\n", "", "3 entries or more, found 2"),
    ("end", "## References", "# References", "a second title"),
]


@pytest.mark.parametrize(("cell", "old", "new", "message"), EDITS)
def test_each_broken_rule_is_named(scratch, cell, old, new, message):
    if message == "self-test":  # fewer than ten folded answers
        scratch.cells[cell].source = scratch.cells[cell].source.rpartition("<details>")[0]
        message = "10 questions with answers in <details>, found 9"
    elif message == "Key terms needs a table":
        scratch.edit(
            cell,
            "| line | 直线 | 7.1 |\n| pen, ink | 笔, 墨水 | 7.1 |\n| lengths | 长度 | 7.1 |\n",
            "",
        )
        scratch.edit(cell, old, new)
    else:
        scratch.edit(cell, old, new)
    said = [str(problem) for problem in scratch.problems()]
    assert any(message in line for line in said), said


def test_problems_name_cell_and_line(scratch):
    scratch.edit("length", "```\n", "```\n\nObviously.\n")
    (problem,) = scratch.problems()
    assert str(problem) == "cell 3, line 12: the word 'Obviously' [prose]"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"outcome-3"', '"outcome-2"', "no question tests outcome 3"),
        ('"outcome-1"', '"outcome-4"', "q1 tests outcome 4, which is not promised"),
        ("# expect: no\ndef f2():\n    return 300\n", "", "q2 lacks three typical wrong answers"),
    ],
)
def test_the_exercises_are_part_of_the_chapter(scratch, old, new, message):
    if old.startswith("# expect"):
        head, mark, tail = scratch.master.rpartition('# %% tags=["wrong", "q2"]\n' + old)
        assert mark
        scratch.master = head + tail
    else:
        assert old in scratch.master
        scratch.master = scratch.master.replace(old, new)
    said = [str(problem) for problem in scratch.problems()]
    assert any(message in line for line in said), said


def test_too_few_questions_and_a_missing_master(scratch):
    scratch.master = MASTER.partition('# %% [markdown] tags=["q4"')[0]
    assert any("5 questions or more are needed, found 3" in str(p) for p in scratch.problems())
    (scratch.root / "solutions" / f"{NAME}.py").unlink()
    scratch.master = None
    assert any("there is no solutions/07_scratch.py" in str(p) for p in scratch.problems())


def test_pictures_need_a_described_source(scratch):
    for said, message in (
        ("<Figure size 640x480 with 1 Axes>", "a picture without alternative text"),
        ("Figure: a line", "the alternative text 'a line' says too little"),
    ):
        scratch.cells["figure"].outputs = [display(said, **PNG)]
        assert any(message in str(problem) for problem in scratch.problems())


def test_a_demo_needs_its_still_picture(scratch):
    scratch.cells["demo"].outputs = []
    (problem,) = scratch.problems()
    assert "viz.demo left no still picture" in problem.message


def test_stored_outputs_are_stable(scratch):
    scratch.cells["twin"].outputs = [new_output("stream", name="stderr", text="Warning")]
    scratch.cells["figure"].outputs += [new_output("stream", name="stdout", text="0.5")]
    said = [problem.message for problem in scratch.problems()]
    assert said == ["a stored warning or progress bar (stderr)", "print and plot in separate cells"]


def test_the_set_up_cell_is_tagged_and_first(scratch):
    scratch.cells["setup"].metadata.pop("tags")
    assert [p.rule for p in scratch.problems()] == ["set-up"]
    scratch.cells["setup"].metadata["tags"] = ["setup"]
    scratch.cells["twin"].metadata["tags"] = ["setup"]
    assert [p.rule for p in scratch.problems()] == ["set-up"]


def test_closing_sections_come_in_order(scratch):
    cells = scratch.cells
    cells["self-test"], cells["end"] = cells["end"], cells["self-test"]
    assert any("must come in the order" in problem.message for problem in scratch.problems())


def test_the_report_counts_and_sets_the_exit_status(scratch, monkeypatch, capsys):
    monkeypatch.chdir(scratch.root)
    assert scratch.problems() == []
    assert chapter.report([NAME]) == 0
    assert capsys.readouterr().out == "07_scratch: 0 problems, 0 warnings\n"
    scratch.edit("opening", "DLNOTES_SCALE", "")
    scratch.problems()
    assert chapter.report([NAME]) == 0  # a warning alone does not fail
    scratch.edit("opening", "**Builds on:**", "")
    scratch.problems()
    capsys.readouterr()
    assert chapter.report([f"notebooks/{NAME}.ipynb"]) == 1
    assert "07_scratch: 1 problems, 1 warnings" in capsys.readouterr().out


def test_an_unknown_chapter_is_named_with_the_known_ones(scratch, monkeypatch, capsys):
    scratch.problems()
    monkeypatch.chdir(scratch.root)
    assert chapter.report(["08_gone"]) == 1
    assert "no chapter '08_gone'; there are: 07_scratch" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_the_chapters_of_the_book_keep_every_rule(path):
    broken = [str(p) for p in chapter.check_chapter(path) if not p.warning]
    assert not broken, "\n".join(broken)


def test_the_command_line_reports_and_fails(scratch, monkeypatch):
    from typer.testing import CliRunner

    from dlnotes.cli import app

    monkeypatch.chdir(scratch.root)
    scratch.edit("opening", "**Builds on:**", "")
    scratch.problems()
    done = CliRunner().invoke(app, ["check-chapter", NAME])
    assert done.exit_code == 1
    assert "cell 1: lacks `**Builds on:** …` [opening]" in done.output
    assert CliRunner().invoke(app, ["check-chapter", "--help"]).exit_code == 0
