"""Lesson 05, DeepSeek-LLM: the oracles count shape by shape and loop item by item.

None of them uses the package's model, loss, schedule or sampling.
"""

import math
from dataclasses import replace

import numpy as np
import torch

from deepseek_mini.config import GQA, Config, SwiGLU
from deepseek_mini.lesson.compare import difference
from deepseek_mini.lesson.explain import NotYet
from deepseek_mini.lesson.judge import call, judge_exercise
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
    if mistake.get("queries_fill_dim"):
        q_rows = dim
    if mistake.get("heads_fill_dim"):
        q_rows, kv_rows = dim, dim * part.n_kv_heads // part.n_heads
    block = [(q_rows, dim), (kv_rows, dim), (kv_rows, dim)]
    block += [(dim, q_rows)] * mistake.get("ways_back", 1)
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
    too_large = 10**13  # rows that no memory holds, so that building the model fails
    for label, share, wide, tied, rows in (
        ("a key for every two query heads", 2, False, False, None),
        ("multi-head attention", 1, False, False, None),
        ("heads that together are wider than dim", 3, True, False, None),
        ("tied embeddings", 1, False, True, None),
        ("a model too large to be built", 1, False, False, too_large),
    ):
        groups, head_dim = int(rng.integers(2, 6)), 2 * int(rng.integers(3, 9))
        heads = groups * share
        dim = heads * head_dim - (2 * int(rng.integers(1, 5)) if wide else 0)
        config = Config(
            vocab_size=rows or int(rng.integers(50, 500)),
            dim=dim,
            n_layers=int(rng.integers(3, 9)),
            max_seq_len=32,
            attention=GQA(heads, groups, head_dim),
            dense=SwiGLU(int(rng.integers(20, 200))),
            tie_embeddings=tied,
        )
        yield Case((config,), label)


def judge_parameters(theirs, rng):
    try:
        judge_exercise(replace(PARAMETERS, judge=None), theirs, rng)
    except NotYet as problem:
        if "to allocate" in problem.reason:
            problem.hint = "no memory holds this model: count without building it"
        raise
    config = next(config_cases(rng)).args[0]
    got = call(theirs, config, exercise=PARAMETERS)
    if not isinstance(got, int | np.integer):
        raise NotYet(
            f"the number is right, but of type {type(got).__name__} and not int",
            "a division with / gives a float, one with // an int",
        )


PARAMETERS = Exercise(
    id="05.1",
    title="How many parameters?",
    signature="parameters(config)",
    difficulty="a few lines",
    minutes=8,
    right=parameters,
    cases=config_cases,
    judge=judge_parameters,
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
            "attention's way back is missing: from all heads to dim",
            gives=_counting(ways_back=0),
        ),
        Mistake(
            "n_heads times head_dim need not be dim: what is the shape of each matrix?",
            gives=_counting(heads_fill_dim=True),
        ),
        Mistake(
            "n_heads times head_dim need not be dim: how wide are a token's queries?",
            gives=_counting(queries_fill_dim=True),
        ),
    ),
    hint="print what you count for each row of the exercise's table, and compare it "
    "with your own list of shapes, multiplied out",
)

# --- 05.2 -------------------------------------------------------------------------


