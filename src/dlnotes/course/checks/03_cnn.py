"""Visible checks of exercises/03_cnn.ipynb.

Built from solutions/03_cnn.py by `dlnotes build-exercises`: change that.
"""

QUESTIONS = {
    "q1": {"title": "Sizes, parameters, work (warm-up)", "visible": 3, "hidden": 1, "hidden_checks": 1},
    "q2": {"title": "Convolution without a loop over pixels", "visible": 4, "hidden": 1, "hidden_checks": 1},
    "q3": {"title": "Columns and back", "visible": 3, "hidden": 1, "hidden_checks": 1},
    "q4": {"title": "The backward pass (derivation, checked numerically)", "visible": 3, "hidden": 1, "hidden_checks": 1},
    "q5": {"title": "Max pooling, and where its gradient goes", "visible": 3, "hidden": 1, "hidden_checks": 1},
    "q6": {"title": "What a shift does", "visible": 3, "hidden": 1, "hidden_checks": 1},
    "q7": {"title": "Receptive fields", "visible": 3, "hidden": 1, "hidden_checks": 1},
    "q8": {"title": "Count a network", "visible": 3, "hidden": 1, "hidden_checks": 1},
    "q9": {"title": "Bottlenecks, and a normalisation that vanishes", "visible": 3, "hidden": 1, "hidden_checks": 1},
    "q10": {"title": "Where did it look?", "visible": 2, "hidden": 1, "hidden_checks": 1},
    "q11": {"title": "Frozen features, several heads, sentences (an experiment and an open challenge)", "visible": 3, "hidden": 1, "hidden_checks": 1},
    "q12": {"title": "What is wrong with these training runs? (bug clinic)", "visible": 2, "hidden": 1, "hidden_checks": 1},
}


from dlnotes import kernels


def near(actual, expected, rtol=1e-6, atol=1e-9):
    return np.shape(actual) == np.shape(expected) and np.allclose(
        actual, expected, rtol=rtol, atol=atol
    )


def sizes(s, settings):
    for n, k, st, p, d in settings:
        expected = kernels.conv1d(np.zeros((1, 1, n)), np.zeros((1, 1, k)), None, st, p, d).shape[2]
        got = given(s.out_size(n, k, st, p, d), "out_size")
        assert d == 1 or got != (n + 2 * p - k) // st + 1 or got == expected, (
            f"n={n}, k={k}, d={d}: you forgot that dilation widens the kernel to d(k-1)+1 pixels"
        )
        assert got != (n + p - d * (k - 1) - 1) // st + 1 or got == expected, (
            "padding stands on both sides: count it twice"
        )
        assert got == expected, (
            f"n={n}, k={k}, s={st}, p={p}, d={d}: got {got}, expected {expected}"
        )


@test("q1", 1, hint="how far does the dilated kernel reach, and how often can it be moved?")
def number_of_outputs(s):
    sizes(s, [(28, 5, 1, 2, 1), (63, 7, 2, 3, 1), (13, 3, 2, 0, 2), (12, 3, 5, 1, 3)])


@test("q1", 1, hint="each kernel spans channels / groups; each weight works once at each output")
def parameters_and_work(s):
    parameters, macs = several(s.conv_cost(6, 17, 12, 10, 3, 2, 1), "conv_cost", 2)
    assert parameters != 10 * 9 + 10, "a kernel spans *all* input channels, not one"
    assert parameters == 10 * 6 * 9 + 10, f"parameters: got {parameters}"
    assert macs != 10 * 6 * 9 * 17 * 12, "count the positions of the *output*, not of the input"
    assert macs == 10 * 6 * 9 * 9 * 6, f"macs: got {macs}, expected {10 * 6 * 9 * 9 * 6}"


@test("q1", 1, hint="2p = d(k-1)")
def padding_that_keeps_the_size(s):
    assert [s.same_padding(3), s.same_padding(7), s.same_padding(5, 3)] == [1, 3, 6]
    assert s.same_padding(4) is None, "an even kernel would need half a pixel on each side"


