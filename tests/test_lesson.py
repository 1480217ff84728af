"""What notebooks need: setup, show, ladder, check, progress, plots, widgets, GPU."""

import base64
import importlib.util
import io
import json
import random
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch

import deepseek_mini.lesson as lesson
from deepseek_mini.lesson import check, ladder, setup, show
from deepseek_mini.lesson.check import Result, verdict
from deepseek_mini.lesson.compare import difference
from deepseek_mini.lesson.judge import judge_exercise
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, find
from deepseek_mini.lesson.show import source_markdown, source_of
from deepseek_mini.model import norm, rope

display = sys.modules["deepseek_mini.lesson.display"]
progress_file = sys.modules["deepseek_mini.lesson.progress"]
gpu = sys.modules["deepseek_mini.lesson.gpu"]
show_module = sys.modules["deepseek_mini.lesson.show"]


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would be given: a list of (data, metadata)."""
    given = []
    modules = [m for n, m in sys.modules.items() if n.startswith(lesson.__name__ + ".")]
    for module in modules:
        if hasattr(module, "publish"):
            monkeypatch.setattr(
                module, "publish", lambda data, meta=None: given.append((data, meta))
            )
        if hasattr(module, "in_ipython"):
            monkeypatch.setattr(module, "in_ipython", lambda: True)
    return given


@pytest.fixture
def state():
    """Put back what setup changes for the whole process."""
    threads, style = torch.get_num_threads(), dict(matplotlib.rcParams)
    yield
    torch.set_num_threads(threads)
    matplotlib.rcParams.update(style)


# --- setup ------------------------------------------------------------------------


def test_setup_repeats_and_prints_nothing(capsys, state):
    def draws():
        setup(seed=3)
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert draws() == draws()
    assert torch.get_num_threads() == 1
    assert capsys.readouterr() == ("", "")
    with pytest.raises(ValueError, match="threads is 0"):
        setup(threads=0)


def test_lesson_names_are_functions_whatever_is_imported_first():
    code = (
        "import deepseek_mini.lesson.check, deepseek_mini.lesson.show\n"
        "from deepseek_mini.lesson import check, ladder, progress, setup, show\n"
        "assert all(callable(f) for f in (check, ladder, progress, setup, show))\n"
        "import sys\n"
        "heavy = {'matplotlib', 'ipywidgets', 'IPython', 'transformers'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- show -------------------------------------------------------------------------


def test_show_gives_a_path_and_the_whole_definition(shown):
    show(rope.apply_rope, norm.RMSNorm)
    ((data, _),) = shown
    text = data["text/markdown"]
    assert text.startswith("**`deepseek_mini/model/rope.py`**\n\n```python\ndef apply_")
    assert "    return turned.to(x.dtype)\n```" in text
    assert "**`deepseek_mini/model/norm.py`**\n\n```python\nclass RMSNorm(" in text
    assert data["text/plain"] == (
        "source of deepseek_mini/model/rope.py, deepseek_mini/model/norm.py"
    )


def test_show_joins_neighbours_from_one_file():
    text = source_markdown(rope.apply_rope, rope.rope_table)
    assert text.count("```python") == 1
    assert "\n\n\ndef rope_table(" in text


def test_show_methods_modules_and_no_docstrings():
    _, source = source_of(norm.RMSNorm.forward)
    assert source.startswith("def forward(self")
    path, source = source_of(norm)
    assert path == "deepseek_mini/model/norm.py" and source.startswith('"""')
    _, bare = source_of(norm, docstrings=False)
    assert '"""' not in bare
    compile(bare, path, "exec")
    _, bare = source_of(rope.apply_rope, docstrings=False)
    assert '"""' not in bare and "    cos, sin = cos[..., None" in bare


def test_show_every_public_definition_is_python():
    for module in (rope, norm, progress_file, show_module):
        for name, obj in vars(module).items():
            if getattr(obj, "__module__", "") != module.__name__:
                continue
            if callable(obj):
                compile(source_of(obj)[1], name, "exec")
                compile(source_of(obj, docstrings=False)[1], name, "exec")


@pytest.mark.parametrize("obj", [np.zeros, json.dumps, torch.nn.Linear])
def test_show_refuses_other_packages(obj):
    with pytest.raises(ValueError, match="is not part of deepseek_mini"):
        show(obj)


def test_show_takes_names_without_importing():
    path, source = source_of("kernels.rmsnorm.add_rmsnorm_kernel")
    assert path == "deepseek_mini/kernels/rmsnorm.py"
    assert source.startswith("@triton.jit\ndef add_rmsnorm_kernel(")
    assert source_of("kernels.rope.TILES")[1].startswith("TILES = {")
    assert source_of("deepseek_mini.model.rope.apply_rope") == source_of(
        rope.apply_rope
    )
    assert source_of("model.norm.RMSNorm.forward") == source_of(norm.RMSNorm.forward)
    for wrong, said in (("rmsnorm.reference", "is not in"), ("model.norm.L", "no def")):
        with pytest.raises(ValueError, match=said):
            source_of(wrong)


