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


def mask_by_looking_back(ids, user, assistant, eos):
    out = []
    for i in range(len(ids)):
        inside = False
        for before in reversed(ids[:i]):
            if before in (assistant, eos):
                inside = before == assistant
                break
        out.append(inside)
    return out


def mask_stops_at_user_too(ids, user, assistant, eos):
    out, writing = [], False
    for token in ids:
        if token == user:
            writing = False
        out.append(int(writing))
        if token in (assistant, eos):
            writing = token == assistant
    return tuple(out)


def mask_toggled(ids, user, assistant, eos):
    out, writing = [], False
    for token in ids:
        out.append(writing)
        if token in (assistant, eos):
            writing = not writing
    return out


def mask_every_end(ids, user, assistant, eos):
    out, writing = [], False
    for token in ids:
        out.append(writing or token == eos)
        if token in (assistant, eos):
            writing = token == assistant
    return out


def mask_breaks_at_cut(ids, user, assistant, eos):
    trained, start = [False] * len(ids), 0
    while assistant in ids[start:]:
        begin = ids.index(assistant, start) + 1
        if eos not in ids[begin:]:
            break
        start = ids.index(eos, begin) + 1
        trained[begin:start] = [True] * (start - begin)
    return trained


def mask_catches_cut(ids, user, assistant, eos):
    trained, start = [False] * len(ids), 0
    while True:
        try:
            begin = ids.index(assistant, start) + 1
            start = ids.index(eos, begin) + 1
        except ValueError:
            return trained
        trained[begin:start] = [True] * (start - begin)


def mask_loses_cut(ids, user, assistant, eos):
    out, answer = [], None
    for token in ids:
        if answer is None:
            out.append(False)
            answer = [] if token == assistant else None
        else:
            answer.append(True)
            if token == eos:
                out, answer = out + answer, None
    return out


def mask_cut_one_short(ids, user, assistant, eos):
    trained, start = [False] * len(ids), 0
    while assistant in ids[start:]:
        begin = ids.index(assistant, start) + 1
        end = ids.index(eos, begin) + 1 if eos in ids[begin:] else len(ids) - 1
        for i in range(begin, end):
            trained[i] = True
        start = max(begin, end)
    return trained


def mask_skips_empty(ids, user, assistant, eos):
    out = mask_by_state(ids, user, assistant, eos)
    for i in range(1, len(ids)):
        if ids[i] == eos and ids[i - 1] == assistant:
            out[i] = False
    return out


def mask_searches_late(ids, user, assistant, eos):
    out = [False] * len(ids)
    for i, token in enumerate(ids):
        if token == assistant and i + 1 < len(ids):
            out[i + 1], j = True, i + 2
            while j < len(ids) and ids[j] != eos:
                out[j], j = True, j + 1
            if j < len(ids):
                out[j] = True
    return out


def mask_exchanged(ids, user, assistant, eos):
    return mask_by_state(ids, assistant, user, eos)


def mask_all(ids, user, assistant, eos):
    return [True] * len(ids)


def mask_of_example(ids, user, assistant, eos):
    return mask_by_state(ids, 7, 8, 1)


def mask_tensor(ids, user, assistant, eos):
    return torch.tensor(mask_by_state(ids, user, assistant, eos))


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


def loss_in_double(logits, tokens, trained):
    return loss(logits.double(), tokens, trained)


def loss_in_float(logits, tokens, trained):
    return loss(logits.float(), tokens, trained)


def loss_added_up(logits, tokens, trained):
    total, n = torch.zeros(()), 0
    for b in range(len(tokens)):
        for t in range(1, tokens.shape[1]):
            if trained[b, t]:
                total += F.cross_entropy(logits[b, t - 1], tokens[b, t])
                n += 1
    return total / n


def loss_over_rows(logits, tokens, trained):
    mask = trained.flatten()[1:]
    return F.cross_entropy(logits.flatten(0, 1)[:-1][mask], tokens.flatten()[1:][mask])


def loss_needs_both(logits, tokens, trained):
    mask = trained[:, 1:] & trained[:, :-1]
    return F.cross_entropy(logits[:, :-1][mask], tokens[:, 1:][mask])


