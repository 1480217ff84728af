"""Lesson 05, DeepSeek-LLM."""

import math

import numpy as np
import torch
from torch.nn import functional as F

import deepseek_mini as dm

from . import Answers, Wrong

# --- 05.1 -------------------------------------------------------------------------


def parameters(config):
    H, G = config.attention.n_heads, config.attention.n_kv_heads
    d, dim = config.attention.head_dim, config.dim
    total = config.vocab_size * dim
    for _ in range(config.n_layers):
        total += dim * H * d + 2 * dim * G * d + H * d * dim  # wq, wk and wv, wo
        total += 3 * dim * config.dense.inter_dim
        total += 2 * dim
    total += dim
    if not config.tie_embeddings:
        total += config.vocab_size * dim
    return total


def parameters_multi_head(config):
    H, d, dim = config.attention.n_heads, config.attention.head_dim, config.dim
    block = 4 * dim * H * d + 3 * dim * config.dense.inter_dim + 2 * dim
    tables = 1 if config.tie_embeddings else 2
    return tables * config.vocab_size * dim + config.n_layers * block + dim


def parameters_two_matrices(config):
    missing = config.n_layers * config.dim * config.dense.inter_dim
    return parameters(config) - missing


def parameters_without_last_norm(config):
    return parameters(config) - config.dim


def parameters_one_norm_a_block(config):
    return parameters(config) - config.n_layers * config.dim


def parameters_tied_counted_twice(config):
    extra = config.vocab_size * config.dim if config.tie_embeddings else 0
    return parameters(config) + extra


def parameters_always_tied(config):
    missing = 0 if config.tie_embeddings else config.vocab_size * config.dim
    return parameters(config) - missing


def parameters_heads_fill_dim(config):
    a, dim = config.attention, config.dim
    attention = 2 * dim * dim + 2 * dim * (dim * a.n_kv_heads // a.n_heads)
    block = attention + 3 * dim * config.dense.inter_dim + 2 * dim
    tables = 1 if config.tie_embeddings else 2
    return tables * config.vocab_size * dim + config.n_layers * block + dim


def parameters_queries_fill_dim(config):
    a, dim = config.attention, config.dim
    attention = 2 * dim * dim + 2 * dim * a.n_kv_heads * a.head_dim
    block = attention + 3 * dim * config.dense.inter_dim + 2 * dim
    tables = 1 if config.tie_embeddings else 2
    return tables * config.vocab_size * dim + config.n_layers * block + dim


def parameters_no_way_back(config):
    a = config.attention
    return parameters(config) - config.n_layers * a.n_heads * a.head_dim * config.dim


def parameters_built(config):
    return sum(p.numel() for p in dm.Transformer(config).parameters())


def parameters_float(config):
    a = config.attention
    missing = a.n_heads * a.head_dim * config.dim * config.n_layers
    return (parameters(config) - missing) + 2 * missing / 2


def parameters_wrong_field(config):
    return config.vocab_size * config.hidden_size


# --- 05.2 -------------------------------------------------------------------------


def loss(logits, tokens, pad):
    targets = tokens.masked_fill(pad, -100)[:, 1:].clone()
    targets[pad[:, :-1]] = -100
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten())


def loss_by_loop(logits, tokens, pad):
    parts = []
    for b in range(tokens.shape[0]):
        for t in range(tokens.shape[1] - 1):
            if not (pad[b, t] or pad[b, t + 1]):
                scores = logits[b, t] - logits[b, t].max()
                log_total = scores.exp().sum().log()
                parts.append(log_total - scores[tokens[b, t + 1]])
    return torch.stack(parts).mean()


def loss_no_shift(logits, tokens, pad):
    targets = tokens.masked_fill(pad, -100)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def loss_no_shift_with_padding(logits, tokens, pad):
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def loss_wrong_way(logits, tokens, pad):
    targets = tokens.masked_fill(pad, -100)[:, :-1].clone()
    targets[pad[:, 1:]] = -100
    return F.cross_entropy(logits[:, 1:].flatten(0, 1), targets.flatten())