def test_show_refuses_instances():
    with pytest.raises(TypeError, match="not an instance of RMSNorm"):
        show(norm.RMSNorm(4))


def test_show_prints_in_plain_python(capsys):
    show(rope.apply_rope)
    assert "def apply_rope(" in capsys.readouterr().out


# --- ladder -----------------------------------------------------------------------


def test_ladder_prints_bounds_and_not_digits(shown, capsys):
    ladder(
        "Up",
        [
            ("same", torch.ones(2), np.ones(2), 0),
            ("close", torch.ones(2).bfloat16(), np.full(2, 1.0012345), 1e-2),
            ("number", 1 + 1e-9, 1, 1e-6),
        ],
    )
    out = capsys.readouterr().out
    assert out == (
        "Up\n"
        "  same    exactly equal   holds\n"
        "  close   error <= 1e-02  holds\n"
        "  number  error <= 1e-06  holds\n"
    )
    ((data, meta),) = shown
    assert meta["image/png"]["alt"].startswith("Up: the error of each rung")
    assert data["image/png"].startswith("iVBOR")


@pytest.mark.parametrize(
    ("got", "want", "bound", "says"),
    [
        ([1.0], [1.1], 1e-3, "the error is"),
        ([1.0, 1.0], [1.0], 1, r"the shape is \(2,\), but it should be \(1,\)"),
        ([np.nan], [1.0], 1, "the value holds NaN"),
        ([1.0], [np.nan], 1, "the expected value holds NaN"),
        ([np.inf], [np.inf], 1, "NaN or infinity"),
        ([], [], 1, "proves nothing"),
        ([1.0 + 1e-15], [1.0], 0, "more than the bound"),
    ],
)
def test_ladder_names_the_rung_that_fails(shown, capsys, got, want, bound, says):
    with pytest.raises(AssertionError, match=f"rung 'second' fails: .*{says}"):
        ladder("Up", [("first", 1, 1, 0), ("second", got, want, bound)])
    assert "second" in capsys.readouterr().out
    assert "second fails" in shown[0][1]["image/png"]["alt"]


def test_ladder_refuses_nonsense():
    with pytest.raises(ValueError, match="no rungs"):
        ladder("Empty", [])
    for bound in (-1, float("nan")):
        with pytest.raises(ValueError, match="must be 0 or more"):
            ladder("Up", [("rung", 1, 1, bound)])


def test_ladder_error_is_relative_to_the_larger_of_one_and_the_values():
    assert lesson.error([1000.0, 0], [1001.0, 0]) == pytest.approx(1 / 1001)
    assert lesson.error([0.001], [0.002]) == pytest.approx(0.001)


# --- check ------------------------------------------------------------------------


def right(x, scale):
    return x * scale


def toy(**changes):
    def cases(rng):
        yield Case((rng.standard_normal((3, 4)), 2.5), "a matrix")
        yield Case((rng.standard_normal((1, 2)), 0.5), "one row")

    toy_exercise = Exercise(
        id="98.1",
        title="Toy",
        signature="right(x, scale)",
        difficulty="one line",
        minutes=1,
        right=right,
        cases=cases,
        mistakes=(
            Mistake("that divides", gives=lambda x, s: x / s),
            Mistake("that is negative", when=lambda g, w, a: np.allclose(g, -w)),
        ),
        hint="think again",
    )
    return replace(toy_exercise, **changes)


def judged(theirs, monkeypatch, **changes) -> Result:
    module = sys.modules["deepseek_mini.lesson.check"]
    monkeypatch.setattr(module, "find", lambda id: toy(**changes))
    return verdict("98.1", theirs)


def in_place(x, scale):
    x *= scale
    return x


def forgetful(x, scale, seen=[]):  # noqa: B006
    seen.append(0)
    return x * scale * (1 if len(seen) % 2 else 2)


def raises_deep(x, scale):
    return np.linalg.inv(x)


def raises_here(x, scale):
    return {}["no such key"]


def exits(x, scale):
    raise SystemExit(3)


def only_many(x, scale):
    return x * scale if len(x) > 1 else x[0] * scale


