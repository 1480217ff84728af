"""Code that a model wrote, judged without being run.

A model that is rewarded for code will, sooner or later, write code that you would not
run. Two questions can be answered safely: does it compile, and what is the value of an
expression? The second is answered by walking the parsed tree with a list of allowed
node types and a limit on everything that could grow. What is not on the list is
refused: there is no `eval`, no attribute, no import and no function of Python's but
the seven in `FUNCTIONS`.
"""

import ast
import math
import operator
import warnings
from collections.abc import Mapping
from typing import Any

MAX_CHARS = 2_000  # of an expression
MAX_PROGRAM = 20_000  # characters of what `compiles` reads
MAX_DEPTH = 100  # of the parsed tree
MAX_BITS = 1_000  # of a whole number: 301 decimal digits
MAX_SIZE = 10_000  # characters and items of one value, everything inside it counted
MAX_WORK = 50_000  # items made by one evaluation, all values together

ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
COMPARISONS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, container: item in container,
    ast.NotIn: lambda item, container: item not in container,
}
SIGNS = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}
FAILURES = (ArithmeticError, LookupError, TypeError, ValueError, RecursionError)
FUNCTIONS = {f.__name__: f for f in (abs, len, max, min, round, sorted, sum)}


class Refused(ValueError):
    """The evaluator will not, or cannot, say what an expression is worth."""


def compiles(source: str) -> bool:
    """Whether `source` is Python that compiles. It is parsed, and never run.

    A text of more than 20,000 characters, or nested too deeply for the parser, does
    not count as Python.
    """
    return _parse(source, "exec", MAX_PROGRAM) is not None


def evaluate(source: str, names: Mapping[str, Any] | None = None) -> Any:
    """The value of one Python expression, found without running it.

    Allowed are numbers, strings, True, False, None, lists and tuples of them, + - * /
    // % **, comparisons, `and`, `or`, `not`, `in`, `x if y else z`, indices and slices,
    calls of abs, len, max, min, round, sorted and sum, and the variables in `names`.

    Raises:
        Refused: anything else, a value beyond the limits of this module, or an error
            of the expression itself, such as a division by zero.
    """
    tree = _parse(source, "eval", MAX_CHARS)
    if tree is None:
        raise Refused(f"not an expression of at most {MAX_CHARS} characters")
    return _Evaluator(dict(names or {})).value(tree.body, 0)


def equals(
    source: str,
    expected: Any,
    names: Mapping[str, Any] | None = None,
    tolerance: float = 1e-9,
) -> bool:
    """Whether `source` is an expression with the value `expected`: a verifier.

    Numbers may differ by `tolerance`, relative to the larger; whatever `evaluate`
    refuses is not equal to anything. True is not 1 here.
    """
    try:
        value = evaluate(source, names)
    except Refused:
        return False
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(value, (int, float)) and isinstance(expected, (int, float)):
        if isinstance(value, int) and isinstance(expected, int):
            return value == expected
        return math.isclose(value, expected, rel_tol=tolerance, abs_tol=tolerance)
    return type(value) is type(expected) and value == expected


def _parse(source: str, mode: str, limit: int) -> ast.AST | None:
    """The tree of `source`, or None if it is not Python."""
    if not isinstance(source, str):
        raise TypeError(f"the source is a {type(source).__name__}, not a str")
    if len(source) > limit:
        return None
    text = source.strip() if mode == "eval" else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `1 is 1` compiles with a warning
            tree = ast.parse(text, mode=mode)
            compile(tree, "<model>", mode)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None
    return tree


