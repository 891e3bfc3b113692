"""Demos and predictions: still output, live widget, corner test."""

import base64
import io
import json
import pathlib

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from dlnotes import viz
from dlnotes.viz import _demo, _predict, _show

VIEW = "application/vnd.jupyter.widget-view+json"
ALT = "A parabola, steepness {steepness}"


@pytest.fixture(autouse=True)
def _style(monkeypatch):
    monkeypatch.delenv("DLNOTES_CHECK_DEMOS", raising=False)
    with plt.rc_context():
        plt.switch_backend("agg")
        viz.use_style()
        yield
    assert not plt.get_fignums(), "a figure was left open"


@pytest.fixture
def shown(monkeypatch):
    """The outputs that a notebook without a kernel gets."""
    outputs = []

    def keep(data, metadata=None):
        outputs.append((data, metadata))

    monkeypatch.setattr(_demo, "display", keep)
    monkeypatch.setattr(_predict, "display", keep)
    return outputs


@pytest.fixture
def live(monkeypatch, shown):
    """The same as if a kernel ran: the outputs, and the widget of the last of them."""
    monkeypatch.setattr(_demo, "live_widgets", lambda: ipywidgets)
    monkeypatch.setattr(_predict, "live_widgets", lambda: ipywidgets)

    def widget():
        model = shown[-1][0][VIEW]["model_id"]
        return ipywidgets.widget_serialization["from_json"](f"IPY_MODEL_{model}", None)

    return widget


def parabola(steepness, **_):
    x = np.linspace(-1, 1, 30)
    fig, ax = viz.subplots()
    ax.plot(x, steepness * x**2)
    ax.set(xlabel="x", ylabel="y", ylim=(0, 5))
    return fig


def still(data):
    return base64.b64decode(data["image/png"])


# The still output


def test_demo_leaves_one_still_output(shown):
    viz.demo(parabola, alt=ALT, steepness=viz.slider(1, 5, 2, label="steepness"))
    [(data, metadata)] = shown
    assert set(data) == {"image/png", "text/plain"}
    assert data["text/plain"] == "Demo: A parabola, steepness 2"
    assert metadata["image/png"]["alt"] == "A parabola, steepness 2"
    fig = parabola(2)
    assert still(data) == _show.png_bytes(fig)
    plt.close(fig)


def test_demo_closes_a_figure_from_before(shown):
    fig = parabola(1)
    viz.demo(lambda n: fig, alt="The same parabola again", n=viz.slider(1, 2, 1, label="n"))
    assert not plt.get_fignums()


def test_alternative_text_can_be_computed(shown):
    viz.demo(
        parabola,
        alt=lambda steepness: f"A parabola that reaches {2 * steepness} at the edge",
        steepness=viz.slider(1, 5, 2, label="steepness"),
    )
    assert "reaches 4 at" in shown[0][0]["text/plain"]


@pytest.mark.parametrize(
    ("draw", "alt", "controls", "error", "message"),
    [
        (parabola, ALT, {}, ValueError, "at least one control"),
        (parabola, ALT, {"steepness": 3}, TypeError, "steepness"),
        (parabola, "too short", None, ValueError, "alt must describe"),
        (parabola, "A parabola of height {height}", None, ValueError, r"\{steepness\} in braces"),
        (lambda steepness: None, ALT, None, TypeError, "must return a figure, got NoneType"),
        (lambda steepness: viz.subplots()[0], ALT, None, ValueError, "label on x and y"),
    ],
)
def test_demo_refuses(shown, draw, alt, controls, error, message):
    if controls is None:
        controls = {"steepness": viz.slider(1, 5, 2, label="steepness")}
    with pytest.raises(error, match=message):
        viz.demo(draw, alt=alt, **controls)
    assert not shown


# Controls


def test_slider_of_integers_and_of_floats():
    whole, real = viz.slider(1, 9, 3, label="degree"), viz.slider(0, 1.0, 0.5, label="share")
    assert [type(n) for n in (whole.low, whole.value, whole.step)] == [int, int, int]
    assert whole.step == 1
    assert [type(n) for n in (real.low, real.value, real.step)] == [float, float, float]
    assert real.step == 0.01
    assert real.clean(0.1 + 0.2) == 0.3
    assert viz.slider(np.int64(1), np.int64(3), np.int64(2), label="n").value == 2