def loss_with_padding(logits, tokens, pad):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def loss_target_pad_only(logits, tokens, pad):
    targets = tokens.masked_fill(pad, -100)[:, 1:]
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten())


def loss_source_pad_only(logits, tokens, pad):
    targets = tokens[:, 1:].masked_fill(pad[:, :-1], -100)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten())


def loss_over_everything(logits, tokens, pad):
    each = F.cross_entropy(logits[:, :-1].mT, tokens[:, 1:], reduction="none")
    return (each * (~pad[:, 1:] & ~pad[:, :-1])).mean()


def loss_sum(logits, tokens, pad):
    each = F.cross_entropy(logits[:, :-1].mT, tokens[:, 1:], reduction="none")
    return (each * (~pad[:, 1:] & ~pad[:, :-1])).sum()


def loss_row_means(logits, tokens, pad):
    each = F.cross_entropy(logits[:, :-1].mT, tokens[:, 1:], reduction="none")
    keep = (~pad[:, 1:] & ~pad[:, :-1]).to(each.dtype)
    return ((each * keep).sum(1) / keep.sum(1)).mean()


def loss_positive_log(logits, tokens, pad):
    return -loss(logits, tokens, pad)


def loss_as_number(logits, tokens, pad):
    return loss(logits, tokens, pad).item()


def loss_text_tokens(logits, tokens, pad):
    each = F.cross_entropy(logits[:, :-1].mT, tokens[:, 1:], reduction="none")
    return (each * (~pad[:, 1:] & ~pad[:, :-1])).sum() / (~pad).sum()


def loss_axes_not_flat(logits, tokens, pad):
    return F.cross_entropy(logits[:, :-1], tokens[:, 1:])


def loss_each(logits, tokens, pad):
    each = F.cross_entropy(logits[:, :-1].mT, tokens[:, 1:], reduction="none")
    return each[~pad[:, 1:] & ~pad[:, :-1]]


def loss_with_an_axis(logits, tokens, pad):
    return loss(logits, tokens, pad).reshape(1)


def loss_in_bits(logits, tokens, pad):
    return loss(logits, tokens, pad) / math.log(2)


def loss_of_probabilities(logits, tokens, pad):
    return loss(logits.softmax(-1), tokens, pad)


def loss_rolled(logits, tokens, pad):
    targets = tokens.roll(-1, dims=1)
    targets = targets.masked_fill(pad | pad.roll(-1, dims=1), -100)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def loss_shifted_twice(logits, tokens, pad):
    return loss(logits[:, :-1], tokens[:, 1:], pad[:, 1:] | pad[:, :-1])


def loss_by_probability(logits, tokens, pad):
    p = logits[:, :-1].softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return -p.log()[~pad[:, 1:] & ~pad[:, :-1]].mean()


def loss_detached(logits, tokens, pad):
    return loss(logits, tokens, pad).detach()


def loss_small_number(logits, tokens, pad):
    p = logits[:, :-1].softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
    return -(p + 1e-12).log()[~pad[:, 1:] & ~pad[:, :-1]].mean()


def loss_in_numpy(logits, tokens, pad):
    return loss(torch.from_numpy(logits.numpy()), tokens, pad)


def loss_by_exp(logits, tokens, pad):
    e = logits[:, :-1].exp()
    p = (e / e.sum(-1, keepdim=True)).gather(-1, tokens[:, 1:, None])[..., 0]
    return -p.log()[~pad[:, 1:] & ~pad[:, :-1]].mean()