class _Evaluator:
    """Walks a tree. Every value it makes has passed `_admit`."""

    def __init__(self, names: dict[str, Any]):
        self.work = 0
        self.names = {name: self._admit(value) for name, value in names.items()}

    def value(self, node: ast.AST, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise Refused(f"the expression is nested more than {MAX_DEPTH} deep")
        method = getattr(self, "_" + type(node).__name__.lower(), None)
        if method is None:
            raise Refused(f"{type(node).__name__} is not allowed in an expression")
        try:
            return self._admit(method(node, depth + 1))
        except Refused:
            raise
        except FAILURES as problem:
            raise Refused(f"{type(problem).__name__}: {problem}") from None

    def _admit(self, value: Any) -> Any:
        """The value, if it is of an allowed type and size."""
        size = _size(value, MAX_SIZE)
        self.work += size
        if size > MAX_SIZE or self.work > MAX_WORK:
            raise Refused("the expression makes more than the limits allow")
        return value

    def _constant(self, node: ast.Constant, depth: int) -> Any:
        return node.value

    def _name(self, node: ast.Name, depth: int) -> Any:
        if node.id not in self.names:
            raise Refused(f"unknown name {node.id[:40]!r}")
        return self.names[node.id]

    def _list(self, node: ast.List, depth: int) -> list:
        return [self.value(item, depth) for item in node.elts]

    def _tuple(self, node: ast.Tuple, depth: int) -> tuple:
        return tuple(self.value(item, depth) for item in node.elts)

    def _unaryop(self, node: ast.UnaryOp, depth: int) -> Any:
        return SIGNS[type(node.op)](self.value(node.operand, depth))

    def _binop(self, node: ast.BinOp, depth: int) -> Any:
        if type(node.op) not in ARITHMETIC:
            raise Refused(f"the operator {type(node.op).__name__} is not allowed")
        left, right = self.value(node.left, depth), self.value(node.right, depth)
        _check_growth(node.op, left, right)
        return ARITHMETIC[type(node.op)](left, right)

    def _boolop(self, node: ast.BoolOp, depth: int) -> Any:
        stop = isinstance(node.op, ast.Or)
        for operand in node.values:
            result = self.value(operand, depth)
            if bool(result) is stop:
                break
        return result

    def _compare(self, node: ast.Compare, depth: int) -> bool:
        left = self.value(node.left, depth)
        for op, right_node in zip(node.ops, node.comparators):
            if type(op) not in COMPARISONS:
                raise Refused(f"the comparison {type(op).__name__} is not allowed")
            right = self.value(right_node, depth)
            if not COMPARISONS[type(op)](left, right):
                return False
            left = right
        return True

    def _ifexp(self, node: ast.IfExp, depth: int) -> Any:
        chosen = node.body if self.value(node.test, depth) else node.orelse
        return self.value(chosen, depth)

    def _subscript(self, node: ast.Subscript, depth: int) -> Any:
        container = self.value(node.value, depth)
        if isinstance(node.slice, ast.Slice):
            parts = (node.slice.lower, node.slice.upper, node.slice.step)
            index = slice(*(p and self.value(p, depth) for p in parts))
        else:
            index = self.value(node.slice, depth)
        return container[index]

    def _call(self, node: ast.Call, depth: int) -> Any:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name not in FUNCTIONS or node.keywords:
            raise Refused(
                f"only {', '.join(FUNCTIONS)} may be called, without keywords"
            )
        values = [self.value(argument, depth) for argument in node.args]
        if name == "sum" and not all(_is_number(x) for x in _items(values)):
            raise Refused("sum is for numbers")  # of lists it would grow unseen
        if name == "round" and any(abs(digits) > 100 for digits in values[1:]):
            raise Refused("round is for at most 100 digits")
        return FUNCTIONS[name](*values)


def _check_growth(op: ast.operator, left: Any, right: Any) -> None:
    """Refuse an operation whose result would be too large, before it is made."""
    numbers = _is_number(left) and _is_number(right)
    if isinstance(op, ast.Mod) and not numbers:
        raise Refused("% is for numbers")  # on a text it is a format
    if isinstance(op, ast.Mult) and not numbers:
        text, count = (left, right) if isinstance(right, int) else (right, left)
        inside = _size(text, MAX_SIZE) - (not isinstance(text, str))
        if isinstance(count, int) and inside * count > MAX_SIZE:
            raise Refused("the repetition is longer than the limits allow")
    power = isinstance(op, ast.Pow) and isinstance(left, int) and isinstance(right, int)
    if power and max(left.bit_length(), 1) * abs(right) > MAX_BITS:
        raise Refused(f"the power is larger than {MAX_BITS} bits")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _items(values: list) -> list:
    """What `sum` would add: the items of its first argument, and its start."""
    first = values[0] if values and isinstance(values[0], (list, tuple)) else []
    return [*first, *values[1:]]


def _size(value: Any, limit: int) -> int:
    """How many characters and items a value holds; beyond the limit it stops early.

    Raises:
        Refused: a type that is not allowed, or a number that is too large.
    """
    if value is None or isinstance(value, bool):
        return 1
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Refused(f"{value} is not a number")
        return 1
    if isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise Refused(f"a whole number is larger than {MAX_BITS} bits")
        return 1
    if isinstance(value, str):
        return max(1, len(value))
    if not isinstance(value, (list, tuple)):
        raise Refused(f"a value of type {type(value).__name__} is not allowed")
    total = 1
    for item in value:
        total += _size(item, limit - total)
        if total > limit:
            break
    return total
