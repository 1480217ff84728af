"""Lesson 05, DeepSeek-LLM: the oracles count shape by shape and loop item by item.

None of them uses the package's model, loss, schedule or sampling.
"""

import math

import numpy as np
import torch

from deepseek_mini.config import GQA, Config, SwiGLU
from deepseek_mini.lesson.oracles import Case, Exercise, Mistake, array, tensor

LESSON = "05_deepseek_llm"

# --- 05.1 -------------------------------------------------------------------------


def parameters(config, **mistake):
    """The oracle: every tensor of the model, listed; keywords make known mistakes."""
    part, dim, inter = config.attention, config.dim, config.dense.inter_dim
    q_rows = part.n_heads * part.head_dim
    kv_rows = part.n_kv_heads * part.head_dim
    if mistake.get("every_head_its_own"):
        kv_rows = q_rows
    if mistake.get("heads_fill_dim"):
        q_rows, kv_rows = dim, dim * part.n_kv_heads // part.n_heads
    block = [(q_rows, dim), (kv_rows, dim), (kv_rows, dim), (dim, q_rows)]
    block += [(inter, dim)] * mistake.get("ffn_matrices", 3)
    block += [(dim,)] * mistake.get("norms", 2)
    shapes = block * config.n_layers
    shapes += [(config.vocab_size, dim)] * mistake.get("tables", 2)
    if config.tie_embeddings and "tables" not in mistake:
        shapes.pop()
    shapes += [(dim,)] * mistake.get("last_norms", 1)
    return sum(math.prod(shape) for shape in shapes)


def _counting(**mistake):
    return lambda config: parameters(config, **mistake)


def config_cases(rng):
    for label, share, wide, tied in (
        ("a key for every two query heads", 2, False, False),
        ("multi-head attention", 1, False, False),
        ("heads that together are wider than dim", 3, True, False),
        ("tied embeddings", 1, False, True),
    ):
        groups, head_dim = int(rng.integers(2, 6)), 2 * int(rng.integers(3, 9))
        heads = groups * share
        dim = heads * head_dim - (2 * int(rng.integers(1, 5)) if wide else 0)
        config = Config(
            vocab_size=int(rng.integers(50, 500)),
            dim=dim,
            n_layers=int(rng.integers(3, 9)),
            max_seq_len=32,
            attention=GQA(heads, groups, head_dim),
            dense=SwiGLU(int(rng.integers(20, 200))),
            tie_embeddings=tied,
        )
        yield Case((config,), label)


PARAMETERS = Exercise(
    id="05.1",
    title="How many parameters?",
    signature="parameters(config)",
    difficulty="a few lines",
    minutes=8,
    right=parameters,
    cases=config_cases,
    mistakes=(
        Mistake(
            "keys and values were counted for every query head; there are only "
            "n_kv_heads of them",
            gives=_counting(every_head_its_own=True),
        ),
        Mistake(
            "a SwiGLU has three matrices: the gate, the value, and the way back",
            gives=_counting(ffn_matrices=2),
        ),
        Mistake(
            "with tied embeddings the head is the embedding: count that matrix once",
            gives=_counting(tables=2),
        ),
        Mistake(
            "one table of vocab_size rows is missing: this head has numbers of its own",
            gives=_counting(tables=1),
        ),
        Mistake(
            "the tables of vocab_size rows are missing: embedding and head",
            gives=_counting(tables=0),
        ),
        Mistake(
            "exactly one norm is missing: what happens after the last block?",
            gives=_counting(last_norms=0),
        ),
        Mistake(
            "a block has two norms, one before each part",
            gives=_counting(norms=1),
        ),
        Mistake(
            "the norms are missing",
            gives=_counting(norms=0, last_norms=0),
        ),
        Mistake(
            "n_heads times head_dim need not be dim: look at the shapes of wq and wo",
            gives=_counting(heads_fill_dim=True),
        ),
    ),
    hint="list the tensors of one block with their shapes, then what is outside it",
)

# --- 05.2 -------------------------------------------------------------------------


def next_token_loss(
    logits, tokens, pad, *, shift=1, source=True, target=True, mean=True
):
    """The oracle: one question after the other, in float64."""
    total, count, asked = 0.0, 0, 0
    for b, t in np.ndindex(*tokens.shape):
        if not 0 <= t + shift < tokens.shape[1]:
            continue
        asked += 1
        if (source and pad[b, t]) or (target and pad[b, t + shift]):
            continue
        scores = logits[b, t].double()
        total += float(scores.logsumexp(0) - scores[tokens[b, t + shift]])
        count += 1
    count = {True: count, False: 1, "all": asked}[mean]
    return torch.tensor(total / count, dtype=logits.dtype)


def _losing(**mistake):
    return lambda *args: next_token_loss(*args, **mistake)


