"""Lesson 17, GRPO."""

import numpy as np
import torch

from . import Answers, Wrong

# --- 17.1 -------------------------------------------------------------------------


def advantages_where(rewards):
    std = rewards.std(axis=1, keepdims=True)
    flat = np.ptp(rewards, axis=1, keepdims=True) == 0
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    return np.where(flat, 0.0, centred / np.where(flat, 1.0, std))


def advantages_by_loop(rewards):
    out = np.zeros(rewards.shape)
    for n, group in enumerate(rewards):
        if len(set(group)) > 1:
            out[n] = (group - np.mean(group)) / np.std(group)
    return out


def advantages_in_float32(rewards):
    return advantages_where(rewards.astype(np.float32))


def advantages_tiny_number(rewards):
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    return centred / (rewards.std(axis=1, keepdims=True) + 1e-8)


def advantages_threshold(rewards):
    std = rewards.std(axis=1, keepdims=True)
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    return np.where(std < 1e-3, 0.0, centred / np.maximum(std, 1e-3))


def advantages_rounded(rewards):
    return advantages_where(rewards.round(6))


def advantages_of_batch(rewards):
    return (rewards - rewards.mean()) / max(rewards.std(), 1e-8)


def advantages_of_columns(rewards):
    std = np.maximum(rewards.std(axis=0), 1e-8)
    return (rewards - rewards.mean(axis=0)) / std


def advantages_sample_std(rewards):
    std = rewards.std(axis=1, ddof=1, keepdims=True)
    return (rewards - rewards.mean(axis=1, keepdims=True)) / np.where(std, std, 1)


def advantages_as_trl(rewards):
    std = rewards.std(axis=1, keepdims=True)
    return (rewards - rewards.mean(axis=1, keepdims=True)) / (std + 1e-4)


def advantages_nan(rewards):
    std = rewards.std(axis=1, keepdims=True)
    return (rewards - rewards.mean(axis=1, keepdims=True)) / std


def advantages_rounding(rewards):
    std = rewards.std(axis=1, keepdims=True)
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    return np.where(std == 0, 0.0, centred / np.where(std == 0, 1.0, std))


def advantages_mean_only(rewards):
    return rewards - rewards.mean(axis=1, keepdims=True)


def advantages_no_mean(rewards):
    return rewards / np.maximum(rewards.std(axis=1, keepdims=True), 1e-12)


def advantages_reversed(rewards):
    return -advantages_where(rewards)


def advantages_variance(rewards):
    var = rewards.var(axis=1, keepdims=True)
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    return centred / np.where(var < 1e-12, 1, var)


def advantages_batch_std(rewards):
    return (rewards - rewards.mean(axis=1, keepdims=True)) / rewards.std()


def advantages_list(rewards):
    return advantages_where(rewards).tolist()


# --- 17.2 -------------------------------------------------------------------------


def kl_from_log(logps, ref_logps):
    log_x = ref_logps - logps
    return np.exp(log_x) - log_x - 1


def kl_from_probabilities(logps, ref_logps):
    x = np.exp(ref_logps) / np.exp(logps)
    return x - 1 - np.log(x)


def kl_k1(logps, ref_logps):
    return logps - ref_logps


def kl_k2(logps, ref_logps):
    return 0.5 * (logps - ref_logps) ** 2


def kl_square(logps, ref_logps):
    return (logps - ref_logps) ** 2


def kl_upside_down(logps, ref_logps):
    x = np.exp(logps - ref_logps)
    return x - np.log(x) - 1


def kl_k1_upside_down(logps, ref_logps):
    return ref_logps - logps


def kl_negative(logps, ref_logps):
    x = np.exp(ref_logps - logps)
    return np.log(x) - x + 1


def kl_without_one(logps, ref_logps):
    x = np.exp(ref_logps - logps)
    return x - np.log(x)


def kl_plus_one(logps, ref_logps):
    x = np.exp(ref_logps - logps)
    return x - np.log(x) + 1


