"""Where two values differ, in a sentence: type, shape, dtype, then the first element.

Used by the judge of the exercises. Values are tensors, arrays, numbers, strings, and
tuples, lists or dicts of these. What is short is shown whole, beside what is right.
"""

from dataclasses import dataclass

import numpy as np
import torch

from deepseek_mini.lesson.explain import an, is_plain

_TOLERANCE = {8: 1e-9, 4: 1e-5, 2: 2e-2}  # by bytes of a real number
NO_RETURN = "is `return` missing?"
_SHORT = 120  # characters of a list or text that is shown whole


@dataclass(frozen=True)
class Difference:
    """What was seen and what should have been; a hint where one follows from it."""

    reason: str
    hint: str = ""


def difference(
    got: object,
    want: object,
    tolerance: float | None = None,
    exact_dtype: bool = True,
) -> Difference | None:
    """None when `got` is what `want` says, else the first difference.

    tolerance: of max|got - want| / max(1, max|want|); 1e-9 for float64, 1e-5 for
        float32 and 2e-2 for 16 bits when not given; integers must be equal.
    exact_dtype: False accepts another floating dtype.
    """
    if isinstance(want, tuple | list):
        return _sequences(got, want, tolerance, exact_dtype)
    if isinstance(want, dict):
        return _dicts(got, want, tolerance, exact_dtype)
    if isinstance(want, str):
        return _texts(got, want)
    if _family(want) is None:  # None, configs
        if type(got) is type(want) and (got is want or got == want):
            return None
        return Difference(f"the result is {got!r:.80}, but should be {want!r:.80}")
    if _family(got) != _family(want):
        return _other_type(got, want)
    return _arrays(got, want, tolerance, exact_dtype)


def _family(value: object) -> str | None:
    if isinstance(value, torch.Tensor):
        return "a torch tensor"
    if isinstance(value, np.ndarray):
        return "a NumPy array"
    if isinstance(value, bool | int | float | complex | np.generic):
        return "a number"
    return None


def _seen(value: object) -> str:
    return _family(value) or ("None" if value is None else an(type(value).__name__))


def _other_type(got: object, want: object) -> Difference:
    hint = ""
    if got is None:
        hint = NO_RETURN
    elif isinstance(want, np.ndarray) and isinstance(got, torch.Tensor):
        hint = "this exercise is in NumPy: leave torch out of it"
    elif isinstance(want, torch.Tensor) and isinstance(got, np.ndarray):
        hint = "this exercise is in torch: leave NumPy out of it"
    elif isinstance(got, list):
        hint = "a list of rows is no array yet"
    elif isinstance(got, tuple):
        hint = "return the value itself, not several in a row"
    return Difference(
        f"the result is {_seen(got)}, but should be {_family(want)}", hint
    )


def _texts(got: object, want: str) -> Difference | None:
    """Texts side by side, then the first character that differs."""
    if not isinstance(got, str):
        return Difference(f"the result is {_seen(got)}, but should be a text")
    if got == want:
        return None
    both = "your text differs"
    if len(got) <= _SHORT and len(want) <= _SHORT:
        both = f"your text is {got!r}, but should be {want!r}"
    for i, (a, b) in enumerate(zip(got, want)):
        if a != b:
            return Difference(
                f"{both}; character {i} is {a!r}, chr({ord(a)}), but should be "
                f"{b!r}, chr({ord(b)})"
            )
    if both == "your text differs":
        both += f" in length: {len(got)} characters, but should be {len(want)}"
    return Difference(both)


def _sequences(got, want, tolerance, exact_dtype) -> Difference | None:
    kind = "tuple" if isinstance(want, tuple) else "list"
    if not isinstance(got, tuple | list):
        hint = f"return all {len(want)}" if kind == "tuple" else ""
        should = f"a tuple of {len(want)} values" if kind == "tuple" else "a list"
        return Difference(f"the result is {_seen(got)}, but should be {should}", hint)
    whole = ""
    if is_plain(got) and is_plain(want):  # the repr of tensors takes long
        whole = f"your {kind} is {got!r}, but should be {want!r}"
        whole = whole if len(whole) <= 2 * _SHORT else ""
    if kind == "tuple":
        n = _count(got, "value", "values")
        counts = f"your function returns {n}, but should return {len(want)}"
    else:
        n = _count(got, "entry", "entries")
        counts = f"your list has {n}, but should have {len(want)}"
    for i, (a, b) in enumerate(zip(got, want)):
        diff = difference(a, b, tolerance, exact_dtype)
        if diff is None:
            continue
        if whole:
            return Difference(whole, diff.hint)
        if len(got) != len(want):
            tokens = isinstance(a, str) and isinstance(b, str)
            first = f"; entry {i} is {a!r}, but should be {b!r}" if tokens else ""
            return Difference(counts + first)
        name = "output" if kind == "tuple" else "entry"
        reason = diff.reason.replace("the result is", "it is", 1)
        return Difference(f"{name} {i}: {reason}", diff.hint)
    return None if len(got) == len(want) else Difference(whole or counts)


