"""Lesson 11, bias balancing."""

import numpy as np
import torch
from torch.nn import functional as F

from . import Answers, Wrong

# --- 11.1 -------------------------------------------------------------------------


def bias_signs(bias, load, speed):
    return bias + speed * np.sign(load.mean() - load)


def bias_by_comparison(bias, load, speed):
    mean = load.sum() / len(load)
    return np.where(
        load > mean, bias - speed, np.where(load < mean, bias + speed, bias)
    )


def bias_reversed(bias, load, speed):
    return bias + speed * np.sign(load - load.mean())


def bias_magnitude(bias, load, speed):
    return bias + speed * (load.mean() - load)


def bias_relative_magnitude(bias, load, speed):
    return bias + speed * (1 - load / load.mean())


def bias_equal_goes_up(bias, load, speed):
    return np.where(load > load.mean(), bias - speed, bias + speed)


def bias_only_down(bias, load, speed):
    return np.where(load > load.mean(), bias - speed, bias)


def bias_extremes(bias, load, speed):
    new = bias.copy()
    new[load == load.max()] -= speed
    new[load == load.min()] += speed
    return new


def bias_moves_only(bias, load, speed):
    return speed * np.sign(load.mean() - load)


def bias_median(bias, load, speed):
    return bias + speed * np.sign(np.median(load) - load)


def bias_in_place(bias, load, speed):
    bias += speed * np.sign(load.mean() - load)
    return bias


def bias_centred(bias, load, speed):
    new = bias + speed * np.sign(load.mean() - load)
    return new - new.mean()


