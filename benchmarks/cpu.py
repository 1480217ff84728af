"""Our dense model beside transformers' Llama: same weights, one thread, interleaved.

    make bench        (or: python benchmarks/cpu.py [--rounds 7] [--out FILE])

Each round runs both sides, one after the other, and the ratio is that of the fastest
round of each: a busy machine slows rounds down, never up. Outputs are compared before
anything is timed. Nothing here is a test.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch.nn import functional as F
from tqdm.auto import tqdm

import deepseek_mini as dm
from deepseek_mini.config import GQA, Config, Rope, SwiGLU

CONFIG = Config(
    vocab_size=4096,
    dim=256,
    n_layers=6,
    max_seq_len=1024,
    attention=GQA(n_heads=8, n_kv_heads=2, head_dim=32),
    dense=SwiGLU(inter_dim=704),
    rope=Rope(layout="half_split"),
    init_std=0.02,
)
DECODE_STEPS = 16


def both_models() -> tuple[dm.Transformer, torch.nn.Module]:
    """Ours and transformers' on the same weights, checked to give the same logits."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    ours = dm.Transformer(CONFIG).eval()
    with tempfile.TemporaryDirectory() as folder:
        dm.save(ours, folder)
        theirs = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.randint(0, CONFIG.vocab_size, (2, 33))
    with torch.no_grad():
        error = (ours(tokens) - theirs(tokens).logits).abs().max().item()
    assert error < 1e-4, f"the two models differ by {error}"
    return ours, theirs


def train_step(model: torch.nn.Module, batch: int, length: int) -> Callable[[], None]:
    """One step of AdamW at batch x length tokens, the loss computed alike for both."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = torch.randint(0, CONFIG.vocab_size, (batch, length + 1))

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
    return lambda: dm.generate(model, prompt, max_new_tokens=64)


def generate_theirs(model: torch.nn.Module, prompt: torch.Tensor) -> Callable[[], None]:
    model.generation_config.eos_token_id = None
    return lambda: model.generate(
        prompt, max_new_tokens=64, do_sample=False, pad_token_id=0
    )


def interleaved(a: Callable, b: Callable, rounds: int) -> tuple[list, list]:
    """Seconds of `a` and of `b`, in turn, after one round that is not counted."""
    a(), b()
    times = ([], [])
    for _ in range(rounds):
        for run, seconds in zip((a, b), times):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
    return times


def import_seconds(rounds: int) -> float:
    """What `import deepseek_mini` adds after `import torch`: fastest fresh process."""
    code = (
        "import time, torch; start = time.perf_counter(); import deepseek_mini; "
        "print(time.perf_counter() - start)"
    )
    run = [sys.executable, "-c", code]
    done = [subprocess.run(run, check=True, capture_output=True) for _ in range(rounds)]
    return min(float(process.stdout) for process in done)


def cases(ours: dm.Transformer, theirs: torch.nn.Module) -> dict:
    """Name to the pair of things to run; made one by one, for memory."""

    def prompt(batch: int, length: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randint(0, CONFIG.vocab_size, (batch, length), generator=generator)

    made = {}
    for batch, length in ((1, 128), (1, 896), (8, 128), (8, 896)):
        name = f"decode, batch {batch}, context {length} ({DECODE_STEPS} tokens)"
        p = prompt(batch, length)
        made[name] = lambda p=p: (decode_ours(ours, p), decode_theirs(theirs, p))
    for batch in (1, 8):
        p = prompt(batch, 128)
        name = f"generate 64 tokens, batch {batch}, prompt 128"
        made[name] = lambda p=p: (generate_ours(ours, p), generate_theirs(theirs, p))
    made["train step, 8 x 256 tokens"] = lambda: (
        train_step(ours.train(), 8, 256),
        train_step(theirs.train(), 8, 256),
    )
    return made


def hardware() -> dict:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [x.split(":")[1].strip() for x in lines if x.startswith("model name")]
        model = names[0] if names else model
    return {"cpu": model, "cores": os.cpu_count(), "torch threads": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each (7)")
    parser.add_argument("--out", type=Path, help="JSON file (benchmarks/results/…)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    import transformers

    ours, theirs = both_models()
    rows = {}
    for name, make in tqdm(cases(ours, theirs).items(), desc="benchmarks"):
        a, b = interleaved(*make(), args.rounds)
        rows[name] = {
            "ours_ms": 1e3 * min(a),
            "transformers_ms": 1e3 * min(b),
            "ratio": min(b) / min(a),
            "round_ratios": sorted(y / x for x, y in zip(a, b)),
        }
    report = {
        "date": date.today().isoformat(),
        **hardware(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "seed": 0,
        "rounds": args.rounds,
        "parameters": dm.count(CONFIG).parameters,
        "rows": rows,
        "import_seconds": import_seconds(5),
    }
    out = args.out or Path(__file__).parent / "results" / f"cpu-{date.today()}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    print_table(report)
    print(f"written to {out}")


def print_table(report: dict) -> None:
    print(f"{report['cpu']}, one thread, torch {report['torch']}, ", end="")
    print(f"transformers {report['transformers']}, float32")
    print(f"{'':46} {'ours':>9} {'theirs':>9} {'theirs/ours':>12}")
    for name, row in report["rows"].items():
        times = f"{row['ours_ms']:7.1f}ms {row['transformers_ms']:7.1f}ms"
        print(f"{name:46} {times} {row['ratio']:11.2f}x")
    added = report["import_seconds"]
    print(f"import deepseek_mini adds {added:.2f} s to import torch")


if __name__ == "__main__":
    main()