def _count(values: tuple | list, one: str, many: str) -> str:
    return f"{len(values)} {one if len(values) == 1 else many}"


def _dicts(got, want, tolerance, exact_dtype) -> Difference | None:
    if not isinstance(got, dict):
        return Difference(f"the result is {_seen(got)}, but should be a dictionary")
    lacks = [key for key in want if key not in got]
    extra = [key for key in got if key not in want]
    said = [f"lacks {_keys(lacks)}"] if lacks else []
    said += [f"has {_keys(extra)}, which should not be there"] if extra else []
    if said:
        return Difference("your dictionary " + " and ".join(said))
    for key in want:
        diff = difference(got[key], want[key], tolerance, exact_dtype)
        if diff is not None:
            reason = diff.reason.replace("the result is", "it is", 1)
            return Difference(f"entry {key!r}: {reason}", diff.hint)
    return None


def _keys(keys: list) -> str:
    shown = ", ".join(map(repr, keys[:4]))
    return shown + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")


def _arrays(got, want, tolerance, exact_dtype) -> Difference | None:
    names = [str(getattr(v, "dtype", type(v).__name__)) for v in (got, want)]
    names = [name.removeprefix("torch.") for name in names]
    sizes = _size(got), _size(want)
    a, b = _wide(got), _wide(want)
    if a.shape != b.shape:
        hint = "print the shape of every step: where does it part from the wanted one?"
        if a.size == b.size:
            hint = "there are as many numbers as there should be, on other axes"
        return Difference(f"the shape is {a.shape}, but should be {b.shape}", hint)
    kinds = a.dtype.kind, b.dtype.kind
    is_array = _family(want) != "a number"
    if is_array and (
        kinds[0] != kinds[1]
        or (exact_dtype and kinds[1] in "fc" and names[0] != names[1])
    ):
        hint = f"print the dtype of every step: where does {names[0]} come in?"
        return Difference(f"the dtype is {names[0]}, but should be {names[1]}", hint)
    if tolerance is None:
        real = b.dtype.kind in "fc" or a.dtype.kind in "fc"
        tolerance = _TOLERANCE.get(min(sizes), 1e-9) if real else 0.0
    return _elements(a, b, tolerance)


def _size(value: object) -> int:
    """Bytes of one real number of the value's dtype."""
    if isinstance(value, torch.Tensor):
        return value.element_size() // (2 if value.is_complex() else 1)
    dtype = np.asarray(value).dtype
    return dtype.itemsize // (2 if dtype.kind == "c" else 1)


def _wide(value: object) -> np.ndarray:
    """The value as an array of bool, int64, float64 or complex128."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.double()
        value = value.resolve_conj().resolve_neg().numpy()
    array = np.asarray(value)
    wide = {"f": np.float64, "c": np.complex128, "i": np.int64, "u": np.int64}
    return array.astype(wide.get(array.dtype.kind, array.dtype))


def _elements(a: np.ndarray, b: np.ndarray, tolerance: float) -> Difference | None:
    if a.size == 0 or a.dtype.kind not in "biufc":
        return None if np.array_equal(a, b) else Difference("the values differ")
    if a.dtype.kind == "b":
        wrong = a != b
    else:
        finite = np.abs(np.where(np.isfinite(b), b, 0)).max()
        with np.errstate(invalid="ignore"):
            far = ~(np.abs(a - b) <= tolerance * max(1.0, finite))  # NaN is far
        wrong = far & (a != b)  # equal infinities are equal
    if not wrong.any():
        return None
    index = tuple(int(i) for i in np.argwhere(wrong)[0])
    seen, should = _numbers(a[index], b[index])
    if a.ndim == 0:
        return Difference(f"the result is {seen}, but should be {should}")
    place = ", ".join(map(str, index))
    return Difference(
        f"element [{place}] is {seen}, but should be {should}; "
        f"{int(wrong.sum())} of {a.size} elements differ"
    )


def _numbers(a: object, b: object) -> tuple[str, str]:
    """Both in the fewest digits, 5 or more, that tell them apart."""
    for digits in range(5, 18):
        seen, should = (
            str(v) if np.asarray(v).dtype.kind in "biu" else f"{v:.{digits}g}"
            for v in (a, b)
        )
        if seen != should:
            break
    return seen, should