def _mean_of_rows(logits, tokens, pad):
    rows = [next_token_loss(*(x[i : i + 1] for x in (logits, tokens, pad)))
            for i in range(len(tokens)) if (~pad[i]).sum() > 1]  # fmt: skip
    return torch.stack(rows).mean()


def loss_cases(rng):
    for B, T, V, left, right, strided, label in (
        (3, 7, 11, 3, 0, False, "padding on the left"),
        (2, 6, 5, 0, 2, False, "padding on the right"),
        (1, 2, 4, 0, 0, False, "one question, no padding"),
        (4, 9, 13, 2, 3, True, "padding at both ends, logits not contiguous"),
    ):
        tokens = torch.from_numpy(rng.integers(V, size=(B, T)))
        pad = torch.zeros(B, T, dtype=torch.bool)
        pad[0, :left] = True
        pad[-1, T - right :] = right > 0
        dtype = torch.float32 if strided else torch.float64
        logits = tensor(rng, B, T, V, dtype=dtype, strided=strided) * 3
        yield Case((logits, tokens, pad), label)


LOSS = Exercise(
    id="05.2",
    title="The loss of the next token",
    signature="next_token_loss(logits, tokens, pad)",
    difficulty="some thought",
    minutes=12,
    right=next_token_loss,
    cases=loss_cases,
    mistakes=(
        Mistake(
            "every output is compared with the token that the model has just read",
            gives=_losing(shift=0),
        ),
        Mistake(
            "every output is compared with the token just read, and padding counts too",
            gives=_losing(shift=0, source=False, target=False),
        ),
        Mistake(
            "the shift goes the wrong way: outputs are compared with the token before",
            gives=_losing(shift=-1),
        ),
        Mistake(
            "questions that involve padding count as well",
            gives=_losing(source=False, target=False),
        ),
        Mistake(
            "an output at a padded position is counted: a question needs text at the "
            "position that is read, too",
            gives=_losing(source=False),
        ),
        Mistake(
            "a padded token is asked for: a question needs text at both positions",
            gives=_losing(target=False),
        ),
        Mistake(
            "the sum is right, but divided by all questions, not by those that count",
            gives=_losing(mean="all"),
        ),
        Mistake("this is the sum; the mean is asked for", gives=_losing(mean=False)),
        Mistake(
            "a mean of row means: every question has the same weight, whatever row it "
            "is in",
            gives=_mean_of_rows,
        ),
        Mistake(
            "the sign is wrong: a loss falls when p rises",
            gives=lambda *args: -next_token_loss(*args),
        ),
    ),
    hint="write down, for T = 4, which output is asked for which token",
)

# --- 05.3 -------------------------------------------------------------------------


def block(x, attn_norm, attn, ffn_norm, ffn):
    middle = np.add(attn(attn_norm(x)), x)
    return np.add(ffn(ffn_norm(middle)), middle)


def _function(rng, dim, kind):
    """A function [T, D] -> [T, D] like a norm, an attention or a feed-forward net."""
    weight = rng.normal(size=(dim, dim)) / dim**0.5
    gain = 1 + 0.3 * rng.normal(size=dim)

    def norm(x):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * gain

    def attn(x):
        before = np.arange(1, len(x) + 1)[:, None]
        return np.cumsum(x @ weight, axis=0) / before

    def ffn(x):
        return np.tanh(x) @ weight

    return {"norm": norm, "attn": attn, "ffn": ffn}[kind]


def block_cases(rng):
    for n_tokens, dim, label in ((5, 4, ""), (1, 6, "a single token"), (9, 3, "")):
        kinds = ("norm", "attn", "norm", "ffn")
        parts = [_function(rng, dim, kind) for kind in kinds]
        yield Case((3 * array(rng, n_tokens, dim), *parts), label)


def _post_norm(x, n1, attn, n2, ffn):
    x = n1(x + attn(x))
    return n2(x + ffn(x))


def _residual_from_normed(x, n1, attn, n2, ffn):
    x = n1(x) + attn(n1(x))
    return n2(x) + ffn(n2(x))


def _parallel(x, n1, attn, n2, ffn):
    return x + attn(n1(x)) + ffn(n2(x))