VERDICTS = [
    (right, "passed", ""),
    (lambda x, scale: scale * x, "passed", ""),
    (lambda x, scale: x / scale, "not yet", "that divides"),
    (lambda x, scale: -x * scale, "not yet", "that is negative"),
    (lambda x, scale: x * scale + 1e-6, "not yet", "12 of 12 elements differ"),
    (lambda x, scale: x * scale + 1e-6, "not yet", "think again"),
    (lambda x, scale: None, "not yet", "returns nothing: is `return` missing?"),
    (lambda x, scale: ..., "not yet", "the result is an ellipsis"),
    (lambda x, scale: torch.tensor(x) * scale, "not yet", "leave torch out"),
    (lambda x, scale: x[:2] * scale, "not yet", "the shape is (2, 4)"),
    (lambda x, scale: (x * scale).astype("f4"), "not yet", "the dtype is float32"),
    (lambda x, scale: x * np.nan, "not yet", "element [0, 0] is nan"),
    (lambda x, scale: [x * scale], "not yet", "the result is a list"),
    (lambda x: x, "not yet", "your function takes (x), but it is called as right("),
    (in_place, "not yet", "changed its input x in place"),
    (forgetful, "not yet", "second call"),
    (raises_deep, "not yet", "`return np.linalg.inv(x)`"),
    (raises_here, "not yet", "KeyError: 'no such key' (line "),
    (exits, "not yet", "SystemExit: 3"),
    (only_many, "not yet", "but should be (1, 2) (with one row)"),
    (right(np.ones(2), 1), "not yet", "expected the function itself"),
    (None, "not yet", "got None"),
    (lambda x, scale: list(x * scale), "not yet", "a list of rows is no array yet"),
]


@pytest.mark.parametrize(("theirs", "status", "says"), VERDICTS)
def test_verdicts(monkeypatch, theirs, status, says):
    result = judged(theirs, monkeypatch)
    assert result.status == status, str(result)
    assert says in f"{result.reason}\n{result.hint}"
    assert "0x7" not in result.reason


def stub(x, scale):
    raise NotImplementedError("98.1")


def bare_stub(x, scale):
    raise NotImplementedError


def torch_cannot(x, scale):
    return torch.empty(2, device="meta").numpy()


def test_stub_and_torchs_own_not_implemented_differ(monkeypatch):
    assert judged(stub, monkeypatch).status == "not attempted"
    assert judged(bare_stub, monkeypatch).status == "not attempted"

    def lacking(x, scale):
        torch_raises("addmm_impl_cpu_ not implemented for 'Half'")

    def torch_raises(message):
        exec("raise NotImplementedError(message)", {"message": message})

    assert judged(lacking, monkeypatch).status == "not yet"
    assert judged(torch_cannot, monkeypatch).status == "not yet"


def test_the_mistake_that_fits_in_most_cases_gives_the_hint(monkeypatch):
    def cases(rng):
        yield Case((rng.standard_normal(3), 0.0))  # here both mistakes give zeros + 1
        yield Case((rng.standard_normal(3), 2.0))

    mistakes = (
        Mistake("adds after squaring", gives=lambda x, s: x * s * s + 1),
        Mistake("adds", gives=lambda x, s: x * s + 1),
    )
    result = judged(
        lambda x, scale: x * scale + 1, monkeypatch, cases=cases, mistakes=mistakes
    )
    assert result.hint == "adds"


def test_a_judge_of_its_own(monkeypatch):
    def judge(theirs, rng):
        from deepseek_mini.lesson.judge import NotYet, call

        if call(theirs, 2) != 4:
            raise NotYet("2 should give 4", "twice")

    assert judged(lambda n: 2 * n, monkeypatch, judge=judge).status == "passed"
    assert judged(lambda n: n, monkeypatch, judge=judge).hint == "twice"


def test_inputs_may_be_modules_and_lists(monkeypatch):
    def cases(rng):
        yield Case((torch.nn.Linear(2, 2), [torch.ones(2)], {"a": 1}))

    def appends(layer, xs, options):
        xs.append(2)
        return 1

    def right(layer, xs, options):
        return 1

    same = {"cases": cases, "right": right}
    assert judged(lambda layer, xs, options: 1, monkeypatch, **same)
    assert "changed its input xs" in judged(appends, monkeypatch, **same).reason


def test_a_class_is_judged_by_its_judge(monkeypatch):
    from deepseek_mini.lesson.judge import NotYet, call

    class Stub(torch.nn.Module):
        def __init__(self, dim):
            super().__init__()

        def forward(self, x):
            raise NotImplementedError("98.1")

    class Double(Stub):
        def forward(self, x):
            return 2 * x

    def judge(theirs, rng):
        if not torch.equal(call(call(theirs, 3), torch.ones(3)), torch.full((3,), 2.0)):
            raise NotYet("1 should give 2")

    assert judged(Stub, monkeypatch, judge=judge).status == "not attempted"
    assert judged(Double, monkeypatch, judge=judge).status == "passed"
    assert judged(torch.nn.Identity, monkeypatch, judge=judge).status == "not yet"


def test_an_error_says_with_which_inputs_and_has_a_hint(monkeypatch):
    def broadcasts(x, scale):
        return x * np.arange(3)

    def only_a_matrix(x, scale):
        return x * [scale][len(x) == 1]

    result = judged(broadcasts, monkeypatch)
    assert result.reason.endswith("(with a matrix)")
    assert "matched from the right" in result.hint
    result = judged(only_a_matrix, monkeypatch)
    assert result.reason.endswith("(with one row)")
    assert "the inputs were x float64 [1, 2], scale 0.5" in result.hint