def kl_plus_log(logps, ref_logps):
    x = np.exp(ref_logps - logps)
    return x + np.log(x) - 1


def kl_absolute(logps, ref_logps):
    return abs(logps - ref_logps)


def kl_floored(logps, ref_logps):
    return np.maximum(logps - ref_logps, 0)


def kl_of_logs(logps, ref_logps):
    x = ref_logps / logps
    return x - np.log(x) - 1


def kl_no_exp(logps, ref_logps):
    x = ref_logps - logps
    return x - x - 1


def kl_weighed(logps, ref_logps):
    return np.exp(logps) * kl_from_log(logps, ref_logps)


def kl_exact_term(logps, ref_logps):
    return np.exp(logps) * (logps - ref_logps)


def kl_mean(logps, ref_logps):
    return kl_from_log(logps, ref_logps).mean()


# --- 17.3 -------------------------------------------------------------------------


def gain_min(logps, old_logps, advantages, clip):
    ratio = torch.exp(logps - old_logps.detach())
    bounded = torch.clamp(ratio, 1 - clip, 1 + clip)
    return torch.minimum(ratio * advantages, bounded * advantages)


def gain_by_sign(logps, old_logps, advantages, clip):
    with torch.no_grad():
        old = old_logps.exp()
    ratio = logps.exp() / old
    good = ratio.clamp(max=1 + clip)
    bad = ratio.clamp(min=1 - clip)
    return torch.where(advantages > 0, good, bad) * advantages


def gain_max(logps, old_logps, advantages, clip):
    ratio = torch.exp(logps - old_logps.detach())
    bounded = torch.clamp(ratio, 1 - clip, 1 + clip)
    return torch.maximum(ratio * advantages, bounded * advantages)


def gain_only_clipped(logps, old_logps, advantages, clip):
    ratio = torch.exp(logps - old_logps.detach())
    return torch.clamp(ratio, 1 - clip, 1 + clip) * advantages


def gain_unclipped(logps, old_logps, advantages, clip):
    return torch.exp(logps - old_logps.detach()) * advantages


def gain_clipped_above(logps, old_logps, advantages, clip):
    ratio = torch.exp(logps - old_logps.detach())
    return torch.clamp(ratio, max=1 + clip) * advantages


def gain_smaller_ratio(logps, old_logps, advantages, clip):
    ratio = torch.exp(logps - old_logps.detach())
    return torch.minimum(ratio, ratio.clamp(1 - clip, 1 + clip)) * advantages


def gain_clipped_below(logps, old_logps, advantages, clip):
    ratio = torch.exp(logps - old_logps.detach())
    return torch.clamp(ratio, min=1 - clip) * advantages


def gain_clipped_product(logps, old_logps, advantages, clip):
    product = torch.exp(logps - old_logps.detach()) * advantages
    return torch.minimum(product, product.clamp(1 - clip, 1 + clip))


def gain_upside_down(logps, old_logps, advantages, clip):
    return gain_min(old_logps, logps, advantages, clip)


