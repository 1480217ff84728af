"""Lesson 12, multi-token prediction."""

import numpy as np
import torch
from torch.nn import functional as F

from . import Answers, Wrong

# --- 12.1 -------------------------------------------------------------------------


def worth(p, D, c):
    tokens = D + 1 if p == 1 else (1 - p ** (D + 1)) / (1 - p)
    return tokens, tokens / (1 + D * c)


def worth_by_numpy(p, D, c):
    tokens = np.power(float(p), np.arange(D + 1)).sum()
    return tokens, tokens / (1 + D * c)


def worth_by_recursion(p, D, c):
    def tokens(n):
        return 1 + p * tokens(n - 1) if n else 1

    return float(tokens(D)), tokens(D) / (1 + D * c)


def worth_independent(p, D, c):
    tokens = 1 + D * p
    return tokens, tokens / (1 + D * c)


def worth_without_own_token(p, D, c):
    tokens = sum(p**k for k in range(1, D + 1))
    return tokens, tokens / (1 + D * c)


def worth_one_short(p, D, c):
    tokens = sum(p**k for k in range(D))
    return tokens, tokens / (1 + D * c)


def worth_all_or_none(p, D, c):
    tokens = 1 + D * p**D
    return tokens, tokens / (1 + D * c)


def worth_one_cost(p, D, c):
    tokens = sum(p**k for k in range(D + 1))
    return tokens, tokens / (1 + c)


def worth_free(p, D, c):
    tokens = sum(p**k for k in range(D + 1))
    return tokens, tokens


def worth_divides_by_zero(p, D, c):
    tokens = (1 - p ** (D + 1)) / (1 - p)
    return tokens, tokens / (1 + D * c)


def worth_as_a_list(p, D, c):
    return list(worth(p, D, c))


def worth_as_an_array(p, D, c):
    return np.array(worth(p, D, c))


def worth_accepted_cost(p, D, c):
    tokens = sum(p**k for k in range(D + 1))
    return tokens, tokens / (1 + c * (tokens - 1))


def worth_until_refused(p, D, c):
    tokens = sum(p**k for k in range(D + 1))
    return tokens, tokens / (1 + c * sum(p**k for k in range(D)))


def worth_compound(p, D, c):
    tokens = sum(p**k for k in range(D + 1))
    return tokens, tokens / (1 + c) ** D


def worth_upside_down(p, D, c):
    tokens = sum(p**k for k in range(D + 1))
    return tokens, (1 + D * c) / tokens


def worth_other_time(p, D, c):
    tokens = sum(p**k for k in range(D + 1))
    return tokens, tokens / (1 + (D + 1) * c)


# --- 12.2 -------------------------------------------------------------------------


def rule(p, q):
    safe = np.where(q > 0, q, 1)
    accept = np.where(q > 0, np.minimum(1, p / safe), 1.0)
    rest = np.clip(p - q, 0, None)
    return accept, rest / rest.sum() if rest.any() else p


def rule_by_loop(p, q):
    accept, rest = np.ones(len(p)), np.zeros(len(p))
    for x in range(len(p)):
        if p[x] < q[x]:
            accept[x] = p[x] / q[x]
        else:
            rest[x] = p[x] - q[x]
    return accept, p if np.array_equal(p, q) else rest / sum(rest)


def rule_never_rejects(p, q):
    return np.ones_like(p), rule(p, q)[1]


def rule_accepts_by_p(p, q):
    return p, rule(p, q)[1]


def rule_joint(p, q):
    return np.minimum(p, q), rule(p, q)[1]


def rule_upside_down(p, q):
    with np.errstate(all="ignore"):
        accept = np.where(p > 0, np.minimum(1, q / p), 1.0)
    return accept, rule(p, q)[1]


def rule_not_clipped(p, q):
    accept = np.where(q > 0, p / np.where(q > 0, q, 1), 1.0)
    return accept, rule(p, q)[1]


def rule_divides_by_zero(p, q):
    with np.errstate(all="ignore"):
        rest = np.maximum(0, p - q)
        return np.minimum(1, p / q), rest / rest.sum()


def rule_draws_from_p(p, q):
    return rule(p, q)[0], p


def rule_not_scaled(p, q):
    rest = np.maximum(0, p - q)
    return rule(p, q)[0], rest if rest.any() else p


