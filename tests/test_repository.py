"""The files around the package agree with each other: pins, environments, workflows, texts."""

import ast
import importlib
import inspect
import os
import re
import stat
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from tools import freeze

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = freeze.read_constraints()[1]
CUDA = (
    "cuda12",
    "cuda13",
)  # each for one major version, so with upper bounds, and not both at once
EVERYTHING = [
    *PROJECT["dependencies"],
    *(need for name, needs in EXTRAS.items() if name not in CUDA for need in needs),
]
CORE_AND_BOOK = [*PROJECT["dependencies"], *EXTRAS["book"]]
DOCUMENTED = (  # modules of dlnotes whose docstrings say what is raised
    "autograd",
    "kernels",
    "metrics",
    "models",
    "nn",
    "nn.functional",
    "nn.init",
    "nn.utils",
    "nn.utils.rnn",
    "optim",
    "optim.lr_scheduler",
    "optim.schedules",
    "optim.swa_utils",
)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# ---------------------------------------------------------------- versions


@pytest.mark.parametrize("text", EVERYTHING)
def test_every_dependency_is_pinned_within_its_bounds(text):
    need = Requirement(text)
    pin = PINS[freeze.canonical(need.name)]
    assert need.specifier.contains(pin), f"{text}, but constraints.txt has {pin}"


@pytest.mark.parametrize("extra", CUDA)
def test_extras_for_cuda_keep_to_one_major_version(extra):
    major = int(extra.removeprefix("cuda"))
    needs = {need.name: need.specifier for need in map(Requirement, EXTRAS[extra])}
    suffix = "-cu12" if major == 12 else ""
    assert sorted(needs) == [
        "cuda-bindings", f"nvidia-cuda-nvrtc{suffix}", f"nvidia-cuda-runtime{suffix}"
    ]  # fmt: skip
    for name, bounds in needs.items():
        assert bounds.contains(f"{major}.8")
        assert not bounds.contains(f"{major - 1}.9")
        assert name.endswith("-cu12") or not bounds.contains(f"{major + 1}.0")
    if major == 13:  # what the tests compile with
        assert all(bounds.contains(PINS[freeze.canonical(name)]) for name, bounds in needs.items())


@pytest.mark.parametrize("text", EVERYTHING)
def test_the_package_itself_asks_for_lower_bounds_only(text):
    assert {bound.operator for bound in Requirement(text).specifier} == {">="}


def test_every_dependency_says_what_it_is_for():
    lines = re.findall(r'^  "[\w-]+>=.*$', read("pyproject.toml"), re.MULTILINE)
    assert len(lines) == len(EVERYTHING) + sum(len(EXTRAS[name]) for name in CUDA)
    assert [line for line in lines if not re.search(r",\s*# \S", line)] == []


def test_constraints_name_exact_public_versions_in_order():
    text = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    assert text == [f"{name}=={version}" for name, version in sorted(PINS.items())]
    assert all(Version(version).local is None for version in PINS.values())


@pytest.mark.skipif(
    os.environ.get("DLNOTES_VERSIONS") == "latest", reason="this run is on the newest versions"
)
def test_the_environment_has_the_pinned_versions():
    have = freeze.installed()
    assert {name: have[name] for name in have if PINS.get(name) != have[name]} == {}


def test_only_other_systems_need_what_is_pinned_and_not_installed():
    assert PINS.keys() - freeze.installed().keys() <= set(freeze.PLATFORM_ONLY) | {
        "pexpect",
        "ptyprocess",
    }


def colab_versions() -> dict[str, str]:
    lines = read("tests/colab_versions.txt").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_colab_keeps_its_own_versions():
    """What the set-up cell installs on Colab replaces nothing there, above all not torch."""
    colab = colab_versions()
    new = {"jaxtyping"}  # small, pure Python: the only thing that Colab has to add
    for text in CORE_AND_BOOK:
        need = Requirement(text)
        if need.name in new:
            continue
        assert need.specifier.contains(colab[need.name]), f"{text}; Colab has {colab[need.name]}"
    for name in new:
        for text in metadata.requires(name) or []:
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                assert need.name not in ("numpy", "torch")


# ---------------------------------------------------------------- conda and Binder