def test_widgets_carry_label_value_and_range():
    rate = viz.slider(1e-3, 10, 0.1, label="rate", log=True).widget("5em")
    assert isinstance(rate, ipywidgets.FloatLogSlider)
    assert (rate.description, rate.value) == ("rate", 0.1)
    assert (rate.min, rate.max) == pytest.approx((-3, 1))
    share = viz.slider(0, 1, 0.5, 0.25, label="share").widget("5em")
    assert isinstance(share, ipywidgets.FloatSlider)
    assert share.readout_format == ".2f"
    kind = viz.choice([10, 20], 20, "width").widget("5em")
    assert (kind.description, kind.value, kind.options) == ("width", 20, (("10", 10), ("20", 20)))
    noisy = viz.toggle(True, "noise").widget("5em")
    assert (noisy.description, noisy.value) == ("noise", True)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, 1, 2, 1, "n"), ValueError, "low must be below high"),
        ((1, 3, 4, 1, "n"), ValueError, "value must be in 1 … 3, got 4"),
        ((1, 3, 2, 0, "n"), ValueError, "step must be positive"),
        ((1, 3, 2, 1, " "), ValueError, "label"),
        ((1, float("nan"), 2, 1, "n"), ValueError, "high must be finite"),
        ((True, 3, 2, 1, "n"), TypeError, "low must be a number"),
    ],
)
def test_slider_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        viz.slider(*arguments)


def test_log_slider_refuses_zero():
    with pytest.raises(ValueError, match="low must be positive"):
        viz.slider(0, 1, 0.5, label="rate", log=True)


@pytest.mark.parametrize("options", [[], ["one"], ["same", "same"]])
def test_choice_needs_different_options(options):
    with pytest.raises(ValueError, match="at least two different"):
        viz.choice(options, label="kind")


def test_choice_refuses_another_value_and_no_label():
    with pytest.raises(ValueError, match="value must be one of"):
        viz.choice(["a", "b"], "c", "kind")
    with pytest.raises(ValueError, match="label"):
        viz.toggle(False)


# The live widget


def test_moving_a_slider_draws_again(shown, live):
    viz.demo(parabola, alt=ALT, steepness=viz.slider(1, 5, 2, label="steepness"))
    slider, image, status = live().children
    assert image.value == still(shown[0][0])
    slider.value = 5
    assert Image.open(io.BytesIO(image.value)).size == (672, 432)
    fig = parabola(5)
    assert image.value == _show.png_bytes(fig, small=False)
    plt.close(fig)
    assert "steepness 5" in status.value
    assert 'role="status"' in status.value


def test_every_control_reaches_draw(live):
    got = []

    def draw(**values):
        got.append(values)
        return parabola(1)

    viz.demo(
        draw,
        alt="A parabola that stays as it is",
        rate=viz.slider(0.001, 1.0, 0.1, label="rate", log=True),
        kind=viz.choice(["a", "b"], label="kind"),
        noisy=viz.toggle(False, "noise"),
    )
    rate, kind, noisy, _, _ = live().children
    rate.value = 10**-0.30000000000000004
    kind.value = "b"
    noisy.value = True
    assert got[0] == {"rate": 0.1, "kind": "a", "noisy": False}
    assert got[-1] == {"rate": 0.50118723, "kind": "b", "noisy": True}


def test_an_error_is_shown_and_forgotten_after_the_next_move(live):
    def draw(steepness):
        fig = parabola(steepness)
        if steepness == 3:
            raise FloatingPointError("<no> root")
        return fig

    viz.demo(draw, alt=ALT, steepness=viz.slider(1, 5, 2, label="steepness"))
    slider, image, status = live().children
    before = image.value
    slider.value = 3
    assert image.value == before
    assert 'role="alert"' in status.value
    assert "steepness=3" in status.value
    assert "FloatingPointError: &lt;no&gt; root" in status.value
    slider.value = 4
    assert image.value != before
    assert 'role="status"' in status.value


# Corners


def controls():
    return {
        "steepness": viz.slider(1, 5, 2, label="steepness"),
        "kind": viz.choice(["a", "b", "c"], label="kind"),
        "noisy": viz.toggle(False, "noise"),
    }


def test_corner_test_draws_every_combination():
    got = set()

    def draw(steepness, kind, noisy):
        got.add((steepness, kind, noisy))
        return parabola(steepness)

    assert viz.check_corners(draw, alt=ALT, **controls()) == 2 * 3 * 2
    assert got == {(s, k, n) for s in (1, 5) for k in "abc" for n in (False, True)}


@pytest.mark.parametrize("fault", ["raises", "label", "late", "alt"])
def test_corner_test_names_the_values(monkeypatch, shown, fault):
    def draw(steepness, kind, noisy):
        fig = parabola(steepness)
        if (steepness, kind, noisy) == (5, "b", True):
            if fault == "raises":
                raise ZeroDivisionError("at the corner")
            if fault == "label":
                fig.axes[0].set_xlabel("")
            if fault == "late":  # fails only when the text is laid out
                fig.axes[0].set_title(r"$\nosuchcommand$")
        return fig

    def alt(steepness, kind, noisy):
        bad = fault == "alt" and (steepness, kind, noisy) == (5, "b", True)
        return "short" if bad else "A parabola that is drawn with care"

    viz.demo(draw, alt=alt, **controls())
    assert len(shown) == 1
    monkeypatch.setenv("DLNOTES_CHECK_DEMOS", "1")
    with pytest.raises(RuntimeError, match="draw fails at steepness=5, kind='b', noisy=True: "):
        viz.demo(draw, alt=alt, **controls())
    assert len(shown) == 1


