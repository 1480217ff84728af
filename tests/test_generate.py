"""Generation: what is chosen, when it ends, and what is refused."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import random_tokens, small_config, small_model

import deepseek_mini as dm
from deepseek_mini.generate import check_prompt
from deepseek_mini.sampling import check_sampling, next_token_probabilities


@pytest.fixture(scope="module")
def model():
    """Weights wide enough that the likeliest token is no matter of rounding."""
    model = small_model(seed=3)
    with torch.no_grad():
        model.head.weight.mul_(4)
    return model


def naive_greedy(model, prompt, steps):
    """The definition: read everything again, take the likeliest, append."""
    with torch.no_grad():
        for _ in range(steps):
            token = model(prompt)[:, -1].argmax(-1)
            prompt = torch.cat((prompt, token[:, None]), dim=1)
    return prompt


@pytest.mark.parametrize("shape", [(3, 7), (1, 1)])
@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_is_the_definition(model, shape, use_cache):
    prompt = random_tokens(*shape)
    out = dm.generate(model, prompt, max_new_tokens=20, use_cache=use_cache)
    assert out.dtype == torch.int64
    assert torch.equal(out, naive_greedy(model, prompt, 20))
    assert out[0].unique().numel() > 3  # not one token over and over


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_cached_and_uncached_agree(model, temperature):
    rows = [[5, 9, 2], [7], [1, 2, 3, 4, 5, 6, 7, 8, 9]]
    prompt, pad = dm.left_pad(rows, pad_id=60)
    settings = {"temperature": temperature, "seed": 5, "pad": pad}
    cached = dm.generate(model, prompt, max_new_tokens=30, **settings)
    again = dm.generate(model, prompt, max_new_tokens=30, use_cache=False, **settings)
    assert torch.equal(cached, again)


def test_rows_of_a_padded_batch_are_what_they_are_alone(model):
    rows = [[5, 9, 2], [7], [1, 2, 3, 4, 5, 6, 7, 8, 9]]
    prompt, pad = dm.left_pad(rows, pad_id=60)
    out = dm.generate(model, prompt, max_new_tokens=20, pad=pad)
    for row, together in zip(rows, out, strict=True):
        alone = dm.generate(model, torch.tensor([row]), max_new_tokens=20)
        assert torch.equal(alone[0], together[-len(alone[0]) :])
    without = dm.generate(model, prompt, max_new_tokens=20)
    assert not torch.equal(without, out)  # the padding would have been read


def test_left_pad():
    tokens, pad = dm.left_pad([[5, 6], [7], [1, 2, 3]], pad_id=9)
    assert tokens.tolist() == [[9, 5, 6], [9, 9, 7], [1, 2, 3]]
    assert pad.tolist() == [[True, False, False], [True, True, False], [False] * 3]
    assert tokens.dtype == torch.int64 and pad.dtype == torch.bool
    with pytest.raises(ValueError, match="row 1 is empty"):
        dm.left_pad([[1], []])
    with pytest.raises(ValueError, match="there are no rows"):
        dm.left_pad([])


def test_the_model_and_the_global_random_state_are_left_alone(model):
    state = torch.get_rng_state()
    model.train()
    model.layers[1].eval()
    frozen = [module.training for module in model.modules()]
    seen = []
    hook = model.register_forward_pre_hook(lambda m, _: seen.append(m.training))
    dm.generate(model, random_tokens(2, 4), max_new_tokens=3, temperature=1.0)
    hook.remove()
    assert [module.training for module in model.modules()] == frozen
    model.eval()
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(p.requires_grad is False for p in model.parameters())


def test_the_output_can_be_trained_on(model):
    """It must not carry inference mode out: reinforcement learning trains on it."""
    out = dm.generate(model, random_tokens(2, 4), max_new_tokens=5)
    steps = list(dm.stream(model, random_tokens(2, 4), max_new_tokens=2))
    assert not out.is_inference() and not any(s.is_inference() for s in steps)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    model(out).square().mean().backward()
    assert model.embed.weight.grad.abs().max() > 0
    model.zero_grad()


def test_stream_is_generate_step_by_step(model):
    prompt = random_tokens(2, 5)
    settings = {"max_new_tokens": 9, "temperature": 0.8, "top_k": 20, "seed": 1}
    steps = []
    for token in dm.stream(model, prompt, **settings):
        assert token.shape == (2,) and token.dtype == torch.int64
        assert not torch.is_inference_mode_enabled()
        steps.append(token)
    whole = dm.generate(model, prompt, **settings)
    assert torch.equal(torch.stack(steps, dim=1), whole[:, 5:])
    first = next(dm.stream(model, prompt, **settings))
    assert torch.equal(first, whole[:, 5])


def test_signatures_agree():
    ours = [inspect.signature(f).parameters.values() for f in (dm.generate, dm.stream)]
    assert list(map(str, ours[0])) == list(map(str, ours[1]))


def test_seeds(model):
    prompt = random_tokens(2, 5)

    def sample(seed):
        return dm.generate(model, prompt, 24, temperature=1.5, seed=seed)

    assert torch.equal(sample(7), sample(7))
    assert not torch.equal(sample(7), sample(8))
    assert not torch.equal(sample(None), sample(None))


def test_no_new_tokens(model):
    prompt = random_tokens(2, 5)
    assert torch.equal(dm.generate(model, prompt, max_new_tokens=0), prompt)


def test_exactly_as_many_tokens_as_fit(model):
    limit = model.config.max_seq_len
    out = dm.generate(model, random_tokens(1, limit - 3), max_new_tokens=3)
    assert out.shape == (1, limit)


# Stops


def test_a_stop_token_ends_the_row_and_is_repeated(model):
    prompt = random_tokens(3, 6)
    free = dm.generate(model, prompt, max_new_tokens=20)[:, 6:]
    stop = int(free[0, 4])
    out = dm.generate(model, prompt, max_new_tokens=20, stop=stop)[:, 6:]
    ends = [row.index(stop) if stop in row else 19 for row in free.tolist()]
    assert out.shape[1] == max(ends) + 1  # generation ends when all rows have
    for row, expected, end in zip(out.tolist(), free.tolist(), ends, strict=True):
        assert row[: end + 1] == expected[: end + 1]
        assert set(row[end + 1 :]) <= {stop}
    assert ends[0] <= 4


def test_generation_ends_when_all_rows_have_stopped(model):
    prompt = random_tokens(2, 6)
    free = dm.generate(model, prompt, max_new_tokens=20)[:, 6:]
    stops = (int(free[0, 2]), int(free[1, 5]))
    ends = [min(row.index(s) for s in stops if s in row) for row in free.tolist()]
    for use_cache in (True, False):
        out = dm.generate(model, prompt, 20, stop=stops, use_cache=use_cache)[:, 6:]
        assert out.shape[1] == max(ends) + 1 < 20
        steps = list(dm.stream(model, prompt, 20, stop=stops, use_cache=use_cache))
        assert torch.equal(torch.stack(steps, dim=1), out)


def test_a_stop_sequence_must_be_spelled_by_new_tokens(model):
    prompt = random_tokens(1, 6)
    free = dm.generate(model, prompt, max_new_tokens=20)[0, 6:].tolist()
    end = 7
    sequence = free[end - 2 : end + 1]
    out = dm.generate(model, prompt, 20, stop=[sequence])[0, 6:].tolist()
    first = next(i for i in range(2, 20) if free[i - 2 : i + 1] == sequence)
    assert out == free[: first + 1]
    across = [[int(prompt[0, -1]), free[0]]]  # begins in the prompt
    out = dm.generate(model, prompt, 20, stop=across)[0, 6:].tolist()
    spelled = [i for i in range(1, 20) if free[i - 1 : i + 1] == across[0]]
    assert len(out) == (spelled[0] + 1 if spelled else 20)


def test_stop_token_zero_and_no_stop(model):
    assert dm.generate(model, random_tokens(1, 3), 4, stop=None).shape == (1, 7)
    zero = small_model(seed=3)
    with torch.no_grad():
        zero.head.weight.zero_()  # all equal: greedy takes id 0
    out = dm.generate(zero, random_tokens(1, 3), 8, stop=0)
    assert out[0, 3:].tolist() == [0]


@pytest.mark.parametrize("stop", [[[]], ["abc"], [[1.5]]])
def test_a_bad_stop(model, stop):
    with pytest.raises(Exception, match="stop"):
        dm.generate(model, random_tokens(1, 3), 4, stop=stop)


# Sampling

LOGITS = torch.tensor([[0.5, 0.1, 0.25, 0.1, 0.05]]).log()


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [0.5, 0.1, 0.25, 0.1, 0.05]),
        ({"top_k": 2}, [2 / 3, 0, 1 / 3, 0, 0]),
        (
            {"top_k": 3},
            [0.5 / 0.85, 0.1 / 0.85, 0.25 / 0.85, 0, 0],
        ),  # the lower of equals
        ({"top_k": 99}, [0.5, 0.1, 0.25, 0.1, 0.05]),
        ({"top_p": 0.4}, [1, 0, 0, 0, 0]),
        ({"top_p": 0.6}, [2 / 3, 0, 1 / 3, 0, 0]),
        ({"top_p": 0.76}, [0.5 / 0.85, 0.1 / 0.85, 0.25 / 0.85, 0, 0]),
        ({"top_p": 1.0}, [0.5, 0.1, 0.25, 0.1, 0.05]),
        ({"top_p": 1e-9}, [1, 0, 0, 0, 0]),
        ({"min_p": 0.15}, [0.5 / 0.95, 0.1 / 0.95, 0.25 / 0.95, 0.1 / 0.95, 0]),
        ({"min_p": 0.4}, [2 / 3, 0, 1 / 3, 0, 0]),
        ({"min_p": 1.0}, [1, 0, 0, 0, 0]),
        ({"min_p": 0.0}, [0.5, 0.1, 0.25, 0.1, 0.05]),
        # top_p is of what top_k left: 2/3 alone holds 0.6 of it
        ({"top_k": 2, "top_p": 0.6}, [1, 0, 0, 0, 0]),
        ({"top_k": 4, "top_p": 0.9, "min_p": 0.3}, [2 / 3, 0, 1 / 3, 0, 0]),
        # half the temperature squares the probabilities
        ({"temperature": 0.5}, [p / 0.335 for p in (0.25, 0.01, 0.0625, 0.01, 0.0025)]),
    ],
)
def test_filters_by_hand(filters, expected):
    probs = next_token_probabilities(LOGITS, **filters)[0]
    assert torch.allclose(probs, torch.tensor(expected).float(), atol=1e-6)


def test_of_equals_the_lower_ids_stay():
    logits = torch.zeros(2, 5000)
    logits[:, ::2] = 1
    for filters in ({"top_k": 3}, {"top_p": 3 / 4000}):
        probs = next_token_probabilities(logits, temperature=0.01, **filters)
        kept = [row.nonzero()[:, 0].tolist() for row in probs]
        assert kept[0] == kept[1] == list(range(0, 2 * len(kept[0]), 2))
        assert len(kept[0]) in (2, 3)


def test_filters_equal_those_of_transformers():
    from transformers.generation import logits_process as theirs

    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(0)) * 3
    chain = [
        theirs.TemperatureLogitsWarper(0.7),
        theirs.TopKLogitsWarper(15),
        theirs.TopPLogitsWarper(0.85),
        theirs.MinPLogitsWarper(0.03),
    ]
    expected = logits
    for step in chain:
        expected = step(None, expected)
    ours = next_token_probabilities(logits, 0.7, 15, 0.85, 0.03)
    assert torch.allclose(ours, expected.softmax(-1), atol=1e-6)
    assert ((ours > 0) == expected.isfinite()).all()


def test_extreme_temperatures():
    cold = next_token_probabilities(LOGITS * 1e4, temperature=1e-30)
    assert cold.tolist() == [[1, 0, 0, 0, 0]]
    for temperature in (1e-50, 5e-324):  # 0 in float32, the least float64
        for logits in (LOGITS * 1e4, LOGITS, LOGITS.double()):
            cold = next_token_probabilities(logits, temperature)
            assert cold.tolist() == [[1, 0, 0, 0, 0]]
    hot = next_token_probabilities(LOGITS, temperature=1e30)
    assert torch.allclose(hot, torch.full((1, 5), 0.2))


def test_samples_follow_the_distribution(model):
    prompt = random_tokens(1, 4)
    with torch.no_grad():
        logits = model(prompt)[:, -1]
    expected = next_token_probabilities(logits, temperature=1.3, top_k=5)[0]
    rows = prompt.expand(4000, 4)
    out = dm.generate(model, rows, 1, temperature=1.3, top_k=5, seed=0)[:, -1]
    seen = out.bincount(minlength=61) / 4000
    assert (seen - expected).abs().max() < 0.03
    assert set(out.tolist()) <= set(expected.nonzero()[:, 0].tolist())


@pytest.mark.parametrize("filters", [{"top_k": 61}, {"top_p": 1.0}, {"min_p": 0.0}])
def test_filters_that_remove_nothing_change_nothing(model, filters):
    prompt = random_tokens(2, 5)
    plain = dm.generate(model, prompt, 20, temperature=1.0, seed=2)
    same = dm.generate(model, prompt, 20, temperature=1.0, seed=2, **filters)
    assert torch.equal(plain, same)


@pytest.mark.parametrize("filters", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_the_narrowest_filters_are_greedy(model, filters):
    prompt = random_tokens(2, 5)
    greedy = dm.generate(model, prompt, 20)
    narrow = dm.generate(model, prompt, 20, temperature=1.0, seed=2, **filters)
    assert torch.equal(greedy, narrow)


# Bad input


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperature": -0.5}, "temperature is -0.5"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": 1.0, "top_k": 0}, "top_k is 0"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p is 0.0"),
        ({"temperature": 1.0, "top_p": 1.1}, "top_p is 1.1"),
        ({"temperature": 1.0, "min_p": -0.1}, "min_p is -0.1"),
        ({"temperature": 1.0, "min_p": 1.1}, "min_p is 1.1"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"max_new_tokens": 61}, "only 60 fit in this model's max_seq_len of 64"),
    ],
)
@pytest.mark.parametrize("call", [dm.generate, dm.stream])
def test_bad_settings(model, call, settings, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call(model, random_tokens(1, 4), **settings)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (torch.zeros(1, 0, dtype=torch.int64), "at least one row and one token"),
        (torch.zeros(0, 3, dtype=torch.int64), "at least one row and one token"),
        (torch.zeros(3, dtype=torch.int64), "must be [B, P]"),
        (torch.zeros(1, 3), "token ids must be int64"),
        (
            torch.tensor([[1, 61]]),
            "token id 61 is outside the vocabulary: ids go from 0",
        ),
        (torch.tensor([[-1, 4]]), "token id -1 is outside"),
        (torch.zeros(1, 70, dtype=torch.int64), "prompt is 70 tokens long"),
    ],
)
def test_bad_prompts(model, prompt, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        check_prompt(model, prompt, 4, None)
    with pytest.raises(Exception):  # noqa: B017  (shape checks of the tests speak first)
        dm.generate(model, prompt, 4)


@pytest.mark.parametrize(
    ("pad", "words"),
    [
        ([[False, False, True]], "only at the left"),
        ([[True, True, True]], "only at the left"),
        ([[False, True, False]], "only at the left"),
        ([[True, False]], "of shape [1, 2]"),
    ],
)
def test_bad_padding(model, pad, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        check_prompt(model, random_tokens(1, 3), 4, torch.tensor(pad))


def test_the_least_temperature_is_greedy(model):
    prompt = random_tokens(2, 5)
    cold = dm.generate(model, prompt, 9, temperature=1e-50, top_p=0.9)
    assert torch.equal(cold, dm.generate(model, prompt, 9))


WRONG_TYPES = """
import sys
import numpy as np
import torch
import deepseek_mini as dm

