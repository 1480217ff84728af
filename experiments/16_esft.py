"""Eight ways to fine-tune a mixture of experts: what a task gains, what is forgotten.

    python experiments/16_esft.py

A small DeepSeekMoE (three layers of `deepseek-moe-mini`) is pretrained once on code and
English, in equal parts, and saved to deepseek_mini/assets/checkpoints/esft-base
(float16) unless it is there. All runs fine-tune what is read back from there, on one of
two tasks (deepseek_mini/posttraining/rewriting.py). The kinds:

- base: not fine-tuned;
- full: all parameters;
- gate, token: ESFT by average gate scores with p = 0.1, or token selection ratios with
  p = 0.2, from 64 samples of the task: the paper's two;
- wide: as token, with p = 0.6;
- random: as many experts a layer as wide chose, drawn at random;
- lora: rank 2, scaling 2, in every matrix of the layers;
- short: as full, for a quarter of the steps;
- long: as wide, for three times as many.

First each of full, wide and lora is trained on the words with the learning rates of
RATES and a seed that is used for nothing else. The rate of the lowest loss, on
questions of the training split drawn by another seed, is taken for both tasks, full's
by short too, and wide's by the other kinds of ESFT. In a seed all kinds read the same
questions in the same order.

The log goes to deepseek_mini/assets/logs/16_esft.jsonl: a first line that says what ran
where, a line of the base with its relevance scores, then a line for every run, appended
as it ends (a run that was killed goes on with the next). `loss` is in nats a token of
the answers to held-out questions; `right`: every token of the answer is the likeliest;
`bits` a byte are of 64 windows each of validation code and English.
"""

import argparse
import datetime
import json
import platform
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from shared import processor
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

import deepseek_mini as dm
from deepseek_mini import Config, Tokenizer
from deepseek_mini.data import MixedData, english, mix, pack, python_code
from deepseek_mini.model import Transformer
from deepseek_mini.model.moe import Experts
from deepseek_mini.posttraining.esft import (
    choose_experts,
    relevance,
    train_experts_only,
    trained_parameters,
)
from deepseek_mini.posttraining.lora import add_lora
from deepseek_mini.posttraining.packing import PackedChats, pack_chats
from deepseek_mini.posttraining.rewriting import rewritings
from deepseek_mini.posttraining.sft import sft
from deepseek_mini.training import TrainConfig, evaluate, train
from deepseek_mini.training.balance import Balance

