"""A small prover: search, expert iteration and RLPAF, with Lean as the judge.

    python experiments/19_prover.py

One base model is trained by SFT on 3,000 proofs and saved to deepseek_mini/assets/
checkpoints/prover-base; seeds 0, 1 and 2 are of all that follows. The 80 held-out
theorems have proofs of 5 steps or more (by a search that prefers short ones), and no
other run has seen them, up to renaming of letters.

Search, with 32 samples of the base for each held-out theorem:

- independent: whole proofs, each begun anew;
- RMaxTS: as in DeepSeek-Prover-V1.5;
- no reward: the same without the intrinsic reward, so that only the count of visits
  says where to go on;
- random node: the model goes on from any node of the tree, each equally likely.

Training, from the base, on 360 statements that are given without their proofs:

- expert iteration: two rounds of 8 samples for every statement not yet proved; then 100
  steps on what Lean accepted, mixed with as many of the first 3,000 proofs;
- more SFT: the same steps on the first 3,000 proofs alone;
- RLPAF: 24 steps of GRPO, 24 statements with 8 samples each, among those statements of
  which the base proved some and not all of 8 samples.

The log goes to deepseek_mini/assets/logs/19_prover.jsonl: a first line that says what
ran where, then a line for each run, as they end. "found" says with which sample each
held-out theorem was proved (null: not at all), "right" how many of 32 whole proofs were
accepted. Seconds are of processor time, Lean's included. Lesson 19 plots it.
"""

import argparse
import copy
import datetime
import json
import os
import platform
import random
from itertools import islice
from pathlib import Path

import torch
from shared import processor

import deepseek_mini as dm
from deepseek_mini.posttraining.lean import judge_once
from deepseek_mini.posttraining.proofs import lean_term
from deepseek_mini.posttraining.prover import (
    fine_tune,
    proof_ids,
    prover_config,
    reinforce,
    write_proofs,
)
from deepseek_mini.posttraining.rmaxts import Search, rmaxts
from deepseek_mini.posttraining.theorems import theorems

ASSETS = Path(__file__).parent.parent / "deepseek_mini/assets"
BASE = {"proofs": 3000, "steps": 400, "rows": 64, "lr": 2e-3}
BUDGET, HELD_OUT, POOL = 32, 80, 360
MORE = {"rounds": 2, "samples": 8, "steps": 100, "rows": 32, "lr": 5e-4}
RLPAF = {"steps": 24, "statements": 24, "group": 8, "lr": 2e-4, "kl": 0.02}


class NoReward(Search):
    """A tree whose arms never earn anything."""

    def update(self, path, steps, verdicts):
        super().update(path, steps, verdicts)
        for arm in (path[-1].expand, *(node.arm for node in path[1:])):
            arm.reward = 0.0


class RandomNode(Search):
    """A tree in which every node is as likely to be gone on from."""

    draw = random.Random(0)

    def select(self):
        paths = [[self.root]]
        for path in paths:
            paths += [[*path, child] for child in path[-1].children]
        return self.draw.choice(paths)


TREES = {"RMaxTS": Search, "no reward": NoReward, "random node": RandomNode}


def drawn() -> tuple[list, list, list]:
    """Theorems with proofs to learn from, statements to prove, and held-out ones."""
    known = (
        t
        for t in theorems(0, size=8, steps=3)
        if len(t.proof) <= 10 and len(proof_ids(t, t.proof)) <= 110
    )
    taught = [(t, t.proof) for t in islice(known, BASE["proofs"])]
    pool = list(islice(known, POOL))
    return taught, pool, list(islice(theorems(1, 8, 5, held_out=True), HELD_OUT))


def seconds() -> float:
    """Processor time of this process and of the Leans that it started."""
    return sum(os.times()[:4])


def sampled(model, statements, n, seed) -> list[list]:
    """For each statement n whole proofs (steps, and whether Lean accepts them)."""
    rows = [(theorem, ()) for theorem in statements for _ in range(n)]
    texts = write_proofs(model.eval(), rows, seed=seed)
    pairs = [(t.statement, lean_term(s)) for (t, _), s in zip(rows, texts)]
    proved = [verdict.proved for verdict in judge_once(pairs, {})]
    both = list(zip(texts, proved))
    return [both[i : i + n] for i in range(0, len(both), n)]


def examined(model, held_out, seed) -> dict:
    groups = sampled(model, held_out, BUDGET, 1000 + seed)
    right = [sum(proved for _, proved in group) for group in groups]
    first = [[i for i, (_, ok) in enumerate(group) if ok][:1] for group in groups]
    return {"right": right, "found": [i[0] + 1 if i else None for i in first]}


def searched(model, held_out, kind, seed) -> tuple[dict, list]:
    """What a tree search finds, at what cost, and its trees."""
    calls, known, begun = [2000 + 100 * seed], {}, [0] * 32
    written = [0]
    RandomNode.draw = random.Random(seed)

    def write(rows):
        calls[0] += 1
        texts = write_proofs(model.eval(), rows, seed=calls[0])
        written[0] += sum(map(len, texts))
        for _, steps in rows:
            begun[min(len(steps), 31)] += 1
        return texts

    trees = rmaxts(held_out, write, BUDGET, TREES[kind], known)
    return {
        "found": [s.samples if s.proof is not None else None for s in trees],
        "begun": begun,  # samples by the number of steps that they went on from
        "nodes": round(sum(s.n_nodes for s in trees) / len(trees), 2),
        "steps_written": written[0],
        "judged": len(known),
    }, trees


