"""A whole layer by the kernels is the model's block, row by row and piece by piece."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace

import pytest
import torch
from helpers import error, randomise, small_config
from torch import nn

from deepseek_mini.config import MLA as Part
from deepseek_mini.config import MoE, Rope, Yarn
from deepseek_mini.count import count
from deepseek_mini.kernels.case import difference
from deepseek_mini.kernels.cases.decoder_layer import cases, profiles
from deepseek_mini.kernels.decoder_layer import decoder_layer
from deepseek_mini.kernels.layer_steps import bytes_of_layer, steps
from deepseek_mini.kernels.moe_layer import Fp8Experts
from deepseek_mini.kernels.profile import RATES, Step, profile, table
from deepseek_mini.model.cache import KVCache
from deepseek_mini.model.moe import recording
from deepseek_mini.model.rope import rope_table
from deepseek_mini.model.transformer import Block
from deepseek_mini.presets import V3

ROPE = Rope(scaling=Yarn(40, 16, mscale=1.0, mscale_all_dim=1.0))  # as V3's
RULES = {
    "V3": MoE(16, 1, 3, 24, "sigmoid", True, 4, 2, norm_topk=True, route_scale=2.5),
    "V2": MoE(16, 2, 3, 24, n_groups=4, n_limited_groups=2, route_scale=4.0),
    "dense": None,
}
PART = Part(3, 18, 32, 16, 16, 16)
ROOM, PROMPTS, PIECES = 24, (17, 1, 9), (1, 3, 2)


def block_of(rules: str) -> Block:
    """Random weights everywhere; what experts find is as large as the stream."""
    config = small_config(attention=PART, rope=ROPE, moe=RULES[rules], dim=48)
    block = randomise(Block(config, 0, sparse=RULES[rules] is not None)).eval()
    for name, parameter in block.named_parameters():
        if "experts" in name or "shared" in name:
            parameter.data *= 2
    return block.requires_grad_(False)


def by_the_block(block, x):
    """The model's block with its own cache, row by row, in float64: each row's prompt,
    then the pieces; and how the experts were chosen.
    """
    block, outs = copy.deepcopy(block).double(), []
    config = small_config(attention=PART, n_layers=1)
    with recording() as routings:
        for row, n_prompt in zip(x.double().split(1), PROMPTS, strict=True):
            cache, start = KVCache(config, 1, ROOM, torch.float64), 0
            for n in (n_prompt, *PIECES):
                places = torch.arange(start, start + n)
                cos, sin = rope_table(ROPE, 16, places, torch.float64)
                outs.append(block(row[:, start : start + n], cos, sin, None, cache))
                start = cache.length = start + n
    return outs, routings


def by_the_kernels(block, branch, stream):
    """As `by_the_block`: prompts one by one, all keys expanded; then the rows of uneven
    length together, by either way, in a cache full of NaN.
    """
    rows = torch.arange(len(PROMPTS))
    cache = torch.full((len(rows), ROOM, 48), torch.nan, dtype=stream.dtype)
    outs = [[] for _ in rows]

    def step(rows, before, n, absorb):
        room = ROOM if len(rows) > 1 else n
        places = before[:, None] + torch.arange(n)  # [B, T]
        at = rows[:, None], places
        turns = rope_table(ROPE, 16, places.ravel())
        turns = (turn.view(*places.shape, -1) for turn in turns)
        parts = cache[rows[0] : rows[-1] + 1, :room].split((32, 16), -1)
        made = decoder_layer(
            block, branch[at], stream[at], *turns, *parts, before, absorb=absorb
        )
        for b, out in zip(rows, (made[0] + made[1]).split(1)):
            outs[b].append(out)

    for b, n in enumerate(PROMPTS):
        step(rows[b : b + 1], torch.zeros(1, dtype=torch.int32), n, False)
    before = torch.tensor(PROMPTS, dtype=torch.int32)
    for n, absorb in zip(PIECES, (True, True, False), strict=True):
        step(rows, before, n, absorb)
        before = before + n
    assert cache[:, -1].isnan().any()  # what was never written stays unread
    return [out for row in outs for out in row]


def decided(block, routings) -> float:
    """The least distance between what was chosen and what was not, of experts and of
    groups: rounding must not decide, or tokens go elsewhere.
    """
    part, bias, least = block.ffn.gate.part, block.ffn.gate.bias, []
    for routing in routings:
        ranked = routing.scores + (0 if bias is None else bias)
        groups = ranked.unflatten(1, (part.n_groups, -1))
        worth = groups.topk(2 if part.bias else 1).values.sum(-1)  # [N, G]
        best = worth.sort(1, descending=True).values
        n = part.n_limited_groups
        least.append(best[:, n - 1] - best[:, n])
        shut = (worth < best[:, n - 1 : n])[..., None]
        ranked = groups.masked_fill(shut, -torch.inf).flatten(1)
        ranked, k = ranked.sort(1, descending=True).values, part.n_activated_experts
        least.append(ranked[:, k - 1] - ranked[:, k])
    return float(torch.cat(least).min())


def inputs(dtype, seed=0):
    torch.manual_seed(seed)
    branch, stream = torch.randn(2, len(PROMPTS), ROOM, 48).to(dtype)
    return branch, stream, branch + stream


# Seeds for which no token's experts are nearly a tie.
@pytest.mark.parametrize("rules, seed", [("V3", 38), ("V2", 87), ("dense", 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_prompts_then_pieces_beside_the_block(rules, seed, dtype):
    block = block_of(rules).to(dtype)
    branch, stream, x = inputs(dtype, seed)
    wanted, routings = by_the_block(block, x)
    if rules != "dense":
        assert decided(block, routings) > 1e-3
    outs = by_the_kernels(block, branch, stream)
    # float32: sums in another order. bf16: the stream is rounded three times, by 2^-9
    # of itself each; what goes through norm, attention and experts is rounded five
    # times on its way, by 2^-9 each, and what comes out is as large as the stream.
    bound = 1e-5 if dtype == torch.float32 else 2**-6
    assert all(error(a, b) < bound for a, b in zip(outs, wanted, strict=True))


CASES = {case.name: case for case in cases("cpu", small=True)}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_cases_are_within_their_bounds(case):
    given = case.make()
    assert case.error(given) <= case.bound
    for peer in case.peers.values():
        run = peer(*given)
        assert case.error(given, lambda *_, run=run: run()) <= case.bound


def swapped(path, module):
    """The same inputs, but another module or number in the block."""

    def mistake(block, *rest):
        block = copy.deepcopy(block)
        parent, _, name = path.rpartition(".")
        setattr(block.get_submodule(parent), name, module(block))
        return block, *rest

    return mistake


MISTAKES = {  # name: the inputs, such that the right layer makes of them what it would
    "the branch is not added": lambda b, *x: (b, 0 * x[0], *x[1:]),
    "the first norm's weight twice": swapped("ffn_norm", lambda b: b.attn_norm),
    "no second norm": swapped("ffn_norm", lambda b: nn.Identity()),
    "no norm of the latent": swapped("attn.kv_norm", lambda b: nn.Identity()),
    "no shared expert": swapped("ffn.shared", lambda b: None),
    "the scale of a head without RoPE": swapped("attn.scale", lambda b: 16**-0.5),
    "all rows of equal length": lambda b, *x: (b, *x[:6], x[6] * 0 + x[6].max()),
    "the turn goes the other way": lambda b, *x: (b, *x[:3], -x[3], *x[4:]),
}


def test_the_bounds_would_notice():
    """The kernels' result beside what wrong layers find, on the case of uneven rows."""
    case = next(case for name, case in CASES.items() if "decode:" in name)
    given = case.make()
    out = case.kernel(*given)
    kept = [part.clone() for part in given[5:7]]
    for name, mistake in MISTAKES.items():
        wrong = mistake(*given[:5], *(part.clone() for part in kept), *given[7:])
        found = case.reference(*wrong)
        assert max(map(difference, out, found)) > case.bound, name
    assert max(map(difference, out, case.reference(*given))) <= case.bound


