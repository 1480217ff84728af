"""The parts of the model against their equations, and bad input against clear words."""

import math

import pytest
import torch

import deepseek_mini as dm
from deepseek_mini.config import GQA, Config, Linear, Llama3, Rope, SwiGLU, Yarn
from deepseek_mini.model import RMSNorm, ops
from deepseek_mini.model.rope import (
    amplitude,
    apply_rope,
    inverse_frequencies,
    rope_table,
)

CONFIG = Config(
    vocab_size=61,
    dim=24,
    n_layers=2,
    max_seq_len=40,
    attention=GQA(n_heads=6, n_kv_heads=2, head_dim=8),
    dense=SwiGLU(inter_dim=36),
)


@pytest.fixture
def model() -> dm.Transformer:
    torch.manual_seed(0)
    model = dm.Transformer(CONFIG).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def _packed(model: dm.Transformer, **others) -> torch.Tensor:
    documents = torch.zeros(1, 5, dtype=torch.long)
    return model(random_tokens(1, 5), documents=documents, **others)


def random_tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, CONFIG.vocab_size, shape)


def test_rms_norm_ignores_scale_but_for_eps_and_keeps_the_type():
    norm = RMSNorm(5, eps=1e-6)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 2, 5)
    expected = norm.weight * x / (x.pow(2).sum(-1, keepdim=True) / 5 + 1e-6).sqrt()
    assert torch.allclose(norm(x), expected, atol=1e-6)
    big = (x * 1000).half()  # its squares overflow half precision
    assert norm.half()(big).isfinite().all()
    assert norm(big).dtype == torch.float16
    assert norm.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize("layout", ["interleaved", "half_split"])
def test_rope_turns_by_the_equation_and_scores_depend_on_distance(layout):
    rope = Rope(theta=100.0, layout=layout)
    x = torch.randn(2, 7, 3, 10, dtype=torch.float64)
    table = rope_table(rope, 10, torch.arange(7), torch.float64)
    turned = apply_rope(x, *table, layout)
    pairs = [(2 * i, 2 * i + 1) if layout == "interleaved" else (i, i + 5)
             for i in range(5)]  # fmt: skip
    for i, (a, b) in enumerate(pairs):
        number = torch.complex(x[..., a], x[..., b])
        angle = torch.arange(7, dtype=torch.float64)[:, None] * 100.0 ** (-2 * i / 10)
        number = number * torch.polar(torch.ones_like(angle), angle)
        assert torch.allclose(turned[..., a], number.real, atol=1e-12)
        assert torch.allclose(turned[..., b], number.imag, atol=1e-12)
    q, k = torch.randn(2, 1, 1, 1, 10, dtype=torch.float64)
    scores = []
    for m, n in ((3, 1), (103, 101)):
        cos, sin = rope_table(rope, 10, torch.tensor([m, n]), torch.float64)
        a = apply_rope(q, cos[:1], sin[:1], layout)
        b = apply_rope(k, cos[1:], sin[1:], layout)
        scores.append((a * b).sum().item())
    assert math.isclose(scores[0], scores[1], abs_tol=1e-10)


def test_rope_scalings_by_hand():
    plain = inverse_frequencies(Rope(), 128)
    turns = 4096 * plain / (2 * math.pi)
    assert (turns < 1).sum() == 18  # of 64 pairs never finish a turn in 4096 positions
    assert torch.equal(inverse_frequencies(Rope(scaling=Linear(4)), 128), plain / 4)
    yarn = Rope(scaling=Yarn(factor=40, original_seq_len=4096))
    ratio = plain / inverse_frequencies(yarn, 128)
    assert torch.allclose(ratio[turns > 33], torch.ones(1, dtype=torch.float64))
    assert torch.allclose(ratio[turns < 0.8], torch.tensor(40.0, dtype=torch.float64))
    assert (ratio.diff() >= 0).all()
    assert math.isclose(amplitude(yarn), 0.1 * math.log(40) + 1)
    both = Rope(scaling=Yarn(40, 4096, mscale=0.707, mscale_all_dim=0.707))
    assert amplitude(both) == 1  # V2 puts all of it into the softmax scale
    llama3 = Rope(theta=5e5, scaling=Llama3(factor=8, original_seq_len=8192))
    plain = inverse_frequencies(Rope(theta=5e5), 128)
    wavelength, ratio = 2 * math.pi / plain, plain / inverse_frequencies(llama3, 128)
    assert torch.allclose(ratio[wavelength < 8192 / 4], torch.ones(1).double())
    assert torch.allclose(ratio[wavelength > 8192], torch.tensor(8.0).double())


