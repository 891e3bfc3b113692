"""Visible checks of exercises/14_cuda.ipynb.

Built from solutions/14_cuda.py by `dlnotes build-exercises`: change that.
"""

QUESTIONS = {
    "q1": {"title": "As many or as few threads as there are (warm-up)", "visible": 2, "hidden": 1, "hidden_checks": 1},
    "q2": {"title": "What a request costs", "visible": 3, "hidden": 2, "hidden_checks": 2},
    "q3": {"title": "The photograph, turned", "visible": 2, "hidden": 1, "hidden_checks": 1},
    "q4": {"title": "Bug clinic: a moving average", "visible": 2, "hidden": 1, "hidden_checks": 1},
    "q5": {"title": "One atomic a block", "visible": 1, "hidden": 2, "hidden_checks": 2},
    "q6": {"title": "Joining parts", "visible": 2, "hidden": 1, "hidden_checks": 1},
    "q7": {"title": "How sure is a row? In one pass", "visible": 2, "hidden": 2, "hidden_checks": 2},
    "q8": {"title": "Matrix product, four results a thread", "visible": 2, "hidden": 2, "hidden_checks": 2},
    "q9": {"title": "Under the roof", "visible": 3, "hidden": 1, "hidden_checks": 1},
    "q10": {"title": "How many blocks fit?", "visible": 2, "hidden": 1, "hidden_checks": 1},
    "q11": {"title": "How many lanes for a row?", "visible": 2, "hidden": 2, "hidden_checks": 2},
    "q12": {"title": "The gradient of an embedding", "visible": 2, "hidden": 1, "hidden_checks": 1},
    "q13": {"title": "AdamW in one kernel", "visible": 2, "hidden": 1, "hidden_checks": 1},
    "q14": {"title": "Several processes", "visible": 2, "hidden": 1, "hidden_checks": 1},
    "q15": {"title": "Causal attention in one kernel (challenge)", "visible": 2, "hidden": 1, "hidden_checks": 1},
}


import math


def normal(seed, *shape):
    return rng(seed).standard_normal(shape).astype(np.float32)


def nans(*shape):
    return np.full(shape, np.nan, np.float32)


def close(actual, expected, rtol=1e-4, atol=1e-5):
    return np.shape(actual) == np.shape(expected) and np.allclose(actual, expected, rtol, atol)


def unwritten(y, name):
    gaps = int(np.isnan(y).sum())
    assert gaps == 0, f"{gaps} of {y.size} entries of {name} were never written, or are NaN"


