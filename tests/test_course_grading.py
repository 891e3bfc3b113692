"""Whatever a submission does, its other questions get their fair points and the status is plain."""

import dataclasses
import json
import os
import sys
import time

import pytest
from course_helpers import QUICK, Notebook, build_tiny, scores, told

from dlnotes.course import grading, sandbox
from dlnotes.course.remote import Nursery

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="grading needs Linux or macOS"),
    pytest.mark.timeout(120),
]

FULL = {"q1": 2, "q2": 3, "q3": 3}


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    return build_tiny(tmp_path_factory.mktemp("course"))


@pytest.fixture(scope="module")
def exercise(layout):
    return grading.load_exercise(layout, "90_tiny")


@pytest.fixture(scope="module")
def box(layout):
    return sandbox.find("auto", (str(layout.solutions),))


@pytest.fixture(scope="module")
def nursery(exercise, box):
    with Nursery(box, exercise.given) as nursery:
        yield nursery


@pytest.fixture
def grade(exercise, nursery):
    def grade(notebook, limits=QUICK):
        text = notebook if isinstance(notebook, str) else notebook.text()
        return grading.grade_text(text, exercise, nursery, limits)

    return grade


@pytest.fixture
def right(layout):
    return Notebook(layout)


@pytest.fixture
def blank(layout):
    return Notebook(layout, blank=True)


def test_the_solution_gets_everything(grade, right):
    result = grade(right)
    assert scores(result) == FULL
    assert (result["status"], result["score"], result["points"]) == ("graded", 8, 8)
    assert {q["status"] for q in result["questions"].values()} == {"right"}
    assert not result["notes"]
    assert not result["cells"]


def test_the_blank_gets_nothing_and_is_called_blank(grade, blank):
    result = grade(blank)
    assert scores(result) == {"q1": 0, "q2": 0, "q3": 0}
    assert {q["status"] for q in result["questions"].values()} == {"blank"}
    assert "not written yet" in told(result, "q1")


def test_grading_is_deterministic(grade, right):
    # Random numbers of the student's own are seeded the same way each time.
    right.answer("q2", "import random\n\ndef slope(f, x, eps=1e-5):\n    return random.random()")
    assert grade(right) == grade(right)


LOSES_Q2 = {
    "endless loop": "def slope(f, x, eps=1e-5):\n    while True:\n        pass",
    "sys.exit": "import sys\ndef slope(f, x, eps=1e-5):\n    sys.exit(0)",
    "os._exit": "import os\ndef slope(f, x, eps=1e-5):\n    os._exit(0)",
    "quit": "def slope(f, x, eps=1e-5):\n    quit()",
    "memory": "def slope(f, x, eps=1e-5):\n    L = []\n    while True:\n"
    "        L.append(np.empty(10_000_000))",
    "crash": "import ctypes\ndef slope(f, x, eps=1e-5):\n    ctypes.string_at(0)",
    "recursion": "def slope(f, x, eps=1e-5):\n    return slope(f, x, eps)",
    "syntax error": "def slope(f, x, eps=1e-5)\n    return 1",
    "huge answer": "def slope(f, x, eps=1e-5):\n    return np.ones(60_000_000)",
    "deep answer": "def slope(f, x, eps=1e-5):\n    a = []\n    for _ in range(100_000):\n"
    "        a = [a]\n    return a",
    "always equal": "class Yes(float):\n    def __eq__(self, other): return True\n"
    "    def __array__(self, *a, **k): return np.array(1e9)\n"
    "def slope(f, x, eps=1e-5):\n    return Yes(7)",
    "always close": "class Yes:\n    __lt__ = __le__ = __eq__ = __bool__ = lambda *a: True\n"
    "    __sub__ = __abs__ = __rsub__ = lambda *a: Yes()\n"
    "def slope(f, x, eps=1e-5):\n    return Yes()",
    "kills its parent": "import os, signal\ndef slope(f, x, eps=1e-5):\n"
    "    os.kill(os.getppid(), signal.SIGKILL)\n    os.kill(os.getpid(), signal.SIGKILL)",
    "raises AssertionError": "def slope(f, x, eps=1e-5):\n    raise AssertionError",
    "raises KeyboardInterrupt": "def slope(f, x, eps=1e-5):\n    raise KeyboardInterrupt",
    "infinite calls back": "def slope(f, x, eps=1e-5):\n    while True:\n        f(x)",
    "reads the check": "import gc\ndef slope(f, x, eps=1e-5):\n"
    "    found = [o for o in gc.get_objects() if getattr(o, '__name__', '') == 'cube']\n"
    "    return found[0]",
    "looks through the function": "def slope(f, x, eps=1e-5):\n"
    "    return f.__globals__['np'] and f.__closure__[0].cell_contents._cases",
}


