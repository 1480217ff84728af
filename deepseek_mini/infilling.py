"""Fill a gap: text between a prefix and a suffix, by a model trained to do it."""

import torch

from deepseek_mini.data.fim import psm
from deepseek_mini.generate import generate
from deepseek_mini.model import Transformer
from deepseek_mini.tokenizer import Tokenizer


def infill(
    model: Transformer,
    tokenizer: Tokenizer,
    prefix: str,
    suffix: str = "",
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    use_cache: bool = True,
) -> str:
    """The text that the model puts between ``prefix`` and ``suffix``; either may be "".

    The model reads prefix and suffix between FIM marks (arXiv 2401.14196, §3.1.2) and
    writes until a control token, which is no part of the result, or until
    ``max_new_tokens``. A model that was trained without FIM writes something too, not
    knowing that it should fill a gap. The sampling arguments are those of ``generate``.

    ValueError if prefix, suffix and marks leave no room for ``max_new_tokens``, if the
    tokenizer has no FIM marks, and as in ``generate``.
    """
    gap = psm(tokenizer.encode(prefix), tokenizer.encode(suffix), tokenizer)
    prompt = [tokenizer.id("bos"), *gap]
    limit = model.config.max_seq_len
    excess = len(prompt) + max_new_tokens - limit
    if excess > 0:
        raise ValueError(
            f"prefix and suffix take {len(prompt)} tokens with their marks, and "
            f"max_new_tokens {max_new_tokens} more, but this model's max_seq_len is "
            f"{limit}: shorten them by {excess} token{'s' * (excess > 1)}"
        )
    control = set(tokenizer.special_ids.values())
    tokens = generate(
        model,
        torch.tensor([prompt]),
        max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        stop=sorted(control),
        seed=seed,
        use_cache=use_cache,
    )
    written = tokens[0, len(prompt) :].tolist()
    if written and written[-1] in control:
        written.pop()
    return tokenizer.decode(written)