def rule_not_clamped(p, q):
    rest = p - q
    return rule(p, q)[0], rest / np.abs(rest).sum() if rest.any() else p


def rule_reversed(p, q):
    rest = np.maximum(0, q - p)
    return rule(p, q)[0], rest / rest.sum() if rest.any() else p


def rule_absolute(p, q):
    rest = np.abs(p - q)
    return rule(p, q)[0], rest / rest.sum() if rest.any() else p


def rule_of_whole_numbers(p, q):
    accept = np.array([min(1, x / y) if y > 0 else 1 for x, y in zip(p, q)])
    rest = np.array([max(0, x - y) for x, y in zip(p, q)])
    return accept, rest / rest.sum() if rest.sum() else p


def rule_with_epsilon_where_drafted(p, q):
    return np.where(q == 0, 1, np.minimum(1, p / (q + 1e-12))), rule(p, q)[1]


def rule_epsilon(p, q):
    rest = np.maximum(0, p - q)
    return np.minimum(1, p / (q + 1e-12)), rest / rest.sum() if rest.any() else p


def rule_tiny_q(p, q):
    return np.minimum(1, p / np.maximum(q, 1e-300)), rule(p, q)[1]


def rule_equal_zeros(p, q):
    rest = np.maximum(0, p - q)
    return rule(p, q)[0], rest / max(rest.sum(), 1e-30)


def rule_never_drafted_zero(p, q):
    return np.where(q == 0, 0.0, rule(p, q)[0]), rule(p, q)[1]


# --- 12.3 -------------------------------------------------------------------------


def loss(logits, tokens):
    total = 0
    for k, at_k in enumerate(logits, start=1):
        total = total + F.cross_entropy(at_k[:, :-1].mT, tokens[:, k + 1 :])
    return total / len(logits)


def loss_by_mask(logits, tokens):
    T, losses = tokens.shape[1], []
    for k, at_k in enumerate(logits, start=1):
        targets = torch.full_like(tokens, -100)
        targets[:, : T - k - 1] = tokens[:, k + 1 :]
        targets = targets[:, : T - k]
        losses.append(F.cross_entropy(at_k.flatten(0, 1), targets.flatten()))
    return torch.stack(losses).mean()


def loss_by_log_softmax(logits, tokens):
    T, losses = tokens.shape[1], []
    for k in range(1, len(logits) + 1):
        log_p = logits[k - 1][:, : T - k - 1].log_softmax(-1)
        losses.append(-log_p.gather(2, tokens[:, k + 1 :, None]).mean())
    return sum(losses) / len(losses)


def _loss(logits, tokens, begin):
    losses = []
    for k, at_k in enumerate(logits, start=1):
        targets = tokens[:, begin(k) :]
        n = min(at_k.shape[1] - 1, targets.shape[1])
        losses.append(F.cross_entropy(at_k[:, :n].mT, targets[:, :n]))
    return torch.stack(losses).mean()


def loss_told_token(logits, tokens):
    return _loss(logits, tokens, lambda k: k)


def loss_of_depth_one(logits, tokens):
    return _loss(logits, tokens, lambda k: 2)


def loss_next_token(logits, tokens):
    return _loss(logits, tokens, lambda k: 1)


def loss_one_late(logits, tokens):
    losses = []
    for k, at_k in enumerate(logits, start=1):
        losses.append(F.cross_entropy(at_k[:, :-2].mT, tokens[:, k + 2 :]))
    return torch.stack(losses).mean()


def loss_all_rows(logits, tokens):
    losses = []
    for k, at_k in enumerate(logits, start=1):
        losses.append(F.cross_entropy(at_k.mT, tokens[:, k:]))
    return torch.stack(losses).mean()


def loss_cut_in_front(logits, tokens):
    T, losses = tokens.shape[1], []
    for k, at_k in enumerate(logits, start=1):
        losses.append(F.cross_entropy(at_k[:, 1 : T - k].mT, tokens[:, k + 1 :]))
    return torch.stack(losses).mean()


def loss_added(logits, tokens):
    return loss(logits, tokens) * len(logits)


