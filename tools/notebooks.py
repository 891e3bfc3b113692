"""Keep the book's notebooks and their text twins in step.

    python tools/notebooks.py build [NAME ...]    text → executed, normalised notebook
    python tools/notebooks.py execute [NAME ...]  run the stored notebook again
    python tools/notebooks.py pair [NAME ...]     notebook → text (after an edit in JupyterLab)
    python tools/notebooks.py check [NAME ...]    fail if anything is out of step (runs nothing)

NAME is a chapter such as 01_basics, or the path of its text or notebook; without one, all
chapters. A file is written only when its content changes, so a second run changes nothing.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dlnotes.course.notebook_format import dumps, execute, normalize  # noqa: E402
from tools.pictures import keep_equal_pictures  # noqa: E402

TEXT_FORMAT = "md:myst"
CELL_TIMEOUT = 300.0  # seconds; a chapter's whole budget is 90
# As in jupytext.toml, which jupytext reads when it is called by hand.
TEXT_METADATA = {
    "notebook_metadata_filter": "kernelspec,-jupytext.text_representation.jupytext_version",
    "cell_metadata_filter": "tags,-all",
}


# ---------------------------------------------------------------- one notebook, in two forms


def to_text(nb: dict) -> str:
    """Return the text twin of a notebook: the cells without outputs, in one canonical form."""
    bare = nbformat.from_dict(
        {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {"kernelspec": nb["metadata"]["kernelspec"], "jupytext": TEXT_METADATA},
            "cells": nb["cells"],
        }
    )
    text = jupytext.writes(bare, fmt=TEXT_FORMAT)
    # The filters are configuration, and a version here would change every file at each release.
    header, fence, body = text.partition("\n---\n")
    for key in ("jupytext_version", "notebook_metadata_filter", "cell_metadata_filter"):
        header = re.sub(rf"^ *{key}:.*\n", "", header, flags=re.MULTILINE)
    return header + fence + body


def from_text(text: str, slug: str) -> dict:
    """Return the notebook, without outputs, that a text twin describes."""
    return normalize(jupytext.reads(text, fmt=TEXT_FORMAT), slug)


def formatted(nb: dict, slug: str) -> dict:
    """Return the notebook with its code laid out by ruff."""
    command = ["format", "--stdin-filename", f"notebooks/{slug}.ipynb", "-"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command],
        input=dumps(nb),
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=ROOT,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{slug}: the code cannot be formatted:\n{done.stderr.strip()}")
    return normalize(nbformat.reads(done.stdout, as_version=4), slug)


def same_sources(a: dict, b: dict) -> bool:
    """Whether two notebooks hold the same cells, outputs aside."""
    return [(c["cell_type"], c["source"], c["metadata"]) for c in a["cells"]] == [
        (c["cell_type"], c["source"], c["metadata"]) for c in b["cells"]
    ]


# ---------------------------------------------------------------- the files


class Chapter:
    """The two files of a chapter below `root`."""

    def __init__(self, name: str, root: Path = ROOT):
        self.slug = Path(name).stem
        self.root = root
        self.text = root / "text" / f"{self.slug}.md"
        self.notebook = root / "notebooks" / f"{self.slug}.ipynb"

    def read_text(self) -> dict:
        if not self.text.exists():
            raise SystemExit(f"{self.text.relative_to(self.root)} does not exist")
        return from_text(self.text.read_text(encoding="utf-8"), self.slug)

    def read_notebook(self) -> dict:
        if not self.notebook.exists():
            raise SystemExit(f"{self.notebook.relative_to(self.root)} does not exist")
        return nbformat.read(self.notebook, as_version=4)

    def write(self, path: Path, content: str) -> None:
        if path.exists() and path.read_text(encoding="utf-8") == content:
            return
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="\n")
        print(f"wrote {path.relative_to(self.root).as_posix()}", flush=True)

    def write_notebook(self, nb: dict) -> None:
        nb = normalize(nb, self.slug)
        if self.notebook.exists():
            # Another machine's fonts move a few pixels: that is no reason for a new file.
            nb = keep_equal_pictures(self.read_notebook(), nb)
        self.write(self.notebook, dumps(nb))


def chapters(names: list[str], root: Path = ROOT) -> list[Chapter]:
    """The chapters named, or all that have a text or a notebook."""
    if not names:
        found = {p.stem for p in root.glob("text/*.md")}
        names = sorted(found | {p.stem for p in root.glob("notebooks/*.ipynb")})
    return [Chapter(name, root) for name in names]


# ---------------------------------------------------------------- the commands


def run(chapter: Chapter, nb: dict) -> None:
    """Execute the cells in the notebooks' folder and store what came out."""
    start = time.perf_counter()
    nb = execute(nb, cwd=chapter.notebook.parent, timeout=CELL_TIMEOUT)
    seconds = time.perf_counter() - start
    chapter.write_notebook(nb)
    print(f"{chapter.slug}: executed in {seconds:.0f} s", flush=True)


