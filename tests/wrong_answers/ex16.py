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


def score_one_hot(chosen, weights, pad, n_experts):
    share = (~pad) / (~pad).sum(1, keepdims=True) / len(pad)  # [B, T]
    return np.einsum("btk,btke,bt->e", weights, np.eye(n_experts)[chosen], share)


def score_nan_padding(chosen, weights, pad, n_experts):
    gates = _dense(chosen, weights, n_experts)
    gates[pad] = np.nan
    return np.nanmean(gates, axis=1).mean(axis=0)


def score_up_to_the_last_chosen(chosen, weights, pad, n_experts):
    return score_dense(chosen, weights, pad, chosen.max() + 1)


def score_padding_in_the_sum(chosen, weights, pad, n_experts):
    sums = _dense(chosen, weights, n_experts).sum(1)
    return (sums / (~pad).sum(1)[:, None]).mean(0)


def score_weights_normalised(chosen, weights, pad, n_experts):
    whole = weights / weights.sum(-1, keepdims=True)
    return score_dense(chosen, whole, pad, n_experts)


def score_added_once(chosen, weights, pad, n_experts):
    out = np.zeros(n_experts)
    for c, w, real in zip(chosen, weights, ~pad):
        sample = np.zeros(n_experts)
        sample[c[real]] += w[real]
        out += sample / real.sum()
    return out / len(chosen)


def score_overwritten(chosen, weights, pad, n_experts):
    out = np.zeros(n_experts)
    for c, w, is_pad in zip(chosen, weights, pad):
        sample = np.zeros(n_experts)
        for t in range(len(c)):
            if not is_pad[t]:
                sample[c[t]] = w[t]
        out += sample / (~is_pad).sum()
    return out / len(chosen)


def _of_tokens(chosen, weights, pad, n_experts, tokens):
    gates = _dense(chosen, weights, n_experts)
    rows = [g[tokens(is_pad)].sum(0) / (~is_pad).sum() for g, is_pad in zip(gates, pad)]
    return np.mean(rows, axis=0)


def score_first_tokens(chosen, weights, pad, n_experts):
    def first(is_pad):
        return slice(0, (~is_pad).sum())

    return _of_tokens(chosen, weights, pad, n_experts, first)


def score_last_tokens(chosen, weights, pad, n_experts):
    def last(is_pad):
        return slice(is_pad.sum(), None)

    return _of_tokens(chosen, weights, pad, n_experts, last)


def score_stops_at_padding(chosen, weights, pad, n_experts):
    out = np.zeros(n_experts)
    for c, w, is_pad in zip(chosen, weights, pad):
        for t in range(len(c)):
            if is_pad[t]:
                break
            out[c[t]] += w[t] / (~is_pad).sum()
    return out / len(chosen)


def score_of_the_chosen_in_a_sample(chosen, weights, pad, n_experts):
    gates = _dense(chosen, weights, n_experts) * ~pad[..., None]
    return (gates.sum(1) / np.maximum((gates > 0).sum(1), 1)).mean(0)


def score_float32(chosen, weights, pad, n_experts):
    return score_dense(chosen, weights.astype(np.float32), pad, n_experts)


def score_in_place(chosen, weights, pad, n_experts):
    weights[pad] = 0
    return score_dense(chosen, weights, pad, n_experts)


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


def set_one_by_one(scores, p):
    left, out = scores.copy(), np.zeros(len(scores), dtype=bool)
    while scores[out].sum() < p:
        best = left.argmax()
        out[best], left[best] = True, -1
    return out


def set_torch_stable(scores, p):
    ranked, order = torch.tensor(scores).sort(descending=True, stable=True)
    return _mask(scores, order[: int((ranked.cumsum(0) < p).sum()) + 1].numpy())


def set_small_tolerance(scores, p):
    return set_by_cumsum(scores, p - 1e-9)


def _from_order(scores, p, order):
    return _mask(scores, order[: np.searchsorted(scores[order].cumsum(), p) + 1])


def set_plain_argsort(scores, p):
    return _from_order(scores, p, np.argsort(-scores))


def set_large_tolerance(scores, p):
    return set_by_cumsum(scores, p - 0.02)


def set_p_up_to_one(scores, p):
    return set_by_cumsum(scores, min(p, 1.0))


def set_two_or_all(scores, p):
    order = np.argsort(-scores, kind="stable")
    for n in (1, 2):
        if scores[order[:n]].sum() >= p:
            return _mask(scores, order[:n])
    return np.ones(len(scores), dtype=bool)


def set_everything(scores, p):
    return _mask(scores, np.argsort(-scores, kind="stable"))


def set_nearest(scores, p):
    order = np.argsort(-scores, kind="stable")
    return _mask(scores, order[: np.abs(scores[order].cumsum() - p).argmin() + 1])


def set_by_score(scores, p):
    out, total = np.zeros(len(scores), dtype=bool), 0.0
    for score in sorted(scores, reverse=True):
        if total < p:
            out[scores.tolist().index(score)] = True
            total += score
    return out