def loss_over_rows(logits, tokens):
    rows, targets = [], []
    for k, at_k in enumerate(logits, start=1):
        rows.append(at_k[:, :-1].flatten(0, 1))
        targets.append(tokens[:, k + 1 :].flatten())
    return F.cross_entropy(torch.cat(rows), torch.cat(targets))


def loss_first_depth(logits, tokens):
    return loss(logits[:1], tokens)


def loss_rolled(logits, tokens):
    losses = []
    for k, at_k in enumerate(logits, start=1):
        targets = tokens.roll(-k - 1, 1)[:, : at_k.shape[1]]
        losses.append(F.cross_entropy(at_k.flatten(0, 1), targets.flatten()))
    return torch.stack(losses).mean()


def loss_padded(logits, tokens):
    losses = []
    for k, at_k in enumerate(logits, start=1):
        targets = F.pad(tokens[:, k + 1 :], (0, 1))
        losses.append(F.cross_entropy(at_k.flatten(0, 1), targets.flatten()))
    return torch.stack(losses).mean()


def loss_first_text(logits, tokens):
    losses = []
    for k, at_k in enumerate(logits, start=1):
        losses.append(F.cross_entropy(at_k[0, :-1], tokens[0, k + 1 :]))
    return torch.stack(losses).mean()


def loss_reshaped(logits, tokens):
    losses = []
    for k, at_k in enumerate(logits, start=1):
        B, _, V = at_k.shape
        rows = at_k[:, :-1].reshape(B, V, -1)
        losses.append(F.cross_entropy(rows, tokens[:, k + 1 :]))
    return torch.stack(losses).mean()


def loss_number(logits, tokens):
    return loss(logits, tokens).item()


def loss_in_bits(logits, tokens):
    return loss(logits, tokens) / np.log(2)


def loss_in_float64(logits, tokens):
    return loss([x.double() for x in logits], tokens)


# --- 12.4 -------------------------------------------------------------------------


def _norm(x, gain):
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * gain


def module(hidden, embedded, w, block, k):
    n = embedded.shape[1] - k
    e = _norm(embedded[:, k:], w["enorm"])
    h = _norm(hidden[:, :n], w["hnorm"])
    return _norm(block(torch.cat([e, h], -1) @ w["eh_proj"].T), w["norm"])


def module_two_products(hidden, embedded, w, block, k):
    left, right = w["eh_proj"].chunk(2, dim=1)
    e = F.rms_norm(embedded[:, k:], w["enorm"].shape, w["enorm"], 1e-6)
    h = F.rms_norm(hidden[:, :-1], w["hnorm"].shape, w["hnorm"], 1e-6)
    out = block(F.linear(e, left) + F.linear(h, right))
    return F.rms_norm(out, w["norm"].shape, w["norm"], 1e-6)


def module_paper_order(hidden, embedded, w, block, k):
    e = _norm(embedded[:, k:], w["enorm"])
    h = _norm(hidden[:, :-1], w["hnorm"])
    return _norm(block(torch.cat([h, e], -1) @ w["eh_proj"].T), w["norm"])


def module_blind(hidden, embedded, w, block, k):
    h = _norm(hidden[:, :-1], w["hnorm"])
    both = torch.cat([torch.zeros_like(h), h], -1)
    return _norm(block(both @ w["eh_proj"].T), w["norm"])


def module_same_token(hidden, embedded, w, block, k):
    n = embedded.shape[1] - k
    e = _norm(embedded[:, :n], w["enorm"])
    h = _norm(hidden[:, :n], w["hnorm"])
    return _norm(block(torch.cat([e, h], -1) @ w["eh_proj"].T), w["norm"])


def module_next_token(hidden, embedded, w, block, k):
    n = embedded.shape[1] - k
    e = _norm(embedded[:, 1 : n + 1], w["enorm"])
    h = _norm(hidden[:, :n], w["hnorm"])
    return _norm(block(torch.cat([e, h], -1) @ w["eh_proj"].T), w["norm"])


def module_last_states(hidden, embedded, w, block, k):
    e = _norm(embedded[:, k:], w["enorm"])
    h = _norm(hidden[:, 1:], w["hnorm"])
    return _norm(block(torch.cat([e, h], -1) @ w["eh_proj"].T), w["norm"])