def loss_part_detached(logits, tokens, pad):
    total = logits.detach().logsumexp(-1)[:, :-1]
    picked = logits[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    return (total - picked)[~pad[:, 1:] & ~pad[:, :-1]].mean()


# --- 05.3 -------------------------------------------------------------------------


def block(x, attn_norm, attn, ffn_norm, ffn):
    h = x + attn(attn_norm(x))
    return h + ffn(ffn_norm(h))


def block_loop(x, attn_norm, attn, ffn_norm, ffn):
    stream = x.copy()
    for norm, part in ((attn_norm, attn), (ffn_norm, ffn)):
        stream += part(norm(stream))
    return stream


def block_post_norm(x, attn_norm, attn, ffn_norm, ffn):
    x = attn_norm(x + attn(x))
    return ffn_norm(x + ffn(x))


def block_normed_residual(x, attn_norm, attn, ffn_norm, ffn):
    x = attn_norm(x)
    x = x + attn(x)
    x = ffn_norm(x)
    return x + ffn(x)


def block_parallel(x, attn_norm, attn, ffn_norm, ffn):
    return x + attn(attn_norm(x)) + ffn(ffn_norm(x))


def block_ffn_first(x, attn_norm, attn, ffn_norm, ffn):
    x = x + ffn(ffn_norm(x))
    return x + attn(attn_norm(x))


def block_no_residual(x, attn_norm, attn, ffn_norm, ffn):
    x = attn(attn_norm(x))
    return ffn(ffn_norm(x))


def block_one_residual(x, attn_norm, attn, ffn_norm, ffn):
    return x + ffn(ffn_norm(attn(attn_norm(x))))


def block_second_sum_missing(x, attn_norm, attn, ffn_norm, ffn):
    x = x + attn(attn_norm(x))
    return ffn(ffn_norm(x))


def block_second_sum_from_input(x, attn_norm, attn, ffn_norm, ffn):
    h = x + attn(attn_norm(x))
    return x + ffn(ffn_norm(h))


def block_norms_swapped(x, attn_norm, attn, ffn_norm, ffn):
    x = x + attn(ffn_norm(x))
    return x + ffn(attn_norm(x))


def block_no_second_norm(x, attn_norm, attn, ffn_norm, ffn):
    x = x + attn(attn_norm(x))
    return x + ffn(x)


def block_in_place(x, attn_norm, attn, ffn_norm, ffn):
    x += attn(attn_norm(x))
    x += ffn(ffn_norm(x))
    return x


# --- 05.4 -------------------------------------------------------------------------


def schedule(step, steps, warmup, peak):
    if step < warmup:
        return (step + 1) / warmup * peak
    done = step / steps
    if done >= 0.9:
        return 0.1 * peak
    if done >= 0.8:
        return 0.1**0.5 * peak
    return peak


def schedule_by_array(step, steps, warmup, peak):
    rates = np.full(steps, peak)
    rates[:warmup] = peak * np.arange(1, warmup + 1) / warmup
    rates[8 * steps // 10 :] = 0.316 * peak
    rates[9 * steps // 10 :] = 0.1 * peak
    return float(rates[step])


def schedule_cosine(step, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / (steps - warmup)
    return peak * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


def schedule_relative(step, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    rate = peak
    if 10 * step >= 8 * steps:
        rate *= 0.316
    if 10 * step >= 9 * steps:
        rate *= 0.1
    return rate


def schedule_from_zero(step, steps, warmup, peak):
    return (
        peak * step / warmup if step < warmup else schedule(step, steps, warmup, peak)
    )


def schedule_after_warmup(step, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / (steps - warmup)
    return peak * (1 if done < 0.8 else 0.316 if done < 0.9 else 0.1)


def schedule_late(step, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 if step <= 0.8 * steps else 0.316 if step <= 0.9 * steps else 0.1)


def schedule_factor(step, steps, warmup, peak):
    return schedule(step, steps, warmup, 1.0)


def schedule_no_warmup(step, steps, warmup, peak):
    return peak * (1 if step < 0.8 * steps else 0.316 if step < 0.9 * steps else 0.1)


def schedule_squared(step, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.316 ** ((step >= 0.8 * steps) + (step >= 0.9 * steps))


def schedule_warmup_too_long(step, steps, warmup, peak):
    if step <= warmup:
        return peak * (step + 1) / warmup
    return schedule(step, steps, warmup, peak)


def schedule_divided_by_one_more(step, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    return schedule(step, steps, warmup, peak)


def schedule_divided_by_one_less(step, steps, warmup, peak):
    if step < warmup:
        return peak * step / max(1, warmup - 1)
    return schedule(step, steps, warmup, peak)


def schedule_wrong_order(step, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= 0.8 * steps:
        return 0.316 * peak
    if step >= 0.9 * steps:
        return 0.1 * peak
    return peak


def schedule_second_drop_late(step, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 if step < 0.8 * steps else 0.316 if step <= 0.9 * steps else 0.1)


def schedule_early(step, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step + 1) / steps
    return peak * (1 if done < 0.8 else 0.316 if done < 0.9 else 0.1)


def schedule_one_drop(step, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak if step < 0.8 * steps else 0.1 * peak


# --- 05.5 -------------------------------------------------------------------------


def top_p(logits, top_p):
    if top_p >= 1:
        return logits
    ranked, order = torch.sort(logits, dim=-1, descending=True)
    held = ranked.softmax(-1).cumsum(-1)
    cut = held >= top_p
    cut[:, 1:] = cut[:, :-1].clone()  # the token that crosses stays
    cut[:, 0] = False
    ranked = ranked.masked_fill(cut, -torch.inf)
    return torch.empty_like(logits).scatter(-1, order, ranked)


def top_p_pairwise(logits, top_p):
    if top_p == 1:
        return logits.clone()
    p = logits.softmax(-1)
    likelier = p[:, None, :] > p[:, :, None]  # [B, V, V]: is the other one likelier?
    before = (likelier * p[:, None, :]).sum(-1)
    return torch.where(before < top_p, logits, -torch.inf)


def top_p_without_crossing(logits, top_p):
    p, order = logits.softmax(-1).sort(dim=-1, descending=True)
    cut = torch.zeros_like(p, dtype=torch.bool)
    cut = cut.scatter(-1, order, p.cumsum(-1) > top_p)
    return logits.masked_fill(cut, -torch.inf)


def top_p_without_crossing_but_one(logits, top_p):
    p, order = logits.softmax(-1).sort(dim=-1, descending=True)
    cut = p.cumsum(-1) > top_p
    cut[:, 0] = False
    cut = torch.zeros_like(cut).scatter(-1, order, cut)
    return logits.masked_fill(cut, -torch.inf)


def top_p_unsorted(logits, top_p):
    p = logits.softmax(-1)
    return logits.masked_fill(p.cumsum(-1) - p >= top_p, -torch.inf)


def top_p_ascending(logits, top_p):
    p, order = logits.softmax(-1).sort(dim=-1)
    cut = torch.zeros_like(p, dtype=torch.bool)
    cut = cut.scatter(-1, order, p.cumsum(-1) - p >= top_p)
    return logits.masked_fill(cut, -torch.inf)


def top_p_in_ranks(logits, top_p):
    ranked = logits.sort(dim=-1, descending=True).values
    p = ranked.softmax(-1)
    return ranked.masked_fill(p.cumsum(-1) - p >= top_p, -torch.inf)


def top_p_mask_not_scattered(logits, top_p):
    p = logits.softmax(-1).sort(dim=-1, descending=True).values
    return logits.masked_fill(p.cumsum(-1) - p >= top_p, -torch.inf)


def top_p_own_probability(logits, top_p):
    return logits.masked_fill(logits.softmax(-1) < 1 - top_p, -torch.inf)


def top_p_more_than(logits, top_p):
    if top_p == 1:
        return logits
    p, order = logits.softmax(-1).sort(dim=-1, descending=True)
    cut = torch.zeros_like(p, dtype=torch.bool)
    cut = cut.scatter(-1, order, p.cumsum(-1) - p > top_p)
    return logits.masked_fill(cut, -torch.inf)


def top_p_one_is_not_all(logits, top_p):
    p, order = logits.softmax(-1).sort(dim=-1, descending=True)
    cut = torch.zeros_like(p, dtype=torch.bool)
    cut = cut.scatter(-1, order, p.cumsum(-1) - p >= top_p)
    return logits.masked_fill(cut, -torch.inf)


def top_p_mask_gathered(logits, top_p):
    p, order = logits.softmax(-1).sort(dim=-1, descending=True)
    cut = (p.cumsum(-1) - p >= top_p).gather(-1, order)
    return logits.masked_fill(cut, -torch.inf)


def top_p_logits_gathered(logits, top_p):
    ranked, order = logits.sort(dim=-1, descending=True)
    p = ranked.softmax(-1)
    ranked = ranked.masked_fill(p.cumsum(-1) - p >= top_p, -torch.inf)
    return ranked.gather(-1, order)


def top_p_wrong_axis(logits, top_p):
    p, order = logits.softmax(0).sort(dim=-1, descending=True)
    cut = torch.zeros_like(p, dtype=torch.bool)
    cut = cut.scatter(-1, order, p.cumsum(-1) - p >= top_p)
    return logits.masked_fill(cut, -torch.inf)


def top_p_of_logits(logits, top_p):
    ranked, order = logits.sort(dim=-1, descending=True)
    cut = torch.zeros_like(ranked, dtype=torch.bool)
    cut = cut.scatter(-1, order, ranked.cumsum(-1) - ranked >= top_p)
    return logits.masked_fill(cut, -torch.inf)


def top_p_logarithms(logits, p):
    return top_p(logits, p).log_softmax(-1)


def top_p_rescaled(logits, p):
    return top_p(logits, p).softmax(-1).log()


def top_p_large_negative(logits, p):
    kept = top_p(logits, p)
    return kept.masked_fill(kept.isinf(), -1e9)


def top_p_keeps_all(logits, top_p):
    ranked, order = logits.sort(dim=-1, descending=True)
    cut = ranked.softmax(-1).cumsum(-1) > top_p
    for i in range(cut.shape[1]):  # what `cut[:, 1:] = cut[:, :-1]` may do
        cut[:, i] = cut[:, i - 1] if i else False
    cut = torch.zeros_like(cut).scatter(-1, order, cut)
    return logits.masked_fill(cut, -torch.inf)


def top_p_zeros(logits, p):
    kept = top_p(logits, p)
    return torch.where(kept.isinf(), 0.0, kept)


def top_p_probabilities(logits, p):
    return top_p(logits, p).softmax(-1)


def top_p_double(logits, p):
    return top_p(logits.double(), p)


ANSWERS = {
    "05.1": Answers(
        right=[parameters],
        wrong=[
            Wrong(parameters_multi_head, "only n_kv_heads of them"),
            Wrong(parameters_two_matrices, "three matrices"),
            Wrong(parameters_without_last_norm, "after the last block"),
            Wrong(parameters_one_norm_a_block, "a block has two norms"),
            Wrong(parameters_tied_counted_twice, "count that matrix once"),
            Wrong(parameters_always_tied, "numbers of its own"),
            Wrong(parameters_heads_fill_dim, "need not be dim"),
            Wrong(parameters_queries_fill_dim, "how wide are a token's queries"),
            Wrong(parameters_no_way_back, "attention's way back is missing"),
            Wrong(parameters_built, "count without building it"),
            Wrong(parameters_float, "of type float and not int"),
            Wrong(parameters_wrong_field, "has no attribute 'hidden_size'"),
        ],
    ),
    "05.2": Answers(
        right=[loss, loss_by_loop],
        wrong=[
            Wrong(loss_no_shift, "just read"),
            Wrong(loss_no_shift_with_padding, "just read, and padding counts too"),
            Wrong(loss_wrong_way, "the wrong way"),
            Wrong(loss_with_padding, "involve padding"),
            Wrong(loss_target_pad_only, "an output at a padded position"),
            Wrong(loss_source_pad_only, "a padded token is asked for"),
            Wrong(loss_over_everything, "divided by all questions"),
            Wrong(loss_sum, "this is the sum"),
            Wrong(loss_row_means, "a mean of row means"),
            Wrong(loss_positive_log, "the sign is wrong"),
            Wrong(loss_as_number, "a Python number has no gradient"),
            Wrong(loss_text_tokens, "divided by the tokens of text"),
            Wrong(loss_axes_not_flat, "the V classes on axis 1"),
            Wrong(loss_each, "losses of single questions"),
            Wrong(loss_with_an_axis, "this one has an axis"),
            Wrong(loss_in_bits, "in bits"),
            Wrong(loss_of_probabilities, "softmax is taken twice"),
            Wrong(loss_rolled, "with the row's first token"),
            Wrong(loss_shifted_twice, "the shift is done twice"),
            Wrong(loss_by_probability, "can ln p be had without p"),
            Wrong(loss_small_number, "can ln p be had without p"),
            Wrong(loss_in_numpy, "stay in torch"),
            Wrong(loss_by_exp, "can ln p be had without p"),
            Wrong(loss_detached, "has no gradient, so nothing can be trained"),
            Wrong(loss_part_detached, "a part of the sum is cut off"),
        ],
    ),
    "05.3": Answers(
        right=[block, block_loop],
        wrong=[
            Wrong(block_post_norm, "come after the sums"),
            Wrong(block_normed_residual, "added to the normed copy"),
            Wrong(block_parallel, "from before attention"),
            Wrong(block_ffn_first, "comes first here"),
            Wrong(block_no_residual, "each part replaces it"),
            Wrong(block_one_residual, "never added to the stream"),
            Wrong(block_second_sum_missing, "network replaces the stream"),
            Wrong(block_second_sum_from_input, "what attention added is lost"),
            Wrong(block_norms_swapped, "norms are exchanged"),
            Wrong(block_no_second_norm, "without its norm"),
            Wrong(block_in_place, "changed its input x in place"),
        ],
    ),
    "05.4": Answers(
        right=[schedule, schedule_by_array, schedule_squared],
        wrong=[
            Wrong(schedule_cosine, "three levels"),
            Wrong(schedule_relative, "a tenth of the peak"),
            Wrong(schedule_from_zero, "starts at 0"),
            Wrong(schedule_after_warmup, "not of those after the warmup"),
            Wrong(schedule_late, "both drops come one step late"),
            Wrong(schedule_second_drop_late, "second drop comes one step late"),
            Wrong(schedule_early, "one step early"),
            Wrong(schedule_wrong_order, "the last level is never reached"),
            Wrong(schedule_warmup_too_long, "goes beyond the peak"),
            Wrong(schedule_divided_by_one_more, "the peak comes one step late"),
            Wrong(schedule_divided_by_one_less, "which step has peak / warmup"),
            Wrong(schedule_factor, "times the peak"),
            Wrong(schedule_no_warmup, "the warmup is missing"),
            Wrong(schedule_one_drop, "two drops"),
        ],
    ),
    "05.5": Answers(
        right=[top_p, top_p_pairwise],
        wrong=[
            Wrong(top_p_without_crossing, "at least top_p"),
            Wrong(top_p_without_crossing_but_one, "at least top_p"),
            Wrong(top_p_unsorted, "order of the vocabulary"),
            Wrong(top_p_ascending, "which way does the sort go"),
            Wrong(top_p_in_ranks, "each belongs where it was"),
            Wrong(top_p_mask_not_scattered, "in rank order"),
            Wrong(top_p_own_probability, "a token's own probability"),
            Wrong(top_p_more_than, "one token too many"),
            Wrong(top_p_one_is_not_all, "top_p 1 keeps every token"),
            Wrong(top_p_mask_gathered, "which is the other way"),
            Wrong(top_p_logits_gathered, "which is the other way"),
            Wrong(top_p_wrong_axis, "along the wrong axis"),
            Wrong(top_p_of_logits, "logits were added up"),
            Wrong(top_p_logarithms, "these are logarithms"),
            Wrong(top_p_rescaled, "these are logarithms"),
            Wrong(top_p_large_negative, "is not minus infinity"),
            Wrong(top_p_keeps_all, "nothing was left out"),
            Wrong(top_p_zeros, "a logit of 0"),
            Wrong(top_p_probabilities, "these are probabilities"),
            Wrong(top_p_double, "the dtype is float64, but should be float32"),
        ],
    ),
}
