"""Lesson 16, ESFT."""

import numpy as np
import torch

from . import Answers, Wrong

# --- 16.1 -------------------------------------------------------------------------


def _dense(chosen, weights, n_experts):
    """[B, T, E]."""
    out = np.zeros((*chosen.shape[:2], n_experts))
    np.put_along_axis(out, chosen, weights, axis=2)
    return out


def score_dense(chosen, weights, pad, n_experts):
    gates = _dense(chosen, weights, n_experts) * ~pad[..., None]
    return (gates.sum(1) / (~pad).sum(1)[:, None]).mean(0)


def score_bincount(chosen, weights, pad, n_experts):
    rows = []
    for c, w, is_pad in zip(chosen, weights, pad):
        total = np.bincount(c[~is_pad].ravel(), w[~is_pad].ravel(), n_experts)
        rows.append(total / (~is_pad).sum())
    return np.mean(rows, axis=0)


def score_with_padding(chosen, weights, pad, n_experts):
    return _dense(chosen, weights, n_experts).mean(1).mean(0)


def score_padded_length(chosen, weights, pad, n_experts):
    gates = _dense(chosen, weights, n_experts) * ~pad[..., None]
    return gates.mean(axis=(0, 1))


def score_all_tokens(chosen, weights, pad, n_experts):
    return _dense(chosen, weights, n_experts)[~pad].mean(0)


def score_counts(chosen, weights, pad, n_experts):
    return score_dense(chosen, np.ones_like(weights), pad, n_experts)


def score_token_ratio(chosen, weights, pad, n_experts):
    return score_counts(chosen, weights, pad, n_experts) / chosen.shape[-1]


def score_over_k(chosen, weights, pad, n_experts):
    return score_dense(chosen, weights, pad, n_experts) / chosen.shape[-1]


def score_summed_samples(chosen, weights, pad, n_experts):
    gates = _dense(chosen, weights, n_experts) * ~pad[..., None]
    return (gates.sum(1) / (~pad).sum(1)[:, None]).sum(0)


def score_summed_tokens(chosen, weights, pad, n_experts):
    gates = _dense(chosen, weights, n_experts) * ~pad[..., None]
    return gates.sum(1).mean(0)


def score_of_the_chosen(chosen, weights, pad, n_experts):
    out = np.zeros(n_experts)
    for e in range(n_experts):
        here = (chosen == e) & ~pad[..., None]
        out[e] = weights[here].mean() if here.any() else 0.0
    return out


def score_first_choice(chosen, weights, pad, n_experts):
    return score_dense(chosen[..., :1], weights[..., :1], pad, n_experts)


def score_mask_reversed(chosen, weights, pad, n_experts):
    gates = _dense(chosen, weights, n_experts) * pad[..., None]
    return (gates.sum(1) / np.maximum(pad.sum(1), 1)[:, None]).mean(0)


def score_normalised(chosen, weights, pad, n_experts):
    out = score_dense(chosen, weights, pad, n_experts)
    return out / out.sum()


# --- 16.2 -------------------------------------------------------------------------


def _mask(scores, experts):
    out = np.zeros(len(scores), dtype=bool)
    out[experts] = True
    return out


def set_by_cumsum(scores, p):
    order = np.argsort(-scores, kind="stable")
    n = np.searchsorted(scores[order].cumsum(), p) + 1
    return _mask(scores, order[:n])


def set_by_sums_before(scores, p):
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    before = np.concatenate([[0], np.cumsum(scores[order])[:-1]])
    return _mask(scores, [i for i, sum_before in zip(order, before) if sum_before < p])


def set_as_numbers(scores, p):
    return np.flatnonzero(set_by_cumsum(scores, p))


def set_as_list(scores, p):
    return set_as_numbers(scores, p).tolist()


def set_as_floats(scores, p):
    return set_by_cumsum(scores, p).astype(float)


def set_more_than_p(scores, p):
    order = np.argsort(-scores, kind="stable")
    n = np.searchsorted(scores[order].cumsum(), p, side="right") + 1
    return _mask(scores, order[:n])


def set_below_p(scores, p):
    order = np.argsort(-scores, kind="stable")
    return _mask(scores, order[scores[order].cumsum() < p])


def set_each_above_p(scores, p):
    return scores >= p


def set_least_first(scores, p):
    order = np.argsort(scores, kind="stable")
    n = np.searchsorted(scores[order].cumsum(), p) + 1
    return _mask(scores, order[:n])