def plain_cases(rng):
    yield Case((["a", "b"], {"a": 1}), "a label")
    yield Case((["a" * 200], {"a": 1}), "long ones")


def joined(xs, times):
    return [x * times.get(x, 1) for x in xs]


PLAIN = {"right": joined, "cases": plain_cases, "signature": "joined(xs, times)"}


def test_short_inputs_stand_before_the_difference(monkeypatch):
    def says(theirs):
        return judged(theirs, monkeypatch, **PLAIN, mistakes=()).reason

    assert says(lambda xs, times: ["a"]) == (
        "for xs = ['a', 'b'], times = {'a': 1}: your list is ['a'], but should be "
        "['a', 'b']"
    )
    assert says(lambda xs, times: None).endswith(
        ": your function returns nothing: is `return` missing?"
    )
    assert says(lambda xs, times: xs[9]).startswith(
        "for xs = ['a', 'b'], times = {'a': 1}: IndexError"
    )
    assert says(lambda xs, times: xs if xs == ["a", "b"] else []).endswith(
        "(with long ones)"
    )


def test_a_changed_list_of_texts_is_seen_and_shown_as_it_was(monkeypatch):
    def sorts(xs, times):
        xs.sort(reverse=True)
        return joined(sorted(xs), times)

    reason = judged(sorts, monkeypatch, **PLAIN).reason
    assert reason.startswith("for xs = ['a', 'b']")
    assert reason.endswith("your function changed its input xs in place")


def test_an_exception_has_the_hint_of_the_exercise(monkeypatch):
    mistakes = (Mistake("not there yet", raises="^KeyError: 'no such"),)
    result = judged(raises_here, monkeypatch, mistakes=mistakes)
    assert result.hint == "not there yet"
    other = judged(lambda x, s: {}["other"], monkeypatch, mistakes=mistakes)
    assert other.hint.startswith("the inputs were x float64 [3, 4], s")


def test_describe_shows_what_is_short():
    from deepseek_mini.lesson.explain import describe

    assert describe("words", {("a", "b"): 3}) == "words {('a', 'b'): 3}"
    assert describe("xs", list(range(99))).endswith("...") and describe(
        "xs", list(range(99))
    ).startswith("xs [0, 1, 2")
    assert describe("f", torch.nn.Identity()) == "f, an Identity"


def test_what_an_answer_does_outside_of_a_call_is_a_verdict(monkeypatch):
    from deepseek_mini.lesson.judge import attribute

    class Bad:
        @property
        def length(self):
            return None.shape

        @property
        def later(self):
            raise NotImplementedError("98.1")

    def judge(name):
        return lambda theirs, rng: attribute(theirs(), name)

    raised = judged(Bad, monkeypatch, judge=judge("length"))
    assert raised.reason.startswith("`length` raised AttributeError: 'NoneType'")
    missing = judged(Bad, monkeypatch, judge=judge("width"))
    assert missing.reason == "the new Bad has no `width`"
    assert judged(Bad, monkeypatch, judge=judge("later")).status == "not attempted"
    unforeseen = judged(Bad, monkeypatch, judge=lambda theirs, rng: theirs().length)
    assert unforeseen.status == "not yet" and "NoneType" in unforeseen.reason


def test_an_interrupt_is_one_plain_line(monkeypatch):
    def endless(x, scale):
        print("round")
        raise KeyboardInterrupt

    result = judged(endless, monkeypatch)
    assert result.reason == (
        "it was stopped while your function was running (with a matrix)"
    )
    assert "never ends" in result.hint and result.printed == "round\n"

    def judge(theirs, rng):
        raise KeyboardInterrupt

    assert judged(right, monkeypatch, judge=judge).status == "not yet"


def test_view_of_an_input_that_is_not_contiguous_has_a_hint(monkeypatch):
    def cases(rng):
        yield Case((torch.ones(4, 2).T, 1.0), "a transpose")

    for theirs in (
        lambda x, scale: x.view(-1),
        lambda x, scale: torch.view_as_complex(x[..., None].mT.mT[:, :2, 0]),
    ):
        result = judged(theirs, monkeypatch, cases=cases)
        assert ".contiguous()" in result.hint, str(result)


def test_another_exercise_that_is_empty_is_named(monkeypatch):
    def other_stub():
        raise NotImplementedError("98.2")

    result = judged(lambda x, scale: other_stub(), monkeypatch)
    assert result.status == "not yet"
    assert result.reason.startswith("your answer calls exercise 98.2, which is still")
    assert "do 98.2 first" in result.hint


def test_a_wrong_dtype_or_shape_has_a_hint_that_is_true(monkeypatch):
    result = judged(lambda x, scale: (x * scale).astype("f4"), monkeypatch)
    assert result.hint == "print the dtype of every step: where does float32 come in?"
    result = judged(lambda x, scale: (x * scale).T, monkeypatch)
    assert result.hint == "there are as many numbers as there should be, on other axes"