def conda() -> tuple[dict[str, str], list[str]]:
    """The conda packages with their versions, and pip's lines."""
    listed = yaml.safe_load(read("environment.yml"))["dependencies"]
    packages = [entry.partition("=") for entry in listed if isinstance(entry, str)]
    (pip,) = [entry["pip"] for entry in listed if isinstance(entry, dict)]
    return {name: version for name, _, version in packages}, pip


def test_conda_and_pip_agree_on_versions():
    packages, pip = conda()
    assert packages.pop("python") == "3.11"
    assert packages.pop("pip") == ""
    assert {name.replace("pytorch-cpu", "torch"): v for name, v in packages.items()} == {
        name: PINS[name] for name in ("numpy", "scipy", "torch")
    }
    assert pip == ["--constraint constraints.txt", "--editable .[book,lab]"]
    assert yaml.safe_load(read("environment.yml"))["channels"] == ["conda-forge"]


def test_conda_brings_a_python_that_the_package_supports():
    assert "3.11" in PROJECT["requires-python"]


def git_mode(name: str) -> str:
    done = subprocess.run(
        ["git", "ls-files", "--stage", "--", name], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.partition(" ")[0] if done.returncode == 0 else ""


@pytest.mark.parametrize("name", ["postBuild", ".ci/run"])
def test_scripts_can_be_executed(name):
    assert read(name).startswith("#!/bin/bash\n")
    if os.name != "nt":
        assert (ROOT / name).stat().st_mode & stat.S_IXUSR
    assert git_mode(name) in ("100755", "")  # "": not a git clone


# ---------------------------------------------------------------- continuous integration


def workflow(name: str) -> dict:
    return yaml.safe_load(read(f".github/workflows/{name}.yml"))


def commands(job: dict) -> str:
    return "\n".join(step.get("run", "") for step in job["steps"])


def test_pushes_are_tested_on_three_systems_like_make_test():
    content = workflow("test")
    assert set(content[True]) == {"push", "pull_request"}  # YAML reads the key `on` as True
    job = content["jobs"]["test"]
    assert set(job["strategy"]["matrix"]["os"]) == {
        "ubuntu-latest",
        "macos-latest",
        "windows-latest",
    }
    assert "tools/setup_env.py" in commands(job)
    assert "tools/run_tests.py" in commands(job)


def test_every_week_the_newest_versions_are_tested():
    content = workflow("latest")
    assert "schedule" in content[True]
    job = content["jobs"]["latest"]
    assert "tools/setup_env.py --latest" in commands(job)
    assert "tools/run_tests.py" in commands(job)
    assert job["env"]["DLNOTES_VERSIONS"] == "latest"


def test_make_test_runs_what_the_workflows_run():
    makefile = read("Makefile")
    assert re.search(r"^test: env\n\t@\$\(RUN\) tools/run_tests.py$", makefile, re.MULTILINE)
    assert "tools/setup_env.py" in makefile
    assert "make test" in read(".ci/run")


# ---------------------------------------------------------------- texts


def test_the_readme_starts_with_how_to_open_and_test_the_book():
    first_screen = "\n".join(read("README.md").splitlines()[:25])
    for command in ("make lab", "make test"):
        assert command in first_screen


def test_every_chapter_stands_in_the_readme_with_its_badges():
    readme = read("README.md")
    for path in sorted((ROOT / "text").glob("*.md")):
        notebook = f"notebooks/{path.stem}.ipynb"
        colab = f"https://colab.research.google.com/github/dlnotes/dlnotes/blob/main/{notebook}"
        assert f"({notebook})" in readme
        assert colab in readme
        assert re.search(
            rf"https://mybinder\.org/v2/gh/dlnotes/dlnotes/\S*{path.stem}\.ipynb", readme
        )


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "LICENSE-TEXT.md"])
def test_links_lead_somewhere(name):
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", read(name))
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_commands_in_the_texts_exist():
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        used = set(re.findall(r"(?:^|`)make ([a-z]+)", read(name), re.MULTILINE))
        assert used <= targets, name
    from typer.main import get_command

    from dlnotes.cli import app

    known = set(get_command(app).commands)
    for name in ("README.md", "CONTRIBUTING.md"):
        used = set(re.findall(r"dlnotes ([a-z]+(?:-[a-z]+)*)(?= [A-Z\d-]|`|$)", read(name), re.M))
        assert used <= known, name


def test_licences_and_citation():
    assert PROJECT["license"] == "MIT AND CC-BY-4.0"
    assert read("LICENSE").startswith("MIT License\n")
    assert "CC BY 4.0" in read("LICENSE-TEXT.md")
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == PROJECT["version"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]


