"""Each gate that the notebooks pass in the tests is shown to stop a bad notebook."""

import base64
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from dlnotes.course.notebook_format import dumps, execute, normalize

ROOT = Path(__file__).resolve().parents[1]
FIGURE = """\
import matplotlib.pyplot as plt
from dlnotes import viz

fig, ax = plt.subplots(figsize=(5, 3))
ax.plot([0, 1, 2], [0, {middle}, 4])
ax.set(xlabel="x", ylabel="y")
viz.show(fig, alt="A line from the origin up to four")
"""


def stored(path: Path, *sources: str, tags: dict[int, list[str]] | None = None) -> Path:
    """Run a notebook of these cells and store it at the path."""
    cells = [new_code_cell(source) for source in sources]
    for index, names in (tags or {}).items():
        cells[index].metadata["tags"] = names
    nb = normalize(execute(new_notebook(cells=cells), cwd=path.parent), path.stem)
    path.write_text(dumps(nb), encoding="utf-8")
    return path


def unrun(path: Path, *sources: str, tags: dict[int, list[str]] | None = None) -> Path:
    """Store a notebook of cells that ran and printed nothing, without running it."""
    cells = [new_code_cell(source, execution_count=i + 1) for i, source in enumerate(sources)]
    for index, names in (tags or {}).items():
        cells[index].metadata["tags"] = names
    path.write_text(nbformat.writes(new_notebook(cells=cells)), encoding="utf-8")
    return path


def edited(path: Path, old: str, new: str) -> Path:
    """Replace a text in the cells' sources, keeping the outputs."""
    nb = nbformat.read(path, as_version=4)
    assert any(old in cell.source for cell in nb.cells)
    for cell in nb.cells:
        cell.source = cell.source.replace(old, new)
    nbformat.write(nb, path)
    return path