@pytest.mark.parametrize("what", LOSES_Q2)
def test_a_function_that_misbehaves_loses_its_question_only(grade, right, what):
    began = time.monotonic()
    result = grade(right.answer("q2", LOSES_Q2[what]))
    assert scores(result) == FULL | {"q2": 0}, told(result, "q2")
    assert result["status"] in ("graded", "cells failed", "checks stopped")
    assert result["questions"]["q2"]["status"] in ("wrong", "stopped", "missing")
    assert told(result, "q2")
    assert time.monotonic() - began < 30


def test_a_stopped_function_says_so(grade, right):
    result = grade(right.answer("q2", LOSES_Q2["endless loop"]))
    assert result["status"] == "checks stopped"
    assert result["questions"]["q2"]["status"] == "stopped"
    assert "it took too long" in told(result, "q2")


def test_a_function_that_exits_says_so(grade, right):
    result = grade(right.answer("q2", LOSES_Q2["os._exit"]))
    assert result["status"] == "checks stopped"
    assert "the process ended itself (exit code 0)" in told(result, "q2")


BAD_CELLS = {
    "endless loop": ("while True:\n    pass", "cells skipped"),
    "sys.exit": ("import sys\nsys.exit(0)", "cells failed"),
    "quit": ("quit()", "cells failed"),
    "os._exit": ("import os\nos._exit(0)", "cells skipped"),
    "abort": ("import os\nos.abort()", "cells skipped"),
    "exception": ("raise ValueError('mine')", "cells failed"),
    "syntax error": ("x = = 1", "cells failed"),
    "memory": ("L = []\nwhile True:\n    L.append(np.empty(10_000_000))", "cells failed"),
    "much output": ("for i in range(100_000):\n    print('x' * 100)", "graded"),
    "input": ("name = input('who?')", "cells failed"),
    "shell": ("!sleep 1000 &\n%matplotlib inline\nx = 1", "graded"),
    "cell magic": ("%%bash\nexit 1", "graded"),
    "writes to descriptors": (
        "import os\nfor fd in range(1, 2000):\n    try:\n        os.write(fd, b'\\0' * 64)\n"
        "    except OSError:\n        pass",
        "cells skipped",
    ),
    "closes descriptors": ("import os\nos.closerange(3, 5000)", "cells skipped"),
    "closes stdout": ("import sys\nsys.stdout.close()\nsys.stdout = None", "graded"),
    "pyplot": (
        "import matplotlib.pyplot as plt\nfor _ in range(30):\n    plt.figure()\nplt.show()",
        "graded",
    ),
    "process that stays": (
        "import subprocess\np = subprocess.Popen(['sleep', '1000'], start_new_session=True)",
        "graded",
    ),
    "non-text": ("print('\\ud800')", "graded"),
}


@pytest.mark.parametrize("what", BAD_CELLS)
def test_a_cell_that_misbehaves_costs_nothing(grade, right, what):
    source, status = BAD_CELLS[what]
    result = grade(right.insert(source))
    assert scores(result) == FULL, result["cells"]
    assert result["status"] == status, result["cells"]
    if status != "graded":
        assert [c["cell"] for c in result["cells"]] == [2]


def test_a_cell_that_ends_the_process_later_is_found(grade, right):
    late = "import threading, os\nthreading.Timer(0.4, lambda: os._exit(1)).start()"
    right.insert(late, before="q1").insert("import time\ntime.sleep(1.5)", before="q3")
    result = grade(right)
    assert scores(result) == FULL
    assert result["status"] == "cells skipped"
    assert [c["cell"] for c in result["cells"]] == [2]


def test_a_cell_that_ends_the_process_during_the_checks_is_found(grade, right):
    late = "import threading, os\nthreading.Timer(0.5, lambda: os._exit(1)).start()"
    slow = (
        "import time\ndef slope(f, x, eps=1e-5):\n    time.sleep(0.8)\n"
        "    return (f(x + eps) - f(x - eps)) / (2 * eps)"
    )
    result = grade(right.insert(late).answer("q2", slow))
    assert scores(result) == FULL
    assert [c["cell"] for c in result["cells"]] == [2]
    assert "some time after this cell" in result["cells"][0]["problem"]


CHEATS = {
    "patched NumPy": "np.allclose = np.isclose = np.array_equal = lambda *a, **k: True\n"
    "np.isfinite = lambda x: np.True_\nabs = lambda x: 0",
    "patched checker": "from dlnotes.course import cases\n"
    "cases.run = lambda case, s: cases.Outcome(case, True)\n"
    "import dlnotes.course.worker as w\nw._Server._describe = lambda *a: {}",
    "replaced grader": "class Grader:\n    def check(self, q): print('right')\n"
    "    score = check\ngrader = Grader()",
    "patched builtins": "import builtins\nbuiltins.AssertionError = ValueError",
    "answers for the worker": "import dlnotes.course.worker as w\n"
    "w._Server._op_call = lambda self, m: 12.0",
    "patched codec": "import dlnotes.course.wire as w\n"
    "w.Codec.message = lambda self, fields, **v: b'{}'",
}