def test_what_is_refused():
    block = block_of("dense")
    tokens, table = torch.zeros(1, 1, 48), torch.ones(1, 1, 8)
    parts = torch.zeros(1, 4, 32), torch.zeros(1, 4, 16)
    rest = tokens, tokens, table, table, *parts, torch.zeros(1, dtype=torch.int32)
    experts = Fp8Experts(*(torch.zeros(1, 1, 1),) * 4)
    with pytest.raises(ValueError, match="this block is dense"):
        decoder_layer(block, *rest, experts, absorb=True)
    block.attn.layout = "half_split"
    with pytest.raises(ValueError, match="the layout of RoPE is 'half_split'"):
        decoder_layer(block, *rest, absorb=True)


def test_the_steps_add_up():
    """To what `count` says that one layer more needs."""
    one, two = (count(replace(V3, n_layers=n), seq_len=4096) for n in (61, 62))
    work = steps(None, V3, 128, 1, 128 * 4096, False)
    per_token = two.flops_per_token - one.flops_per_token
    assert sum(step.flops for step in work) == 128 * per_token
    vectors = 2 * 7168 + 1536 + 512 + 256  # norms, and the gate's bias
    matrices = two.parameters - one.parameters - vectors
    stream, cache = 4 * 5000 * 7168, 5000 * 576
    # 5000 tokens of one text meet all experts, and read nothing from a cache.
    moved = bytes_of_layer(V3, 1, 5000, 5000, False)
    assert moved == 2 * (matrices + stream + cache)
    experts = 3 * 256 * 7168 * 2048
    assert bytes_of_layer(V3, 1, 5000, 5000, True) == moved - experts
    more = bytes_of_layer(V3, 5000, 1, 9000, False) - moved
    assert more == 2 * 9000 * 576
    # What lesson 14 says.
    jobs = (
        (1, 4096, 4096, False),
        (128, 1, 128 * 4096, False),
        (128, 1, 128 * 4096, True),
    )
    floors = [sum(s.floor(RATES) for s in steps(None, V3, *job)) for job in jobs]
    assert [round(floor, 1) for floor in floors] == [11.4, 7.8, 4.1]
    # Steps hand things to each other: they move more than a layer must.
    assert sum(step.moved for step in steps(None, V3, 1, 5000, 5000, False)) > moved