def expert_iteration(base, taught, pool, first, seed) -> tuple[dm.Transformer, list]:
    """`first` are the base's samples: the first round's."""
    model, proofs, counts = copy.deepcopy(base), {}, []
    for turn in range(MORE["rounds"]):
        open_ones = [t for t in pool if t not in proofs]
        groups = first
        if turn:
            groups = sampled(model, open_ones, MORE["samples"], 3000 + 10 * seed + turn)
        for theorem, group in zip(open_ones, groups):
            right = {tuple(steps) for steps, proved in group if proved}
            if right:
                proofs[theorem] = min(right, key=lambda s: (len(s), s))
        counts.append(len(proofs))
        new = list(proofs.items())
        old = random.Random(seed).sample(taught, len(new))
        more(model, new + old, 10 * seed + turn)
    return model, counts


def more(model, proofs, seed) -> None:
    fine_tune(model, proofs, MORE["steps"], MORE["rows"], MORE["lr"], seed)


def rlpaf(base, statements, seed) -> tuple[dm.Transformer, list]:
    model, reference = copy.deepcopy(base), copy.deepcopy(base).eval()
    adam = torch.optim.AdamW(model.parameters(), RLPAF["lr"], weight_decay=0.0)
    draw, known, history, n = random.Random(seed), {}, [], RLPAF["steps"]
    for step in range(n):
        warm, cool = (step + 1) / 5, (n - step) / 8
        for group in adam.param_groups:
            group["lr"] = RLPAF["lr"] * min(1, warm, cool)
        chosen = draw.sample(statements, RLPAF["statements"])
        row = reinforce(
            model,
            adam,
            chosen,
            known,
            RLPAF["group"],
            beta=RLPAF["kl"],
            reference=reference,
            seed=4000 + 100 * seed + step,
        )
        history.append({k: round(v, 4) for k, v in row.items()})
    return model, history


def tree_record(search: Search) -> dict:
    """A tree as lists: each node's parent (by number), step, and first goal."""
    nodes, rows = [search.root], []
    for i, node in enumerate(nodes):
        for child in node.children:
            rows.append([i, child.steps[-1]])
            nodes.append(child)
    return {
        "statement": search.theorem.statement,
        "proof": list(search.proof or ()),
        "nodes": rows,
        "visits": [round(node.expand.count, 2) for node in nodes],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--log", type=Path, default=ASSETS / "logs/19_prover.jsonl")
    parser.add_argument("--keep-base", action="store_true", help="do not train it anew")
    args = parser.parse_args()
    torch.set_num_threads(1)
    taught, pool, held_out = drawn()
    torch.manual_seed(0)
    base = dm.Transformer(prover_config())
    if args.keep_base:
        base = dm.load(ASSETS / "checkpoints/prover-base")
    else:
        fine_tune(base, taught, BASE["steps"], BASE["rows"], BASE["lr"])
        dm.save(base, ASSETS / "checkpoints/prover-base")
    head = {
        "experiment": "19_prover",
        "command": "python experiments/19_prover.py",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{processor()}, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "recipe": {"base": BASE, "more": MORE, "rlpaf": RLPAF, "budget": BUDGET,
                   "held_out": HELD_OUT, "pool": POOL},
        "base_seconds": round(seconds()),
    }  # fmt: skip
    records, last = [], seconds()

    def log(seed: int, kind: str, row: dict) -> None:
        nonlocal last
        took, last = seconds() - last, seconds()
        records.append({"seed": seed, "kind": kind, "seconds": round(took), **row})
        head["minutes"] = round(last / 60, 1)
        lines = [json.dumps(line) for line in [head, *records]]
        args.log.write_text("\n".join(lines) + "\n", encoding="utf-8")
        n = sum(x is not None for x in row.get("found", []))
        print(f"seed {seed}  {kind}  {n} of {HELD_OUT}  {took:.0f} s", flush=True)

    for seed in args.seeds:
        log(seed, "independent", examined(base, held_out, seed))
        for kind in TREES:
            row, trees = searched(base, held_out, kind, seed)
            if kind == "RMaxTS" and seed == 0:
                late = [s for s in trees if s.proof and s.samples <= 24]
                row["tree"] = tree_record(max(late, key=lambda s: s.n_nodes))
            log(seed, kind, row)
        first = sampled(base, pool, MORE["samples"], 3000 + 10 * seed)
        rates = [sum(proved for _, proved in group) for group in first]
        model, counts = expert_iteration(base, taught, pool, first, seed)
        row = {"proved": counts, **examined(model, held_out, seed)}
        log(seed, "expert iteration", row)
        model = copy.deepcopy(base)
        for turn in range(MORE["rounds"]):
            more(model, taught, 10 * seed + turn)
        log(seed, "more SFT", examined(model, held_out, seed))
        mixed = [t for t, r in zip(pool, rates) if 0 < r < MORE["samples"]]
        model, history = rlpaf(base, mixed, seed)
        row = {"statements": len(mixed), "history": history}
        log(seed, "RLPAF", {**row, **examined(model, held_out, seed)})


if __name__ == "__main__":
    main()