ASSETS = Path(__file__).parent.parent / "deepseek_mini/assets"
LOG, BASE = ASSETS / "logs/16_esft.jsonl", ASSETS / "checkpoints/esft-base"
LENGTH, QUESTIONS, TEST, SAMPLES = 96, 3000, 240, 64
PRETRAIN = TrainConfig(
    steps=700, batch_size=4, eval_every=700, balance=Balance(expert_loss=0.001)
)
TUNE = TrainConfig(steps=80, batch_size=4, schedule="cosine", warmup=10)
TASKS = ("words", "json")
KINDS = ("base", "full", "gate", "token", "wide", "random", "lora", "short", "long")
P = {"gate": 0.1, "token": 0.2, "wide": 0.6, "random": 0.6, "long": 0.6}
STEPS = {"short": TUNE.steps // 4, "long": TUNE.steps * 3}
RATES, SWEPT, SWEEP_SEED = (1e-3, 3e-3, 1e-2), ("full", "wide", "lora"), 1000


def all_at_once(self: Experts, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """What `Experts` computes, by way of every expert for every token: at this size a
    few large products take less time than many small ones.
    """
    up = [w.flatten(0, 1) for w in (self.w1, self.w3)]  # [E I, D] each
    gated = F.silu(x @ up[0].T) * (x @ up[1].T)  # [N, E I]
    w2 = self.w2
    weight = x.new_zeros(len(x), len(w2)).scatter(1, chosen, weights)  # [N, E]
    gated = gated.unflatten(1, (len(w2), -1)) * weight[..., None]
    return gated.flatten(1) @ w2.transpose(1, 2).flatten(0, 1)  # [N, D]


def base_model(text: MixedData) -> tuple[float, Transformer]:
    """Minutes of pretraining (0 if it is there), and the model read from its file."""
    minutes = 0.0
    if not (BASE / "config.json").exists():
        torch.manual_seed(0)
        config = replace(Config.preset("deepseek-moe-mini"), n_layers=3)
        model, started = Transformer(config), time.process_time()
        train(model, text, PRETRAIN, progress=False)
        minutes = (time.process_time() - started) / 60
        dm.save(model.half(), BASE)
    return minutes, dm.load(BASE).float()


def samples(task: str, text: MixedData) -> tuple[Tensor, Tensor]:
    """Tokens and padding, [64, T] each, of a task or of one of the base's texts."""
    if task in TASKS:
        asked = rewritings(task, SAMPLES, seed=7)
        ids = [torch.tensor(one.encode(text.tokenizer).ids) for one in asked]
        tokens = pad_sequence(ids, batch_first=True, padding_value=-1)
        return tokens.clamp(min=0), tokens < 0
    tokens = text.sources[task].batch(0, SAMPLES, seed=7)[:, :LENGTH]
    return tokens, torch.zeros_like(tokens, dtype=torch.bool)


def data_of(task: str, n: int, seed: int, split: str = "train") -> PackedChats:
    tokenizer = Tokenizer.small()
    asked = rewritings(task, n, seed, split)
    return pack_chats([one.encode(tokenizer) for one in asked], LENGTH)


@torch.no_grad()
def score(model: Transformer, data: PackedChats) -> dict[str, float]:
    """Nats a token of the answers, and the share of them that is right as a whole."""
    logits = model(data.tokens[:, :-1], documents=data.documents[:, :-1])
    want, counts = data.tokens[:, 1:], data.trained[:, 1:]
    nats = F.cross_entropy(logits.transpose(1, 2), want, reduction="none")
    wrong = counts & (logits.argmax(-1) != want)
    documents = data.documents[:, 1:] * counts
    right = [
        not bool(wrong[row][documents[row] == number].any())
        for row in range(len(data))
        for number in range(1, int(documents[row].max()) + 1)
    ]
    loss = float(nats[counts].mean())
    return {"loss": round(loss, 4), "right": round(sum(right) / len(right), 4)}


def prepare(model: Transformer, kind: str, scores: dict, seed: int) -> list | None:
    """Freeze what the kind freezes; the experts that it trains."""
    torch.manual_seed(seed)
    if kind == "lora":
        add_lora(model, rank=2)
    if kind in ("full", "short", "lora", "base"):
        return None
    by = "gate" if kind == "gate" else "token"
    chosen = choose_experts(scores[by], P[kind])
    if kind == "random":
        n_experts = model.config.moe.n_routed_experts
        sizes = map(len, chosen)
        chosen = [sorted(torch.randperm(n_experts)[:n].tolist()) for n in sizes]
    train_experts_only(model, chosen)
    return chosen


def run(
    base: Transformer,
    text: MixedData,
    scores: dict,
    *,
    task: str,
    kind: str,
    seed: int,
    lr: float,
) -> dict:
    """Fine-tune a copy of the base; its record."""
    model = Transformer(base.config)
    model.load_state_dict(base.state_dict())
    chosen = prepare(model, kind, scores[task], seed)
    record = {"task": task, "kind": kind, "seed": seed, "lr": lr, "experts": chosen}
    record["trained"] = 0 if kind == "base" else trained_parameters(model)
    if kind != "base":
        record["steps"] = STEPS.get(kind, TUNE.steps)
        recipe = replace(TUNE, steps=record["steps"], lr=lr, seed=seed)
        started = time.process_time()
        sft(model, data_of(task, QUESTIONS, seed), recipe, progress=False)
        record["seconds"] = round(time.process_time() - started, 1)
    model.eval()
    if seed == SWEEP_SEED:
        return record | score(model, data_of(task, TEST, seed=999))
    old = evaluate(model, text, n_windows=128)
    bits = {name: round(old[f"val_bits_per_byte/{name}"], 4) for name in text.sources}
    return record | score(model, data_of(task, TEST, 0, "test")) | {"bits": bits}


def best_rates(swept: list[dict]) -> dict[str, float]:
    """The learning rate of each kind."""
    rates = {"base": 0.0}
    for kind in SWEPT:
        of_kind = [r for r in swept if r["kind"] == kind]
        rates[kind] = min(of_kind, key=lambda r: r["loss"])["lr"]
    rates["short"] = rates["full"]
    return dict.fromkeys(("gate", "token", "random", "long"), rates["wide"]) | rates


def header(text: MixedData) -> dict:
    return {
        "experiment": "16_esft",
        "command": "python experiments/16_esft.py",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "text": text.source,
        "pretrain": {"steps": PRETRAIN.steps, "rows": PRETRAIN.batch_size},
        "tune": {"steps": TUNE.steps, "rows": TUNE.batch_size, "length": LENGTH},
        "p": P,
        "rates": RATES,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind")
    parser.add_argument("--log", type=Path, default=LOG, help="where to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    Experts.forward = all_at_once
    tokenizer = Tokenizer.small()
    corpora = {"code": python_code(), "english": english()}
    text = mix({name: (pack(c, tokenizer, LENGTH), 1) for name, c in corpora.items()})
    minutes, base = base_model(text)
    scores = {
        task: asdict(relevance(base, *samples(task, text)))
        for task in (*corpora, *TASKS)
    }
    lines = args.log.read_text().splitlines() if args.log.exists() else []
    records = [json.loads(line) for line in lines[2:]]
    with args.log.open("a", encoding="utf-8") as log:

        def write(record: dict) -> None:
            log.write(json.dumps(record) + "\n")
            log.flush()

        if not lines:
            write(header(text))
            rounded = {
                task: {k: s.mul(1e5).round().div(1e5).tolist() for k, s in two.items()}
                for task, two in scores.items()
            }
            write({"pretrain_minutes": round(minutes, 2), "relevance": rounded})

        def once(**what) -> dict:
            found = [r for r in records if what.items() <= r.items()]
            if not found:
                found = [run(base, text, scores, **what)]
                write(found[0])
                records.extend(found)
                shown = {k: v for k, v in found[0].items() if k != "experts"}
                print(shown, flush=True)
            return found[0]

        swept = [
            once(task="words", kind=kind, seed=SWEEP_SEED, lr=lr)
            for kind in SWEPT
            for lr in RATES
        ]
        rates = best_rates(swept)
        for seed in range(args.seeds):
            for task in TASKS:
                for kind in KINDS:
                    if kind != "base" or seed == 0:
                        once(task=task, kind=kind, seed=seed, lr=rates[kind])


if __name__ == "__main__":
    main()