def next_token_loss(
    logits, tokens, pad, *, shift=1, source=True, target=True, divide_by="counted"
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
    text = int((~pad).sum())
    count = {"counted": count, "one": 1, "asked": asked, "text": text}[divide_by]
    return torch.tensor(total / count, dtype=logits.dtype)


def _losing(**mistake):
    return lambda *args: next_token_loss(*args, **mistake)


def _mean_of_rows(logits, tokens, pad):
    rows = [next_token_loss(*(x[i : i + 1] for x in (logits, tokens, pad)))
            for i in range(len(tokens)) if (~pad[i]).sum() > 1]  # fmt: skip
    return torch.stack(rows).mean()


def _rolled(**mistake):
    """As if the first token came once more after the last."""

    def gives(*args):
        longer = (torch.cat([x, x[:, :1]], dim=1) for x in args)
        return next_token_loss(*longer, **mistake)

    return gives


def _has_axes(got, *_):
    return isinstance(got, torch.Tensor) and got.ndim > 0


def loss_cases(rng):
    for B, T, V, left, right, scale, label in (
        (3, 7, 11, 2, 0, 3, "padding on the left"),
        (2, 6, 5, 0, 3, 3, "padding on the right"),
        (1, 2, 4, 0, 0, 3, "one question, no padding"),
        (4, 9, 13, 2, 3, 3, "padding at both ends, logits not contiguous"),
        (2, 5, 8, 1, 0, 300, "logits in the hundreds"),
    ):
        tokens = torch.from_numpy(rng.integers(V, size=(B, T)))
        pad = torch.zeros(B, T, dtype=torch.bool)
        pad[0, :left] = True
        pad[-1, T - right :] = right > 0
        strided = left > 0 and right > 0
        dtype = torch.float32 if strided or scale > 3 else torch.float64
        logits = tensor(rng, B, T, V, dtype=dtype, strided=strided) * scale
        yield Case((logits, tokens, pad), label)


def judge_loss(theirs, rng):
    """The values, then the gradient that training needs."""
    try:
        judge_exercise(replace(LOSS, judge=None), theirs, rng)
    except NotYet as problem:
        if "Expected target size" in problem.reason:
            problem.hint = (
                "cross_entropy takes logits [N, V] with targets [N]; when there are "
                "more axes, it looks for the V classes on axis 1"
            )
        raise
    logits, tokens, pad = next(loss_cases(rng)).args
    logits.requires_grad_(True)
    try:
        loss = call(theirs, logits, tokens, pad, exercise=LOSS)
    except NotYet as problem:
        problem.reason += " (with logits that need a gradient)"
        problem.hint = "stay in torch, so that the gradient can flow back"
        raise
    if not loss.requires_grad:
        raise NotYet(
            "the loss is right, but has no gradient, so nothing can be trained with it",
            "something cuts it off from the logits: .detach(), .item(), torch.tensor() "
            "and no_grad() do",
        )
    loss.backward()
    diff = difference(logits.grad, _loss_gradient(logits.detach(), tokens, pad))
    if diff is not None:
        raise NotYet(
            f"the loss is right, but not its gradient: {diff.reason}",
            "a part of the sum is cut off from the logits",
        )


def _loss_gradient(logits, tokens, pad):
    """Of every question that counts: the probabilities, less 1 at the token."""
    gradient, count = torch.zeros_like(logits), 0
    for b, t in np.ndindex(tokens.shape[0], tokens.shape[1] - 1):
        if not pad[b, t] and not pad[b, t + 1]:
            gradient[b, t] = logits[b, t].softmax(0)
            gradient[b, t, tokens[b, t + 1]] -= 1
            count += 1
    return gradient / count


LOSS = Exercise(
    id="05.2",
    title="The loss of the next token",
    signature="next_token_loss(logits, tokens, pad)",
    difficulty="some thought",
    minutes=12,
    right=next_token_loss,
    cases=loss_cases,
    judge=judge_loss,
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
            gives=_losing(divide_by="asked"),
        ),
        Mistake(
            "the sum is right, but divided by the tokens of text: a row has one "
            "question less than it has tokens",
            gives=_losing(divide_by="text"),
        ),
        Mistake(
            "this is the sum; the mean is asked for", gives=_losing(divide_by="one")
        ),
        Mistake(
            "a mean of row means: every question has the same weight, whatever row it "
            "is in",
            gives=_mean_of_rows,
        ),
        Mistake(
            "the sign is wrong: a loss falls when p rises",
            gives=lambda *args: -next_token_loss(*args),
        ),
        Mistake(
            "the shift is done twice: an output is compared with the token after next",
            gives=_losing(shift=2),
        ),
        Mistake(
            "the last output of a row is compared with the row's first token: a roll "
            "brings it round, but nothing follows the last token",
            gives=_rolled(),
        ),
        Mistake(
            "the last output of a row is compared with the row's first token, and "
            "padding counts too",
            gives=_rolled(source=False, target=False),
        ),
        Mistake(
            "the last output of a row is compared with the row's first token, and an "
            "output at a padded position is counted",
            gives=_rolled(source=False),
        ),
        Mistake(
            "this is in bits; the natural logarithm is asked for",
            gives=lambda *args: next_token_loss(*args) / math.log(2),
        ),
        Mistake(
            "softmax is taken twice: cross_entropy has one inside",
            gives=lambda logits, *rest: next_token_loss(logits.softmax(-1), *rest),
        ),
        Mistake(
            "a Python number has no gradient, and training needs one",
            when=lambda got, *_: isinstance(got, int | float),
        ),
        Mistake(
            "these are the losses of single questions; their mean is asked for",
            when=lambda got, *_: _has_axes(got) and got.numel() > 1,
        ),
        Mistake(
            "a tensor without dimensions is asked for, and this one has an axis",
            when=lambda got, *_: _has_axes(got) and got.numel() == 1,
        ),
        Mistake(
            "nearly right: was a small number added to p, or a coarser dtype used on "
            "the way? And can ln p be had without p?",
            when=lambda got, want, _: abs(got - want) < 1e-3 * want,
        ),
        Mistake(
            "for logits so far apart exp(x) becomes infinite, or p becomes 0 and its "
            "logarithm has no value: can ln p be had without p?",
            when=lambda got, want, args: args[0].abs().max() > 100,
        ),
    ),
    hint="one row of two tokens is one question: compute it by hand and with your "
    "code; then add tokens, rows and padding, one at a time",
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
            "the feed-forward network replaces the stream: its result must be added",
            gives=lambda x, n1, attn, n2, ffn: ffn(n2(x + attn(n1(x)))),
        ),
        Mistake(
            "the last sum starts from the block's input: what attention added is lost",
            gives=lambda x, n1, attn, n2, ffn: x + ffn(n2(x + attn(n1(x)))),
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
    hint="for each of the two parts write down what it reads, and what its result is "
    "added to",
)

