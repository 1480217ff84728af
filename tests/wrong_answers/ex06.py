"""Lesson 06, pretraining."""

import math

import numpy as np

from . import Answers, Wrong

# --- 06.1 -------------------------------------------------------------------------


def bits(losses, targets, byte_lengths):
    return losses.sum() / np.log(2) / byte_lengths[targets].sum()


def bits_by_means(losses, targets, byte_lengths):
    per_token = losses.mean() * np.log2(np.e)
    return per_token / np.mean([byte_lengths[t] for t in targets.ravel()])


def bits_in_nats(losses, targets, byte_lengths):
    return losses.sum() / byte_lengths[targets].sum()


def bits_wrong_way(losses, targets, byte_lengths):
    return losses.sum() * math.log(2) / byte_lengths[targets].sum()


def bits_by_log_10(losses, targets, byte_lengths):
    return losses.sum() / math.log(10) / byte_lengths[targets].sum()


def bits_per_token(losses, targets, byte_lengths):
    return float(np.mean(losses)) / math.log(2)


def bits_of_ratios(losses, targets, byte_lengths):
    lengths = np.maximum(byte_lengths[targets], 1)
    return float(np.mean(losses / np.log(2) / lengths))


def bits_of_rows(losses, targets, byte_lengths):
    bits_of_row = losses.sum(axis=1) / np.log(2)
    return (bits_of_row / byte_lengths[targets].sum(axis=1)).mean()


def bits_of_vocabulary(losses, targets, byte_lengths):
    return losses.mean() / np.log(2) / byte_lengths.mean()


def bits_without_marks(losses, targets, byte_lengths):
    lengths = byte_lengths[targets]
    text = lengths > 0
    return losses[text].sum() / np.log(2) / lengths[text].sum()


def bytes_per_bit(losses, targets, byte_lengths):
    return byte_lengths[targets].sum() / (losses.sum() / np.log(2))


def bits_each(losses, targets, byte_lengths):
    return losses / np.log(2) / byte_lengths[targets].sum()


def bits_of_plain_ratios(losses, targets, byte_lengths):
    return np.mean(losses / np.log(2) / byte_lengths[targets])


def bits_of_ratios_of_text(losses, targets, byte_lengths):
    lengths = byte_lengths[targets]
    text = lengths > 0
    return np.mean(losses[text] / np.log(2) / lengths[text])


def bits_without_targets(losses, targets, byte_lengths):
    return losses.sum() / np.log(2) / byte_lengths.sum()


# --- 06.2 -------------------------------------------------------------------------


def plan(config, n_tokens):
    n, d, length = config.n_layers, config.dim, config.max_seq_len
    M = 12 * n * d * (6 * d + length)
    C = M * n_tokens
    return C, 0.3118 * C**-0.1250, 0.2920 * C**0.3271 / length


def plan_6N(config, n_tokens):
    C = 6 * 12 * config.n_layers * config.dim**2 * n_tokens
    return C, 0.3118 * C**-0.1250, 0.2920 * C**0.3271 / config.max_seq_len


def plan_attention_once(config, n_tokens):
    n, d, length = config.n_layers, config.dim, config.max_seq_len
    C = (72 * n * d**2 + 12 * d * length) * n_tokens
    return C, 0.3118 * C**-0.1250, 0.2920 * C**0.3271 / length


def plan_in_tokens(config, n_tokens):
    C, peak, batch = plan(config, n_tokens)
    return C, peak, batch * config.max_seq_len


def plan_rising(config, n_tokens):
    C, _, batch = plan(config, n_tokens)
    return C, 0.3118 * C**0.1250, batch


def plan_inference(config, n_tokens):
    n, d, length = config.n_layers, config.dim, config.max_seq_len
    C = (24 * n * d**2 + 4 * n * d * length) * n_tokens
    return C, 0.3118 * C**-0.1250, 0.2920 * C**0.3271 / length


