"""Balance between experts: every formula against loops, and training that uses it."""

import json
import math
from dataclasses import replace

import pytest
import torch
from helpers import error
from test_training import RECIPE, StopAt, make_data, without_time

import deepseek_mini as dm
from deepseek_mini.cli import main
from deepseek_mini.model import Routing, recording
from deepseek_mini.training import Balance, TrainConfig, default_balance, train
from deepseek_mini.training.balance import (
    balance_loss,
    communication_loss,
    device_loss,
    expert_loss,
    load_entropy,
    max_vio,
    sequence_loss,
    update_bias,
)
from deepseek_mini.training.dropping import dropped, token_dropping
from deepseek_mini.training.losses import mtp_loss, training_loss

PART = dm.config.MoE(
    n_routed_experts=8,
    n_shared_experts=1,
    n_activated_experts=2,
    inter_dim=6,
    n_groups=4,
    n_limited_groups=2,
)
V3 = dm.Config(
    vocab_size=1024,
    dim=16,
    n_layers=3,
    max_seq_len=32,
    attention=dm.config.MLA(2, 10, 6, 6, 4, 6),
    dense=dm.config.SwiGLU(24),
    moe=replace(PART, score="sigmoid", bias=True, norm_topk=True, route_scale=2.5),
    n_dense_layers=1,
    mtp=dm.config.MTP(depth=2),
    init_std=0.05,
)
EVERYTHING = Balance(
    expert_loss=0.01,
    device_loss=0.02,
    comm_loss=0.03,
    sequence_loss=0.04,
    bias_speed=0.05,
    bias_until=0.6,
    capacity=1.0,
    n_devices=4,
)


def new_model(seed=0, config=V3):
    torch.manual_seed(seed)
    return dm.Transformer(config)


@pytest.fixture(scope="module")
def data():
    return make_data()


