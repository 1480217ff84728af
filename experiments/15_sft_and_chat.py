"""What is trained when a base model is taught to answer, and what it forgets.

    python experiments/15_sft_and_chat.py

Small dense models are pretrained on English about Python, then fine-tuned on four kinds
of short questions in V3's template (deepseek_mini/posttraining/questions.py). In a seed
all fine-tuned models start from the same base model and read the same conversations in
the same order. The kinds:

- base: not fine-tuned;
- answers: the loss is on the answers and on the token that ends them;
- everything: the loss is on the questions and the template's tokens as well;
- no end: as answers, without the token that ends them;
- across: as answers, and conversations of a row attend to those before them;
- replay: as answers, and one row in eight is base text, all of it trained.

The log goes to deepseek_mini/assets/logs/15_sft_and_chat.jsonl: a first line that says
what ran where, then a line for every model, appended as it ends (a run that was killed
goes on with the next model). `right`: the answer is right and the model stopped by
itself, on held-out questions, greedily; `begins`: what it wrote begins with the right
answer; `ended`: it stopped within the limit. `bits_per_byte` is of the base's own
validation text.
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

from deepseek_mini import Config, Tokenizer
from deepseek_mini.data import PackedData, english, pack
from deepseek_mini.model import Transformer
from deepseek_mini.posttraining.chat import render
from deepseek_mini.posttraining.packing import PackedChats, pack_chats
from deepseek_mini.posttraining.questions import questions
from deepseek_mini.posttraining.reply import reply
from deepseek_mini.posttraining.sft import sft
from deepseek_mini.training import TrainConfig, evaluate, train

LOG = Path(__file__).parent.parent / "deepseek_mini/assets/logs/15_sft_and_chat.jsonl"
LENGTH, QUESTIONS, TEST, NEW = 64, 4000, 240, 16
PRETRAIN = TrainConfig(steps=400, batch_size=4, eval_every=400)
SFT = TrainConfig(steps=300, batch_size=8, lr=2e-3, schedule="cosine")
KINDS = ("base", "answers", "everything", "no end", "across", "replay")


def conversations(tokenizer: Tokenizer, seed: int) -> PackedChats:
    chats = [render(q.answered, "v3") for q in questions(QUESTIONS, seed)]
    return pack_chats([chat.encode(tokenizer) for chat in chats], LENGTH)


def data_of(kind: str, chats: PackedChats, text: PackedData, seed: int) -> PackedChats:
    """The rows of a kind."""
    end = chats.tokens == text.tokenizer.id("eos")
    if kind == "everything":
        first = chats.tokens == text.tokenizer.id("bos")
        return replace(chats, trained=(chats.documents > 0) & ~first)
    if kind == "no end":
        return replace(chats, trained=chats.trained & ~end)
    if kind == "across":
        return replace(chats, documents=torch.ones_like(chats.documents))
    if kind == "replay":
        window = text.batch(0, len(chats) // 7, seed)[:, :LENGTH]
        everywhere = torch.ones_like(window)
        return PackedChats(
            torch.cat([chats.tokens, window]),
            torch.cat([chats.trained, everywhere.bool()]),
            torch.cat([chats.documents, everywhere]),
        )
    return chats


def measure(model: Transformer, tokenizer: Tokenizer, text: PackedData) -> dict:
    """How the model answers held-out questions, and reads its old text."""
    asked = questions(TEST, 0, "test")
    answers = reply(model, tokenizer, [q.messages for q in asked], max_new_tokens=NEW)
    both = list(zip(asked, answers))

    def share(hits: list[bool]) -> float:
        return round(sum(hits) / len(hits), 4)

    right = [a.ended and a.text == q.answer for q, a in both]
    of_kind = {
        kind: share([hit for hit, (q, _) in zip(right, both) if q.kind == kind])
        for kind in sorted({q.kind for q in asked})
    }
    return {
        "right": share(right),
        "right_by_kind": of_kind,
        "begins": share([a.text.startswith(q.answer) for q, a in both]),
        "ended": share([a.ended for a in answers]),
        "bits_per_byte": round(evaluate(model, text)["val_bits_per_byte"], 4),
        "shown": [[q.text, a.text, a.ended] for q, a in both[:6]],
    }


def run(
    seed: int, kind: str, base: Transformer, chats: PackedChats, text: PackedData
) -> dict:
    """Fine-tune a copy of the base; its record."""
    started, model, curve = time.process_time(), Transformer(base.config), []
    model.load_state_dict(base.state_dict())
    if kind != "base":
        data = data_of(kind, chats, text, seed)
        history = sft(model, data, replace(SFT, seed=seed), progress=False)
        losses = torch.tensor([row["loss"] for row in history])
        curve = [round(x, 4) for x in losses.view(-1, 20).mean(1).tolist()]
    seconds = round(time.process_time() - started, 1)
    record = {"seed": seed, "kind": kind, "train_seconds": seconds, "curve": curve}
    return record | measure(model.eval(), text.tokenizer, text)


def header(chats: PackedChats, text: PackedData) -> dict:
    return {
        "experiment": "15_sft_and_chat",
        "command": "python experiments/15_sft_and_chat.py",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "text": text.source,
        "pretrain": {"steps": PRETRAIN.steps, "rows": PRETRAIN.batch_size},
        "sft": {"steps": SFT.steps, "rows": SFT.batch_size, "lr": SFT.lr},
        "length": LENGTH,
        "conversations": QUESTIONS,
        "trained_share": round(chats.trained.float().mean().item(), 4),
        "test": TEST,
        "new": NEW,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="models of each kind")
    parser.add_argument("--log", type=Path, default=LOG, help="where to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.small()
    text = pack(english(), tokenizer, seq_len=LENGTH)
    lines = args.log.read_text().splitlines() if args.log.exists() else []
    done = {(r["seed"], r["kind"]) for r in map(json.loads, lines[1:])}
    args.log.parent.mkdir(parents=True, exist_ok=True)
    with args.log.open("a", encoding="utf-8") as log:
        if not lines:
            first = header(conversations(tokenizer, 0), text)
            log.write(json.dumps(first, ensure_ascii=False) + "\n")
        for seed in range(args.seeds):
            left = [kind for kind in KINDS if (seed, kind) not in done]
            if not left:
                continue
            chats = conversations(tokenizer, seed)
            torch.manual_seed(seed)
            base = Transformer(Config.preset("deepseek-llm-mini"))
            train(base, text, replace(PRETRAIN, seed=seed), progress=False)
            for kind in left:
                record = run(seed, kind, base, chats, text)
                shown = ("right", "begins", "ended", "bits_per_byte")
                print(seed, kind, [record[name] for name in shown], flush=True)
                log.write(json.dumps(record, ensure_ascii=False) + "\n")
                log.flush()


if __name__ == "__main__":
    main()
