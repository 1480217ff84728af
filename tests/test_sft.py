"""Packing, the masked loss, the SFT loop, replies, and the two ways of distilling."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import error, random_tokens, small_config, small_model, sparse_model
from torch.nn import functional as F

from deepseek_mini.model import Transformer
from deepseek_mini.posttraining.chat import ChatTokens, render
from deepseek_mini.posttraining.distill import (
    accepted_answers,
    on_policy_distill,
    reverse_kl,
)
from deepseek_mini.posttraining.packing import (
    answer_loss,
    masked_cross_entropy,
    pack_chats,
)
from deepseek_mini.posttraining.questions import questions
from deepseek_mini.posttraining.reply import reply
from deepseek_mini.posttraining.sft import sft
from deepseek_mini.tokenizer import Tokenizer
from deepseek_mini.training import TrainConfig


def chats(*lengths, seed=0):
    """Conversations of random ids, of which about half are trained."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i, n in enumerate(lengths):
        ids = random_tokens(n, seed=seed + i).tolist()
        trained = (torch.rand(n, generator=generator) < 0.5).tolist()
        made.append(ChatTokens(ids, [False, *trained[1:]]))
    return made


# Packing.


def test_every_conversation_is_packed_once_and_whole():
    several = chats(5, 17, 3, 9, 20, 1, 8, 2)
    packed = pack_chats(several, 20, pad_id=7)
    assert packed.tokens.shape == (4, 20)  # 65 tokens, and 3 rows would hold 60
    found = []
    for row in range(len(packed)):
        documents = packed.documents[row]
        for number in range(1, int(documents.max()) + 1):
            place = documents == number
            assert place.any() and place.nonzero().diff(dim=0).eq(1).all()
            ids, trained = packed.tokens[row, place], packed.trained[row, place]
            found.append((ids.tolist(), trained.tolist()))
        assert packed.tokens[row, documents == 0].eq(7).all()
        assert not packed.trained[row, documents == 0].any()
    key = str
    assert sorted(found, key=key) == sorted(
        ((c.ids, c.trained) for c in several), key=key
    )


def test_a_first_token_is_never_trained():
    packed = pack_chats([ChatTokens([1, 2], [True, True])] * 2, 4)
    assert packed.trained.tolist() == [[False, True, False, True]]


def test_what_cannot_be_packed():
    with pytest.raises(ValueError, match="no conversations"):
        pack_chats([], 8)
    with pytest.raises(ValueError, match="conversation 1 has no tokens"):
        pack_chats([*chats(3), ChatTokens([], [])], 8)
    with pytest.raises(
        ValueError, match="conversation 1 has 9 tokens, but a row has 8"
    ):
        pack_chats(chats(3, 9, 4), 8)


# The loss.


@pytest.mark.parametrize("family", [None, "v2", "v3"])
def test_packed_rows_lose_what_separate_rows_lose(family):
    model = small_model() if family is None else sparse_model(family)
    several = chats(5, 17, 3, 9, 20, 2, 8)
    packed = pack_chats(several, 24)
    assert len(packed) < len(several)
    total, n = answer_loss(model, packed)
    alone = [answer_loss(model, pack_chats([chat], len(chat.ids))) for chat in several]
    assert n == sum(count for _, count in alone) == sum(sum(c.trained) for c in several)
    assert error(total, sum(loss for loss, _ in alone)) < 1e-5
    everything_seen = model(packed.tokens[:, :-1])  # the bug: attention across
    wrong, _ = masked_cross_entropy(
        everything_seen, packed.tokens[:, 1:], packed.trained[:, 1:]
    )
    assert error(wrong, total) > 1e-3


def test_packed_gradients_are_those_of_separate_rows():
    several, gradients = chats(5, 11, 7), []
    for rows in (pack_chats(several, 24), None):
        model = small_model()
        batches = [rows] if rows else [pack_chats([c], len(c.ids)) for c in several]
        sum(answer_loss(model, batch)[0] for batch in batches).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert error(*gradients) < 1e-5