def plan_of_M(config, n_tokens):
    n, d, length = config.n_layers, config.dim, config.max_seq_len
    M = 72 * n * d**2 + 12 * n * d * length
    return M * n_tokens, 0.3118 * M**-0.1250, 0.2920 * M**0.3271 / length


def plan_M_first(config, n_tokens):
    C, peak, batch = plan(config, n_tokens)
    return C / n_tokens, peak, batch


def plan_swapped(config, n_tokens):
    C, peak, batch = plan(config, n_tokens)
    return C, batch, peak


def plan_C_alone(config, n_tokens):
    return plan(config, n_tokens)[0]


def plan_of_M_rate(config, n_tokens):
    C, _, batch = plan(config, n_tokens)
    return C, 0.3118 * (C / n_tokens) ** -0.1250, batch


def plan_rounded(config, n_tokens):
    C, peak, batch = plan(config, n_tokens)
    return C, peak, round(batch)


def plan_whole(config, n_tokens):
    C, peak, batch = plan(config, n_tokens)
    return C, peak, int(batch)


def plan_times_length(config, n_tokens):
    C, peak, _ = plan(config, n_tokens)
    return C, peak, 0.2920 * C**0.3271 * config.max_seq_len


def plan_six(config, n_tokens):
    n, d, length = config.n_layers, config.dim, config.max_seq_len
    C = 6 * (72 * n * d**2 + 12 * n * d * length) * n_tokens
    return C, 0.3118 * C**-0.1250, 0.2920 * C**0.3271 / length


def plan_as_list(config, n_tokens):
    return list(plan(config, n_tokens))


def plan_in_an_array(config, n_tokens):
    return np.array(plan(config, n_tokens))


# --- 06.3 -------------------------------------------------------------------------