def conv_case(s, seed, shape, w_shape, stride, p, groups):
    x, w, b = (
        rng(seed).normal(size=shape),
        rng(seed + 1).normal(size=w_shape),
        rng(seed + 2).normal(size=w_shape[0]),
    )
    expected = kernels.conv2d(x, w, b, stride, p, 1, groups)
    with unchanged(x=x, w=w, b=b):
        y = array(given(s.conv2d(x, w, b, stride, p, groups), "conv2d"))
    same_shape(y, expected, "the output")
    assert not near(y, expected - b[:, None, None]), "you forgot the bias"
    if not near(y, expected):
        turned = np.ascontiguousarray(w[:, :, ::-1, ::-1])
        assert not near(y, kernels.conv2d(x, turned, b, stride, p, 1, groups)), (
            "you turned the kernel: that is mathematics' convolution, not the cross-correlation of the book"
        )
    assert near(y, expected), f"stride {stride}, padding {p}, groups {groups}: wrong values"


@test("q2", 2, hint="for each offset (i, j): a slice of the input times w[:, :, i, j]")
def one_group(s):
    conv_case(s, 1, (2, 3, 7, 5), (4, 3, 3, 3), 1, 0, 1)
    conv_case(s, 4, (2, 3, 7, 6), (4, 3, 3, 3), 1, 1, 1)


@test("q2", 1, hint="slices take a step: x[..., i : i + s * rows : s, …]")
def with_stride(s):
    conv_case(s, 7, (1, 2, 9, 8), (5, 2, 3, 3), 2, 1, 1)


@test("q2", 1, hint="channels of another group must have no influence")
def two_groups(s):
    conv_case(s, 10, (2, 4, 6, 5), (6, 2, 3, 3), 1, 1, 2)


@test("q3", 1, hint="rows in the order channel, i, j; columns in the order r, c")
def columns_are_windows(s):
    x = rng(30).normal(size=(2, 3, 5, 4))
    with unchanged(x=x):
        columns = array(given(s.im2col(x, 3), "im2col"))
    expected = kernels.unfold(x, 3)
    same_shape(columns, expected, "the columns")
    other = expected.reshape(2, 3, 9, 6).swapaxes(1, 2).reshape(2, 27, 6)
    assert not near(columns, other), "the channel comes first in a column, then the offset"
    assert near(columns, expected), "the shape is right, the order is not: channel, row, column"


@test("q3", 1, hint="⟨im2col(x), c⟩ = ⟨x, col2im(c)⟩ for all x and c")
def transpose(s):
    x, c = rng(31).normal(size=(2, 3, 5, 6)), rng(32).normal(size=(2, 12, 20))
    back = array(given(s.col2im(c, (2, 3, 5, 6), 2), "col2im"))
    same_shape(back, x, "col2im's result")
    expected = kernels.unfold_backward(c, x, 2)
    last = np.zeros((2, 3, 5, 6))
    parts = c.reshape(2, 3, 2, 2, 4, 5)
    for i in range(2):
        for j in range(2):
            last[:, :, i : i + 4, j : j + 5] = parts[:, :, i, j]
    assert not near(back, last), "windows overlap: add (+=), do not overwrite"
    divided = expected / kernels.unfold_backward(np.ones_like(c), x, 2)
    assert not near(back, divided), "you took the mean over the windows; the transpose is a sum"
    assert near(back, expected), "the inner products differ"


@test("q3", 1, hint="a corner pixel is seen by one window only")
def windows_per_pixel(s):
    expected = kernels.unfold_backward(np.ones((1, 9, 12)), np.zeros((1, 1, 6, 5)), 3)[0, 0]
    counts = array(given(s.uses(6, 5, 3), "uses"))
    assert near(counts, expected), f"for 6 x 5 pixels and k = 3 the first row is {expected[0]}"