def test_the_loss_is_by_hand():
    """-log p of the next token, where the *next* token is trained."""
    model, chat = small_model(), chats(9)[0]
    total, n = answer_loss(model, pack_chats([chat], 9))
    probabilities = model(torch.tensor([chat.ids])).softmax(-1)[0].detach()
    expected = [
        -math.log(float(probabilities[t, chat.ids[t + 1]]))
        for t in range(8)
        if chat.trained[t + 1]
    ]
    assert n == len(expected) and abs(total.item() - sum(expected)) < 1e-4
    off_by_one = [
        -math.log(float(probabilities[t, chat.ids[t + 1]]))
        for t in range(8)
        if chat.trained[t]
    ]
    assert abs(total.item() - sum(off_by_one)) > 0.1


def test_what_is_not_trained_does_not_matter():
    """The prompt's own tokens have no loss, so a trained one's gradient is all."""
    chat = ChatTokens([3, 4, 5, 6], [False, False, False, True])
    model = small_model()
    total, _ = answer_loss(model, pack_chats([chat], 4))
    expected = F.cross_entropy(
        model(torch.tensor([[3, 4, 5]]))[0, -1:], torch.tensor([6])
    )
    assert error(total, expected) < 1e-6
    none, n = answer_loss(model, pack_chats([ChatTokens([3, 4], [False, False])], 4))
    assert n == 0 and none == 0


# The loop.


def run(steps=60, seed=0, rows=None, **changes):
    model = small_model()
    data = pack_chats(chats(5, 9, 12, 7), 16) if rows is None else rows
    config = TrainConfig(steps=steps, batch_size=2, lr=3e-3, warmup=5, seed=seed)
    history = sft(model, data, replace(config, **changes), progress=False)
    return model, data, history


def test_sft_learns_the_answers_and_nothing_else():
    model, data, history = run(80)
    assert history[-1]["loss"] < 0.3 < 3 < history[0]["loss"]
    assert len(history) == 80 and history[-1]["step"] == 80 and not model.training
    asked = replace(data, trained=~data.trained & (data.documents > 0))
    asked.trained[:, 0] = False
    total, n = answer_loss(model, asked)
    assert total / n > 2  # what was not trained is not learnt by heart