# predict

QUESTION = ("Does a < b hold?", ["Yes & always", "No"], "No", "Since $a > b$.")


def test_prediction_is_stored_folded(shown):
    viz.predict(*QUESTION)
    [(data, _)] = shown
    assert data["text/plain"] == "Predict: Does a < b hold?\na) Yes & always\nb) No"
    question, answer = data["text/html"].split("<details>")
    assert "Does a &lt; b hold?" in question
    assert "a) Yes &amp; always<br>" in question
    assert "Since" not in question
    assert "<summary>Answer</summary>" in answer
    assert "<strong>No.</strong> Since $a &gt; b$." in answer
    assert set(data) == {"text/plain", "text/html"}


@pytest.mark.parametrize(("pressed", "said"), [(0, "You chose “Yes &amp; always”"), (1, "Yes.")])
def test_prediction_answers_a_press(live, pressed, said):
    viz.predict(*QUESTION)
    _, *buttons, feedback = live().children
    assert [button.description for button in buttons] == QUESTION[1]
    assert "Since" not in feedback.value
    buttons[pressed].click()
    assert said in feedback.value
    assert "Since $a &gt; b$." in feedback.value
    assert [button.icon for button in buttons] == ["", "check"]
    assert [button.button_style == "primary" for button in buttons] == [pressed == 0, pressed == 1]


def test_long_options_are_lettered(live):
    long = "It falls first and rises again after some epochs"
    viz.predict("What happens?", ["It falls", long], long, "The network overfits.")
    asked, *buttons, feedback = live().children
    assert [button.description for button in buttons] == ["a", "b"]
    assert f"b) {long}" in asked.value
    buttons[0].click()
    assert f"You chose “It falls”; it is “{long}”" in feedback.value


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, " ", "question must not be empty"),
        (1, ["No"], "at least two different"),
        (1, ["No", "No"], "at least two different"),
        (2, "Perhaps", "answer must be one of"),
        (3, "", "why must not be empty"),
    ],
)
def test_predict_refuses(place, value, message):
    arguments = list(QUESTION)
    arguments[place] = value
    with pytest.raises(ValueError, match=message):
        viz.predict(*arguments)


# In a notebook

CELLS = [
    "from dlnotes import viz\nviz.use_style()",
    """def draw(n):
    fig, ax = viz.subplots()
    ax.plot(range(n))
    ax.set(xlabel="x", ylabel="y")
    return fig
viz.demo(draw, alt="A line of {n} points that rises", n=viz.slider(2, 9, 4, label="n"))""",
    'viz.predict("Up?", ["yes", "no"], "yes", "It rises.")',
    'viz.show(draw(3), alt="A line of three points that rises")',
]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A small notebook that a real kernel has run twice: the outputs of each run's cells."""
    import nbclient
    import nbformat

    runs = []
    for _ in range(2):
        cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
        notebook = nbformat.v4.new_notebook(cells=cells)
        folder = tmp_path_factory.mktemp("notebook")
        nbclient.NotebookClient(
            notebook, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        ).execute()
        runs.append(notebook)
    return runs


def test_notebook_output_is_stable(executed):
    first, second = (
        [{k: v for k, v in output.data.items() if k != VIEW} for output in outputs(notebook)]
        for notebook in executed
    )
    assert first == second
    assert [sorted(output.data) for output in outputs(executed[0])] == [
        [VIEW, "image/png", "text/plain"],
        [VIEW, "text/html", "text/plain"],
        ["image/png", "text/plain"],
    ]
    assert outputs(executed[0])[2].metadata["image/png"]["alt"].startswith("A line of three")


def outputs(notebook):
    assert all(len(cell.outputs) <= 1 for cell in notebook.cells)
    return [cell.outputs[0] for cell in notebook.cells if cell.outputs]


def test_stored_notebook_passes_nbval_without_its_widgets(executed, stored_folder):
    import subprocess
    import sys

    import nbformat

    notebook = nbformat.from_dict(json.loads(json.dumps(executed[0])))
    for output in outputs(notebook):
        output.data.pop(VIEW, None)
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, stored_folder / "stored.ipynb")
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "stored.ipynb"],
        cwd=stored_folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert f"{len(CELLS)} passed" in done.stdout


@pytest.fixture
def stored_folder(tmp_path) -> pathlib.Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path
