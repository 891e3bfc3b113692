"""Grade a class: find the submissions, spread them over processes, write the marks.

For `--out marks.csv` there is one row per submission in `marks.csv`, and in the folder `marks/`
beside it for each submission a result `NAME.json` and a report `NAME.html` for the student. A
result is written whole and at once, so a run that was interrupted goes on with `--resume`.
"""

import csv
import hashlib
import html
import io
import json
import multiprocessing
import multiprocessing.util
import re
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from dlnotes.course import grading
from dlnotes.course.files import write_text
from dlnotes.course.grading import GradedExercise, Limits
from dlnotes.course.layout import Layout
from dlnotes.course.remote import Nursery
from dlnotes.course.sandbox import Sandbox


@dataclass(frozen=True)
class Submission:
    """One notebook: the student's name as the file says it, and the name of its reports."""

    student: str
    path: Path
    file: str
    report: str

    def text(self) -> str:
        """The file's text; bytes that are no UTF-8 are replaced, so that it is never refused."""
        return self.path.read_text(encoding="utf-8", errors="replace")


def _report_name(student: str) -> str:
    plain = unicodedata.normalize("NFC", student)
    return re.sub(r"[^\w\- .,()]+", "_", plain).strip(" .")[:100] or "submission"


def collect(folder: Path, known: list[str]) -> list[Submission]:
    """Return the notebooks in or below `folder` (or `folder` itself, if it is a notebook).

    A student is named by the file, or by the folder around it when the file carries the
    exercise's name, as learning platforms deliver them. No two get the same name or report:
    notebooks of one name are told apart by their path and then by a number.
    """
    if folder.is_file():
        paths, root = [folder], folder.parent
    else:
        hidden = (".ipynb_checkpoints", "__MACOSX")
        paths = sorted(
            p
            for p in folder.rglob("*.ipynb")
            if p.is_file()
            and not any(
                part.startswith(".") or part in hidden for part in p.relative_to(folder).parts
            )
        )
        root = folder
    found, students, reports = [], {}, {}
    for path in paths:
        file = path.relative_to(root)
        parts = list(file.with_suffix("").parts)
        if len(parts) > 1 and parts[-1] in known:
            parts.pop()
        student = unicodedata.normalize("NFC", " / ".join(parts))
        students[student] = students.get(student, 0) + 1
        if students[student] > 1:
            student += f" ({file.as_posix()})"
        report = _report_name(student)
        # Reports must differ on file systems that ignore case, too.
        if reports.setdefault(report.casefold(), file) != file:
            report += "-" + hashlib.sha256(file.as_posix().encode()).hexdigest()[:6]
            reports[report.casefold()] = file
        found.append(Submission(student, path, file.as_posix(), report))
    return found


def _same_person(file: str) -> str:
    """Return the file's stem without what is added to a second copy: " (1)", "-Copy1", "_v2"."""
    stem = re.sub(
        r"(\s*\(\d+\)|[-_ ]?copy ?\d*|[-_ ]v(ersion)?\d+)+$",
        "",
        Path(file).stem,
        flags=re.IGNORECASE,
    )
    return str(Path(file).parent / stem).casefold()


def notes_on_copies(rows: list[dict]) -> None:
    """Note in each result which others hold the same bytes or carry nearly the same name."""
    for key, what in (
        (lambda r: r["submission_sha256"] + r["exercise"], "the same content as"),
        (lambda r: _same_person(r["file"]) + r["exercise"], "perhaps the same student as"),
    ):
        groups: dict[str, list[dict]] = {}
        for row in rows:
            groups.setdefault(key(row), []).append(row)
        for group in groups.values():
            for row in group:
                others = [other["student"] for other in group if other is not row][:5]
                if others:
                    row["notes"] = [*row["notes"], f"{what} {', '.join(others)}"]


# One process of the pool: its nurseries, one for each exercise.
_nurseries: dict[str, Nursery] = {}


def _close_nurseries() -> None:
    for nursery in _nurseries.values():
        nursery.close()
    _nurseries.clear()


def _watch_exit() -> None:
    import atexit

    # concurrent.futures ends its processes through multiprocessing, which runs no atexit.
    multiprocessing.util.Finalize(None, _close_nurseries, exitpriority=10)
    atexit.register(_close_nurseries)


@dataclass(frozen=True)
class Job:
    """What a process needs to grade one submission."""

    submission: Submission
    exercise: str | None
    layout: Layout
    private: Path | None
    sandbox: Sandbox
    limits: Limits


