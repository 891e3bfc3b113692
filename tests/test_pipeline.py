"""The tools behind `make`: text twins, the environment, JupyterLab's command line."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from dlnotes.course.notebook_format import dumps
from tools import lab, notebooks, run_tests, setup_env

ROOT = Path(__file__).resolve().parents[1]
TEXT = """\
# 9 · A title

Text with $x$.

+++

A second cell of text.

```{code-cell}
:tags: [setup]

x=1
```

```{code-cell}
print( x )
```
"""


@pytest.fixture
def chapter(tmp_path):
    """A built chapter in a folder of its own; it is not executed again for every test."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "09_x.md").write_text(TEXT, encoding="utf-8")
    made = notebooks.Chapter("09_x", tmp_path)
    nb = notebooks.formatted(made.read_text(), "09_x")
    made.write(made.text, notebooks.to_text(nb))
    for count, cell in enumerate((c for c in nb.cells if c.cell_type == "code"), start=1):
        cell.execution_count = count
    nb.cells[-1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="1\n")]
    made.write_notebook(nb)
    return made


def snapshot(chapter) -> list[tuple[bytes, int]]:
    files = (chapter.text, chapter.notebook)
    return [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]


def test_a_built_chapter_is_in_step(chapter, capsys):
    assert notebooks.problems(chapter) == []
    assert notebooks.check([chapter]) == 0
    text = chapter.text.read_text(encoding="utf-8")
    assert "jupytext_version" not in text  # else every release of jupytext changes every file
    assert "x = 1" in text  # laid out by ruff
    assert "print(x)" in text


def test_building_twice_gives_the_same_bytes_and_writes_nothing(chapter, capsys):
    notebooks.build(chapter)  # executes: the same output as the fixture's
    before = snapshot(chapter)
    capsys.readouterr()
    notebooks.build(chapter)
    assert snapshot(chapter) == before
    assert "wrote" not in capsys.readouterr().out
    notebooks.rerun(chapter)
    notebooks.pair(chapter)
    assert snapshot(chapter) == before


def test_text_and_notebook_are_the_same_cells(chapter):
    again = notebooks.from_text(chapter.text.read_text(encoding="utf-8"), "09_x")
    assert notebooks.same_sources(again, chapter.read_notebook())
    assert [c.cell_type for c in again.cells] == ["markdown", "markdown", "code", "code"]
    assert again.cells[2].metadata.tags == ["setup"]


def test_a_changed_text_is_out_of_step(chapter):
    text = chapter.text.read_text(encoding="utf-8")
    chapter.text.write_text(text.replace("x = 1", "x = 2"), encoding="utf-8")
    (problem,) = notebooks.problems(chapter)
    assert problem.startswith("text/09_x.md and notebooks/09_x.ipynb differ")


def test_a_text_in_another_form_is_out_of_step(chapter):
    text = chapter.text.read_text(encoding="utf-8")
    chapter.text.write_text(text.replace("```{code-cell}", "```{code-cell} ipython3"), "utf-8")
    (problem,) = notebooks.problems(chapter)
    assert problem.startswith("text/09_x.md is not in canonical form")


def test_a_changed_notebook_is_out_of_step_until_it_is_paired(chapter):
    nb = chapter.read_notebook()
    nb.cells[0].source += "!"
    chapter.notebook.write_text(nbformat.writes(nb), encoding="utf-8")
    assert len(notebooks.problems(chapter)) == 2  # neither the twin's cells nor in normal form
    notebooks.pair(chapter)
    assert notebooks.problems(chapter) == []
    assert "$x$.!" in chapter.text.read_text(encoding="utf-8")


def test_a_notebook_that_is_not_in_normal_form_is_named(chapter):
    nb = chapter.read_notebook()
    nb.metadata["widgets"] = {}
    chapter.notebook.write_text(nbformat.writes(nb), encoding="utf-8")
    (problem,) = notebooks.problems(chapter)
    assert problem.startswith("notebooks/09_x.ipynb is not in normal form")


def test_a_cell_that_was_never_run_is_named(chapter):
    nb = chapter.read_notebook()
    nb.cells[-2].execution_count, nb.cells[-1].execution_count = None, 1
    chapter.notebook.write_text(dumps(nb), encoding="utf-8")
    (problem,) = notebooks.problems(chapter)
    assert problem.startswith("notebooks/09_x.ipynb: cell 3 was never run")


def test_a_missing_twin_is_named(chapter):
    text = chapter.text.read_text(encoding="utf-8")
    chapter.text.unlink()
    assert notebooks.problems(chapter)[0].startswith("notebooks/09_x.ipynb has no twin")
    with pytest.raises(SystemExit, match=r"text/09_x\.md does not exist"):
        notebooks.build(chapter)
    chapter.text.write_text(text, encoding="utf-8")
    chapter.notebook.unlink()
    assert notebooks.problems(chapter)[0].startswith("text/09_x.md has no notebook")


