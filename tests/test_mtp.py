"""Prediction of further tokens: which token each row reads, and which it must not."""

import pytest
import torch
from helpers import error, random_tokens, small_model, sparse_model

from deepseek_mini.config import MTP

DEPTH = 3


@pytest.fixture(scope="module", params=["dense", "v3"])
def model(request):
    if request.param == "dense":
        return small_model(mtp=MTP(DEPTH))
    return sparse_model("v3", mtp=MTP(DEPTH))


@torch.no_grad()
def test_shapes_and_missing_rows(model):
    logits = model.mtp_logits(random_tokens(2, 13))
    assert len(logits) == DEPTH
    for k, at_k in enumerate(logits, start=1):
        assert at_k.shape == (2, 13, 61)
        assert at_k[:, -k:].isnan().all() and at_k[:, :-k].isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("place", [0, 4, 9, 12])
def test_row_i_of_depth_k_reads_up_to_token_i_plus_k(model, place):
    """A changed token changes no row that comes before it, and the row that it is the
    newest token of.
    """
    tokens = random_tokens(1, 13)
    changed = tokens.clone()
    changed[0, place] = (changed[0, place] + 1) % 61
    for k, (a, b) in enumerate(
        zip(model.mtp_logits(tokens), model.mtp_logits(changed)), start=1
    ):
        first = max(place - k, 0)
        assert torch.allclose(a[:, :first], b[:, :first], atol=1e-6, equal_nan=True)
        if place < 13:
            assert error(a[:, first], b[:, first]) > 1e-3


@torch.no_grad()
def test_depths_form_a_chain_of_the_modules(model):
    """Every depth by hand, from the parts of its module."""
    tokens = random_tokens(2, 9)
    hidden, logits = model.hidden(tokens), model.mtp_logits(tokens)
    for k, (module, at_k) in enumerate(zip(model.mtp, logits), start=1):
        rows = 9 - k
        read = module.enorm(model.embed(tokens[:, k:]))
        both = torch.cat((read, module.hnorm(hidden[:, :rows])), dim=-1)
        cos, sin = model._rope(rows)
        hidden = module.norm(module.block(module.eh_proj(both), cos, sin))
        assert error(at_k[:, :rows], model.head(hidden)) < 1e-6


def test_gradients_reach_every_module_and_the_shared_parts(model):
    model.zero_grad()
    deepest = model.mtp_logits(random_tokens(2, 9))[-1][:, :-DEPTH]
    deepest.square().mean().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_the_model_itself_is_the_same_without(model):
    plain = type(model)(model.config.__class__(**{**vars(model.config), "mtp": None}))
    missing, extra = plain.load_state_dict(model.state_dict(), strict=False)
    assert not missing and all(name.startswith("mtp.") for name in extra)
    tokens = random_tokens(2, 9)
    assert torch.equal(plain.eval()(tokens), model(tokens))
    with pytest.raises(ValueError, match=r"config\.mtp is None"):
        plain.mtp_logits(tokens)


def test_a_text_too_short(model):
    assert len(model.mtp_logits(random_tokens(1, DEPTH + 1))) == DEPTH
    with pytest.raises(ValueError, match="has 3 tokens, but 3 MTP modules need"):
        model.mtp_logits(random_tokens(1, DEPTH))
