"""Lesson 15, SFT and chat."""

import torch
from torch.nn import functional as F

from . import Answers, Wrong

# --- 15.1 -------------------------------------------------------------------------


def mask_by_index(ids, user, assistant, eos):
    trained, start = [False] * len(ids), 0
    while assistant in ids[start:]:
        begin = ids.index(assistant, start) + 1
        end = ids.index(eos, begin) + 1 if eos in ids[begin:] else len(ids)
        trained[begin:end] = [True] * (end - begin)
        start = end
    return trained


def mask_by_state(ids, user, assistant, eos):
    out, writing = [], False
    for token in ids:
        if token == assistant:
            writing = True
            out.append(False)
            continue
        out.append(writing)
        if token == eos:
            writing = False
    return out


def mask_without_end(ids, user, assistant, eos):
    out, writing = [], False
    for token in ids:
        if token == eos:
            writing = False
        out.append(writing and token != assistant)
        if token == assistant:
            writing = True
    return out


def mask_with_mark(ids, user, assistant, eos):
    out, writing = [], False
    for token in ids:
        if token == assistant:
            writing = True
        out.append(writing)
        if token == eos:
            writing = False
    return out


def mask_until_user(ids, user, assistant, eos):
    out, writing = [], False
    for token in ids:
        if token == user:
            writing = False
        out.append(writing and token != assistant)
        if token == assistant:
            writing = True
    return out


def mask_until_after_user(ids, user, assistant, eos):
    out, writing = [], False
    for token in ids:
        out.append(writing and token != assistant)
        if token == assistant:
            writing = True
        if token == user:
            writing = False
    return out


def mask_first(ids, user, assistant, eos):
    if assistant not in ids:
        return [False] * len(ids)
    begin = ids.index(assistant) + 1
    end = ids.index(eos, begin) + 1 if eos in ids[begin:] else len(ids)
    return [begin <= i < end for i in range(len(ids))]


def mask_last(ids, user, assistant, eos):
    if assistant not in ids:
        return [False] * len(ids)
    begin = len(ids) - ids[::-1].index(assistant)
    return [i >= begin for i in range(len(ids))]


def mask_of_rows(ids, user, assistant, eos):
    out, writing = [], False
    for token in ids[1:]:
        out.append(writing if token != assistant else False)
        writing = (writing or token == assistant) and token != eos
    return [*out, False]


def mask_needs_end(ids, user, assistant, eos):
    trained, start = [False] * len(ids), 0
    while assistant in ids[start:]:
        begin = ids.index(assistant, start) + 1
        end = ids.index(eos, begin) + 1
        trained[begin:end] = [True] * (end - begin)
        start = end
    return trained


def mask_turned(ids, user, assistant, eos):
    return [not x for x in mask_by_state(ids, user, assistant, eos)]


def mask_ids(ids, user, assistant, eos):
    return [id for id, x in zip(ids, mask_by_state(ids, user, assistant, eos)) if x]


# --- 15.2 -------------------------------------------------------------------------


def loss(logits, tokens, trained):
    scores = logits[:, :-1][trained[:, 1:]]
    return F.cross_entropy(scores, tokens[:, 1:][trained[:, 1:]])


def loss_ignoring(logits, tokens, trained):
    targets = tokens.masked_fill(~trained, -100)[:, 1:]
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), targets)


def loss_weighted(logits, tokens, trained):
    log_p = logits[:, :-1].log_softmax(-1)
    nats = -log_p.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    weight = trained[:, 1:].float()
    return (nats * weight).sum() / weight.sum()


def loss_unshifted(logits, tokens, trained):
    return F.cross_entropy(logits[trained], tokens[trained])


def loss_mask_of_rows(logits, tokens, trained):
    nats = F.cross_entropy(
        logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none"
    )
    return nats[trained[:, :-1]].mean()


def loss_backwards(logits, tokens, trained):
    nats = F.cross_entropy(
        logits[:, 1:].transpose(1, 2), tokens[:, :-1], reduction="none"
    )
    return nats[trained[:, :-1]].mean()


def loss_everything(logits, tokens, trained):
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:])


def loss_of_questions(logits, tokens, trained):
    targets = tokens.masked_fill(trained, -100)[:, 1:]
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), targets)


def loss_over_all(logits, tokens, trained):
    nats = F.cross_entropy(
        logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none"
    )
    return (nats * trained[:, 1:]).mean()


def loss_counts_first(logits, tokens, trained):
    nats = F.cross_entropy(
        logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none"
    )
    return (nats * trained[:, 1:]).sum() / trained.sum()


def loss_sum(logits, tokens, trained):
    targets = tokens.masked_fill(~trained, -100)[:, 1:]
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), targets, reduction="sum")