def step_of_adamw(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    m = m + (1 - beta1) * (grad - m)
    v = v + (1 - beta2) * (grad**2 - v)
    rate = lr * math.sqrt(1 - beta2**step) / (1 - beta1**step)
    small = eps * math.sqrt(1 - beta2**step)
    return w - lr * decay * w - rate * m / (np.sqrt(v) + small), m, v


def adam_with_l2(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    grad = grad + decay * w
    return step_of_adamw(w, grad, m, v, step, lr, beta1, beta2, eps, 0.0)


def adamw_uncorrected(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    return w * (1 - lr * decay) - lr * m / (np.sqrt(v) + eps), m, v


def adamw_m_corrected(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m_hat = m / (1 - beta1**step)
    return w * (1 - lr * decay) - lr * m_hat / (np.sqrt(v) + eps), m, v


def adamw_v_corrected(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    v_hat = v / (1 - beta2**step)
    return w * (1 - lr * decay) - lr * m / (np.sqrt(v_hat) + eps), m, v


def adamw_keeps_corrected(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    m = (beta1 * m + (1 - beta1) * grad) / (1 - beta1**step)
    v = (beta2 * v + (1 - beta2) * grad**2) / (1 - beta2**step)
    return w * (1 - lr * decay) - lr * m / (np.sqrt(v) + eps), m, v


def adamw_eps_inside(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return w * (1 - lr * decay) - lr * m_hat / np.sqrt(v_hat + eps), m, v


def adamw_from_zero(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    return step_of_adamw(w, grad, m, v, step + 1, lr, beta1, beta2, eps, decay)


def adamw_decay_without_rate(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    new, m, v = step_of_adamw(w, grad, m, v, step, lr, beta1, beta2, eps, 0.0)
    return new - decay * w, m, v


def adamw_no_decay(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    return step_of_adamw(w, grad, m, v, step, lr, beta1, beta2, eps, 0.0)


def adamw_decay_last(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    w, m, v = step_of_adamw(w, grad, m, v, step, lr, beta1, beta2, eps, 0.0)
    return w - lr * decay * w, m, v


def adamw_in_place(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    m *= beta1
    m += (1 - beta1) * grad
    v *= beta2
    v += (1 - beta2) * grad**2
    w -= lr * decay * w
    w -= lr * (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + eps)
    return w, m, v


def adamw_from_formulas(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return [w - lr * (m_hat / (np.sqrt(v_hat) + eps) + decay * w), m, v]


def adamw_beta_alone(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m_hat, v_hat = m / (1 - beta1), v / (1 - beta2)
    return (1 - lr * decay) * w - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


def adamw_beta_times_step(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m_hat, v_hat = m / (1 - beta1 * step), v / (1 - beta2 * step)
    return (1 - lr * decay) * w - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


def adamw_corrected_before(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    m, v = m / (1 - beta1**step), v / (1 - beta2**step)
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    return (1 - lr * decay) * w - lr * m / (np.sqrt(v) + eps), m, v


def adamw_corrected_before_apart(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    m_hat = beta1 * m_hat + (1 - beta1) * grad
    v_hat = beta2 * v_hat + (1 - beta2) * grad**2
    w = (1 - lr * decay) * w - lr * m_hat / (np.sqrt(v_hat) + eps)
    return w, beta1 * m + (1 - beta1) * grad, beta2 * v + (1 - beta2) * grad**2


def adamw_not_squared(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return (1 - lr * decay) * w - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


def adamw_decays_twice(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    grad = grad + decay * w
    return step_of_adamw(w, grad, m, v, step, lr, beta1, beta2, eps, decay)


def adamw_m_first(w, grad, m, v, step, lr, beta1, beta2, eps, decay):
    w, m, v = step_of_adamw(w, grad, m, v, step, lr, beta1, beta2, eps, decay)
    return m, v, w


# --- 06.4 -------------------------------------------------------------------------


def length_of(grads):
    return math.sqrt(sum((g * g).sum() for g in grads))


def gather(pieces, counts, max_norm):
    shares = np.array(counts) / sum(counts)
    grads = [sum(s * g for s, g in zip(shares, grad)) for grad in zip(*pieces)]
    length = length_of(grads)
    return [g / max(1, length / max_norm) for g in grads]


def gather_flat(pieces, counts, max_norm):
    flat = [np.concatenate([g.ravel() for g in piece]) for piece in pieces]
    mean = np.average(flat, axis=0, weights=counts)
    length = np.linalg.norm(mean)
    if length > max_norm:
        mean = mean / length * max_norm
    ends = np.cumsum([g.size for g in pieces[0]])[:-1]
    parts = np.split(mean, ends)
    return [part.reshape(g.shape) for part, g in zip(parts, pieces[0])]


def gather_mean_of_means(pieces, counts, max_norm):
    return gather(pieces, [1] * len(pieces), max_norm)


def gather_unclipped(pieces, counts, max_norm):
    return gather(pieces, counts, math.inf)


def gather_sum(pieces, counts, max_norm):
    grads = [sum(grad) for grad in zip(*pieces)]
    return gather([grads], [1], max_norm)


def gather_counted_sum(pieces, counts, max_norm):
    grads = [sum(c * g for c, g in zip(counts, grad)) for grad in zip(*pieces)]
    return gather([grads], [1], max_norm)


def gather_clip_each(pieces, counts, max_norm):
    grads = gather(pieces, counts, math.inf)
    return [g * min(1, max_norm / np.linalg.norm(g)) for g in grads]


def gather_clip_values(pieces, counts, max_norm):
    return [np.clip(g, -max_norm, max_norm) for g in gather(pieces, counts, math.inf)]


def gather_clip_always(pieces, counts, max_norm):
    grads = gather(pieces, counts, math.inf)
    return [g * max_norm / length_of(grads) for g in grads]


def gather_sum_of_norms(pieces, counts, max_norm):
    grads = gather(pieces, counts, math.inf)
    length = sum(np.linalg.norm(g) for g in grads)
    return [g * min(1, max_norm / length) for g in grads]


def gather_clip_first(pieces, counts, max_norm):
    clipped = []
    for piece in pieces:
        factor = min(1, max_norm / length_of(piece))
        clipped.append([g * factor for g in piece])
    return gather(clipped, counts, max_norm)


def gather_in_place(pieces, counts, max_norm):
    grads = pieces[0]
    for piece in pieces[1:]:
        for g, more in zip(grads, piece):
            g += more
    return [g / len(pieces) for g in grads]


def gather_like_torch(pieces, counts, max_norm):
    grads = gather(pieces, counts, math.inf)
    return tuple(g * min(1, max_norm / (length_of(grads) + 1e-6)) for g in grads)


def gather_by_pieces(pieces, counts, max_norm):
    grads = [
        sum(c * g for c, g in zip(counts, grad)) / len(pieces) for grad in zip(*pieces)
    ]
    return gather([grads], [1], max_norm)


def gather_divided(pieces, counts, max_norm):
    grads = [sum(g / c for c, g in zip(counts, grad)) for grad in zip(*pieces)]
    return gather([grads], [1], max_norm)


def gather_to_one(pieces, counts, max_norm):
    grads = gather(pieces, counts, math.inf)
    length = length_of(grads)
    return [g / length if length > max_norm else g for g in grads]


def gather_mean_square(pieces, counts, max_norm):
    grads = gather(pieces, counts, math.inf)
    flat = np.concatenate([g.ravel() for g in grads])
    length = np.sqrt(np.mean(flat**2))
    return [g * min(1, max_norm / length) for g in grads]


def gather_no_root(pieces, counts, max_norm):
    grads = gather(pieces, counts, math.inf)
    return [g * min(1, max_norm / length_of(grads) ** 2) for g in grads]


# --- 06.5 -------------------------------------------------------------------------


def law(x, y):
    (b, log_a), covariance = np.polyfit(np.log(x), np.log(y), 1, cov="unscaled")
    rest = np.log(y) - log_a - b * np.log(x)
    error = math.sqrt(covariance[0, 0] * (rest**2).sum() / (len(x) - 2))
    return math.exp(log_a), b, error


def law_in_log_10(x, y):
    p, q = np.log10(x), np.log10(y)
    b = ((p - p.mean()) * (q - q.mean())).sum() / ((p - p.mean()) ** 2).sum()
    rest = q - q.mean() - b * (p - p.mean())
    error = math.sqrt((rest**2).sum() / (len(x) - 2) / ((p - p.mean()) ** 2).sum())
    return 10 ** (q.mean() - b * p.mean()), b, error


def law_straight_line(x, y):
    p = x - x.mean()
    b = (p * y).sum() / (p**2).sum()
    a = y.mean() - b * x.mean()
    rest = y - a - b * x
    return a, b, math.sqrt((rest**2).sum() / (len(x) - 2) / (p**2).sum())


def law_log_a(x, y):
    a, b, error = law(x, y)
    return math.log(a), b, error


def law_mixed_bases(x, y):
    a, b, error = law_in_log_10(x, y)
    return math.exp(math.log10(a)), b, error


def law_all_free(x, y):
    a, b, error = law(x, y)
    return a, b, error * math.sqrt((len(x) - 2) / len(x))


def law_one_taken(x, y):
    a, b, error = law(x, y)
    return a, b, error * math.sqrt((len(x) - 2) / (len(x) - 1))


def law_variance(x, y):
    a, b, error = law(x, y)
    return a, b, error**2


def law_spread_of_points(x, y):
    a, b, _ = law(x, y)
    rest = np.log(y) - math.log(a) - b * np.log(x)
    return a, b, math.sqrt((rest**2).sum() / (len(x) - 2))


def law_swapped(x, y):
    return law(y, x)


def law_falling(x, y):
    a, b, error = law(x, y)
    return a, -b, error


def law_without_error(x, y):
    b, log_a = np.polyfit(np.log(x), np.log(y), 1)
    return math.exp(log_a), b


def law_by_polyfit(x, y):
    (b, log_a), covariance = np.polyfit(np.log(x), np.log(y), 1, cov=True)
    return math.exp(log_a), b, math.sqrt(covariance[0, 0])


def law_without_means(x, y):
    p, q = np.log(x), np.log(y)
    b = (p * q).sum() / (p**2).sum()
    rest = q - q.mean() + b * p.mean() - b * p
    error = math.sqrt((rest**2).sum() / (len(x) - 2) / (p**2).sum())
    return math.exp(q.mean() - b * p.mean()), b, error


def law_slope_without_means(x, y):
    p, q = np.log(x), np.log(y)
    b = (p * q).sum() / (p**2).sum()
    rest = q - q.mean() + b * p.mean() - b * p
    spread = ((p - p.mean()) ** 2).sum()
    error = math.sqrt((rest**2).sum() / (len(x) - 2) / spread)
    return math.exp(q.mean() - b * p.mean()), b, error


def law_by_variance(x, y):
    a, b, _ = law(x, y)
    rest = np.log(y) - math.log(a) - b * np.log(x)
    return a, b, math.sqrt((rest**2).sum() / (len(x) - 2) / np.log(x).var())


def law_by_sample_variance(x, y):
    a, b, _ = law(x, y)
    rest = np.log(y) - math.log(a) - b * np.log(x)
    return a, b, math.sqrt((rest**2).sum() / (len(x) - 2) / np.log(x).var(ddof=1))


def law_error_of_log_a(x, y):
    (b, log_a), covariance = np.polyfit(np.log(x), np.log(y), 1, cov=True)
    return math.exp(log_a), b, math.sqrt(covariance[1, 1])


def law_unscaled(x, y):
    (b, log_a), covariance = np.polyfit(np.log(x), np.log(y), 1, cov="unscaled")
    return math.exp(log_a), b, math.sqrt(covariance[0, 0])


def law_plain_residuals(x, y):
    a, b, _ = law(x, y)
    p = np.log(x) - np.log(x).mean()
    return a, b, math.sqrt(((y - a * x**b) ** 2).sum() / (len(x) - 2) / (p**2).sum())


def law_b_first(x, y):
    a, b, error = law(x, y)
    return b, a, error


def law_in_an_array(x, y):
    return np.array(law(x, y))


ANSWERS = {
    "06.1": Answers(
        right=[bits, bits_by_means],
        wrong=[
            Wrong(bits_in_nats, "these are nats per byte"),
            Wrong(bits_wrong_way, "multiplied by ln 2"),
            Wrong(bits_by_log_10, "not the logarithm of a bit"),
            Wrong(bits_per_token, "bits per token"),
            Wrong(bits_of_ratios, "a mean of ratios"),
            Wrong(bits_of_rows, "a mean of row means"),
            Wrong(bits_of_vocabulary, "mean length of the vocabulary's"),
            Wrong(bits_without_marks, "its loss counts"),
            Wrong(bytes_per_bit, "turn the ratio over"),
            Wrong(bits_each, "a NumPy array"),
            Wrong(bits_of_plain_ratios, "a mean of ratios"),
            Wrong(bits_of_ratios_of_text, "a mean of ratios"),
            Wrong(bits_without_targets, "each entry once"),
        ],
    ),
    "06.2": Answers(
        right=[plan, plan_as_list],
        wrong=[
            Wrong(plan_6N, "12 n d l"),
            Wrong(plan_attention_once, "in every layer"),
            Wrong(plan_in_tokens, "this batch is in tokens"),
            Wrong(plan_rising, "its exponent is negative"),
            Wrong(plan_inference, "M counts training"),
            Wrong(plan_of_M, "the laws are of C"),
            Wrong(plan_M_first, "C is M times the tokens"),
            Wrong(plan_swapped, "changed places"),
            Wrong(plan_C_alone, "3"),
            Wrong(plan_of_M_rate, "the laws are of C"),
            Wrong(plan_rounded, "whole sequences"),
            Wrong(plan_whole, "whole sequences"),
            Wrong(plan_times_length, "each sequence holds"),
            Wrong(plan_six, "72 is 6 times 12"),
            Wrong(plan_in_an_array, "in one array"),
        ],
    ),
    "06.3": Answers(
        right=[step_of_adamw, adamw_from_formulas],
        wrong=[
            Wrong(adam_with_l2, "an L2 penalty"),
            Wrong(adamw_uncorrected, "m and v are not corrected"),
            Wrong(adamw_m_corrected, "only m is corrected"),
            Wrong(adamw_v_corrected, "only v is corrected"),
            Wrong(adamw_keeps_corrected, "the corrected m and v were kept"),
            Wrong(adamw_eps_inside, "outside the square root"),
            Wrong(adamw_from_zero, "one step ahead"),
            Wrong(adamw_decay_without_rate, "multiplied by the learning rate"),
            Wrong(adamw_no_decay, "the decay is missing"),
            Wrong(adamw_decay_last, "from before the step"),
            Wrong(adamw_in_place, "changed its input"),
            Wrong(adamw_beta_alone, "that of the first step at every step"),
            Wrong(adamw_beta_times_step, "the root of a negative number"),
            Wrong(adamw_corrected_before, "the old m and v are corrected"),
            Wrong(adamw_corrected_before_apart, "the old m and v are corrected"),
            Wrong(adamw_not_squared, "the gradient's square"),
            Wrong(adamw_decays_twice, "in the gradient as well"),
            Wrong(adamw_m_first, "asked for as w, m, v"),
        ],
    ),
    "06.4": Answers(
        right=[gather, gather_flat, gather_like_torch],
        wrong=[
            Wrong(gather_mean_of_means, "have equal weight"),
            Wrong(gather_unclipped, "nothing was clipped"),
            Wrong(gather_sum, "the sum of the pieces' gradients"),
            Wrong(gather_counted_sum, "must add up to 1"),
            Wrong(gather_clip_each, "clipped by itself"),
            Wrong(gather_clip_values, "each number was clipped"),
            Wrong(gather_clip_always, "was made longer"),
            Wrong(gather_sum_of_norms, "lengths do not add up"),
            Wrong(gather_clip_first, "before they were added up"),
            Wrong(gather_in_place, "changed its input pieces"),
            Wrong(gather_by_pieces, "divided by the number of pieces"),
            Wrong(gather_divided, "a mean is divided already"),
            Wrong(gather_to_one, "has the length 1 now"),
            Wrong(gather_mean_square, "the root of the mean square"),
            Wrong(gather_no_root, "its root is missing"),
        ],
    ),
    "06.5": Answers(
        right=[law, law_in_log_10, law_by_polyfit],
        wrong=[
            Wrong(law_straight_line, "a straight line through the points"),
            Wrong(law_log_a, "a is e to the line's value"),
            Wrong(law_mixed_bases, "another base"),
            Wrong(law_all_free, "are free, not n"),
            Wrong(law_one_taken, "not n - 1"),
            Wrong(law_variance, "this is the variance of b"),
            Wrong(law_spread_of_points, "how far apart the points lie"),
            Wrong(law_swapped, "changed places"),
            Wrong(law_falling, "the exponent's sign is wrong"),
            Wrong(law_without_error, "3"),
            Wrong(law_without_means, "a line through the origin"),
            Wrong(law_slope_without_means, "a line through the origin"),
            Wrong(law_by_variance, "divided by their number"),
            Wrong(law_by_sample_variance, "their number less one"),
            Wrong(law_error_of_log_a, "the standard error of ln a"),
            Wrong(law_unscaled, "the residuals are not in this error"),
            Wrong(law_plain_residuals, "between logarithms"),
            Wrong(law_b_first, "asked for as a, b, s_b"),
            Wrong(law_in_an_array, "in one array"),
        ],
    ),
}