def build(chapter: Chapter) -> None:
    nb = formatted(chapter.read_text(), chapter.slug)
    chapter.notebook.parent.mkdir(exist_ok=True)
    # Before the execution: an edit made while the cells run is not overwritten.
    chapter.write(chapter.text, to_text(nb))
    run(chapter, nb)
    lint = [sys.executable, "-m", "ruff", "check", "--quiet", "--output-format=concise"]
    subprocess.run([*lint, str(chapter.notebook)], cwd=ROOT, check=False)  # said, not enforced


def rerun(chapter: Chapter) -> None:
    run(chapter, chapter.read_notebook())


def pair(chapter: Chapter) -> None:
    nb = chapter.read_notebook()
    done = formatted(nb, chapter.slug)
    chapter.write_notebook(done)
    chapter.write(chapter.text, to_text(done))


def problems(chapter: Chapter) -> list[str]:
    """What is out of step in a chapter, one line each; empty when all is well."""
    text, notebook = (
        path.relative_to(chapter.root).as_posix() for path in (chapter.text, chapter.notebook)
    )
    if not chapter.text.exists():
        return [f"{notebook} has no twin {text}; run: tools/notebooks.py pair {chapter.slug}"]
    if not chapter.notebook.exists():
        return [f"{text} has no notebook; run: tools/notebooks.py build {chapter.slug}"]
    found = []
    stored = chapter.notebook.read_text(encoding="utf-8")
    nb = nbformat.reads(stored, as_version=4)
    if dumps(normalize(nb, chapter.slug)) != stored:
        found.append(f"{notebook} is not in normal form; run: tools/notebooks.py pair")
    written = chapter.text.read_text(encoding="utf-8")
    if to_text(normalize(nb, chapter.slug)) != written:
        twin = from_text(written, chapter.slug)
        what = (
            "is not in canonical form"
            if same_sources(twin, normalize(nb, chapter.slug))
            else f"and {notebook} differ"
        )
        found.append(f"{text} {what}; run: tools/notebooks.py build {chapter.slug}")
    for index, cell in enumerate(nb.cells, start=1):
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
            found.append(f"{notebook}: cell {index} was never run; run: tools/notebooks.py build")
            break
    return found


def check(selected: list[Chapter]) -> int:
    found = [line for chapter in selected for line in problems(chapter)]
    print("\n".join(found) if found else f"{len(selected)} chapters in step")
    return bool(found)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["build", "execute", "pair", "check"])
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"  # as in the tests: the sums' last digits depend on it
    selected = chapters(arguments.names)
    if arguments.command == "check":
        return check(selected)
    action = {"build": build, "execute": rerun, "pair": pair}[arguments.command]
    for chapter in selected:
        action(chapter)
    return 0


if __name__ == "__main__":
    sys.exit(main())
