"""Code that a model wrote is judged without being run, whatever it tries."""

import ast
import builtins
import math
import os
import random
import socket
import subprocess
from pathlib import Path

import pytest

from deepseek_mini import posttraining
from deepseek_mini.posttraining.evaluator import (
    MAX_SIZE,
    Refused,
    compiles,
    equals,
    evaluate,
)
from deepseek_mini.posttraining.rewards import (
    accuracy_reward,
    code_reward,
    compile_reward,
    language_reward,
)
from deepseek_mini.posttraining.tasks import (
    Chain,
    Countdown,
    Gym,
    Problem,
    Sort,
    stream,
)

eval_itself = eval  # of texts written here, never a model's
RULES = [(accuracy_reward(task), next(stream(task, 0)))
         for task in (Chain(), Sort(), Countdown())]  # fmt: skip
RULES.append((accuracy_reward(Gym("any")), Problem("gym", "one", "1", (), "")))
LANGUAGE = language_reward()

RIGHT = [  # with Python's own precedence, signs and rounding
    ("1 + 2 * 3", 7),
    ("-7 % 3", 2),
    ("-7 // 2", -4),
    ("2 ** -3", 0.125),
    ("-2 ** 2", -4),
    ("1 < 2 < 3", True),
    ("1 < 2 > 5", False),
    ("0 or 5", 5),
    ("3 and 0 and 1 / 0", 0),
    ("1 / 0 if 1 > 2 else 4", 4),
    ("[3, 1, 2][1:] + [9]", [1, 2, 9]),
    ("(1, 2)[-1]", 2),
    ("'ab' * 2 + 'c'", "ababc"),
    ("'a' in 'cat' and 4 not in [1, 2]", True),
    ("sum([1, 2], 10) + max(3, 4) - min([5, 6])", 12),
    ("round(2.675, 1) + abs(-1) + len('xyz')", 6.7),
    ("sorted([3, 1, 2])", [1, 2, 3]),
    ("not None", True),
    ("~5", -6),
]


@pytest.mark.parametrize(("source", "value"), RIGHT)
def test_the_value_is_pythons(source, value):
    assert evaluate(source) == value and type(evaluate(source)) is type(value)
    assert equals(source, value)


def test_random_arithmetic_is_pythons():
    draw = random.Random(0)

    def expression(depth):
        if depth == 0:
            return str(draw.choice([0, 1, 2, 7, 12, 2.5]))
        left, right = expression(depth - 1), expression(depth - 1)
        return f"({left} {draw.choice(['+', '-', '*', '/', '//', '%'])} {right})"

    judged = 0
    for _ in range(300):
        source = expression(draw.randint(1, 4))
        try:
            expected = eval_itself(source)  # digits and operators
        except ZeroDivisionError:
            with pytest.raises(Refused, match="ZeroDivision"):
                evaluate(source)
            continue
        if math.isfinite(expected):
            assert evaluate(source) == expected
            judged += 1
    assert judged > 100


def test_variables():
    assert evaluate("x * len(words)", {"x": 3, "words": ["a", "b"]}) == 6
    with pytest.raises(Refused, match="unknown name 'y'"):
        evaluate("y", {"x": 3})
    with pytest.raises(Refused, match="type function"):
        evaluate("f", {"f": lambda: 1})