def test_an_angle_far_out_is_exact():
    cos, _ = rope_table(Rope(), 4, torch.tensor([160_000]))
    assert abs(cos[0, 0].item() - math.cos(160_000)) < 1e-6


def test_attention_groups_heads_in_order():
    q = torch.randn(1, 5, 4, 8)
    k, v = torch.randn(2, 1, 5, 2, 8)
    out = ops.naive_attention(q, k, v, 0.5)
    alone = ops.naive_attention(q[:, :, 2:3], k[:, :, 1:], v[:, :, 1:], 0.5)
    assert torch.allclose(out[:, :, 2:3], alone, atol=1e-6)  # head 2 reads key 1


@pytest.mark.parametrize("pieces", [[13], [1] * 13, [5, 1, 4, 3]])
def test_a_cache_filled_in_uneven_pieces_changes_nothing(model, pieces):
    tokens = random_tokens(3, 13)
    cache = model.new_cache(3)
    with torch.no_grad():
        parts = [model(t, cache=cache) for t in tokens.split(pieces, dim=1)]
        assert torch.allclose(torch.cat(parts, 1), model(tokens), atol=1e-5)
    assert cache.length == 13


def test_a_truncated_cache_forgets(model):
    tokens, cache = random_tokens(2, 9), model.new_cache(2, 12)
    with torch.no_grad():
        model(tokens, cache=cache)
        cache.truncate(4)
        again = model(tokens[:, 4:], cache=cache)
        assert torch.allclose(again, model(tokens)[:, 4:], atol=1e-5)


def test_padding_changes_nothing_at_either_end(model):
    tokens = random_tokens(1, 6)
    for left in (0, 3):
        padded = torch.cat((random_tokens(1, left), tokens, random_tokens(1, 3)), 1)
        pad = torch.ones_like(padded, dtype=torch.bool)
        pad[:, left : left + 6] = False
        with torch.no_grad():
            out = model(padded, pad=pad)[:, left : left + 6]
            assert torch.allclose(out, model(tokens), atol=1e-5)
            cache = model.new_cache(1)
            cut = [2, 3, left + 4]
            pieces = zip(padded.split(cut, 1), pad.split(cut, 1))
            parts = [model(t, cache=cache, pad=p) for t, p in pieces]
            cached = torch.cat(parts, 1)[:, left : left + 6]
            assert torch.allclose(cached, model(tokens), atol=1e-5)


def test_a_cache_remembers_padding(model):
    prompt, rest = random_tokens(2, 7), random_tokens(2, 3)
    pad = torch.zeros(2, 7, dtype=torch.bool)
    pad[0, :4] = True
    cache = model.new_cache(2)
    with torch.no_grad():
        model(prompt, cache=cache, pad=pad)
        out = model(rest, cache=cache)
        alone = model(torch.cat((prompt[:1, 4:], rest[:1]), 1))
    assert torch.allclose(out[:1], alone[:, 3:], atol=1e-5)


def test_a_row_goes_on_after_padding_in_its_middle(model):
    """Padding on the right of a prompt, then more text: the row alone says the same."""
    prompt, rest = random_tokens(2, 7), random_tokens(2, 4)
    pad = torch.zeros(2, 7, dtype=torch.bool)
    pad[0, :2], pad[0, 5:] = True, True
    cache = model.new_cache(2)
    with torch.no_grad():
        model(prompt, cache=cache, pad=pad)
        pieces = [model(t, cache=cache) for t in rest.split([3, 1], 1)]
        alone = model(torch.cat((prompt[:1, 2:5], rest[:1]), 1))
        whole = model(torch.cat((prompt[1:], rest[1:]), 1))
    out = torch.cat(pieces, 1)
    assert torch.allclose(out[:1], alone[:, 3:], atol=1e-5)
    assert torch.allclose(out[1:], whole[:, 7:], atol=1e-5)