def set_not_sorted(scores, p):
    return _mask(scores, slice(0, np.searchsorted(scores.cumsum(), p) + 1))


def set_in_sorted_order(scores, p):
    ranked = np.sort(scores)[::-1]
    return np.concatenate([[True], ranked.cumsum()[:-1] < p])


def set_last_of_equals(scores, p):
    order = np.argsort(scores, kind="stable")[::-1]
    n = np.searchsorted(scores[order].cumsum(), p) + 1
    return _mask(scores, order[:n])


def set_normalised(scores, p):
    return set_by_cumsum(scores / scores.sum(), p)


def set_share_of_experts(scores, p):
    order = np.argsort(-scores, kind="stable")
    return _mask(scores, order[: int(np.ceil(p * len(scores)))])


# --- 16.3 -------------------------------------------------------------------------


def merged_matmul(weight, a, b, scaling):
    return weight + scaling * (b @ a)


def merged_einsum(weight, a, b, scaling):
    return torch.einsum("eor,eri->eoi", scaling * b, a) + weight


def merged_baddbmm(weight, a, b, scaling):
    return torch.baddbmm(weight, b, a, alpha=scaling)


def merged_no_scaling(weight, a, b, scaling):
    return weight + b @ a


def merged_over_rank(weight, a, b, scaling):
    return weight + scaling / a.shape[1] * (b @ a)


def merged_difference(weight, a, b, scaling):
    return scaling * (b @ a)


def merged_wrong_order(weight, a, b, scaling):
    return weight + scaling * (a @ b)


def merged_all_scaled(weight, a, b, scaling):
    return scaling * (weight + b @ a)


def merged_summed(weight, a, b, scaling):
    return weight + scaling * torch.einsum("eor,eri->oi", b, a)


def merged_first(weight, a, b, scaling):
    return torch.stack([w + scaling * (b[0] @ a[0]) for w in weight])


def merged_subtracted(weight, a, b, scaling):
    return weight - scaling * (b @ a)


def merged_in_place(weight, a, b, scaling):
    weight += scaling * (b @ a)
    return weight


# --- 16.4 -------------------------------------------------------------------------


class Part(torch.nn.Module):
    """Right; the wrong ones below differ in a method."""

    def __init__(self, stack, ids):
        super().__init__()
        self.ids = ids
        self.register_buffer("frozen", stack.clone())
        self.chosen = torch.nn.Parameter(stack[ids].clone())

    def forward(self):
        out = self.frozen.clone()
        out[self.ids] = self.chosen
        return out


class PartIndexPut(Part):
    def forward(self):
        return self.frozen.index_put((torch.tensor(self.ids),), self.chosen)


class PartFrozenParameter(torch.nn.Module):
    def __init__(self, stack, ids):
        super().__init__()
        self.places = {e: k for k, e in enumerate(ids)}
        self.stack = torch.nn.Parameter(stack.clone(), requires_grad=False)
        self.chosen = torch.nn.ParameterList(stack[e].clone() for e in ids)

    def forward(self):
        matrices = list(self.stack)
        for e, k in self.places.items():
            matrices[e] = self.chosen[k]
        return torch.stack(matrices)


class PartGradientMask(torch.nn.Module):
    def __init__(self, stack, ids):
        super().__init__()
        self.stack = torch.nn.Parameter(stack.clone())
        mask = torch.zeros(len(stack), 1, 1)
        mask[ids] = 1
        self.stack.register_hook(lambda grad: grad * mask)

    def forward(self):
        return self.stack


class PartDetached(torch.nn.Module):
    """As many numbers as it should be, but decay reaches all by the multiplication."""

    def __init__(self, stack, ids):
        super().__init__()
        self.ids = ids
        self.register_buffer("frozen", stack.clone())
        self.chosen = torch.nn.Parameter(stack[ids].clone())

    def forward(self):
        out = self.frozen.clone()
        out[self.ids] = self.chosen.data
        return out


class PartMadeOnce(Part):
    def __init__(self, stack, ids):
        super().__init__(stack, ids)
        self.out = self.frozen.clone()
        self.out[ids] = self.chosen.detach().clone()

    def forward(self):
        return self.out + 0 * self.chosen.sum()


class PartSorted(Part):
    """The experts are sorted on the way back, but not on the way in."""

    def forward(self):
        out = self.frozen.clone()
        out[sorted(self.ids)] = self.chosen
        return out


class PartPlainAttribute(Part):
    def __init__(self, stack, ids):
        torch.nn.Module.__init__(self)
        self.ids = ids
        self.frozen = stack.clone()
        self.chosen = torch.nn.Parameter(stack[ids].clone())