def gain_no_exp(logps, old_logps, advantages, clip):
    ratio = logps - old_logps
    return torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def gain_of_logs(logps, old_logps, advantages, clip):
    ratio = logps / old_logps
    return torch.min(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def gain_whole_answer(logps, old_logps, advantages, clip):
    ratio = (logps - old_logps).sum(dim=1, keepdim=True).exp()
    bounded = ratio.clamp(1 - clip, 1 + clip)
    return torch.min(ratio * advantages, bounded * advantages).expand_as(logps)


def gain_around_zero(logps, old_logps, advantages, clip):
    ratio = torch.exp(logps - old_logps.detach())
    return torch.min(ratio * advantages, ratio.clamp(-clip, clip) * advantages)


def gain_no_old(logps, old_logps, advantages, clip):
    return gain_min(logps, logps, advantages, clip)


def gain_loss(logps, old_logps, advantages, clip):
    return -gain_min(logps, old_logps, advantages, clip)


def gain_mean(logps, old_logps, advantages, clip):
    return gain_min(logps, old_logps, advantages, clip).mean()


def gain_old_learns(logps, old_logps, advantages, clip):
    ratio = torch.exp(logps - old_logps)
    bounded = torch.clamp(ratio, 1 - clip, 1 + clip)
    return torch.minimum(ratio * advantages, bounded * advantages)


def gain_flag_changed(logps, old_logps, advantages, clip):
    old_logps.requires_grad_(False)
    return gain_min(logps, old_logps, advantages, clip)


def gain_detached(logps, old_logps, advantages, clip):
    return gain_min(logps.detach(), old_logps, advantages, clip)


def gain_clip_without_gradient(logps, old_logps, advantages, clip):
    ratio = torch.exp(logps - old_logps.detach())
    bounded = ratio + (ratio.clamp(1 - clip, 1 + clip) - ratio).detach()
    return torch.minimum(ratio * advantages, bounded * advantages)


# --- 17.4 -------------------------------------------------------------------------


def _kept(answers, end_id):
    ends = answers == end_id
    return np.cumsum(ends, axis=1) - ends == 0


def _weighed(mask, average):
    mask = mask.astype(float)
    B = len(mask)
    if average == "length":
        return mask / np.maximum(mask.sum(axis=1, keepdims=True), 1) / B
    return mask / (mask.sum() if average == "tokens" else B)


def weights_cumsum(answers, end_id, average):
    return _weighed(_kept(answers, end_id), average)


def weights_by_loop(answers, end_id, average):
    mask = np.zeros(answers.shape)
    for i, answer in enumerate(answers):
        for t, token in enumerate(answer):
            mask[i, t] = 1
            if token == end_id:
                break
    lengths = mask.sum(1)
    if average == "length":
        return mask / (lengths[:, None] * len(answers))
    if average == "tokens":
        return mask / lengths.sum()
    return mask / len(answers)


def weights_without_end(answers, end_id, average):
    return _weighed(np.cumsum(answers == end_id, axis=1) == 0, average)


def weights_one_more(answers, end_id, average):
    kept = _kept(answers, end_id)
    kept[:, 1:] |= kept[:, :-1].copy()
    return _weighed(kept, average)


def weights_not_end(answers, end_id, average):
    return _weighed(answers != end_id, average)


def weights_to_last_end(answers, end_id, average):
    mask = np.zeros(answers.shape, dtype=bool)
    for i, answer in enumerate(answers):
        places = np.flatnonzero(answer == end_id)
        mask[i, : places[-1] + 1 if len(places) else len(answer)] = True
    return _weighed(mask, average)


def weights_all(answers, end_id, average):
    return _weighed(np.ones(answers.shape), average)


def weights_unended_out(answers, end_id, average):
    ended = (answers == end_id).any(axis=1, keepdims=True)
    return _weighed(_kept(answers, end_id) & ended, average)


def weights_argmax(answers, end_id, average):
    first = (answers == end_id).argmax(axis=1)
    return _weighed(np.arange(answers.shape[1]) <= first[:, None], average)


def weights_width(answers, end_id, average):
    mask = _kept(answers, end_id).astype(float)
    if average == "length":
        return mask / mask.size
    return _weighed(mask, average)


def weights_no_batch(answers, end_id, average):
    mask = _kept(answers, end_id).astype(float)
    if average == "tokens":
        return mask / mask.sum()
    return mask / mask.sum(axis=1, keepdims=True) if average == "length" else mask


def weights_all_tokens(answers, end_id, average):
    mask = _kept(answers, end_id).astype(float)
    return mask / mask.size if average == "tokens" else _weighed(mask, average)


def weights_tokens_as_length(answers, end_id, average):
    return _weighed(
        _kept(answers, end_id), "length" if average == "tokens" else average
    )


def weights_length_as_tokens(answers, end_id, average):
    return _weighed(
        _kept(answers, end_id), "tokens" if average == "length" else average
    )


def weights_sum_as_length(answers, end_id, average):
    return _weighed(_kept(answers, end_id), "length" if average == "sum" else average)


def weights_of_ids_dtype(answers, end_id, average):
    weights = np.zeros_like(answers)
    weights[:] = weights_cumsum(answers, end_id, average)
    return weights


def weights_mask(answers, end_id, average):
    return _kept(answers, end_id)


# --- 17.5 -------------------------------------------------------------------------


def _advantages(rewards):
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    std = rewards.std(dim=1, keepdim=True, correction=0)
    flat = std < 1e-9 + 1e-6 * rewards.abs().amax(dim=1, keepdim=True)
    return torch.where(flat, 0.0, centred / torch.where(flat, 1.0, std)).reshape(-1, 1)


def _gain(ratio, a, clip):
    return torch.min(ratio * a, ratio.clamp(1 - clip, 1 + clip) * a)


def _kl(logps, ref_logps):
    log_x = ref_logps - logps
    return log_x.exp() - log_x - 1


def _of_answers(terms, mask):
    return (terms * mask).sum(1) / mask.sum(1)


def loss_plain(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    ratio = (logps - old_logps.detach()).exp()
    gain = _gain(ratio, _advantages(rewards), clip)
    terms = gain - beta * _kl(logps, ref_logps.detach())
    return -_of_answers(terms, mask).mean()


def loss_by_answer(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    G = rewards.shape[1]
    losses = []
    for i, keep in enumerate(mask):
        group = rewards[i // G]
        a = torch.zeros(()).to(logps)
        if group.max() > group.min():
            a = (rewards[i // G, i % G] - group.mean()) / group.std(unbiased=False)
        new, old = logps[i][keep], old_logps[i][keep].detach()
        x = (ref_logps[i][keep].detach() - new).exp()
        ratio = new.exp() / old.exp()
        limit = 1 + clip if a > 0 else 1 - clip
        held = ratio.clamp(max=limit) if a > 0 else ratio.clamp(min=limit)
        losses.append((beta * (x - x.log() - 1) - held * a).mean())
    return torch.stack(losses).mean()


def _changed(advantages=_advantages, gain=_gain, kl=_kl, mean=_of_answers, sign=1.0):
    """A learner's loss in which one part is another."""

    def loss(logps, old_logps, ref_logps, rewards, mask, clip, beta):
        ratio = (logps - old_logps.detach()).exp()
        value = gain(ratio, advantages(rewards), clip)
        terms = value - sign * beta * kl(logps, ref_logps.detach())
        return -mean(terms, mask).mean()

    return loss


def _named(function, name):
    function.__name__ = name
    return function


def _batch(rewards):
    return ((rewards - rewards.mean()) / rewards.std(correction=0)).reshape(-1, 1)


def _sample(rewards):
    std = rewards.std(dim=1, keepdim=True)
    std = torch.where(std < 1e-6, 1.0, std)
    return ((rewards - rewards.mean(dim=1, keepdim=True)) / std).reshape(-1, 1)


def _columns(rewards):
    return _advantages(rewards).view(rewards.shape).T.reshape(-1, 1)


def _nan(rewards):
    std = rewards.std(dim=1, keepdim=True, correction=0)
    same = rewards.amax(1, keepdim=True) == rewards.amin(1, keepdim=True)
    std = torch.where(same, 0.0, std)
    centred = torch.where(same, 0.0, rewards - rewards.mean(dim=1, keepdim=True))
    return (centred / std).reshape(-1, 1)


def _rounding(rewards):
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    std = centred.square().mean(dim=1, keepdim=True).sqrt()
    return torch.where(std == 0, 0.0, centred / std).reshape(-1, 1)


def _trl(rewards):
    std = rewards.std(dim=1, keepdim=True, correction=0)
    return ((rewards - rewards.mean(dim=1, keepdim=True)) / (std + 1e-4)).reshape(-1, 1)


def _tiny(rewards):
    std = rewards.std(dim=1, keepdim=True, correction=0)
    return ((rewards - rewards.mean(dim=1, keepdim=True)) / (std + 1e-8)).reshape(-1, 1)


loss_tiny = _named(_changed(_tiny), "loss_tiny")
loss_rounding = _named(_changed(_rounding), "loss_rounding")
loss_trl = _named(_changed(_trl), "loss_trl")
loss_batch = _named(_changed(_batch), "loss_batch")
loss_sample = _named(_changed(_sample), "loss_sample")
loss_columns = _named(_changed(_columns), "loss_columns")
loss_nan = _named(_changed(_nan), "loss_nan")
loss_rewards = _named(_changed(lambda r: r.reshape(-1, 1)), "loss_rewards")
loss_centred = _named(
    _changed(lambda r: (r - r.mean(1, keepdim=True)).reshape(-1, 1)), "loss_centred"
)
loss_kl_sign = _named(_changed(sign=-1.0), "loss_kl_sign")
loss_no_kl = _named(_changed(sign=0.0), "loss_no_kl")
loss_kl_k1 = _named(_changed(kl=lambda p, r: p - r), "loss_kl_k1")
loss_kl_k2 = _named(_changed(kl=lambda p, r: (r - p).square() / 2), "loss_kl_k2")
loss_kl_upside_down = _named(_changed(kl=lambda p, r: _kl(r, p)), "loss_kl_upside_down")
loss_unclipped = _named(_changed(gain=lambda r, a, c: r * a), "loss_unclipped")
loss_max = _named(
    _changed(gain=lambda r, a, c: torch.max(r * a, r.clamp(1 - c, 1 + c) * a)),
    "loss_max",
)
loss_only_clipped = _named(
    _changed(gain=lambda r, a, c: r.clamp(1 - c, 1 + c) * a), "loss_only_clipped"
)
loss_clipped_above = _named(
    _changed(gain=lambda r, a, c: r.clamp(max=1 + c) * a), "loss_clipped_above"
)
loss_all_tokens = _named(
    _changed(mean=lambda x, m: (x * m).sum() / m.sum()), "loss_all_tokens"
)
loss_width = _named(_changed(mean=lambda x, m: (x * m).mean(1)), "loss_width")
loss_not_divided = _named(
    _changed(mean=lambda x, m: (x * m).sum(1)), "loss_not_divided"
)
loss_no_mask = _named(_changed(mean=lambda x, m: x.mean(1)), "loss_no_mask")
loss_mask_in_count = _named(
    _changed(mean=lambda x, m: x.sum(1) / m.sum(1)), "loss_mask_in_count"
)


def _later(mask):
    return torch.cat((torch.zeros_like(mask[:, :1]), mask[:, :-1]), dim=1)


def _without_end(mask):
    return mask & torch.cat((mask[:, 1:], torch.zeros_like(mask[:, :1])), dim=1)


loss_mask_later = _named(
    _changed(mean=lambda x, m: _of_answers(x, _later(m))), "loss_mask_later"
)
loss_mask_short = _named(
    _changed(mean=lambda x, m: _of_answers(x, _without_end(m))), "loss_mask_short"
)


def loss_objective(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    return -loss_plain(logps, old_logps, ref_logps, rewards, mask, clip, beta)


def loss_fixed_clip(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    return loss_plain(logps, old_logps, ref_logps, rewards, mask, 0.2, beta)


def loss_no_beta(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    return loss_plain(logps, old_logps, ref_logps, rewards, mask, clip, 1.0)


def loss_kl_of_old(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    ratio = (logps - old_logps.detach()).exp()
    gain = _gain(ratio, _advantages(rewards), clip)
    terms = gain - beta * _kl(old_logps.detach(), ref_logps.detach())
    return -_of_answers(terms, mask).mean()


def loss_kl_outside(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    """1/|o| stands before the gain alone."""
    gain = _gain((logps - old_logps.detach()).exp(), _advantages(rewards), clip)
    kl = (_kl(logps, ref_logps.detach()) * mask).sum(1)
    return -(_of_answers(gain, mask) - beta * kl).mean()


def loss_kl_of_tokens(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    gain = _gain((logps - old_logps.detach()).exp(), _advantages(rewards), clip)
    kl = _kl(logps, ref_logps.detach())[mask].mean()
    return -_of_answers(gain, mask).mean() + beta * kl


def loss_kl_of_answers(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    gain = _gain((logps - old_logps.detach()).exp(), _advantages(rewards), clip)
    log_x = ((ref_logps.detach() - logps) * mask).sum(1)
    kl = log_x.exp() - log_x - 1
    return -(_of_answers(gain, mask) - beta * kl).mean()


def loss_by_place(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    gain = _gain((logps - old_logps.detach()).exp(), _advantages(rewards), clip)
    terms = gain - beta * _kl(logps, ref_logps.detach())
    return -((terms * mask).sum(0) / mask.sum(0)).mean()


def loss_from_reference(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    return loss_plain(logps, ref_logps, ref_logps, rewards, mask, clip, beta)


def loss_kl_to_old(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    return loss_plain(logps, old_logps, old_logps, rewards, mask, clip, beta)


def loss_in_double(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    """Right, with the advantages in a loop and zeros where no token is."""
    G = rewards.shape[1]
    new, old, ref = (
        torch.where(mask, x, torch.zeros_like(x)).double()
        for x in (logps, old_logps.detach(), ref_logps.detach())
    )
    total = 0.0
    for i in range(len(mask)):
        group = rewards[i // G].double()
        if (group == group[0]).all():
            a = torch.tensor(0.0)
        else:
            a = (group[i % G] - group.mean()) / (
                group - group.mean()
            ).square().mean().sqrt()
        ratio = (new[i] - old[i]).exp()
        x = (ref[i] - new[i]).exp()
        gain = torch.min(ratio * a, ratio.clip(1 - clip, 1 + clip) * a) * mask[i]
        total = total + (gain - beta * (x - x.log() - 1)).sum() / mask[i].sum()
    return -total / len(mask)


def loss_summed_ratio(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    """The ratio from summed logarithms."""
    drift = ((logps - old_logps.detach()) * mask).sum(1, keepdim=True)
    gain = _gain(drift.exp(), _advantages(rewards), clip)
    terms = gain - beta * _kl(logps, ref_logps.detach())
    return -_of_answers(terms, mask).mean()


def loss_mean_ratio(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    drift = _of_answers(logps - old_logps.detach(), mask)[:, None]
    gain = _gain(drift.exp(), _advantages(rewards), clip)
    terms = gain - beta * _kl(logps, ref_logps.detach())
    return -_of_answers(terms, mask).mean()


def loss_answers_added(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    B = len(mask)
    return B * loss_plain(logps, old_logps, ref_logps, rewards, mask, clip, beta)


def loss_over_group(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    N = len(rewards)
    return N * loss_plain(logps, old_logps, ref_logps, rewards, mask, clip, beta)


def loss_over_questions(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    G = rewards.shape[1]
    return G * loss_plain(logps, old_logps, ref_logps, rewards, mask, clip, beta)


def loss_kl_times_advantage(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    ratio = (logps - old_logps.detach()).exp()
    a = _advantages(rewards)
    bounded = torch.where(a > 0, ratio.clamp(max=1 + clip), ratio.clamp(min=1 - clip))
    terms = (bounded - beta * _kl(logps, ref_logps.detach())) * a
    return -_of_answers(terms, mask).mean()


def loss_item(*args):
    return loss_plain(*args).item()


def loss_old_learns(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    gain = _gain((logps - old_logps).exp(), _advantages(rewards), clip)
    terms = gain - beta * _kl(logps, ref_logps.detach())
    return -_of_answers(terms, mask).mean()


def loss_ref_learns(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    gain = _gain((logps - old_logps.detach()).exp(), _advantages(rewards), clip)
    terms = gain - beta * _kl(logps, ref_logps)
    return -_of_answers(terms, mask).mean()


def loss_kl_detached(logps, old_logps, ref_logps, rewards, mask, clip, beta):
    gain = _gain((logps - old_logps.detach()).exp(), _advantages(rewards), clip)
    with torch.no_grad():
        kl = _kl(logps, ref_logps)
    return -_of_answers(gain - beta * kl, mask).mean()


ANSWERS = {
    "17.1": Answers(
        right=[advantages_where, advantages_by_loop, advantages_in_float32],
        wrong=[
            Wrong(advantages_tiny_number, "the number added to the std"),
            Wrong(advantages_threshold, "differ by little"),
            Wrong(advantages_rounded, "differ by little"),
            Wrong(advantages_of_batch, "of all rewards together"),
            Wrong(advantages_of_columns, "a group is a row"),
            Wrong(advantages_sample_std, "this one has G"),
            Wrong(advantages_as_trl, "the number added to the std"),
            Wrong(advantages_nan, "the advantages should be 0"),
            Wrong(advantages_rounding, "the advantages should be 0"),
            Wrong(advantages_mean_only, "divide by the group's std"),
            Wrong(advantages_no_mean, "only the std is there"),
            Wrong(advantages_reversed, "the sign is reversed"),
            Wrong(advantages_variance, "divided by the variance"),
            Wrong(advantages_batch_std, "that of all groups together"),
            Wrong(advantages_list, "a list"),
        ],
    ),
    "17.2": Answers(
        right=[kl_from_log, kl_from_probabilities],
        wrong=[
            Wrong(kl_k1, "-log x alone"),
            Wrong(kl_k2, "half the square"),
            Wrong(kl_square, "the square of log x"),
            Wrong(kl_upside_down, "upside down"),
            Wrong(kl_k1_upside_down, "upside down"),
            Wrong(kl_negative, "the sign is reversed"),
            Wrong(kl_without_one, "the 1 is missing"),
            Wrong(kl_plus_one, "1 is added"),
            Wrong(kl_plus_log, "log x is added"),
            Wrong(kl_absolute, "|log x|"),
            Wrong(kl_floored, "were set to 0"),
            Wrong(kl_of_logs, "these are their logarithms"),
            Wrong(kl_no_exp, "x itself is its exponential"),
            Wrong(kl_weighed, "drawn by it already"),
            Wrong(kl_exact_term, "drawn by it already"),
            Wrong(kl_mean, "the estimate of every token"),
        ],
    ),
    "17.3": Answers(
        right=[gain_min, gain_by_sign],
        wrong=[
            Wrong(gain_max, "the larger of the two"),
            Wrong(gain_only_clipped, "the clipped ratio always counts"),
            Wrong(gain_unclipped, "nothing is clipped"),
            Wrong(gain_clipped_above, "only held below"),
            Wrong(gain_smaller_ratio, "only held below"),
            Wrong(gain_clipped_below, "only held above"),
            Wrong(gain_clipped_product, "the product with the advantage was clipped"),
            Wrong(gain_upside_down, "upside down"),
            Wrong(gain_no_exp, "the exponential of"),
            Wrong(gain_of_logs, "a quotient of logarithms"),
            Wrong(gain_whole_answer, "each token has its own"),
            Wrong(gain_around_zero, "has not moved is 1"),
            Wrong(gain_no_old, "every ratio is 1"),
            Wrong(gain_loss, "return the gain itself"),
            Wrong(gain_flag_changed, "compute with old_logps.detach()"),
            Wrong(gain_mean, "the gain of every token"),
            Wrong(gain_old_learns, "old_logps gets a gradient"),
            Wrong(gain_detached, "no gradient reaches logps"),
            Wrong(gain_clip_without_gradient, "the gradient by logps"),
        ],
    ),
    "17.4": Answers(
        right=[weights_cumsum, weights_by_loop],
        wrong=[
            Wrong(weights_without_end, "the token that ends an answer is part of it"),
            Wrong(weights_one_more, "one token after the end"),
            Wrong(weights_not_end, "even those after it"),
            Wrong(weights_to_last_end, "after the first end"),
            Wrong(weights_all, "every place counts"),
            Wrong(weights_unended_out, "ran out of room"),
            Wrong(weights_argmax, "ran out of room"),
            Wrong(weights_width, "the width of the batch"),
            Wrong(weights_no_batch, "each answer is one of B"),
            Wrong(weights_all_tokens, "padding is none of them"),
            Wrong(weights_tokens_as_length, 'this is what "length" does'),
            Wrong(weights_length_as_tokens, 'this is what "tokens" does'),
            Wrong(weights_sum_as_length, "their lengths play no part"),
            Wrong(weights_mask, "only zeros and ones"),
            Wrong(weights_of_ids_dtype, "the dtype of the ids"),
        ],
    ),
    "17.5": Answers(
        right=[loss_plain, loss_by_answer, loss_in_double],
        wrong=[
            Wrong(loss_batch, "over all rewards together"),
            Wrong(loss_sample, "this one has G"),
            Wrong(loss_columns, "are neighbours"),
            Wrong(loss_nan, "whose rewards are all equal"),
            Wrong(loss_rounding, "a rounding error away"),
            Wrong(loss_trl, "the number added to the std"),
            Wrong(loss_tiny, "the number added to the std"),
            Wrong(loss_fixed_clip, "whatever `clip` is"),
            Wrong(loss_rewards, "were taken for advantages"),
            Wrong(loss_centred, "not divided by their group's std"),
            Wrong(loss_objective, "an optimiser lowers"),
            Wrong(loss_kl_sign, "wrong sign"),
            Wrong(loss_no_kl, "the KL is missing"),
            Wrong(loss_no_beta, "beta is missing"),
            Wrong(loss_kl_k1, "can be negative"),
            Wrong(loss_kl_k2, "another estimator"),
            Wrong(loss_kl_times_advantage, "multiplied by the advantage"),
            Wrong(loss_kl_upside_down, "upside down"),
            Wrong(loss_kl_of_old, "it is the new one"),
            Wrong(loss_kl_outside, "not divided by |o|"),
            Wrong(loss_kl_of_tokens, "averaged over all tokens"),
            Wrong(loss_kl_of_answers, "one KL for a whole answer"),
            Wrong(loss_by_place, "place by place"),
            Wrong(loss_from_reference, "the ratio compares with the reference"),
            Wrong(loss_kl_to_old, "the KL compares with the old policy"),
            Wrong(loss_unclipped, "nothing is clipped"),
            Wrong(loss_max, "the larger of clipped and not"),
            Wrong(loss_only_clipped, "always counts"),
            Wrong(loss_clipped_above, "only held below"),
            Wrong(loss_summed_ratio, "each token has its own"),
            Wrong(loss_mean_ratio, "each token has its own"),
            Wrong(loss_all_tokens, "averaged together"),
            Wrong(loss_width, "the width of the batch"),
            Wrong(loss_not_divided, "1/|o| is missing"),
            Wrong(loss_answers_added, "the answers are added up"),
            Wrong(loss_over_group, "divided by G alone"),
            Wrong(loss_over_questions, "divided by N alone"),
            Wrong(loss_no_mask, "were counted as well"),
            Wrong(loss_mask_in_count, "were counted as well"),
            Wrong(loss_mask_later, "off by one"),
            Wrong(loss_mask_short, "its end was chosen too"),
            Wrong(loss_item, "a plain number"),
            Wrong(loss_old_learns, "old_logps gets a gradient"),
            Wrong(loss_ref_learns, "ref_logps gets a gradient"),
            Wrong(loss_kl_detached, "the gradient by logps"),
        ],
    ),
}
