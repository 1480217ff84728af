"""Fill in the middle, trained or not; repositories in order, shuffled or reversed.

    python experiments/07_coder_fim.py

Part one. A small DeepSeek-Coder learns functions of the standard library, with none or
half of them cut for filling in the middle. On functions of other modules, near
copies of training functions left out: one line, or one name, is hidden, and the model
writes it, from both sides (PSM) or from what stands before it. Then the loss of the
hidden lines, given both sides, the left one alone, or the right one of another
function.

One longer run of each rate, with shorter functions, asks whether it was only too
little, and at which place of a middle the loss is.

Part two. Modules are cut into repositories, a file for each definition. The model of
part one that was trained without FIM goes on with these repositories, their files in
order of imports, shuffled, or reversed. On repositories of other modules: the loss of a
file that imports others, when those stand before it, when other files of the same
module do (as many tokens), or none.

The log, deepseek_mini/assets/logs/07_coder_fim.jsonl, has a first line that says what
ran where, then a line for every seed and model. Lesson 07 plots it.
"""

import argparse
import ast
import datetime
import io
import json
import keyword
import math
import platform
import random
import re
import time
import tokenize
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from shared import processor
from torch.nn import functional as F

import deepseek_mini as dm
from deepseek_mini.config import GQA, Rope, SwiGLU
from deepseek_mini.data import Corpus, Document, Repository, pack, python_code
from deepseek_mini.data.dedup import near_duplicates
from deepseek_mini.data.fim import cut, psm
from deepseek_mini.data.functions import python_functions, split_module
from deepseek_mini.data.repository import concatenate, dependencies, order
from deepseek_mini.training import TrainConfig, train

LOG = Path(__file__).parent.parent / "deepseek_mini/assets/logs/07_coder_fim.jsonl"
TOKENIZER = dm.Tokenizer.small()
BOS, EOS = TOKENIZER.id("bos"), TOKENIZER.id("eos")
NEWLINES = [i for i in range(1024) if "\n" in TOKENIZER.decode([i], skip_special=True)]
RATES = (0.0, 0.5)
ORDERS = ("imports first", "shuffled", "reversed")
# The miniature preset, made narrower: three seeds of it in ten minutes of one core.
CONFIG = replace(
    dm.Config.preset("deepseek-coder-mini"),
    dim=96,
    n_layers=3,
    attention=GQA(n_heads=3, n_kv_heads=3, head_dim=32),
    dense=SwiGLU(inter_dim=256),
)
# The preset's rotations are slowed for long texts, from the first step. One longer run
# of each rate has plain ones, and shorter functions, of which more fit into a batch.
LONG_CONFIG = replace(CONFIG, rope=Rope(theta=10_000.0, layout="half_split"))
LONG_STEPS, LONG_LENGTH, LONG_LINES = 2000, 128, 10
FIM_STEPS, FIM_LENGTH = 500, 256
ORDER_STEPS, ORDER_LENGTH = 120, 512
LONGEST_FILE = 400  # tokens
HELD_OUT = 200  # functions
NEW_TOKENS = 24
NATS_TO_BITS = 1 / math.log(2)


# --- losses and texts -------------------------------------------------------------


@torch.no_grad()
def losses(model, rows: list[tuple[list[int], list[int]]]) -> list[float]:
    """For each (context, target) the loss of the target's tokens, summed, in nats."""
    made = [0.0] * len(rows)
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i][0] + rows[i][1]))
    for start in range(0, len(rows), 16):
        batch = by_length[start : start + 16]
        width = max(len(rows[i][0] + rows[i][1]) for i in batch)
        tokens = torch.zeros(len(batch), width, dtype=torch.int64)
        target = torch.zeros(len(batch), width, dtype=torch.bool)
        for j, i in enumerate(batch):
            context, wanted = rows[i]
            n = len(context) + len(wanted)
            tokens[j, :n] = torch.tensor(context + wanted)
            target[j, len(context) : n] = True
        each = F.cross_entropy(
            model(tokens[:, :-1]).mT, tokens[:, 1:], reduction="none"
        )
        sums = (each * target[:, 1:]).sum(1).tolist()
        for j, i in enumerate(batch):
            made[i] = sums[j]
    return made