def backward_case(s, seed, shape, w_shape, stride, p):
    r = rng(seed)
    x, w = r.normal(size=shape), r.normal(size=w_shape)
    dy = r.normal(size=kernels.conv2d(x, w, None, stride, p).shape)
    expected = kernels.conv2d_backward(dy, x, w, np.zeros(len(w)), stride, p)
    with unchanged(dy=dy, x=x, w=w):
        got = several(s.conv2d_backward(dy, x, w, stride, p), "conv2d_backward", 3)
    return [array(g) for g in got], expected, (dy, x, w)


@test("q4", 1, hint="sum over pictures and places of dy times the pixel")
def gradient_of_the_weight(s):
    (_, dw, _), (_, expected, _), (dy, x, _) = backward_case(
        s, 40, (3, 2, 6, 5), (4, 2, 3, 3), 1, 0
    )
    same_shape(dw, expected, "dw")
    assert not near(dw, expected / 3), "you divided by the batch size: the task asks for the sum"
    assert not near(dw, expected[:, :, ::-1, ::-1]), "dw is turned by 180 degrees"
    assert near(dw, expected), "dw is wrong; compare one entry with a difference quotient"


@test("q4", 1, hint="every window that holds the pixel gives it something: add")
def gradient_of_the_input(s):
    (dx, _, _), (expected, _, _), (dy, x, w) = backward_case(
        s, 41, (2, 3, 6, 5), (4, 3, 3, 3), 1, 0
    )
    same_shape(dx, expected, "dx")
    last = np.zeros_like(x)
    for i in range(3):
        for j in range(3):
            last[:, :, i : i + 4, j : j + 3] = np.einsum("nouv,oc->ncuv", dy, w[:, :, i, j])
    assert not near(dx, last), "windows overlap: add to dx (+=), do not overwrite it"
    assert near(dx, expected), "dx is wrong; compare one entry with a difference quotient"


@test("q4", 1, hint="the bias is used at every place of every picture")
def gradient_of_the_bias(s):
    (_, _, db), (_, _, expected), (dy, _, _) = backward_case(
        s, 42, (3, 2, 5, 5), (4, 2, 3, 3), 1, 1
    )
    assert not near(db, dy.mean((0, 2, 3))), "db is a sum, not a mean"
    assert np.shape(db) == (4,), (
        f"db has the shape {np.shape(db)}: sum over pictures, rows *and* columns"
    )
    assert near(db, expected), "db is wrong"


@test("q5", 1, hint="the largest of each window; windows start at multiples of s")
def pooled_values(s):
    for shape, k, st in [((2, 3, 6, 8), 2, 2), ((1, 2, 7, 7), 3, 2)]:
        x = rng(50).normal(size=shape)
        with unchanged(x=x):
            y = array(given(s.max_pool(x, k, st), "max_pool"))
        expected = kernels.max_pool2d(x, k, st)
        same_shape(y, expected, "max_pool's result")
        assert not near(y, kernels.avg_pool2d(x, k, st)), "that is the mean, not the maximum"
        assert near(y, expected), f"windows of {k}, stride {st}"


@test("q5", 1, hint="only the winner gets a gradient")
def routed_gradient(s):
    x, dy = rng(51).normal(size=(2, 2, 6, 4)), rng(52).normal(size=(2, 2, 3, 2))
    dx = array(given(s.max_pool_backward(dy, x, 2, 2), "max_pool_backward"))
    assert not near(dx, np.repeat(np.repeat(dy, 2, 2), 2, 3) / 4), (
        "you shared dy among the window: that is average pooling"
    )
    assert near(dx, kernels.max_pool2d_backward(dy, x, 2, 2)), "windows of 2, no ties"


