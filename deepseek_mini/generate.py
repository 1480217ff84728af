"""Text out of a model: greedy or sampled, whole or token by token."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from deepseek_mini.model import Transformer
from deepseek_mini.sampling import check_sampling, next_token_probabilities

Stops = int | Sequence[int | Sequence[int]] | None


def generate(
    model: Transformer,
    prompt: Int[Tensor, "B P"],
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    stop: Stops = (),
    seed: int | None = None,
    use_cache: bool = True,
    pad: Bool[Tensor, "B P"] | None = None,
) -> Int[Tensor, "B N"]:
    """Continue every row of `prompt`; int64 [B, P + new], the prompt included.

    `temperature` 0 takes the likeliest token (of equals the lowest id). Above 0 a token
    is drawn from what `next_token_probabilities` leaves of the model's distribution.
    The same `seed` draws the same tokens; without one every call differs. The global
    random state is neither read nor changed.

    `stop` is a token id, or several of token ids and sequences of ids. A row ends with
    the first of them that its new tokens spell; this is part of the output, and its
    last id is repeated while other rows go on. When all rows have ended, or after
    `max_new_tokens`, generation ends.

    `pad` is True where a prompt is padding, which must be on the left (see `left_pad`).
    `use_cache=False` reads the whole text again for every token: slow, same tokens.
    The model computes as in eval() and is left in the mode that it was in.

    Raises:
        ValueError: an empty prompt, ids outside the vocabulary, more tokens than the
            model's max_seq_len, a pad that is not on the left, an impossible sampling
            setting, or a model whose scores are not numbers.
        TypeError: a prompt or a pad that is no tensor.
    """
    steps = stream(
        model,
        prompt,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        stop=stop,
        seed=seed,
        use_cache=use_cache,
        pad=pad,
    )
    device = model.embed.weight.device
    tokens = [prompt.to(device, torch.int64)] + [token[:, None] for token in steps]
    return torch.cat(tokens, dim=1)


def stream(
    model: Transformer,
    prompt: Int[Tensor, "B P"],
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    stop: Stops = (),
    seed: int | None = None,
    use_cache: bool = True,
    pad: Bool[Tensor, "B P"] | None = None,
) -> Iterator[Int[Tensor, " B"]]:
    """`generate`, one step at a time: yields every row's next token, int64 [B].

    Arguments and errors are those of `generate`; bad arguments are refused here, not at
    the first step. It may be left early at any step.
    """
    check_sampling(temperature, top_k, top_p, min_p)
    check_prompt(model, prompt, max_new_tokens, pad)
    device = model.embed.weight.device
    generator = make_generator(seed, device)

    def choose(logits: Float[Tensor, "B V"]) -> Int[Tensor, " B"]:
        if not logits.amax(dim=-1).isfinite().all():
            raise ValueError("the model's logits are not finite: check its weights")
        if temperature == 0:
            return logits.argmax(dim=-1)
        probs = next_token_probabilities(logits, temperature, top_k, top_p, min_p)
        return torch.multinomial(probs, 1, generator=generator)[:, 0]

    prompt = prompt.to(device, torch.int64)
    pad = None if pad is None else pad.to(device)
    stops = stop_sequences(stop)
    return _steps(model, prompt, pad, int(max_new_tokens), choose, stops, use_cache)


def left_pad(
    rows: Sequence[Sequence[int]], pad_id: int = 0
) -> tuple[Int[Tensor, "B P"], Bool[Tensor, "B P"]]:
    """Lists of ids of different lengths as one batch that ends together.

    Returns tokens, int64 [B, P], and pad, bool [B, P], True where `pad_id` was put.
    Which id that is makes no difference to a model that is given `pad`.

    Raises:
        ValueError: no rows, or a row without tokens.
    """
    lengths = [len(row) for row in rows]
    if not lengths or min(lengths) == 0:
        empty = f"row {lengths.index(0)} is empty" if lengths else "there are no rows"
        raise ValueError(f"{empty}, but every row must have at least one token")
    width = max(lengths)
    tokens = [[pad_id] * (width - len(row)) + list(row) for row in rows]
    pad = [[True] * (width - length) + [False] * length for length in lengths]
    return torch.tensor(tokens), torch.tensor(pad)


def _steps(model, prompt, pad, max_new_tokens, choose, stops, use_cache):
    """The loop behind `stream`; yields tokens that autograd may use later."""
    rows, tokens = prompt.shape[0], prompt
    cache = None
    if use_cache and max_new_tokens:
        with torch.inference_mode():
            cache = model.new_cache(rows, prompt.shape[1] + max_new_tokens)
    written: list[list[int]] = [[] for _ in range(rows)]
    ended: list[int | None] = [None] * rows  # the id that fills a row which has ended
    for _ in range(max_new_tokens):
        chosen = choose(_last_logits(model, tokens, cache, pad)).tolist()
        for i in range(rows):
            if ended[i] is None:
                written[i].append(chosen[i])
                if any(written[i][-len(s) :] == s for s in stops):
                    ended[i] = chosen[i]
            else:
                chosen[i] = ended[i]
        token = torch.tensor(chosen, device=prompt.device)
        yield token
        if None not in ended:
            return
        if use_cache:
            tokens, pad = token[:, None], None  # the cache remembers the padding
        else:
            tokens = torch.cat((tokens, token[:, None]), dim=1)
            pad = None if pad is None else F.pad(pad, (0, 1))


def _last_logits(model, tokens, cache, pad) -> Float[Tensor, "B V"]:
    """What the model expects after the last token, computed as in eval()."""
    # Entered for each step: a consumer runs between.
    with evaluating(model), torch.inference_mode():
        return model.head(model.hidden(tokens, cache, pad)[:, -1])


@contextmanager
def evaluating(model: Transformer) -> Iterator[None]:
    """The model as in eval(), and after the block in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def make_generator(seed: int | None, device: torch.device) -> torch.Generator:
    """Random numbers of their own: the same for the same seed, new ones for None."""
    generator = torch.Generator(device)
    if seed is None:
        generator.seed()
    elif isinstance(seed, Integral) and -(2**63) <= seed < 2**64:
        generator.manual_seed(int(seed))
    else:
        rule = "a whole number from -2**63 to 2**64 - 1, or None"
        raise ValueError(f"seed is {seed!r}, but it must be {rule}")
    return generator