ATTACKS = {
    "file": "open('/etc/passwd').read()",
    "import": "__import__('os').system('true')",
    "socket": "__import__('socket').socket()",
    "exec": "exec('x = 1')",
    "eval": "eval('1')",
    "builtins": "__builtins__",
    "builtins item": "__builtins__['open']",
    "getattr": "getattr(1, 'real')",
    "type": "type(1)",
    "attribute": "(1).real",
    "class": "().__class__.__bases__[0].__subclasses__()",
    "method": "[1].append(2)",
    "format": "'{0.__class__}'.format(1)",
    "percent": "'%99999999d' % 1",
    "f-string": "f'{1}'",
    "f-string width": "f'{1:99999999}'",
    "lambda": "(lambda: 1)()",
    "endless": "(lambda f: f(f))(lambda f: f(f))",
    "walrus": "(x := 5)",
    "comprehension": "[i for i in [1, 2]]",
    "comprehension bomb": "sum(1 for a in 'x' * 9999 for b in 'x' * 9999)",
    "generator": "max(i for i in [1])",
    "dictionary": "{1: 2}",
    "set": "{1}",
    "starred": "max(*[1, 2])",
    "keyword": "sorted([1], key=abs)",
    "shadowed": "sum([1])(2)",
    "function as value": "abs",
    "ellipsis": "...",
    "bytes": "b'a' * 9",
    "complex": "1j",
    "complex power": "(-1) ** 0.5",
    "tower": "9 ** 9 ** 9",
    "power": "10 ** 10 ** 8",
    "negative tower": "2 ** -9999999999",
    "power by power": "((2 ** 900) ** 900) ** 900",
    "huge literal": "1" * 1_500,
    "growing product": " * ".join(["(2 ** 300)"] * 9),
    "shift": "1 << 10 ** 10",
    "rounding": "round(1, -10 ** 9)",
    "infinity": "1e999",
    "not a number": "1e999 - 1e999",
    "overflow": "2.0 ** 5000",
    "long text": "'a' * 10 ** 9",
    "long list": "10 ** 9 * [0]",
    "negative times long": "'a' * (2 ** 60)",
    "nested list": "[[[[0] * 99] * 99] * 99] * 99",
    "doubling": "+".join(["'x' * 9999"] * 9),
    "list of lists": "[" + ", ".join(["[0] * 9999"] * 20) + "]",
    "sum of lists": "sum([[1], [2]], [])",
    "sum of texts": "sum([], 'a')",
    "deep parentheses": "(" * 300 + "1" + ")" * 300,
    "deep signs": "-" * 900 + "1",
    "deep lists": "[" * 150 + "]" * 150,
    "deep not": "not " * 400 + "1",
    "deep sum": "+".join("1" * 900),
    "deep index": "x" + "[0]" * 500,
    "too long": "1 + " * 600 + "1",
    "statement": "x = 1",
    "loop": "while True: pass",
    "memory": "[0] * 10 ** 11",
    "more memory": "bytearray(10 ** 11)",
    "global names": "globals()",
    "dunder of a name": "x.__class__",
    "dunder of a text": "''.__class__.__mro__[1].__subclasses__()",
    "traceback": "(1 / 0).__traceback__",
    "other module": "os.system('true')",
    "input": "input()",
    "exit": "exit()",
    "breakpoint": "breakpoint()",
    "starred call": "len(*'a')",
    "text as code": "'__import__(\"os\")' + 1",
    "two": "1; 2",
    "await": "await x",
    "yield": "(yield)",
    "nothing": "",
    "null": "1\0",
    "surrogate": "'\ud800'",
    "zero": "1 // 0",
    "index": "[1][5]",
    "types": "1 + 'a'",
    "order": "1 < 'a'",
    "is": "1 is 1",
}


@pytest.fixture
def run(monkeypatch):
    """What was run, by name: whoever swallows the alarm is found out all the same."""
    names = []

    def alarm(name):
        def called(*arguments, **keywords):
            names.append(name)
            raise AssertionError(f"{name} was called")

        return called

    for module, name in (
        (builtins, "open"),
        (builtins, "eval"),
        (builtins, "exec"),
        (os, "system"),
        (subprocess, "Popen"),
        (socket, "socket"),
    ):
        monkeypatch.setattr(module, name, alarm(name))
    yield names
    monkeypatch.undo()


