"""Our models beside transformers', and our fast paths beside the readable ones.

    make bench        (or: python benchmarks/cpu.py [--rounds 7] [--out FILE])

Same weights, one thread, interleaved: each round runs both sides, one after the other,
and the ratio is that of the fastest round of each: a busy machine slows rounds down,
never up. Times are the processor's, not the wall clock's. Outputs are compared before
anything is timed. Nothing here is a test.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from timing import compared, hardware, import_seconds, print_table
from torch.nn import functional as F
from tqdm.auto import tqdm

import deepseek_mini as dm
from deepseek_mini.config import GQA, MLA, Config, MoE, Rope, SwiGLU
from deepseek_mini.model.moe import Experts

DENSE = Config(
    vocab_size=4096,
    dim=256,
    n_layers=6,
    max_seq_len=1024,
    attention=GQA(n_heads=8, n_kv_heads=2, head_dim=32),
    dense=SwiGLU(inter_dim=704),
    rope=Rope(layout="half_split"),
    init_std=0.02,
)
V3 = replace(
    DENSE,
    n_layers=4,
    max_seq_len=4096,
    attention=MLA(
        n_heads=8,
        q_lora_rank=96,
        kv_lora_rank=64,
        qk_nope_head_dim=32,
        qk_rope_head_dim=16,
        v_head_dim=32,
    ),
    rope=Rope(),
    moe=MoE(
        n_routed_experts=16,
        n_shared_experts=1,
        n_activated_experts=4,
        inter_dim=128,
        score="sigmoid",
        bias=True,
        n_groups=4,
        n_limited_groups=2,
        norm_topk=True,
        route_scale=2.5,
    ),
    n_dense_layers=1,
)
MODELS = {"dense": DENSE, "V3": V3}
DECODE_STEPS = 16
NEW_TOKENS = 128


def both_models(config: Config) -> tuple[dm.Transformer, torch.nn.Module]:
    """Ours and transformers' on the same weights, checked to give the same logits."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    ours = dm.Transformer(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        dm.save(ours, folder)
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = random_tokens(2, 33)
    with torch.no_grad():
        error = (ours(tokens) - theirs.eval()(tokens).logits).abs().max().item()
    assert error < 1e-4, f"the two models differ by {error}"
    return ours, theirs


def random_tokens(batch: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, DENSE.vocab_size, (batch, length), generator=generator)


def train_step(model: torch.nn.Module, batch: int, length: int) -> Callable[[], None]:
    """One step of AdamW at batch x length tokens, the loss computed alike for both."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = random_tokens(batch, length + 1)

    def step() -> None:
        out = model(tokens[:, :-1])
        logits = getattr(out, "logits", out)
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def decode_ours(model: dm.Transformer, prompt: torch.Tensor) -> Callable[[], None]:
    """Sixteen steps of one token each, after `prompt` is in the cache."""
    cache = model.new_cache(prompt.shape[0], prompt.shape[1] + DECODE_STEPS)
    token = prompt[:, -1:]
    with torch.inference_mode():
        model(prompt, cache=cache)

    @torch.inference_mode()
    def steps() -> None:
        for _ in range(DECODE_STEPS):
            model(token, cache=cache)
        cache.truncate(prompt.shape[1])

    return steps


def decode_theirs(model: torch.nn.Module, prompt: torch.Tensor) -> Callable[[], None]:
    """The same with transformers' own cache."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    token = prompt[:, -1:]
    with torch.inference_mode():
        model(prompt, past_key_values=cache, use_cache=True)

    @torch.inference_mode()
    def steps() -> None:
        for _ in range(DECODE_STEPS):
            model(token, past_key_values=cache, use_cache=True)
        cache.crop(-DECODE_STEPS)

    return steps


def generate_ours(model: dm.Transformer, prompt: torch.Tensor) -> Callable[[], None]:
    return lambda: dm.generate(model, prompt, max_new_tokens=NEW_TOKENS)


def generate_theirs(model: torch.nn.Module, prompt: torch.Tensor) -> Callable[[], None]:
    model.generation_config.eos_token_id = None
    return lambda: model.generate(
        prompt, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0
    )