def grade_one(job: Job) -> dict:
    """Grade one submission; never raises but for an interrupt."""
    text = ""
    try:
        text = job.submission.text()
        exercise = _exercise(job.layout, job.exercise, job.private)
        if exercise.name not in _nurseries:
            _nurseries[exercise.name] = Nursery(job.sandbox, exercise.given)
        result = grading.grade_text(text, exercise, _nurseries[exercise.name], job.limits)
    except Exception as error:
        empty = GradedExercise(job.exercise or "", {}, (), (), (), {}, "")
        result = grading.not_graded(text, empty, job.sandbox.kind, error)
    return {"student": job.submission.student, "file": job.submission.file} | result


_exercises: dict[tuple, GradedExercise] = {}


def _exercise(layout: Layout, name: str, private: Path | None) -> GradedExercise:
    key = (layout, name, private)
    if key not in _exercises:
        _exercises[key] = grading.load_exercise(layout, name, private)
    return _exercises[key]


def grade_all(jobs: list[Job], processes: int) -> Iterator[tuple[Job, dict]]:
    """Grade the jobs in `processes` processes and yield each with its result when it is done."""
    if processes <= 1 or len(jobs) <= 1:
        try:
            for job in jobs:
                yield job, grade_one(job)
        finally:
            _close_nurseries()
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(processes, len(jobs)), mp_context=context, initializer=_watch_exit
    ) as pool:
        waiting = {pool.submit(grade_one, job): job for job in jobs}
        try:
            for future in as_completed(waiting):
                job = waiting[future]
                try:
                    yield job, future.result()
                except BrokenExecutor as error:
                    empty = GradedExercise(job.exercise or "", {}, (), (), (), {}, "")
                    result = grading.not_graded("", empty, job.sandbox.kind, error)
                    own = {"student": job.submission.student, "file": job.submission.file}
                    yield job, own | result
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def reports_folder(out: Path) -> Path:
    """Return where the reports of the marks file `out` lie."""
    return out.with_suffix("")