def written(model, prompts: list[list[int]], stop: list[int]) -> list[tuple[str, bool]]:
    """What the model writes after each prompt, and whether it came to an end token."""
    texts: list[tuple[str, bool]] = [("", False)] * len(prompts)
    by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(prompts), 50):
        batch = by_length[start : start + 50]
        tokens, pad = dm.left_pad([prompts[i] for i in batch])
        out = dm.generate(model, tokens, NEW_TOKENS, stop=stop, pad=pad)
        for row, i in zip(out[:, tokens.shape[1] :].tolist(), batch):
            end = next((k for k, id in enumerate(row) if id in stop), None)
            # A token that ends the line may begin with text that belongs to it.
            ids = row if end is None else row[: end + 1]
            text = TOKENIZER.decode(ids, skip_special=True)
            texts[i] = (text, end is not None)
    return texts


# --- part one: fill in the middle -------------------------------------------------


def held_out_functions(corpus: Corpus) -> tuple[Document, ...]:
    """HELD_OUT functions of other modules that nearly repeat none of the training's."""
    rng = random.Random(0)
    candidates = [d for d in corpus.validation if len(d.text) < 900]
    rng.shuffle(candidates)
    candidates = candidates[: 2 * HELD_OUT]
    texts = [d.text for d in (*corpus.train, *candidates)]
    doubles = near_duplicates(texts, threshold=0.5)[len(corpus.train) :]
    return tuple(d for d, double in zip(candidates, doubles) if double is None)[
        :HELD_OUT
    ]


def hidden_line(text: str, rng: random.Random) -> tuple[str, str, str]:
    """The function before, in and after a line of its body; newlines stay outside."""
    lines = text.split("\n")
    body = [i for i in range(1, len(lines)) if lines[i].strip()]
    i = rng.choice(body)
    before = "".join(f"{line}\n" for line in lines[:i])
    return before, lines[i], "\n" + "\n".join(lines[i + 1 :])


def hidden_name(text: str, rng: random.Random) -> tuple[str, str, str] | None:
    """The function before, in and after one name below its first line.

    A space before the name goes with it, as in the tokens of whole text.
    """
    starts = np.cumsum([0, *(len(line) + 1 for line in text.split("\n"))])
    names = [
        token
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.NAME
        and token.start[0] > 1
        and not keyword.iskeyword(token.string)
    ]
    if not names:
        return None
    token = rng.choice(names)
    first = int(starts[token.start[0] - 1]) + token.start[1]
    last = first + len(token.string)
    first -= text[first - 1] == " "
    return text[:first], text[first:last], text[last:]


