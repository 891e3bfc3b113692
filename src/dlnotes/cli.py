"""The command line: `dlnotes …`.

Every command imports what it needs when it runs, so that `dlnotes --help` is quick.
"""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="dlnotes",
    help="Build, check and grade the exercises of the book.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Root = Annotated[
    Path | None,
    typer.Option(
        "--root", help="Folder that holds solutions/. Default: the repository around you."
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Argument(help="Exercises such as 02_mlp. Default: all.", show_default=False),
]
SandboxKind = Annotated[
    str,
    typer.Option(
        "--sandbox",
        help="auto, bubblewrap, namespaces, or none. auto takes the first that works here.",
    ),
]


def _stop(message: object, code: int = 1) -> typer.Exit:
    typer.echo(f"dlnotes: {message}", err=True)
    return typer.Exit(code)


def _layout(root: Path | None):
    from dlnotes.course.layout import Layout, find_layout

    if root is not None:
        if not root.is_dir():
            raise _stop(f"--root: there is no folder {root}", 2)
        return Layout(root.resolve())
    try:
        return find_layout()
    except FileNotFoundError as error:
        raise _stop(error, 2) from None


def _masters(layout, names: list[str] | None) -> list[str]:
    try:
        found = [layout.master(name).stem for name in names or []]
    except ValueError as error:
        raise _stop(error, 2) from None
    found = found or [path.stem for path in layout.masters]
    if not found:
        raise _stop(f"no master texts in {layout.solutions}", 2)
    return found


def _sandbox(kind: str, hidden: tuple[Path, ...] = ()):
    """Return the sandbox, and say on stderr when there is none."""
    from dlnotes.course import sandbox

    try:
        found = sandbox.find(kind, tuple(str(p) for p in hidden))
    except (ValueError, RuntimeError) as error:
        raise _stop(error, 2) from None
    if not found.sealed:
        typer.echo(
            "dlnotes: WARNING: no sandbox. Student code runs with your own rights: it can read "
            "your files and use the network. Every mark will say `sandbox: none`.",
            err=True,
        )
    return found


def _need_posix() -> None:
    import os

    if not hasattr(os, "fork"):
        raise _stop(
            "grading needs Linux or macOS. On Windows, run it in WSL "
            "(https://learn.microsoft.com/windows/wsl); building exercises and the checks inside "
            "a notebook work everywhere.",
            2,
        )


@app.command("build-exercises")
def build_exercises(
    names: Names = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail with a diff if anything differs.")
    ] = False,
    execute: Annotated[
        bool,
        typer.Option(
            "--execute/--no-execute",
            help="Run the solutions, or keep stored outputs where the cells are the same.",
        ),
    ] = True,
    root: Root = None,
) -> None:
    """Build notebooks and checks from the master texts solutions/NN_name.py."""
    from dlnotes.course import build

    layout = _layout(root)
    failed = False
    for name in _masters(layout, names):
        try:
            files = build.build(layout, name, execute=execute)
        except build.MasterError as error:
            raise _stop(error) from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "nbclient":
                raise
            raise _stop(f"the solution of {name} does not run:\n{error}") from None
        if check:
            for text in build.differences(files, layout.root):
                failed = True
                typer.echo(text)
        else:
            for path in build.write(files):
                typer.echo(f"wrote {path.relative_to(layout.root).as_posix()}")
    if failed:
        raise _stop("exercises are out of step with their masters: run dlnotes build-exercises")


@app.command("check-exercises")
def check_exercises(names: Names = None, root: Root = None, sandbox: SandboxKind = "auto") -> None:
    """Prove each exercise: blank 0, solution full, every wrong answer its own message."""
    from dlnotes.course import build, proof

    _need_posix()
    layout = _layout(root)
    found = _sandbox(sandbox)
    bad = 0
    for name in _masters(layout, names):
        count = 0
        try:
            for what, problems in proof.prove(layout, name, found):
                count += 1
                for problem in problems:
                    bad += 1
                    typer.echo(f"{name}: {what}: {problem}")
        except build.MasterError as error:
            raise _stop(error) from None
        typer.echo(f"{name}: {count} submissions graded")
    if bad:
        raise _stop(f"{bad} problems")
    typer.echo("Blanks get nothing, solutions everything, wrong answers their messages.")


@app.command("check-chapter")
def check_chapter(
    names: Annotated[
        list[str], typer.Argument(help="Chapters such as 02_mlp, or paths of their notebooks.")
    ],
) -> None:
    """Check that a chapter has everything that a chapter of the book must have."""
    from dlnotes.course import chapter

    raise typer.Exit(chapter.report(names))
