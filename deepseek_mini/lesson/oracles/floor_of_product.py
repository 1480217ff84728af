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


def _shorter(*args):
    times = _times(*args)
    limit = min(times, key=times.get)
    return times[limit], limit


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


def _near(wrong):
    """Whether a result is a wrong version's, the word included."""

    def when(got, want, args):
        try:
            time, limit = got
            theirs, word = wrong(*args)
            return word == limit and abs(time - theirs) <= 1e-9 * abs(theirs)
        except (TypeError, ValueError):
            return False

    return when


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
        Mistake("this is the shorter of the two times", when=_near(_shorter)),
        Mistake(
            "the time is right, but the word names the other limit",
            when=_near(_other_word),
        ),
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