def test_prints_of_the_case_that_fails_are_shown(monkeypatch):
    def prints(x, scale):
        print("shape", x.shape, end="\n\nlast\n")
        return x * scale + (len(x) == 1)

    def prints_and_fails(x, scale):
        print("here")
        raise ValueError("no")

    result = judged(prints, monkeypatch)
    tail = "\n  your function printed:\n    shape (1, 2)\n    \n    last"
    assert str(result).endswith(tail) and "(3, 4)" not in str(result)
    assert str(judged(prints_and_fails, monkeypatch)).endswith("printed:\n    here")
    long = str(Result("98.1", "not yet", "no", printed="\rx\n" * 99))
    assert long.endswith("\n    ... and 158 more lines")
    assert all(line.startswith("  ") for line in long.splitlines()[1:])


def test_prints_and_warnings_of_a_right_answer_are_not_shown(monkeypatch, capsys):
    def noisy(x, scale):
        print("here")
        return x * scale + 0 * np.log(-np.abs(x)) if scale == 0.1 else x * scale

    assert str(judged(noisy, monkeypatch)) == "98.1: passed"
    assert capsys.readouterr() == ("", "")


def test_check_prints_one_line_and_displays_nothing(capsys):
    def rising(head_dim, theta):
        return theta ** (np.arange(0, head_dim, 2) / head_dim)

    result = check("03.1", rising)
    out = capsys.readouterr().out
    assert out == f"{result}\n"
    assert out.startswith("03.1: not yet - for head_dim = 8, theta = ")
    assert ": element [1] is " in out
    assert "\n  hint: these frequencies rise" in out
    assert not result and result.id == "03.1"
    assert result._ipython_display_() is None
    assert Result("03.1", "passed")
    assert str(Result("03.1", "passed")) == "03.1: passed"
    assert not Result("03.1", "not attempted")


def test_check_leaves_the_global_generators_alone():
    def draws(theirs):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        verdict("03.2", theirs)
        return random.random(), np.random.rand(), float(torch.rand(()))

    def drawing(x, positions, theta):
        return x + random.random() + np.random.rand() + float(torch.rand(()))

    assert draws(drawing) == draws(stub)


def test_unknown_ids_are_listed():
    with pytest.raises(ValueError, match=r"'03\.9'; those of lesson 03 are 03\.1, 03"):
        check("03.9", right)
    for id in ("98.1", "rope", 3.1, None):
        with pytest.raises(ValueError, match=r"an id looks like '03\.2'"):
            find(id)


@pytest.mark.parametrize(
    ("got", "want", "says"),
    [
        ((1, 2), (1, 2), None),
        ([1, 2], (1, 2), None),
        ((1, 3), (1, 2), "your tuple is (1, 3), but should be (1, 2)"),
        ((1.0, 3.0), (1.0, 2.0), "output 1: it is 3, but should be 2"),
        ((1.0,), (1.0, 2.0), "your function returns 1 value, but should return 2"),
        ([1.0], [1.0, 2.0], "your list has 1 entry, but should have 2"),
        (["a"] * 99, ["b"] * 98, "has 99 entries, but should have 98; entry 0 is 'a'"),
        (1, (1, 2), "the result is a number, but should be a tuple of 2"),
        (zip(), [1], "the result is a zip, but should be a list"),
        (None, [1], "the result is None, but should be a list"),
        ([["a"]], [["b"]], "your list is [['a']], but should be [['b']]"),
        ({"a": 1}, {"a": 1.0}, None),
        ({"b": 1}, {"a": 1}, "lacks 'a' and has 'b', which"),
        ({(1, 2): 1}, {(1, 2): 1, (3, 4): 2}, "your dictionary lacks (3, 4)"),
        (None, {}, "the result is None, but should be a dictionary"),
        ([], {}, "the result is a list, but should be a dictionary"),
        (dict.fromkeys("bcdefg"), {}, "has 'b', 'c', 'd', 'e' and 2 more, which"),
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}, None),
        ({"a": 2}, {"a": 1}, "entry 'a'"),
        ("abc", "abc", None),
        ("a\xad", "aŃ", "character 1 is '\\xad', chr(173), but should be 'Ń', chr(3"),
        ("ab" * 99, "ac" * 99, "your text differs; character 1 is 'b', chr(98)"),
        ("ab" * 99, "ab" * 98, "differs in length: 198 characters, but should be 196"),
        (3, "abc", "the result is a number, but should be a text"),
        (True, 1, None),
        (np.float32(1), 1.0, None),
        (torch.tensor([1, 2]), torch.tensor([1, 2], dtype=torch.int32), None),
        (torch.tensor([1.0, 2]), torch.tensor([1, 2]), "the dtype is float32"),
        (torch.tensor([True]), torch.tensor([1]), "the dtype is bool"),
        (torch.ones(2).bfloat16(), torch.ones(2), "the dtype is bfloat16"),
        (torch.ones(2) * 1j, torch.ones(2) * 1j, None),
        (torch.tensor([-torch.inf, 1]), torch.tensor([-torch.inf, 1]), None),
        (torch.tensor([0.0, 1]), torch.tensor([-torch.inf, 1]), "element [0] is 0"),
        (torch.ones(2, requires_grad=True), torch.ones(2), None),
        (np.zeros((0, 3)), np.zeros((0, 3)), None),
        (1.00000001, 1.00000002, "is 1.00000001, but should be 1.00000002"),
    ],
)
def test_difference(got, want, says):
    diff = difference(got, want)
    if says is None:
        assert diff is None, diff
    else:
        assert says in diff.reason


