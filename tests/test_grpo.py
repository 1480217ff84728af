"""GRPO against TRL, against float64 by hand, and against its usual mistakes."""

import importlib.util
import math
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers import error
from torch import Tensor

from deepseek_mini.posttraining.grpo import (
    Objective,
    group_advantages,
    grpo_loss,
    kl_estimate,
    movement,
    process_advantages,
)

HAS_TRL = importlib.util.find_spec("trl") is not None
TRL = pytest.mark.skipif(not HAS_TRL, reason="no TRL here: pip install trl==1.16.0")
PLAIN = Objective(beta=0.0)


def batch(seed: int = 0, n: int = 3, group: int = 4, length: int = 9) -> dict:
    """Log-probabilities that differ enough for every clip, in float64, odd lengths.

    Where no token is, they are NaN: whoever reads them is found out.
    """
    g = torch.Generator().manual_seed(seed)
    rows = n * group
    lengths = torch.randint(1, length + 1, (rows, 1), generator=g)
    lengths[0], lengths[1] = length, 1
    mask = torch.arange(length) < lengths
    old = -3 * torch.rand(rows, length, generator=g, dtype=torch.float64)
    move = 0.4 * torch.randn(rows, length, generator=g, dtype=torch.float64)
    away = 0.5 * torch.randn(rows, length, generator=g, dtype=torch.float64)
    rewards = torch.randn(n, group, generator=g, dtype=torch.float64)
    nothing = torch.full_like(old, math.nan)
    return {
        "logps": torch.where(mask, old + move, nothing),
        "old_logps": torch.where(mask, old, nothing),
        "ref_logps": torch.where(mask, old + away, nothing),
        "advantages": group_advantages(rewards).flatten()[:, None],
        "mask": mask,
    }


def value_and_grad(loss, data: dict, *args, **kwargs) -> tuple[Tensor, Tensor]:
    """A loss and its gradient with respect to the log-probabilities."""
    logps = data["logps"].clone().requires_grad_()
    value = loss(*args, **{**data, "logps": logps}, **kwargs)
    (grad,) = torch.autograd.grad(value, logps)
    return value.detach(), grad.where(data["mask"], 0.0)


def distance(a: Tensor, b: Tensor) -> float:
    """`error` of numbers that may all be small, as gradients of a mean are."""
    size = b.abs().max()
    return error(a / size, b / size)


def assert_equal(ours: tuple, theirs: tuple, bound: float = 1e-5) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert distance(a, b) < bound


# --- TRL, on the same log-probabilities


def trl_loss(logps, old_logps, ref_logps, advantages, mask, **settings) -> Tensor:
    """GRPOTrainer's own loss, with a stand-in for the trainer around it."""
    from trl import GRPOTrainer

    def clean(x):
        return x.where(mask, 0.0)

    args = {"delta": None, "use_bias_correction_kl": settings.pop("unbiased", False)}
    accelerator = SimpleNamespace(
        num_processes=1,
        gather=lambda x: x,
        gather_for_metrics=lambda x: x,
        reduce=lambda x, reduction: x,
    )
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (
            clean(logps),
            torch.zeros_like(logps),
            None,
        ),
        get_off_policy_mask=GRPOTrainer.get_off_policy_mask,
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(steps_per_generation=1, **args),
        accelerator=accelerator,
        current_gradient_accumulation_steps=1,
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        use_vllm=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        importance_sampling_level="token",
        off_policy_mask_threshold=None,
        epsilon_low=0.2,
        epsilon_high=0.2,
        beta=0.0,
        max_completion_length=None,
    )
    trainer.__dict__.update(settings)
    inputs = {
        "prompt_ids": torch.zeros(len(mask), 2, dtype=torch.long),
        "prompt_mask": torch.ones(len(mask), 2),
        "completion_ids": torch.zeros(mask.shape, dtype=torch.long),
        "completion_mask": mask.to(logps.dtype),
        "advantages": advantages[:, 0] if advantages.shape[1] == 1 else advantages,
        "old_per_token_logps": clean(old_logps),
        "ref_per_token_logps": clean(ref_logps),
        "num_items_in_batch": mask.sum(),
    }
    return GRPOTrainer._compute_loss(trainer, None, inputs)