def against_transformers(name: str, config: Config) -> Iterator[tuple]:
    """Names, and for each what to run of ours and of theirs; made one by one."""
    ours, theirs = both_models(config)
    for batch, length in ((1, 128), (1, 896), (8, 128), (8, 896)):
        p = random_tokens(batch, length)
        label = f"{name}: decode, batch {batch}, context {length}"
        yield label, decode_ours(ours, p), decode_theirs(theirs, p)
    for batch in (1, 8):
        p = random_tokens(batch, 128)
        label = f"{name}: generate {NEW_TOKENS} tokens, batch {batch}, prompt 128"
        yield label, generate_ours(ours, p), generate_theirs(theirs, p)
    label = f"{name}: train step, 8 x 256 tokens"
    yield label, train_step(ours.train(), 8, 256), train_step(theirs.train(), 8, 256)


def with_paths(run: Callable, **paths: str) -> Callable[[], None]:
    def inner() -> None:
        with dm.paths(**paths):
            run()

    return inner


def indexing_loop(
    experts: Experts, x: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """The loop over experts that one writes first: `w1[e]`, for each expert e."""
    out = torch.zeros_like(x)
    for e in chosen.unique().tolist():
        token, place = torch.where(chosen == e)
        gated = F.silu(x[token] @ experts.w1[e].T) * (x[token] @ experts.w3[e].T)
        y = gated @ experts.w2[e].T
        out.index_add_(0, token, y * weights[token, place, None])
    return out


def with_experts(n_experts: int, inter_dim: int, n_activated: int) -> Config:
    """The V3 shape with more and smaller experts."""
    moe = replace(
        V3.moe,
        n_routed_experts=n_experts,
        inter_dim=inter_dim,
        n_activated_experts=n_activated,
    )
    return replace(V3, moe=moe)


def experts_alone(n_experts: int) -> tuple[Callable, Callable]:
    """Forward and backward of 2,048 tokens through one layer's experts, each 32 wide
    and 8 of them for a token: grouped, and the loop that indexes.
    """
    torch.manual_seed(0)
    experts = Experts(DENSE.dim, with_experts(n_experts, 32, 8).moe)
    for weight in experts.parameters():
        torch.nn.init.normal_(weight, std=DENSE.dim**-0.5)
    x = torch.randn(2048, DENSE.dim)
    weights, chosen = torch.rand(2048, n_experts).topk(8)
    outs = (
        experts.grouped(x, chosen, weights),
        indexing_loop(experts, x, chosen, weights),
    )
    assert (outs[0] - outs[1]).abs().max() < 1e-3, "the two paths differ"

    def step(path: Callable) -> None:
        path(x, chosen, weights).square().mean().backward()
        experts.zero_grad()

    return partial(step, experts.grouped), partial(
        step, partial(indexing_loop, experts)
    )


def against_readable() -> Iterator[tuple]:
    """Absorbed against naive decoding as the context grows; sorted tokens against our
    loop over experts and against one that indexes, as experts become more and smaller.
    Outputs are equal by the project's tests.
    """
    torch.manual_seed(0)
    model = dm.Transformer(V3).eval()
    for length in (64, 256, 1024, 4000):
        run = decode_ours(model, random_tokens(1, length))
        label = f"V3: decode, context {length}, absorbed / naive"
        yield label, *(with_paths(run, attention=a) for a in ("absorbed", "naive"))
    for sizes in ((16, 128, 4), (64, 64, 6), (256, 32, 8)):
        model = dm.Transformer(with_experts(*sizes))
        step = train_step(model, 8, 256)
        grouped, loop = (with_paths(step, moe=path) for path in ("grouped", "loop"))
        label = f"V3: train step, {sizes[0]} experts of {sizes[1]}, grouped / "
        yield label + "loop", grouped, loop
        for module in model.modules():
            if isinstance(module, Experts):
                module.loop = partial(indexing_loop, module)
        yield label + "w[e] loop", grouped, loop
    for n_experts in (64, 128, 256, 512):
        label = f"one layer's {n_experts} experts of 32, grouped / w[e] loop"
        yield label, *experts_alone(n_experts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each (7)")
    parser.add_argument("--out", type=Path, help="JSON file (benchmarks/results/…)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = {}
    peers = [against_transformers(*item) for item in MODELS.items()]
    for cases in (*peers, against_readable()):
        for name, ours, theirs in tqdm(cases, desc="benchmarks"):
            rows[name] = compared(ours, theirs, args.rounds)
    report = {
        **hardware(),
        "seed": 0,
        "rounds": args.rounds,
        "parameters": {n: dm.count(c).parameters for n, c in MODELS.items()},
        "rows": rows,
        "import_seconds": import_seconds(5),
    }
    out = args.out or Path(__file__).parent / "results" / f"cpu-{date.today()}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    print_table(report)
    print(f"written to {out}")


if __name__ == "__main__":
    main()
