"""What the notebook tests demand beyond nbval's comparison of outputs.

A pytest plugin: `pytest -p tools.nbval_gates --nbval --nbval-current-env notebooks`.

- Pictures are compared too (nbval leaves them out); tools/pictures.py says what counts as equal.
- A kernel that dies ends its cell at once (nbval waits for the whole time-out).
- A cell whose output or error is exempt says why in its first line: `# exempt: why`. A cell may
  not be skipped, and every cell must have been run before it was stored.
- The network is blocked, and an attempt to reach it fails the notebook even if it is caught.
- A notebook stays within its budget of time and memory.
- Demos are drawn at the corners of their controls (DLNOTES_CHECK_DEMOS).
"""

import base64
import contextlib
import os
import re
import shutil
import tempfile
import threading
import time
from pathlib import Path
from queue import Empty

import psutil
import pytest
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell, IPyNbFile, NbCellError

from tools.pictures import difference

SECONDS = 90.0
GIGABYTES = 2.0
OFFLINE = Path(__file__).resolve().parent / "offline"
NO_PROXY_HERE = "http://127.0.0.1:9"  # offline/sitecustomize.py knows this port
REASON = re.compile(r"# exempt: \S.{9,}")
EXEMPTING_TAGS = {"nbval-ignore-output", "nbval-raises-exception", "raises-exception"}
EXEMPTING_COMMENT = re.compile(
    r"^\s*#+\s*(PYTEST_VALIDATE_IGNORE_OUTPUT|NBVAL_IGNORE_OUTPUT|NBVAL_RAISES_EXCEPTION)\s*$",
    re.MULTILINE,
)
SKIPPING_COMMENT = re.compile(r"^\s*#+\s*NBVAL_SKIP\s*$", re.MULTILINE)
PICTURES = ("image/png", "image/jpeg")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("nbval gates")
    group.addoption("--notebook-seconds", type=float, default=SECONDS, help="time budget")
    group.addoption("--notebook-gigabytes", type=float, default=GIGABYTES, help="memory budget")


class GateError(Exception):
    """A notebook breaks one of the rules above; the text says which and where."""


# ---------------------------------------------------------------- rules that need no kernel


def rule_problems(nb: dict) -> list[str]:
    """Return what a stored notebook does wrong, one line each."""
    found = []
    code_cells = (cell for cell in nb["cells"] if cell["cell_type"] == "code")
    for number, cell in enumerate(code_cells):
        tags = set(cell["metadata"].get("tags", []))
        source = cell["source"]
        if "nbval-skip" in tags or SKIPPING_COMMENT.search(source):
            found.append(f"cell {number} is skipped: every cell must run")
        exempt = tags & EXEMPTING_TAGS or EXEMPTING_COMMENT.search(source)
        if exempt and not REASON.match(source):
            found.append(f"cell {number} is exempt but its first line is not `# exempt: why`")
        if source.strip() and cell["execution_count"] is None:
            found.append(f"cell {number} was stored without being run")
    return found


class Rules(pytest.Item):
    """One test per notebook: its cells are exempted for stated reasons only."""

    def runtest(self) -> None:
        found = rule_problems(self.parent.nb)
        if found:
            raise GateError("\n".join(found))

    def repr_failure(self, excinfo):
        return str(excinfo.value)

    def reportinfo(self):
        return self.path, 0, f"{self.path.name}: rules"


# ---------------------------------------------------------------- time, memory, network