@pytest.mark.parametrize("what", CHEATS)
def test_patching_gains_nothing(grade, blank, what):
    wrong = "def softmax(z):\n    return np.ones(3)"
    result = grade(blank.insert(CHEATS[what]).answer("q1", wrong))
    expected = {"q1": 0, "q2": 0, "q3": 0}
    if what == "answers for the worker":  # it answered 12 to a question whose answer is 12
        expected["q2"] = 1
    assert scores(result) == expected


def test_changing_inputs_in_place_is_seen(grade, right):
    source = "def softmax(z):\n    z[...] = 1 / z.shape[-1]\n    return z"
    result = grade(right.answer("q1", source))
    assert scores(result) == FULL | {"q1": 0}
    assert "changed its input z in place" in told(result, "q1")


def test_deleted_cells(grade, right):
    result = grade(right.delete("q2"))
    assert scores(result) == FULL | {"q2": 0}
    assert result["questions"]["q2"]["status"] == "missing"
    assert "slope is not defined" in told(result, "q2")


def test_only_answers_are_left(grade, right):
    right.document["cells"] = [c for c in right.cells if "answer" in c["metadata"].get("tags", [])]
    result = grade(right)
    assert scores(result) == FULL
    assert "given cells were missing" in result["notes"][0]


def test_given_cells_that_only_show_are_not_run_unless_changed(exercise, nursery, right):
    shown = dataclasses.replace(exercise, shown=("raise ValueError('shown')",))
    right.insert("raise ValueError('shown')\n")
    result = grading.grade_text(right.text(), shown, nursery, QUICK)
    assert (result["status"], scores(result)) == ("graded", FULL)
    right.insert("raise ValueError('shown, changed')")
    assert grading.grade_text(right.text(), shown, nursery, QUICK)["status"] == "cells failed"


def test_doubled_answer(grade, right):
    right.cells.append(dict(right.cells[right.index("q1")]))
    right.cells[-1]["source"] = "def softmax(z):\n    return None"
    result = grade(right)
    assert scores(result) == FULL | {"q1": 0}
    assert "q1 has 2 answer cells: the last definition counts" in result["notes"]