class PartNoParameter(Part):
    def __init__(self, stack, ids):
        torch.nn.Module.__init__(self)
        self.ids = ids
        self.register_buffer("frozen", stack.clone())
        self.register_buffer("chosen", stack[ids].clone())


class PartDifference(Part):
    """A difference that begins at zero: decay pulls it to zero, and not the weight."""

    def __init__(self, stack, ids):
        super().__init__(stack, ids)
        self.chosen = torch.nn.Parameter(torch.zeros_like(stack[ids]))

    def forward(self):
        return self.frozen.index_add(0, torch.tensor(self.ids), self.chosen)


class PartShared(Part):
    """The first experts, as a view of what was given."""

    def __init__(self, stack, ids):
        torch.nn.Module.__init__(self)
        self.ids = ids
        self.register_buffer("frozen", stack.clone())
        self.chosen = torch.nn.ParameterList(stack[e] for e in ids)

    def forward(self):
        out = self.frozen.clone()
        for e, matrix in zip(self.ids, self.chosen):
            out[e] = matrix
        return out


class PartOnlyChosen(Part):
    def forward(self):
        return self.chosen


class PartReturnsNothing(Part):
    def forward(self):
        self.frozen[self.ids] = self.chosen


class PartNoForward(Part):
    def forward(self):
        raise NotImplementedError("16.4")


ANSWERS = {
    "16.1": Answers(
        right=[score_dense, score_bincount],
        wrong=[
            Wrong(score_with_padding, "padding was counted"),
            Wrong(score_padded_length, "the length that it is"),
            Wrong(score_all_tokens, "every token counts alike"),
            Wrong(score_counts, "choices were counted: this"),
            Wrong(score_token_ratio, "token selection ratio"),
            Wrong(score_over_k, "divided by K"),
            Wrong(score_summed_samples, "the samples were added up"),
            Wrong(score_summed_tokens, "the tokens of a sample were added up"),
            Wrong(score_of_the_chosen, "the tokens that chose an expert"),
            Wrong(score_first_choice, "first choice"),
            Wrong(score_mask_reversed, "wrong way round"),
            Wrong(score_normalised, "divided by their sum"),
        ],
    ),
    "16.2": Answers(
        right=[set_by_cumsum, set_by_sums_before],
        wrong=[
            Wrong(set_as_numbers, "return bool [E]"),
            Wrong(set_as_list, "return bool [E]"),
            Wrong(set_as_floats, "True and False"),
            Wrong(set_more_than_p, "exactly p is enough"),
            Wrong(set_below_p, "belongs to the set"),
            Wrong(set_each_above_p, "compared with p"),
            Wrong(set_least_first, "least relevant"),
            Wrong(set_not_sorted, "by their number"),
            Wrong(set_in_sorted_order, "order of the sorted scores"),
            Wrong(set_last_of_equals, "of two that tie"),
            Wrong(set_normalised, "divided by their sum"),
            Wrong(set_share_of_experts, "a share of the experts"),
        ],
    ),
    "16.3": Answers(
        right=[merged_matmul, merged_einsum, merged_baddbmm],
        wrong=[
            Wrong(merged_no_scaling, "scaling is missing"),
            Wrong(merged_over_rank, "divided by the rank"),
            Wrong(merged_difference, "the frozen weight is missing"),
            Wrong(merged_wrong_order, "in the wrong order"),
            Wrong(merged_all_scaled, "scaled as well"),
            Wrong(merged_summed, "the sum of all adapters"),
            Wrong(merged_first, "the first one's adapter"),
            Wrong(merged_subtracted, "subtracted"),
            Wrong(merged_in_place, "in place"),
        ],
    ),
    "16.4": Answers(
        right=[Part, PartIndexPut, PartFrozenParameter],
        wrong=[
            Wrong(PartGradientMask, "are trained, but the chosen"),
            Wrong(PartDetached, "no gradient reaches"),
            Wrong(PartMadeOnce, "still gives the old stack"),
            Wrong(PartSorted, "which place of the stack"),
            Wrong(PartPlainAttribute, "saved"),
            Wrong(PartNoParameter, "nothing to train"),
            Wrong(PartDifference, "not what it should be"),
            Wrong(PartShared, "shares its memory"),
            Wrong(PartOnlyChosen, "the stack as it was"),
            Wrong(PartReturnsNothing, "the stack as it was"),
            Wrong(PartNoForward, "still empty"),
        ],
    ),
}
