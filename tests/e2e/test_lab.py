"""End to end: what a reader does, in JupyterLab in a real headless Chromium.

The server is the one that `make lab` starts, on a copy of the book (JupyterLab saves what it
opens). The page may talk to that server only.
"""

import base64
import contextlib
import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from dlnotes.course.notebook_format import dumps, normalize
from tools.lab import command
from tools.notebooks import to_text

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="written for Linux and macOS"),
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium found (install it, or name it in CHROMIUM)"
    ),
    pytest.mark.timeout(500),
]
CHAPTERS = (
    "01_basics",
    "02_mlp",
    "03_cnn",
    "04_optimisation",
    "05_regularization",
    "14_cuda",
)
RUN_SECONDS = 300  # for a whole notebook, whose budget is 90 s on an idle machine
COPIED = ("exercises", "notebooks", "text", "jupytext.toml")

# The pictures of the launch badges are the only thing that a chapter takes from elsewhere.
BADGES = ("https://colab.research.google.com/assets/", "https://mybinder.org/badge_logo.svg")

DEMO = """\
import matplotlib.pyplot as plt
from dlnotes import viz

def draw(a):
    fig, ax = plt.subplots()
    ax.plot([0, {height}])
    ax.set(xlabel="x", ylabel="y", ylim=(0, 10))
    return fig

viz.demo(draw, alt="A line, or rather two axes", a=viz.slider(0, 9, 2, label="a"))
"""
SCRATCH = {
    "live": (DEMO.format(height="a"),),
    "dead": (DEMO.format(height="1"), "1 / 0"),  # its slider does nothing; then an error
}

# The notebook in front, as JupyterLab's own objects.
CURRENT = "window.jupyterapp?.shell?.currentWidget"
CELLS = f"""() => Array.from({CURRENT}.content.model.cells).map((cell) => ({{
  code: cell.type === 'code',
  source: cell.sharedModel.getSource(),
  count: cell.executionCount,
  outputs: cell.type === 'code' ? cell.outputs.toJSON() : [],
}}))"""
# The same in short, for looking often: what the kernel does, how many cells still wait, errors.
PROGRESS = f"""() => {{
  const cells = Array.from({CURRENT}.content.model.cells).filter(
    (cell) => cell.type === 'code' && cell.sharedModel.getSource().trim());
  const failed = (cell) => !cell.sharedModel.getSource().includes('# exempt:')
    && Array.from({{length: cell.outputs.length}}, (_, i) => cell.outputs.get(i).type)
      .includes('error');
  return {{
    kernel: {CURRENT}.sessionContext.session?.kernel?.status,
    waiting: cells.filter((cell) => !cell.executionCount).length,
    failed: cells.some(failed),
    next: cells.find((cell) => !cell.executionCount)?.sharedModel.getSource() ?? '',
  }};
}}"""
PICTURE = """async (image) => {
  const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
}"""


# ---------------------------------------------------------------- the server and the browser


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def settings(folder: Path) -> dict[str, str]:
    """Return an environment that shares nothing with the JupyterLab of whoever runs this."""
    overrides = folder / "config" / "labconfig" / "default_setting_overrides.json"
    overrides.parent.mkdir(parents=True)
    overrides.write_text(
        json.dumps(
            {
                "@jupyterlab/apputils-extension:notification": {"fetchNews": "false"},
                "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
            }
        ),
        encoding="utf-8",
    )
    return {
        **os.environ,
        "DLNOTES_PROGRESS": "0",
        "IPYTHONDIR": str(folder / "ipython"),
        "OMP_NUM_THREADS": "1",  # as for the notebooks' tests
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }


def wait_for(url: str, process: subprocess.Popen, log: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.25)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')[-3000:]}")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address and the token of a JupyterLab that serves a copy of the book."""
    folder = tmp_path_factory.mktemp("lab")
    book = folder / "book"
    book.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, book / name)
        else:
            shutil.copy(ROOT / name, book / name)
    for name, sources in SCRATCH.items():
        nb = normalize(new_notebook(cells=[new_code_cell(source) for source in sources]), name)
        (book / "notebooks" / f"{name}.ipynb").write_text(dumps(nb), encoding="utf-8")
        (book / "text" / f"{name}.md").write_text(to_text(nb), encoding="utf-8")
    for text in (book / "text").glob("*.md"):
        os.utime(text, (0, 0))  # a clone may make the texts look older than their notebooks
    port, token, log = free_port(), secrets.token_hex(16), folder / "lab.log"
    options = [
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        "--LabApp.expose_app_in_browser=True",
    ]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command(*options, browser=False, book=book),
            cwd=folder,
            env=settings(folder),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/api?token={token}", process, log)
        yield address, token
    finally:
        # JupyterLab asks on the first interrupt; on SIGTERM it ends its kernels and itself.
        os.kill(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM,
            # No name is looked up: whatever asks for another machine fails at once.
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(lab, browser):
    """A fresh page; afterwards it is asserted that it asked for nothing from elsewhere."""
    address, _ = lab
    own = (address, address.replace("http", "ws", 1), "data:", "blob:", *BADGES)
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    elsewhere = []
    for event in ("request", "websocket"):
        page.on(event, lambda r: elsewhere.append(r.url) if not r.url.startswith(own) else None)
    yield page
    with contextlib.suppress(sync_api.Error):
        page.evaluate(f"async () => {{ await {CURRENT}?.sessionContext?.shutdown(); }}")
    context.close()
    assert elsewhere == []


# ---------------------------------------------------------------- what a reader does


def open_notebook(page, lab, path: str) -> None:
    address, token = lab
    workspace = secrets.token_hex(4)
    page.goto(f"{address}/lab/workspaces/{workspace}/tree/{path}?token={token}")
    page.wait_for_function(
        f"() => {CURRENT}?.content?.model?.cells"
        f" && {CURRENT}.sessionContext?.session?.kernel?.status === 'idle'",
        timeout=120_000,
    )
    page.wait_for_selector(".jp-Notebook .jp-Cell")


def forget_outputs(page) -> None:
    """Clear stored outputs and counts: else a notebook looks as if it had run."""
    page.evaluate("() => window.jupyterapp.commands.execute('editmenu:clear-all')")
    page.wait_for_function(
        f"() => Array.from({CURRENT}.content.model.cells).every("
        "(cell) => cell.type !== 'code' || (!cell.executionCount && !cell.outputs.length))"
    )


def restart_and_run_all(page) -> list[dict]:
    """Use the menu; return the cells when all have run, or as soon as one has failed."""
    forget_outputs(page)
    page.evaluate(
        "() => { window.restarts = 0;"
        f" {CURRENT}.sessionContext.statusChanged.connect((_, status) => {{"
        "  if (status === 'restarting' || status === 'autorestarting') window.restarts++; }); }"
    )
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_text("Restart Kernel and Run All Cells").last.click()
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    page.wait_for_function("() => window.restarts > 0", timeout=60_000)
    end, quiet = time.monotonic() + RUN_SECONDS, 0
    while time.monotonic() < end:
        state = page.evaluate(PROGRESS)
        finished = state["waiting"] == 0 or state["failed"]
        # Idle for a moment only does not count: the next cell may be on its way.
        quiet = quiet + 1 if finished and state["kernel"] == "idle" else 0
        if quiet >= 3:
            return page.evaluate(CELLS)
        page.wait_for_timeout(500)
    raise AssertionError(
        f"not finished after {RUN_SECONDS} s: the kernel is {state['kernel']}, "
        f"{state['waiting']} cells wait, the first of them:\n{state['next']}"
    )


def errors(cells: list[dict]) -> list[str]:
    return [
        f"{output['ename']}: {output['evalue']} in {cell['source'][:80]!r}"
        for cell in cells
        for output in cell["outputs"]
        if output["output_type"] == "error" and "# exempt:" not in cell["source"]
    ]


def demo_positions(cells: list[dict]) -> list[int]:
    return [
        index
        for index, cell in enumerate(cells)
        for output in cell["outputs"]
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {})
        and "".join(output["data"].get("text/plain", "")).startswith("Demo: ")
    ]


def changed_pixels(before: str, after: str) -> int:
    """Return how many pixels of two pictures (PNG, base64) differ to the eye."""
    pictures = (Image.open(io.BytesIO(base64.b64decode(png))) for png in (before, after))
    a, b = (np.asarray(picture.convert("RGB"), dtype=int) for picture in pictures)
    return a.size if a.shape != b.shape else int((np.abs(a - b).max(axis=-1) > 64).sum())


def move_first_slider(page, cells: list[dict]) -> int:
    """Press the right arrow on the first demo's slider; return how many pixels that changes."""
    for index in demo_positions(cells):
        # JupyterLab draws only what is near the window.
        page.evaluate(f"(index) => {CURRENT}.content.scrollToItem(index, 'center')", index)
        cell = page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{index}"]')
        cell.locator("img").first.wait_for(state="attached", timeout=30_000)
        handle = cell.locator(".noUi-handle").first
        if handle.count() == 0:  # a demo of choices
            continue
        image = cell.locator("img").first.element_handle()
        before = image.evaluate(PICTURE)
        handle.focus()
        for _ in range(5):
            page.keyboard.press("ArrowRight")
            page.wait_for_timeout(100)
        changed = 0
        for _ in range(50):
            changed = changed_pixels(before, image.evaluate(PICTURE))
            if changed:
                break
            page.wait_for_timeout(200)
        return changed
    raise AssertionError("no demo with a slider")


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_runs_and_its_slider_answers_the_keyboard(page, lab, chapter):
    open_notebook(page, lab, f"notebooks/{chapter}.ipynb")
    cells = restart_and_run_all(page)
    assert errors(cells) == []
    counts = [cell["count"] for cell in cells if cell["code"] and cell["source"].strip()]
    assert counts == list(range(1, len(counts) + 1))
    assert move_first_slider(page, cells) > 0, "the slider moved, the picture did not change"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_an_empty_exercise_gets_feedback_and_no_points(page, lab, chapter):
    open_notebook(page, lab, f"exercises/{chapter}.ipynb")
    cells = restart_and_run_all(page)
    assert errors(cells) == []
    shown = {cell["source"].strip(): text_of(cell) for cell in cells if cell["code"]}
    assert "Question 1 · " in shown['grader.check("q1")']
    assert "not yet" in shown['grader.check("q1")']
    assert "Visible checks: 0 of " in shown['grader.check("q1")']
    assert f"Exercise {chapter}: 0 of " in shown["grader.score()"]


def test_a_slider_is_moved_by_the_keyboard(page, lab):
    open_notebook(page, lab, "notebooks/live.ipynb")
    assert move_first_slider(page, restart_and_run_all(page)) > 0


def test_a_dead_slider_and_an_error_are_noticed(page, lab):
    open_notebook(page, lab, "notebooks/dead.ipynb")
    cells = restart_and_run_all(page)
    assert errors(cells) == ["ZeroDivisionError: division by zero in '1 / 0'"]
    assert move_first_slider(page, cells) == 0


def text_of(cell: dict) -> str:
    parts = []
    for output in cell["outputs"]:
        parts.append(output.get("text", ""))
        parts += [str(part) for part in output.get("data", {}).values()]
    return "\n".join("".join(part) for part in parts)