BOTH = {  # TRL's loss types, and what they are called here
    "grpo": {"average": "length"},
    "bnpo": {"average": "tokens"},
    "dapo": {"average": "tokens"},
    "dr_grpo": {"average": "constant", "max_tokens": 17},
    "luspo": {"average": "sum"},
}


@TRL
@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("beta", [0.0, 0.04])
def test_loss_and_gradient_are_trl_s(name, beta):
    for seed in range(3):
        data = batch(seed)
        ours = value_and_grad(
            grpo_loss, data, objective=Objective(beta=beta, **BOTH[name])
        )
        theirs = value_and_grad(
            trl_loss, data, loss_type=name, beta=beta, max_completion_length=17
        )
        assert_equal(ours, theirs)


@TRL
@pytest.mark.parametrize(
    ("objective", "settings"),
    [
        (
            Objective(clip_low=0.1, clip_high=0.5),
            {"epsilon_low": 0.1, "epsilon_high": 0.5, "beta": 0.04},
        ),
        (Objective(unbiased_kl=True), {"unbiased": True, "beta": 0.04}),
        (Objective(off_policy=0.1), {"off_policy_mask_threshold": 0.1, "beta": 0.04}),
        (
            Objective(clip_low=math.inf, clip_high=math.inf),
            {"epsilon_low": 1e9, "epsilon_high": 1e9, "beta": 0.04},
        ),
    ],
    ids=["unequal clip", "unbiased KL", "off-policy mask", "no clip"],
)
def test_options_are_trl_s(objective, settings):
    moved = []
    for seed in range(3):
        data = batch(seed)
        ours = value_and_grad(grpo_loss, data, objective=objective)
        theirs = value_and_grad(trl_loss, data, loss_type="grpo", **settings)
        assert_equal(ours, theirs)
        plain = value_and_grad(grpo_loss, data, objective=Objective())
        moved.append(distance(plain[1], theirs[1]))
    assert max(moved) > 0.02  # the option does something


@TRL
def test_an_advantage_for_every_token_is_trl_s():
    data = batch(1)
    g = torch.Generator().manual_seed(5)
    shape = data["mask"].shape
    data["advantages"] = torch.randn(shape, generator=g, dtype=torch.float64)
    ours = value_and_grad(grpo_loss, data)
    assert_equal(ours, value_and_grad(trl_loss, data, loss_type="grpo", beta=0.04))


@TRL
def test_advantages_are_trl_s_up_to_the_kind_of_std():
    """TRL divides by the sample's std plus 1e-4; the paper's example by the group's."""
    g = torch.Generator().manual_seed(0)
    rewards = torch.randn(5, 8, generator=g, dtype=torch.float64)
    centred = rewards - rewards.mean(1, keepdim=True)
    trl = centred / (rewards.std(1, keepdim=True) + 1e-4)
    ours = group_advantages(rewards)
    assert error(ours / trl, torch.full_like(trl, math.sqrt(8 / 7))) < 1e-3


# --- By hand, in float64


def by_hand(logps, old_logps, ref_logps, advantages, mask, clip=0.2, beta=0.04):
    """DeepSeekMath's objective as it is printed, answer by answer, token by token."""
    total = 0.0
    for i in range(len(mask)):
        answer = 0.0
        for t in range(int(mask[i].sum())):
            ratio = (logps[i, t] - old_logps[i, t]).exp()
            a = advantages[i, t if advantages.shape[1] > 1 else 0]
            bounded = ratio.clamp(1 - clip, 1 + clip)
            x = (ref_logps[i, t] - logps[i, t]).exp()
            kl = x - x.log() - 1
            answer = answer + torch.min(ratio * a, bounded * a) - beta * kl
        total = total + answer / mask[i].sum()
    return -total / len(mask)


