"""Cases and tiles: what is compared how, and what is said when it is wrong."""

from __future__ import annotations

import pytest
import torch

from deepseek_mini.kernels import launch
from deepseek_mini.kernels.case import Case, demonstrate, difference
from deepseek_mini.kernels.launch import contiguous, pick, tile_for

NAN, INF = float("nan"), float("inf")


def test_difference_is_relative_to_the_largest():
    b = torch.tensor([1.0, -10.0])
    assert difference(b + 0.5, b) == pytest.approx(0.05)
    assert difference(b / 100 + 0.5, b / 100) == pytest.approx(0.5)


def test_difference_of_what_cannot_be_compared_is_infinite():
    b = torch.tensor([1.0, NAN])
    assert difference(b, b) == 0
    assert difference(torch.tensor([NAN, 1.0]), b) == INF
    assert difference(torch.ones(3), torch.ones(2)) == INF
    assert difference(torch.ones(2), torch.ones(2).bfloat16()) == INF
    assert difference(torch.tensor([INF, 1.0]), torch.ones(2)) > 1e30


def test_bytes_and_integers_must_be_equal():
    b = torch.arange(6)
    assert difference(b, b) == 0 and difference(b + 1, b) >= 1
    x = torch.randn(8).to(torch.float8_e4m3fn)
    assert difference(x, x) == 0
    assert difference(x, x.view(torch.uint8).bitwise_xor(1).view(x.dtype)) == 8


def case(kernel, reference=torch.neg, **changes) -> Case:
    x = torch.arange(4.0)
    return Case("x", lambda: (x.clone(),), kernel, reference, 1e-3, 8, **changes)


def test_functions_in_place_do_not_see_each_other():
    """Else a kernel that does nothing would equal a reference that undoes itself."""
    inputs = (torch.arange(4.0),)
    assert case(torch.Tensor.neg_, torch.Tensor.neg_, in_place=True).error(inputs) == 0
    nothing = case(lambda x: x, torch.Tensor.neg_, in_place=True)
    assert nothing.error(inputs) == 2
    assert inputs[0].tolist() == [0, 1, 2, 3]


def test_outputs_are_compared_as_the_case_says():
    halved = case(lambda x: -x / 2, compare=torch.sign)
    assert halved.error(halved.make()) == 0


def test_all_outputs_count():
    two = case(lambda x: (-x, x + 1), lambda x: (-x, x))
    assert two.error(two.make()) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="argument 2 is longer"):
        fewer = case(lambda x: (-x,), lambda x: (-x, x))
        fewer.error(fewer.make())


def test_a_demonstration_says_ok_without_digits_and_fails_with_them(capsys):
    with pytest.raises(SystemExit) as ended:
        demonstrate(lambda device, small: [case(torch.neg)])
    assert ended.value.code == 0
    assert capsys.readouterr().out.endswith("x\n  error at most 1.0e-03: ok\n")
    with pytest.raises(SystemExit) as ended:
        demonstrate(lambda device, small: [case(torch.neg), case(torch.abs)])
    assert ended.value.code == 1
    assert "error 2.0e+00: WRONG, over 1.0e-03" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        demonstrate(lambda device, small: [case(lambda x: x * NAN)])
    assert ended.value.code == 1


def test_tiles(monkeypatch):
    tiles = {80: {"B": 1}, 90: {"B": 2}}
    assert [tile_for(tiles, a)["B"] for a in (80, 89, 90, 100)] == [1, 1, 2, 2]
    with pytest.raises(ValueError, match="sm_75, but the kernel needs sm_80"):
        tile_for(tiles, 75)
    assert pick(tiles, torch.ones(1)) == {"B": 2}
    assert pick({**tiles, 0: {"B": 3}}, torch.ones(1)) == {"B": 3}
    with pytest.raises(ValueError, match="needs sm_80"):
        tile_for({**tiles, 0: {"B": 3}}, 75)
    monkeypatch.setattr(launch, "INTERPRETED", False)
    with pytest.raises(ValueError, match="the tensor is on 'cpu', but kernels run on"):
        pick(tiles, torch.ones(1))


def test_a_tensor_that_is_not_contiguous_is_named():
    contiguous(a=torch.ones(2, 3))
    with pytest.raises(ValueError, match="b has strides"):
        contiguous(a=torch.ones(2, 3), b=torch.ones(2, 3).T)