def loss_by_text(logits, tokens, trained):
    means = [
        loss(logits[b : b + 1], tokens[b : b + 1], trained[b : b + 1])
        for b in range(len(tokens))
        if trained[b, 1:].any()
    ]
    return sum(means) / len(means)


def loss_rolled(logits, tokens, trained):
    targets = tokens.masked_fill(~trained, -100).roll(-1, 1)
    return F.cross_entropy(logits.transpose(1, 2), targets)


def loss_softmax_twice(logits, tokens, trained):
    return loss(logits.softmax(-1), tokens, trained)


def loss_negative(logits, tokens, trained):
    log_p = logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return log_p[trained[:, 1:]].mean()


def loss_each(logits, tokens, trained):
    scores = logits[:, :-1][trained[:, 1:]]
    return F.cross_entropy(scores, tokens[:, 1:][trained[:, 1:]], reduction="none")


def loss_number(logits, tokens, trained):
    return loss(logits, tokens, trained).item()


# --- 15.3 -------------------------------------------------------------------------


def apart(tokens, bos):
    number = (tokens == bos).int().cumsum(dim=1)
    same = number.unsqueeze(2) == number.unsqueeze(1)
    T = tokens.shape[1]
    return same & torch.ones(T, T, dtype=torch.bool).tril()


def apart_by_loop(tokens, bos):
    B, T = tokens.shape
    mask = torch.zeros(B, T, T, dtype=torch.bool)
    for b in range(B):
        start = 0
        for t in range(T):
            if tokens[b, t] == bos:
                start = t
            mask[b, t, start : t + 1] = True
    return mask


def apart_by_start(tokens, bos):
    B, T = tokens.shape
    place = torch.arange(T).expand(B, T)
    start = torch.where(tokens == bos, place, 0).cummax(1).values
    keys = place[:, None, :]
    return (keys >= start[:, :, None]) & (keys <= place[:, :, None])


def apart_causal_only(tokens, bos):
    B, T = tokens.shape
    return torch.ones(T, T, dtype=torch.bool).tril().expand(B, T, T)


def apart_not_causal(tokens, bos):
    number = (tokens == bos).cumsum(1)
    return number[:, :, None] == number[:, None, :]


def apart_without_itself(tokens, bos):
    return apart_not_causal(tokens, bos).tril(-1)


def apart_transposed(tokens, bos):
    return apart(tokens, bos).transpose(1, 2)


def apart_forbidden(tokens, bos):
    return ~apart(tokens, bos)


def apart_late(tokens, bos):
    begins = (tokens == bos).int()
    number = begins.cumsum(1) - begins
    return (number[:, :, None] == number[:, None, :]).tril()


def apart_different(tokens, bos):
    number = (tokens == bos).cumsum(1)
    return (number[:, :, None] != number[:, None, :]).tril()


def apart_equal_tokens(tokens, bos):
    return (tokens[:, :, None] == tokens[:, None, :]).tril()


def apart_additive(tokens, bos):
    allowed = apart(tokens, bos)
    return torch.zeros(allowed.shape).masked_fill(~allowed, float("-inf"))


def apart_whole_numbers(tokens, bos):
    return apart(tokens, bos).long()


def apart_flat(tokens, bos):
    number = (tokens.flatten() == bos).cumsum(0)
    return (number[:, None] == number[None, :]).tril()


# --- 15.4 -------------------------------------------------------------------------


def kl(student, teacher, mask):
    log_p = F.log_softmax(student, dim=-1)
    log_q = F.log_softmax(teacher, dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)[mask].mean()


def kl_by_torch(student, teacher, mask):
    log_p, log_q = (x[mask].log_softmax(-1) for x in (student, teacher))
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def kl_by_logsumexp(student, teacher, mask):
    log_p = student - student.logsumexp(-1, keepdim=True)
    log_q = teacher - teacher.logsumexp(-1, keepdim=True)
    each = torch.einsum("btv,btv->bt", log_p.exp(), log_p - log_q)
    return (each * mask).sum() / mask.sum()


def kl_forward(student, teacher, mask):
    return kl(teacher, student, mask)


def kl_forward_by_torch(student, teacher, mask):
    log_p, log_q = (x[mask].log_softmax(-1) for x in (student, teacher))
    return F.kl_div(log_p, log_q, log_target=True, reduction="batchmean")


def kl_negative(student, teacher, mask):
    log_p, log_q = student.log_softmax(-1), teacher.log_softmax(-1)
    return (log_p.exp() * (log_q - log_p)).sum(-1)[mask].mean()


def kl_cross_entropy(student, teacher, mask):
    log_q = teacher.log_softmax(-1)
    return -(student.softmax(-1) * log_q).sum(-1)[mask].mean()


def kl_unmasked(student, teacher, mask):
    return kl(student, teacher, torch.ones_like(mask))