def sequences_by_hand(logps, old_logps, ref_logps, advantages, mask, clip=0.2):
    """R1's objective as it is printed: one ratio and one KL an answer."""
    total = 0.0
    for i in range(len(mask)):
        n = int(mask[i].sum())
        new, old, ref = (x[i, :n].sum() for x in (logps, old_logps, ref_logps))
        ratio, x = (new - old).exp(), (ref - new).exp()
        a = advantages[i, 0]
        bounded = ratio.clamp(1 - clip, 1 + clip)
        total = total + torch.min(ratio * a, bounded * a) - 0.04 * (x - x.log() - 1)
    return -total / len(mask)


def test_the_token_form_is_the_printed_one():
    for seed in range(3):
        data = batch(seed)
        theirs = value_and_grad(by_hand, data)
        assert_equal(value_and_grad(grpo_loss, data), theirs, 1e-12)


def test_the_sequence_form_is_the_printed_one():
    for seed in range(3):
        data = batch(seed)
        ours = value_and_grad(grpo_loss, data, objective=Objective(ratio="sequence"))
        assert_equal(ours, value_and_grad(sequences_by_hand, data), 1e-12)


def test_where_nothing_has_moved_the_sequence_form_is_the_sum_over_tokens():
    data = batch(0)
    data["old_logps"] = data["logps"]
    sequence = Objective(ratio="sequence", beta=0.0)
    summed = Objective(average="sum", beta=0.0)
    a = value_and_grad(grpo_loss, data, objective=sequence)[1]
    b = value_and_grad(grpo_loss, data, objective=summed)[1]
    assert distance(a, b) < 1e-12
    length = value_and_grad(grpo_loss, data, objective=PLAIN)[1]
    assert distance(length, b) > 0.5  # 1/|o| is another gradient


def test_float32_is_near_float64():
    data = batch(0)
    small = {k: v.float() if v.is_floating_point() else v for k, v in data.items()}
    for a, b in zip(value_and_grad(grpo_loss, small), value_and_grad(grpo_loss, data)):
        assert a.dtype == torch.float32
        assert distance(a, b) < 1e-5


def test_what_each_average_makes_a_token_weigh():
    """At ratio 1 a token's gradient is -A times its weight."""
    data = batch(2)
    data["old_logps"], data["advantages"] = data["logps"], torch.ones(12, 1).double()
    mask = data["mask"].double()
    weights = {
        "length": mask / mask.sum(1, keepdim=True) / 12,
        "tokens": mask / mask.sum(),
        "constant": mask / (12 * 17),
        "sum": mask / 12,
    }
    for average, weight in weights.items():
        objective = replace(PLAIN, average=average, max_tokens=17)
        grad = value_and_grad(grpo_loss, data, objective=objective)[1]
        assert distance(-grad, weight) < 1e-12


# --- The mistakes that shapes do not show


def over_the_batch(rewards: Tensor) -> Tensor:
    return (rewards - rewards.mean()) / rewards.std(correction=0)


def test_advantages_are_over_the_group():
    rewards = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 1], [1, 1, 1, 1]])
    advantages = group_advantages(rewards)
    assert advantages[0].tolist() == [1, -1, -1, 1]
    assert error(advantages[1], torch.tensor([-1.0, -1, -1, 3]) / math.sqrt(3)) < 1e-6
    assert advantages[2].tolist() == [0, 0, 0, 0]
    assert error(over_the_batch(rewards), advantages) > 0.3  # the usual mistake


def test_scales_of_advantages():
    rewards = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 1]])
    half = [[0.5, -0.5, -0.5, 0.5], [-0.25, -0.25, -0.25, 0.75]]
    assert group_advantages(rewards, "mean").tolist() == half
    assert group_advantages(rewards, "none") is rewards
    with pytest.raises(ValueError, match="scale is 'batch', but it must be"):
        group_advantages(rewards, "batch")


@pytest.mark.parametrize("reward", [0.1, 0.3, 1.1, 1e6 / 3])
@pytest.mark.parametrize("group", [3, 7, 11])
def test_equal_rewards_say_nothing_however_the_mean_is_rounded(reward, group):
    rewards = torch.full((4, group), reward)
    assert group_advantages(rewards).abs().max() == 0
    ends = torch.ones(4, group, 1, dtype=torch.bool)
    assert process_advantages(rewards[..., None], ends).abs().max() == 0