assert "beartype" not in sys.modules  # a program that checks no annotations
sys.path.insert(0, sys.argv[1])
from helpers import small_model

model, prompt = small_model(), torch.tensor([[1, 2, 3]])
for name, value in (
    ("top_k", 2.5), ("top_k", "2"), ("temperature", "1"), ("temperature", None),
    ("top_p", "0.5"), ("min_p", [0.1]), ("max_new_tokens", 2.0),
    ("max_new_tokens", None), ("seed", 2**64), ("seed", -(2**63) - 1), ("seed", 1.5),
    ("stop", 2.5), ("stop", "end"), ("stop", [[]]), ("stop", [2.5]), ("pad", [[0]]),
    ("prompt", [[1, 2]]), ("prompt", "text"), ("prompt", None),
):
    for call in (dm.generate, dm.stream):
        try:
            call(model, **{"prompt": prompt, "max_new_tokens": 4, name: value})
        except (TypeError, ValueError) as error:
            said = str(error)
            assert name in said and "must be" in said and "\\n" not in said, said
        else:
            raise AssertionError(f"{name}={value!r} was taken")
free = dm.generate(model, prompt, 9)
id = free[0, 5].item()
expected = dm.generate(model, prompt, 9, stop=id)
assert expected.shape[1] < free.shape[1]
for stop in (np.int64(id), [np.int32(id)], np.array([id]), [[np.int64(id)]]):
    assert torch.equal(dm.generate(model, prompt, np.int64(9), stop=stop), expected)
dm.generate(model, prompt, 2, np.float32(1), top_k=np.int64(3), seed=np.int64(1))
"""


def test_wrong_types_are_named_and_numpy_numbers_taken():
    """In a process of its own: here the annotations are checked, and speak first."""
    command = [sys.executable, "-c", WRONG_TYPES, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_model_whose_weights_are_not_numbers():
    model = small_model()
    with torch.no_grad():
        model.norm.weight[3] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        dm.generate(model, random_tokens(1, 3), 2)


def test_sampling_settings_that_are_fine():
    check_sampling(0.0)
    check_sampling(2.5, top_k=1, top_p=1.0, min_p=0.0)
    assert small_config().vocab_size == 61