@test("q5", 1, hint="ties: argmax gives the first; overlapping windows: +=")
def ties_and_overlaps(s):
    x, dy = rng(53).integers(0, 3, (2, 2, 6, 6)).astype(float), rng(54).normal(size=(2, 2, 3, 3))
    dx = array(s.max_pool_backward(dy, x, 2, 2))
    assert abs(dx.sum() - dy.sum()) < 1e-9, "on ties only the first winner gets dy, not all of them"
    assert near(dx, kernels.max_pool2d_backward(dy, x, 2, 2)), (
        "on ties the *first* in row order wins"
    )
    x, dy = rng(55).normal(size=(1, 2, 7, 7)), rng(56).normal(size=(1, 2, 3, 3))
    dx = array(s.max_pool_backward(dy, x, 3, 2))
    assert near(dx, kernels.max_pool2d_backward(dy, x, 3, 2)), (
        "a pixel that wins two overlapping windows gets both gradients: add"
    )


@test("q6", 1, hint="a stride of s turns a shift by a into a/s")
def smallest_shift(s):
    for layers, expected in [
        ([(3, 1), (5, 1)], 1),
        ([(3, 2), (3, 1), (2, 2)], 4),
        ([(7, 2), (3, 3), (2, 2)], 12),
    ]:
        got = given(s.shift_needed(layers), "shift_needed")
        assert got != sum(st for _, st in layers) or got == expected, (
            "strides multiply, they do not add"
        )
        assert got != max(st for _, st in layers) or got == expected, (
            "the largest stride is not enough: they multiply"
        )
        assert got == expected, f"{layers}: got {got}, expected {expected}"


@test("q6", 1, hint="a divided by the product of the strides")
def shift_of_the_output(s):
    layers = [(3, 2), (3, 1), (2, 2)]
    assert s.output_shift(layers, 12) == 3, (
        "a shift by 12 with strides 2, 1, 2 moves the output by 3"
    )
    assert s.output_shift(layers, 6) is None, "6 is not a multiple of 4: no whole shift, so None"


@test("q6", 1, hint="index with (r s + i) modulo n")
def around_the_circle(s):
    x, w = rng(60).normal(size=12), rng(61).normal(size=5)
    with unchanged(x=x, w=w):
        y = array(given(s.circular(x, w, 2), "circular"))
    expected = kernels.conv1d(np.concatenate([x, x[:4]])[None, None], w[None, None], None, 2)[0, 0]
    same_shape(y, expected, "circular's result")
    turned = kernels.conv1d(
        np.concatenate([x, x[:4]])[None, None], np.ascontiguousarray(w[::-1])[None, None], None, 2
    )
    assert not near(y, turned[0, 0]), "the kernel is not turned here: index r s + i, not r s - i"
    assert near(y, expected), "the last windows must go on at the beginning of x"


@test("q7", 1, hint="r grows by d (k-1) times the product of the strides of the layers *before*")
def side_of_the_field(s):
    layers = [(7, 2, 3, 1), (3, 2, 1, 1), (3, 1, 2, 2)]
    got = given(s.receptive_field(layers), "receptive_field")
    assert got != 1 + 6 * 2 + 2 * 4 + 4 * 4, (
        "a layer's own stride counts for the layers after it only"
    )
    assert got != 1 + 6 + 2 + 4, (
        "you left out the strides: neighbours of later layers are further apart"
    )
    assert got != 1 + 6 + 2 * 2 + 2 * 4, "dilation widens the kernel: d (k-1)"
    assert got == 27, f"got {got}, expected 27"


@test("q7", 1, hint="go back from the output: first · s - p, last · s - p + d (k-1)")
def ends_of_the_field(s):
    layers = [(5, 1, 2, 1), (2, 2, 0, 1), (3, 2, 1, 1)]
    first, last = several(s.field_of(layers, 3), "field_of", 2)
    assert (first, last) != (12, 21), "padding moves the field to the left"
    assert (first, last) == (8, 17), f"got {(first, last)}, expected (8, 17)"


