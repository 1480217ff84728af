"""Every choice in a row of its expert's tiles, in order, and nothing else there."""

from __future__ import annotations

import pytest
import torch

from deepseek_mini.kernels.case import difference
from deepseek_mini.kernels.cases.expert_sort import cases, random_choices
from deepseek_mini.kernels.expert_sort import expert_sort, most_tiles, reference


def by_the_rule(ids, n_experts, tile_rows):
    """order and tile_expert, in Python, without what is not used at the end."""
    order, tile_expert = [], []
    flat = ids.flatten().tolist()
    for e in range(n_experts):
        rows = [choice for choice, expert in enumerate(flat) if expert == e]
        while rows:
            tile, rows = rows[:tile_rows], rows[tile_rows:]
            order += tile + [-1] * (tile_rows - len(tile))
            tile_expert.append(e)
    return order, tile_expert


def check(ids, n_experts, tile_rows):
    plan = expert_sort(ids, n_experts, tile_rows)
    order, tile_expert = by_the_rule(ids, n_experts, tile_rows)
    spare = len(plan.tile_expert) - len(tile_expert)
    assert spare >= 0 and len(plan.order) == len(plan.tile_expert) * tile_rows
    assert plan.order.tolist() == order + [-1] * (spare * tile_rows)
    assert plan.tile_expert.tolist() == tile_expert + [-1] * spare
    load = ids.flatten().bincount(minlength=n_experts)
    assert torch.equal(plan.load.long(), load)
    wanted = reference(ids, n_experts, tile_rows)
    for name in ("order", "tile_expert", "load"):
        assert difference(getattr(plan, name), getattr(wanted, name)) == 0
    return spare


@pytest.mark.parametrize("tile_rows", [16, 64])
@pytest.mark.parametrize("size", [(41, 8, 40), (1, 8, 256), (50, 6, 33), (7, 3, 5)])
def test_places(size, tile_rows):
    """From one block of choices to ten, so that sums over blocks take several steps."""
    n_tokens, k, n_experts = size
    check(random_choices(n_tokens, n_experts, k, "cpu"), n_experts, tile_rows)


def test_all_tokens_to_one_expert_and_none_to_the_others():
    for expert in (0, 3, 6):
        check(torch.full((130, 1), expert, dtype=torch.int32), 7, 16)
    check(torch.zeros(16, 1, dtype=torch.int32), 1, 16)


def test_full_tiles_leave_nothing_empty():
    ids = torch.arange(4, dtype=torch.int32).repeat(16)[:, None]  # 16 for each of 4
    plan = expert_sort(ids, 4, 16)
    assert (plan.order[:64] >= 0).all() and (plan.order[64:] == -1).all()
    assert plan.order[:16].tolist() == [*range(0, 64, 4)]  # the order of the tokens


def test_the_number_of_tiles_is_enough_and_can_be_needed():
    """The worst: one row too many in every expert's last tile."""
    loads = [17, 33, 1, 1]
    ids = torch.repeat_interleave(torch.arange(4), torch.tensor(loads)).int()[:, None]
    assert check(ids[torch.randperm(52)], 4, 16) == 0
    assert most_tiles(8, 256, 128) == 8  # one token: a tile for each of its experts


def test_no_tokens():
    plan = expert_sort(torch.empty(0, 8, dtype=torch.int32), 9, 16)
    assert len(plan.order) == len(plan.tile_expert) == 0
    assert plan.load.tolist() == [0] * 9


def test_what_is_refused():
    ids = random_choices(4, 8, 2, "cpu")
    with pytest.raises(ValueError, match="must be torch"):
        expert_sort(ids.long(), 8, 16)
    with pytest.raises(ValueError, match="ids has strides"):
        expert_sort(ids[:, :1], 8, 16)


@pytest.mark.parametrize("case", cases("cpu", small=True), ids=lambda case: case.name)
def test_cases_are_within_their_bounds(case):
    given = case.make()
    assert case.error(given) <= case.bound
    plan = case.kernel(*given)
    plan.order[0] += 1
    assert difference(plan.order, case.reference(*given).order) > case.bound