def random_routing(n_tokens, n_experts=8, n_chosen=3, seed=0, score="softmax"):
    """Scores that need a gradient, and the best of them chosen."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n_tokens, n_experts, generator=generator).double()
    scores = logits.softmax(-1) if score == "softmax" else logits.sigmoid()
    chosen = scores.topk(n_chosen).indices
    return scores.detach().requires_grad_(), chosen


# --- the formulas as loops ------------------------------------------------------


def plain_f_and_p(scores, chosen):
    """f and P of every expert, as the papers write them, in plain Python."""
    s, c = scores.tolist(), chosen.tolist()
    n_tokens, n_experts, k = len(s), len(s[0]), len(c[0])
    f = [
        n_experts / (k * n_tokens) * sum(i in row for row in c)
        for i in range(n_experts)
    ]
    p = [sum(row[i] / sum(row) for row in s) / n_tokens for i in range(n_experts)]
    return f, p


def plain_expert_loss(scores, chosen):
    return sum(a * b for a, b in zip(*plain_f_and_p(scores, chosen)))


def devices_of(n_experts, n_devices):
    size = n_experts // n_devices
    return [range(d * size, (d + 1) * size) for d in range(n_devices)]


def plain_device_loss(scores, chosen, n_devices):
    f, p = plain_f_and_p(scores, chosen)
    total = 0.0
    for device in devices_of(len(f), n_devices):
        total += sum(f[j] for j in device) / len(device) * sum(p[j] for j in device)
    return total


def plain_communication_loss(scores, chosen, n_devices, n_limited):
    _, p = plain_f_and_p(scores, chosen)
    total = 0.0
    for device in devices_of(len(p), n_devices):
        sent = sum(any(j in device for j in row) for row in chosen.tolist())
        frequency = n_devices / (n_limited * len(chosen)) * sent
        total += frequency * sum(p[j] for j in device)
    return total


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
@pytest.mark.parametrize("n_tokens", [1, 7, 30])
def test_losses_equal_loops(n_tokens, score):
    scores, chosen = random_routing(n_tokens, seed=n_tokens, score=score)
    expected = plain_expert_loss(scores, chosen)
    assert expert_loss(scores, chosen).item() == pytest.approx(expected, rel=1e-12)
    for n_devices in (1, 2, 4, 8):
        expected = plain_device_loss(scores, chosen, n_devices)
        loss = device_loss(scores, chosen, n_devices)
        assert loss.item() == pytest.approx(expected, rel=1e-12)
        expected = plain_communication_loss(scores, chosen, n_devices, 2)
        loss = communication_loss(scores, chosen, n_devices, 2)
        assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_the_sequence_loss_equals_a_loop_over_sequences():
    scores, _ = random_routing(30, score="sigmoid")
    losses = []
    for i in range(5):
        own = scores[6 * i : 6 * i + 6]
        best = own.topk(3).indices  # of the scores as they are: no bias, no groups
        losses.append(plain_expert_loss(own, best))
    expected = sum(losses) / 5
    assert sequence_loss(scores, 5, 3).item() == pytest.approx(expected, rel=1e-12)
    over_the_batch = sequence_loss(scores, 1, 3).item()
    assert abs(over_the_batch - expected) > 0.01  # so the loop over rows matters


def test_by_hand():
    """Two tokens, four experts, two of them chosen, two devices."""
    scores = torch.tensor([[0.5, 0.3, 0.1, 0.1], [0.4, 0.2, 0.3, 0.1]])
    chosen = torch.tensor([[0, 1], [0, 2]])
    # f = 4/(2·2) · (2, 1, 1, 0); P = (0.45, 0.25, 0.2, 0.1)
    assert expert_loss(scores, chosen).item() == pytest.approx(0.9 + 0.25 + 0.2)
    # f' = (1.5, 0.5); P' = (0.7, 0.3)
    assert device_loss(scores, chosen, 2).item() == pytest.approx(1.05 + 0.15)
    # sent: both tokens to device 0, one to device 1; f'' = 2/(2·2) · (2, 1)
    assert communication_loss(scores, chosen, 2, 2).item() == pytest.approx(0.7 + 0.15)
    # sequence 0: f = (2, 2, 0, 0), 1.6; sequence 1: f = (2, 0, 2, 0), 1.4
    assert sequence_loss(scores, 2, 2).item() == pytest.approx(1.5)
    load = torch.tensor([2, 1, 1, 0])
    assert max_vio(load) == pytest.approx(1.0)
    assert load_entropy(load) == pytest.approx(1.5 * math.log(2))


def test_a_uniform_router_has_the_value_one():
    scores = torch.full((8, 8), 1 / 8)
    chosen = torch.stack([torch.arange(8), torch.arange(8).roll(1)], dim=1)
    assert expert_loss(scores, chosen).item() == pytest.approx(1)
    assert device_loss(scores, chosen, 4).item() == pytest.approx(1)
    even = torch.full((9,), 5)
    assert max_vio(even) == 0 and load_entropy(even) == pytest.approx(math.log(9))
    worst = torch.tensor([10, 10, 0, 0, 0, 0])  # ten tokens, two of six
    assert max_vio(worst) == pytest.approx(6 / 2 - 1)


# --- gradients ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "frequency"),
    [
        (expert_loss, lambda f, row: f),
        (
            lambda s, c: device_loss(s, c, 2),
            lambda f, row: f.view(2, 4).mean(1).repeat_interleave(4),
        ),
        (
            lambda s, c: communication_loss(s, c, 2, 2),
            lambda f, row: row.repeat_interleave(4),
        ),
    ],
)
def test_the_gradient_is_that_of_the_shares_alone(loss, frequency):
    """d loss / d P = f: the gradient of P(scores) · f with f a constant."""
    scores, chosen = random_routing(9)
    loss(scores, chosen).backward()
    f = torch.tensor(plain_f_and_p(scores, chosen)[0], dtype=torch.float64)
    sent = torch.stack([(chosen // 4 == d).any(1) for d in range(2)]).double().mean(1)
    constant = frequency(f, sent * 2 / 2)
    other = scores.detach().clone().requires_grad_()
    share = (other / other.sum(-1, keepdim=True)).mean(0)
    (share * constant).sum().backward()
    torch.testing.assert_close(scores.grad, other.grad)


def test_losses_reach_the_router_and_what_is_below_it():
    """And no expert, no head, no bias; the weights of the gate get one each layer."""
    model = new_model()
    balance = replace(EVERYTHING, capacity=None)
    with recording() as routings:
        model(torch.arange(24).view(2, 12))
    balance_loss(routings, balance, V3.moe, 2).backward()
    got = {
        n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert {f"layers.{i}.ffn.gate.weight" for i in (1, 2)} <= got
    assert "embed.weight" in got
    for name in ("gate.bias", "head", "layers.2.ffn.experts", "layers.2.ffn.shared"):
        assert not [n for n in got if name in n], name


def test_balance_loss_adds_layers_and_weights():
    layers = [random_routing(12, seed=seed) for seed in (1, 2)]
    routings = [Routing(s, c, s.gather(1, c)) for s, c in layers]
    total = balance_loss(routings, EVERYTHING, PART, 3)
    expected = sum(
        0.01 * plain_expert_loss(s, c)
        + 0.02 * plain_device_loss(s, c, 4)
        + 0.03 * plain_communication_loss(s, c, 4, 2)
        + 0.04 * sequence_loss(s, 3, 3).item()
        for s, c in layers
    )
    assert total.item() == pytest.approx(expected, rel=1e-9)
    assert balance_loss(routings, Balance(), PART, 3).item() == 0


# --- V3's bias ------------------------------------------------------------------


def test_the_bias_moves_by_the_sign():
    bias = torch.tensor([0.5, 0.0, 0.0, -0.2])
    update_bias(bias, torch.tensor([6, 1, 1, 0]), speed=0.1)  # mean 2
    torch.testing.assert_close(bias, torch.tensor([0.4, 0.1, 0.1, -0.1]))
    update_bias(bias, torch.tensor([5, 2, 1, 0]), speed=0.1)
    torch.testing.assert_close(bias, torch.tensor([0.3, 0.1, 0.2, 0.0]))


def test_the_bias_of_every_step_by_hand(data):
    """From the load of the whole batch, for as long as gamma says, in every gate."""
    recipe = replace(
        RECIPE, steps=5, batch_size=4, balance=Balance(bias_speed=0.1, bias_until=0.6)
    )
    model = new_model()
    history = train(model, data, recipe, progress=False).history
    expected = torch.zeros(4, 8)  # two sparse layers and two MTP modules
    for row in history:
        load = torch.tensor(row["load"], dtype=torch.float32)
        n_tokens = [4 * 16, 4 * 16, 4 * 15, 4 * 14]
        assert load.sum(1).tolist() == [2 * n for n in n_tokens]
        if row["step"] <= 3:
            expected += 0.1 * (load.mean(1, keepdim=True) - load).sign()
        torch.testing.assert_close(torch.tensor(row["bias"]), expected)
    gates = [m.bias for m in model.modules() if isinstance(m, dm.model.moe.Gate)]
    torch.testing.assert_close(torch.stack(list(gates)), expected)
    assert all(bias.grad is None for bias in gates)


def test_the_bias_balances(data):
    recipe = replace(RECIPE, steps=40, batch_size=4, eval_every=40, lr=3e-3)
    worst = {}
    for speed in (0.0, 0.02):
        balance = Balance(bias_speed=speed, bias_until=1)
        result = train(
            new_model(), data, replace(recipe, balance=balance), progress=False
        )
        late = [max(row["max_vio"]) for row in result.history[-10:]]
        worst[speed] = sum(late) / len(late)
    assert worst[0.02] < 0.6 * worst[0.0]


def test_pieces_add_up(data):
    """Load, bias and the sequence loss of a step do not depend on its pieces."""
    balance = Balance(bias_speed=0.1, sequence_loss=0.1)
    recipe = replace(RECIPE, steps=3, batch_size=4, balance=balance)
    runs = [
        train(
            new_model().double(), data, replace(recipe, accumulate=n), progress=False
        ).history
        for n in (1, 2)
    ]
    for one, two in zip(*runs):
        assert one["load"] == two["load"] and one["bias"] == two["bias"]
        assert one["max_vio"] == two["max_vio"]
        for key in ("loss", "mtp_loss", "balance_loss", "grad_norm"):
            assert one[key] == pytest.approx(two[key], rel=1e-6)


# --- token dropping -------------------------------------------------------------


def plain_dropped(scores, chosen, n_devices, capacity, spared):
    """One device after the other: keep the best until the budget is used up."""
    n_tokens, k = chosen.shape
    size = scores.shape[1] // n_devices
    budget = math.ceil(capacity * n_tokens * k / n_devices)
    gone = torch.zeros_like(chosen, dtype=torch.bool)
    for d in range(n_devices):
        pairs = [
            (not spared[t], -scores[t, chosen[t, j]].item(), t, j)
            for t in range(n_tokens)
            for j in range(k)
            if chosen[t, j] // size == d
        ]
        for place, (may_go, _, t, j) in enumerate(sorted(pairs)):
            gone[t, j] = bool(may_go) and place >= budget
    return gone


@pytest.mark.parametrize("capacity", [0.5, 1.0, 1.3, 9.0])
@pytest.mark.parametrize("n_devices", [1, 2, 8])
def test_dropping_equals_a_loop(n_devices, capacity):
    scores, chosen = random_routing(20, seed=3)
    for one_in in (1, 2, 5):  # 1 and 2: more than the budget may be spared
        spared = torch.arange(20) % one_in == 0
        gone = dropped(scores, chosen, n_devices, capacity, spared)
        expected = plain_dropped(scores, chosen, n_devices, capacity, spared)
        assert torch.equal(gone, expected)
        assert not gone[spared].any()
    if capacity != 1.3:
        assert bool(gone.any()) == (capacity < 1 or (capacity == 1 and n_devices > 1))


def test_dropped_choices_weigh_nothing_and_learn_nothing():
    model, tokens = new_model(), torch.arange(40).view(4, 10) % 7
    gate = model.layers[1].ffn.gate
    with recording() as before:
        plain = model(tokens)
    nobody = torch.zeros(4, dtype=torch.bool)
    everybody = ~nobody
    with token_dropping(model, 4, 0.5, everybody):
        assert torch.equal(model(tokens), plain)
    with token_dropping(model, 4, 0.5, nobody), recording() as after:
        assert not torch.allclose(model(tokens), plain)
    first = after[0]
    gone = dropped(first.scores, first.chosen, 4, 0.5, torch.zeros(40, dtype=bool))
    assert torch.equal(first.weights == 0, gone) and gone.any()
    assert torch.equal(first.chosen, before[0].chosen)
    kept = first.weights[~gone]
    assert torch.equal(kept, before[0].weights[~gone])
    assert not gate._forward_hooks
    assert torch.equal(model(tokens), plain)


def test_every_tenth_row_is_spared(data):
    """Row 10 is the third of step 2 of 4 rows; all its choices keep their weight."""
    model = new_model()
    recipe = replace(
        RECIPE, steps=9, batch_size=4, balance=Balance(capacity=0.3, n_devices=4)
    )
    seen = []
    experts = model.layers[1].ffn.experts
    experts.register_forward_pre_hook(lambda module, args: seen.append(args[2]))
    training_loss(model, data.batch(2, 4, 0), recipe, step=2, first_row=8)
    weights = seen[0].view(4, 16, 2)
    assert (weights[2] > 0).all()
    assert all((weights[row] == 0).any() for row in (0, 1, 3))
    row = train(new_model(), data, recipe, progress=False).history[0]
    assert all(0.2 < share < 0.8 for share in row["dropped"])


# --- multi-token prediction -----------------------------------------------------


def test_the_mtp_loss_is_that_of_its_logits(data):
    model, tokens = new_model(), data.batch(0, 3, 0)
    logits = model.mtp_logits(tokens)  # over the whole window: one row more
    losses = []
    for k, scores in enumerate(logits, start=1):
        nats = []
        for row in range(3):
            for i in range(tokens.shape[1] - k - 1):
                logprobs = scores[row, i].log_softmax(-1)
                nats.append(-logprobs[tokens[row, i + k + 1]].item())
        losses.append(sum(nats) / len(nats))
    hidden = model.hidden(tokens[:, :-1])
    loss = mtp_loss(model, hidden, tokens).item()
    assert loss == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_the_parts_of_the_loss_add_up(data):
    model, tokens = new_model(), data.batch(0, 3, 0)
    recipe = TrainConfig(
        steps=30, balance=replace(EVERYTHING, capacity=None), mtp_weight=0.6
    )
    for step, weight in ((0, 0.6), (20, 0.6), (21, 0.2), (29, 0.2)):
        total, measures = training_loss(model, tokens, recipe, step)
        parts = measures.parts
        expected = parts["loss"] + weight * parts["mtp_loss"] + parts["balance_loss"]
        assert total.item() == pytest.approx(expected, rel=1e-6)
    plain = torch.nn.functional.cross_entropy(
        model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()
    )
    assert parts["loss"] == pytest.approx(plain.item(), rel=1e-6)


def test_without_weight_the_modules_rest(data):
    model = new_model()
    before = {n: p.clone() for n, p in model.mtp.named_parameters()}
    recipe = replace(RECIPE, steps=3, mtp_weight=0.0)
    rows = train(model, data, recipe, progress=False).history
    assert "mtp_loss" not in rows[0] and len(rows[0]["load"]) == 2
    for name, p in model.mtp.named_parameters():
        assert torch.equal(p, before[name])
    trained = train(new_model(), data, replace(recipe, mtp_weight=0.3), progress=False)
    assert len(trained.history[0]["load"]) == 4
    assert trained.losses[0] == rows[0]["loss"] and trained.losses != [
        row["loss"] for row in rows
    ]


# --- a whole run ----------------------------------------------------------------


@pytest.mark.parametrize("fp8", [False, True])
def test_a_run_with_everything_is_resumed(data, tmp_path, fp8):
    recipe = replace(RECIPE, steps=4 if fp8 else 9, batch_size=4, accumulate=2)
    recipe = replace(recipe, balance=EVERYTHING, fp8=fp8, eval_every=4, save_every=2)
    model = new_model()
    whole = train(model, data, recipe, progress=False)
    broken = StopAt(data, 3, RuntimeError("power cut"))
    with pytest.raises(RuntimeError, match="power cut"):
        train(new_model(), broken, recipe, tmp_path, progress=False)
    again = {"resume": True, "progress": False}
    other = new_model(seed=9)
    result = train(other, data, recipe, tmp_path, **again)
    assert without_time(result.history) == without_time(whole.history)
    for (name, p), q in zip(model.named_parameters(), other.parameters()):
        assert torch.equal(p, q), name
    assert any(value for row in whole.history[-1]["bias"] for value in row)
    with pytest.raises(ValueError, match=r"train\.balance\.bias_speed"):
        slower = replace(recipe, balance=replace(EVERYTHING, bias_speed=0.01))
        train(new_model(), data, slower, tmp_path, **again)
    loaded = dm.load(tmp_path)
    gates = [m.bias for m in (*loaded.modules(),) if isinstance(m, dm.model.moe.Gate)]
    for bias, row in zip(gates, whole.history[-1]["bias"]):
        assert error(bias, torch.tensor(row)) < 1e-5


def test_validation_is_of_the_main_model_alone(data):
    model = new_model()
    one = replace(RECIPE, steps=1, lr=1e-9, warmup=0, balance=EVERYTHING)
    row = train(model, data, one, progress=False).history[0]
    dense = dm.training.evaluate(model, data, n_windows=64)
    assert row["val_loss"] == pytest.approx(dense["val_loss"], abs=1e-4)
    assert not any(name.startswith("val_mtp") for name in row)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expert_loss", -1.0),
        ("device_loss", math.nan),
        ("bias_speed", math.inf),
        ("bias_until", 1.5),
        ("capacity", 0.0),
        ("n_devices", 0),
    ],
)
def test_impossible_balance(field, value):
    with pytest.raises(ValueError, match=rf"Balance\.{field} must be .* got"):
        Balance(**{field: value})


def test_devices_that_do_not_fit(data):
    recipe = replace(RECIPE, steps=1, balance=Balance(device_loss=0.1, n_devices=3))
    with pytest.raises(ValueError, match="divide the 8 routed experts, got 3"):
        train(new_model(), data, recipe, progress=False)
    assert Balance().devices(PART) == (4, 2)
    assert Balance(n_devices=8).devices(PART) == (8, 2)
    assert Balance(n_devices=1).devices(PART) == (1, 1)


def test_defaults_are_those_of_the_papers():
    presets = {
        name: default_balance(dm.Config.preset(f"deepseek-{name}"))
        for name in ("llm-7b", "moe-16b", "v2-lite", "v2", "v3", "v3-mini")
    }
    assert presets["llm-7b"] == Balance()
    assert presets["moe-16b"] == presets["v2-lite"] == Balance(expert_loss=0.001)
    v2 = presets["v2"]
    assert (v2.expert_loss, v2.device_loss, v2.comm_loss) == (0.003, 0.05, 0.02)
    assert presets["v3"].sequence_loss == 0.0001 and presets["v3"].bias_speed > 0
    assert not presets["v3"].expert_loss


def test_one_command_trains_v3(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("alpha beta 1 2 3\n" * 200)
    argv = ["train", "--preset", "deepseek-v3-mini", "--data", str(text)]
    argv += ["--steps", "2", "--seq-len", "16", "--batch-size", "1", "--warmup", "1"]
    out = tmp_path / "run"
    assert main([*argv, "--out", str(out)]) == 0
    row = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"mtp_loss", "balance_loss", "load", "max_vio", "bias"} <= set(row)
    assert main([*argv, "--out", str(out), "--resume"]) == 0
    given = ["--balance", "expert_loss=0.01", "bias_speed=1", "n_devices=4"]
    assert main([*argv, *given, "--out", str(tmp_path / "other")]) == 0
    capsys.readouterr()
    for bad, said in (
        ("speed=1", "not 'speed'"),
        ("bias_speed=x", "NAME=NUMBER pairs"),
        ("bias_speed", "NAME=NUMBER pairs"),
        ("n_devices=3", "divide the 16 routed experts"),
        ("capacity=0", "Balance.capacity"),
    ):
        assert main([*argv, "--balance", bad, "--out", str(tmp_path / "no")]) == 2
        assert said in capsys.readouterr().err
    assert main([*argv, "--balance", "none", "--out", str(tmp_path / "none")]) == 0


def test_the_picture_of_the_load():
    from deepseek_mini.lesson.plots import draw_load, new_figure

    loads = [[6, 1, 1, 0]] * 3 + [[2, 2, 2, 2]] * 997
    image = draw_load(new_figure().subplots(), loads)
    picture = image.get_array()
    assert picture.shape == (4, 120)
    assert (picture[:, 1:] == 1).all()
    assert picture[0, 0] > 1 > picture[1, 0] > picture[3, 0]
    few = draw_load(new_figure().subplots(), loads[:3]).get_array()
    torch.testing.assert_close(
        torch.tensor(few[:, 0].tolist()), torch.tensor([3.0, 0.5, 0.5, 0.0])
    )