def test_judge_sees_inputs_that_are_not_contiguous():
    from deepseek_mini.lesson.oracles import array, tensor

    rng = np.random.default_rng(0)
    assert not array(rng, 3, 4, strided=True).flags["C_CONTIGUOUS"]
    assert array(rng, 3, 4, strided=True).shape == (3, 4)
    for dtype in (torch.float64, torch.bfloat16):
        odd = tensor(rng, 2, 3, 4, dtype=dtype, strided=True)
        assert odd.shape == (2, 3, 4) and not odd.is_contiguous()
    with pytest.raises(Exception, match="view size is not compatible"):
        judge_exercise(
            toy(
                right=lambda x, s: x.reshape(-1),
                cases=lambda rng: [Case((tensor(rng, 3, 4, strided=True), 1.0))],
            ),
            lambda x, s: x.view(-1),
            rng,
        )


# --- progress ---------------------------------------------------------------------


def test_progress_is_off_in_tests(monkeypatch):
    assert progress_file.location() is None
    progress_file.record("03.1")
    monkeypatch.delenv("DEEPSEEK_MINI_PROGRESS", raising=False)
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "x")
    assert progress_file.location() is None


@pytest.fixture
def learner(monkeypatch, tmp_path):
    """A learner's machine: no test, no CI, an own cache folder."""
    for name in ("DEEPSEEK_MINI_PROGRESS", "CI", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(progress_file, "_in_tests_or_ci", lambda: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_progress_is_kept_in_work_or_in_the_cache(learner, monkeypatch):
    assert progress_file.location() == learner / "cache/deepseek_mini/progress.json"
    (learner / "work").mkdir()
    assert progress_file.location().parent.name == "deepseek_mini"
    (learner / "exercises").mkdir()
    assert progress_file.location() == learner / "work/.progress.json"
    monkeypatch.chdir(learner / "work")
    assert progress_file.location() == learner / "work/.progress.json"
    monkeypatch.setenv("DEEPSEEK_MINI_PROGRESS", str(learner / "mine.json"))
    assert progress_file.location() == learner / "mine.json"
    monkeypatch.setenv("DEEPSEEK_MINI_PROGRESS", "off")
    assert progress_file.location() is None


def test_passing_is_remembered_and_shown(learner, shown, capsys):
    def answer(head_dim, theta):
        return theta ** (-np.arange(0, head_dim, 2) / head_dim)

    check("03.1", answer)
    check("03.2", stub)
    path = learner / "cache/deepseek_mini/progress.json"
    assert list(json.loads(path.read_text())["passed"]) == ["03.1"]
    assert [p.name for p in path.parent.iterdir()] == ["progress.json"]
    lesson.progress()
    data, _ = shown[-1]
    assert "| 03_rope | 1 of 5 | 03.2, 03.3, 03.4, 03.5 |" in data["text/markdown"]
    assert "03_rope: 1 of 5 passed" in data["text/plain"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"passed": 3}', b"\xff"])
def test_a_broken_progress_file_counts_as_empty(learner, content):
    path = progress_file.location()
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert progress_file.read() == {}
    progress_file.record("03.1")
    assert list(progress_file.read()) == ["03.1"]


def test_progress_that_cannot_be_written_is_left_out(learner, monkeypatch, capsys):
    (learner / "file").write_text("not a folder")
    monkeypatch.setenv("DEEPSEEK_MINI_PROGRESS", str(learner / "file" / "p.json"))
    progress_file.record("03.1")
    assert progress_file.read() == {}

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("DEEPSEEK_MINI_PROGRESS", str(learner / "p.json"))
    monkeypatch.setattr(progress_file.os, "replace", full)
    progress_file.record("03.1")
    assert {p.name for p in learner.iterdir()} == {"file"}
    assert capsys.readouterr() == ("", "")


# --- plots ------------------------------------------------------------------------


def test_figure_shows_png_with_alternative_text(shown):
    with lesson.figure("A rising\n  line & more.") as fig:
        ax = fig.subplots()
        ax.plot([0, 1], [0, 1], label="up")
        ax.plot([0, 1], [0, 1.01], label="also up")
        lesson.label_lines(ax)
    (picture, meta), (words, _) = shown
    assert meta == {"image/png": {"alt": "A rising line & more."}}
    assert picture["text/plain"] == "[figure: A rising line & more.]"
    assert "A rising line &amp; more.</details>" in words["text/html"]
    heights = sorted(t.xy[1] for t in ax.texts)
    assert heights[1] - heights[0] > 0.05


def test_figures_need_alternative_text_and_survive_errors(shown):
    with pytest.raises(ValueError, match="alt is empty"), lesson.figure(" "):
        pass
    with pytest.raises(KeyError), lesson.figure("A line."):
        raise KeyError
    assert shown == []


def test_png_is_the_same_each_time_and_without_setup(shown, state):
    for _ in range(2):
        with lesson.figure("A line.") as fig:
            fig.subplots().plot([1, 2])
        setup()
    first, second = (data["image/png"] for data, _ in shown[::2])
    assert first == second
    assert b"Software" not in base64.b64decode(first)


def test_show_figure_closes_what_pyplot_opened(shown):
    import matplotlib.pyplot as plt

    fig, _ = plt.subplots()
    lesson.show_figure(fig, "Axes without a line.")
    assert not plt.fignum_exists(fig.number)


def test_palette_differs_for_colour_blind_eyes_and_in_grey():
    """Neighbours in the palette stay apart in grey, or differ in their line style."""
    from deepseek_mini.lesson.plots import DASHES, PALETTE

    assert len(set(PALETTE)) == len(PALETTE) == len(DASHES) == len(set(DASHES))


def test_plain_python_prints_the_words(capsys):
    with lesson.figure("A line."):
        pass
    assert capsys.readouterr().out == "[figure: A line.]\n"


# --- widgets ----------------------------------------------------------------------


def draw(fig, m, kind):
    if m == 13:
        raise RuntimeError("no <13>")
    fig.subplots().plot([0, m])
    return f"{m} < 99, {kind}"


def live(**changes):
    controls = {
        "m": lesson.Slider(0, 20, start=3, label="position m"),
        "kind": lesson.Choice(["plain", "yarn"]),
        **changes,
    }
    return lesson.slider_figure(draw, alt="To {m:03d}, {kind}, {x}.", **controls)


def test_slider_figure_follows_its_sliders(shown):
    made = live()
    ((data, _),) = shown
    assert data["text/plain"] == "[sliders m, kind: To 003, plain, {x}.]"
    assert "application/vnd.jupyter.widget-view+json" in data
    before = made.view.value
    assert 'alt="To 003, plain, {x}."' in before and "<p>3 &lt; 99, plain</p>" in before
    made.controls["m"].value = 7
    assert 'alt="To 007, plain, {x}."' in made.view.value
    assert made.view.value.split('"')[1] != before.split('"')[1]
    made.controls["kind"].value = "yarn"
    assert "7 &lt; 99, yarn" in made.view.value
    made.controls["m"].value = 13
    assert made.view.value == "<pre>RuntimeError: no &lt;13&gt;</pre>"
    assert made.controls["m"].continuous_update is False
    assert made._ipython_display_() is None


def test_slider_kinds(shown):
    made = lesson.slider_html(
        lambda n, x: f"{n} {x}",
        alt="Numbers.",
        n=lesson.Slider(1, 5, start=2),
        x=lesson.Slider(0.0, 1.0, start=0.5, step=0.25),
    )
    assert type(made.controls["n"]).__name__ == "IntSlider"
    assert type(made.controls["x"]).__name__ == "FloatSlider"
    assert made.view.value == "2 0.5"


def test_widgets_say_what_is_wrong(shown):
    with pytest.raises(ValueError, match="start is 9, but it must be from 0 to 5"):
        lesson.Slider(0, 5, start=9)
    with pytest.raises(ValueError, match="start is 'c', but it must be one of"):
        lesson.Choice(["a", "b"], start="c")
    with pytest.raises(RuntimeError, match="no <13>"):
        live(m=lesson.Slider(0, 20, start=13))
    with pytest.raises(ValueError, match="alt is empty"):
        lesson.slider_html(str, alt="", n=lesson.Slider(0, 1, start=0))
    with pytest.raises(ValueError, match="at least one Slider"):
        lesson.slider_html(str, alt="A number.")
    assert shown == []


def test_settings_figure_draws_the_same_function(shown):
    settings = {"few": {"m": 1, "kind": "a"}, "many": {"m": 9, "kind": "b"}}
    lesson.settings_figure(draw, settings, alt="Two lines.")
    lesson.settings_figure(draw, list(settings.values()), alt="Two lines.")
    assert [meta["image/png"]["alt"] for _, meta in shown[::2]] == ["Two lines."] * 2


# --- GPU sections -----------------------------------------------------------------


def test_gpu_section_without_a_record(capsys):
    lesson.gpu_section("rmsnorm")
    assert "No result of the kernel 'rmsnorm' has been recorded" in (
        capsys.readouterr().out
    )
    with pytest.raises(ValueError, match="must be a kernel's name"):
        lesson.gpu_section("../secret")


def test_gpu_section_recorded_live_and_failing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "_RECORDED", tmp_path)
    record = {"hardware": "H100", "date": "2026-11-21", "text": "2.0 times\n"}
    (tmp_path / "rmsnorm.json").write_text(json.dumps(record))
    lesson.gpu_section("rmsnorm")
    recorded = "Recorded on H100, 2026-11-21:\n2.0 times\n"
    assert capsys.readouterr().out == recorded

    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu.torch.cuda, "get_device_name", lambda: "T4")
    monkeypatch.setattr(gpu, "_has_kernel", lambda name: True)
    run = SimpleNamespace(returncode=0, stdout="3.0 times\n", stderr="")
    monkeypatch.setattr(gpu.subprocess, "run", lambda *a, **k: run)
    lesson.gpu_section("rmsnorm")
    assert capsys.readouterr().out == "Live on T4:\n3.0 times\n"
    run.returncode, run.stderr = 1, "Traceback\nRuntimeError: no memory\n"
    lesson.gpu_section("rmsnorm")
    out = capsys.readouterr().out
    assert out.startswith("The live run failed (RuntimeError: no memory).")
    assert out.endswith(recorded)