def set_by_dictionary(scores, p):
    expert = {score: e for e, score in enumerate(scores)}
    out, total = np.zeros(len(scores), dtype=bool), 0.0
    for score in sorted(scores, reverse=True):
        if total < p:
            out[expert[score]] = True
            total += score
    return out


def set_above_the_last(scores, p):
    ranked = np.sort(scores)[::-1]
    return scores >= ranked[np.searchsorted(ranked.cumsum(), p)]


def set_order_as_rank(scores, p):
    order = np.argsort(-scores, kind="stable")
    return order <= np.searchsorted(scores[order].cumsum(), p)


def set_gathered(scores, p):
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    return (ranked.cumsum() - ranked < p)[order]


def set_in_torch(scores, p):
    return torch.from_numpy(set_by_cumsum(scores, p))


def set_spoils_scores(scores, p):
    out, total = np.zeros(len(scores), dtype=bool), 0.0
    while total < p:
        best = scores.argmax()
        total += scores[best]
        out[best], scores[best] = True, -1
    return out


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


def merged_without_gradients(weight, a, b, scaling):
    out = weight.detach().clone()
    for e in range(len(out)):
        out[e] += scaling * b.data[e] @ a.data[e]
    return out


def merged_in_double(weight, a, b, scaling):
    return (weight.double() + scaling * b.double() @ a.double()).to(weight.dtype)


def merged_float32(weight, a, b, scaling):
    out = weight.float() + scaling * (b.float() @ a.float())
    return out.to(weight.dtype)


def merged_float32_scaling(weight, a, b, scaling):
    return weight + torch.tensor([scaling]) * (b @ a)


def merged_absolute(weight, a, b, scaling):
    return weight + abs(scaling) * (b @ a)


def merged_at_least_one(weight, a, b, scaling):
    return weight + max(scaling, 1) * (b @ a)


def merged_whole_scaling(weight, a, b, scaling):
    return weight + int(scaling) * (b @ a)


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


class PartOfModules(torch.nn.Module):
    """A linear layer for each expert; those of the others ask for no gradient."""

    def __init__(self, stack, ids):
        super().__init__()
        _, n_out, n_in = stack.shape
        make = torch.nn.Linear
        self.experts = torch.nn.ModuleList(make(n_in, n_out, False) for _ in stack)
        for e, (expert, matrix) in enumerate(zip(self.experts, stack)):
            expert.weight.data = matrix.clone()
            expert.weight.requires_grad_(e in ids)

    def forward(self):
        return torch.stack([expert.weight for expert in self.experts])


class PartReordered(torch.nn.Module):
    """Both kinds one after the other, and the way back to the order of the stack."""

    def __init__(self, stack, ids):
        super().__init__()
        others = [e for e in range(len(stack)) if e not in ids]
        self.back = torch.tensor(ids + others).argsort()
        self.register_buffer("others", stack[others])
        self.chosen = torch.nn.Parameter(stack[ids])

    def forward(self):
        return torch.cat([self.chosen, self.others])[self.back]


class PartWrittenInto(Part):
    """The buffer itself is returned."""

    def forward(self):
        self.frozen[self.ids] = self.chosen
        return self.frozen


class PartWrittenAndCopied(Part):
    """The copy is the buffer's own, but the buffer is in the graph."""

    def forward(self):
        self.frozen[self.ids] = self.chosen
        return self.frozen.clone()


class PartCutAndWrittenInto(Part):
    """It trains rightly, but every call changes what the last one returned."""

    def forward(self):
        self.frozen = self.frozen.detach()
        for e, matrix in zip(self.ids, self.chosen):
            self.frozen[e] = matrix
        return self.frozen


class PartDoubledGradient(Part):
    """AdamW does not see it."""

    def forward(self):
        out = super().forward()
        return out + (out - out.detach())


class PartKeepsGiven(Part):
    """The buffer is the tensor that was given: loading writes into it."""

    def __init__(self, stack, ids):
        torch.nn.Module.__init__(self)
        self.ids = ids
        self.register_buffer("frozen", stack)
        self.chosen = torch.nn.Parameter(stack[ids].clone())


class PartKeepsAttribute(PartPlainAttribute):
    """It is saved, but is the tensor that was given."""

    def __init__(self, stack, ids):
        super().__init__(stack, ids)
        self.frozen = stack

    def get_extra_state(self):
        return self.frozen.clone()

    def set_extra_state(self, state):
        self.frozen = state


class PartTwoOnly(Part):
    def __init__(self, stack, ids):
        super().__init__(stack, ids[:2])


class PartZeroElsewhere(Part):
    def forward(self):
        out = torch.zeros_like(self.frozen)
        out[self.ids] = self.chosen
        return out


class PartCounted(Part):
    """The next trained matrix at every chosen place: as if `ids` were sorted."""

    def forward(self):
        trained = iter(self.chosen)
        places = enumerate(self.frozen)
        return torch.stack([next(trained) if e in self.ids else w for e, w in places])