def loss_over_time(logits, tokens, trained):
    log_p = logits.log_softmax(1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    return -log_p[trained[:, 1:]].mean()


def loss_without_log(logits, tokens, trained):
    p = logits[:, :-1].softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return -p[trained[:, 1:]].mean()


def loss_in_two_steps(logits, tokens, trained):
    p = logits[:, :-1].softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return -p.log()[trained[:, 1:]].mean()


def loss_plain_exp(logits, tokens, trained):
    e = logits[:, :-1].exp()
    p = (e / e.sum(-1, keepdim=True)).gather(-1, tokens[:, 1:, None])[..., 0]
    return -p.log()[trained[:, 1:]].mean()


def loss_bfloat16(logits, tokens, trained):
    return loss(logits.bfloat16(), tokens, trained)


def loss_through_bfloat16(logits, tokens, trained):
    scores = logits.bfloat16()[:, :-1][trained[:, 1:]]
    log_p = scores.log_softmax(-1).gather(-1, tokens[:, 1:][trained[:, 1:]][:, None])
    return -log_p.float().mean()


def loss_returned_in_half(logits, tokens, trained):
    return loss(logits, tokens, trained).half()


def loss_detached(logits, tokens, trained):
    return loss(logits, tokens, trained).detach()


def loss_made_anew(logits, tokens, trained):
    return torch.tensor(loss(logits, tokens, trained).item())


def loss_in_numpy(logits, tokens, trained):
    x = logits.numpy()
    return loss(torch.from_numpy(x), tokens, trained)


def loss_constant_sum(logits, tokens, trained):
    z = logits.logsumexp(-1, keepdim=True).detach()
    log_p = (logits - z)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    return -log_p[trained[:, 1:]].mean()


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


def apart_numbered_on(tokens, bos):
    number = (tokens.flatten() == bos).cumsum(0).view_as(tokens)
    return (number[:, :, None] == number[:, None, :]).tril()


def apart_one_row(tokens, bos):
    return apart(tokens, bos)[0]


def apart_of_zero(tokens, bos):
    return apart(tokens, 0)


def apart_headless(tokens, bos):
    number = (tokens == bos).cumsum(1)
    same = number[:, :, None] == number[:, None, :]
    return (same & (number > 0)[:, :, None]).tril()


def apart_head_alone(tokens, bos):
    return apart_headless(tokens, bos) | torch.eye(tokens.shape[1], dtype=torch.bool)


def apart_first_skipped(tokens, bos):
    B, T = tokens.shape
    mask = torch.ones(B, T, T, dtype=torch.bool).tril()
    for b in range(B):
        for k in (tokens[b] == bos).nonzero().flatten().tolist()[1:]:
            mask[b, k:, :k] = False
    return mask


def apart_all_see_first(tokens, bos):
    mask = apart(tokens, bos)
    mask[:, :, 0] = True
    return mask


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


def kl_in_float(student, teacher, mask):
    return kl(student.float(), teacher.float(), mask)


def kl_in_float_and_back(student, teacher, mask):
    return kl(student.float(), teacher.float(), mask).to(student.dtype)


def kl_in_double(student, teacher, mask):
    return kl(student.double(), teacher.double(), mask)


def kl_added_up(student, teacher, mask):
    total, n = torch.zeros(()), 0
    for b, t in mask.nonzero().tolist():
        log_p, log_q = student[b, t].log_softmax(0), teacher[b, t].log_softmax(0)
        total += (log_p.exp() * (log_p - log_q)).sum()
        n += 1
    return total / n


def kl_frozen_teacher(student, teacher, mask):
    return kl(student, teacher.detach(), mask)


def kl_each_of(student, teacher):
    log_p, log_q = student.log_softmax(-1), teacher.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def kl_shifted(student, teacher, mask):
    return kl_each_of(student, teacher)[:, :-1][mask[:, 1:]].mean()


def kl_without_first(student, teacher, mask):
    return kl(student[:, 1:], teacher[:, 1:], mask[:, 1:])


def kl_batchmean(student, teacher, mask):
    log_p, log_q = student.log_softmax(-1), teacher.log_softmax(-1)
    return F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def kl_masked_over_texts(student, teacher, mask):
    return (kl_each_of(student, teacher) * mask).sum() / len(student)


def kl_absolute(student, teacher, mask):
    log_p, log_q = student.log_softmax(-1), teacher.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q).abs()).sum(-1)[mask].mean()


def kl_without_exp(student, teacher, mask):
    log_p, log_q = student.log_softmax(-1), teacher.log_softmax(-1)
    return (log_p * (log_p - log_q)).sum(-1)[mask].mean()


def kl_no_log_target(student, teacher, mask):
    log_p, log_q = (x[mask].log_softmax(-1) for x in (student, teacher))
    return F.kl_div(log_q, log_p, reduction="batchmean")


def kl_categorical(student, teacher, mask):
    p, q = (torch.distributions.Categorical(logits=x) for x in (student, teacher))
    return torch.distributions.kl_divergence(p, q)[mask].mean()


def kl_nan_to_num(student, teacher, mask):
    p, q = student.softmax(-1), teacher.softmax(-1)
    return (p * (p / q).log()).nan_to_num(0, 0, 0).sum(-1)[mask].mean()


def kl_largest_number(student, teacher, mask):
    p, q = student.softmax(-1), teacher.softmax(-1)
    each = (p * (p.log().nan_to_num() - q.log().nan_to_num())).sum(-1)
    return each[mask].mean()


def kl_clamped(student, teacher, mask):
    p, q = (x.softmax(-1).clamp(min=1e-12) for x in (student, teacher))
    return (p * (p.log() - q.log())).sum(-1)[mask].mean()


def kl_bfloat16(student, teacher, mask):
    return kl(student.bfloat16(), teacher.bfloat16(), mask)