def up(n, each):
    return -(-n // each)


def run_saxpy(s, n, grid, block, seed=0):
    x, y = normal(seed, n), normal(seed + 1, n)
    run = kernel(s, s.saxpy, "saxpy", grid, block, n, -1.5, x, y)
    right = np.float32(-1.5) * x + y
    same = int((run["y"] == y).sum())
    assert same < n, "y is what it was before: nothing has been added"
    assert not np.isclose(run["y"], right, atol=1e-5).all() or close(run["y"], right), "values"
    bad = np.flatnonzero(~np.isclose(run["y"], right, rtol=1e-4, atol=1e-5))
    assert not bad.size, (
        f"n = {n}, {grid} blocks of {block}: {bad.size} entries are wrong, the first is y[{bad[0]}]"
        + (
            ": with fewer threads than numbers a thread must take several"
            if bad[0] == grid * block
            else ""
        )
    )
    return run


@test(
    "q1", 1, hint="the last block has threads without a number: they must do nothing", hidden=False
)
def more_threads_than_numbers(s):
    """right with more threads than numbers"""
    run_saxpy(s, 45, 2, 32)


@test("q1", 1, hint="the grid-stride loop of section 14.1", hidden=False)
def fewer_threads_than_numbers(s):
    """right with fewer threads than numbers"""
    run_saxpy(s, 301, 2, 48)


def off(addresses, lanes):
    """The same request with these lanes switched off."""
    return np.where(np.isin(np.arange(32), lanes), -1, addresses)


@test(
    "q2",
    1,
    hint="count different sectors, not lanes; a lane that is off wants nothing",
    hidden=False,
)
def sectors_of_known_patterns(s):
    """neighbours, strides, one address, lanes that are off"""
    lane = np.arange(32)
    for what, addresses, right in (
        ("neighbours", 4 * lane, 4),
        ("every third number", 12 * lane, 12),
        ("one address for all", 0 * lane + 100, 1),
        ("a column of a matrix with 40 columns", 160 * lane, 32),
    ):
        got = s.sectors(addresses, 4)
        assert got is not None, "sectors returned None: is there a return?"
        assert got == right, f"{what}: got {got}, {right} sectors are touched"
    got = s.sectors(off(4 * lane + 320, np.arange(5, 32)), 4)
    assert got not in (2, 3), "a lane that is off has the address -1 and touches no sector"
    assert got == 1, f"five neighbours, the other lanes off: got {got}, 1 sector is touched"


@test(
    "q2",
    1,
    hint="the bank is address / 4 mod 32, and equal words are served together",
    hidden=False,
)
def turns_for_words(s):
    """columns, rows and broadcasts of 4-byte words"""
    lane = np.arange(32)
    for what, addresses, right in (
        ("a row", 4 * lane, 1),
        ("a column of a tile with 32 columns", 128 * lane, 32),
        ("a column of a tile with 36 columns", 144 * lane, 4),
        ("the same word", 0 * lane + 64, 1),
    ):
        got = s.turns(addresses, 4)
        assert got is not None, "turns returned None: is there a return?"
        assert got != 32 or what != "the same word", (
            "lanes that want the same word are served together"
        )
        assert got == right, f"{what}: got {got} turns, {right} is right"
    got = s.turns(off(128 * lane, np.arange(3, 32)), 4)
    assert got == 3, f"three lanes of a column, the others off: got {got} turns, 3 is right"


@test("q2", 1, hint="a half or a quarter of the warp at a time; each adds its turns", hidden=False)
def turns_for_wide_accesses(s):
    """8 and 16 bytes a lane"""
    lane = np.arange(32)
    for what, addresses, width, right in (
        ("neighbours of 16 bytes", 16 * lane, 16, 4),
        ("neighbours of 8 bytes", 8 * lane, 8, 2),
        ("16 bytes at every 32nd byte", 32 * lane, 16, 8),
        ("the same 16 bytes for all", 0 * lane + 48, 16, 4),
        ("16 bytes, the second half of the warp off", off(16 * lane, np.arange(16, 32)), 16, 2),
    ):
        got = s.turns(addresses, width)
        assert got != 1 or right == 1, f"{what}: 512 bytes cannot come in one turn of 32 banks"
        assert got == right, f"{what}: got {got} turns, {right} is right"


def run_turn(s, h, w):
    x = normal(h, h, w)
    run = kernel(s, s.turn, "turn", (up(w, 32), up(h, 32)), (32, 8), h, w, x, nans(w, h))
    y = run["y"]
    unwritten(y, "y")
    assert h * w == 1 or not close(y.ravel(), x.ravel()) or 1 in (h, w), (
        "y holds x, not its transpose"
    )
    assert close(y, x.T), f"h = {h}, w = {w}: the entries are not those of the transpose"
    return run


@test("q3", 1, hint="guard both loops: in the second the sides have changed places", hidden=False)
def values_of_the_transpose(s):
    """right on awkward sizes"""
    run_turn(s, 40, 67)


@test(
    "q3",
    1,
    hint="read rows of x into the tile, write columns of the tile to rows of y",
    hidden=False,
)
def traffic_of_the_transpose(s):
    """both sides of global memory are coalesced"""
    run = run_turn(s, 64, 96)
    for name, kind in (("x", "read"), ("y", "write")):
        each = run.count(name, kind, "sectors") / max(run.count(name, kind), 1)
        assert each <= 4.1, f"a request for {name} touches {each:.0f} sectors; 4 are enough"


@test(
    "q4",
    1,
    hint="run the faulty kernel in mode checked for each n, mend what it names, and run it again",
    hidden=False,
)
def kinds_and_cures(s):
    """the three diagnoses"""
    d = s.diagnosis
    assert isinstance(d, dict) and all(isinstance(v, (tuple, list)) for v in d.values()), (
        "fill in the diagnosis"
    )
    right = {
        "A": ("uninitialised", "halo"),
        "B": ("out of bounds", "guard"),
        "C": ("race", "barrier"),
    }
    for name, (kind, cure) in right.items():
        got = tuple(d.get(name, ()))
        assert got[:1] != ("divergent barrier",), f"{name}: there is no barrier that could diverge"
        assert got[:1] == (kind,), f"{name}: {got[:1]} is not the kind of this fault"
        assert got == (kind, cure), f"{name}: the kind is right, {got[1:]} does not cure it"


def run_average(s, n):
    x = normal(n, n)
    run = kernel(s, s.average, "average", up(n, 64), 64, n, x, nans(n))
    padded = np.concatenate([[0], x, [0]])
    unwritten(run["y"], "y")
    right = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    bad = np.flatnonzero(~np.isclose(run["y"], right, rtol=1e-4, atol=1e-5))
    assert not bad.size, f"n = {n}: y[{bad[0]}] is wrong" + (
        ", at the border of a block" if bad[0] % 64 in (0, 63) else ""
    )


@test("q4", 1, hint="one fault at a time: guard, halo on both sides, barrier", hidden=False)
def the_mended_kernel(s):
    """the mended kernel"""
    for n in (64, 100, 128):
        run_average(s, n)


def run_total(s, n, grid, block):
    x = normal(n, n)
    run = kernel(s, s.total, "total", grid, block, n, x, np.zeros(1, np.float32))
    right, got = float(x.astype(np.float64).sum()), float(run["sum"][0])
    assert got != 0 or n == 0, "sum[0] is still zero"
    power = block & (block - 1) == 0
    assert math.isclose(got, right, rel_tol=1e-3, abs_tol=1e-3), (
        f"n = {n}, {grid} blocks of {block}: got {got:.4f}, the sum is {right:.4f}"
        + ("" if power else "; does your tree lose numbers when the block is no power of two?")
    )
    atomics = int(run.count("sum", "atomic"))
    return run, atomics


@test("q5", 1, hint="add in registers, then in the warp, then in the block", hidden=False)
def sum_of_all(s):
    """the sum, and one atomic a block"""
    run, atomics = run_total(s, 1000, 3, 128)
    assert atomics <= 3, f"{atomics} requests with atomics by 3 blocks: one a block is enough"
    lanes = sum(r["bytes"] * r["requests"] / 4 for r in run.rows if r["kind"] == "atomic")
    assert lanes <= 3, f"{lanes:.0f} atomic additions by 3 blocks: one a block is enough"


def part_of(s, v):
    m = float(s.max()) if len(s) else -math.inf
    if m == -math.inf:
        return m, 0.0, np.zeros(v.shape[1])
    e = np.exp(s - m)
    return m, float(e.sum()), e @ v


def check_joined(s, scores, values, cut):
    got = s.join(part_of(scores[:cut], values[:cut]), part_of(scores[cut:], values[cut:]))
    assert got is not None and len(got) == 3, "join must return (m, d, a)"
    m, d, a = got
    right = part_of(scores, values)
    assert m == right[0], f"m is {m}, the larger of both is {right[0]}"
    assert np.isfinite(d) and np.isfinite(array(a)).all(), "the sums hold NaN or infinity"
    plain = sum(part_of(part, values[: len(part)])[1] for part in (scores[:cut], scores[cut:]))
    assert not (np.isclose(d, plain) and not np.isclose(d, right[1])), (
        "d1 + d2 adds sums that are relative to different maxima: the one with the smaller m must shrink"
    )
    assert np.isclose(d, right[1]), f"d is {d:.6g}, not {right[1]:.6g}"
    assert np.allclose(array(a), right[2]), "a does not shrink by the same factors as d"
    return got


@test("q6", 1, hint="each part is multiplied by exp(its m - the new m)", hidden=False)
def two_parts(s):
    """two parts, the maximum in either"""
    for seed in range(4):
        scores, values = 3 * rng(seed).normal(size=13), rng(seed + 9).normal(size=(13, 4))
        got = check_joined(s, scores, values, 5)
        out = array(s.finished(got))
        w = np.exp(scores - scores.max())
        assert np.allclose(out, w @ values / w.sum()), "finished: the output is a / d"


@test("q6", 1, hint="exp(m1 - m) with m the larger one is never above 1", hidden=False)
def huge_scores(s):
    """huge scores"""
    scores, values = 1000 * rng(1).normal(size=9), rng(2).normal(size=(9, 2))
    check_joined(s, scores, values, 4)


def run_entropy(s, x):
    rows, columns = x.shape
    run = kernel(s, s.entropy, "entropy", up(rows, 4), 128, rows, columns, x, nans(rows))
    h, huge = run["h"], x[np.isfinite(x)].max() > 88
    z = x.astype(np.float64) - x.max(axis=1, keepdims=True)
    e = np.exp(z)
    d, a = e.sum(axis=1), (e * np.where(e > 0, z, 0)).sum(axis=1)
    assert not (huge and not np.isfinite(h).all()), (
        "NaN or infinity: exp overflows unless the row's largest entry is subtracted first"
    )
    assert not (np.isnan(h).any() and np.isinf(x).any()), "NaN: 0 times -inf, or -inf minus -inf"
    unwritten(h, "h")
    assert not close(h, np.log(d), atol=1e-3) or close(np.log(d), np.log(d) - a / d, atol=1e-3), (
        "h is the logarithm of d alone: a / d is missing"
    )
    assert close(h, np.log(d) - a / d, atol=1e-3), (
        f"{rows} rows of {columns}: h[0] is {h[0]:.4f}, the entropy is {np.log(d[0]) - a[0] / d[0]:.4f}"
    )
    return run


@test(
    "q7",
    1,
    hint="when m grows, a shrinks by the same factor as d, and each x - m in it falls, too",
    hidden=False,
)
def values_of_the_entropy(s):
    """right on awkward sizes"""
    run_entropy(s, 3 * normal(1, 7, 45))
    run_entropy(s, normal(2, 1, 3))


@test("q7", 1, hint="keep m, d and a at once, entry by entry", hidden=False)
def reads_of_the_entropy(s):
    """each entry is read once, coalesced"""
    x = normal(3, 8, 128)
    sectors = run_entropy(s, x).count("x", "read", "sectors")
    assert sectors <= x.nbytes // 32, (
        f"{sectors} sectors of x; {x.nbytes // 32} are enough for one pass"
    )


