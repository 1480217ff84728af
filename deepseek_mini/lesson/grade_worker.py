"""The process in which `grade` runs a learner's cells and then judges their answers.

It reads one JSON request on stdin and appends one JSON event a line to a file.
"""

import ast
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager

_COLLECT = "__collect_for_grading__"
_ID = re.compile(r"""\bcheck\(\s*["'](\d\d\.\d+)["']""")


class TooLong(BaseException):
    """A check passed its time limit. Not an Exception: no learner's code catches it."""


class _GivenToCheck(ast.NodeTransformer):
    """Turn `check("03.1", f)` and `x.check("03.1", f)` into a call of the collector.

    By what is written, not by what `check` is bound to: the notebook may rebind it.
    """

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = getattr(node.func, "id", getattr(node.func, "attr", None))
        first = node.args[0] if node.args else None
        if name == "check" and isinstance(first, ast.Constant):
            collector = ast.Name(_COLLECT, ast.Load())
            node.func = ast.copy_location(collector, node.func)
        return node


class _Collected:
    """What `check` returns while the cells run: no verdict."""

    status = reason = hint = ""

    def _ipython_display_(self) -> None:
        pass


def main() -> None:
    """Run the request's cells, then judge what they gave to `check`."""
    request = json.load(sys.stdin)
    descriptor = os.open(request["events"], os.O_WRONLY | os.O_APPEND)

    def tell(event: str, **details: object) -> None:
        line = json.dumps({"event": event, **details}) + "\n"
        os.write(descriptor, line.encode())

    given = run_cells(request["cells"], tell)
    for id in given:
        tell("given", id=id)
    tell("cells done")
    judge(given, request["seeds"], request["check_limit"], tell)


def run_cells(cells: list[str], tell: Callable) -> dict[str, object]:
    """What the cells gave to `check`, the last for every id; failures are told."""
    from IPython.core.history import HistoryManager
    from IPython.core.interactiveshell import InteractiveShell

    HistoryManager.enabled = False
    sys.path.append(os.getcwd())  # the learner's own modules, behind all others
    given: dict[str, object] = {}

    def collect(id: object, theirs: object = None, **_options: object) -> _Collected:
        given[str(id)] = theirs
        return _Collected()

    shell = InteractiveShell.instance()
    shell.ast_transformers.append(_GivenToCheck())
    for number, source in enumerate(cells, start=1):
        shell.user_ns[_COLLECT] = collect
        result = shell.run_cell(source, store_history=False)
        problem = result.error_before_exec or result.error_in_exec
        if problem is not None:
            first = str(problem).strip().split("\n")[0][:200]
            error = type(problem).__name__ + (f": {first}" if first else "")
            tell("cell failed", cell=number, error=error, ids=_ID.findall(source))
    return given


def judge(
    given: dict[str, object], seeds: list[int], limit: float, tell: Callable
) -> None:
    """Tell the verdict of every answer: the first that is not "passed", or that."""
    # The cells may have changed `check` and what it uses: take it fresh from disk.
    for name in [n for n in sys.modules if n.startswith("deepseek_mini.lesson")]:
        del sys.modules[name]
    from deepseek_mini.lesson.check import Result, verdict

    for id, theirs in given.items():
        try:
            with _time_limit(limit):
                for seed in seeds:
                    result = verdict(id, theirs, seed=seed)
                    if not result:
                        break
        except TooLong:
            result = Result(id, "not yet", f"the check ran longer than {limit:g} s")
        except ValueError as problem:  # no such exercise
            result = Result(id, "not yet", str(problem))
        tell(
            "verdict",
            id=id,
            status=result.status,
            reason=result.reason,
            hint=result.hint,
        )


@contextmanager
def _time_limit(seconds: float):
    """Raise TooLong after so many seconds, where the system has such alarms."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(_signal, _frame):
        raise TooLong

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