def test_kl_is_never_negative_and_right_in_the_mean():
    g = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 7, generator=g, dtype=torch.float64).log_softmax(-1)
    estimate = kl_estimate(p, q)  # for every token that can be sampled
    assert (estimate >= 0).all()
    exact = (p.exp() * (p - q)).sum()
    assert error((p.exp() * estimate).sum(), exact) < 1e-12
    swapped = (p.exp() * kl_estimate(q, p)).sum()
    assert error(swapped, exact) > 0.01
    assert (p - q < 0).any()  # -log x is negative somewhere


def test_the_kl_pulls_towards_the_reference():
    data = batch(0)
    data["advantages"] = torch.zeros(12, 1).double()
    grad = value_and_grad(grpo_loss, data)[1]
    above = (data["logps"] - data["ref_logps"]).where(data["mask"], 0.0)
    assert (grad.sign() == above.sign()).all()  # lowering the loss undoes the distance


def test_the_unbiased_kl_has_the_gradient_of_the_kl():
    """Summed over all tokens that π_old may draw, with its weights."""
    g = torch.Generator().manual_seed(3)
    scores, old, ref = torch.randn(3, 6, generator=g, dtype=torch.float64)
    scores.requires_grad_()
    old, ref = old.log_softmax(-1), ref.log_softmax(-1)

    def gradient(unbiased: bool) -> Tensor:
        logps = scores.log_softmax(-1)[:, None]  # each token an answer of its own
        objective = Objective(beta=1.0, unbiased_kl=unbiased)
        nothing, mask = torch.zeros(1, 1).double(), torch.ones(1, 1).bool()
        losses = [
            grpo_loss(new, o, nothing, mask, objective, r)
            for new, o, r in zip(logps[:, None], old[:, None, None], ref[:, None, None])
        ]
        return torch.autograd.grad((old.exp() * torch.stack(losses)).sum(), scores)[0]

    new = scores.log_softmax(-1)
    (exact,) = torch.autograd.grad((new.exp() * (new - ref)).sum(), scores)
    assert error(gradient(True), exact) < 1e-12
    assert error(gradient(False), exact) > 0.01


