"""The checks must fail where they should: every fault here is one that a weaker check passes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlnotes import check
from dlnotes.autograd import Tensor


def rng(seed=0):
    return np.random.default_rng(seed)


def linear(x, weight, bias):
    return x @ weight.T + bias


def linear_backward(dy, x, weight, bias):
    return dy @ weight, dy.T @ x, dy.sum(axis=0)


def linear_oracle(x, weight, bias):
    return np.einsum("ni,oi->no", x, weight) + bias


def linear_inputs(n=3, i=4, o=2, seed=0):
    r = rng(seed)
    return r.normal(size=(n, i)), r.normal(size=(o, i)), r.normal(size=o)


def relu(x):
    return np.maximum(x, 0)


def relu_backward(dy, x):
    return dy * (x > 0)


# ---- gradcheck: what is right passes ---------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 4), i=st.integers(1, 4), o=st.integers(1, 4), seed=st.integers(0, 99))
def test_right_gradients_pass(n, i, o, seed):
    report = check.gradcheck(
        linear, linear_inputs(n, i, o, seed), backward=linear_backward, expected=linear_oracle
    )
    assert [row.entries for row in report.rows] == [n * i, o * i, o]
    assert report.largest_difference < 1e-7


def test_report_reads_the_same_everywhere():
    reports = {
        repr(
            check.gradcheck(
                linear,
                [scale * x for x in linear_inputs()],
                backward=linear_backward,
                expected=linear_oracle,
                eps=eps,
            )
        )
        for scale, eps in ((1.0, 1e-6), (1.0 + 1e-9, 1e-6), (1.0, 1.1e-6), (1.0, 3e-7))
    }
    assert reports == {
        "gradcheck of linear: forward value ✓, gradients ✓\n"
        "  argument  shape   entries  largest difference\n"
        "  x         (3, 4)       12  below 1e-5\n"
        "  weight    (2, 4)        8  below 1e-5\n"
        "  bias      (2,)          2  below 1e-6"
    }
    untested = check.gradcheck(np.exp, np.array([0.5]), backward=lambda dy, x: dy * np.exp(x))
    assert "forward value not tested" in repr(untested)


def test_functions_of_tensors_both_engines():
    x, weight = rng().normal(size=(3, 2)), rng(1).normal(size=(2, 4))

    def network(x, weight):
        return (x @ weight).tanh().sum(1)

    def oracle(x, weight):
        return np.tanh(x @ weight).sum(axis=1)

    for inputs in (
        (x, weight),
        (Tensor(x), Tensor(weight)),
        (torch.tensor(x), torch.tensor(weight)),
    ):
        report = check.gradcheck(network, inputs, expected=oracle)
        assert [row.name for row in report.rows] == ["x", "weight"]
    check.gradcheck(torch.nn.functional.gelu, torch.randn(2, 2, dtype=torch.float32))


def test_labels_none_and_numbers_are_passed_on():
    def loss(logits, target, weight, scale):
        assert weight is None
        assert target.dtype == np.int64
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return -scale * np.mean(log_p[np.arange(len(target)), target])

    def backward(dy, logits, target, weight, scale):
        assert isinstance(dy, np.float64)  # a loss gave a NumPy scalar
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        p[np.arange(len(target)), target] -= 1
        return dy * scale * p / len(target)

    inputs = (rng().normal(size=(5, 3)), np.array([0, 2, 1, 1, 0]), None, 3)
    report = check.gradcheck(loss, inputs, backward=backward)
    assert [row.name for row in report.rows] == ["logits"]
    check.gradcheck(loss, inputs, backward=lambda *a: (backward(*a), None, None, None))


def test_wrt_chooses_inputs():
    def mse(prediction, target):
        return np.mean((prediction - target) ** 2)

    def backward(dy, prediction, target):
        return dy * 2 * (prediction - target) / prediction.size

    inputs = rng().normal(size=(2, 7))
    with pytest.raises(
        AssertionError, match=r"1 gradient\(s\), but 2 are checked: prediction, targ"
    ):
        check.gradcheck(mse, tuple(inputs), backward=backward)
    for wrt in ("prediction", 0, [0]):
        report = check.gradcheck(mse, tuple(inputs), backward=backward, wrt=wrt)
        assert len(report.rows) == 1
    with pytest.raises(ValueError, match="wrt must name inputs among"):
        check.gradcheck(mse, tuple(inputs), backward=backward, wrt="y")
    with pytest.raises(TypeError, match="wrt names input 1, which is not floating"):
        check.gradcheck(lambda x, *rest: x.sum(), (inputs, 3), backward=backward, wrt=1)


@pytest.mark.parametrize("value", [1e4, -1e4, 1e-4, 300.0])
def test_large_and_small_values(value):
    x = np.array([value, 0.3, -0.7])

    def softplus(x):
        return np.logaddexp(0, x)

    check.gradcheck(softplus, x, backward=lambda dy, x: dy * 0.5 * (1 + np.tanh(x / 2)))
    check.gradcheck(lambda x: x**2, x, backward=lambda dy, x: 2 * dy * x)


def test_strong_curvature_is_no_kink():
    x = rng().normal(size=5)
    check.gradcheck(lambda x: 1e4 * x**2, x, backward=lambda dy, x: 2e4 * dy * x)
    check.gradcheck(
        lambda x: np.sin(30 * x), x, backward=lambda dy, x: 30 * dy * np.cos(30 * x), rtol=1e-5
    )

    def elu(x):  # its second derivative jumps at 0, its first does not
        return np.where(x > 0, x, np.expm1(x))

    check.gradcheck(elu, np.zeros(2), backward=lambda dy, x: dy * np.minimum(1, np.exp(x)))


def test_shapes_of_every_kind():
    one = np.float64(0.5)
    check.gradcheck(lambda x: x * x, one, backward=lambda dy, x: 2 * x * dy)
    check.gradcheck(lambda x: x * x, 0.5, backward=lambda dy, x: 2 * x * dy)
    strided = rng().normal(size=(6, 8))[::-2, 1::3]
    check.gradcheck(lambda x: x * x, strided, backward=lambda dy, x: 2 * x * dy)
    check.gradcheck(lambda x: x * x, np.float16([0.5]), backward=lambda dy, x: 2 * x * dy)
    report = check.gradcheck(
        lambda x, b: x @ np.ones((2, 3)) + b,
        (np.zeros((0, 2)), np.ones(3)),
        backward=lambda dy, x, b: (dy @ np.ones((3, 2)), dy.sum(0)),
        expected=np.zeros((0, 3)),
    )
    assert "no entries" in repr(report)


def test_inputs_are_left_alone():
    inputs = linear_inputs()
    kept = [x.copy() for x in inputs]
    check.gradcheck(linear, inputs, backward=linear_backward)
    for x, k in zip(inputs, kept, strict=True):
        np.testing.assert_array_equal(x, k)


# ---- gradcheck: what is wrong fails, by name -------------------------------------------------


@pytest.mark.parametrize(
    ("backward", "message"),
    [
        (
            lambda dy, x, w, b: (dy @ w, dy.T @ x, dy.mean(axis=0)),
            r"gradient of bias is wrong in 2 of 2 .*every entry is 0\.3333 times",
        ),
        (lambda dy, x, w, b: (-dy @ w, dy.T @ x, dy.sum(0)), r"of x is wrong.*entry is -1 times"),
        (lambda dy, x, w, b: (dy @ w, 0 * w, dy.sum(0)), r"of weight .*0 everywhere"),
        (
            lambda dy, x, w, b: (dy @ w, dy.T @ x, dy.sum(1)),
            r"gradient of bias has shape \(3,\), but bias has shape \(2,\)",
        ),
        (lambda dy, x, w, b: (dy @ w, (dy.T @ x).T, dy.sum(0)), r"weight has shape \(4, 2\)"),
        (
            lambda dy, x, w, b: (np.ones_like(dy) @ w, np.ones_like(dy).T @ x, dy.sum(0)),
            "gradient of x is wrong in 12 of 12",  # dy ignored
        ),
        (lambda dy, x, w, b: (dy @ w, None, dy.sum(0)), "no gradient reached weight"),
        (lambda dy, x, w, b: (dy @ w, dy.T @ x), r"returned 2 gradient\(s\), but 3 are checked"),
        (
            lambda dy, x, w, b: ((dy @ w).astype(np.float32), dy.T @ x, dy.sum(0)),
            "gradient of x is float32 for float64 inputs",
        ),
        (lambda dy, x, w, b: (dy @ w + np.nan, dy.T @ x, dy.sum(0)), r"worst at x\[0, 0\]: nan"),
    ],
)
def test_wrong_gradients_fail(backward, message):
    with pytest.raises(AssertionError, match=message):
        check.gradcheck(linear, linear_inputs(), backward=backward, expected=linear_oracle)


@settings(max_examples=30, deadline=None)
@given(
    entry=st.tuples(st.integers(0, 1), st.integers(0, 3)), error=st.sampled_from([1e-5, 1, -1e3])
)
def test_one_wrong_entry_among_all_is_named(entry, error):
    def backward(dy, x, w, b):
        dw = dy.T @ x
        dw[entry] += error
        return dy @ w, dw, dy.sum(0)

    with pytest.raises(AssertionError) as caught:
        check.gradcheck(linear, linear_inputs(), backward=backward)
    assert "gradient of weight is wrong in 1 of 8 entries" in str(caught.value)
    assert f"worst at weight[{entry[0]}, {entry[1]}]" in str(caught.value)


def test_empty_stubs_fail():
    inputs = linear_inputs()

    def zeros(x, weight, bias):
        return np.zeros((3, 2))

    def zero_gradients(dy, x, weight, bias):
        return np.zeros_like(x), np.zeros_like(weight), np.zeros_like(bias)

    def no_bias(x, weight, bias):
        return x @ weight.T

    def none(x, weight, bias):
        pass

    with pytest.raises(AssertionError, match="none returned None: is there a return"):
        check.gradcheck(none, inputs, backward=zero_gradients)
    with pytest.raises(AssertionError, match="zeros does not depend on x"):
        check.gradcheck(zeros, inputs, backward=zero_gradients)
    with pytest.raises(AssertionError, match=r"wrong forward value: the value of zeros\[\d, \d\]"):
        check.gradcheck(zeros, inputs, backward=zero_gradients, expected=linear_oracle)
    with pytest.raises(AssertionError, match="no_bias does not depend on bias"):
        check.gradcheck(
            no_bias, inputs, backward=lambda dy, x, w, b: (dy @ w, dy.T @ x, np.zeros_like(b))
        )
    with pytest.raises(AssertionError, match=r"shape \(3, 2\), expected \(3, 1\)"):
        check.gradcheck(linear, inputs, backward=linear_backward, expected=np.zeros((3, 1)))


def test_locally_constant_functions_pass_with_their_value():
    x = np.array([0.5, -1.5])
    check.gradcheck(np.sign, x, backward=lambda dy, x: 0 * dy, expected=np.array([1.0, -1.0]))


def test_in_place_changes_fail():
    def in_place(x):
        x *= 2
        return x

    def halves(dy, x):
        x /= 2
        return 2 * dy

    def eats_dy(dy, x):
        dy *= 2
        return dy

    def labels(x, target):
        target[0] = 0
        return x * 1.0

    x = np.array([1.0, 2.0])
    with pytest.raises(AssertionError, match=r"function of in_place changed its input x in place"):
        check.gradcheck(in_place, x, backward=halves)
    with pytest.raises(AssertionError, match="backward pass of the function changed its input x"):
        check.gradcheck(lambda x: 2 * x, x, backward=halves)
    with pytest.raises(AssertionError, match="changed dy, the upstream gradient, in place"):
        check.gradcheck(lambda x: 2 * x, x, backward=eats_dy)
    with pytest.raises(
        AssertionError, match=r"changed its input target in place \(see target\[0\]"
    ):
        check.gradcheck(labels, (x, np.array([1, 1])), backward=lambda dy, x, t: dy)


@pytest.mark.parametrize("at", [0.0, 4e-7, -9e-7, 1e-8])
def test_kinks_are_found_beside_and_at_the_point(at):
    x = np.array([[1.0, -2.0], [at, 0.5]])
    with pytest.raises(
        ValueError, match=r"relu has a kink or a jump at x\[1, 0\] = .*Move x\[1, 0\]"
    ):
        check.gradcheck(relu, x, backward=relu_backward, expected=relu)
    check.gradcheck(relu, x + 0.1, backward=relu_backward, expected=relu)


def test_other_kinks_and_jumps():
    def largest(x):
        return np.max(x)

    tie = np.array([1.0, 3.0, 3.0])
    with pytest.raises(ValueError, match=r"kink or a jump at x\[1\]"):
        check.gradcheck(largest, tie, backward=lambda dy, x: dy * (x == x.max()) / 2)
    with pytest.raises(ValueError, match="kink"):  # the subgradient 0 agrees with the mean slope
        check.gradcheck(np.abs, np.zeros(1), backward=lambda dy, x: dy * np.sign(x))
    with pytest.raises(ValueError, match="jump"):
        check.gradcheck(np.sign, np.zeros(1), backward=lambda dy, x: 0 * dy)
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="edge of the domain"):
        check.gradcheck(np.sqrt, np.array([1e-9]), backward=lambda dy, x: dy / 2 / np.sqrt(x))


def test_tensor_functions_that_cut_the_tape_fail():
    with pytest.raises(AssertionError, match="returned ndarray, not a Tensor: the tape is cut"):
        check.gradcheck(lambda x: x.detach().numpy() * 2, np.ones(2))

    def half_cut(x, w):
        return x * 2 + Tensor(np.array(w.data)) * 3

    with pytest.raises(AssertionError, match="half_cut: no gradient reached w"):
        check.gradcheck(half_cut, (np.ones(2), np.ones(2)))
    with pytest.raises(AssertionError, match="no gradient reached w"):
        check.gradcheck(
            lambda x, w: x * 2 + w.detach() * 3, (torch.ones(2), torch.ones(2, dtype=torch.float64))
        )


def test_results_that_cannot_be_checked():
    x = np.ones(3)
    with pytest.raises(AssertionError, match="returned float32 for float64 inputs"):
        check.gradcheck(lambda x: x.astype(np.float32), x, backward=lambda dy, x: dy)
    with pytest.raises(AssertionError, match="returned NaN or infinity"):
        check.gradcheck(lambda x: x * np.nan, x, backward=lambda dy, x: dy)
    with pytest.raises(TypeError, match="returned a tuple: gradcheck needs one array"):
        check.gradcheck(lambda x: (x, x), x, backward=lambda dy, x: dy)
    noise = rng()
    with pytest.raises(AssertionError, match="two different values for the same inputs"):
        check.gradcheck(lambda x: x * noise.random(), x, backward=lambda dy, x: dy)


def test_arguments_are_refused():
    def fails(error, match, function=np.exp, inputs=1.0, **options):
        options = {"backward": lambda dy, x: dy} | options
        with pytest.raises(error, match=match):
            check.gradcheck(function, inputs, **options)

    fails(TypeError, "function must be callable", function=3)
    fails(TypeError, "backward must be callable, got int", backward=3)
    fails(ValueError, "at least one floating-point entry", inputs=np.arange(3))
    fails(ValueError, "at least one floating-point entry", inputs=np.zeros((0, 3)))
    fails(ValueError, "must be finite, got NaN", inputs=np.array([np.nan]))
    fails(TypeError, "must be real, got complex128", inputs=np.ones(1, dtype=complex))
    fails(ValueError, "eps must be positive", eps=0.0)
    fails(ValueError, "rtol must be 0 or more", rtol=-1)
    fails(ValueError, "atol must be 0 or more", atol=float("nan"))


# ---- compare ---------------------------------------------------------------------------------


def test_compare_takes_arrays_of_every_kind():
    a = rng().normal(size=(2, 3)).astype(np.float32)
    for other in (torch.tensor(a), torch.nn.Parameter(torch.tensor(a)), Tensor(a), a.tolist()):
        table = check.compare(a, other)
        assert table.exact
    rows = [torch.tensor(a[0]), Tensor(a[1], requires_grad=True)]
    assert len(check.compare(rows, list(a)).rows) == 2
    assert check.compare(rows, a).exact  # one array on either side makes it one comparison
    assert check.compare(a, rows).exact
    bf16 = torch.tensor([1.5, 2.0], dtype=torch.bfloat16)
    assert check.compare(bf16, np.array([1.5, 2.0])).exact
    assert check.compare(3.0, np.float64(3)).rows[0].shape == ()
    assert check.compare(np.array(["a", "b"]), ["a", "b"]).exact
    assert check.compare([True, False], [True, False]).exact
    assert check.compare([np.inf, -np.inf], [np.inf, -np.inf]).exact


def test_compare_table_reads_the_same_everywhere():
    expected = {"weight": np.array([[1.0, 250.0]]), "bias": np.zeros(2, np.float32), "none": []}
    tables = set()
    for noise in (0.0, 3e-9, 9e-7):
        actual = {"weight": expected["weight"], "bias": expected["bias"] + noise, "none": []}
        tables.add(repr(check.compare(actual, expected)))
    assert tables == {
        "  name    shape   close  largest difference\n"
        "  weight  (1, 2)  ✓      below 1e-4\n"
        "  bias    (2,)    ✓      below 1e-6\n"
        "  none    (0,)    ✓      no entries"
    }
    assert "none" in repr(check.compare([1.0, 2.0], [1.0, 2.0], rtol=0, atol=0))


@pytest.mark.parametrize(
    ("actual", "expected", "message"),
    [
        ([1.0, 2.0], [1.0, 2.1], r"value\[1\] is 2.0, expected 2.1 \(1 of 2 entries"),
        (np.zeros((2, 1)), np.zeros((1, 2)), r"value has shape \(2, 1\), expected \(1, 2\)"),
        ([np.nan], [np.nan], r"value\[0\] is nan"),
        ([np.inf], [1.0], r"value\[0\] is inf"),
        ([1e300], [np.inf], r"expected inf"),
        ([1, 2], [1, 3], r"value\[1\] is 2, expected 3"),
        (["a"], ["b"], "value is not equal"),
        ([True], [False], "value is not equal"),
        (1.0, 1.0 + 1e-6, "value is 1.0, expected 1.000001"),
        ([np.zeros(2)], [np.zeros(2), np.ones(1)], "actual has 1 arrays, expected has 2"),
        ({"a": 1.0}, {"b": 1.0}, r"missing \['b'\], unexpected \['a'\]"),
        ({"a": np.ones(2), "b": 0.0}, {"a": np.zeros(2), "b": 0.0}, "1 of 2 not close\n  name"),
    ],
)
def test_compare_raises_with_the_table(actual, expected, message):
    with pytest.raises(AssertionError, match=message):
        check.compare(actual, expected)


def test_compare_tolerances_follow_the_coarser_dtype():
    one = np.ones(1)
    assert check.compare((one + 5e-6).astype(np.float32), one)
    with pytest.raises(AssertionError):
        check.compare(one + 5e-6, one)
    assert check.compare((one + 5e-4).astype(np.float16), one.astype(np.float32))
    with pytest.raises(AssertionError):
        check.compare((one + 5e-6).astype(np.float32), one, rtol=0, atol=0)
    with pytest.raises(AssertionError):
        check.compare(one + 1e-3j, one)


def test_compare_refuses_what_cannot_be_compared():
    with pytest.raises(ValueError, match="something to compare, got nothing"):
        check.compare({}, {})
    with pytest.raises(ValueError, match="names must have 1 entries, got 2"):
        check.compare(1.0, 1.0, names=["a", "b"])
    with pytest.raises(TypeError, match="both be dictionaries"):
        check.compare({"a": 1}, [1])
    with pytest.raises(ValueError, match="got nothing"):
        check.compare([], [])
    with pytest.raises(ValueError, match="rtol must be 0 or more"):
        check.compare(1.0, 1.0, rtol=-1)


# ---- claims ----------------------------------------------------------------------------------


def test_claim(capsys):
    for truth in (True, np.True_, np.array(True), torch.tensor(True), 3 < 4):
        check.claim(truth, "three is less than four")
    assert capsys.readouterr().out == "✓ three is less than four\n" * 5
    with pytest.raises(AssertionError, match=r"^four is less than three$"):
        check.claim(np.float64(4) < 3, "four is less than three")
    for no_truth in (np.array([True, True]), (True, "text"), 1, None, "yes"):
        with pytest.raises(TypeError, match="condition must be one True or False"):
            check.claim(no_truth, "something")
    with pytest.raises(TypeError, match="text must be a sentence"):
        check.claim(True, "")


def test_close(capsys):
    check.close(1.0, 1.0 + 1e-9)
    assert capsys.readouterr().out == ""
    for noise in (0.0, 1e-9, 5e-8):
        check.close(1.0 + noise, 1.0, name="the sum")
    assert capsys.readouterr().out == "✓ the sum: largest difference below 1e-7\n" * 3
    check.close({"a": 1.0, "b": np.ones(2, np.float32)}, {"a": 1.0, "b": np.ones(2)}, name="both")
    check.close(2, 2, name="count")
    assert capsys.readouterr().out == "✓ both: largest difference below 1e-5\n✓ count: equal\n"
    with pytest.raises(AssertionError, match=r"the sum is 1\.0, expected 2\.0"):
        check.close(1.0, 2.0, name="the sum")


def test_between(capsys):
    check.between(0.97, 0.95, None, "accuracy")
    check.between(torch.tensor(0.97), 0.95, 1, "accuracy")
    check.between(np.float32(2), None, 2, "error")
    assert capsys.readouterr().out == (
        "✓ accuracy: 0.95 or more\n✓ accuracy: between 0.95 and 1\n✓ error: 2 or less\n"
    )
    for value in (0.94, np.nan):
        with pytest.raises(AssertionError, match=r"accuracy is .* which is not 0.95 or more"):
            check.between(value, 0.95, None, "accuracy")
    with pytest.raises(TypeError, match="must be one number, got shape"):
        check.between(np.ones(2), 0, 2, "x")
    with pytest.raises(ValueError, match="must not both be None"):
        check.between(1, None, None, "x")
    with pytest.raises(ValueError, match="low must not be above high"):
        check.between(1, 2, 0, "x")