# --- 05.4 -------------------------------------------------------------------------


def multi_step(
    step, steps, warmup, peak, *, first=1, flatter=0, longer=0,
    levels=(1.0, 0.316, 0.1), late=(0, 0), whole=True, rate=True,
):  # fmt: skip
    """The oracle: the whole schedule as a list of which one entry is wanted."""
    start = 0 if whole else warmup
    rates = [levels[0]] * steps
    for i in range(steps):
        if i < warmup + longer:
            rates[i] = (i + first) / (warmup + flatter)
        elif (i - start - late[1]) * 10 >= 9 * (steps - start):
            rates[i] = levels[2]
        elif (i - start - late[0]) * 10 >= 8 * (steps - start):
            rates[i] = levels[1]
    return float(rates[step] * (peak if rate else 1.0))


def _scheduling(**mistake):
    return lambda *args: multi_step(*args, **mistake)


def _cosine(step, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / (steps - warmup)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


def _near(got, wanted):
    return abs(got - wanted) <= 1e-6 * abs(wanted)


def _place(step, steps, warmup):
    if step < warmup:
        return "the last step of the warmup" if step == warmup - 1 else "in the warmup"
    if step == warmup:
        return "the first step after the warmup"
    for share, mark in ((80, 8 * steps // 10), (90, 9 * steps // 10)):
        if step in (mark - 1, mark, mark + 1):
            side = {-1: "just before", 0: "exactly at", 1: "just after"}[step - mark]
            return f"{side} {share}%"
    return f"{100 * step // steps}% done"


def schedule_cases(rng):
    for steps, warmup in (
        (10 * int(rng.integers(20, 40)), int(rng.integers(8, 30))),
        (10 * int(rng.integers(40, 60)), 1),
        (20, 14),
    ):
        peak = float(rng.uniform(1.5, 3))
        a, b = 8 * steps // 10, 9 * steps // 10
        tried = (
            warmup // 2, 0, warmup - 1, warmup, (warmup + a) // 2, a - 1,
            a, a + 1, (a + b) // 2, b - 1, b, b + 1, steps - 1,
        )  # fmt: skip
        for step in dict.fromkeys(tried):
            label = f"step {step} of {steps}, warmup {warmup}: "
            label += _place(step, steps, warmup)
            # So wide that √0.1 may stand for 0.316, and 0.316² for 0.1.
            yield Case((step, steps, warmup, peak), label, tolerance=3e-4 * peak)


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
            gives=_scheduling(levels=(1.0, 0.316, 0.0316)),
        ),
        Mistake(
            "the last level is never reached: can that line of your code be?",
            gives=_scheduling(levels=(1.0, 0.316, 0.316)),
        ),
        Mistake(
            "there are two drops: to 31.6% of the peak, and then to 10%",
            gives=_scheduling(levels=(1.0, 0.1, 0.1)),
        ),
        Mistake(
            "the warmup starts at 0, so its first step changes nothing and its last is "
            "below the peak",
            gives=_scheduling(first=0),
        ),
        Mistake(
            "the warmup starts at 0, so its first step changes nothing: which step "
            "has peak / warmup?",
            when=lambda got, want, args: (
                args[0] < args[2]
                and args[2] > 1
                and _near(got, args[3] * args[0] / (args[2] - 1))
            ),
        ),
        Mistake(
            "the peak comes one step late: which is the last step of the warmup?",
            gives=_scheduling(flatter=1),
        ),
        Mistake(
            "the warmup is one step too long and goes beyond the peak: step `warmup` "
            "comes after it",
            gives=_scheduling(longer=1),
        ),
        Mistake(
            "the shares are of all steps, not of those after the warmup",
            gives=_scheduling(whole=False),
        ),
        Mistake(
            "both drops come one step late: at exactly 80% and 90% the new rate holds",
            gives=_scheduling(late=(1, 1)),
        ),
        Mistake(
            "the first drop comes one step late: at exactly 80% the new rate holds",
            gives=_scheduling(late=(1, 0)),
        ),
        Mistake(
            "the second drop comes one step late: at exactly 90% the new rate holds",
            gives=_scheduling(late=(0, 1)),
        ),
        Mistake(
            "both drops come one step early: steps are counted from 0, so step n has n "
            "steps before it",
            gives=_scheduling(late=(-1, -1)),
        ),
        Mistake(
            "this is the factor; the learning rate is it times the peak",
            gives=_scheduling(rate=False),
        ),
        Mistake(
            "the warmup is missing",
            when=lambda got, want, args: args[0] < args[2] and _near(got, args[3]),
        ),
    ),
    hint="print the rates of all steps for these `steps` and `warmup`: which is the "
    "first that the text does not allow?",
)