@test("q7", 1, hint="each layer adds k - 1 pixels")
def depth_needed(s):
    got = [given(s.layers_needed(*a), "layers_needed") for a in ((5, 3), (224, 3), (11, 7))]
    assert got != [2, 111, 1], "round up: the field must be *at least* that large"
    assert got == [2, 112, 2], f"got {got}, expected [2, 112, 2]"


LENET = [
    ("conv", 6, 5, 1, 2), ("pool", 2, 2), ("conv", 16, 5, 1, 0), ("pool", 2, 2),
    ("dense", 120), ("dense", 84), ("dense", 10),
]  # fmt: skip
ALEXNET = [
    ("conv", 64, 11, 4, 2), ("pool", 3, 2), ("conv", 192, 5, 1, 2), ("pool", 3, 2), ("conv", 384, 3, 1, 1),
    ("conv", 256, 3, 1, 1), ("conv", 256, 3, 1, 1), ("pool", 3, 2), ("dense", 4096), ("dense", 4096),
    ("dense", 1000),
]  # fmt: skip


def counted(s, layers, shape):
    shapes, parameters, macs = several(s.count(layers, shape), "count", 3)
    return [tuple(int(v) for v in each) for each in shapes], int(parameters), int(macs)


@test("q8", 1, hint="carry the shape along, with the formula for the size")
def shapes_of_lenet(s):
    shapes, _, _ = counted(s, LENET, (1, 28, 28))
    expected = [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120,), (84,), (10,)]
    assert len(shapes) == 7, "one shape for each layer"
    for k, (got, right) in enumerate(zip(shapes, expected, strict=True)):
        assert got == right, f"layer {k} gives {right}, not {got}"


@test("q8", 1, hint="a kernel spans all input channels; biases are parameters")
def parameters_of_lenet(s):
    _, parameters, _ = counted(s, LENET, (1, 28, 28))
    assert parameters != 61_706 - 236, "you left the 236 biases out"
    assert parameters == 61_706, f"LeNet-5 has 61,706 parameters, you counted {parameters:,}"


@test("q8", 1, hint="weights times output positions; biases do not count as work")
def work_of_lenet(s):
    _, _, macs = counted(s, LENET, (1, 28, 28))
    assert macs != 61_470, "a convolution's weights work at *every* position of its output"
    assert macs != 416_520 + 236, "do not count biases as multiply-accumulates"
    assert macs != 588_000 + 16 * 150 * 196 - 470_400 + 58_920, (
        "positions of the *output*, not of the input"
    )
    assert macs == 416_520, f"LeNet-5 has 416,520 multiply-accumulates, you counted {macs:,}"


@test(
    "q9", 1, hint="the first layer has channels x squeeze weights, the second squeeze x out x k x k"
)
def work_of_a_bottleneck(s):
    got = given(s.bottleneck_macs(192, 32, 5, 16, 28, 27), "bottleneck_macs")
    assert got != 28 * 27 * 16 * 32 * 25, "you forgot the work of the 1 x 1 convolution"
    assert got != 28 * 27 * 192 * 32 * 25, "that is the work without the bottleneck"
    assert got == 28 * 27 * (192 * 16 + 16 * 32 * 25), f"got {got:,}"


@test("q9", 1, hint="q (C + O k²) < C O k²")
def when_it_pays(s):
    for c, o, k in [(192, 32, 5), (64, 64, 3), (30, 7, 3)]:
        got = given(s.largest_squeeze(c, o, k), "largest_squeeze")
        right = max((q for q in range(c + 1) if q * (c + o * k * k) < c * o * k * k), default=0)
        assert got == right, f"{c} to {o} channels, k = {k}: got {got}, the largest is {right}"