def bias_floored_mean(bias, load, speed):
    return bias + speed * np.sign(load.sum() // len(load) - load)


def bias_int_mean(bias, load, speed):
    return bias + speed * np.sign(int(load.mean()) - load)


def bias_rounded_mean(bias, load, speed):
    return bias + speed * np.sign(round(load.mean()) - load)


def bias_raised_mean(bias, load, speed):
    return bias + speed * np.sign(np.ceil(load.mean()) - load)


def bias_no_speed(bias, load, speed):
    return bias + np.sign(load.mean() - load)


def bias_of_biases(bias, load, speed):
    return bias + speed * np.sign(bias.mean() - bias)


def bias_list(bias, load, speed):
    mean = sum(load) / len(load)
    return [b + speed * np.sign(mean - c) for b, c in zip(bias, load)]


# --- 11.2 -------------------------------------------------------------------------


def _dense(scores, chosen, weights):
    out = np.zeros_like(scores)
    np.put_along_axis(out, chosen, weights, 1)
    return out


def _best(ranked, K):
    return np.argsort(-ranked, axis=1)[:, :K]


def gate_scatter(scores, bias, K, route_scale):
    chosen = _best(scores + bias, K)
    weights = np.take_along_axis(scores, chosen, 1)
    weights = route_scale * weights / weights.sum(1, keepdims=True)
    return _dense(scores, chosen, weights)


def gate_token_by_token(scores, bias, K, route_scale):
    out = np.zeros(scores.shape)
    for t in range(len(scores)):
        best = np.argpartition(scores[t] + bias, -K)[-K:]
        out[t, best] = scores[t, best] * (route_scale / scores[t, best].sum())
    return out


def gate_bias_weighs(scores, bias, K, route_scale):
    scores = scores + bias
    return gate_scatter(scores, 0, K, route_scale)


def gate_no_bias(scores, bias, K, route_scale):
    return gate_scatter(scores, 0, K, route_scale)


def gate_bias_subtracted(scores, bias, K, route_scale):
    return gate_scatter(scores, -bias, K, route_scale)


def gate_normalised_over_all(scores, bias, K, route_scale):
    chosen = _best(scores + bias, K)
    weights = scores / scores.sum(1, keepdims=True)
    kept = np.take_along_axis(weights, chosen, 1)
    return _dense(scores, chosen, route_scale * kept)


def gate_normalised_first(scores, bias, K, route_scale):
    """Renormalised before selecting."""
    scores = scores / scores.sum(1, keepdims=True)
    return gate_scatter(scores, bias, K, route_scale)


def gate_not_normalised(scores, bias, K, route_scale):
    chosen = _best(scores + bias, K)
    kept = np.take_along_axis(scores, chosen, 1)
    return _dense(scores, chosen, route_scale * kept)


def gate_no_scale(scores, bias, K, route_scale):
    return gate_scatter(scores, bias, K, 1.0)


def gate_softmax(scores, bias, K, route_scale):
    chosen = _best(scores + bias, K)
    kept = np.exp(np.take_along_axis(scores, chosen, 1))
    return _dense(scores, chosen, route_scale * kept / kept.sum(1, keepdims=True))


def gate_of_all(scores, bias, K, route_scale):
    return route_scale * scores / scores.sum(1, keepdims=True)


def gate_only_chosen(scores, bias, K, route_scale):
    kept = np.take_along_axis(scores, _best(scores + bias, K), 1)
    return route_scale * kept / kept.sum(1, keepdims=True)


def gate_over_the_batch(scores, bias, K, route_scale):
    ranked = scores + bias
    kept = np.where(ranked >= np.sort(ranked, axis=1)[:, -K, None], scores, 0.0)
    return route_scale * kept / kept.sum()


def gate_lowest(scores, bias, K, route_scale):
    chosen = np.argsort(scores + bias, axis=1)[:, :K]
    weights = np.take_along_axis(scores, chosen, 1)
    return _dense(scores, chosen, route_scale * weights / weights.sum(1)[:, None])


# --- 11.3 -------------------------------------------------------------------------


def _mask(ranked, chosen):
    out = np.zeros(ranked.shape, dtype=bool)
    np.put_along_axis(out, chosen, True, 1)
    return out


def _grouped(ranked, n_groups, n_limited, K, worth, shut=-np.inf, groups=None):
    groups = ranked.reshape(len(ranked), n_groups, -1)
    best = np.argsort(-worth(groups), axis=1)[:, :n_limited]
    is_open = np.zeros(groups.shape[:2], dtype=bool)
    np.put_along_axis(is_open, best, True, 1)
    left = np.where(is_open[..., None], groups, shut).reshape(ranked.shape)
    return _mask(ranked, _best(left, K))


def _top_two(groups):
    return np.sort(groups, axis=-1)[..., -2:].sum(-1)


def groups_in_torch(ranked, n_groups, n_limited, K):
    groups = torch.tensor(ranked).unflatten(1, (n_groups, -1))
    best = groups.topk(2).values.sum(-1).topk(n_limited).indices
    left = torch.full_like(groups, -torch.inf)
    index = best[..., None].expand(-1, -1, groups.shape[-1])
    left = left.scatter(1, index, groups.gather(1, index)).flatten(1)
    chosen = left.topk(K).indices
    return torch.zeros_like(left).scatter(1, chosen, 1).bool().numpy()


def groups_by_loop(ranked, n_groups, n_limited, K):
    size = ranked.shape[1] // n_groups
    out = np.zeros(ranked.shape, dtype=bool)
    for t, row in enumerate(ranked):
        parts = [row[g * size : (g + 1) * size] for g in range(n_groups)]
        worth = [-np.partition(part, -2)[-2:].sum() for part in parts]
        reach = [
            g * size + j for g in np.argsort(worth)[:n_limited] for j in range(size)
        ]
        out[t, sorted(reach, key=lambda i: -row[i])[:K]] = True
    return out


def groups_by_max(ranked, n_groups, n_limited, K):
    return _grouped(ranked, n_groups, n_limited, K, lambda g: g.max(-1))


def groups_by_sum(ranked, n_groups, n_limited, K):
    return _grouped(ranked, n_groups, n_limited, K, lambda g: g.sum(-1))


def groups_by_mean(ranked, n_groups, n_limited, K):
    return _grouped(ranked, n_groups, n_limited, K, lambda g: g.mean(-1))


def groups_zero(ranked, n_groups, n_limited, K):
    return _grouped(ranked, n_groups, n_limited, K, _top_two, shut=0.0)


def groups_minus_one(ranked, n_groups, n_limited, K):
    return _grouped(ranked, n_groups, n_limited, K, _top_two, shut=-1.0)


def groups_minus_five(ranked, n_groups, n_limited, K):
    return _grouped(ranked, n_groups, n_limited, K, _top_two, shut=-5.0)


def groups_minus_thousand(ranked, n_groups, n_limited, K):
    return _grouped(ranked, n_groups, n_limited, K, _top_two, shut=-1e3)


def groups_least_float(ranked, n_groups, n_limited, K):
    """Right: no entry is below the least float."""
    least = np.finfo(ranked.dtype).min
    return _grouped(ranked, n_groups, n_limited, K, _top_two, shut=least)


def groups_int8(ranked, n_groups, n_limited, K):
    return groups_by_loop(ranked, n_groups, n_limited, K).astype(np.int8)


def groups_ones(ranked, n_groups, n_limited, K):
    return np.where(groups_by_loop(ranked, n_groups, n_limited, K), 1, 0)


def groups_ones_as_floats(ranked, n_groups, n_limited, K):
    out = np.zeros(ranked.shape)
    out[groups_by_loop(ranked, n_groups, n_limited, K)] = 1
    return out


def groups_as_v2(ranked, n_groups, n_limited, K):
    return _grouped(ranked, n_groups, n_limited, K, lambda g: g.max(-1), shut=0.0)


def groups_no_limit(ranked, n_groups, n_limited, K):
    return _mask(ranked, _best(ranked, K))


def groups_worst(ranked, n_groups, n_limited, K):
    return _grouped(ranked, n_groups, n_limited, K, lambda g: -_top_two(g))


def groups_all_open(ranked, n_groups, n_limited, K):
    size = ranked.shape[1] // n_groups
    return _grouped(ranked, n_groups, n_limited, n_limited * size, _top_two)


def groups_dealt(ranked, n_groups, n_limited, K):
    groups = ranked.reshape(len(ranked), -1, n_groups).transpose(0, 2, 1)
    best = np.argsort(-_top_two(groups), axis=1)[:, :n_limited]
    keep = (np.arange(ranked.shape[1]) % n_groups == best[..., None]).any(1)
    return _mask(ranked, _best(np.where(keep, ranked, -np.inf), K))


def groups_exchanged(ranked, n_groups, n_limited, K):
    return groups_by_loop(ranked, ranked.shape[1] // n_groups, n_limited, K)


def groups_same_for_all(ranked, n_groups, n_limited, K):
    groups = ranked.reshape(len(ranked), n_groups, -1)
    best = np.argsort(-_top_two(groups).sum(0))[:n_limited]
    keep = np.isin(np.arange(ranked.shape[1]) // groups.shape[2], best)
    return _mask(ranked, _best(np.where(keep, ranked, -np.inf), K))


def groups_indices(ranked, n_groups, n_limited, K):
    out = groups_by_loop(ranked, n_groups, n_limited, K)
    return np.stack([np.flatnonzero(row) for row in out])


# --- 11.4 -------------------------------------------------------------------------


def _counts(scores, K):
    chosen = scores.topk(K).indices
    return F.one_hot(chosen, scores.shape[-1]).sum(dim=(1, 2))


def _shares(scores):
    return (scores / scores.sum(-1, keepdim=True)).mean(1)


def loss_one_hot(scores, K):
    T, E = scores.shape[1:]
    f = _counts(scores, K) * (E / (K * T))
    return (f * _shares(scores)).sum() / len(scores)


def loss_by_sequence(scores, K):
    losses = []
    for one in scores:
        T, E = one.shape
        load = one.topk(K).indices.flatten().bincount(minlength=E)
        shares = F.normalize(one, p=1, dim=-1).mean(0)
        losses.append(torch.dot(load.to(one.dtype) / (K * T) * E, shares))
    return torch.stack(losses).mean()


def loss_not_normalised(scores, K):
    T, E = scores.shape[1:]
    return (_counts(scores, K) * E / (K * T) * scores.mean(1)).sum(-1).mean()


def loss_normalised_late(scores, K):
    T, E = scores.shape[1:]
    P = scores.mean(1)
    P = P / P.sum(-1, keepdim=True)
    return (_counts(scores, K) * E / (K * T) * P).sum(-1).mean()


def loss_softmax(scores, K):
    T, E = scores.shape[1:]
    P = scores.softmax(-1).mean(1)
    return (_counts(scores, K) * E / (K * T) * P).sum(-1).mean()


def loss_of_batch(scores, K):
    return loss_one_hot(scores.reshape(1, -1, scores.shape[-1]), K)


def loss_summed(scores, K):
    return loss_one_hot(scores, K) * len(scores)


def loss_of_tokens(scores, K):
    return loss_one_hot(scores, K) * K


def loss_without_t(scores, K):
    return loss_one_hot(scores, K) * scores.shape[1]


def loss_without_e(scores, K):
    return loss_one_hot(scores, K) / scores.shape[-1]


def loss_first_choice(scores, K):
    return loss_one_hot_with(scores, _counts(scores, 1), K)


def loss_one_hot_with(scores, counts, K):
    T, E = scores.shape[1:]
    return (counts * E / (K * T) * _shares(scores)).sum(-1).mean()


def loss_of_weights(scores, K):
    best, chosen = scores.topk(K)
    kept = torch.zeros_like(scores).scatter(
        2, chosen, best / best.sum(-1, keepdim=True)
    )
    T, E = scores.shape[1:]
    return (_counts(scores, K) * E / (K * T) * kept.mean(1)).sum(-1).mean()


def loss_a_sequence(scores, K):
    T, E = scores.shape[1:]
    return (_counts(scores, K) * E / (K * T) * _shares(scores)).sum(-1)


def loss_in_float64(scores, K):
    """Right: the counts are float64, whatever the scores are."""
    chosen = torch.zeros(scores.shape, dtype=torch.float64)
    chosen.scatter_(-1, scores.topk(K).indices, 1.0)
    f = chosen.mean(1) * scores.shape[-1] / K
    return (f * _shares(scores)).sum(-1).mean()


def loss_in_float32(scores, K):
    """Right: the choice is a comparison, and its mean float32."""
    chosen = (scores >= scores.topk(K).values[..., -1:]).float()
    return (chosen.mean(1) * scores.shape[-1] / K * _shares(scores)).sum(-1).mean()


def loss_item(scores, K):
    return loss_one_hot(scores, K).item()


def loss_through_f(scores, K):
    """The chosen scores over themselves, detached: ones, with a gradient."""
    kept = scores * F.one_hot(scores.topk(K).indices, scores.shape[-1]).sum(2)
    ones = kept / (kept.detach() + (kept == 0))
    f = ones.mean(1) * scores.shape[-1] / K
    return (f * _shares(scores)).sum(-1).mean()


def loss_normalised_over_tokens(scores, K):
    T, E = scores.shape[1:]
    P = (scores / scores.sum(1, keepdim=True)).mean(1)
    return (_counts(scores, K) * E / (K * T) * P).sum(-1).mean()


def loss_over_the_chosen(scores, K):
    T, E = scores.shape[1:]
    P = (scores / scores.topk(K).values.sum(-1, keepdim=True)).mean(1)
    return (_counts(scores, K) * E / (K * T) * P).sum(-1).mean()


def loss_detached(scores, K):
    return loss_one_hot(scores.detach(), K)


def loss_sum_detached(scores, K):
    T, E = scores.shape[1:]
    P = (scores / scores.sum(-1, keepdim=True).detach()).mean(1)
    return (_counts(scores, K) * E / (K * T) * P).sum(-1).mean()


# --- 11.5 -------------------------------------------------------------------------


class GateWithBuffer(torch.nn.Module):
    """Right; the wrong ones below differ in one method."""

    def __init__(self, dim, n_experts, K, route_scale):
        super().__init__()
        self.K, self.route_scale = K, route_scale
        self.weight = torch.nn.Parameter(torch.randn(n_experts, dim))
        self.make_bias(n_experts)

    def make_bias(self, n_experts):
        self.register_buffer("bias", torch.zeros(n_experts))

    def forward(self, x):
        scores = torch.sigmoid(F.linear(x, self.weight))
        return self.weigh(scores, scores + self.bias)

    def weigh(self, scores, ranked):
        mask = ranked >= ranked.topk(self.K).values[:, -1:]
        kept = scores * mask
        return self.route_scale * kept / kept.sum(-1, keepdim=True)

    def update(self, load, speed):
        load = load.to(self.bias.dtype)
        with torch.no_grad():
            self.bias += speed * torch.sign(load.mean() - load)


class GateWithFrozenParameter(GateWithBuffer):
    """As the package does it."""

    def make_bias(self, n_experts):
        zeros = torch.zeros(n_experts)
        self.bias = torch.nn.Parameter(zeros, requires_grad=False)

    def update(self, load, speed):
        mean = load.sum() / len(load)
        self.bias.data = self.bias + speed * ((load < mean).int() - (load > mean).int())


class GateBySubtraction(GateWithBuffer):
    """The bias is taken off again: right while nothing asks for its gradient."""

    def forward(self, x):
        biased = torch.sigmoid(x @ self.weight.mT) + self.bias
        values, chosen = biased.topk(self.K)
        values = values - self.bias[chosen]
        values = self.route_scale * values / values.sum(-1, keepdim=True)
        return torch.zeros_like(biased).scatter(1, chosen, values)

    def update(self, load, speed):
        self.bias = self.bias + speed * (load.float().mean() - load).sign()


class _Parameter(GateWithBuffer):
    def make_bias(self, n_experts):
        self.bias = torch.nn.Parameter(torch.zeros(n_experts))


class GateLearned(_Parameter):
    def weigh(self, scores, ranked):
        return super().weigh(ranked, ranked)


class GateStraightThrough(_Parameter):
    def weigh(self, scores, ranked):
        return super().weigh(ranked + (scores - ranked).detach(), ranked)


class GateSubtractedParameter(GateBySubtraction):
    make_bias = _Parameter.make_bias


class GateAsksForGradient(_Parameter):
    pass


class GateBiasWeighs(GateWithBuffer):
    def weigh(self, scores, ranked):
        return super().weigh(ranked, ranked)


class GatePlainAttribute(GateWithBuffer):
    def make_bias(self, n_experts):
        self.bias = torch.zeros(n_experts)


class GateMovesInForward(GateWithBuffer):
    def weigh(self, scores, ranked):
        out = super().weigh(scores, ranked)
        self.update((out > 0).sum(0), 0.001)
        return out


class GateWithoutGraph(GateWithBuffer):
    def weigh(self, scores, ranked):
        return super().weigh(scores.detach(), ranked)


class GateSumDetached(GateWithBuffer):
    def weigh(self, scores, ranked):
        kept = scores * (ranked >= ranked.topk(self.K).values[:, -1:])
        return self.route_scale * kept / kept.detach().sum(-1, keepdim=True)


class GateBiasInSigmoid(GateWithBuffer):
    def forward(self, x):
        scores = torch.sigmoid(x @ self.weight.T + self.bias)
        return self.weigh(scores, scores)


class GateChosenInSigmoid(GateWithBuffer):
    def forward(self, x):
        products = x @ self.weight.T
        return self.weigh(torch.sigmoid(products), products + self.bias)


class GateSoftmax(GateWithBuffer):
    def forward(self, x):
        scores = torch.softmax(x @ self.weight.T, -1)
        return self.weigh(scores, scores + self.bias)


class GateTransposed(GateWithBuffer):
    def __init__(self, dim, n_experts, K, route_scale):
        super().__init__(dim, n_experts, K, route_scale)
        self.weight = torch.nn.Parameter(torch.randn(dim, n_experts))


class GateReversed(GateWithBuffer):
    def update(self, load, speed):
        self.bias += speed * torch.sign(load - load.float().mean())


class GateByMagnitude(GateWithBuffer):
    def update(self, load, speed):
        self.bias += speed * (load.float().mean() - load)


class GateFloored(GateWithBuffer):
    def update(self, load, speed):
        self.bias += speed * torch.sign(load.sum() // len(load) - load)


class GateIntegerMean(GateWithBuffer):
    def update(self, load, speed):
        self.bias += speed * torch.sign(load.mean() - load)


class GateReturnsBias(GateWithBuffer):
    def update(self, load, speed):
        return self.bias + speed * torch.sign(load.float().mean() - load)


class GateReplacesParameter(GateWithFrozenParameter):
    def update(self, load, speed):
        self.bias = self.bias + speed * torch.sign(load.float().mean() - load)


class GateNoUpdate(GateWithBuffer):
    def update(self, load, speed):
        raise NotImplementedError("11.5")


ANSWERS = {
    "11.1": Answers(
        right=[bias_signs, bias_by_comparison],
        wrong=[
            Wrong(bias_reversed, "the direction is reversed"),
            Wrong(bias_magnitude, "all move by the same amount"),
            Wrong(bias_relative_magnitude, "all move by the same amount"),
            Wrong(bias_equal_goes_up, "should stay where it is"),
            Wrong(bias_only_down, "only one of the two sides moves"),
            Wrong(bias_extremes, "only the busiest and the idlest"),
            Wrong(bias_moves_only, "the old biases are missing"),
            Wrong(bias_median, "compared with their median"),
            Wrong(bias_in_place, "in place"),
            Wrong(bias_centred, "moved to a mean of 0"),
            Wrong(bias_floored_mean, "made a whole number"),
            Wrong(bias_int_mean, "made a whole number"),
            Wrong(bias_rounded_mean, "made a whole number"),
            Wrong(bias_raised_mean, "made a whole number"),
            Wrong(bias_no_speed, "the speed is missing"),
            Wrong(bias_of_biases, "it is loads that should be"),
            Wrong(bias_list, "a list of numbers"),
        ],
    ),
    "11.2": Answers(
        right=[gate_scatter, gate_token_by_token],
        wrong=[
            Wrong(gate_bias_weighs, "with the bias in their weights"),
            Wrong(gate_no_bias, "chosen without the bias"),
            Wrong(gate_bias_subtracted, "the bias is subtracted"),
            Wrong(gate_normalised_over_all, "the sum over all experts"),
            Wrong(gate_normalised_first, "before the bias was added"),
            Wrong(gate_not_normalised, "not divided by their sum"),
            Wrong(gate_no_scale, "route_scale is missing"),
            Wrong(gate_softmax, "a softmax over the chosen"),
            Wrong(gate_of_all, "every expert has a weight"),
            Wrong(gate_only_chosen, "only the K weights of the chosen"),
            Wrong(gate_over_the_batch, "a sum over all tokens"),
            Wrong(gate_lowest, "the lowest sums"),
        ],
    ),
    "11.3": Answers(
        right=[groups_in_torch, groups_by_loop, groups_least_float],
        wrong=[
            Wrong(groups_by_max, "here it is the two best"),
            Wrong(groups_by_sum, "the sum of all its entries"),
            Wrong(groups_by_mean, "the sum of all its entries"),
            Wrong(groups_zero, "entries have no lower bound"),
            Wrong(groups_minus_one, "entries have no lower bound"),
            Wrong(groups_minus_five, "entries have no lower bound"),
            Wrong(groups_minus_thousand, "entries have no lower bound"),
            Wrong(groups_int8, "the right experts as numbers"),
            Wrong(groups_ones, "the right experts as numbers"),
            Wrong(groups_ones_as_floats, "the right experts as numbers"),
            Wrong(groups_as_v2, "V2"),
            Wrong(groups_no_limit, "the limit to groups is missing"),
            Wrong(groups_worst, "the worst groups"),
            Wrong(groups_all_open, "only the K best of them"),
            Wrong(groups_dealt, "consists of neighbours"),
            Wrong(groups_exchanged, "the two are exchanged"),
            Wrong(groups_same_for_all, "each has its own"),
            Wrong(groups_indices, "return bool [N, E]"),
        ],
    ),
    "11.4": Answers(
        right=[loss_one_hot, loss_by_sequence, loss_in_float64, loss_in_float32],
        wrong=[
            Wrong(loss_not_normalised, "sigmoids do not add up to 1"),
            Wrong(loss_normalised_late, "after the mean over the tokens"),
            Wrong(loss_softmax, "went through a softmax"),
            Wrong(loss_of_batch, "counted as one"),
            Wrong(loss_summed, "return their mean"),
            Wrong(loss_of_tokens, "each makes K choices"),
            Wrong(loss_without_t, "not divided by T"),
            Wrong(loss_without_e, "a factor E is missing"),
            Wrong(loss_first_choice, "only each token's best expert"),
            Wrong(loss_of_weights, "the chosen scores alone"),
            Wrong(loss_a_sequence, "one number for each sequence"),
            Wrong(loss_detached, "no gradient reaches the scores"),
            Wrong(loss_sum_detached, "depends on them too"),
            Wrong(loss_through_f, "f is made of counts"),
            Wrong(loss_item, "return the tensor"),
            Wrong(loss_normalised_over_tokens, "the sum over the tokens"),
            Wrong(loss_over_the_chosen, "the sum of the chosen"),
        ],
    ),
    "11.5": Answers(
        right=[GateWithBuffer, GateWithFrozenParameter, GateBySubtraction],
        wrong=[
            Wrong(GateLearned, "the bias has a gradient"),
            Wrong(GateStraightThrough, "the bias has a gradient"),
            Wrong(GateSubtractedParameter, "a step of AdamW has moved the bias"),
            Wrong(GateAsksForGradient, "requires_grad` is True"),
            Wrong(GateBiasWeighs, "with the bias in their weights"),
            Wrong(GatePlainAttribute, "would not be saved"),
            Wrong(GateMovesInForward, "`forward` has changed the bias"),
            Wrong(GateWithoutGraph, "no gradient reaches `weight`"),
            Wrong(GateSumDetached, "depends on `weight` too"),
            Wrong(GateBiasInSigmoid, "after the sigmoid"),
            Wrong(GateChosenInSigmoid, "after the sigmoid"),
            Wrong(GateSoftmax, "no softmax"),
            Wrong(GateTransposed, "should be a tensor of shape"),
            Wrong(GateReversed, "the direction is reversed"),
            Wrong(GateByMagnitude, "all move by the same amount"),
            Wrong(GateFloored, "made a whole number"),
            Wrong(GateIntegerMean, "torch takes means of floats alone"),
            Wrong(GateReturnsBias, "leaves the module's bias as it was"),
            Wrong(GateReplacesParameter, "its values can change in place"),
            Wrong(GateNoUpdate, "leaves the module's bias as it was"),
        ],
    ),
}