def nbval(path: Path, *options: str, gates: bool = True) -> tuple[int, str]:
    """Test a notebook as `make test` does; return the exit status and what was printed."""
    plugin = ["-p", "tools.nbval_gates"] if gates else []
    where = ["--rootdir", str(ROOT), "-c", "pyproject.toml", "-p", "no:cacheprovider"]
    command = ["pytest", *plugin, "--nbval", "--nbval-current-env", "-q", "--color=no", *where]
    done = subprocess.run(
        [sys.executable, "-m", *command, *options, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=200,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_good_notebook_passes_and_its_use_is_reported(tmp_path):
    path = stored(
        tmp_path / "good.ipynb",
        "print('accuracy 0.95 or better')",
        FIGURE.format(middle=1),
        "# exempt: an error is shown on purpose\n1 / 0",
        "# exempt: the time differs each time\nimport time\nprint(time.perf_counter())",
        tags={2: ["raises-exception"], 3: ["nbval-ignore-output"]},
    )
    status, said = nbval(path)
    assert status == 0, said
    assert "good.ipynb: " in said
    assert " GB" in said


def test_a_changed_output_fails(tmp_path):
    path = edited(stored(tmp_path / "x.ipynb", "print(1)"), "print(1)", "print(2)")
    status, said = nbval(path)
    assert status == 1
    assert "mismatch 'stdout'" in said


def test_a_changed_picture_fails_which_nbval_alone_does_not_see(tmp_path):
    path = stored(tmp_path / "x.ipynb", FIGURE.format(middle=1))
    edited(path, "[0, 1, 4]", "[0, 3, 4]")
    status, said = nbval(path)
    assert status == 1
    assert "of the picture changed" in said
    status, said = nbval(path, gates=False)
    assert status == 0, said


def test_a_missing_picture_fails(tmp_path):
    path = stored(tmp_path / "x.ipynb", FIGURE.format(middle=1))
    nb = nbformat.read(path, as_version=4)
    del nb.cells[0].outputs[0].data["image/png"]
    nbformat.write(nb, path)
    status, said = nbval(path)
    assert status == 1
    assert "0 pictures are stored, the run made 1" in said


def test_a_live_widget_beside_its_still_picture_passes(tmp_path):
    source = (
        "import matplotlib.pyplot as plt\nfrom dlnotes import viz\n\n"
        "def draw(a):\n"
        "    fig, ax = plt.subplots()\n    ax.plot([0, a])\n    ax.set(xlabel='x', ylabel='y')\n"
        "    return fig\n\n"
        "viz.demo(draw, alt='A line that rises to {a} at one', a=viz.slider(0, 5, 2, label='a'))"
    )
    path = stored(tmp_path / "x.ipynb", source)
    nb = nbformat.read(path, as_version=4)
    assert set(nb.cells[0].outputs[0].data) == {"image/png", "text/plain"}
    status, said = nbval(path)
    assert status == 0, said


def test_a_demo_that_fails_at_a_corner_fails(tmp_path):
    source = (
        "import matplotlib.pyplot as plt\nfrom dlnotes import viz\n\n"
        "def draw(a):\n"
        "    fig, ax = plt.subplots()\n    ax.plot([0, 1 / (5 - a)])\n"
        "    ax.set(xlabel='x', ylabel='y')\n    return fig\n\n"
        "viz.demo(draw, alt='A line that depends on {a}, the slider', "
        "a=viz.slider(0, 5, 2, label='a'))"
    )
    status, said = nbval(stored(tmp_path / "x.ipynb", source))
    assert status == 1
    assert "the demo draw fails at a=5" in said


@pytest.mark.parametrize(
    ("source", "tags"),
    [
        ("print(1)", ["nbval-ignore-output"]),
        ("# exempt: short\nprint(1)", ["nbval-ignore-output"]),
        ("1 / 0", ["raises-exception"]),
        ("# NBVAL_IGNORE_OUTPUT\nprint(1)", []),
    ],
)
def test_an_exempt_cell_without_a_reason_fails(tmp_path, source, tags):
    path = stored(tmp_path / "x.ipynb", source, tags={0: tags})
    status, said = nbval(path)
    assert status == 1
    assert "cell 0 is exempt but its first line is not `# exempt: why`" in said


@pytest.mark.parametrize(("source", "tags"), [("x = 1", ["nbval-skip"]), ("# NBVAL_SKIP", [])])
def test_a_skipped_cell_fails(tmp_path, source, tags):
    status, said = nbval(unrun(tmp_path / "x.ipynb", source, tags={0: tags}))
    assert status == 1
    assert "cell 0 is skipped" in said


def test_a_cell_that_was_never_run_fails(tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_text(nbformat.writes(new_notebook(cells=[new_code_cell("x = 1")])), "utf-8")
    status, said = nbval(path)
    assert status == 1
    assert "cell 0 was stored without being run" in said


@pytest.mark.parametrize(
    "source",
    [
        "import urllib.request\nurllib.request.urlopen('http://example.org/')",
        # caught, as a loader with a fall-back does
        "import socket\ntry:\n    socket.create_connection(('192.0.2.1', 80), timeout=1)\n"
        "except OSError:\n    pass",
        "import subprocess, sys\n"
        "code = \"import socket; socket.getaddrinfo('example.org', 80)\"\n"
        "subprocess.run([sys.executable, '-c', code], stderr=subprocess.DEVNULL)\nNone",
    ],
)
def test_a_notebook_that_reaches_for_the_network_fails(tmp_path, source):
    status, said = nbval(unrun(tmp_path / "x.ipynb", source))
    assert status == 1
    assert "it asks for the network (" in said


def test_the_machine_itself_stays_reachable(tmp_path):
    source = (
        "import socket\nserver = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(server.getsockname())\n"
        "client.close()\nserver.close()\nsocket.getaddrinfo('localhost', 80)\nNone"
    )
    status, said = nbval(unrun(tmp_path / "x.ipynb", source))
    assert status == 0, said


def test_a_slow_notebook_breaks_its_budget(tmp_path):
    path = unrun(tmp_path / "x.ipynb", "import time\ntime.sleep(1)", "time.sleep(1)")
    status, said = nbval(path, "--notebook-seconds=1.5")
    assert status == 1
    assert "it runs for 2 s; the budget is 1.5 s" in said


def test_a_large_notebook_breaks_its_budget_even_for_a_moment(tmp_path):
    path = unrun(tmp_path / "x.ipynb", "import numpy as np\nnp.ones(50_000_000)\nNone")
    status, said = nbval(path, "--notebook-gigabytes=0.3")
    assert status == 1
    assert "GB of memory; the budget is 0.3 GB" in said


def test_a_notebook_of_twice_the_memory_is_stopped(tmp_path):
    source = "import numpy as np, time\nx = np.ones(75_000_000)\ntime.sleep(60)"
    path = unrun(tmp_path / "x.ipynb", source)
    status, said = nbval(path, "--notebook-gigabytes=0.2")
    assert status == 1
    assert "GB of memory and was stopped there; the budget is 0.2 GB" in said
    assert "The kernel died while the cell was running" in said


def test_a_dead_kernel_ends_the_notebook_at_once(tmp_path):
    path = unrun(tmp_path / "x.ipynb", "import os\nos._exit(1)", "x = 1")
    status, said = nbval(path)  # nbval alone would wait 2000 s; nbval() here allows 200
    assert status == 1
    assert "The kernel died while the cell was running" in said
    assert "The kernel died in an earlier cell" in said


def test_tests_run_with_fixed_settings(tmp_path):
    names = ["DLNOTES_CHECK_DEMOS", "DLNOTES_PROGRESS", "OMP_NUM_THREADS", "PYTHONHASHSEED"]
    source = f"import os\nassert [os.environ[n] for n in {names}] == ['1', '0', '1', '0']"
    status, said = nbval(unrun(tmp_path / "x.ipynb", source))
    assert status == 0, said


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