class PartCached(Part):
    out = None

    def forward(self):
        if self.out is None:
            self.out = super().forward()
        return self.out


class PartSortsIds(Part):
    def __init__(self, stack, ids):
        ids.sort()
        super().__init__(stack, ids)


class PartNotPersistent(Part):
    def __init__(self, stack, ids):
        super().__init__(stack, ids)
        self.register_buffer("frozen", stack.clone(), persistent=False)


class PartParametersInList(Part):
    def __init__(self, stack, ids):
        torch.nn.Module.__init__(self)
        self.ids = ids
        self.register_buffer("frozen", stack.clone())
        self.chosen = [torch.nn.Parameter(stack[e].clone()) for e in ids]

    def forward(self):
        out = self.frozen.clone()
        for e, matrix in zip(self.ids, self.chosen):
            out[e] = matrix
        return out


class PartNoForward(Part):
    def forward(self):
        raise NotImplementedError("16.4")


ANSWERS = {
    "16.1": Answers(
        right=[score_dense, score_bincount, score_one_hot, score_nan_padding],
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
            Wrong(score_normalised, "the scores were divided by their sum"),
            Wrong(score_up_to_the_last_chosen, "chosen by nobody"),
            Wrong(score_padding_in_the_sum, "but not of the sum"),
            Wrong(score_weights_normalised, "weights were divided by their sum"),
            Wrong(score_added_once, "writes it once"),
            Wrong(score_overwritten, "writes it once"),
            Wrong(score_first_tokens, "ask `pad` for every token"),
            Wrong(score_last_tokens, "ask `pad` for every token"),
            Wrong(score_stops_at_padding, "ask `pad` for every token"),
            Wrong(score_of_the_chosen_in_a_sample, "the tokens that chose an expert"),
            Wrong(score_float32, "precision of float32"),
            Wrong(score_in_place, "in place"),
        ],
    ),
    "16.2": Answers(
        right=[
            set_by_cumsum,
            set_by_sums_before,
            set_one_by_one,
            set_torch_stable,
            set_small_tolerance,
        ],
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
            Wrong(set_plain_argsort, "of two that tie"),
            Wrong(set_large_tolerance, "need no tolerance"),
            Wrong(set_p_up_to_one, "p was cut at 1"),
            Wrong(set_two_or_all, "p is 1/64 above"),
            Wrong(set_everything, "every expert was taken"),
            Wrong(set_nearest, "nearest to p"),
            Wrong(set_by_score, "two that tie are two experts"),
            Wrong(set_by_dictionary, "two that tie are two experts"),
            Wrong(set_above_the_last, "all that tie"),
            Wrong(set_order_as_rank, "taken for ranks"),
            Wrong(set_gathered, "taken for ranks"),
            Wrong(set_in_torch, "leave torch out"),
            Wrong(set_spoils_scores, "in place"),
        ],
    ),
    "16.3": Answers(
        right=[
            merged_matmul,
            merged_einsum,
            merged_baddbmm,
            merged_without_gradients,
            merged_in_double,
        ],
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
            Wrong(merged_float32, "precision of float32"),
            Wrong(merged_float32_scaling, "precision of float32"),
            Wrong(merged_absolute, "may be any number"),
            Wrong(merged_at_least_one, "may be any number"),
            Wrong(merged_whole_scaling, "behind its point"),
        ],
    ),
    "16.4": Answers(
        right=[Part, PartIndexPut, PartFrozenParameter, PartOfModules, PartReordered],
        wrong=[
            Wrong(PartGradientMask, "are trained, but the chosen"),
            Wrong(PartDetached, "no gradient reaches"),
            Wrong(PartMadeOnce, "still gives the old stack"),
            Wrong(PartSorted, "which place of the stack"),
            Wrong(PartPlainAttribute, "saved"),
            Wrong(PartNoParameter, "nothing to train"),
            Wrong(PartDifference, "a difference that begins at 0"),
            Wrong(PartShared, "shares memory"),
            Wrong(PartOnlyChosen, "the stack as it was"),
            Wrong(PartWrittenInto, "a tensor of its own"),
            Wrong(PartWrittenAndCopied, "has become part of a graph"),
            Wrong(PartCutAndWrittenInto, "a tensor of its own"),
            Wrong(PartDoubledGradient, "its own place in the stack, once"),
            Wrong(PartKeepsGiven, "loading wrote into the stack"),
            Wrong(PartKeepsAttribute, "changed afterwards"),
            Wrong(PartTwoOnly, "has to be in a parameter"),
            Wrong(PartZeroElsewhere, "which are not trained"),
            Wrong(PartCounted, "which place of the stack"),
            Wrong(PartCached, "still gives the old stack"),
            Wrong(PartSortsIds, "in place"),
            Wrong(PartNotPersistent, "saved"),
            Wrong(PartParametersInList, "nothing to train"),
            Wrong(PartReturnsNothing, "the stack as it was"),
            Wrong(PartNoForward, "still empty"),
        ],
    ),
}