def module_no_enorm(hidden, embedded, w, block, k):
    h = _norm(hidden[:, :-1], w["hnorm"])
    both = torch.cat([embedded[:, k:], h], -1)
    return _norm(block(both @ w["eh_proj"].T), w["norm"])


def module_no_hnorm(hidden, embedded, w, block, k):
    e = _norm(embedded[:, k:], w["enorm"])
    both = torch.cat([e, hidden[:, :-1]], -1)
    return _norm(block(both @ w["eh_proj"].T), w["norm"])


def module_no_last_norm(hidden, embedded, w, block, k):
    e = _norm(embedded[:, k:], w["enorm"])
    h = _norm(hidden[:, :-1], w["hnorm"])
    return block(torch.cat([e, h], -1) @ w["eh_proj"].T)


def module_no_block(hidden, embedded, w, block, k):
    e = _norm(embedded[:, k:], w["enorm"])
    h = _norm(hidden[:, :-1], w["hnorm"])
    return _norm(torch.cat([e, h], -1) @ w["eh_proj"].T, w["norm"])


def module_one_row_more(hidden, embedded, w, block, k):
    e = F.pad(_norm(embedded[:, k:], w["enorm"]), (0, 0, 0, 1))
    h = _norm(hidden, w["hnorm"])
    return _norm(block(torch.cat([e, h], -1) @ w["eh_proj"].T), w["norm"])


def module_in_float64(hidden, embedded, w, block, k):
    w = {name: x.double() for name, x in w.items()}
    return module(hidden.double(), embedded.double(), w, block, k)


def _module_with(norm, hidden, embedded, w, block, k):
    e = norm(embedded[:, k:], w["enorm"])
    h = norm(hidden[:, :-1], w["hnorm"])
    return norm(block(torch.cat([e, h], -1) @ w["eh_proj"].T), w["norm"])


def module_no_epsilon(*args):
    return _module_with(
        lambda x, g: x / x.pow(2).mean(-1, keepdim=True).sqrt() * g, *args
    )


def module_large_epsilon(*args):
    return _module_with(lambda x, g: F.rms_norm(x, g.shape, g, 1e-5), *args)


def module_default_epsilon(*args):
    return _module_with(lambda x, g: F.rms_norm(x, g.shape, g), *args)


def module_epsilon_outside(*args):
    return _module_with(
        lambda x, g: x / (x.pow(2).mean(-1, keepdim=True).sqrt() + 1e-6) * g, *args
    )


def module_no_gains(*args):
    return _module_with(lambda x, g: F.rms_norm(x, g.shape, eps=1e-6), *args)


def module_mean_of_all(*args):
    return _module_with(lambda x, g: x / (x.pow(2).mean() + 1e-6).sqrt() * g, *args)


def module_deviation(*args):
    return _module_with(lambda x, g: x / x.std(-1, keepdim=True) * g, *args)


def module_layer_norm(*args):
    return _module_with(lambda x, g: F.layer_norm(x, g.shape, g, None, 1e-6), *args)


def module_length(*args):
    return _module_with(lambda x, g: x / x.norm(dim=-1, keepdim=True) * g, *args)


def module_row_by_row(hidden, embedded, w, block, k):
    def each_row(x):
        return torch.cat([block(row) for row in x.split(1, dim=1)], dim=1)

    return module(hidden, embedded, w, each_row, k)


def module_residual(hidden, embedded, w, block, k):
    return module(hidden, embedded, w, lambda x: x + block(x), k)


def module_not_transposed(hidden, embedded, w, block, k):
    e = _norm(embedded[:, k:], w["enorm"])
    h = _norm(hidden[:, :-1], w["hnorm"])
    return _norm(block(torch.cat([e, h], -1) @ w["eh_proj"]), w["norm"])


def module_attributes(hidden, embedded, w, block, k):
    e = _norm(embedded[:, k:], w.enorm)
    h = _norm(hidden[:, :-1], w.hnorm)
    return _norm(block(torch.cat([e, h], -1) @ w.eh_proj.T), w.norm)