@test("q9", 1, hint="scale the kernels of each output channel; the bias is normalised too")
def folded(s):
    r = rng(80)
    x, w, b = r.normal(size=(2, 3, 6, 5)), r.normal(size=(4, 3, 3, 3)), r.normal(size=4)
    gamma, beta, mean, var = (
        r.normal(size=4),
        r.normal(size=4),
        r.normal(size=4),
        r.uniform(0.1, 4, 4),
    )
    with unchanged(w=w, b=b, gamma=gamma, beta=beta, mean=mean, var=var):
        w2, b2 = (array(v) for v in several(s.fold(w, b, gamma, beta, mean, var, 1e-3), "fold", 2))
    same_shape(w2, w, "w2")
    scale = gamma / np.sqrt(var + 1e-3)
    assert not near(w2, w * (gamma / (var + 1e-3))[:, None, None, None]), (
        "divide by the *root* of the variance"
    )
    assert near(w2, w * scale[:, None, None, None]), (
        "each output channel's kernels are scaled by its own factor"
    )
    assert not near(b2, b - mean * scale + beta), "the old bias is scaled too"
    y = (kernels.conv2d(x, w, b) - mean[:, None, None]) * scale[:, None, None] + beta[:, None, None]
    assert near(kernels.conv2d(x, w2, b2), y), "b2 is wrong"


@test("q10", 1, hint="a weighted sum of the maps, with the weights of class q")
def map_and_logit(s):
    maps, weight, bias = (
        rng(90).normal(size=(5, 3, 4)),
        rng(91).normal(size=(7, 5)),
        rng(92).normal(size=7),
    )
    with unchanged(maps=maps, weight=weight, bias=bias):
        logit, m = several(s.activation_map(maps, weight, bias, 4), "activation_map", 2)
    m, expected = array(m), np.tensordot(weight[4], maps, 1)
    same_shape(m, expected, "the map")
    assert not near(m, expected / 12), (
        "the *mean* of the map plus the bias is the logit, not its sum"
    )
    assert not near(m, expected + bias[4]), "the bias belongs to no place: leave it out of the map"
    assert near(m, expected), "the map is the sum of weight[q, k] times map k"
    right = weight[4] @ maps.mean((1, 2)) + bias[4]
    assert not near(float(logit), right - bias[4]), "the logit includes the bias"
    assert near(float(logit), right), f"logit {float(logit):.4f}, expected {right:.4f}"


def occlusion_case(s, seed, shape, size, step, fill):
    x, v = rng(seed).normal(size=shape), rng(seed + 1).normal(size=shape)
    rows, cols = (range(0, side - size + 1, step) for side in shape[1:])
    expected = np.array([
        [(v * (x - fill))[:, r : r + size, c : c + size].sum() for c in cols] for r in rows
    ])  # fmt: skip
    with unchanged(x=x):
        falls = array(
            given(s.occlusion(lambda p: float((v * p).sum()), x, size, step, fill), "occlusion")
        )
    same_shape(falls, expected, "the map of falls")
    assert not near(falls, -expected), (
        "a *fall* is positive: score of the whole less score of the covered"
    )
    return x, v, falls, expected


@test("q10", 1, hint="a new copy of the picture for each square")
def falls_of_the_score(s):
    _, _, falls, expected = occlusion_case(s, 93, (2, 7, 6), 3, 2, 0.5)
    assert near(falls[0, 0], expected[0, 0]), "cover all channels of the square with `fill`"
    assert near(falls, expected), (
        "the first square is right, later ones are not: start from a fresh copy"
    )