def test_a_profile_tells_where_time_goes():
    text = profiles("cpu", small=True)
    assert text.count("100%") == 3 and "attention to latents" in text
    assert "experts in fp8" in text and "rounding to fp8" in text


def test_a_profile_adds_up_and_leaves_nothing_behind(monkeypatch):
    clock = [0.0]  # seconds
    module = sys.modules[Step.__module__]
    monkeypatch.setattr(module, "_now", lambda _cuda: clock[0])

    class Work:
        def part(self):
            clock[0] += 2.0

        def whole(self):
            self.part()
            clock[0] += 1.0
            self.part()

    work = Work()
    part, rest = Step("part", ((work, "part"),), 10**9, 10**12), Step("rest", (), 0)
    taken = profile(work.whole, [part, rest], "cpu", repeats=3)
    assert taken == [4000.0, 1000.0, 5000.0]
    assert "part" not in vars(work)
    assert part.floor({"copy": 2.0, "bf16": 500.0}) == 2.0  # ms, of operations
    told = table([part, rest], [4.0, 1.0, 5.0], {"copy": 2.0, "bf16": 500.0})
    assert told.splitlines()[1].split() == ["part", "4.000", "80%", "2.000", "50%"]
    assert told.splitlines()[3].split() == ["all", "5.000", "100%", "2.000", "40%"]
    with pytest.raises(ValueError, match="nothing of the step 'part' was called"):
        profile(lambda: None, [part], "cpu")