ANSWERS = {
    "12.1": Answers(
        right=[worth, worth_by_numpy, worth_by_recursion, worth_as_a_list],
        wrong=[
            Wrong(worth_independent, "only if all before it were accepted"),
            Wrong(worth_without_own_token, "own token is missing"),
            Wrong(worth_one_short, "one too early"),
            Wrong(worth_all_or_none, "all drafts are accepted"),
            Wrong(worth_one_cost, "every one of the D drafts takes c"),
            Wrong(worth_free, "time of the drafts is missing"),
            Wrong(worth_divides_by_zero, "p = 1 divides by zero"),
            Wrong(worth_as_an_array, "one array"),
            Wrong(worth_accepted_cost, "a draft that is refused was made"),
            Wrong(worth_until_refused, "before the pass looks at the first"),
            Wrong(worth_compound, "added up"),
            Wrong(worth_upside_down, "upside down"),
            Wrong(worth_other_time, "the tokens are right; the speed is not"),
        ],
    ),
    "12.2": Answers(
        right=[
            rule,
            rule_by_loop,
            rule_of_whole_numbers,
            rule_with_epsilon_where_drafted,
        ],
        wrong=[
            Wrong(rule_never_rejects, "every draft is accepted"),
            Wrong(rule_accepts_by_p, "probability p alone"),
            Wrong(rule_joint, "when it was drafted"),
            Wrong(rule_upside_down, "upside down"),
            Wrong(rule_not_clipped, "above 1"),
            Wrong(rule_divides_by_zero, "divided by 0"),
            Wrong(rule_draws_from_p, "drawn from p itself"),
            Wrong(rule_not_scaled, "does not add up to 1"),
            Wrong(rule_not_clamped, "negative where the draft"),
            Wrong(rule_reversed, "turn it round"),
            Wrong(rule_absolute, "belongs to nobody"),
            Wrong(rule_epsilon, "never drafted"),
            Wrong(rule_tiny_q, "never drafted"),
            Wrong(rule_equal_zeros, "what to return then"),
            Wrong(rule_never_drafted_zero, "never drafted"),
        ],
    ),
    "12.3": Answers(
        right=[loss, loss_by_mask, loss_by_log_softmax, loss_in_float64],
        wrong=[
            Wrong(loss_told_token, "one too early"),
            Wrong(loss_of_depth_one, "targets of depth 1"),
            Wrong(loss_next_token, "of the model itself"),
            Wrong(loss_one_late, "one too late"),
            Wrong(loss_all_rows, "the last row"),
            Wrong(loss_cut_in_front, "row i stays row i"),
            Wrong(loss_added, "asked for is their mean"),
            Wrong(loss_over_rows, "counts more"),
            Wrong(loss_first_depth, "only the first depth"),
            Wrong(loss_rolled, "the token that it predicts is not there"),
            Wrong(loss_padded, "the token that it predicts is not there"),
            Wrong(loss_first_text, "only the first text"),
            Wrong(loss_reshaped, "axes should be swapped"),
            Wrong(loss_number, "leave them away"),
            Wrong(loss_in_bits, "these are bits"),
        ],
    ),
    "12.4": Answers(
        right=[module, module_two_products, module_in_float64],
        wrong=[
            Wrong(module_paper_order, "other way round"),
            Wrong(module_blind, "nothing is read of the next token"),
            Wrong(module_same_token, "which its state has read already"),
            Wrong(module_next_token, "every depth reads token i + 1"),
            Wrong(module_last_states, "row i starts from state i"),
            Wrong(module_no_enorm, "norm of the embedding"),
            Wrong(module_no_hnorm, "norm of the state"),
            Wrong(module_no_last_norm, "norm of the result"),
            Wrong(module_no_block, "the block is missing"),
            Wrong(module_one_row_more, "one row too many"),
            Wrong(module_no_epsilon, "what stands under the root"),
            Wrong(module_large_epsilon, "what stands under the root"),
            Wrong(module_default_epsilon, "what stands under the root"),
            Wrong(module_epsilon_outside, "what outside it"),
            Wrong(module_no_gains, "the gains of the norms are missing"),
            Wrong(module_mean_of_all, "over all axes"),
            Wrong(module_deviation, "a standard deviation"),
            Wrong(module_layer_norm, "a standard deviation"),
            Wrong(module_length, "not of a sum"),
            Wrong(module_row_by_row, "block was called"),
            Wrong(module_residual, "once more"),
            Wrong(module_not_transposed, "a row for each of its D outputs"),
            Wrong(module_attributes, "w is a dict"),
        ],
    ),
}