def test_a_failed_cell_is_named_where_its_function_is_missing(grade, right):
    result = grade(right.answer("q2", LOSES_Q2["syntax error"]))
    assert "slope is not defined: code cell 4 failed: SyntaxError" in told(result, "q2")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("{", "not valid JSON"),
        ('{"hello": 1}', "no list of cells"),
        ("[1]", "no list of cells"),
        ("<<<<<<< HEAD\n{}", "merge conflict"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_unreadable_files_get_a_status(grade, text, why):
    result = grade(text)
    assert (result["status"], result["score"], result["points"]) == ("unreadable", 0, 8)
    assert why in result["notes"][0]


def test_half_a_file_is_unreadable(grade, right):
    text = right.text()
    assert grade(text[: len(text) // 2])["status"] == "unreadable"


def test_odd_but_valid_notebooks_are_read(grade, right):
    document = right.document
    document["metadata"], document["nbformat_minor"] = {}, 0
    for cell in document["cells"]:
        cell.pop("id", None)
        cell["metadata"] = None
        cell["source"] = cell["source"].splitlines(keepends=True)
    document["cells"] += [7, {"cell_type": "code"}, {"cell_type": "raw", "source": "x"}]
    assert scores(grade(json.dumps(document))) == FULL


def test_the_time_of_a_submission_is_limited(grade, right):
    for _ in range(8):
        right.insert("while True:\n    pass")
    limits = grading.Limits(cell=1, check=1, total=3, memory=512 << 20)
    result = grade(right, limits)
    assert result["status"] == "out of time"
    assert "used up its time" in told(result, "q1")


def test_nothing_stays_behind(grade, nursery, right):
    leave = (
        "import subprocess, sys\nopen('left.txt', 'w').write('x')\n"
        "subprocess.Popen([sys.executable, '-c', 'import os, time; os.setsid(); time.sleep(99)'])"
    )
    grade(right.copy().insert(leave))
    look = (
        "import os\n"
        "assert not os.path.exists('left.txt')\n"
        "others = [p for p in os.listdir('/proc') if p.isdigit()]\n"
        "names = [open(f'/proc/{p}/cmdline').read() for p in others]\n"
        "assert not any('time.sleep(99)' in n for n in names), names\n"
    )
    if sys.platform != "linux":
        look = look.splitlines()[1]
    assert grade(right.insert(look))["cells"] == []


SEALED = {
    "no network": "import socket\ns = socket.socket()\ns.settimeout(2)\n"
    "try:\n    s.connect(('192.0.2.1', 80))\nexcept TimeoutError:\n    raise SystemError\n"
    "except OSError:\n    pass\nelse:\n    raise SystemError",
    "no other host": "import socket\nassert [n for _, n in socket.if_nameindex()] == ['lo']",
    "the solutions": "import os\nassert not os.path.exists({solutions!r})",
    "other submissions": "import os\nassert not os.path.exists({root!r})",
    "outside": "import numpy, os\ntry:\n"
    "    open(os.path.join(os.path.dirname(numpy.__file__), 'x.txt'), 'w')\n"
    "except OSError:\n    pass\nelse:\n    raise SystemError",
    "its own folder": "open('mine.txt', 'w').write('x')\nassert open('mine.txt').read() == 'x'",
    "no other process": "import os\n"
    "names = [open(f'/proc/{{p}}/cmdline').read() for p in os.listdir('/proc') if p.isdigit()]\n"
    "assert not any('pytest' in name for name in names), names",
    "no rights": "assert 'CapEff:\\t0000000000000000' in open('/proc/self/status').read()",
    "no way to the nursery": "import os\ntry:\n    open(f'/proc/{{os.getppid()}}/mem', 'rb')\n"
    "except PermissionError:\n    pass\nelse:\n    raise SystemError",
    "the environment": "import os\nassert 'DLNOTES_SECRET' not in os.environ\n"
    "assert not any('DLNOTES_SECRET' in open(f'/proc/{{p}}/environ').read()\n"
    "               for p in ['self'])",
}


@pytest.mark.parametrize("kind", ["bubblewrap", "namespaces"])
def test_the_sandbox_is_tight(layout, exercise, right, kind, monkeypatch):
    monkeypatch.setenv("DLNOTES_SECRET", "1")
    try:
        found = sandbox.find(kind, (str(layout.solutions),))
    except RuntimeError as error:
        pytest.skip(f"no {kind} here: {error}")
    names = {"solutions": str(layout.solutions), "root": str(layout.root)}
    for source in reversed(SEALED.values()):
        right.insert(source.format(**names))
    with Nursery(found, exercise.given) as nursery:
        result = grading.grade_text(right.text(), exercise, nursery, QUICK)
    what = list(SEALED)
    assert [(what[c["cell"] - 2], c["problem"]) for c in result["cells"]] == []
    assert (result["sandbox"], scores(result)) == (kind, FULL)


def test_without_a_sandbox_the_marks_say_so(exercise, right):
    with Nursery(sandbox.find("none"), exercise.given) as nursery:
        result = grading.grade_text(right.text(), exercise, nursery, QUICK)
        loop = grading.grade_text(
            right.answer("q2", LOSES_Q2["os._exit"]).text(), exercise, nursery, QUICK
        )
    assert (result["sandbox"], scores(result)) == ("none", FULL)
    assert scores(loop) == FULL | {"q2": 0}


def test_a_nursery_that_does_not_start_says_why(exercise, monkeypatch):
    monkeypatch.setattr(sandbox.Sandbox, "command", lambda *a: [sys.executable, "-c", "1 / 0"])
    with (
        pytest.raises(RuntimeError, match="did not start: ZeroDivisionError"),
        Nursery(sandbox.Sandbox("none"), exercise.given) as nursery,
    ):
        nursery.begin(1 << 30)


def test_an_unknown_sandbox_is_refused():
    with pytest.raises(ValueError, match="sandbox must be auto or one of"):
        sandbox.find("box")


def test_private_checks_are_merged(layout, tmp_path, nursery, right, blank):
    (tmp_path / "90_tiny.py").write_text(
        '@test("q2", 4, hint="of the teacher")\n'
        "def a_line(s):\n"
        '    """the slope of a line"""\n'
        "    assert abs(s.slope(lambda x: 3 * x, -1.0) - 3) < 1e-6\n"
    )
    exercise = grading.load_exercise(layout, "90_tiny", tmp_path)
    assert exercise.points() == 12
    result = grading.grade_text(right.text(), exercise, nursery, QUICK)
    assert scores(result) == FULL | {"q2": 7}
    assert result["questions"]["q2"]["checks"][-1]["hidden"]
    assert grading.grade_text(blank.text(), exercise, nursery, QUICK)["score"] == 0


def test_private_checks_that_do_not_fit_are_refused(layout, tmp_path):
    (tmp_path / "90_tiny.py").write_text('@test("q9", 1)\ndef f(s):\n    pass\n')
    with pytest.raises(ValueError, match="has no question 'q9'"):
        grading.load_exercise(layout, "90_tiny", tmp_path)


def test_an_unknown_exercise_is_refused(layout):
    with pytest.raises(ValueError, match=r"no exercise '91_none' .* there are: 90_tiny"):
        grading.load_exercise(layout, "91_none")
