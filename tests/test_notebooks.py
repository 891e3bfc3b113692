"""Each gate that the notebooks pass in the tests is shown to stop a bad notebook."""

import base64
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from dlnotes.course.notebook_format import execute, normalize

ROOT = Path(__file__).resolve().parents[1]
FIGURE = """\
import matplotlib.pyplot as plt
from dlnotes import viz

fig, ax = plt.subplots(figsize=(5, 3))
ax.plot([0, 1, 2], [0, {middle}, 4])
ax.set(xlabel="x", ylabel="y")
viz.show(fig, alt="A line from the origin up to four")
"""
DEMO = """\
import matplotlib.pyplot as plt
from dlnotes import viz

def draw(a):
    fig, ax = plt.subplots()
    ax.plot([0, {height}])
    ax.set(xlabel="x", ylabel="y")
    return fig

viz.demo(draw, alt="A line that depends on {{a}}, the slider", a=viz.slider(0, 5, 2, label="a"))
"""


def cell(source: str, *outputs: dict, tags: tuple[str, ...] = (), run: bool = True) -> dict:
    made = new_code_cell(source, outputs=list(outputs), execution_count=1 if run else None)
    if tags:
        made.metadata["tags"] = list(tags)
    return made


def printed(text: str) -> dict:
    return new_output("stream", name="stdout", text=text)


EXEMPT = ("nbval-ignore-output",)
# Each notebook as it is stored; what the test of it must say, or None where it must pass.
PLAIN = {
    "good": (
        None,
        cell("print('accuracy 0.95 or better')", printed("accuracy 0.95 or better\n")),
        cell(
            "# exempt: the time differs each time\nimport time\nprint(time.perf_counter())",
            tags=EXEMPT,
        ),
    ),
    "changed_output": ("mismatch 'stdout'", cell("print(2)", printed("1\n"))),
    "vanished_output": ("Missing output fields", cell("x = 1", printed("1\n"))),
    "new_output": ("Unexpected output fields", cell("print(1)")),
    "error": ("Cell execution caused an exception", cell("1 / 0")),
    "exempt_output": ("cell 0 is exempt but", cell("x = 1", tags=EXEMPT)),
    "exempt_hardly": ("cell 0 is exempt but", cell("# exempt: short\nx = 1", tags=EXEMPT)),
    "exempt_error": ("cell 0 is exempt but", cell("x = 1", tags=("raises-exception",))),
    "exempt_comment": ("cell 0 is exempt but", cell("# NBVAL_IGNORE_OUTPUT\nx = 1")),
    "skipped": ("cell 0 is skipped", cell("x = 1", tags=("nbval-skip",))),
    "skipped_comment": ("cell 0 is skipped", cell("# NBVAL_SKIP\nx = 1")),
    "never_run": ("cell 0 was stored without being run", cell("x = 1", run=False)),
    "network_web": (
        "it asks for the network (",
        cell("import urllib.request\nurllib.request.urlopen('http://example.org/')"),
    ),
    "network_caught": (  # as a loader with a fall-back does
        "it asks for the network (192.0.2.1)",
        cell(
            "import socket\ntry:\n    socket.create_connection(('192.0.2.1', 80), timeout=1)\n"
            "except OSError:\n    pass"
        ),
    ),
    "network_child": (
        "it asks for the network (example.org)",
        cell(
            "import subprocess, sys\n"
            "code = \"import socket; socket.getaddrinfo('example.org', 80)\"\n"
            "subprocess.run([sys.executable, '-c', code], stderr=subprocess.DEVNULL)\nNone"
        ),
    ),
    "network_datagram": (
        "it asks for the network (192.0.2.1)",
        cell(
            "import socket\ns = socket.socket(type=socket.SOCK_DGRAM)\n"
            "try:\n    s.sendto(b'x', ('192.0.2.1', 9))\nexcept OSError:\n    s.close()"
        ),
    ),
    "network_local": (
        None,
        cell(
            "import socket\nserver = socket.create_server(('127.0.0.1', 0))\n"
            "client = socket.create_connection(server.getsockname())\n"
            "client.close()\nserver.close()\nsocket.getaddrinfo('localhost', 80)\nNone"
        ),
    ),
    "dead": (  # nbval alone would wait 2000 s
        "The kernel died while the cell was running",
        cell("import os\nos._exit(1)"),
        cell("x = 1"),
    ),
    "settings": (
        None,
        cell(
            "import os\nnames = 'CHECK_DEMOS PROGRESS SCALE'.split()\n"
            "assert [os.environ['DLNOTES_' + n] for n in names] == ['1', '0', 'default']\n"
            "assert (os.environ['OMP_NUM_THREADS'], os.environ['PYTHONHASHSEED']) == ('1', '0')"
        ),
    ),
}
DRAWN = {
    "picture": None,
    "changed_picture": "of the picture changed",
    "missing_picture": "0 pictures are stored, the run made 1",
    "demo": None,
    "demo_with_a_bad_corner": "the demo draw fails at a=5",
}


