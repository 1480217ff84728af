"""Speculative decoding changes no token, and no probability of one."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import deepseek_mini as dm
from deepseek_mini.config import MTP
from deepseek_mini.speculative import Drafter, speculate, verify
from tests.helpers import randomise, small_config


def model_of(depth: int, vocab_size: int = 11, seed: int = 0) -> dm.Transformer:
    config = dm.Config.preset("deepseek-v3-mini")
    config = replace(config, vocab_size=vocab_size, n_layers=2, mtp=MTP(depth))
    torch.manual_seed(seed)
    model = dm.Transformer(config)
    randomise(model)
    return model.double().eval()


@pytest.fixture(scope="module")
def models() -> dict[int, dm.Transformer]:
    return {depth: model_of(depth) for depth in (1, 2, 3)}


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("length", "new"), [(1, 0), (1, 1), (1, 12), (2, 2), (5, 17)])
def test_greedy_tokens_are_those_of_generate(models, depth, length, new):
    prompt = torch.randint(11, (1, length), generator=torch.manual_seed(length))
    out = speculate(models[depth], prompt, max_new_tokens=new)
    expected = dm.generate(models[depth], prompt, max_new_tokens=new)
    assert torch.equal(out.tokens, expected)
    assert 0 <= out.accepted <= out.drafted
    assert out.passes + out.accepted == new


def test_stops_are_those_of_generate(models):
    prompt = torch.tensor([[3, 5]])
    text = dm.generate(models[2], prompt, max_new_tokens=24)[0, 2:].tolist()
    for end in range(1, 12):
        stop = [text[end - 1 : end + 1]]
        out = speculate(models[2], prompt, max_new_tokens=24, stop=stop)
        expected = dm.generate(models[2], prompt, max_new_tokens=24, stop=stop)
        assert torch.equal(out.tokens, expected)


def test_a_draft_that_is_always_right_is_always_accepted(models, monkeypatch):
    model, prompt = models[2], torch.tensor([[1, 2, 3]])
    text = dm.generate(model, prompt, max_new_tokens=13)[0]

    def oracle(self, hidden, tokens, probabilities, generator):
        drafts = text[len(tokens) : len(tokens) + 2]
        return drafts, torch.nn.functional.one_hot(drafts, 11).float()

    monkeypatch.setattr(Drafter, "draft", oracle)
    out = speculate(model, prompt, max_new_tokens=13)
    assert torch.equal(out.tokens[0], text)
    assert (out.passes, out.drafted, out.accepted) == (5, 8, 8)  # 1 + 4 x 3 tokens
    assert out.acceptance == 1


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_drafts_are_what_the_modules_say_of_the_whole_text(models, depth, monkeypatch):
    """The caches of all depths hold what a pass over the whole text would compute."""
    model, seen, draft = models[depth], [], Drafter.draft

    def watch(self, hidden, tokens, probabilities, generator):
        drafts, probs = draft(self, hidden, tokens, probabilities, generator)
        text = torch.cat((tokens, drafts))[None]
        for k, logits in enumerate(model.mtp_logits(text), start=1):
            row = logits[0, len(tokens) - 2].argmax()
            seen.append((k, int(drafts[k - 1]), int(row)))
        return drafts, probs

    monkeypatch.setattr(Drafter, "draft", watch)
    speculate(model, torch.tensor([[1, 2, 3, 4]]), max_new_tokens=30)
    assert {k for k, _, _ in seen} == set(range(1, depth + 1))
    assert all(drafted == expected for _, drafted, expected in seen)


def chi_square(counts: torch.Tensor, p: torch.Tensor) -> float:
    expected = p * counts.sum()
    return float(((counts - expected) ** 2 / expected)[expected > 0].sum())


def test_sampled_text_has_the_models_distribution():
    """Three tokens of a vocabulary of 3: 27 texts, their probabilities against counts.

    600 texts drawn with drafts; for 26 degrees of freedom chi-square stays below 55 in
    999 of 1000 honest cases (the seed is fixed, so the test always says the same).
    """
    config = small_config(vocab_size=3, n_layers=1, mtp=MTP(1))
    model = randomise(dm.Transformer(config), seed=2)
    prompt = torch.tensor([[2, 0]])
    texts = torch.tensor([[2, 0, i // 9, i // 3 % 3, i % 3] for i in range(27)])
    with torch.no_grad():
        p = model(texts)[:, 1:4].softmax(-1)  # [27, 3, V]
    probs = p.gather(2, texts[:, 2:, None]).prod(1)[:, 0]
    counts = torch.zeros(27)
    for seed in range(600):
        a, b, c = speculate(model, prompt, 3, temperature=1.0, seed=seed).tokens[0, 2:]
        counts[a * 9 + b * 3 + c] += 1
    assert chi_square(counts, probs) < 55
    assert chi_square(counts, probs.roll(1)) > 110  # the test can tell


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_the_rule_of_acceptance_gives_the_models_distribution(seed):
    """One draft over 5 tokens: the exact distribution of what `verify` returns."""
    g = torch.Generator().manual_seed(seed)
    p, q = torch.rand(2, 5, generator=g, dtype=torch.float64).softmax(-1)
    q[seed % 5] = 0
    q = q / q.sum()
    accept = torch.minimum(p, q)
    rest = (p - q).clamp(min=0)
    exact = accept + (1 - accept.sum()) * rest / rest.sum()
    assert torch.allclose(exact, p, atol=1e-12)
    counts, first = torch.zeros(5), torch.stack((p, p))
    for _ in range(400):
        draft = torch.multinomial(q, 1, generator=g)
        n, token = verify(draft, q[None], first, g)
        counts[draft if n else token] += 1
    assert chi_square(counts, p) < 40  # 4 degrees of freedom


def test_filters_hold_for_drafts_too(models):
    out = speculate(models[1], torch.tensor([[1]]), 40, temperature=2.0, top_k=1)
    expected = dm.generate(models[1], torch.tensor([[1]]), 40)
    assert torch.equal(out.tokens, expected)


def test_bad_input_is_refused(models):
    plain = dm.Transformer(dm.Config.preset("deepseek-v2-mini"))
    with pytest.raises(ValueError, match="no MTP modules"):
        speculate(plain, torch.tensor([[1]]))
    with pytest.raises(ValueError, match="2 rows"):
        speculate(models[1], torch.tensor([[1], [2]]))


def test_the_model_stays_in_its_mode():
    model = model_of(1).train()
    speculate(model, torch.tensor([[1, 2]]), 4)
    assert model.training