class Watch:
    """Measures a kernel: its time in cells and its memory, children included."""

    INTERVAL = 0.2  # seconds between two looks at the memory

    def __init__(self, pid: int, limit: float):
        self.pid = pid
        self.limit = limit
        self.seconds = 0.0
        self.peak = 0.0
        self.killed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(self.INTERVAL):
            with contextlib.suppress(psutil.Error):
                self._measure()
                # Twice the budget: before it eats the memory of everything else here.
                if self.peak > 2 * self.limit:
                    self.killed = True
                    psutil.Process(self.pid).kill()
                    return

    def _measure(self) -> None:
        process = psutil.Process(self.pid)
        family = [process, *process.children(recursive=True)]
        total = 0
        for member in family:
            with contextlib.suppress(psutil.Error):
                total += member.memory_info().rss
        own = process.memory_info()
        # The system's own record of the highest value misses no short peak.
        total = max(total, getattr(own, "peak_wset", 0), self._high_water())
        self.peak = max(self.peak, total / 1e9)

    def _high_water(self) -> int:
        try:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        except OSError:  # not Linux, or the kernel has gone
            return 0
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0

    def waited(self) -> float:
        """Seconds that the kernel's main thread was ready to run but another program ran."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError, ValueError):  # not Linux, or the kernel has gone
            return 0.0

    @contextlib.contextmanager
    def cell(self):
        """Add the time of one cell, less the time that a busy machine took from it."""
        start, waited = time.monotonic(), self.waited()
        try:
            yield
        finally:
            lost = max(0.0, self.waited() - waited)
            self.seconds += max(0.0, time.monotonic() - start - lost)

    def finish(self) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(psutil.Error):
            self._measure()


class Budget(pytest.Item):
    """One test per notebook, after its cells: time, memory and network."""

    def runtest(self) -> None:
        watch: Watch = self.parent.watch
        watch.finish()
        seconds = self.config.getoption("notebook_seconds")
        gigabytes = self.config.getoption("notebook_gigabytes")
        found = []
        if watch.seconds > seconds:
            found.append(f"it runs for {watch.seconds:.0f} s; the budget is {seconds:g} s")
        if watch.peak > gigabytes:
            stopped = " and was stopped there" if watch.killed else ""
            found.append(
                f"it uses {watch.peak:.2f} GB of memory{stopped}; the budget is {gigabytes:g} GB"
            )
        reached = self.parent.network_log.read_text(encoding="utf-8").split()
        if reached:
            hosts = ", ".join(sorted(set(reached)))
            found.append(f"it asks for the network ({hosts}), which is blocked in the tests")
        self.add_report_section(
            "call", "budget", f"{watch.seconds:.1f} s, {watch.peak:.2f} GB at most"
        )
        self.user_properties += [
            ("notebook", f"{self.path.parent.name}/{self.path.name}"),
            ("seconds", watch.seconds),
            ("gigabytes", watch.peak),
        ]
        if found:
            raise GateError("\n".join(found))

    def repr_failure(self, excinfo):
        return str(excinfo.value)

    def reportinfo(self):
        return self.path, 0, f"{self.path.name}: budget"


def pytest_terminal_summary(terminalreporter) -> None:
    """List what each notebook took."""
    lines = []
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            measured = dict(report.user_properties)
            if "notebook" in measured and report.when == "call":
                seconds, gigabytes = measured["seconds"], measured["gigabytes"]
                lines.append(f"{measured['notebook']}: {seconds:.1f} s, {gigabytes:.2f} GB")
    if lines:
        terminalreporter.section("notebooks: time and memory")
        for line in sorted(lines):
            terminalreporter.write_line(line)


# ---------------------------------------------------------------- nbval, mended

_collect, _setup, _teardown = IPyNbFile.collect, IPyNbFile.setup, IPyNbFile.teardown
_runtest, _compare_outputs = IPyNbCell.runtest, IPyNbCell.compare_outputs


def _collect_with_gates(self):
    cells = list(_collect(self))
    if not cells:
        return
    yield Rules.from_parent(self, name="rules")
    yield from cells
    yield Budget.from_parent(self, name="budget")


def kernel_environment(scratch: Path) -> dict[str, str]:
    """Return the variables that a kernel under test starts with."""
    paths = [str(OFFLINE), os.environ.get("PYTHONPATH", "")]
    return {
        "DLNOTES_CHECK_DEMOS": "1",
        "DLNOTES_NETWORK_LOG": str(scratch / "network"),
        "DLNOTES_PROGRESS": "0",
        "DLNOTES_SCALE": "default",
        "IPYTHONDIR": str(scratch / "ipython"),  # nobody's start-up files, no shared history
        "OMP_NUM_THREADS": "1",  # the last digits of a sum depend on it
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        # Programs that are not Python: a port on this machine where nobody answers.
        "http_proxy": NO_PROXY_HERE,
        "https_proxy": NO_PROXY_HERE,
        "no_proxy": "127.0.0.1,localhost",
    }


def _setup_with_gates(self):
    self.scratch = Path(tempfile.mkdtemp(prefix="dlnotes-notebook-"))
    self.network_log = self.scratch / "network"
    self.network_log.touch()
    before = dict(os.environ)
    os.environ.update(kernel_environment(self.scratch))
    try:
        _setup(self)
    finally:
        os.environ.clear()
        os.environ.update(before)
    limit = self.config.getoption("notebook_gigabytes")
    self.watch = Watch(self.kernel.km.provisioner.pid, limit)


def _teardown_with_gates(self):
    if hasattr(self, "watch"):
        self.watch.finish()
    _teardown(self)
    if hasattr(self, "scratch"):
        shutil.rmtree(self.scratch, ignore_errors=True)


def _runtest_watched(self):
    if not self.parent.kernel.is_alive():
        raise NbCellError(self.cell_num, "The kernel died in an earlier cell", self.cell.source)
    with self.parent.watch.cell():
        try:
            _runtest(self)
        except KernelDied as error:
            raise NbCellError(self.cell_num, str(error), self.cell.source) from error


class KernelDied(RuntimeError):
    """The kernel's process ended while a cell was running."""


def _await_reply(self, msg_id, timeout=None):
    """Wait for a cell's reply, looking once a second whether the kernel still lives."""
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        if not self.is_alive():
            raise KernelDied("The kernel died while the cell was running")
        try:
            message = self.get_message(stream="shell", timeout=1)
        except Empty:
            if end is not None and time.monotonic() > end:
                raise
            continue
        if message["parent_header"].get("msg_id") == msg_id:
            if message["content"]["status"] == "aborted":
                raise RuntimeError("The kernel aborted the execution request")
            return


def _pictures(outputs) -> list[tuple[str, str]]:
    return [
        (mimetype, output["data"][mimetype])
        for output in outputs
        for mimetype in PICTURES
        if mimetype in output.get("data", {})
    ]


def picture_problem(stored, fresh) -> str | None:
    """Say how the pictures of a cell's stored and fresh outputs differ, or return None."""
    before, after = _pictures(stored), _pictures(fresh)
    if [kind for kind, _ in before] != [kind for kind, _ in after]:
        return f"{len(before)} pictures are stored, the run made {len(after)}"
    for number, ((_, old), (_, new)) in enumerate(zip(before, after, strict=True), start=1):
        said = difference(base64.b64decode(old), base64.b64decode(new))
        if said is not None:
            return f"picture {number} of {len(before)}: {said}"
    return None


def _compare_with_pictures(self, test, ref, skip_compare=None):
    if not _compare_outputs(self, test, ref, skip_compare):
        return False
    problem = picture_problem(ref, test)
    if problem is None:
        return True
    self.comparison_traceback.append(f"{problem}\n")
    return False


IPyNbFile.collect = _collect_with_gates
IPyNbFile.setup = _setup_with_gates
IPyNbFile.teardown = _teardown_with_gates
IPyNbCell.runtest = _runtest_watched
IPyNbCell.compare_outputs = _compare_with_pictures
RunningKernel.await_reply = _await_reply
