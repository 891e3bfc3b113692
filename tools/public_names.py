"""The public interface of dlnotes: every name that a notebook of the book uses.

    python tools/public_names.py            list what the notebooks use and what is frozen
    python tools/public_names.py --write    freeze it in tests/public_names.txt

A frozen name with its parameters may not vanish: readers' notebooks use it. Names are added by
--write when a chapter uses new ones; a line is removed by hand only, with a reason.
"""

import ast
import contextlib
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
FROZEN = ROOT / "tests" / "public_names.txt"
FOLDERS = ("notebooks", "exercises", "solutions")
HEAD = """\
# Every name of dlnotes that a notebook of the book uses, with its parameters. A name or a
# parameter may not vanish. New ones are added by: python tools/public_names.py --write
"""


def code_cells() -> Iterator[list[str]]:
    """The code cells of each notebook of the book."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("*.ipynb")):
            nb = nbformat.read(path, as_version=4)
            yield [cell.source for cell in nb.cells if cell.cell_type == "code"]


def used_names(cells: list[str]) -> set[str]:
    """Return the dotted names below dlnotes that these cells use.

    A name that a cell binds to something else (train = dataset.train) may be among them:
    `resolve` sorts it out.
    """
    known: dict[str, str] = {}  # local name → dotted name
    found: set[str] = set()
    for source in cells:
        try:
            tree = ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.MULTILINE))
        except SyntaxError:  # an error that is shown on purpose
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.partition(".")[0] == "dlnotes":
                        known[alias.asname or "dlnotes"] = alias.name if alias.asname else "dlnotes"
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dlnotes"):
                for alias in node.names:
                    known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                    found.add(f"{node.module}.{alias.name}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                first, *rest = ast.unparse(node).split(".")
                if first in known and all(part.isidentifier() for part in rest):
                    found.add(".".join([known[first], *rest]))
    return found


def resolve(name: str) -> object | None:
    """Return what a dotted name below dlnotes means, or None when there is no such thing."""
    module, parts = importlib.import_module("dlnotes"), name.split(".")[1:]
    thing: object = module
    for part in parts:
        if not (inspect.ismodule(thing) or inspect.isclass(thing)):
            return None  # an attribute of a value is not a public name
        if inspect.ismodule(thing):
            # A submodule is an attribute only once somebody has imported it.
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(f"{thing.__name__}.{part}")
        try:
            thing = getattr(thing, part)
        except AttributeError:
            return None
    return thing


def parameters(thing: object) -> list[str]:
    """Return the names of a function's or class's parameters; [] for everything else."""
    if not callable(thing):
        return []
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return []
    return [
        "*" * (p.kind - 1 if p.kind == p.VAR_POSITIONAL else 2) + p.name
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        else p.name
        for p in signature.parameters.values()
        if p.name != "self"
    ]


def line_for(name: str) -> str:
    """Return the line that freezes a name."""
    thing = resolve(name)
    return f"{name}({', '.join(parameters(thing))})" if callable(thing) else name


def read_frozen(path: Path = FROZEN) -> dict[str, list[str]]:
    """Return the frozen names with their parameters."""
    frozen = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, rest = line.partition("(")
            frozen[name] = [part for part in rest.rstrip(")").split(", ") if part]
    return frozen


def names_in_use() -> set[str]:
    """Return every name of dlnotes that the stored notebooks use."""
    used = {name for cells in code_cells() for name in used_names(cells)}
    return {name for name in used if resolve(name) is not None and name != "dlnotes"}


def main() -> int:
    names = names_in_use()
    if "--write" not in sys.argv[1:]:
        print("\n".join(line_for(name) for name in sorted(names)))
        return 0
    if FROZEN.exists():
        names |= {name for name in read_frozen() if resolve(name) is not None}
    FROZEN.write_text(HEAD + "\n".join(map(line_for, sorted(names))) + "\n", encoding="utf-8")
    print(f"{len(names)} names in {FROZEN.relative_to(ROOT).as_posix()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