# --- 05.5 -------------------------------------------------------------------------


def keep_top_p(logits, top_p, **mistake):
    """The oracle: tokens are put into the set one by one, likeliest first."""
    if top_p == 1:
        return logits.clone()
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
            enough = held > top_p if mistake.get("more_than") else held >= top_p
            if enough or (mistake.get("without_crossing") and crosses and rank):
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


def _by(shares_of):
    """The usual recipe with something else in place of the probabilities."""

    def gives(logits, top_p):
        shares, order = shares_of(logits).sort(dim=-1, descending=True)
        out = torch.zeros_like(shares, dtype=torch.bool)
        out = out.scatter(-1, order, shares.cumsum(-1) - shares >= top_p)
        return logits.masked_fill(out, -math.inf)

    return gives


def _threshold(logits, top_p):
    probs = logits.softmax(-1)
    return logits.masked_fill(probs < 1 - top_p, -math.inf)


def _at_least(logits, top_p):
    return logits.masked_fill(logits.softmax(-1) < top_p, -math.inf)


def _mask_in_ranks(logits, top_p):
    """As many as are right, but the first ones of the vocabulary."""
    count = keep_top_p(logits, top_p).isfinite().sum(-1, keepdim=True)
    return logits.masked_fill(torch.arange(logits.shape[-1]) >= count, -math.inf)