def compiles(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


def score(model, tasks, kind: str) -> dict[str, float]:
    """Exact matches of hidden lines or names, from both sides and from the left."""
    encode = TOKENIZER.encode
    both = [[BOS, *psm(encode(a), encode(c), TOKENIZER)] for a, _, c in tasks]
    left = [[BOS, *encode(a)] for a, _, _ in tasks]
    filled = written(model, both, sorted(TOKENIZER.special_ids.values()))
    control = sorted(TOKENIZER.special_ids.values())
    ended = sum(end for _, end in filled) / len(tasks)
    filled = [text for text, _ in filled]
    went_on = [text for text, _ in written(model, left, sorted({*NEWLINES, *control}))]
    if kind == "line":
        went_on = [text.split("\n")[0] for text in went_on]
    else:
        went_on = [re.match(r"\s*\w*", text)[0] for text in went_on]
    wanted = [b for _, b, _ in tasks]
    result = {f"{kind}_ended": ended}
    for name, texts in (("both", filled), ("left", went_on)):
        right = [text.strip() == want.strip() for text, want in zip(texts, wanted)]
        whole = [a + text + c for (a, _, c), text in zip(tasks, texts)]
        result[f"{kind}_{name}"] = sum(right) / len(tasks)
        result[f"{kind}_{name}_compiles"] = sum(map(compiles, whole)) / len(tasks)
    return {key: round(value, 4) for key, value in result.items()}


def line_losses(model, tasks, documents: tuple[Document, ...]) -> dict[str, float]:
    """Bits a byte of the hidden lines by what was read, and of whole functions."""
    rows = {"both": [], "left": [], "wrong": []}
    for i, (before, line, after) in enumerate(tasks):
        texts = (before, line, after, tasks[i - 1][2])
        a, b, c, wrong = TOKENIZER.encode_batch(texts)
        rows["both"].append(([BOS, *psm(a, c, TOKENIZER)], b))
        rows["left"].append(([BOS, *a], b))
        rows["wrong"].append(([BOS, *psm(a, wrong, TOKENIZER)], b))
    rows["whole"] = [([BOS], TOKENIZER.encode(d.text)) for d in documents]
    n_bytes = dict.fromkeys(rows, sum(len(line.encode()) for _, line, _ in tasks))
    n_bytes["whole"] = sum(len(d.text.encode()) for d in documents)
    return {
        f"loss_{name}": round(sum(losses(model, r)) * NATS_TO_BITS / n_bytes[name], 4)
        for name, r in rows.items()
    }


def by_place(model, documents: tuple[Document, ...]) -> dict[str, list[float]]:
    """Nats a token of randomly cut middles, by place in the middle, 0 to 24."""
    rng = np.random.default_rng(0)
    sums, n = {"both": np.zeros(25), "left": np.zeros(25)}, 0
    for document in documents:
        prefix, middle, suffix = cut(document.text, rng)
        a, b, c = TOKENIZER.encode_batch([prefix, middle, suffix])
        if len(b) < 25 or min(len(a), len(c)) < 5:
            continue
        n += 1
        for name, read in (("both", psm(a, c, TOKENIZER)), ("left", a)):
            with torch.no_grad():
                logits = model(torch.tensor([[BOS, *read, *b[:25]]]))[0, -26:-1]
            each = F.cross_entropy(logits, torch.tensor(b[:25]), reduction="none")
            sums[name] += each.numpy()
    places = {f"places_{k}": [round(x, 4) for x in v / n] for k, v in sums.items()}
    return {"places_n": n} | places


# --- part two: the order of files -------------------------------------------------


def groups_of(
    modules: tuple[Document, ...],
) -> list[tuple[Repository, dict, list[str]]]:
    """(repository, imports, files in order) for every group of two files or more."""
    found = []
    for module in modules:
        repository = split_module(module)
        files = tuple(
            f for f in repository.files if len(TOKENIZER.encode(f.text)) <= LONGEST_FILE
        )
        graph = dependencies(files)
        repository = Repository(module.name, files)
        found += [(repository, graph, g) for g in order(graph) if len(g) > 1]
    return found


def arranged(group: list[str], how: str, seed: int) -> list[str]:
    if how == "shuffled":
        return random.Random(f"{seed} {group}").sample(group, len(group))
    return group[::-1] if how == "reversed" else group


def order_corpus(groups, validation, how: str, seed: int) -> Corpus:
    documents = []
    for repository, _, group in groups:
        texts = {file.name: file for file in repository.files}
        text = concatenate([texts[path] for path in arranged(group, how, seed)])
        documents.append(Document(f"{repository.name}:{group[0]}", text))
    return Corpus(f"repositories, files {how}", tuple(documents), validation)


def import_tasks(groups) -> list[tuple[dict[str, list[int]], list[int]]]:
    """For each importing file: contexts of equal length, and its tokens below imports.

    The imported files are in order; the others are files of the same module that
    neither import it nor are imported by it.
    """
    tasks = []
    for repository, graph, group in groups:
        texts = {file.name: file for file in repository.files}
        for path in group:
            imported = [p for p in group if p in graph[path]]
            unrelated = [
                p for p in texts
                if p != path and p not in graph[path] and path not in graph[p]
            ]  # fmt: skip
            if not imported or not unrelated:
                continue
            random.Random(path).shuffle(unrelated)
            before = TOKENIZER.encode(concatenate([texts[p] for p in imported]) + "\n")
            other = TOKENIZER.encode(concatenate([texts[p] for p in unrelated]) + "\n")
            lines = texts[path].text.split("\n")
            n = next(i for i, line in enumerate(lines) if not line.startswith("from "))
            head = TOKENIZER.encode("\n".join([f"# {path}", *lines[:n]]) + "\n")
            target = TOKENIZER.encode("\n".join(lines[n:]))
            room = ORDER_LENGTH - len(head) - len(target) - 1
            length = min(room, len(before), len(other))
            if length < 30:
                continue
            contexts = {
                "imported": [BOS, *before[-length:], *head],
                "others": [BOS, *other[-length:], *head],
                "none": [BOS, *head],
            }
            tasks.append((contexts, target))
    return tasks


def order_losses(model, tasks, groups) -> dict[str, float]:
    """Nats a token of importing files by what stood before, and of whole groups."""
    n = sum(len(target) for _, target in tasks)
    result = {}
    for name in ("imported", "others", "none"):
        rows = [(contexts[name], target) for contexts, target in tasks]
        result[name] = round(sum(losses(model, rows)) / n, 4)
    for how in ORDERS:
        documents = order_corpus(groups, (), how, seed=0).train
        encoded = [TOKENIZER.encode(d.text)[:ORDER_LENGTH] for d in documents]
        total = sum(losses(model, [([BOS], ids) for ids in encoded]))
        result[f"whole {how}"] = round(total / sum(map(len, encoded)), 4)
    return result


# --- all of it --------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=float, default=1.0, help="times the usual ones")
    parser.add_argument("--log", type=Path, default=LOG, help="where to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    fim_steps, order_steps, long_steps = (
        int(n * args.steps) for n in (FIM_STEPS, ORDER_STEPS, LONG_STEPS)
    )
    started = time.process_time()
    functions, code = python_functions(), python_code()
    held_out = held_out_functions(functions)
    rng = random.Random(0)
    lines = [hidden_line(d.text, rng) for d in held_out]
    names = [task for d in held_out if (task := hidden_name(d.text, rng))]
    groups, held_groups = groups_of(code.train), groups_of(code.validation)
    tasks = import_tasks(held_groups)
    recipes = {
        "fim": TrainConfig(fim_steps, batch_size=4, eval_every=fim_steps),
        "long": TrainConfig(long_steps, batch_size=8, lr=3e-3, eval_every=long_steps),
        "order": TrainConfig(
            order_steps, batch_size=2, lr=1e-3, eval_every=order_steps
        ),
    }
    header = {
        "experiment": "07_coder_fim",
        "command": "python experiments/07_coder_fim.py",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "text": functions.source,
        "functions": {"training": len(functions.train), "held out": len(held_out)},
        "names": len(names),
        "groups": {"training": len(groups), "held out": len(held_groups)},
        "importing_files": len(tasks),
        "parameters": dm.count(CONFIG).parameters,
        "fim_length": FIM_LENGTH,
        "order_length": ORDER_LENGTH,
        "recipes": {
            name: {"steps": r.steps, "batch_size": r.batch_size, "lr": r.lr}
            for name, r in recipes.items()
        },
    }
    print(json.dumps(header), flush=True)
    records = []

    def record(
        part: str, seed: int, variant: object, scores: dict, began: float
    ) -> None:
        used = round(time.process_time() - began, 1)
        records.append(
            {"part": part, "seed": seed, "variant": variant, **scores, "seconds": used}
        )
        print(json.dumps(records[-1]), flush=True)

    def learn(model, data, part, seed):
        recipe = recipes[part]
        train(model, data, replace(recipe, seed=seed), progress=False)

    for seed in range(args.seeds):
        base = None
        for rate in RATES:
            began = time.process_time()
            torch.manual_seed(seed)
            model = dm.Transformer(CONFIG)
            data = pack(functions, TOKENIZER, FIM_LENGTH, fim_rate=rate, seed=seed)
            learn(model, data, "fim", seed)
            base = base or model
            scores = score(model, lines, "line") | score(model, names, "name")
            record(
                "fim", seed, rate, scores | line_losses(model, lines, held_out), began
            )
        began = time.process_time()
        record("order", seed, "before", order_losses(base, tasks, held_groups), began)
        for how in ORDERS:
            began = time.process_time()
            model = dm.Transformer(CONFIG)
            model.load_state_dict(base.state_dict())
            corpus = order_corpus(groups, code.validation, how, seed)
            learn(model, pack(corpus, TOKENIZER, ORDER_LENGTH), "order", seed)
            record("order", seed, how, order_losses(model, tasks, held_groups), began)
    short = python_functions(max_lines=LONG_LINES)
    for rate in RATES:
        began = time.process_time()
        torch.manual_seed(0)
        model = dm.Transformer(LONG_CONFIG)
        learn(model, pack(short, TOKENIZER, LONG_LENGTH, fim_rate=rate), "long", 0)
        scores = score(model, lines, "line") | score(model, names, "name")
        scores |= line_losses(model, lines, held_out) | by_place(
            model, short.validation
        )
        record("long", 0, rate, scores, began)
    header["seconds"] = round(time.process_time() - started)
    args.log.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in [header, *records])
    args.log.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