def test_code_that_cannot_be_parsed_is_refused(chapter):
    text = chapter.text.read_text(encoding="utf-8")
    chapter.text.write_text(text.replace("x = 1", "x = ("), encoding="utf-8")
    with pytest.raises(SystemExit, match="the code cannot be formatted"):
        notebooks.build(chapter)


def test_all_chapters_are_meant_when_none_is_named(chapter):
    found = notebooks.chapters([], chapter.root)
    assert [c.slug for c in found] == ["09_x"]
    assert [c.slug for c in notebooks.chapters(["text/02_mlp.md", "01_basics"])] == [
        "02_mlp",
        "01_basics",
    ]


# ---------------------------------------------------------------- the environment


def test_the_environment_is_installed_again_only_when_something_changed(monkeypatch, tmp_path):
    ran = []
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("one", encoding="utf-8")
    monkeypatch.setattr(setup_env, "ROOT", tmp_path)
    monkeypatch.setattr(setup_env, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(setup_env, "works", lambda: True)
    monkeypatch.setattr(setup_env, "run", lambda *command: ran.append(command))
    monkeypatch.setattr(sys, "argv", ["setup_env.py"])
    setup_env.main()
    setup_env.main()
    assert len(ran) == 1
    assert ran[0][-4:] == ("--constraint", "constraints.txt", "--editable", ".[book,lab,dev]")
    (tmp_path / "constraints.txt").write_text("two", encoding="utf-8")
    setup_env.main()
    assert len(ran) == 2
    monkeypatch.setattr(sys, "argv", ["setup_env.py", "--latest"])
    setup_env.main()
    assert "--constraint" not in ran[2]
    assert "--upgrade" in ran[2]


def test_a_failed_installation_leaves_no_stamp(monkeypatch, tmp_path):
    for name in ("pyproject.toml", "constraints.txt", "stamp"):
        (tmp_path / name).write_text("one", encoding="utf-8")

    def fail(*command):
        raise SystemExit("pip failed")

    monkeypatch.setattr(setup_env, "ROOT", tmp_path)
    monkeypatch.setattr(setup_env, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(setup_env, "works", lambda: True)
    monkeypatch.setattr(setup_env, "run", fail)
    monkeypatch.setattr(sys, "argv", ["setup_env.py"])
    with pytest.raises(SystemExit, match="pip failed"):
        setup_env.main()
    assert not (tmp_path / "stamp").exists()


def test_an_old_python_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr(setup_env.sys, "version_info", (3, 10, 4))
    monkeypatch.setattr(sys, "argv", ["setup_env.py"])
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer.*make PYTHON="):
        setup_env.main()


# ---------------------------------------------------------------- JupyterLab and the tests


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="these always have a display")
def test_without_a_display_the_address_is_printed(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not lab.has_browser()
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(lab.webbrowser, "get", lambda: object())
    assert lab.has_browser()

    def none():
        raise lab.webbrowser.Error("no browser")

    monkeypatch.setattr(lab.webbrowser, "get", none)
    assert not lab.has_browser()


def test_jupyterlab_is_told_what_it_needs(monkeypatch):
    monkeypatch.setattr(lab, "is_root", lambda: True)
    told = lab.command("--port=9999", browser=False)
    assert told[0] == sys.executable
    assert {"--no-browser", "--allow-root", f"--ServerApp.root_dir={ROOT}"} <= set(told)
    assert told[-1] == "--port=9999"
    monkeypatch.setattr(lab, "is_root", lambda: False)
    told = lab.command(browser=True)
    assert not {"--no-browser", "--allow-root"} & set(told)


def test_the_tests_are_strict_and_the_last_step_always_runs_tests():
    (nbval,) = run_tests.commands("notebooks")
    assert {"--nbval", "--nbval-current-env", "tools.nbval_gates", "loadfile"} <= set(nbval)
    assert not any("lax" in part or "sanitize" in part for part in nbval)
    assert run_tests.STEPS[-1] == "unit"  # the browser's may all be skipped
    with pytest.raises(SystemExit, match="no step 'x'; there are: lint, notebooks, browser, unit"):
        run_tests.commands("x")


def test_a_failing_step_fails_the_run_and_the_next_one_still_runs(monkeypatch, capsys, tmp_path):
    done = []

    def commands(step):
        mark = tmp_path / step
        code = f"open({str(mark)!r}, 'w').close(); raise SystemExit({int(step == 'lint')})"
        done.append(mark)
        return [[sys.executable, "-c", code]]

    monkeypatch.setattr(run_tests, "commands", commands)
    assert run_tests.main(["lint", "unit"]) == 1
    assert all(mark.exists() for mark in done)
    assert "FAILED lint" in capsys.readouterr().err
    assert run_tests.main(["unit"]) == 0


@pytest.mark.skipif(os.name == "nt", reason="make is not used on Windows")
def test_make_without_a_target_lists_the_commands():
    if subprocess.run(["make", "--version"], capture_output=True).returncode != 0:
        pytest.skip("make is not installed")
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    for target in ("lab", "test", "notebooks", "exercises", "lint", "format", "clean"):
        assert f"make {target} " in done.stdout