BLOCK = Exercise(
    id="05.3",
    title="One block",
    signature="block(x, attn_norm, attn, ffn_norm, ffn)",
    difficulty="a few lines",
    minutes=5,
    right=block,
    cases=block_cases,
    mistakes=(
        Mistake(
            "the norms come after the sums; here each norm comes before its part, and "
            "what is added is not normed",
            gives=_post_norm,
        ),
        Mistake(
            "the parts' results are added to the normed copy; the stream itself stays "
            "as it was",
            gives=_residual_from_normed,
        ),
        Mistake(
            "the feed-forward network reads the stream from before attention",
            gives=_parallel,
        ),
        Mistake(
            "the feed-forward network comes first here, attention second",
            gives=lambda x, n1, attn, n2, ffn: block(x, n2, ffn, n1, attn),
        ),
        Mistake(
            "nothing is added to the stream: each part replaces it",
            gives=lambda x, n1, attn, n2, ffn: ffn(n2(attn(n1(x)))),
        ),
        Mistake(
            "attention's result is normed and read, but never added to the stream",
            gives=lambda x, n1, attn, n2, ffn: x + ffn(n2(attn(n1(x)))),
        ),
        Mistake(
            "attention replaces the stream: its result must be added",
            gives=lambda x, n1, attn, n2, ffn: block(
                attn(n1(x)), lambda y: y, np.zeros_like, n2, ffn
            ),
        ),
        Mistake(
            "the two norms are exchanged; each has weights of its own",
            gives=lambda x, n1, attn, n2, ffn: block(x, n2, attn, n1, ffn),
        ),
        Mistake(
            "the same norm is used twice; the second has weights of its own",
            gives=lambda x, n1, attn, n2, ffn: block(x, n1, attn, n1, ffn),
        ),
        Mistake(
            "the feed-forward network reads the stream without its norm",
            gives=lambda x, n1, attn, n2, ffn: block(x, n1, attn, lambda y: y, ffn),
        ),
        Mistake(
            "the norms are missing",
            gives=lambda x, n1, attn, n2, ffn: block(
                x, lambda y: y, attn, lambda y: y, ffn
            ),
        ),
    ),
    hint="two sums; in each, a part reads a normed copy of the stream",
)

# --- 05.4 -------------------------------------------------------------------------


def multi_step(
    step, steps, warmup, peak, *, first=1, end=0.1, shift=0, whole=True, rate=True
):
    """The oracle: the whole schedule as a list of which one entry is wanted."""
    flat = steps if whole else steps - warmup
    start = 0 if whole else warmup
    rates = [1.0] * steps
    for i in range(steps):
        if i < warmup:
            rates[i] = (i + first) / warmup
        elif (i - start - shift) * 10 >= 9 * flat:
            rates[i] = end
        elif (i - start - shift) * 10 >= 8 * flat:
            rates[i] = 0.316
    return float(rates[step] * (peak if rate else 1.0))


def _scheduling(**mistake):
    return lambda *args: multi_step(*args, **mistake)