def test_interpreted_section_runs_the_kernel_or_says_why_not(monkeypatch, capsys):
    with pytest.raises(ValueError, match="must be a kernel's name"):
        lesson.interpreted_section("../secret")
    if importlib.util.find_spec("triton"):
        lesson.interpreted_section("rmsnorm")
        out = capsys.readouterr().out
        assert out.startswith("Interpreted on a CPU, at small sizes:\n")
        assert out.count(": ok\n") == 2 and "WRONG" not in out
        with pytest.raises(RuntimeError, match="No module named"):
            lesson.interpreted_section("no_such_kernel")
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    lesson.interpreted_section("rmsnorm")
    assert capsys.readouterr().out.startswith("Kernels are not interpreted here")


def test_display_publishes_only_in_ipython(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    display.publish({"text/plain": "words", "image/png": "..."})
    assert stream.getvalue() == "words\n"


# --- None that is meant, and inputs with NaN --------------------------------------


def last_above(values, least):
    return values[-1] if values[-1] > least else None


def none_for_a_single_value(values, least):
    return last_above(values, least) if len(values) > 1 else None


@pytest.mark.parametrize(
    ("theirs", "reason", "hint"),
    [
        (
            none_for_a_single_value,
            "for values = [3], least = 1: the result is None, but should be 3",
            "one value is enough",
        ),
        (
            lambda values, least: None if least > 1 else values[-1],
            "for values = [1, 7], least = 2: the result is None, but should be 7",
            "look again",
        ),
        (
            lambda values, least: None,
            "for values = [1, 7], least = 2: your function returns nothing",
            "",
        ),
    ],
)
def test_a_none_that_is_meant_is_not_a_missing_return(
    monkeypatch, theirs, reason, hint
):
    def cases(rng):
        yield Case(([1, 7], 2))
        yield Case(([1, 2], 2))  # None
        yield Case(([3], 1))

    result = judged(
        theirs,
        monkeypatch,
        signature="last_above(values, least)",
        right=last_above,
        cases=cases,
        mistakes=(Mistake("one value is enough", gives=none_for_a_single_value),),
        hint="look again",
    )
    assert result.status == "not yet"
    assert result.reason.startswith(reason)
    assert result.hint == hint


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda x: None, "passed"),
        (lambda x: x.__setitem__(0, 3.0), "not yet"),  # was NaN
        (lambda x: x.__setitem__(1, float("nan")), "not yet"),
    ],
)
def test_a_nan_among_the_inputs_is_no_change(monkeypatch, kind, change, status):
    def theirs(x, scale):
        total = float(x[2]) * scale
        change(x)
        return total

    result = judged(
        theirs,
        monkeypatch,
        right=lambda x, scale: float(x[2]) * scale,
        cases=lambda rng: [Case((kind([float("nan"), 1.0, 2.0]), 0.5))],
    )
    assert result.status == status, str(result)
    assert status == "passed" or "changed its input x in place" in result.reason


def test_a_change_of_eight_bit_numbers_is_seen(monkeypatch):
    def theirs(x, scale):
        x[0] = 2.0
        return scale

    codes = torch.ones(3).to(torch.float8_e4m3fn)
    result = judged(
        theirs,
        monkeypatch,
        right=lambda x, scale: scale,
        cases=lambda rng: [Case((codes, 0.5))],
    )
    assert "changed its input x in place" in result.reason