def stored(job: Job, folder: Path) -> dict | None:
    """Return the stored result of a submission, if text, checks and sandbox are still the same."""
    path = folder / f"{job.submission.report}.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        exercise = _exercise(job.layout, job.exercise, job.private)
        same = (
            result["file"] == job.submission.file
            and result["submission_sha256"]
            == hashlib.sha256(job.submission.text().encode()).hexdigest()
            and result["checks_sha256"] == exercise.digest
            and result["sandbox"] == job.sandbox.kind
            and result["status"] != "not graded"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return result if same else None


def write_result(result: dict, report: str, folder: Path) -> None:
    """Write one submission's result and its report."""
    write_text(folder / f"{report}.html", as_html(result))
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    write_text(folder / f"{report}.json", text)  # last: its presence says that both are there


def _cell(value: object) -> object:
    # A spreadsheet would run a text that looks like a formula.
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text[:1] in tuple("=+-@\t\r") else value


def as_csv(results: list[dict]) -> str:
    """Return the table of all marks, ordered by student and file."""
    questions = sorted(
        {q for result in results for q in result["questions"]}, key=lambda q: int(q[1:])
    )
    columns = ["student", "file", "exercise", "score", "points", *questions]
    columns += ["status", "sandbox", "notes"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for result in sorted(results, key=lambda r: (r["student"].casefold(), r["file"])):
        row = {k: result[k] for k in ("student", "file", "exercise", "status", "sandbox")}
        row |= {"score": _number(result["score"]), "points": _number(result["points"])}
        row |= {q: _number(about["score"]) for q, about in result["questions"].items()}
        cells = [f"cell {c['cell']}: {c['problem']}" for c in result["cells"]]
        row["notes"] = "; ".join([*result["notes"], *cells])[:1000]
        writer.writerow([_cell(row.get(column, "")) for column in columns])
    return out.getvalue()


def _number(value: int | float | None) -> str:
    return "" if value is None else format(round(value, 4), "g")


_STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1b1b; background: #fff; }
table { border-collapse: collapse; } th, td { border: 1px solid #767676; padding: .3rem .6rem;
  text-align: left; } .right { color: #00694f; } .wrong { color: #a3180c; }
li { margin: .3rem 0; overflow-wrap: anywhere; }
"""


def as_html(result: dict) -> str:
    """Return the report on one submission: a page of its own, readable by a screen reader."""

    def text(value: object) -> str:
        return html.escape(str(value))

    graded = result["score"] is not None
    score = f"{result['score']:g} of {result['points']:g} points" if graded else "no mark yet"
    meaning = grading.STATUSES[result["status"]]
    parts = [
        f"<h1>{text(result['exercise'])}: {score}</h1>",
        f"<p>{text(result['student'])}, file {text(result['file'])}</p>",
        f"<p>Status: <strong>{text(result['status'])}</strong>: {text(meaning)}. "
        f"Sandbox: {text(result['sandbox'])}.</p>",
    ]
    if result["notes"]:
        parts.append("<ul>" + "".join(f"<li>{text(n)}</li>" for n in result["notes"]) + "</ul>")
    rows = "".join(
        f'<tr><th scope="row">{text(q)} · {text(a["title"])}</th>'
        f"<td>{'' if a['score'] is None else format(a['score'], 'g')} of {a['points']:g}</td>"
        f"<td>{text(a['status'])}</td></tr>"
        for q, a in result["questions"].items()
    )
    parts.append(
        '<table><thead><tr><th scope="col">Question</th><th scope="col">Points</th>'
        f'<th scope="col">Status</th></tr></thead><tbody>{rows}</tbody></table>'
    )
    for q, about in result["questions"].items():
        if not about["checks"]:
            continue
        items = "".join(
            f'<li><span class="{"right" if c["right"] else "wrong"}">'
            f"{'✓ right' if c['right'] else '✗ not right'}</span> "
            f"({'hidden, ' if c['hidden'] else ''}{c['points']:g}) {text(c['told'])}</li>"
            for c in about["checks"]
        )
        parts.append(f"<h2>{text(q)} · {text(about['title'])}</h2><ul>{items}</ul>")
    if result["cells"]:
        items = "".join(
            f"<li>{'given cell' if not c['cell'] else 'code cell ' + str(c['cell'])}: "
            f"{text(c['problem'])}</li>"
            for c in result["cells"]
        )
        parts.append(f"<h2>Cells with problems</h2><ul>{items}</ul>")
    body = "\n".join(parts)
    title = f"{text(result['student'])}: {text(result['exercise'])}"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n"
        "</html>\n"
    )


def grade_folder(
    folder: Path,
    out: Path,
    *,
    layout: Layout,
    sandbox: Sandbox,
    exercise: str | None = None,
    private: Path | None = None,
    processes: int = 1,
    resume: bool = False,
    limits: Limits = grading.DEFAULT_LIMITS,
    progress: Callable[[int, int, dict], None] = lambda done, total, result: None,
) -> list[dict]:
    """Grade every notebook in `folder` and write the marks; returns the results in CSV order.

    `exercise` says which exercise all of them are; without it each notebook's set-up cell does,
    and a notebook that does not say it is taken for the one exercise that all others are.
    Raises ValueError when there is nothing to grade.
    """
    known = [exercise] if exercise else sorted(p.stem for p in layout.full.glob("*.json"))
    if not known:
        raise ValueError(f"no built exercises in {layout.full}: run dlnotes build-exercises")
    for name in known:
        _exercise(layout, name, private)  # a bad private check is reported before any work
    submissions = collect(folder, known)
    if not submissions:
        raise ValueError(f"no notebooks (*.ipynb) in {folder}")
    reports, results, jobs = reports_folder(out), [], []
    names = [
        exercise or grading.which_exercise(submission.text(), submission.path.stem, known)
        for submission in submissions
    ]
    # A file too damaged to say which exercise it is belongs to the one that all others are.
    said = set(names) - {None}
    common = said.pop() if len(said) == 1 else None
    for submission, own_name in zip(submissions, names, strict=True):
        name = own_name or common
        if name is None:
            result = grading.exercise_unknown(submission.text(), sandbox.kind)
            result = {"student": submission.student, "file": submission.file} | result
            write_result(result, submission.report, reports)
            results.append(result)
            continue
        job = Job(submission, name, layout, private, sandbox, limits)
        old = stored(job, reports) if resume else None
        if old is not None:
            results.append(old)
        else:
            jobs.append(job)
    total = len(submissions)
    for job, result in grade_all(jobs, processes):
        write_result(result, job.submission.report, reports)
        results.append(result)
        progress(len(results), total, result)
    rows = [dict(result) for result in results]
    notes_on_copies(rows)
    rows.sort(key=lambda r: (r["student"].casefold(), r["file"]))
    write_text(out, as_csv(rows))
    return rows
