"""A smaller model taught by a larger one: on its answers, or on the student's own.

R1's distilled models are fine-tuned on answers that R1 wrote and a rule accepted
(arXiv 2501.12948, §2.4): `accepted_answers`, or `right_chains` for the tasks of
lesson 18, then `sft`. V4's specialists are merged into one model by on-policy
distillation (arXiv 2606.19348, §6): the student writes, and at each of its own tokens
is pulled to the teacher's whole distribution.
"""

import random
from collections.abc import Callable, Sequence
from itertools import islice

from jaxtyping import Bool, Float
from torch import Tensor, nn, no_grad
from tqdm.auto import tqdm

from deepseek_mini.model import Transformer
from deepseek_mini.posttraining.chars import END_ID, ask
from deepseek_mini.posttraining.chat import ChatTokens, Message
from deepseek_mini.posttraining.r1 import judge
from deepseek_mini.posttraining.reply import reply
from deepseek_mini.posttraining.rollout import answer_logits, sample_groups
from deepseek_mini.posttraining.tasks import Problem, Task
from deepseek_mini.tokenizer import Tokenizer
from deepseek_mini.training import TrainConfig
from deepseek_mini.training.optimizer import make_optimizer

Conversation = list[Message]


def accepted_answers(
    teacher: Transformer,
    tokenizer: Tokenizer,
    conversations: Sequence[Sequence[Message]],
    accept: Callable[[int, Message], bool],
    template: str = "v3",
    *,
    samples: int = 4,
    keep: int = 1,
    **options,
) -> list[Conversation]:
    """Rejection sampling: conversations with answers of the teacher that were accepted.

    `samples` answers are drawn for each conversation, and of those that end by
    themselves, differ, and for which `accept(i, message)` is true, where i is the
    conversation's number, the first `keep` are kept. `options` go to `reply`, which
    draws at temperature 0.6 with top_p 0.95 unless they say otherwise (R1's own).

    Raises:
        ValueError: samples or keep below 1, or as `reply`.
    """
    if samples < 1 or keep < 1:
        raise ValueError(f"samples is {samples} and keep {keep}: both start at 1")
    options = {"temperature": 0.6, "top_p": 0.95} | options
    repeated = [messages for messages in conversations for _ in range(samples)]
    replies = reply(teacher, tokenizer, repeated, template, **options)
    kept = []
    for i, messages in enumerate(conversations):
        of_this = replies[i * samples : (i + 1) * samples]
        different = {tuple(answer.ids): answer for answer in of_this if answer.ended}
        good = (a.message for a in different.values() if accept(i, a.message))
        kept += [[*messages, message] for message in islice(good, keep)]
    return kept


def right_chains(
    teacher: Transformer,
    task: Task,
    problems: Sequence[Problem],
    *,
    samples: int = 4,
    keep: int = 1,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
    rows: int = 256,
) -> list[ChatTokens]:
    """Rejection sampling by rule, for models that write characters: ready to pack.

    `samples` answers are drawn for each problem, of about `rows` at a time. Of those
    that are right, in the format, ended and different, the first `keep` are kept; what
    is trained is the answer with its end.

    Raises:
        ValueError: samples or keep below 1.
    """
    if samples < 1 or keep < 1:
        raise ValueError(f"samples is {samples} and keep {keep}: both start at 1")
    kept, piece = [], max(1, rows // samples)
    for start in range(0, len(problems), piece):
        asked = problems[start : start + piece]
        prompts = [ask(problem.question) for problem in asked]
        options = {"temperature": temperature, "seed": seed + start}
        rollout = sample_groups(
            teacher, prompts, samples, max_new_tokens, END_ID, **options
        )
        right: list[dict[tuple[int, ...], None]] = [{} for _ in asked]
        earned = judge(rollout, asked, task)
        for i, (ids, parts) in enumerate(zip(rollout.answers(), earned)):
            if min(parts.values()) == 1:
                right[i // samples][*ids, END_ID] = None
        kept += [
            ChatTokens([*prompt, *ids], [False] * len(prompt) + [True] * len(ids))
            for prompt, different in zip(prompts, right)
            for ids in islice(different, keep)
        ]
    return kept


def reverse_kl(
    student_logits: Float[Tensor, "B T V"],
    teacher_logits: Float[Tensor, "B T V"],
    mask: Bool[Tensor, "B T"],
) -> Float[Tensor, ""]:
    """KL(student ‖ teacher) = Σ_v p_s(v) log (p_s(v) / p_t(v)), in nats.

    Exact over the V entries of the vocabulary, and the mean over the tokens where the
    mask is True. It weighs by what the *student* would write, so it punishes what the
    teacher would not, and forgives what is left out. No gradient goes to the teacher.
    """
    log_s = student_logits[mask].log_softmax(dim=-1)
    log_t = teacher_logits[mask].detach().log_softmax(dim=-1)
    return (log_s.exp() * (log_s - log_t)).sum(dim=-1).mean()


def on_policy_distill(
    student: Transformer,
    teacher: Transformer,
    prompts: Sequence[Sequence[int]],
    stop: int,
    config: TrainConfig,
    *,
    max_new_tokens: int = 64,
    progress: bool = True,
) -> list[dict[str, float]]:
    """Train `student` in place; a row of metrics (step, kl, length) for each step.

    A step draws `config.batch_size` prompts, lets the student write up to the token
    `stop`, and takes the gradient of `reverse_kl` at the tokens that it wrote. That
    what it wrote depends on its weights too is left out of the gradient.

    Raises:
        ValueError: no prompts, or models with different vocabularies.
    """
    vocabularies = student.config.vocab_size, teacher.config.vocab_size
    if not prompts or vocabularies[0] != vocabularies[1]:
        raise ValueError(
            f"there are {len(prompts)} prompts, and vocabularies of {vocabularies[0]} "
            f"and {vocabularies[1]} entries: give a prompt, and models that share one"
        )
    draw = random.Random(config.seed)
    optimizer = make_optimizer(student, config)
    history = []
    teacher.eval()
    for step in tqdm(range(config.steps), disable=not progress, unit="step"):
        for group in optimizer.param_groups:
            group["lr"] = config.lr_at(step)
        chosen = draw.choices(prompts, k=config.batch_size)
        seed = draw.getrandbits(48)
        written = sample_groups(student, chosen, 1, max_new_tokens, stop, seed=seed)
        n_new = written.mask.shape[1]
        student.train()
        ours = answer_logits(student, written.tokens, n_new, written.pad)
        with no_grad():
            theirs = answer_logits(teacher, written.tokens, n_new, written.pad)
        loss = reverse_kl(ours, theirs, written.mask)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), config.clip)
        optimizer.step()
        length = written.lengths.float().mean().item()
        history.append({"step": step + 1, "kl": loss.item(), "length": length})
    student.eval()
    return history