@test("q11", 1, hint="(F'F + λ I') V = F'T, with a zero for the bias")
def ridge_in_closed_form(s):
    f, labels = rng(110).normal(size=(30, 4)) + 2, rng(111).integers(0, 3, 30)
    with unchanged(f=f, labels=labels):
        v = array(given(s.probe(f, labels, 3, 5.0), "probe"))
    ones = np.column_stack([f, np.ones(30)])
    t = np.eye(3)[labels]
    ridge = np.diag([5.0] * 4 + [0.0])
    expected = np.linalg.solve(ones.T @ ones + ridge, ones.T @ t)
    same_shape(v, expected, "V")
    assert not near(v, np.linalg.solve(ones.T @ ones + 5.0 * np.eye(5), ones.T @ t)), (
        "the biases (last row) must not be penalised"
    )
    assert not near(v, np.roll(expected, 1, axis=0)), (
        "the column of ones stands *behind* the features"
    )
    gradient = ones.T @ (ones @ v - t) + ridge @ v
    assert near(gradient, np.zeros_like(v), atol=1e-6), (
        "the gradient of the penalised squares is not 0 there"
    )


@test("q11", 1, hint="count the known answers only; log(1 + exp(z)) - t z")
def loss_of_the_heads(s):
    z, t, known = (
        rng(112).normal(size=(6, 3)),
        rng(113).integers(0, 2, (6, 3)).astype(float),
        rng(114).random((6, 3)) < 0.6,
    )
    with unchanged(z=z, t=t, known=known):
        loss, dz = several(s.heads_loss(z, t, known), "heads_loss", 2)
    losses = np.where(t == 1, np.log1p(np.exp(-z)), np.log1p(np.exp(z)))
    assert not near(float(loss), losses.mean()), "answers that are not known must not count"
    assert not near(float(loss), (losses * known).mean()), "divide by the number of *known* answers"
    assert near(float(loss), losses[known].mean()), (
        f"loss {float(loss):.4f}, expected {losses[known].mean():.4f}"
    )
    expected = (1 / (1 + np.exp(-z)) - t) * known / known.sum()
    assert near(array(dz), expected), "dz is (σ(z) - t) / number of known answers, and 0 elsewhere"


@test("q11", 1, hint="k words times d numbers; the maximum over places")
def features_of_sentences(s):
    x, w, b = (
        rng(115).normal(size=(3, 8, 5)),
        rng(116).normal(size=(4, 3, 5)),
        rng(117).normal(size=4),
    )
    with unchanged(x=x, w=w, b=b):
        f = array(given(s.sentence_features(x, w, b), "sentence_features"))
    maps = kernels.conv1d(x.swapaxes(1, 2), w.swapaxes(1, 2), b)
    expected = np.maximum(maps, 0).max(2)
    same_shape(f, expected, "the features")
    assert not near(f, np.maximum(maps, 0).mean(2)), "take the largest response, not the mean"
    assert near(f, expected), "wrong values: the word comes first in w, then the number"


ILLNESSES = {
    "healthy", "axes_swapped", "labels_mixed", "kernels_frozen", "rate_too_high", "too_few_images",
    "no_activation", "not_deep_enough",
}  # fmt: skip


def illness(s, run):
    answer = given(s.diagnosis(), "diagnosis")
    assert run in answer, f"run {run} has no diagnosis"
    assert answer[run] in ILLNESSES, f"{answer[run]!r} is not one of {', '.join(sorted(ILLNESSES))}"
    return answer[run]


@test("q12", 1, hint="compare the training curves of A, D and E")
def patients_a_and_d(s):
    assert illness(s, "A") != "too_few_images", (
        "A: its training curve is that of another run to the last digit, so its training images are the same"
    )
    assert illness(s, "A") == "axes_swapped", (
        "A: the training is sound; what about the validation images?"
    )
    assert illness(s, "D") == "healthy", "D: both losses fall, side by side"


@test("q12", 1, hint="the fourth row: do the kernels move, and how far?")
def patients_b_and_c(s):
    assert illness(s, "B") != "healthy", "B: both losses fall, but look at the fourth row"
    assert illness(s, "B") == "kernels_frozen", "B: the gradient is not zero, the way is"
    assert illness(s, "C") != "labels_mixed", (
        "C: its kernels have gone ten times as far as any other's"
    )
    assert illness(s, "C") == "rate_too_high", (
        "C: look at the way of the kernels in the first epoch"
    )