def run_product(s, m, n, k):
    A, B = normal(m, m, k), normal(n + 50, k, n)
    run = kernel(
        s, s.product, "product", (up(n, 32), up(m, 32)), (32, 8), m, n, k, A, B, nans(m, n)
    )
    C = run["C"]
    rows = np.flatnonzero(np.isnan(C).all(axis=1))
    assert not rows.size or rows.size == m, (
        f"row {rows[0]} of C was never written: 8 rows of threads, 32 rows of the piece"
    )
    unwritten(C, "C")
    assert not (m == n > 1 and close(C, (A @ B).T)), "C is transposed"
    assert close(C, A @ B, atol=1e-3), (
        f"m, n, k = {m}, {n}, {k}: the entries are not those of the product"
    )
    return run


@test(
    "q8",
    1,
    hint="outside of the matrices a tile holds 0, and every thread passes every barrier",
    hidden=False,
)
def values_of_the_product(s):
    """right on awkward sizes"""
    run_product(s, 37, 35, 33)


@test(
    "q8", 1, hint="fetch 32 × 32 numbers of A and of B, wait, use each 32 times, wait", hidden=False
)
def traffic_of_the_product(s):
    """each number is fetched once for each block that needs it"""
    run = run_product(s, 32, 64, 32)
    for name, enough in (("A", 2 * 32 * 32 * 4 // 32), ("B", 32 * 64 * 4 // 32)):
        sectors = run.count(name, "read", "sectors")
        assert sectors <= enough, f"{sectors} sectors of {name}; {enough} are enough with tiles"


@test("q9", 1, hint="moving and computing happen at the same time", hidden=False)
def least_times(s):
    """the slower of both limits"""
    for f, d, p, b in ((1e9, 1e6, 1e12, 1e11), (1e6, 1e9, 1e12, 1e11), (3e9, 5e8, 2e13, 1e12)):
        got = s.least_time(f, d, p, b)
        assert got is not None, "least_time returned None: is there a return?"
        assert not np.isclose(got, f / p + d / b), "a sum: but computing and moving overlap"
        assert np.isclose(got, max(f / p, d / b)), f"{f:g} operations, {d:g} bytes: got {got:g} s"


@test("q9", 1, hint="each separate kernel has its own maximum of two times", hidden=False)
def gain_of_fusing(s):
    """what fusing gains"""
    got = s.fusion_gain(5, 67e12, 3.35e12)
    assert got is not None, "fusion_gain returned None: is there a return?"
    assert np.isclose(got, 5), (
        f"five operations on an H100: got {got:g}, both are limited by memory"
    )


@test("q9", 1, hint="intensity of b × b pieces: 2mnk over width · mnk · (1/b + 1/b)", hidden=False)
def pieces_at_the_ridge(s):
    """the smallest piece"""
    for p, b, w in ((67e12, 3.35e12, 4), (989e12, 3.35e12, 2), (8.1e12, 320e9, 4)):
        got, right = s.smallest_piece(p, b, w), math.ceil(p / b * w)
        assert got is not None, "smallest_piece returned None: is there a return?"
        assert got != math.ceil(p / b * w / 2), (
            "half of it: a product is two operations, and two operands are fetched"
        )
        assert got != math.ceil(p / b), "the numbers have a width"
        assert got == right, f"peak {p:g}, bandwidth {b:g}, {w} bytes: got {got}"


CARD = {"registers": 65536, "shared": 228 * 1024, "warps": 64, "blocks": 32}
OTHER = {"registers": 65536, "shared": 64 * 1024, "warps": 32, "blocks": 16}


def check_resident(s, threads, registers, shared, card, right):
    got = s.resident(threads, registers, shared, card=card)
    assert got is not None and len(got) == 2, "resident must return (blocks, occupancy)"
    what = f"{threads} threads, {registers} registers, {shared} bytes"
    assert got[0] == right, f"{what}: got {got[0]} blocks, {right} fit"
    share = right * up(threads, 32) / card["warps"]
    assert math.isclose(got[1], share), (
        f"{what}: got an occupancy of {got[1]:.3f}, it is {share:.3f}"
    )


@test("q10", 1, hint="the smallest of four counts, in whole warps", hidden=False)
def plain_cases(s):
    """each of the four limits"""
    check_resident(s, 256, 32, 0, CARD, 8)
    check_resident(s, 32, 16, 0, CARD, 32)
    check_resident(s, 256, 128, 0, CARD, 2)
    check_resident(s, 128, 32, 32 * 1024, OTHER, 2)


@test("q10", 1, hint="33 threads are two warps", hidden=False)
def whole_warps(s):
    """threads that are no multiple of 32"""
    check_resident(s, 33, 16, 0, OTHER, 16)
    check_resident(s, 700, 40, 0, CARD, 2)


def rounds_of(lengths, lanes):
    warps = [lengths[i : i + 32 // lanes] for i in range(0, len(lengths), 32 // lanes)]
    return sum(max(math.ceil(n / lanes) for n in warp.tolist()) for warp in warps)


def check_rounds(s, lengths, lanes):
    got = s.rounds(lengths.copy(), lanes)
    what = f"{len(lengths)} rows of up to {lengths.max()} numbers, {lanes} lanes a row"
    assert got is not None, "rounds returned None: is there a return?"
    right = rounds_of(lengths, lanes)
    full = len(lengths) // (32 // lanes) * (32 // lanes)
    assert got == right or full == len(lengths) or got != rounds_of(lengths[:full], lanes), (
        "the last warp is missing: it may have fewer rows than the others"
    )
    whole = (
        sum(max(w) // lanes for w in np.split(lengths[:full], max(1, full * lanes // 32)))
        if full
        else -1
    )
    assert got == right or got != whole, "a row needs a round for what is left over: round up"
    assert got == right, f"{what}: got {got} rounds, {right} is right"


@test("q11", 1, hint="a warp goes on until its longest row is done", hidden=False)
def rounds_of_all_warps(s):
    """rounds of all warps"""
    lengths = rng(1).integers(1, 60, 64)
    for lanes in (1, 4, 32):
        check_rounds(s, lengths, lanes)
    check_rounds(s, rng(2).integers(1, 40, 45), 2)


@test(
    "q11", 1, hint="each lane adds as many numbers as there are; idle are all others", hidden=False
)
def share_at_work(s):
    """the share of lanes at work"""
    for seed, lanes in ((3, 1), (4, 8), (5, 32)):
        lengths = rng(seed).integers(1, 50, 64)
        got, right = s.share(lengths, lanes), lengths.sum() / (32 * rounds_of(lengths, lanes))
        assert got is not None, "share returned None: is there a return?"
        assert not math.isclose(got, right * 32 / lanes) or lanes == 32, (
            "a warp has 32 lanes, however many share a row"
        )
        assert math.isclose(got, right), f"{lanes} lanes a row: got {got:.3f}, {right:.3f} is right"


def run_scatter(s, tokens, width, words, padding=False):
    ids = (rng(tokens).zipf(1.6, tokens) % words).astype(np.int32)
    if padding:
        ids[::3] = -1
    dy = normal(width, tokens, width)
    run = kernel(
        s,
        s.scatter,
        "scatter",
        up(tokens, 4),
        128,
        tokens,
        width,
        ids,
        dy,
        np.zeros((words, width), np.float32),
    )
    right = np.zeros((words, width))
    np.add.at(right, ids[ids >= 0], dy[ids >= 0])
    table = run["table"]
    assert table.any() or not right.any(), "the table is still zero"
    plain = np.zeros((words, width))
    plain[ids[ids >= 0]] = dy[ids >= 0]
    assert not close(table, plain) or close(right, plain), (
        "the last token of a word has overwritten the others"
    )
    assert close(table, right, atol=1e-4), f"{tokens} tokens of {width} numbers: the sums are wrong"
    return run


@test("q12", 1, hint="repeated ids meet in one row: atomicAdd", hidden=False)
def sums_of_rows(s):
    """right on repeated ids"""
    run_scatter(s, 13, 45, 5)


@test("q12", 1, hint="the lanes of a warp take neighbouring columns of one token", hidden=False)
def traffic_of_the_scatter(s):
    """dy is read coalesced"""
    run = run_scatter(s, 16, 64, 6)
    each = run.count("dy", "read", "sectors") / run.count("dy", "read")
    assert each <= 4.1, f"a request for dy touches {each:.0f} sectors; 4 are enough"


def run_adamw(s, n, step, decay=0.1):
    p, g, m = normal(n, n), normal(n + 1, n), 0.1 * normal(n + 2, n)
    v = 0.01 * normal(n + 3, n) ** 2
    lr, b1, b2, eps = 0.01, 0.9, 0.99, 1e-6
    c1, c2 = 1 - b1**step, 1 - b2**step
    run = kernel(
        s,
        s.adamw,
        "adamw",
        up(n, 128),
        128,
        n,
        lr,
        decay,
        b1,
        b2,
        eps,
        c1,
        c2,
        p,
        g,
        m.astype(np.float32),
        v.astype(np.float32),
    )

    def right(g, decay):
        m1, v1 = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        return p - lr * decay * p - lr * (m1 / c1) / (np.sqrt(v1 / c2) + eps), m1, v1

    expected = right(g, decay)
    assert not np.array_equal(run["p"], p), "p has not changed"
    assert decay == 0 or not close(run["p"], right(g + decay * p, 0)[0]), (
        "the decay went into the gradient: that is Adam with L2, not AdamW"
    )
    uncorrected = p - lr * decay * p - lr * expected[1] / (np.sqrt(expected[2]) + eps)
    assert step > 100 or not close(run["p"], uncorrected), "the corrections c1 and c2 are missing"
    for name, value in zip("mvp", (expected[1], expected[2], expected[0]), strict=True):
        assert close(run[name], value, atol=1e-6), f"n = {n}, step {step}: {name} is wrong"
    return run


@test("q13", 1, hint="m and v first, then p from their new values", hidden=False)
def step_of_adamw(s):
    """the step is right"""
    run_adamw(s, 200, 3)


@test("q13", 1, hint="keep numbers in registers: read each once, write at the end", hidden=False)
def traffic_of_adamw(s):
    """7 numbers a parameter"""
    run = run_adamw(s, 256, 5)
    numbers = run.sectors * 8 / 256
    assert numbers <= 7, f"{numbers:g} numbers a parameter move; 7 are enough"


@test("q14", 1, hint="weigh each gradient by the number of its samples", hidden=False)
def uneven_shares(s):
    """shares of different size"""
    gradients = [rng(k).normal(size=(2, 3)) for k in range(3)]
    for sizes in ((8, 8, 8), (8, 8, 5), (1, 30, 2)):
        got = s.averaged(gradients, list(sizes))
        assert got is not None, "averaged returned None: is there a return?"
        right = np.average(gradients, axis=0, weights=sizes)
        plain = np.mean(gradients, axis=0)
        assert not np.allclose(got, plain) or np.allclose(right, plain), (
            f"samples {sizes}: the mean of means is not the mean"
        )
        assert np.allclose(got, right), f"samples {sizes}: not the gradient of the mean loss"


@test("q14", 1, hint="2 (K - 1) rounds, each with one of K pieces", hidden=False)
def time_of_the_ring(s):
    """the time of a ring"""
    for d, k, b, latency in ((1e9, 8, 1e11, 1e-5), (4e6, 2, 1e10, 0), (1e3, 64, 1e10, 1e-5)):
        got, right = s.ring_seconds(d, k, b, latency), 2 * (k - 1) * (latency + d / k / b)
        assert got is not None, "ring_seconds returned None: is there a return?"
        assert not math.isclose(got, right / 2), (
            "half of the rounds: sums travel round, and then results do"
        )
        assert not math.isclose(got, 2 * (k - 1) * (latency + d / b)), (
            "a round sends one piece, not the whole vector"
        )
        assert math.isclose(got, right), (
            f"{d:g} bytes, {k} processes: got {got:g} s, {right:g} is right"
        )
    assert s.ring_seconds(1e9, 1, 1e11, 1e-5) == 0, "one process needs no time"


def run_causal(s, n, size=1.0):
    q, k, v = (size * normal(n, n, 32), normal(n + 1, n, 32), normal(n + 2, n, 32))
    scale = 32**-0.5
    run = kernel(s, s.causal, "causal", up(n, 8), (32, 8), n, scale, q, k, v, nans(n, 32))
    o = run["o"]
    scores = scale * (q.astype(np.float64) @ k.T)

    def outputs(scores):
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        return (e / e.sum(axis=1, keepdims=True)) @ v

    unwritten(o, "o")
    right = outputs(np.where(np.tri(n, dtype=bool), scores, -np.inf))
    assert n == 1 or not close(o, outputs(scores), atol=1e-3), (
        "every position looks at all others: where is the mask?"
    )
    if n > 1:
        strict = outputs(
            np.where(np.tri(n, k=-1, dtype=bool) | (np.arange(n) == 0), scores, -np.inf)
        )
        assert not close(o[1:], strict[1:], atol=1e-3), "position i must look at itself as well"
    assert close(o, right, atol=1e-3), (
        f"n = {n}: the first wrong row is {np.flatnonzero(~np.isclose(o, right, atol=1e-3).all(1))[0]}"
    )
    return run


@test("q15", 1, hint="key j counts for query i when j <= i", hidden=False)
def values_of_causal_attention(s):
    """right on awkward sizes"""
    run_causal(s, 21)
    run_causal(s, 45)


@test(
    "q15",
    1,
    hint="tiles of 32 keys and values in shared memory, for all queries of the block",
    hidden=False,
)
def traffic_of_causal_attention(s):
    """keys and values are fetched once a block, and only outputs are written"""
    run = run_causal(s, 64)
    enough = sum(
        up(8 * (b + 1), 32) * 32 * 4 for b in range(8)
    )  # sectors: tiles up to the last query
    for name in "kv":
        sectors = run.count(name, "read", "sectors")
        assert sectors <= enough, (
            f"{sectors} sectors of {name}; {enough} are enough with tiles for a block"
        )
    assert run.count("o", None, "sectors") <= 64 * 4, "o is written once and not read"