def kl_returned_in_half(student, teacher, mask):
    return kl(student, teacher, mask).half()


def kl_where(student, teacher, mask):
    p, log_q = student.softmax(-1), teacher.log_softmax(-1)
    each = torch.where(p > 0, p * (p.log() - log_q), 0)
    return each.sum(-1)[mask].mean()


def kl_nansum(student, teacher, mask):
    p, log_q = student.softmax(-1), teacher.log_softmax(-1)
    return (p * (p.log() - log_q)).nansum(-1)[mask].mean()


def kl_entropy(student, teacher, mask):
    p, log_q = student.softmax(-1), teacher.log_softmax(-1)
    return (-torch.special.entr(p) - p * log_q).sum(-1)[mask].mean()


def kl_detached(student, teacher, mask):
    return kl(student.detach(), teacher, mask)


def kl_constant_weight(student, teacher, mask):
    log_p, log_q = student.log_softmax(-1), teacher.log_softmax(-1)
    return (log_p.exp().detach() * (log_p - log_q)).sum(-1)[mask].mean()


def kl_number(student, teacher, mask):
    return kl(student, teacher, mask).item()


ANSWERS = {
    "15.1": Answers(
        right=[
            mask_by_index,
            mask_by_state,
            mask_by_looking_back,
            mask_stops_at_user_too,
        ],
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
            Wrong(mask_toggled, "stands in no answer"),
            Wrong(mask_every_end, "stands in no answer"),
            Wrong(mask_breaks_at_cut, "last answer may have no end"),
            Wrong(mask_catches_cut, "last answer may have no end"),
            Wrong(mask_loses_cut, "that has no end"),
            Wrong(mask_cut_one_short, "last answer may have no end"),
            Wrong(mask_skips_empty, "has an end all the same"),
            Wrong(mask_searches_late, "one place too late"),
            Wrong(mask_exchanged, "are exchanged"),
            Wrong(mask_all, "every token is trained"),
            Wrong(mask_of_example, "the ids of the example"),
            Wrong(mask_tensor, ".tolist()"),
        ],
    ),
    "15.2": Answers(
        right=[
            loss,
            loss_ignoring,
            loss_weighted,
            loss_in_double,
            loss_in_float,
            loss_added_up,
        ],
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
            Wrong(loss_over_rows, "shift each text by itself"),
            Wrong(loss_needs_both, "first token of each answer is lost"),
            Wrong(loss_over_time, "runs over time"),
            Wrong(loss_without_log, "the logarithm is missing"),
            Wrong(loss_in_two_steps, "in one step"),
            Wrong(loss_plain_exp, "in one step"),
            Wrong(loss_bfloat16, "bfloat16 come in"),
            Wrong(loss_through_bfloat16, "bfloat16 come in"),
            Wrong(loss_returned_in_half, "bfloat16 come in"),
            Wrong(loss_detached, "no gradient reaches logits"),
            Wrong(loss_made_anew, "no gradient reaches logits"),
            Wrong(loss_in_numpy, "stay in torch"),
            Wrong(loss_constant_sum, "all of a softmax"),
        ],
    ),
    "15.3": Answers(
        right=[apart, apart_by_loop, apart_by_start, apart_numbered_on],
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
            Wrong(apart_flat, "one square over all rows"),
            Wrong(apart_one_row, "the square of one row"),
            Wrong(apart_of_zero, "another token is bos"),
            Wrong(apart_headless, "before the first bos of a row belong"),
            Wrong(apart_head_alone, "before the first bos of a row belong"),
            Wrong(apart_first_skipped, "is a border too"),
            Wrong(apart_all_see_first, "sees place 0"),
        ],
    ),
    "15.4": Answers(
        right=[
            kl,
            kl_by_torch,
            kl_by_logsumexp,
            kl_in_float,
            kl_in_float_and_back,
            kl_in_double,
            kl_added_up,
            kl_frozen_teacher,
        ],
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
            Wrong(kl_shifted, "nothing is shifted here"),
            Wrong(kl_without_first, "nothing is shifted here"),
            Wrong(kl_batchmean, "`batchmean`"),
            Wrong(kl_masked_over_texts, "divided by B, the number"),
            Wrong(kl_absolute, "keep their signs"),
            Wrong(kl_without_exp, "is ln p here"),
            Wrong(kl_no_log_target, "`log_target`"),
            Wrong(kl_categorical, "`Categorical`"),
            Wrong(kl_nan_to_num, "is replaced"),
            Wrong(kl_largest_number, "ln q"),
            Wrong(kl_clamped, "changes ln q"),
            Wrong(kl_bfloat16, "bfloat16 come in"),
            Wrong(kl_returned_in_half, "bfloat16 come in"),
            Wrong(kl_where, "infinite slope"),
            Wrong(kl_nansum, "infinite slope"),
            Wrong(kl_entropy, "infinite slope"),
            Wrong(kl_detached, "no gradient reaches student"),
            Wrong(kl_constant_weight, "stands in it twice"),
            Wrong(kl_number, "leave them away"),
        ],
    ),
}
