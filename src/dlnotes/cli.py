"""The command line: `dlnotes …`.

Every command imports what it needs when it runs, so that `dlnotes --help` is quick.
"""

import contextlib
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


@app.command("grade")
def grade(
    folder: Annotated[
        Path, typer.Argument(help="Folder with the notebooks of a class, or one notebook.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="Marks, as CSV. Reports go to the folder of the same name beside it."
        ),
    ],
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Submissions graded at a time.")] = 1,
    checks: Annotated[
        Path | None,
        typer.Option("--checks", help="Folder of your own hidden checks, NN_name.py."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip what is graded already and has not changed.")
    ] = False,
    exercise: Annotated[
        str | None,
        typer.Option(
            "--exercise", help="The exercise, such as 02_mlp. Default: each says its own."
        ),
    ] = None,
    cell_seconds: Annotated[float, typer.Option(min=0.1, help="Time limit of a cell.")] = 60.0,
    check_seconds: Annotated[float, typer.Option(min=0.1, help="Time limit of a check.")] = 20.0,
    total_seconds: Annotated[float, typer.Option(min=1, help="Limit of a submission.")] = 600.0,
    memory_mb: Annotated[int, typer.Option(min=64, help="Memory limit of a process.")] = 2048,
    sandbox: SandboxKind = "auto",
    root: Root = None,
) -> None:
    """Grade the notebooks of a class into a table and a report for each student.

    Student code runs in a process of its own, in a sandbox where the system has one: without
    network, unable to read solutions or other submissions, or to write outside its own folder.
    """
    import sys
    import time

    from dlnotes.course import grading, marks

    _need_posix()
    layout = _layout(root)
    if not folder.exists():
        raise _stop(f"there is no file or folder {folder}", 2)
    if checks is not None and not checks.is_dir():
        raise _stop(f"--checks: there is no folder {checks}", 2)
    if out.suffix != ".csv":
        raise _stop(f"--out must end in .csv, got {out}", 2)
    folder, out = folder.resolve(), out.resolve()
    hidden = [layout.solutions, marks.reports_folder(out), out.parent]
    hidden += [checks.resolve()] if checks else []
    hidden.append(folder if folder.is_dir() else folder.parent)
    found = _sandbox(sandbox, tuple(hidden))
    began = time.monotonic()
    limits = grading.Limits(cell_seconds, check_seconds, total_seconds, memory_mb << 20)
    try:
        with _progress() as progress:
            rows = marks.grade_folder(
                folder,
                out,
                layout=layout,
                sandbox=found,
                exercise=exercise,
                private=checks.resolve() if checks else None,
                processes=jobs,
                resume=resume,
                limits=limits,
                progress=progress,
            )
    except ValueError as error:
        raise _stop(error, 2) from None
    except KeyboardInterrupt:
        raise _stop("interrupted; what is graded is kept: go on with --resume", 130) from None
    count: dict[str, int] = {}
    for row in rows:
        count[row["status"]] = count.get(row["status"], 0) + 1
    typer.echo(
        f"{len(rows)} submissions in {time.monotonic() - began:.1f} s, sandbox: {found.kind}"
    )
    for status in [s for s in grading.STATUSES if s in count]:
        typer.echo(f"  {count[status]:4} {status}: {grading.STATUSES[status]}")
    typer.echo(f"marks: {out}")
    typer.echo(f"reports: {marks.reports_folder(out)}")
    sys.stdout.flush()
    if {"not graded", "exercise unknown"} & count.keys():  # a mark is missing
        raise typer.Exit(1)


@contextlib.contextmanager
def _progress():
    """Show a bar on stderr while the class is graded, if somebody is looking."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    console = Console(stderr=True)
    columns = (TextColumn("grading"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(
        *columns, TextColumn("{task.description}"), console=console, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, result: bar.update(
            task, completed=done, total=total, description=result["student"][:30]
        )


@app.command("export")
def export(
    to: Annotated[str, typer.Option("--to", help="otter or nbgrader.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    names: Names = None,
    root: Root = None,
) -> None:
    """Write exercises in the form of otter-grader or nbgrader."""
    from dlnotes.course import build, files
    from dlnotes.course.export import export as exported

    layout = _layout(root)
    for name in _masters(layout, names):
        try:
            texts = exported(layout, name, to)
        except (ValueError, build.MasterError) as error:
            raise _stop(error, 2) from None
        folder = out / name if to == "otter" else out
        for path, text in texts.items():
            files.write_text(folder / path, text)
            typer.echo(f"wrote {(folder / path).as_posix()}")


@app.command("check-chapter")
def check_chapter(
    names: Annotated[
        list[str], typer.Argument(help="Chapters such as 02_mlp, or paths of their notebooks.")
    ],
) -> None:
    """Check that a chapter has everything that a chapter of the book must have."""
    from dlnotes.course import chapter

    raise typer.Exit(chapter.report(names))


if __name__ == "__main__":
    app()
