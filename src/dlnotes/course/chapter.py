"""Hold a chapter against what a chapter of this book must have, as far as a program can.

`dlnotes check-chapter 01_basics` reads the stored notebook (it runs nothing) and lists every
broken rule with its cell and line. RULES, at the end, is the list of rules.
"""

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

REPOSITORY = "dlnotes/dlnotes"
CLOSING = (
    "Summary",
    "Key terms",
    "Self-test",
    "Exercises",
    "References",
    "Where to read on",
)
OUTCOMES = (3, 6)
DEMOS = 3
PREDICTIONS = (2, 5)
SELF_TEST_QUESTIONS = 10
EXERCISE_QUESTIONS = 5
WRONG_ANSWERS = 3
REFERENCES = 3
CODE_LINES = 25
ALT_CHARACTERS = 20
SECONDS = 90
BANNED = ("simply", "obviously", "trivially")

_CHINESE = r"\u4e00-\u9fff"
_INTRODUCED = re.compile(rf"\*\*([^*\n]+)\*\*\s*[(（]([^()（）\n]*[{_CHINESE}][^()（）\n]*)[)）]")
_DISPLAYED = re.compile(r"(?<!\\)\$\$(.+?)(?<!\\)\$\$", re.DOTALL)
_TAG = re.compile(r"\\tag\{([^}]+)\}")
_TWIN = re.compile(r"#.*?\bequations?\b(.*)", re.IGNORECASE)
_NUMBER = re.compile(r"\((\d+\.\d+[a-z]?)\)")
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(\s*<?([^)\s>]+)>?(?:\s+[\"'][^)]*[\"'])?\s*\)")
_CHECKS = re.compile(
    r"\bcheck\.(close|claim|compare|between|gradcheck)\(|\bnp\.testing\.assert_|^\s*assert\b",
    re.MULTILINE,
)
_EMOJI = re.compile("[\U0001f300-\U0001faff\u2728\u2b50]")
_EXEMPTING = {"nbval-ignore-output", "nbval-raises-exception", "raises-exception", "nbval-skip"}


@dataclass(frozen=True)
class Problem:
    """One broken rule. `cell` counts from 1, `line` within the cell; 0 means the whole."""

    rule: str
    message: str
    cell: int = 0
    line: int = 0
    warning: bool = False

    def __str__(self) -> str:
        where = f"cell {self.cell}" if self.cell else "chapter"
        if self.line:
            where += f", line {self.line}"
        kind = "warning: " if self.warning else ""
        return f"{where}: {kind}{self.message} [{self.rule}]"


@dataclass
class Cell:
    """A cell of the notebook; `number` counts from 1."""

    number: int
    kind: str
    source: str
    tags: list[str]
    outputs: list[dict] = field(default_factory=list)

    @cached_property
    def prose(self) -> str:
        """The source with code, fenced or between backticks, blanked out, line by line."""

        def blank(match: re.Match) -> str:
            return re.sub(r"[^\n]", " ", match[0])

        text = re.sub(r"^( *)(```+|~~~+).*?^ *\2", blank, self.source, flags=re.M | re.S)
        return re.sub(r"`[^`\n]+`", blank, text)

    def line_of(self, offset: int) -> int:
        """The line in which a character of the source stands, from 1."""
        return self.source.count("\n", 0, offset) + 1


@dataclass
class Chapter:
    """A stored chapter and the repository around it."""

    path: Path
    root: Path
    cells: list[Cell]

    @property
    def name(self) -> str:
        """The chapter's name, such as 02_mlp."""
        return self.path.stem

    @property
    def number(self) -> str:
        """The chapter's number, without leading zeros."""
        return self.name.partition("_")[0].lstrip("0")

    @property
    def markdown(self) -> list[Cell]:
        """The cells of text."""
        return [cell for cell in self.cells if cell.kind == "markdown"]

    @property
    def code(self) -> list[Cell]:
        """The cells of code."""
        return [cell for cell in self.cells if cell.kind == "code"]

    @property
    def opening(self) -> list[Cell]:
        """The cells before the first code cell."""
        first = next((i for i, c in enumerate(self.cells) if c.kind == "code"), len(self.cells))
        return self.cells[:first]

    @cached_property
    def headings(self) -> list[tuple[int, str, Cell, int]]:
        """Every heading: its level, text, cell and line."""
        found = []
        for cell in self.markdown:
            for line, text in enumerate(cell.prose.splitlines(), start=1):
                match = re.match(r"(#{1,6})\s+(.+?)\s*#*$", text)
                if match:
                    # The prose has code blanked out; the heading's own text keeps it.
                    title = cell.source.splitlines()[line - 1].lstrip("#").strip()
                    found.append((len(match[1]), title, cell, line))
        return found

    def section(self, title: str) -> str | None:
        """The text under the heading of level two with this title, or None."""
        parts: list[str] | None = None
        for cell in self.markdown:
            for line in cell.source.splitlines():
                if re.match(r"##?\s", line):
                    if parts is not None:
                        return "\n".join(parts)
                    if line.lstrip("#").strip() == title:
                        parts = []
                elif parts is not None:
                    parts.append(line)
        return None if parts is None else "\n".join(parts)

    def calls(self, name: str) -> list[Cell]:
        """The code cells that call `viz.<name>`, once for each call."""
        found = []
        for cell in self.code:
            try:
                tree = ast.parse(re.sub(r"^\s*[%!].*$", "", cell.source, flags=re.MULTILINE))
            except SyntaxError:  # an error that the chapter shows on purpose
                continue
            found += [
                cell
                for node in ast.walk(tree)
                if isinstance(node, ast.Call) and ast.unparse(node.func) == f"viz.{name}"
            ]
        return found


Rule = Callable[[Chapter], Iterator[Problem]]


def read_chapter(path: Path, root: Path | None = None) -> Chapter:
    """Read a stored notebook; `root` is the repository (default: the folder above its folder)."""
    import nbformat

    nb = nbformat.read(path, as_version=4)
    cells = [
        Cell(
            number,
            cell["cell_type"],
            cell["source"],
            list(cell["metadata"].get("tags", [])),
            list(cell.get("outputs", [])),
        )
        for number, cell in enumerate(nb["cells"], start=1)
    ]
    return Chapter(path, root or path.resolve().parent.parent, cells)


def table_rows(text: str) -> list[list[str]]:
    """Return the rows of the first Markdown table in the text, its head first, without rule."""
    rows: list[list[str]] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("|"):
            inner = stripped.strip("|").replace(r"\|", "\0")
            # A bar inside a formula is part of it.
            inner = re.sub(r"\$[^$]*\$", lambda m: m[0].replace("|", "\0"), inner)
            rows.append([part.replace("\0", "|").strip() for part in inner.split("|")])
        elif rows:
            break
    return [row for row in rows if not all(re.fullmatch(r":?-+:?", part) for part in row)]


# ---------------------------------------------------------------- opening and set-up


def title(chapter: Chapter) -> Iterator[Problem]:
    """The first line is `# N · Title` with the chapter's number."""
    first = chapter.cells[0].source.splitlines()[0] if chapter.cells else ""
    if not re.match(rf"# {chapter.number} · \S", first):
        yield Problem("title", f"must start with `# {chapter.number} · Title`", 1, 1)


def opening(chapter: Chapter) -> Iterator[Problem]:
    """Badges, a question, outcomes, measured times and what the chapter builds on."""
    text = "\n\n".join(cell.source for cell in chapter.opening)
    file = f"notebooks/{chapter.name}.ipynb"
    colab = f"colab.research.google.com/github/{REPOSITORY}/blob/main/{file}"
    if colab not in text:
        yield Problem("opening", f"lacks the Colab badge, a link to {colab}", 1)
    binder = rf"mybinder\.org/v2/gh/{REPOSITORY}/\S*{re.escape(chapter.name)}\.ipynb"
    if not re.search(binder, text):
        yield Problem("opening", f"lacks the Binder badge, a link that opens {file}", 1)
    before_outcomes = text.partition("**You will be able to")[0]
    if "?" not in re.sub(r"\(https?:[^)]*\)", "", before_outcomes):
        yield Problem("opening", "does not say as a question what the chapter answers", 1)
    if "figure" not in before_outcomes.lower():
        yield Problem("opening", "does not point at the figure that the chapter ends with", 1)
    if not re.search(r"\*\*Reading time:\*\* about \d+ minutes", text):
        yield Problem("opening", "lacks `**Reading time:** about N minutes`", 1)
    running = re.search(r"\*\*Running time:\*\* about (\d+) s\b", text)
    if running is None:
        yield Problem("opening", "lacks `**Running time:** about N s on two CPU cores`", 1)
    elif int(running[1]) > SECONDS:
        yield Problem("opening", f"runs for {running[1]} s; {SECONDS} s are allowed", 1)
    if "**Builds on:**" not in text:
        yield Problem("opening", "lacks `**Builds on:** …`", 1)
    if "DLNOTES_SCALE" not in text:
        message = "does not say how to run at full scale (DLNOTES_SCALE=full)"
        yield Problem("opening", message, 1, warning=True)


def outcomes(chapter: Chapter) -> list[str]:
    """Return the promised outcomes, the numbered list under "You will be able to"."""
    text = "\n\n".join(cell.source for cell in chapter.opening)
    _, found, rest = text.partition("**You will be able to")
    listed: list[str] = []
    for line in rest.splitlines()[1:] if found else []:
        item = re.match(r"\s{0,3}(\d+)[.)]\s+(.+)", line)
        if item:
            listed.append(item[2])
        elif listed and line.strip() and not line.startswith(" "):
            break
    return listed


def outcome_list(chapter: Chapter) -> Iterator[Problem]:
    """Three to six numbered outcomes."""
    count = len(outcomes(chapter))
    if not OUTCOMES[0] <= count <= OUTCOMES[1]:
        message = (
            f"**You will be able to** must be followed by a numbered list of {OUTCOMES[0]} "
            f"to {OUTCOMES[1]} outcomes; found {count}"
        )
        yield Problem("outcomes", message, 1)


def set_up_cell(chapter: Chapter) -> Iterator[Problem]:
    """The first code cell is the book's set-up cell, letter by letter, and no other is."""
    template = chapter.root / "tools" / "setup_cell.py"
    tagged = [cell for cell in chapter.cells if "setup" in cell.tags]
    first = chapter.code[0] if chapter.code else None
    if first is None or tagged != [first]:
        where = tagged[0].number if tagged else (first.number if first else 0)
        message = "the first code cell, and it alone, carries the tag `setup`"
        yield Problem("set-up", message, where)
    elif first.source.strip() != template.read_text(encoding="utf-8").strip():
        message = "the set-up cell differs from tools/setup_cell.py"
        yield Problem("set-up", message, first.number)


# ---------------------------------------------------------------- sections


def sections(chapter: Chapter) -> Iterator[Problem]:
    """Sections are numbered in order; the closing ones are there, last and in order."""
    closing = []
    expected = 1
    for level, text, cell, line in chapter.headings:
        if level == 1 and cell is not chapter.cells[0]:
            yield Problem("sections", f"a second title: {text!r}", cell.number, line)
        if level != 2:
            continue
        if text in CLOSING:
            closing.append(text)
        elif closing:
            message = f"section {text!r} stands after {closing[-1]!r}"
            yield Problem("sections", message, cell.number, line)
        elif not text.startswith(f"{chapter.number}.{expected} "):
            message = f"section {text!r} must be numbered {chapter.number}.{expected}"
            yield Problem("sections", message, cell.number, line)
            expected += 1
        else:
            expected += 1
    for name in CLOSING:
        if name not in closing:
            yield Problem("sections", f"lacks the closing section `## {name}`")
    if sorted(closing, key=CLOSING.index) != closing:
        yield Problem("sections", f"closing sections must come in the order {', '.join(CLOSING)}")
    for name in CLOSING:
        if closing.count(name) > 1:
            yield Problem("sections", f"`## {name}` stands more than once")


def summary(chapter: Chapter) -> Iterator[Problem]:
    """A table of idea, formula, where in dlnotes and when to use."""
    text = chapter.section("Summary")
    if text is None:
        return
    rows = table_rows(text)
    if len(rows) < 2 or len(rows[0]) != 4:
        message = "Summary needs a table: idea | formula | where in `dlnotes` | when to use"
        yield Problem("summary", message)


def key_terms(chapter: Chapter) -> Iterator[Problem]:
    """A table of terms with Chinese names, each introduced in bold with that name."""
    text = chapter.section("Key terms")
    if text is None:
        return
    rows = table_rows(text)[1:]
    if not rows:
        yield Problem("key-terms", "Key terms needs a table: English | 中文 | section")
        return

    def plain(term: str) -> str:
        term = re.sub(r"[*`]", "", term).partition(" (")[0]
        return re.sub(r"(?<=[a-z])s$", "", " ".join(term.lower().split()))

    introduced = {}
    for cell in chapter.markdown:
        # A term may stand at the end of a line and its Chinese name on the next.
        joined = re.sub(r"(?<!\n)\n(?!\n)", " ", cell.source)
        for english, chinese in _INTRODUCED.findall(joined):
            introduced.setdefault(plain(english), chinese)
    pairs = [pair for row in rows for pair in _term_pairs(row)]
    names = {name.strip() for value in introduced.values() for name in _split(value)}
    for english, chinese in pairs:
        if not re.search(f"[{_CHINESE}]", chinese):
            yield Problem("key-terms", f"{english!r} has no Chinese name in the table")
        elif plain(english) in introduced:
            said = introduced[plain(english)]
            if not {name.strip() for name in _split(said)} & set(_split(chinese)):
                message = f"{english!r} is {chinese} in the table, {said} in the text"
                yield Problem("key-terms", message)
        elif not names & set(_split(chinese)):  # the text may use a longer or shorter form
            message = f"{english!r} is not introduced in the text as **{english}** ({chinese})"
            yield Problem("key-terms", message)
    listed = {plain(english) for english, _ in pairs}
    chinese_listed = {name for _, chinese in pairs for name in _split(chinese)}
    for english, said in introduced.items():
        if english not in listed and not chinese_listed & set(_split(said)):
            message = f"**{english}** is introduced but missing in Key terms"
            yield Problem("key-terms", message, warning=True)


def _split(names: str) -> list[str]:
    return [name.strip() for name in re.split(r"[,;/、，；]", names)]


def _term_pairs(row: list[str]) -> list[tuple[str, str]]:
    """Return the terms of a table's row; "unit, layer | 单元, 层" are two."""
    english, chinese = row[0], row[1] if len(row) > 1 else ""
    parts = [part.strip() for part in english.split(",")], _split(chinese)
    if len(parts[0]) == len(parts[1]):
        return list(zip(*parts, strict=True))
    return [(english, chinese)]


def self_test(chapter: Chapter) -> Iterator[Problem]:
    """Ten questions, each with its answer folded away."""
    text = chapter.section("Self-test")
    if text is None:
        return
    folded = re.findall(r"<details>(.*?)</details>", text, re.DOTALL)
    if len(folded) < SELF_TEST_QUESTIONS:
        message = (
            f"Self-test needs {SELF_TEST_QUESTIONS} questions with answers in <details>, "
            f"found {len(folded)}"
        )
        yield Problem("self-test", message)


def folded_answers(chapter: Chapter) -> Iterator[Problem]:
    """A folded part has a summary and an empty line after it, or its Markdown is not rendered."""
    for cell in chapter.markdown:
        for match in re.finditer(r"<details>(.*?)</details>", cell.source, re.DOTALL):
            line = cell.line_of(match.start())
            after = re.search(r"</summary>(.*)", match[1], re.DOTALL)
            if after is None:
                yield Problem("folded", "<details> lacks its <summary>", cell.number, line)
            elif re.search(r"[$`*\[]", after[1]) and not re.match(r"\s*\n\s*\n", after[1]):
                message = "leave an empty line after </summary>, or its Markdown shows raw"
                yield Problem("folded", message, cell.number, line)


def references(chapter: Chapter) -> Iterator[Problem]:
    """Real references: each entry has a year."""
    text = chapter.section("References")
    if text is None:
        return
    joined = re.sub(r"\n(?!\s*(?:[-*]|\d+[.)])\s|\s*$)\s*", " ", text, flags=re.MULTILINE)
    entries = re.findall(r"^\s*(?:[-*]|\d+[.)])\s+(.+)$", joined, re.MULTILINE)
    if len(entries) < REFERENCES:
        message = f"References needs a list of {REFERENCES} entries or more, found {len(entries)}"
        yield Problem("references", message)
    for entry in entries:
        if not re.search(r"\b(1\d|20)\d\d\b", re.sub(r"arXiv:\S+", "", entry)):
            yield Problem("references", f"no year in the reference {entry[:60]!r}")


def exercises(chapter: Chapter) -> Iterator[Problem]:
    """The exercises are linked, test every outcome, and know typical wrong answers."""
    from dlnotes.course.build import MasterError, read_master

    text = chapter.section("Exercises") or ""
    link = f"../exercises/{chapter.name}.ipynb"
    if link not in text:
        yield Problem("exercises", f"the section Exercises does not link to {link}")
    master = chapter.root / "solutions" / f"{chapter.name}.py"
    if not master.exists():
        yield Problem("exercises", f"there is no solutions/{chapter.name}.py")
        return
    try:
        exercise = read_master(master)
    except MasterError as error:
        for problem in error.problems:
            yield Problem("exercises", f"solutions/{chapter.name}.py: {problem}")
        return
    questions = exercise.questions
    if len(questions) < EXERCISE_QUESTIONS:
        message = f"{EXERCISE_QUESTIONS} questions or more are needed, found {len(questions)}"
        yield Problem("exercises", message)
    promised = set(range(1, len(outcomes(chapter)) + 1))
    tested = {k for question in questions.values() for k in question.outcomes}
    for k in sorted(promised - tested):
        yield Problem("exercises", f"no question tests outcome {k} (tag `outcome-{k}`)")
    for name, question in questions.items():
        for k in sorted(set(question.outcomes) - promised):
            yield Problem("exercises", f"{name} tests outcome {k}, which is not promised")
        wrong = sum(answer.question == name for answer in exercise.wrong)
        if wrong < WRONG_ANSWERS:
            message = f"{name} has {wrong} typical wrong answers; {WRONG_ANSWERS} are needed"
            yield Problem("exercises", message)


# ---------------------------------------------------------------- figures, demos, predictions


def figures(chapter: Chapter) -> Iterator[Problem]:
    """Every picture comes from viz.show or viz.demo, with a text for who cannot see it."""
    for cell in chapter.code:
        for match in re.finditer(r"\bplt\.show\(", cell.source):
            message = "plt.show() leaves no alternative text: use viz.show(fig, alt=…)"
            yield Problem("figures", message, cell.number, cell.line_of(match.start()))
        for output in cell.outputs:
            data = output.get("data", {})
            if not any(kind.startswith("image/") for kind in data):
                continue
            said = "".join(data.get("text/plain", ""))
            described = re.match(r"(Figure|Demo): (.+)", said, re.DOTALL)
            if described is None:
                message = "a picture without alternative text: use viz.show(fig, alt=…)"
                yield Problem("figures", message, cell.number)
            elif len(described[2].strip()) < ALT_CHARACTERS:
                message = f"the alternative text {described[2]!r} says too little"
                yield Problem("figures", message, cell.number)
    for cell in chapter.markdown:
        for match in _LINK.finditer(cell.prose):
            if match[1] and not match[2].strip():
                message = f"the picture {match[3]} has no alternative text"
                yield Problem("figures", message, cell.number, cell.line_of(match.start()))
        for match in re.finditer(r"<img\b(?![^>]*\balt=\"[^\"]+\")[^>]*>", cell.prose):
            message = "an <img> without alternative text"
            yield Problem("figures", message, cell.number, cell.line_of(match.start()))


def closing_figure(chapter: Chapter) -> Iterator[Problem]:
    """The chapter shows at least one figure."""
    if not chapter.calls("show"):
        yield Problem("figures", "no figure: viz.show(fig, alt=…) is never called")


def demos(chapter: Chapter) -> Iterator[Problem]:
    """Three or more interactive demonstrations, each with its still picture."""
    cells = chapter.calls("demo")
    if len(cells) < DEMOS:
        yield Problem("demos", f"{DEMOS} viz.demo or more are needed, found {len(cells)}")
    for cell in cells:
        if not any(
            "image/png" in output.get("data", {})
            and "".join(output["data"].get("text/plain", "")).startswith("Demo: ")
            for output in cell.outputs
        ):
            message = "viz.demo left no still picture: run the notebook again"
            yield Problem("demos", message, cell.number)


def predictions(chapter: Chapter) -> Iterator[Problem]:
    """Two to five questions that the reader answers before running the answer."""
    count = len(chapter.calls("predict"))
    if not PREDICTIONS[0] <= count <= PREDICTIONS[1]:
        message = f"{PREDICTIONS[0]} to {PREDICTIONS[1]} viz.predict are needed, found {count}"
        yield Problem("predictions", message)


# ---------------------------------------------------------------- formulas


def formulas(chapter: Chapter) -> Iterator[Problem]:
    """Every displayed formula is numbered, and checked by a cell that names its number."""
    numbered: dict[str, Cell] = {}
    for cell in chapter.markdown:
        for match in _DISPLAYED.finditer(cell.prose):
            line = cell.line_of(match.start())
            tags = _TAG.findall(match[1])
            if not tags:
                message = rf"a displayed formula without \tag{{{chapter.number}.k}}"
                yield Problem("formulas", message, cell.number, line)
            for tag in tags:
                if tag in numbered:
                    yield Problem("formulas", f"a second formula ({tag})", cell.number, line)
                elif not re.fullmatch(rf"{chapter.number}\.\d+[a-z]?", tag):
                    message = f"formula ({tag}) must be numbered {chapter.number}.k"
                    yield Problem("formulas", message, cell.number, line)
                numbered.setdefault(tag, cell)
        for match in re.finditer(r"\bequations?\s+\((\d+\.\d+[a-z]?)\)", cell.prose, re.I):
            known = match[1].partition(".")[0] != chapter.number or any(
                rf"\tag{{{match[1]}}}" in other.source for other in chapter.markdown
            )
            if not known:
                message = f"refers to equation ({match[1]}), which is not there"
                yield Problem("formulas", message, cell.number, cell.line_of(match.start()))
    twins: dict[str, Cell] = {}
    for cell in chapter.code:
        for match in _TWIN.finditer(cell.source):
            for tag in _NUMBER.findall(match[1]):
                if tag not in numbered:
                    message = f"`# equation ({tag})`, but there is no such formula"
                    yield Problem("formulas", message, cell.number, cell.line_of(match.start()))
                if tag not in twins or _CHECKS.search(cell.source):
                    twins[tag] = cell
    for tag, cell in numbered.items():
        if tag not in twins:
            message = f"formula ({tag}) has no twin: a cell with `# equation ({tag})`"
            yield Problem("formulas", message, cell.number)
        elif not _CHECKS.search(twins[tag].source):
            message = f"the twin of formula ({tag}) checks nothing (check.close, check.claim, …)"
            yield Problem("formulas", message, twins[tag].number)


# ---------------------------------------------------------------- cells, prose, links


def code_length(chapter: Chapter) -> Iterator[Problem]:
    """A code cell fits on a screen, unless it is folded."""
    for cell in chapter.code:
        lines = len(cell.source.splitlines())
        if lines > CODE_LINES and not {"setup", "hide-input"} & set(cell.tags):
            message = f"{lines} lines of code; aim at {CODE_LINES}"
            yield Problem("code-length", message, cell.number, warning=True)


def outputs(chapter: Chapter) -> Iterator[Problem]:
    """Stored outputs are stable: no warnings, nothing printed beside a picture."""
    for cell in chapter.code:
        if _EXEMPTING & set(cell.tags):
            if not re.match(r"# exempt: \S.{9,}", cell.source):
                message = "an exempt cell must start with `# exempt: why`"
                yield Problem("outputs", message, cell.number, 1)
            continue
        streams = {o.get("name") for o in cell.outputs if o["output_type"] == "stream"}
        pictures = any("image/png" in o.get("data", {}) for o in cell.outputs)
        if "stderr" in streams:
            yield Problem("outputs", "a stored warning or progress bar (stderr)", cell.number)
        if "stdout" in streams and pictures:
            yield Problem("outputs", "print and plot in separate cells", cell.number)


def prose(chapter: Chapter) -> Iterator[Problem]:
    """No filler, no emoji."""
    pattern = re.compile(rf"\b({'|'.join(BANNED)})\b", re.IGNORECASE)
    for cell in chapter.markdown:
        for match in pattern.finditer(cell.prose):
            line = cell.line_of(match.start())
            yield Problem("prose", f"the word {match[1]!r}", cell.number, line)
        for match in _EMOJI.finditer(cell.prose):
            line = cell.line_of(match.start())
            yield Problem("prose", f"the emoji {match[0]}", cell.number, line)


def _anchors(chapter: Chapter) -> set[str]:
    """The names that links to headings use in JupyterLab, Colab and on GitHub."""
    return {re.sub(r"[*`]", "", text).replace(" ", "-") for _, text, _, _ in chapter.headings}


def links(chapter: Chapter) -> Iterator[Problem]:
    """Links to files and headings of the repository lead somewhere."""
    from urllib.parse import unquote

    for cell in chapter.markdown:
        for match in _LINK.finditer(cell.prose):
            target = unquote(match[3])
            if re.match(r"[a-z][a-z+.-]*:", target):
                continue
            line = cell.line_of(match.start())
            file, _, anchor = target.partition("#")
            path = (chapter.path.parent / file).resolve() if file else chapter.path
            if not path.exists():
                yield Problem("links", f"{target} does not exist", cell.number, line)
            elif anchor and path.suffix == ".ipynb":
                other = chapter if path == chapter.path else read_chapter(path, chapter.root)
                if anchor not in _anchors(other):
                    message = f"{target}: no such heading (write it as in the heading, - for space)"
                    yield Problem("links", message, cell.number, line)


RULES: tuple[Rule, ...] = (
    title,
    opening,
    outcome_list,
    set_up_cell,
    sections,
    summary,
    key_terms,
    self_test,
    folded_answers,
    references,
    exercises,
    figures,
    closing_figure,
    demos,
    predictions,
    formulas,
    code_length,
    outputs,
    prose,
    links,
)


def check_chapter(path: Path, root: Path | None = None) -> list[Problem]:
    """Return every broken rule of the stored notebook at `path`, in the order of the cells."""
    chapter = read_chapter(path, root)
    found = [problem for rule in RULES for problem in rule(chapter)]
    return sorted(found, key=lambda problem: (problem.cell, problem.line))


def find_chapter(name: str, start: Path | None = None) -> Path:
    """Return the notebook that a chapter's name (02_mlp) or a path means.

    Raises FileNotFoundError when there is none; says which there are.
    """
    path = Path(name)
    if path.suffix == ".ipynb" and path.exists():
        return path
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        found = folder / "notebooks" / f"{path.stem}.ipynb"
        if found.exists():
            return found
    known = sorted(p.stem for p in here.glob("notebooks/*.ipynb"))
    raise FileNotFoundError(
        f"no chapter {name!r}; there are: {', '.join(known) or 'none'} "
        "(name a chapter inside a clone of the repository, or give a notebook's path)"
    )


def report(names: Sequence[str]) -> int:
    """Print what is wrong with the chapters; return 1 if any rule is broken, else 0."""
    broken = 0
    for name in names:
        try:
            path = find_chapter(name)
        except FileNotFoundError as error:
            print(error)
            return 1
        found = check_chapter(path)
        errors = sum(not problem.warning for problem in found)
        for problem in found:
            print(f"{path.stem}: {problem}")
        print(f"{path.stem}: {errors} problems, {len(found) - errors} warnings")
        broken += errors
    return int(broken > 0)