def test_version_is_the_same_everywhere():
    import dlnotes

    assert dlnotes.__version__ == PROJECT["version"]


# ---------------------------------------------------------------- the set-up cell


def run_set_up_cell(monkeypatch, installed: bool) -> list[tuple[list[str], bool]]:
    """Run the cell's installing half; return the commands that it would run."""
    import importlib.util

    calls = []
    monkeypatch.setattr(
        subprocess, "run", lambda command, check=False, **_: calls.append((command, check))
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    source = read("tools/setup_cell.py").partition("\nimport matplotlib")[0]
    exec(compile(ast.parse(source), "setup_cell", "exec"), {})
    return calls


def test_the_set_up_cell_installs_only_the_book_and_only_where_it_is_missing(monkeypatch):
    assert run_set_up_cell(monkeypatch, installed=True) == []
    ((command, check),) = run_set_up_cell(monkeypatch, installed=False)
    assert check
    assert command == [
        *(sys.executable, "-m", "pip", "install", "-q"),
        "dlnotes @ git+https://github.com/dlnotes/dlnotes",  # no extras: torch is Colab's own
    ]


def test_the_set_up_cell_runs_whole_where_the_book_is_installed(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "setup_cell.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "MPLBACKEND": "agg"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---------------------------------------------------------------- docstrings


def public_objects(name: str) -> dict[str, object]:
    """Return the functions and classes that a module of the library offers, by their full names."""
    module = importlib.import_module(name)
    own = [n for n, thing in vars(module).items() if getattr(thing, "__module__", "") == name]
    names = getattr(module, "__all__", [n for n in own if not n.startswith("_")])
    things = {f"{name}.{n}": getattr(module, n) for n in names}
    return {n: t for n, t in things.items() if inspect.isfunction(t) or inspect.isclass(t)}


def docstring_of(thing) -> str:
    """Return the docstring that somebody wrote: none that is inherited or made of the fields."""
    if isinstance(thing, classmethod | staticmethod):
        thing = thing.__func__
    text = (vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__) or ""
    return "" if inspect.isclass(thing) and text.startswith(f"{thing.__name__}(") else text


def without_docstring(name: str, thing) -> list[str]:
    """Return `name` and the public methods below it that have no docstring."""
    parts = {name: thing}
    if inspect.isclass(thing):
        kinds = (classmethod, staticmethod, property)
        for part, value in vars(thing).items():
            if not part.startswith("_") and (inspect.isfunction(value) or isinstance(value, kinds)):
                parts[f"{name}.{part}"] = value
    return [part for part, value in parts.items() if not docstring_of(value)]


def says_what_it_raises(thing) -> bool:
    """Say whether an error stands in the docstring, or in that of a module or package around it."""
    first, *rest = thing.__module__.split(".")
    around = [".".join([first, *rest[:i]]) for i in range(1, len(rest) + 1)]
    texts = [docstring_of(thing), *(sys.modules[module].__doc__ or "" for module in around)]
    return any(re.search(r"\b[A-Z]\w*Error\b", text) for text in texts)


@pytest.mark.parametrize("module", DOCUMENTED)
def test_public_functions_and_classes_say_what_they_do_and_what_they_raise(module):
    things = public_objects(f"dlnotes.{module}")
    assert things
    silent = [part for name, thing in things.items() for part in without_docstring(name, thing)]
    assert not silent, f"without a docstring: {', '.join(silent)}"
    vague = [name for name, thing in things.items() if not says_what_it_raises(thing)]
    assert not vague, f"no error stands in the docstring or its module's: {', '.join(vague)}"


def test_a_docstring_that_nobody_wrote_is_missed():
    class Parent:
        """Somebody wrote this."""

        def method(self): ...

        @property
        def size(self): ...

    class Child(Parent): ...

    class Row(NamedTuple):
        name: str

    Fields = dataclass(type("Fields", (), {"__annotations__": {"name": str}}))
    assert without_docstring("Parent", Parent) == ["Parent.method", "Parent.size"]
    for made in (Child, Row, Fields):
        assert without_docstring("made", made) == ["made"]
    assert not says_what_it_raises(Parent)
    Parent.__doc__ = "Raise ValueError for nothing."
    assert says_what_it_raises(Parent)
    assert not says_what_it_raises(Child)