def test_sft_repeats_and_depends_on_the_seed():
    losses = [[row["loss"] for row in run(5, seed)[2]] for seed in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_every_row_is_used_once_an_epoch():
    from deepseek_mini.posttraining.sft import _batches

    config = TrainConfig(steps=7, batch_size=5, seed=3)
    rows = torch.cat(list(_batches(7, config))).reshape(5, 7)
    assert all(epoch.sort().values.tolist() == list(range(7)) for epoch in rows)
    assert len({tuple(epoch.tolist()) for epoch in rows}) > 1


def test_what_sft_refuses():
    silent = pack_chats([ChatTokens([1, 2], [False, False])], 8)
    with pytest.raises(ValueError, match="no token of the conversations is trained"):
        run(1, rows=silent)
    with pytest.raises(ValueError, match="rows have 70 tokens, but the model reads"):
        run(1, rows=pack_chats(chats(5), 70))
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        run(30, lr=1e30, clip=1e30, warmup=0)


# Replies.


def parrot():
    """A model fine-tuned by heart on two conversations, and its tokenizer."""
    tokenizer = Tokenizer.small()
    torch.manual_seed(0)
    model = Transformer(small_config(vocab_size=1024, init_std=0.06))
    talks = [
        [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
        for q, a in (("one", "first"), ("two numbers", "second"))
    ]
    encoded = [render(talk, "v3").encode(tokenizer) for talk in talks]
    config = TrainConfig(steps=80, batch_size=1, lr=5e-3, warmup=5)
    sft(model, pack_chats(encoded, 32), config, progress=False)
    return model, tokenizer, [talk[:1] for talk in talks]


@pytest.fixture(scope="module")
def trained_parrot():
    return parrot()


def test_replies(trained_parrot):
    model, tokenizer, questions = trained_parrot
    answers = reply(model, tokenizer, questions, max_new_tokens=8)
    assert [answer.text for answer in answers] == ["first", "second"]
    assert all(answer.ended for answer in answers)
    assert answers[0].ids[-1] == tokenizer.id("eos")
    assert answers[0].message == {"role": "assistant", "content": "first"}
    cut = reply(model, tokenizer, questions[:1], max_new_tokens=1)[0]
    assert not cut.ended and len(cut.ids) == 1 and "first".startswith(cut.text)
    alone = reply(model, tokenizer, questions[1:], max_new_tokens=8)[0]
    assert alone == answers[1]


def test_a_reply_with_a_thought(monkeypatch, trained_parrot):
    """What stands before </think> is the reasoning, in R1's and V4's way."""
    from deepseek_mini.posttraining import reply as module

    model, tokenizer, _ = trained_parrot
    conversation = [{"role": "user", "content": "q"}]
    whole = [
        *conversation,
        {"role": "assistant", "content": "B\n", "reasoning_content": "r"},
    ]

    def written(template, cut=None):
        tokens = render(whole, template, thinking=True).encode(tokenizer)
        ids = [i for i, trained in zip(tokens.ids, tokens.trained) if trained][:cut]

        def fake(model, prompt, **options):
            return torch.cat([prompt, torch.tensor([ids])], dim=1)

        monkeypatch.setattr(module, "generate", fake)
        return reply(model, tokenizer, [conversation], template, thinking=True)[0]

    for template in ("r1", "v4"):
        done = written(template)
        assert done.ended and done.text == "B"
        assert done.message["reasoning_content"] == "r"
    half = written("r1", cut=1)
    assert not half.ended and half.text == ""
    assert half.message["reasoning_content"] == "r"


# Questions.


def test_questions_are_right_and_held_out():
    drawn = {split: questions(400, 1, split) for split in ("train", "test")}
    texts = [{q.text for q in drawn[split]} for split in ("train", "test")]
    assert not texts[0] & texts[1] and min(map(len, texts)) > 300
    assert drawn["train"] == questions(400, 1) != questions(400, 2)
    kinds = {"first digit", "backwards", "after", "larger"}
    for q in drawn["train"]:
        kinds.discard(q.kind)
        numbers = [int(x) for x in q.text.replace("?", " ").replace(",", " ").split()
                   if x.isdigit()]  # fmt: skip
        if q.kind == "larger":
            assert int(q.answer) == max(numbers) and len(numbers) == 2
        else:
            (n,) = numbers
            right = {"first digit": n // 100, "after": n + 1}
            right["backwards"] = f"{n % 10}{n // 10 % 10}{n // 100}"
            assert q.answer == str(right[q.kind])
        assert q.answered == [*q.messages, {"role": "assistant", "content": q.answer}]
    assert not kinds
    with pytest.raises(ValueError, match="split is 'validation'"):
        questions(1, 0, "validation")


# Distillation.


def test_accepted_answers(trained_parrot):
    model, tokenizer, questions = trained_parrot
    judged = []

    def accept(i, message):
        judged.append(i)
        return i == 1 and message["content"] == "second"

    kept = accepted_answers(
        model, tokenizer, questions, accept, samples=6, max_new_tokens=8, seed=0
    )
    assert kept == [[*questions[1], {"role": "assistant", "content": "second"}]]
    assert judged.count(1) >= 1 and judged.count(0) >= 1
    # The same answer is kept once; an unfinished one never.
    twice = accepted_answers(
        model,
        tokenizer,
        questions,
        lambda i, message: True,
        samples=6,
        keep=6,
        max_new_tokens=8,
        temperature=0.0,
        top_p=None,
    )
    assert len(twice) == 2
    none = accepted_answers(
        model, tokenizer, questions, lambda i, m: True, max_new_tokens=1
    )
    assert none == []
    with pytest.raises(ValueError, match="samples is 0"):
        accepted_answers(model, tokenizer, questions, accept, samples=0)


def distributions(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (3, 5, 11)
    student = torch.randn(shape, generator=generator, dtype=torch.float64)
    teacher = torch.randn(shape, generator=generator, dtype=torch.float64)
    mask = torch.rand(shape[:2], generator=generator) < 0.6
    return student.requires_grad_(), teacher.requires_grad_(), mask


def test_reverse_kl_is_the_textbooks():
    student, teacher, mask = distributions()
    p, q = student.softmax(-1)[mask], teacher.softmax(-1)[mask]
    expected = (p * (p / q).log()).sum(-1).mean()
    forward = (q * (q / p).log()).sum(-1).mean()
    value = reverse_kl(student, teacher, mask)
    assert error(value, expected) < 1e-12 and error(value, forward) > 1e-2
    oracle = F.kl_div(q.log(), p.log(), log_target=True, reduction="batchmean")
    assert error(value, oracle) < 1e-12


def test_reverse_kl_by_hand():
    """Student (1/2, 1/2), teacher (3/4, 1/4): 1/2 ln(2/3) + 1/2 ln 2 = 0.1438."""
    student = torch.zeros(1, 1, 2)
    teacher = torch.tensor([[[3.0, 1.0]]]).log()
    value = float(reverse_kl(student, teacher, torch.tensor([[True]])))
    assert abs(value - 0.5 * math.log(4 / 3)) < 1e-6


def test_the_gradient_of_reverse_kl():
    """∂KL/∂z = p (log p - log q - KL), and nothing where the mask is off."""
    student, teacher, mask = distributions()
    reverse_kl(student, teacher, mask).backward()
    log_p, log_q = (x.detach().log_softmax(-1) for x in (student, teacher))
    gap = log_p - log_q
    kl = (log_p.exp() * gap).sum(-1, keepdim=True)
    expected = log_p.exp() * (gap - kl) * mask[..., None] / mask.sum()
    assert error(student.grad, expected) < 1e-12
    assert teacher.grad is None
    assert torch.autograd.gradcheck(
        lambda z: reverse_kl(z, teacher.detach(), mask), (student,)
    )


def test_signs_of_reverse_kl():
    for seed in range(20):
        student, teacher, mask = distributions(seed)
        value = reverse_kl(student, teacher, mask)
        assert value > 0
        value.backward()
        closer = student.detach() - 0.1 * student.grad
        assert reverse_kl(closer, teacher, mask) < value
    assert abs(reverse_kl(teacher, teacher, mask).item()) < 1e-12
    # Reverse: a teacher of two modes is satisfied by a student of either one.
    modes = torch.tensor([[[0.495, 0.495, 0.01]]]).log()
    one, spread = torch.tensor([[[0.98, 0.01, 0.01]]]), torch.full((1, 1, 3), 1 / 3)
    on = torch.tensor([[True]])
    seeking, covering = (reverse_kl(x.log(), modes, on) for x in (one, spread))
    assert seeking < covering


def test_on_policy_distillation_nears_the_teacher():
    teacher, student = small_model(seed=1), small_model(seed=2)
    prompts = [row.tolist() for row in random_tokens(6, 4, seed=5)] + [[3, 1]]
    before = [p.clone() for p in teacher.parameters()]
    config = TrainConfig(steps=40, batch_size=8, lr=4e-3, warmup=5)

    def distil(student, config):
        options = {"max_new_tokens": 8, "progress": False}
        return on_policy_distill(student, teacher, prompts, 0, config, **options)

    history = distil(student, config)
    kl = [row["kl"] for row in history]
    assert sum(kl[-5:]) < 0.6 * sum(kl[:5])
    assert all(1 <= row["length"] <= 8 for row in history)
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters()))
    assert all(p.grad is None for p in teacher.parameters())
    again = distil(small_model(seed=2), replace(config, steps=2))
    assert again == history[:2]  # the rate is still warming up


def test_what_distillation_refuses():
    config = TrainConfig(steps=1)
    with pytest.raises(ValueError, match="there are 0 prompts"):
        on_policy_distill(small_model(), small_model(), [], 0, config)
    with pytest.raises(ValueError, match="vocabularies of 61 and 62"):
        on_policy_distill(small_model(), small_model(vocab_size=62), [[1]], 0, config)