@pytest.mark.parametrize("source", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_refused(source, run):
    with pytest.raises(Refused) as refusal:
        evaluate(source, {"x": 1})
    assert len(str(refusal.value)) < 200
    assert not equals(source, 1, {"x": 1})
    assert not run


@pytest.mark.parametrize("source", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_earns_nothing_and_is_not_run(source, run):
    """By way of every reward, as an answer in its tags."""
    text = f"<think>{source}</think><answer>{source}</answer>"
    code = Problem("code", "one", "1", (), "", [({"x": 1}, 1)])
    assert code_reward(text, code) == 0
    assert compile_reward(text) in (0, 1)
    for accuracy, problem in RULES:
        assert accuracy(text, problem) == 0
    assert LANGUAGE(text) <= 1
    assert not run


def test_the_alarms_ring(run):
    """Else the two tests above could not fail."""
    for code in ("open('x')", "__import__('socket').socket()"):
        with pytest.raises(AssertionError, match="was called"):
            eval_itself(code)
    assert run == ["open", "socket"]


def test_no_module_here_runs_text():
    """Only the evaluator compiles, only Lean's runner starts a process, none evals."""
    banned = {"eval", "exec", "__import__", "compile", "sympify", "parse_expr"}
    found = set()
    for path in sorted(Path(posttraining.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Name) and node.id in banned:
                found.add((path.stem, node.id))
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None) or ""
                names = {alias.name for alias in node.names} | {module}
                risky = names & {"subprocess", "socket", "pty", "runpy", "code"}
                found |= {(path.stem, name) for name in risky}
    assert found == {("evaluator", "compile"), ("lean", "subprocess")}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("'%d' % 1", "% is for numbers"),
        ("'ab' * 5001", "the repetition is longer"),
        ("[1, 2] * 5001", "the repetition is longer"),
        ("2 ** 999", "the power is larger"),
        ("round(1.5, 101)", "at most 100 digits"),
        ("sum([[1]], [])", "sum is for numbers"),
        ("(1).real", "Attribute is not allowed"),
        ("1e308 * 10", "inf is not a number"),
        ("+".join(["len('x' * 9000)"] * 6), "more than the limits allow"),
    ],
)
def test_what_would_grow_is_refused_before_it_is_made(source, reason):
    with pytest.raises(Refused, match=reason):
        evaluate(source)


def test_every_node_type_of_python_is_judged():
    """What Python adds to its grammar tomorrow is refused until somebody allows it."""
    from deepseek_mini.posttraining.evaluator import _Evaluator

    methods = {name for name in vars(_Evaluator) if name.startswith("_")}
    nodes = {n for n in dir(ast) if n[0].isupper() and f"_{n.lower()}" in methods}
    allowed = "BinOp BoolOp Call Compare Constant IfExp List Name Subscript Tuple"
    assert nodes == {*allowed.split(), "UnaryOp"}


def test_the_largest_allowed_values():
    assert evaluate("2 ** 499 * 2 ** 499") == 2**998
    assert len(evaluate(f"'a' * {MAX_SIZE}")) == MAX_SIZE
    with pytest.raises(Refused):
        evaluate(f"'a' * {MAX_SIZE + 1}")
    with pytest.raises(Refused):
        evaluate("'a' * 5000 + 'a' * 5001")


def test_equal_is_strict_about_types():
    assert equals("0.1 + 0.2", 0.3) and not equals("0.1 + 0.2", 0.3, tolerance=0)
    assert equals("2 / 1", 2) and not equals("'2'", 2) and not equals("2", "2")
    assert not equals("1", True) and not equals("True", 1) and equals("1 < 2", True)
    assert not equals("10 ** 17 + 1", 10**17)  # whole numbers are compared exactly
    assert equals("[1, 2]", [1, 2]) and not equals("(1, 2)", [1, 2])


def test_compiles():
    assert compiles("def f(x):\n    return x + 1\n") and compiles("")
    assert compiles("while True: pass") and compiles("import os; os._exit(1)")
    for broken in ("def f(:", "return 1", "x = = 2", "  x = 1", "'\ud800", "a\0"):
        assert not compiles(broken)
    for hostile in ("-" * 19_000 + "1", "(" * 19_000, "x" + "()" * 9_000, "1" * 9_000):
        assert not compiles(hostile)
    assert compiles("x = 9 ** 9 ** 9 ** 9; y = 'a' * 10 ** 12")  # and folds no constant
    assert compiles("x = 1\n" * 3_000) and not compiles("x = 1\n" * 4_000)


def test_a_program_that_raises_at_import_is_not_run(tmp_path):
    target = tmp_path / "written"
    assert compiles(f"open({str(target)!r}, 'w').write('run')\nraise SystemExit")
    assert not target.exists()


def test_only_text_is_judged():
    for function in (compiles, evaluate):
        with pytest.raises(TypeError):
            function(None)
    assert evaluate(" 1 + 1 ") == 2  # spaces around do not matter