def stop_sequences(stop: Stops) -> list[list[int]]:
    """Every stop as a list of token ids; ValueError for what cannot be one."""

    def several(ids: Any) -> list:
        return [ids] if isinstance(ids, Integral) else list(ids)

    try:
        stops = [several(ids) for ids in several(() if stop is None else stop)]
        ok = all(ids and all(isinstance(i, Integral) for i in ids) for ids in stops)
    except TypeError:  # list() of what is no sequence
        ok = False
    if not ok:
        raise ValueError(
            f"stop is {stop!r}, but each stop must be a token id or a sequence of at "
            "least one token id (encode text first)"
        )
    return [[int(i) for i in ids] for ids in stops]


def check_prompt(
    model: Transformer, prompt: Tensor, max_new_tokens: int, pad: Tensor | None
) -> None:
    """Raise an error unless `model` can continue `prompt` by `max_new_tokens`."""
    for name, value in (("prompt", prompt), ("pad", prompt if pad is None else pad)):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"the {name} is a {type(value).__name__}, but it must be a tensor of "
                "shape [B, P] (of token ids: torch.tensor([ids]))"
            )
    if prompt.ndim != 2 or prompt.numel() == 0:
        raise ValueError(
            f"the prompt has shape {list(prompt.shape)}, but it must be [B, P] with at "
            "least one row and one token (start an empty one with the model's BOS id)"
        )
    if prompt.is_floating_point() or prompt.dtype == torch.bool:
        raise ValueError(f"the prompt is {prompt.dtype}, but token ids must be int64")
    if not isinstance(max_new_tokens, Integral) or max_new_tokens < 0:
        raise ValueError(
            f"max_new_tokens is {max_new_tokens!r}, but it must be a whole number of "
            "at least 0"
        )
    length, limit = prompt.shape[1], model.config.max_seq_len
    if length > limit:
        raise ValueError(
            f"the prompt is {length} tokens long, but this model's max_seq_len is "
            f"{limit}: shorten it by {length - limit}"
        )
    if length + max_new_tokens > limit:
        raise ValueError(
            f"max_new_tokens is {max_new_tokens}, but after a prompt of {length} "
            f"tokens only {limit - length} fit in this model's max_seq_len of {limit}"
        )
    low, high, vocab = int(prompt.min()), int(prompt.max()), model.config.vocab_size
    if low < 0 or high >= vocab:
        raise ValueError(
            f"token id {low if low < 0 else high} is outside the vocabulary: ids go "
            f"from 0 to {vocab - 1}"
        )
    if pad is None:
        return
    if pad.shape != prompt.shape or pad.dtype != torch.bool:
        raise ValueError(
            f"pad is {pad.dtype} of shape {list(pad.shape)}, but it must be torch.bool "
            f"of the prompt's shape {list(prompt.shape)}"
        )
    if pad[:, -1].any() or (pad[:, 1:] & ~pad[:, :-1]).any():
        raise ValueError(
            "pad must be True only at the left of a row, and never at its last token "
            "(left_pad makes such a batch)"
        )