WRONG = {
    "the KL with the wrong sign": lambda d: (
        grpo_loss(**d, objective=PLAIN)
        - 0.04
        * (
            (kl_estimate(d["logps"], d["ref_logps"]).where(d["mask"], 0.0)).sum(1)
            / d["mask"].sum(1)
        ).mean()
    ),
    "the mask off by one": lambda d: grpo_loss(
        **{
            **{k: v.nan_to_num() for k, v in d.items() if k != "mask"},
            "mask": d["mask"].roll(1, 1),
        }
    ),
    "the mask without the end": lambda d: grpo_loss(
        **{**d, "mask": d["mask"] & d["mask"].roll(-1, 1)}
    ),
    "1/|o| of the padded length": lambda d: grpo_loss(
        **d, objective=Objective(average="constant", max_tokens=d["mask"].shape[1])
    ),
    "1/|o| over the batch": lambda d: grpo_loss(
        **d, objective=Objective(average="tokens")
    ),
    "the larger of clipped and not": lambda d: (
        -grpo_loss(**{**d, "advantages": -d["advantages"]})
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_usual_mistakes_are_not_the_loss(name):
    data = batch(0)
    wrong = value_and_grad(lambda **d: WRONG[name](d), data)
    right = value_and_grad(by_hand, data)
    assert distance(wrong[1].nan_to_num(), right[1]) > 0.01
    assert distance(value_and_grad(grpo_loss, data)[1], right[1]) < 1e-12


# --- Process supervision


def test_a_token_is_worth_the_steps_to_come():
    """Two answers: steps paid 1 and 0, and one step paid 1, so mean 2/3, std √2/3."""
    rewards = torch.tensor([[[9.0, 1, 9, 0, 9], [9, 9, 1, 9, 9]]])
    ends = torch.tensor([[[0, 1, 0, 1, 0], [0, 0, 1, 0, 0]]]).bool()
    good, bad = 1 / math.sqrt(2), -2 / math.sqrt(2)
    both = good + bad
    first = [both, both, bad, bad, 0.0]
    second = [good, good, good, 0.0, 0.0]
    advantages = process_advantages(rewards, ends)
    assert error(advantages, torch.tensor([[first, second]])) < 1e-6


def test_process_supervision_by_hand():
    g = torch.Generator().manual_seed(0)
    rewards = torch.randn(3, 4, 9, generator=g, dtype=torch.float64)
    ends = torch.rand(3, 4, 9, generator=g) < 0.3
    ends[1] = False  # a group without steps
    ours = process_advantages(rewards, ends)
    assert ours[1].abs().max() == 0
    for n in (0, 2):
        paid = rewards[n][ends[n]]
        mean, std = paid.mean(), paid.std(correction=0)
        for i in range(4):
            for t in range(9):
                later = [
                    (rewards[n, i, s] - mean) / std
                    for s in range(t, 9)
                    if ends[n, i, s]
                ]
                assert abs(float(ours[n, i, t]) - float(sum(later))) < 1e-12


def test_one_step_at_the_end_is_outcome_supervision():
    g = torch.Generator().manual_seed(0)
    rewards = torch.randn(3, 4, generator=g)
    ends = torch.zeros(3, 4, 6, dtype=torch.bool)
    ends[..., -1] = True
    steps = rewards[..., None].expand(3, 4, 6)
    each = group_advantages(rewards)[..., None].expand(3, 4, 6)
    assert error(process_advantages(steps, ends), each) < 1e-6


# --- Options and errors


def test_off_policy_leaves_out_only_wrong_answers_that_are_far():
    data = batch(0)
    drift = (data["old_logps"] - data["logps"]).where(data["mask"], 0.0).sum(1)
    drift = drift / data["mask"].sum(1)
    out = (drift > 0.1) & (data["advantages"][:, 0] < 0)
    assert 0 < out.sum() < (drift > 0.1).sum()
    objective = replace(PLAIN, off_policy=0.1, clip_low=math.inf, clip_high=math.inf)
    grad = value_and_grad(grpo_loss, data, objective=objective)[1]
    assert ((grad.abs().sum(1) == 0) == out).all()


def test_nothing_is_learnt_from_what_is_clipped():
    data = batch(0)
    grad = value_and_grad(grpo_loss, data, objective=PLAIN)[1]
    ratio = (data["logps"] - data["old_logps"]).exp()
    high = (data["advantages"] > 0) & (ratio > 1.2)
    low = (data["advantages"] < 0) & (ratio < 0.8)
    clipped = (high | low) & data["mask"]
    assert clipped.sum() > 5
    assert ((grad == 0) & data["mask"]).equal(clipped)
    report = movement(
        data["logps"],
        data["old_logps"],
        data["advantages"],
        data["mask"],
        PLAIN,
    )
    assert abs(report["clipped"] - float(clipped.sum() / data["mask"].sum())) < 1e-6


def test_an_answer_without_tokens_changes_nothing():
    data = batch(0)
    data["mask"][3] = False
    for average in ("length", "tokens", "constant", "sum"):
        objective = Objective(average=average, max_tokens=17)
        value, grad = value_and_grad(grpo_loss, data, objective=objective)
        assert value.isfinite()
        assert grad.isfinite().all() and grad[3].abs().max() == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ratio": "word"}, "Objective.ratio must be one of"),
        ({"average": "mean"}, "Objective.average must be one of"),
        ({"clip_low": -0.1}, "Objective.clip_low must be a number, 0 or more, got"),
        ({"beta": math.inf}, "Objective.beta must be a finite number"),
        ({"average": "constant"}, "Objective.max_tokens must be the number of tokens"),
    ],
)
def test_impossible_objectives(settings, words):
    with pytest.raises(ValueError, match=words):
        Objective(**settings)


def test_errors_of_the_loss():
    data = batch(0)
    with pytest.raises(ValueError, match=r"beta is 0.04, but there are no ref_logps"):
        grpo_loss(**{**data, "ref_logps": None})
    data["advantages"] = data["advantages"].expand(12, 9)
    with pytest.raises(ValueError, match=r"needs one an answer, \[12, 1\]"):
        grpo_loss(**data, objective=Objective(ratio="sequence"))