def _mask_gathered(logits, top_p):
    """The mask of the ranks, read at `order` where it should be written there."""
    order = logits.argsort(dim=-1, descending=True)
    out = keep_top_p(logits, top_p).isinf().gather(-1, order).gather(-1, order)
    return logits.masked_fill(out, -math.inf)


def _logits_gathered(logits, top_p):
    order = logits.argsort(dim=-1, descending=True)
    return keep_top_p(logits, top_p).gather(-1, order).gather(-1, order)


def _zeros(logits, top_p):
    kept = keep_top_p(logits, top_p)
    return kept.masked_fill(kept.isinf(), 0.0)


def _finite_but_low(got, want, args):
    low, kept = got[want.isinf()], got[want.isfinite()]
    return bool(low.isfinite().all() and low.max() < kept.min())


def top_p_cases(rng):
    for B, V, top_p, strided, dtype, label in (
        (3, 9, 0.7, False, torch.float64, "top_p 0.7"),
        (1, 6, 0.05, False, torch.float64, "top_p 0.05, which one token holds"),
        (4, 12, 0.93, True, torch.float32, "logits that are not contiguous"),
        (2, 5, 1.0, False, torch.float64, "top_p 1"),
    ):
        logits = tensor(rng, B, V, dtype=dtype, strided=strided) * 1.5
        yield Case((logits, top_p), label)
    order = torch.from_numpy(rng.permutation(4))
    steep = torch.tensor([60.0, 0.0, -1.0, -2.0])[order][None]
    yield Case((steep, 1.0), "top_p 1 and one token far ahead")
    # 1/2, 5/16 and 3/16 are exact in binary, and so is every sum of them. Should this
    # machine's softmax not give them to the last bit, nothing is asked.
    shares = torch.tensor([8.0, 5.0, 3.0]).double() / 16
    exact = (shares / shares.max()).log()
    if torch.equal(exact.softmax(-1), shares):
        order = torch.from_numpy(rng.permutation(3))
        label = "probabilities of exactly 1/2, 5/16 and 3/16, in some order"
        for top_p, said in ((0.5, "top_p 1/2"), (0.8125, "top_p 13/16")):
            yield Case((exact[order][None], top_p), f"{said}, {label}")


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
            "one token too many: tokens that hold exactly top_p hold at least top_p",
            gives=_keeping(more_than=True),
        ),
        Mistake(
            "order[r] is the token of rank r; you read at it as if it were the rank of "
            "a token, which is the other way",
            gives=_mask_gathered,
        ),
        Mistake(
            "order[r] is the token of rank r; you read at it as if it were the rank of "
            "a token, which is the other way",
            gives=_logits_gathered,
        ),
        Mistake(
            "the softmax runs along the wrong axis: every row has to sum to 1",
            gives=_by(lambda logits: logits.softmax(0)),
        ),
        Mistake(
            "logits were added up; top_p is a sum of probabilities",
            gives=_by(lambda logits: logits),
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
            "these are logarithms of probabilities; the kept logits are asked for as "
            "they were",
            gives=lambda logits, top_p: keep_top_p(logits, top_p).log_softmax(-1),
        ),
        Mistake(
            "these are logarithms of probabilities; the kept logits are asked for as "
            "they were",
            gives=lambda logits, top_p: logits.log_softmax(-1).masked_fill(
                keep_top_p(logits, top_p).isinf(), -math.inf
            ),
        ),
        Mistake(
            "a large negative number is not minus infinity: -math.inf is",
            when=_finite_but_low,
        ),
        Mistake(
            "top_p 1 keeps every token, but in floats a sum may be 1 before the last",
            gives=_by(lambda logits: logits.softmax(-1)),
        ),
        Mistake(
            "nothing was left out: print the mask after every line (a copy inside one "
            "tensor, as from m[:, :-1] to m[:, 1:], may overwrite what it has to read)",
            gives=lambda logits, top_p: logits,
        ),
    ),
    hint="print for one row the sorted probabilities, their running sum, the mask, and "
    "the mask in the order of the vocabulary: which is the first that surprises you?",
)

EXERCISES = (PARAMETERS, LOSS, BLOCK, SCHEDULE, TOP_P)
