"""With and without multi-token prediction; then the trained module drafts.

    python experiments/12_multi_token_prediction.py

Small dense models learn the standard library's code and the English about it, half and
half. In a seed all see the same windows in the same order and start from the same
weights, but for the MTP module that two of them have. The kinds:

- plain: no MTP module;
- MTP: one module (depth 1), its loss weighted 0.3, then 0.1, as V3's;
- blind: its module gets zeros in place of the next token's embedding.

The log goes to deepseek_mini/assets/logs/12_multi_token_prediction.jsonl: a first line
that says what ran where, then a line for every model, appended as it ends (a run that
was killed goes on with the next model). `text` reads validation text and compares draft
q and model p there: `agree` is how often their likeliest tokens are the same, `overlap`
the mean of sum min(p, q). `written` continues validation text greedily, with
`speculate` and with `generate`; its seconds are the processor's.
"""

import argparse
import datetime
import json
import platform
import time
from dataclasses import replace
from pathlib import Path

import torch
from shared import processor
from torch import Tensor, nn

from deepseek_mini import Config, Tokenizer, generate
from deepseek_mini.config import MTP
from deepseek_mini.data import MixedData, PackedData, english, mix, pack, python_code
from deepseek_mini.model import Transformer
from deepseek_mini.speculative import speculate
from deepseek_mini.training import TrainConfig, evaluate, make_optimizer
from deepseek_mini.training.step import update

LOG = (
    Path(__file__).parent.parent
    / "deepseek_mini/assets/logs/12_multi_token_prediction.jsonl"
)
LENGTH, EVERY = 64, 20
TRAIN = TrainConfig(steps=600, batch_size=4)
WINDOWS, PROMPTS, PROMPT, NEW = 192, 12, 40, 48
KINDS = {"plain": None, "MTP": MTP(1), "blind": MTP(1)}


class Blind(nn.Module):
    """What `enorm` gives when the module does not read the next token."""

    def forward(self, embedded: Tensor) -> Tensor:
        return torch.zeros_like(embedded)


def build(kind: str, seed: int) -> Transformer:
    """deepseek-llm-mini with two layers, and the MTP module that the kind has."""
    config = Config.preset("deepseek-llm-mini")
    torch.manual_seed(seed)
    model = Transformer(replace(config, n_layers=2, mtp=KINDS[kind]))
    if kind == "blind":
        model.mtp[0].enorm = Blind()
    return model


@torch.no_grad()
def on_text(model: Transformer, data: PackedData) -> dict:
    """Draft against model on validation text: both have read up to token i + 1."""
    total = torch.zeros(4, dtype=torch.float64)
    for tokens in data.validation_batches(32, WINDOWS):
        p = model(tokens)[:, 1:-1]  # [B, T - 2, V]: after token i + 1
        q = model.mtp_logits(tokens)[0][:, :-2]  # [B, T - 2, V]: the guess at that
        best, guess, truth = p.argmax(-1), q.argmax(-1), tokens[:, 2:]
        overlap = torch.minimum(p.softmax(-1), q.softmax(-1)).sum(-1)
        for i, x in enumerate((best == guess, overlap, best == truth, guess == truth)):
            total[i] += x.double().mean() * len(tokens)
    names = ("agree", "overlap", "model_right", "draft_right")
    n_rows = sum(len(rows) for rows in data.validation_batches(32, WINDOWS))
    return {n: round(x, 4) for n, x in zip(names, (total / n_rows).tolist())}


def written(model: Transformer, data: PackedData) -> dict:
    """Greedy continuations of validation text, with drafts and without."""
    sums = {"passes": 0, "drafted": 0, "accepted": 0, "tokens": 0}
    seconds, identical = {"speculate": 0.0, "generate": 0.0}, True
    prompts = torch.cat(list(data.validation_batches(PROMPTS, PROMPTS)))[:, :PROMPT]
    for prompt in prompts:
        started = time.process_time()
        out = speculate(model, prompt[None], NEW)
        between = time.process_time()
        want = generate(model, prompt[None], NEW)
        seconds["generate"] += time.process_time() - between
        seconds["speculate"] += between - started
        identical &= torch.equal(out.tokens, want)
        for name in ("passes", "drafted", "accepted"):
            sums[name] += getattr(out, name)
        sums["tokens"] += NEW
    seconds = {name: round(x, 2) for name, x in seconds.items()}
    return {**sums, "identical": identical, "seconds": seconds}


def run(seed: int, kind: str, data: MixedData) -> dict:
    """Train one model; its record."""
    model = build(kind, seed)
    config = replace(TRAIN, seed=seed)
    optimizer = make_optimizer(model, config)
    started, curves, sums = time.process_time(), {"loss": [], "mtp_loss": []}, {}
    for step in range(config.steps):
        row = update(model, data, config, optimizer, step)
        for name in curves.keys() & row.keys():
            sums[name] = sums.get(name, 0.0) + row[name]
        if (step + 1) % EVERY == 0:
            for name, x in sums.items():
                curves[name].append(round(x / EVERY, 4))
            sums = {}
    seconds = time.process_time() - started
    model.eval()
    record = {
        "seed": seed,
        "kind": kind,
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_seconds": round(seconds, 1),
        "bits_per_byte": {},
        "curves": {name: curve for name, curve in curves.items() if curve},
    }
    for name, source in data.sources.items():
        score = evaluate(model, source, n_windows=WINDOWS)
        record["bits_per_byte"][name] = round(score["val_bits_per_byte"], 4)
    if model.mtp is not None:
        for part in (on_text, written):
            report = {
                name: part(model, source) for name, source in data.sources.items()
            }
            record["text" if part is on_text else "written"] = report
    return record


def header(data: MixedData) -> dict:
    return {
        "experiment": "12_multi_token_prediction",
        "command": "python experiments/12_multi_token_prediction.py",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "text": data.source,
        "train": {"steps": TRAIN.steps, "rows": TRAIN.batch_size, "length": LENGTH},
        "lr": TRAIN.lr,
        "mtp_weight": TRAIN.mtp_weight,
        "every": EVERY,
        "windows": WINDOWS,
        "prompts": PROMPTS,
        "prompt": PROMPT,
        "new": NEW,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="models of each kind")
    parser.add_argument("--log", type=Path, default=LOG, help="where to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.small()
    code = pack(python_code(), tokenizer, seq_len=LENGTH)
    text = pack(english(), tokenizer, seq_len=LENGTH)
    data = mix({"code": (code, 1), "english": (text, 1)})
    lines = args.log.read_text().splitlines() if args.log.exists() else []
    done = {(r["seed"], r["kind"]) for r in map(json.loads, lines[1:])}
    args.log.parent.mkdir(parents=True, exist_ok=True)
    with args.log.open("a", encoding="utf-8") as log:
        if not lines:
            log.write(json.dumps(header(data)) + "\n")
            log.flush()
        for seed in range(args.seeds):
            for kind in KINDS:
                if (seed, kind) not in done:
                    record = run(seed, kind, data)
                    print(seed, kind, record["bits_per_byte"], flush=True)
                    log.write(json.dumps(record) + "\n")
                    log.flush()


if __name__ == "__main__":
    main()