def kl_over_all(student, teacher, mask):
    log_p, log_q = student.log_softmax(-1), teacher.log_softmax(-1)
    return ((log_p.exp() * (log_p - log_q)).sum(-1) * mask).mean()


def kl_sum(student, teacher, mask):
    return kl(student, teacher, mask) * mask.sum()


def kl_by_text(student, teacher, mask):
    log_p, log_q = student.log_softmax(-1), teacher.log_softmax(-1)
    each = (log_p.exp() * (log_p - log_q)).sum(-1)
    means = [each[b][mask[b]].mean() for b in range(len(mask)) if mask[b].any()]
    return torch.stack(means).mean()


def kl_mean_of_entries(student, teacher, mask):
    log_p, log_q = student.log_softmax(-1), teacher.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).mean(-1)[mask].mean()


def kl_of_logits(student, teacher, mask):
    return (student.softmax(-1) * (student - teacher)).sum(-1)[mask].mean()


def kl_over_time(student, teacher, mask):
    log_p, log_q = student.log_softmax(1), teacher.log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)[mask].mean()


def kl_unstable(student, teacher, mask):
    p, q = student.softmax(-1), teacher.softmax(-1)
    return (p * (p / q).log()).sum(-1)[mask].mean()


def kl_epsilon(student, teacher, mask):
    p, q = student.softmax(-1) + 1e-8, teacher.softmax(-1) + 1e-8
    return (p * (p.log() - q.log())).sum(-1)[mask].mean()


def kl_each(student, teacher, mask):
    log_p, log_q = student.log_softmax(-1), teacher.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)[mask]


ANSWERS = {
    "15.1": Answers(
        right=[mask_by_index, mask_by_state],
        wrong=[
            Wrong(mask_without_end, "never stops"),
            Wrong(mask_with_mark, "it is the prompt's"),
            Wrong(mask_until_user, "past its own end"),
            Wrong(mask_until_after_user, "past its own end"),
            Wrong(mask_first, "only the first answer"),
            Wrong(mask_last, "only the last answer"),
            Wrong(mask_of_rows, "one place too early"),
            Wrong(mask_needs_end, "fails where there is none"),
            Wrong(mask_turned, "turned round"),
            Wrong(mask_ids, "one bool for each id"),
        ],
    ),
    "15.2": Answers(
        right=[loss, loss_ignoring, loss_weighted],
        wrong=[
            Wrong(loss_unshifted, "nothing is shifted"),
            Wrong(loss_mask_of_rows, "not shifted like the targets"),
            Wrong(loss_backwards, "wrong way"),
            Wrong(loss_everything, "the mask is not used"),
            Wrong(loss_of_questions, "turned round"),
            Wrong(loss_over_all, "number of all tokens"),
            Wrong(loss_counts_first, "counts the first tokens"),
            Wrong(loss_sum, "asked for is the mean"),
            Wrong(loss_by_text, "short answer counts more"),
            Wrong(loss_rolled, "predicted by its last place"),
            Wrong(loss_softmax_twice, "softmax twice"),
            Wrong(loss_negative, "never negative"),
            Wrong(loss_each, "one number comes back"),
            Wrong(loss_number, "leave them away"),
        ],
    ),
    "15.3": Answers(
        right=[apart, apart_by_loop, apart_by_start],
        wrong=[
            Wrong(apart_causal_only, "only causal"),
            Wrong(apart_not_causal, "those after them"),
            Wrong(apart_without_itself, "no token sees itself"),
            Wrong(apart_transposed, "queries are the second axis"),
            Wrong(apart_forbidden, "exchanged"),
            Wrong(apart_late, "it begins its own"),
            Wrong(apart_different, "and not themselves"),
            Wrong(apart_equal_tokens, "equal tokens"),
            Wrong(apart_additive, "asked for are bools"),
            Wrong(apart_whole_numbers, "asked for are bools"),
            Wrong(apart_flat, "another row's"),
        ],
    ),
    "15.4": Answers(
        right=[kl, kl_by_torch, kl_by_logsumexp],
        wrong=[
            Wrong(kl_forward, "forward"),
            Wrong(kl_forward_by_torch, "forward"),
            Wrong(kl_negative, "never negative"),
            Wrong(kl_cross_entropy, "cross-entropy"),
            Wrong(kl_unmasked, "the mask is not used"),
            Wrong(kl_over_all, "number of all tokens"),
            Wrong(kl_sum, "asked for is their mean"),
            Wrong(kl_by_text, "a mean of its own"),
            Wrong(kl_mean_of_entries, "over the vocabulary too"),
            Wrong(kl_of_logits, "differences of logits"),
            Wrong(kl_over_time, "runs over time"),
            Wrong(kl_unstable, "in one step"),
            Wrong(kl_epsilon, "changes ln q"),
            Wrong(kl_each, "one number comes back"),
        ],
    ),
}
