"""A small language model that writes proofs, a step after another.

A text for it is a statement, then the steps of a proof: ⊢ a → b → a : intro ; intro ;
exact h0 ; and the end. Its words are its tokens. It learns from proofs (`fine_tune`)
and from Lean's verdicts (`reinforce`), as DeepSeek-Prover-V1.5 does (arXiv 2408.08152,
§2.2 and §2.3).
"""

import random
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from deepseek_mini.config import GQA, Config, SwiGLU
from deepseek_mini.generate import generate, left_pad
from deepseek_mini.model import Transformer
from deepseek_mini.posttraining.grpo import Objective, group_advantages, improve
from deepseek_mini.posttraining.lean import Verdict, judge_once
from deepseek_mini.posttraining.proofs import NAMED, STEPS, lean_term
from deepseek_mini.posttraining.rollout import sample_groups
from deepseek_mini.posttraining.theorems import Theorem, text

N_NAMES = 24  # h0 to h23
WORDS = [
    *("<pad>", "<end>", "⊢", ":", ";", "(", ")", "→", "And", "Or", "False"),
    *("a", "b", "c", *STEPS, *(f"h{i}" for i in range(N_NAMES))),
]
IDS = {word: i for i, word in enumerate(WORDS)}
PAD, END = IDS["<pad>"], IDS["<end>"]


def prover_config(dim: int = 96, n_layers: int = 3, max_seq_len: int = 160) -> Config:
    """A dense model over these words, small enough to train in a minute."""
    return Config(
        vocab_size=len(WORDS),
        dim=dim,
        n_layers=n_layers,
        max_seq_len=max_seq_len,
        attention=GQA(n_heads=4, n_kv_heads=4, head_dim=dim // 4),
        dense=SwiGLU(inter_dim=8 * dim // 3),
        init_std=0.06,
    )


def prompt_ids(theorem: Theorem, steps: Sequence[str] = ()) -> list[int]:
    """The words of a statement and of the steps so far, as ids."""
    signs = text(theorem.formula).replace("(", " ( ").replace(")", " ) ")
    words = ["⊢", *signs.split(), ":"]
    for step in steps:
        words += [*step.split(), ";"]
    return [IDS[word] for word in words]


def proof_ids(theorem: Theorem, steps: Sequence[str]) -> list[int]:
    """`prompt_ids` of a whole proof, and the end."""
    return [*prompt_ids(theorem, steps), END]


def read_steps(ids: Iterable[int]) -> list[str]:
    """The steps that generated ids spell, up to the end or to what is no step."""
    steps, words = [], []
    for i in ids:
        if i in (END, PAD):
            break
        words.append(WORDS[i])
        if words[-1] != ";":
            continue
        step = words[:-1]
        named = len(step) == 2 and step[0] in NAMED and step[1].startswith("h")
        if not named and not (len(step) == 1 and step[0] in STEPS.keys() - NAMED):
            break
        steps.append(" ".join(step))
        words = []
    return steps


def whole_prefix(steps: Sequence[str]) -> list[str]:
    """The steps up to the one that fills the last hole: what follows has no place."""
    kept: list[str] = []
    for step in steps:
        try:
            lean_term([*kept, step])
        except ValueError:
            break
        kept.append(step)
    return kept


def write_proofs(
    model: Transformer,
    beginnings: Sequence[tuple[Theorem, Sequence[str]]],
    max_new_tokens: int = 72,
    temperature: float = 1.0,
    seed: int | None = None,
) -> list[list[str]]:
    """The steps with which the model goes on, for each theorem and its steps so far.

    max_new_tokens: cut so that the longest text still fits into the model.
    """
    rows = [prompt_ids(theorem, steps) for theorem, steps in beginnings]
    prompt, pad = left_pad(rows, PAD)
    room = model.config.max_seq_len - prompt.shape[1]
    out = generate(
        model,
        prompt,
        max_new_tokens=min(max_new_tokens, room),
        temperature=temperature,
        stop=END,
        seed=seed,
        pad=pad,
    )
    new = out[:, prompt.shape[1] :].tolist()
    return [
        whole_prefix([*steps, *read_steps(ids)])[len(steps) :]
        for (_, steps), ids in zip(beginnings, new)
    ]


def training_rows(
    proofs: Sequence[tuple[Theorem, Sequence[str]]],
) -> tuple[Int[Tensor, "N T"], Int[Tensor, "N T"]]:
    """Padded texts and their targets: -100 where nothing is to be learnt, which is the
    statement and the padding. Targets are the next tokens, so both are a token short.
    """
    rows = [proof_ids(theorem, steps) for theorem, steps in proofs]
    width = max(map(len, rows))
    tokens = torch.full((len(rows), width), PAD)
    targets = torch.full((len(rows), width - 1), -100)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
        first = len(prompt_ids(proofs[i][0])) - 1
        targets[i, first : len(row) - 1] = torch.tensor(row[first + 1 :])
    return tokens[:, :-1], targets


def fine_tune(
    model: Transformer,
    proofs: Sequence[tuple[Theorem, Sequence[str]]],
    steps: int,
    rows: int = 64,
    lr: float = 2e-3,
    seed: int = 0,
) -> None:
    """SFT: AdamW with 30 steps of warm-up and a straight line down to 0."""
    rng = random.Random(seed)
    adam = torch.optim.AdamW(model.parameters(), lr, (0.9, 0.95), weight_decay=0.1)
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 30) * (1 - step / steps)
        tokens, targets = training_rows(rng.sample(proofs, rows))
        logits = model(tokens).flatten(0, 1)
        loss = F.cross_entropy(logits, targets.flatten(), ignore_index=-100)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()


def reinforce(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    theorems: Sequence[Theorem],
    known: dict[tuple[str, str], Verdict],
    group: int = 8,
    beta: float = 0.02,
    reference: Transformer | None = None,
    updates: int = 2,
    seed: int | None = None,
) -> dict[str, float]:
    """A step of RLPAF: GRPO, where Lean's verdict on the whole proof is the reward.

    `beta` weighs the KL to the reference, `known` is as for `judge_once`. Returns
    "reward", the share of proofs that Lean accepted; "mixed", the share of groups with
    both verdicts, the only ones that teach; and what `improve` reports.
    """
    prompts = [prompt_ids(theorem) for theorem in theorems]
    room = min(72, model.config.max_seq_len - max(map(len, prompts)))
    rollout = sample_groups(model, prompts, group, room, END, seed=seed)
    written = [whole_prefix(read_steps(ids)) for ids in rollout.answers()]
    pairs = [
        (theorems[i // group].statement, lean_term(steps))
        for i, steps in enumerate(written)
    ]
    proved = [float(verdict.proved) for verdict in judge_once(pairs, known)]
    rewards = torch.tensor(proved).view(-1, group)
    advantages = group_advantages(rewards).view(-1, 1)
    chosen = (advantages, Objective(beta=beta), reference, updates)
    report = improve(model, optimizer, rollout, *chosen)
    rate = rewards.mean(dim=1)
    mixed = ((rate > 0) & (rate < 1)).float().mean()
    return {"reward": float(rewards.mean()), "mixed": float(mixed), **report}