def run_nbval(folder: Path, *options: str, gates: bool = True) -> tuple[dict[str, str], str]:
    """Test a folder's notebooks as `make test` does.

    Returns what is wrong with each notebook, "" where nothing is, and what was printed.
    """
    plugin = ["-p", "tools.nbval_gates"] if gates else []
    report = folder / "report.xml"
    where = ["-c", "pyproject.toml", f"--rootdir={folder}", f"--junitxml={report}"]
    command = ["pytest", *plugin, "--nbval", "--nbval-current-env", "-q", "--color=no", *where]
    done = subprocess.run(
        [sys.executable, "-m", *command, "-p", "no:cacheprovider", *options, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=250,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode in (0, 1), said
    problems = {path.stem: "" for path in folder.glob("*.ipynb")}
    for case in ElementTree.parse(report).iter("testcase"):
        for failure in case.iter("failure"):
            name = case.get("classname").removesuffix(".ipynb").rpartition(".")[2]
            problems[name] += f"{case.get('name')}: {failure.text}\n"
    assert bool(done.returncode) == any(problems.values()), said
    return problems, said


def write(folder: Path, name: str, *cells: dict) -> None:
    path = folder / f"{name}.ipynb"
    path.write_text(nbformat.writes(new_notebook(cells=list(cells))), encoding="utf-8")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    for name, (_, *cells) in PLAIN.items():
        write(folder, name, *cells)
    return run_nbval(folder)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Notebooks with pictures; they are run once to be stored, then changed."""
    folder = tmp_path_factory.mktemp("drawn")
    sources = [FIGURE.format(middle=1), DEMO.format(height="a"), DEMO.format(height="1 / (5 - a)")]
    nb = execute(new_notebook(cells=[new_code_cell(s) for s in sources]), cwd=folder)
    figure, demo, bad_demo = normalize(nb, "drawn").cells
    assert set(demo.outputs[0].data) == {"image/png", "text/plain"}  # the widget is not stored
    write(folder, "picture", figure)
    write(folder, "demo", demo)
    write(folder, "demo_with_a_bad_corner", bad_demo)
    figure.source = FIGURE.format(middle=3)
    write(folder, "changed_picture", figure)
    del figure.outputs[0].data["image/png"]
    write(folder, "missing_picture", figure)
    return folder, run_nbval(folder)[0]


@pytest.mark.parametrize("name", PLAIN)
def test_each_gate_stops_what_it_must_and_nothing_else(plain, name):
    expected = PLAIN[name][0]
    if expected is None:
        assert plain[0][name] == ""
    else:
        assert expected in plain[0][name]


def test_cells_after_a_dead_kernel_say_why(plain):
    assert "The kernel died in an earlier cell" in plain[0]["dead"]


def test_what_each_notebook_took_is_reported(plain):
    assert re.search(r"^plain\d*/good\.ipynb: \d+\.\d s, 0\.\d\d GB$", plain[1], re.MULTILINE)


@pytest.mark.parametrize("name", DRAWN)
def test_pictures_and_demos_are_held_to_what_is_stored(drawn, name):
    expected = DRAWN[name]
    if expected is None:
        assert drawn[1][name] == ""
    else:
        assert expected in drawn[1][name]


def test_nbval_alone_would_let_a_changed_picture_pass(drawn, tmp_path):
    shutil.copy(drawn[0] / "changed_picture.ipynb", tmp_path)
    assert run_nbval(tmp_path, gates=False)[0] == {"changed_picture": ""}


def test_a_notebook_over_its_budget_fails(tmp_path):
    write(tmp_path, "slow", cell("import time\ntime.sleep(1)"), cell("time.sleep(1)"))
    write(tmp_path, "large", cell("import numpy as np\nnp.ones(30_000_000)\nNone"))  # for a moment
    write(
        tmp_path,
        "huge",
        cell("import numpy as np, time\nx = np.ones(75_000_000)\ntime.sleep(60)"),
    )
    problems, _ = run_nbval(tmp_path, "--notebook-seconds=1.5", "--notebook-gigabytes=0.25")
    assert "it runs for 2 s; the budget is 1.5 s" in problems["slow"]
    assert "GB of memory; the budget is 0.25 GB" in problems["large"]
    # Twice the budget: it is stopped before it takes the machine's memory.
    assert "GB of memory and was stopped there; the budget is 0.25 GB" in problems["huge"]
    assert "The kernel died while the cell was running" in problems["huge"]


# ---------------------------------------------------------------- the comparison of pictures


def picture(middle=2.0, *, curves=1, noise=0.0, size=(6, 4), dpi=120, text="loss", hinting=None):
    import io

    import matplotlib.pyplot as plt
    import numpy as np

    settings = {"text.hinting": hinting} if hinting else {}
    with plt.rc_context(settings):
        fig, ax = plt.subplots(figsize=size, layout="constrained")
        x = np.linspace(0, 1, 200)
        jitter = noise * np.random.default_rng(0).normal(size=200)
        for number in range(curves):
            ax.plot(x, middle * x**2 + number + jitter)
        ax.set(xlabel="epoch", ylabel=text, ylim=(0, 6))
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=dpi)
        plt.close(fig)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"noise": 1e-3},  # the last digits of another machine's arithmetic
        {"middle": 2.002},
        {"dpi": 120.5},  # one row or column more
        {"hinting": "none"},  # another rasteriser's letters
    ],
)
def test_pictures_that_differ_by_jitter_are_equal(other):
    from tools.pictures import difference

    assert difference(picture(), picture(**other)) is None
    assert difference(picture(**other), picture()) is None


@pytest.mark.parametrize(
    "other",
    [
        {"middle": 2.5},  # the curve goes elsewhere
        {"curves": 2},  # a curve more
        {"noise": 0.1},
        {"size": (6, 5)},
        {"text": "accuracy of the run on the test set"},
    ],
)
def test_pictures_that_show_something_else_differ(other):
    from tools.pictures import difference

    assert difference(picture(), picture(**other)) is not None
    assert difference(picture(**other), picture()) is not None


def test_a_rebuild_keeps_the_stored_bytes_of_equal_pictures_only():
    from tools.pictures import keep_equal_pictures

    def notebook(png: bytes) -> dict:
        data = {"image/png": base64.b64encode(png).decode(), "text/plain": "Figure"}
        cell = new_code_cell("plot()", id="one", outputs=[new_output("display_data", data)])
        return new_notebook(cells=[cell])

    old, jittered, changed = (notebook(picture(m)) for m in (2.0, 2.002, 3.0))
    assert jittered != old
    assert keep_equal_pictures(old, jittered) == old
    assert keep_equal_pictures(old, changed) == changed