def _cosine(step, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / (steps - warmup)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def _jump_to_a_tenth(step, steps, warmup, peak):
    right = multi_step(step, steps, warmup, peak)
    return 0.1 * peak if 10 * step >= 8 * steps else right


def schedule_cases(rng):
    steps, warmup = 10 * int(rng.integers(20, 40)), int(rng.integers(8, 30))
    peak = float(rng.uniform(1.5, 3))
    a, b = 8 * steps // 10, 9 * steps // 10
    between = int(rng.integers(1, warmup - 1))
    # The tolerance lets 0.316 and the square root of 0.1 both pass.
    for step, label in (
        (between, "during the warmup"),
        (0, "the first step"),
        (warmup - 1, "the last step of the warmup"),
        (warmup, "the first step after the warmup"),
        (steps // 2, "half-way"),
        (a - 1, "the last step before 80%"),
        (a, "the first step from 80% on"),
        (a + 1, "the second step from 80% on"),
        ((a + b) // 2, "between 80% and 90%"),
        (b - 1, "the last step before 90%"),
        (b, "the first step from 90% on"),
        (steps - 1, "the last step"),
    ):
        where = f"{label}: step {step} of {steps}, warmup {warmup}"
        yield Case((step, steps, warmup, peak), where, tolerance=1e-3)


SCHEDULE = Exercise(
    id="05.4",
    title="The multi-step learning rate",
    signature="multi_step(step, steps, warmup, peak)",
    difficulty="from the paper",
    minutes=10,
    right=multi_step,
    cases=schedule_cases,
    mistakes=(
        Mistake(
            "this is a cosine; the multi-step rate has three levels", gives=_cosine
        ),
        Mistake(
            "the last level is a tenth of the peak, not a tenth of the level before it",
            gives=_scheduling(end=0.0316),
        ),
        Mistake(
            "the warmup starts at 0, so its first step changes nothing and its last is "
            "below the peak",
            gives=_scheduling(first=0),
        ),
        Mistake(
            "the shares are of all steps, not of those after the warmup",
            gives=_scheduling(whole=False),
        ),
        Mistake(
            "the drop comes one step late: step 0.8 * steps already has the new rate",
            gives=_scheduling(shift=1),
        ),
        Mistake(
            "this is the factor; the learning rate is it times the peak",
            gives=_scheduling(rate=False),
        ),
        Mistake(
            "there are two drops: to 31.6% of the peak, and then to 10%",
            gives=_jump_to_a_tenth,
        ),
        Mistake(
            "the warmup is missing",
            when=lambda got, want, args: args[0] < args[2] and got == args[3],
        ),
    ),
    hint="three levels after the warmup: the peak, 0.316 of it, 0.1 of it",
)

# --- 05.5 -------------------------------------------------------------------------


def keep_top_p(logits, top_p, **mistake):
    """The oracle: tokens are put into the set one by one, likeliest first."""
    kept = torch.full_like(logits, -math.inf)
    for b, row in enumerate(logits.tolist()):
        top = max(row)
        p = [math.exp(score - top) for score in row]
        total = sum(p)
        order = range(len(row))
        if not mistake.get("unsorted"):
            rising = mistake.get("rising", False)
            order = sorted(order, key=lambda i: p[i], reverse=not rising)
        held = 0.0
        for rank, i in enumerate(order):
            share = p[i] / total
            crosses = held + share > top_p
            if held >= top_p or (mistake.get("without_crossing") and crosses and rank):
                break
            place = rank if mistake.get("in_ranks") else i
            kept[b, place] = logits[b, i]
            held += share
    return kept


def _keeping(**mistake):
    return lambda logits, top_p: keep_top_p(logits, top_p, **mistake)


def _strictly_below(logits, top_p):
    """Without the token that crosses, even if none is left."""
    probs, order = logits.softmax(-1).sort(dim=-1, descending=True)
    out = torch.zeros_like(probs, dtype=torch.bool)
    out = out.scatter(-1, order, probs.cumsum(-1) > top_p)
    return logits.masked_fill(out, -math.inf)


def _threshold(logits, top_p):
    probs = logits.softmax(-1)
    return logits.masked_fill(probs < 1 - top_p, -math.inf)


def _at_least(logits, top_p):
    return logits.masked_fill(logits.softmax(-1) < top_p, -math.inf)


def _mask_in_ranks(logits, top_p):
    """As many as are right, but the first ones of the vocabulary."""
    count = keep_top_p(logits, top_p).isfinite().sum(-1, keepdim=True)
    return logits.masked_fill(torch.arange(logits.shape[-1]) >= count, -math.inf)


def _zeros(logits, top_p):
    kept = keep_top_p(logits, top_p)
    return kept.masked_fill(kept.isinf(), 0.0)


def top_p_cases(rng):
    for B, V, top_p, strided, dtype, label in (
        (3, 9, 0.7, False, torch.float64, "top_p 0.7"),
        (1, 6, 0.05, False, torch.float64, "top_p 0.05, which one token holds"),
        (4, 12, 0.93, True, torch.float32, "logits that are not contiguous"),
        (2, 5, 1.0, False, torch.float64, "top_p 1, which keeps all"),
    ):
        logits = tensor(rng, B, V, dtype=dtype, strided=strided) * 1.5
        yield Case((logits, top_p), label, tolerance=0.0)


TOP_P = Exercise(
    id="05.5",
    title="Top-p",
    signature="keep_top_p(logits, top_p)",
    difficulty="some thought",
    minutes=15,
    right=keep_top_p,
    cases=top_p_cases,
    mistakes=(
        Mistake(
            "the token that takes the sum to top_p is left out; the kept ones must "
            "hold at least top_p",
            gives=_strictly_below,
        ),
        Mistake(
            "the token that takes the sum to top_p is left out; the kept ones must "
            "hold at least top_p",
            gives=_keeping(without_crossing=True),
        ),
        Mistake(
            "probabilities are added in the order of the vocabulary, not the likeliest "
            "first",
            gives=_keeping(unsorted=True),
        ),
        Mistake(
            "the unlikeliest tokens come first: which way does the sort go?",
            gives=_keeping(rising=True),
        ),
        Mistake(
            "the kept logits stand in order of rank; each belongs where it was",
            gives=_keeping(in_ranks=True),
        ),
        Mistake(
            "as many tokens are kept as should be, but the mask is in rank order and "
            "the logits in order of the vocabulary",
            gives=_mask_in_ranks,
        ),
        Mistake(
            "the sum of the likelier tokens decides, not a token's own probability",
            gives=_threshold,
        ),
        Mistake(
            "the sum of the likelier tokens decides, not a token's own probability",
            gives=_at_least,
        ),
        Mistake(
            "a logit of 0 is no small one: what number has e to its power equal to 0?",
            gives=_zeros,
        ),
        Mistake(
            "these are probabilities; the kept logits are asked for as they were",
            gives=lambda logits, top_p: keep_top_p(logits, top_p).softmax(-1),
        ),
        Mistake(
            "nothing was left out",
            gives=lambda logits, top_p: logits,
        ),
    ),
    hint="by hand: probabilities 0.5, 0.3, 0.2 and top_p 0.6 keep the first two",
)

EXERCISES = (PARAMETERS, LOSS, BLOCK, SCHEDULE, TOP_P)
