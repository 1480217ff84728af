"""Exercise 20.1, the floor of a matrix product: in exact fractions."""

from fractions import Fraction

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def product_floor(M, N, K, size, rate, bandwidth):
    """The oracle: both times as fractions, then the longer one."""
    times = {
        "compute": Fraction(2 * M * N * K, 10**6) / Fraction(rate),
        "memory": Fraction(size * (M * K + K * N + M * N), 10**6) / Fraction(bandwidth),
    }
    limit = max(times, key=times.get)
    return float(times[limit]), limit


def _times(M, N, K, size, rate, bandwidth, *, flop=2.0, moved=None):
    moved = size * (M * K + K * N + M * N) if moved is None else moved
    compute, memory = flop * M * N * K / rate / 1e6, moved / bandwidth / 1e6
    return {"compute": compute, "memory": memory}


def _longer(times):
    limit = max(times, key=times.get)
    return times[limit], limit


def _sum(*args):
    times = _times(*args)
    return sum(times.values()), _longer(times)[1]


def _other_word(*args):
    time, limit = product_floor(*args)
    return time, "compute" if limit == "memory" else "memory"


def _without_result(M, N, K, size, rate, bandwidth):
    moved = size * (M * K + K * N)
    return _longer(_times(M, N, K, size, rate, bandwidth, moved=moved))


def _no_reuse(M, N, K, size, rate, bandwidth):
    moved = size * (2 * M * N * K + M * N)
    return _longer(_times(M, N, K, size, rate, bandwidth, moved=moved))


def _seconds(*args):
    time, limit = product_floor(*args)
    return time / 1e6, limit


def _without_b(M, N, K, size, rate, bandwidth):
    moved = size * (M * K + 2 * M * N)
    return _longer(_times(M, N, K, size, rate, bandwidth, moved=moved))


def _bits(M, N, K, size, rate, bandwidth):
    return product_floor(M, N, K, 8 * size, rate, bandwidth)


def _milliseconds(*args):
    time, limit = product_floor(*args)
    return time / 1e3, limit


def _turned(got, want, args):
    """The right two, the word first."""
    return tuple(got) == tuple(want)[::-1]


def _renamed(got, want, args):
    return abs(got[0] - want[0]) <= 1e-9 * want[0] and got[1] not in (
        "compute",
        "memory",
    )


def floor_cases(rng):
    for size in (1, 2, 4):
        for label, rows, rates, bandwidths in (
            ("large", (1500, 3000), (100, 300), (40, 50)),
            ("few rows", (1, 9), (800, 2000), (10, 40)),
        ):
            M = int(rng.integers(*rows))
            N, K = (int(n) for n in rng.integers(1500, 3000, size=2))
            rate = float(rng.integers(*rates))
            bandwidth = float(rng.integers(*bandwidths)) / 10
            args = (M, N, K, size, rate, bandwidth)
            yield Case(args, f"{label}: {M} x {K} times {K} x {N}, {size} bytes")
    M, N = (int(n) for n in rng.integers(4000, 6000, size=2))
    yield Case((M, N, 16, 2, 800.0, 3.0), f"a thin one: {M} x 16 times 16 x {N}")
    for ratio in (1.2, 0.8):  # of the time for computing to that for memory
        M, N, K = (int(n) for n in rng.integers(500, 2000, size=3))
        moved = 2 * (M * K + K * N + M * N)
        rate = round(2 * M * N * K * 2.5 / moved / ratio, 1)
        args = (M, N, K, 2, rate, 2.5)
        yield Case(args, f"near the ridge: {M} x {K} times {K} x {N}, 2 bytes")


def _near(wrong):
    """Whether a result is a wrong version's, the word included."""

    def when(got, want, args):
        try:
            time, limit = got
            theirs, word = wrong(*args)
            if not isinstance(time, int | float):
                return False
            return word == limit and abs(time - theirs) <= 1e-9 * abs(theirs)
        except (TypeError, ValueError):
            return False

    return when


def _is_shorter(got, want, args):
    """Whatever the word is."""
    time = min(_times(*args).values())
    return isinstance(got[0], float) and abs(got[0] - time) <= 1e-9 * time


FLOOR = Exercise(
    id="20.1",
    title="The floor of a product",
    signature="product_floor(M, N, K, size, rate, bandwidth)",
    difficulty="a few lines",
    minutes=8,
    right=product_floor,
    cases=floor_cases,
    mistakes=(
        Mistake(
            "every product of two numbers is followed by an addition: an operation too",
            when=_near(lambda *a: _longer(_times(*a, flop=1.0))),
        ),
        Mistake(
            "loading and computing happen at the same time, so the times do not add up",
            when=_near(_sum),
        ),
        Mistake(
            "three matrices move: a [M, K], b [K, N] and the result [M, N], each once",
            when=_near(_without_b),
        ),
        Mistake("this is the shorter of the two times", when=_is_shorter),
        Mistake(
            "the time is right, but the word names the other limit",
            when=_near(_other_word),
        ),
        Mistake(
            "the time is right, but the word must be 'compute' or 'memory'",
            when=_renamed,
        ),
        Mistake("the time stands first, then the word", when=_turned),
        Mistake("a number has `size` bytes, not bits", when=_near(_bits)),
        Mistake("these are milliseconds, not micro", when=_near(_milliseconds)),
        Mistake("the result must be stored, too", when=_near(_without_result)),
        Mistake(
            "memory is counted in bytes, not in numbers",
            when=_near(lambda M, N, K, size, *rest: _longer(_times(M, N, K, 1, *rest))),
        ),
        Mistake(
            "for the floor each number of a and b is loaded once, however often it is "
            "used",
            when=_near(_no_reuse),
        ),
        Mistake("these are seconds: return microseconds", when=_near(_seconds)),
    ),
    hint="write down both times for the product in the text: which amounts are they?",
)
