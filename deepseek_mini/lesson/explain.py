"""An exception out of a learner's answer, as a verdict: what, on which line, what now.

It also holds the two exceptions by which a judge gives its verdict.
"""

import linecache
import re
import sysconfig
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_LIBRARIES = (
    _PACKAGE,
    *(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")),
    str(Path(torch.__file__).parent),
    str(Path(np.__file__).parent),
    "<frozen ",
    "<__array_function__",
)

# The first whose type and part of the message fit gives the hint.
_HINTS = (
    (NameError, "", "a name is misspelt, or a cell above has not been run"),
    (RecursionError, "", "the function calls itself without end"),
    (
        AttributeError,
        "'numpy.ndarray'",
        "this is a NumPy array; torch tensors have other methods",
    ),
    (
        AttributeError,
        "'Tensor'",
        "this is a torch tensor; NumPy arrays have other methods",
    ),
    (
        RuntimeError,
        "stride",
        "this input is not contiguous in memory, as after a transpose, and .view and "
        "view_as_complex need one that is; .reshape and .contiguous() make it so",
    ),
    (
        (ValueError, RuntimeError),
        "broadcast",
        "shapes are matched from the right, axis by axis: equal, or one of them 1",
    ),
    (
        RuntimeError,
        "must match the size of tensor",
        "shapes are matched from the right, axis by axis: equal, or one of them 1",
    ),
)


class NotAttempted(Exception):
    """The learner's function still raises NotImplementedError."""


class NotYet(Exception):
    """The answer is wrong: what was seen, and a hint that does not give it away.

    printed: what the learner's function printed on the way.
    """

    def __init__(self, reason: str, hint: str = "", printed: str = ""):
        super().__init__(reason)
        self.reason, self.hint, self.printed = reason, hint, printed


def explain(problem: BaseException, id: str, inputs: str) -> NotAttempted | NotYet:
    """The learner's own exception as NotYet, with their line; a stub's as NotAttempted.

    id: of the exercise, which its stub raises; inputs: what the answer was called with,
    "" where the reader sees that anyway.
    """
    line, source = _their_line(problem.__traceback__)
    first = str(problem).strip().split("\n")[0][:200]
    if isinstance(problem, NotImplementedError):
        # torch raises it too, for an operation that a dtype does not have.
        if re.fullmatch(r"\d\d\.\d+", first) and id and first != id:
            return NotYet(
                f"your answer calls exercise {first}, which is still empty",
                "no exercise needs another one: its text has the formulas, so write "
                f"them here, or do {first} first",
            )
        unknown = not id and re.fullmatch(r"\d\d\.\d+", first)
        if (
            first in ("", id)
            or unknown
            or source.startswith("raise NotImplementedError")
        ):
            return NotAttempted()
    message = re.sub(r"\b0x[0-9a-fA-F]+", "0x...", first)
    reason = type(problem).__name__ + (f": {message}" if message else "")
    if line is not None:
        shown = f": `{source}`" if source else ""
        reason += f" (line {line} of your code{shown})"
    return NotYet(reason, _hint(problem, inputs))


def _hint(problem: BaseException, inputs: str) -> str:
    for kind, part, hint in _HINTS:
        if isinstance(problem, kind) and part in str(problem):
            return hint
    known = f"the inputs were {inputs}; " if inputs else ""
    return known + "print what that line works with"


def _their_line(trace: TracebackType | None) -> tuple[int | None, str]:
    """The deepest line that is theirs: the notebook's or their file's.

    Not that of a library they call.
    """
    line, source = None, ""
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        if not filename.startswith(_LIBRARIES):
            line = trace.tb_lineno
            source = linecache.getline(filename, line).strip()
        trace = trace.tb_next
    return line, source


def an(name: str) -> str:
    """The name of a type with its article: `a list`, `an ellipsis`."""
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"


def is_plain(value: object, *more: type) -> bool:
    """Whether `repr` shows all of it: texts, whole numbers, and lists of these.

    more: other types that count as plain, as float and dict.
    """
    if isinstance(value, dict):
        return dict in more and is_plain([*value, *value.values()], *more)
    if isinstance(value, tuple | list):
        return all(is_plain(part, *more) for part in value)
    return isinstance(value, (str, int, *more))


def inputs_shown(names: list[str], args: tuple) -> str:
    """`tokens = ['a', 'b'], pair = ('a', 'b')`; "" where that is long or no text."""
    if not args or not all(is_plain(arg, float, dict, type(None)) for arg in args):
        return ""
    shown = ", ".join(f"{name} = {arg!r}" for name, arg in zip(names, args))
    return shown if len(shown) <= 160 else ""


def describe(name: str, value: object) -> str:
    """An input in a few words: `x float64 [7, 8]`, `theta 100.0`, `config a Config`."""
    if isinstance(value, torch.Tensor | np.ndarray):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"{name} {dtype} {list(value.shape)}"
    if is_plain(value, float, dict, type(None)):
        shown = repr(value)
        return f"{name} {shown if len(shown) <= 80 else shown[:77] + '...'}"
    return f"{name}, {an(type(value).__name__)}"
