"""Exercise 15.3, the attention mask of a packed row: the oracle asks pair by pair."""

import torch

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


def packed_mask(tokens, bos):
    B, T = tokens.shape
    mask = torch.zeros(B, T, T, dtype=torch.bool)
    for b in range(B):
        row = tokens[b].tolist()
        for t in range(T):
            for s in range(t + 1):
                mask[b, t, s] = bos not in row[s + 1 : t + 1]
    return mask


def mask_cases(rng):
    for B, T, label in (
        (2, 9, "two rows"),
        (1, 6, "a batch of one"),
        (3, 12, "three rows"),
        (1, 1, "one token"),
    ):
        bos = int(rng.integers(0, 9))
        others = [x for x in range(9) if x != bos]
        tokens = torch.from_numpy(rng.choice(others, (B, T)))
        begins = torch.from_numpy(rng.random((B, T)) < 0.3)
        begins[:, 0] = True
        if B == 2:
            begins[0, 1], tokens[0, 1] = False, others[0]  # it is 0, unless bos is
        if T > 4:
            begins[0, 4] = begins[0, 3] = True  # a conversation of one token
        if B == 3:
            begins[2, :2] = False  # a row that begins in the middle of one
            begins[1, 1:] = False  # a row with one conversation
        tokens[begins] = bos
        yield Case((tokens, bos), f"{label}: B = {B}, T = {T}, bos = {bos}")


def _documents(tokens, bos):
    return (tokens == bos).cumsum(1)


def _same(documents):
    return documents[:, :, None] == documents[:, None, :]


def _causal(tokens):
    B, T = tokens.shape
    return torch.ones(B, T, T, dtype=torch.bool).tril()


def _late(tokens, bos):
    """A conversation's first token still belongs to the one before it."""
    starts = (tokens == bos).long()
    return _same(starts.cumsum(1) - starts).tril()


def _headless(alone):
    """Tokens before the first bos see nothing, or (`alone`) themselves."""

    def wrong(tokens, bos):
        headed = (_documents(tokens, bos) > 0)[:, :, None]
        kept = (_same(_documents(tokens, bos)) & headed).tril()
        return kept | (torch.eye(tokens.shape[1], dtype=torch.bool) & ~headed & alone)

    return wrong


def _first_skipped(tokens, bos):
    """The first bos of a row is no border: what stands before it is seen."""
    return _same((_documents(tokens, bos) - 1).clamp(min=0)).tril()


def _sees_first(tokens, bos):
    right = packed_mask(tokens, bos)
    right[:, :, 0] = True
    return right


ROW_MASK = Exercise(
    id="15.3",
    title="Keep them apart",
    signature="packed_mask(tokens, bos)",
    difficulty="some thought",
    minutes=12,
    right=packed_mask,
    cases=mask_cases,
    mistakes=(
        Mistake(
            "conversations see those before them: the mask is only causal",
            gives=lambda tokens, bos: _causal(tokens),
        ),
        Mistake(
            "a number stands in your function where `bos` belongs: here another token "
            "is bos",
            gives=lambda tokens, bos: _same(_documents(tokens, 0)).tril(),
        ),
        *(
            Mistake(
                "the tokens before the first bos of a row belong together: they see "
                "each other as a conversation's do, and not nothing or only themselves",
                gives=_headless(alone),
            )
            for alone in (False, True)
        ),
        Mistake(
            "the first bos of a row is a border too, where tokens stand before it",
            gives=_first_skipped,
        ),
        Mistake(
            "every token sees place 0, whichever conversation that is of",
            gives=_sees_first,
        ),
        Mistake(
            "within a conversation tokens see those after them",
            gives=lambda tokens, bos: _same(_documents(tokens, bos)),
        ),
        Mistake(
            "no token sees itself",
            gives=lambda tokens, bos: _same(_documents(tokens, bos)).tril(-1),
        ),
        Mistake(
            "this is turned round: queries are the second axis, keys the third",
            gives=lambda tokens, bos: _same(_documents(tokens, bos)).triu(),
        ),
        Mistake(
            "True and False are exchanged: True is where a query may look",
            gives=lambda tokens, bos: ~_same(_documents(tokens, bos)).tril(),
        ),
        Mistake(
            "bos is counted with the conversation before it: it begins its own",
            gives=_late,
        ),
        Mistake(
            "conversations see those before them, and not themselves",
            gives=lambda tokens, bos: (~_same(_documents(tokens, bos))).tril(),
        ),
        Mistake(
            "equal tokens see each other here: what must be equal is the number of the "
            "conversation",
            gives=lambda tokens, bos: _same(tokens).tril(),
        ),
        Mistake(
            "this is one square over all rows: every row of the batch has a square of "
            "its own, and no row is compared with another",
            when=lambda got, want, args: (
                isinstance(got, torch.Tensor)
                and got.ndim == 2
                and len(got) == want.shape[0] * want.shape[1] > want.shape[1]
            ),
        ),
        Mistake(
            "this is the square of one row: asked for is one for each row, [B, T, T]",
            when=lambda got, want, args: (
                isinstance(got, torch.Tensor) and got.shape == want.shape[1:]
            ),
        ),
        Mistake(
            "these are numbers to be added to scores: asked for are bools",
            when=lambda got, want, args: (
                isinstance(got, torch.Tensor) and got.is_floating_point()
            ),
        ),
        Mistake(
            "these are whole numbers: asked for are bools",
            when=lambda got, want, args: (
                isinstance(got, torch.Tensor)
                and got.dtype in (torch.int64, torch.int32, torch.uint8)
            ),
        ),
    ),
    hint="give every token the number of its conversation, and write down the square "
    "of the example from these numbers",
)