@pytest.mark.parametrize("path", ["auto", "naive"])
@pytest.mark.parametrize("preset", ["deepseek-llm-mini", "deepseek-v3-mini"])
def test_packed_documents_are_read_as_if_alone(preset, path):
    torch.manual_seed(1)
    model = dm.Transformer(dm.Config.preset(preset)).double().eval()
    lengths = [5, 1, 9, 2]
    tokens = torch.randint(0, model.config.vocab_size, (2, sum(lengths)))
    numbers = torch.tensor([7, 2, 2 - 9, 0])  # only equality counts
    documents = numbers.repeat_interleave(torch.tensor(lengths)).expand(2, -1)
    with torch.no_grad(), dm.paths(attention=path):
        packed = model(tokens, documents=documents)
        alone = [model(piece) for piece in tokens.split(lengths, dim=1)]
    assert torch.allclose(packed, torch.cat(alone, 1), atol=1e-9)
    assert not torch.allclose(packed, model(tokens), atol=1e-3)


def test_the_readable_path_equals_the_fast_one_forward_and_backward(model):
    tokens = random_tokens(2, 11)
    pad = torch.zeros(2, 11, dtype=torch.bool)
    pad[1, :2] = True
    results = []
    for path in ("auto", "naive"):
        model.zero_grad()
        with dm.paths(attention=path):
            out = model(tokens, pad=pad)[~pad]
        out.square().mean().backward()
        results.append([out.detach(), *(p.grad.clone() for p in model.parameters())])
    for fast, readable in zip(*results):
        assert torch.allclose(fast, readable, atol=1e-5)


def test_initial_weights_are_as_the_paper_says():
    model = dm.Transformer(dm.Config.preset("deepseek-llm-mini"))
    matrices = torch.cat([p.flatten() for p in model.parameters() if p.ndim == 2])
    assert abs(matrices.std() / model.config.init_std - 1) < 0.01
    assert all((p == 1).all() for n, p in model.named_parameters() if "norm" in n)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m(torch.zeros(2, 0, dtype=torch.long)), "at least"),
        (lambda m: m(torch.tensor([[61]])), "ids go from 0 to 60"),
        (lambda m: m(torch.tensor([[-1]])), "token id -1"),
        (lambda m: m(random_tokens(1, 41)), "max_seq_len is 40"),
        (lambda m: m(random_tokens(1, 5), cache=m.new_cache(1, 4)), "0 of 4 tokens"),
        (lambda m: m(random_tokens(2, 5), cache=m.new_cache(1)), "batch size 2"),
        (lambda m: _packed(m, cache=m.new_cache(1)), "with a cache"),
        (lambda m: _packed(m, pad=torch.zeros(1, 5) > 0), "with a pad"),
        (lambda m: m.new_cache(0), "batch_size is 0"),
        (lambda m: m.new_cache(1, 41), "1 to 40"),
        (lambda m: m.new_cache(1).truncate(1), "holds 0 tokens"),
        (lambda m: dm.paths(attention="flash").__enter__(), "auto, naive"),
        (lambda m: dm.paths(gate="naive").__enter__(), "no operation 'gate'"),
    ],
)
def test_bad_input_is_told_in_one_sentence(model, call, words):
    with pytest.raises(ValueError, match=words) as error:
        call(model)
    assert "\n" not in str(error.value)


def test_a_refused_call_leaves_the_cache_as_it_was(model):
    cache = model.new_cache(1, 4)
    model(random_tokens(1, 3), cache=cache)
    with pytest.raises(ValueError):
        model(random_tokens(1, 2), cache=cache)
    assert cache.length == 3
