"""Speculative decoding: the MTP modules draft, the model checks several tokens at once.

One pass of the model over a few tokens costs little more than over one, because it
reads the same weights. What comes out is distributed exactly as without drafts.
"""

from dataclasses import dataclass
from math import nan

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepseek_mini.generate import (
    Stops,
    check_prompt,
    evaluating,
    make_generator,
    stop_sequences,
)
from deepseek_mini.model import KVCache, Transformer
from deepseek_mini.sampling import check_sampling, next_token_probabilities


@dataclass(frozen=True)
class Speculation:
    """`tokens`, int64 [1, P + new], the prompt included, and what they took: `passes`
    of the model, and how many tokens were `drafted` and `accepted`.
    """

    tokens: Int[Tensor, "1 N"]
    passes: int
    drafted: int
    accepted: int

    @property
    def acceptance(self) -> float:
        """The share of drafts that were accepted."""
        return self.accepted / self.drafted if self.drafted else nan


def speculate(
    model: Transformer,
    prompt: Int[Tensor, "B P"],
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    stop: Stops = (),
    seed: int | None = None,
) -> Speculation:
    """`generate` for one row, with the model's MTP modules as the draft (DeepSeek-V3,
    arXiv 2412.19437, §5.4.3; the rule is that of arXiv 2211.17192, §2.3).

    Greedily (`temperature` 0) the tokens are those of `generate`. Sampled, every token
    has the distribution that `generate` draws it from, but the same seed draws others.

    Raises:
        ValueError: as for `generate`; or the model has no MTP modules, or the prompt
            has more than one row.
    """
    if model.mtp is None:
        raise ValueError("this model has no MTP modules to draft with: use generate")
    check_sampling(temperature, top_k, top_p, min_p)
    check_prompt(model, prompt, max_new_tokens, None)
    if prompt.shape[0] != 1:
        raise ValueError(
            f"the prompt has {prompt.shape[0]} rows, but speculate takes one: rows "
            "accept different numbers of tokens"
        )
    device = model.embed.weight.device
    generator = make_generator(seed, device)

    def probabilities(logits: Float[Tensor, "T V"]) -> Float[Tensor, "T V"]:
        if temperature == 0:
            likeliest = logits.argmax(dim=-1)
            return torch.nn.functional.one_hot(likeliest, logits.shape[-1]).float()
        return next_token_probabilities(logits, temperature, top_k, top_p, min_p)

    stops = stop_sequences(stop)
    tokens = prompt[0].to(device, torch.int64)
    with evaluating(model), torch.inference_mode():
        return _run(model, tokens, max_new_tokens, probabilities, stops, generator)


def _run(model, tokens, max_new_tokens, probabilities, stops, generator) -> Speculation:
    n_prompt, end = len(tokens), len(tokens) + max_new_tokens
    cache = model.new_cache(1, end) if max_new_tokens else None
    drafter = Drafter(model, end)
    drafts, draft_probs = tokens[:0], None
    passes = drafted = accepted = 0
    while len(tokens) < end:
        known = cache.length  # of the first pass: none, and no drafts
        new = torch.cat((tokens[known:], drafts))
        hidden = model.hidden(new[None], cache)
        rows = len(drafts) + 1
        probs = probabilities(model.head(hidden[0, -rows:]))  # after each draft
        n, token = verify(drafts, draft_probs, probs, generator)
        written = [*drafts[:n].tolist(), token]
        passes, drafted, accepted = passes + 1, drafted + len(drafts), accepted + n
        for i, token in enumerate(written):
            tokens = torch.cat((tokens, tokens.new_tensor([token])))
            tail = tokens[n_prompt:].tolist()
            if any(tail[-len(s) :] == s for s in stops):
                accepted -= max(0, n - 1 - i)  # accepted, but after the end
                return Speculation(tokens[None], passes, drafted, accepted)
        cache.truncate(min(len(tokens) - 1, cache.length))
        room = end - len(tokens) - 1  # a draft in the last place would be in vain
        drafts, draft_probs = tokens[:0], None
        if room > 0:
            hidden = hidden[:, : cache.length - known]
            drafts, draft_probs = drafter.draft(
                hidden, tokens, probabilities, generator
            )
            drafts, draft_probs = drafts[:room], draft_probs[:room]
    return Speculation(tokens[None], passes, drafted, accepted)


def verify(
    drafts: Int[Tensor, " K"],
    draft_probs: Float[Tensor, "K V"] | None,
    probs: Float[Tensor, "K+1 V"],
    generator: torch.Generator | None = None,
) -> tuple[int, int]:
    """How many drafts to accept, and the token that comes after them.

    A draft x is accepted with probability min(1, p(x) / q(x)), where q is what it was
    drawn from and p what the model gives. At the first rejection a token is drawn from
    the rest, max(0, p - q), instead; if there is none, from the model's next p. So
    every token has distribution p (arXiv 2211.17192, §2.3 and appendix A.1).
    """
    for k, x in enumerate(drafts.tolist()):
        p, q = probs[k], draft_probs[k]
        if torch.rand((), generator=generator, device=p.device) * q[x] < p[x]:
            continue
        rest = (p - q).clamp(min=0)
        return k, int(torch.multinomial(rest, 1, generator=generator))
    return len(drafts), int(torch.multinomial(probs[-1], 1, generator=generator))


class Drafter:
    """The MTP modules with a cache each; drafts one token a depth.

    Depth k at position i reads the state of depth k - 1 there and token i + k. What was
    computed from drafts is forgotten before the next round: they may have been refused.
    """

    def __init__(self, model: Transformer, max_seq_len: int):
        self.model = model
        weight = model.embed.weight
        self.caches = [
            KVCache(model.config, 1, max_seq_len, weight.dtype, weight.device, 1)
            for _ in model.mtp
        ]
        # For depth k the states of depth k - 1 not yet read with checked tokens.
        self.unread = [weight.new_empty(1, 0, weight.shape[1]) for _ in model.mtp]

    def draft(
        self,
        hidden: Float[Tensor, "1 T D"],
        tokens: Int[Tensor, " N"],
        probabilities,
        generator: torch.Generator | None,
    ) -> tuple[Int[Tensor, " K"], Float[Tensor, "K V"]]:
        """Guess the tokens after `tokens`, all of them checked; `hidden` are the
        model's states of those before the last that are new since the last call.
        """
        drafts, probs, n = tokens[:0], [], len(tokens)
        checked = n  # states of the depth before that depend on no draft; of the model
        for k, (module, cache) in enumerate(zip(self.model.mtp, self.caches), start=1):
            states = torch.cat((self.unread[k - 1], hidden), dim=1)
            start, end = cache.length, cache.length + states.shape[1]  # end = n - 1
            embedded = self.model.embed(
                torch.cat((tokens, drafts))[start + k : end + k]
            )
            cos, sin = self.model._rope(end)
            rows = slice(start, end)
            out = module(states, embedded[None], cos[rows], sin[rows], cache=cache)
            cache.length = max(0, n - k)  # of these positions token i + k is checked
            self.unread[k - 1] = states[:, cache.length - start : checked - start]
            checked = cache.length
            hidden = out
            p = probabilities(self.model.head(out[0, -1:]))
            probs.append(p)
            drafts = torch.cat(
                (drafts, torch.multinomial(p[0], 1, generator=generator))
            )
        return drafts, torch.cat(probs)
