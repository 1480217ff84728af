"""The whole model: embedding, blocks, norm, head."""

from math import nan

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from deepseek_mini.config import MLA as MLAConfig
from deepseek_mini.config import Config
from deepseek_mini.model import ops
from deepseek_mini.model.attention import GQA
from deepseek_mini.model.cache import KVCache
from deepseek_mini.model.ffn import SwiGLU
from deepseek_mini.model.mla import MLA
from deepseek_mini.model.moe import Experts, Gate, MoE
from deepseek_mini.model.mtp import MTPModule
from deepseek_mini.model.norm import RMSNorm
from deepseek_mini.model.rope import rope_table


class Block(nn.Module):
    """One layer: attention, then a feed-forward network, each with norm and residual.

    x = x + attn(norm(x)), then x = x + ffn(norm(x)): pre-norm, as in DeepSeek-LLM
    (arXiv 2401.02954, §2.2). A sparse block's network is a mixture of experts; `layer`
    is the block's place in a cache.
    """

    def __init__(self, config: Config, layer: int, sparse: bool = False):
        super().__init__()
        attention = MLA if isinstance(config.attention, MLAConfig) else GQA
        self.attn_norm = RMSNorm(config.dim, config.norm_eps)
        self.attn = attention(config, layer)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn = MoE(config) if sparse else SwiGLU(config.dim, config.dense.inter_dim)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        cos: Float[Tensor, "*B T half"],
        sin: Float[Tensor, "*B T half"],
        mask: Bool[Tensor, "B T S"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B T D"]:
        x = x + self.attn(self.attn_norm(x), cos, sin, mask, cache)
        return x + self.ffn(self.ffn_norm(x))


class Transformer(nn.Module):
    """A DeepSeek language model, freshly initialised.

    Every matrix is drawn from N(0, init_std²), norms are 1 and biases 0 (DeepSeek-LLM,
    arXiv 2401.02954, §2.3). With tied embeddings the head is the embedding matrix.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        layers = range(config.n_layers)
        self.embed = nn.Embedding(config.vocab_size, config.dim)
        sparse = [config.moe is not None and i >= config.n_dense_layers for i in layers]
        self.layers = nn.ModuleList(Block(config, i, sparse[i]) for i in layers)
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.head = nn.Linear(config.dim, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embed.weight
        self.mtp = None
        if config.mtp is not None:
            sparse_mtp = config.moe is not None  # as in the last layers
            blocks = [Block(config, 0, sparse_mtp) for _ in range(config.mtp.depth)]
            self.mtp = nn.ModuleList(MTPModule(config, block) for block in blocks)
        self._tables: dict = {}  # RoPE tables by device and type, made when needed
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.init_std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, (Gate, Experts)):
            for parameter in module.parameters():
                if parameter.requires_grad:  # the gate's bias starts at zero
                    nn.init.normal_(parameter, std=self.config.init_std)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        cache: KVCache | None = None,
        pad: Bool[Tensor, "B T"] | None = None,
        documents: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Scores (logits) of every next token; arguments as for `hidden`."""
        return self.head(self.hidden(tokens, cache, pad, documents))

    def hidden(
        self,
        tokens: Int[Tensor, "B T"],
        cache: KVCache | None = None,
        pad: Bool[Tensor, "B T"] | None = None,
        documents: Int[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The vectors that the head reads.

        With a cache the T tokens follow those that it holds, and are appended to it.
        `pad` is True where a token is padding, at either end of a row: nothing attends
        to it, positions do not count it, and what comes out there means nothing. A
        cache remembers it, so a row goes on as if it had never been there.
        `documents` numbers the documents that are packed into a row: a token attends
        to those of its own number only, so each document is read as if alone. Padding
        is then a document of its own; there is no cache and no pad.

        Raises:
            ValueError: no tokens, ids outside the vocabulary, a longer text than
                max_seq_len or than the cache has room for, a pad or documents of
                another shape, or documents with a cache or a pad.
        """
        self._check(tokens, cache, pad, documents)
        n_tokens = tokens.shape[1]
        start = 0 if cache is None else cache.length
        cos, sin = self._rope(start + n_tokens)
        if cache is not None:
            pad = cache.extend_pad(pad, n_tokens)
        if pad is None:
            mask, positions = None, slice(start, None)
            if documents is not None:  # RoPE sees distances: no need to count anew
                mask = ops.packed_causal_mask(documents)
        else:
            mask = ops.padded_causal_mask(pad, n_tokens)
            positions = ((~pad).cumsum(1) - 1).clamp(min=0)[:, start:]  # [B, T]
        cos, sin = cos[positions], sin[positions]  # [T, d / 2], with pad [B, T, d / 2]
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin, mask, cache)
        if cache is not None:
            cache.pad, cache.length = pad, start + n_tokens
        return self.norm(x)

    def mtp_logits(self, tokens: Int[Tensor, "B T"]) -> list[Float[Tensor, "B T V"]]:
        """Scores of the tokens after the next, one tensor for each depth k from 1.

        Row i of depth k predicts token i + k + 1 (row i of the model itself, i + 1). It
        needs token i + k: the last k rows, whose token is not in `tokens`, are NaN.

        Raises:
            ValueError: the model has no MTP modules, or no more tokens than these.
        """
        states = self.mtp_hidden(self.hidden(tokens), tokens)
        logits = [self.head(state) for state in states]
        missing = [tokens.shape[1] - x.shape[1] for x in logits]
        return [F.pad(x, (0, 0, 0, n), value=nan) for x, n in zip(logits, missing)]

    def mtp_hidden(
        self, hidden: Float[Tensor, "B T D"], tokens: Int[Tensor, "B T"]
    ) -> list[Float[Tensor, "B _ D"]]:
        """What the head reads for each depth k from 1, [B, T - k, D]; `hidden` is
        `self.hidden(tokens)`. Errors as for `mtp_logits`.
        """
        if self.mtp is None:
            raise ValueError("this model has no MTP modules: its config.mtp is None")
        n_tokens = tokens.shape[1]
        if n_tokens <= len(self.mtp):
            raise ValueError(
                f"the text has {n_tokens} tokens, but {len(self.mtp)} MTP modules need "
                f"at least {len(self.mtp) + 1}"
            )
        cos, sin = self._rope(n_tokens)
        states, embedded = [], self.embed(tokens)
        for k, module in enumerate(self.mtp, start=1):
            rows = n_tokens - k
            hidden = module(hidden[:, :rows], embedded[:, k:], cos[:rows], sin[:rows])
            states.append(hidden)
        return states

    def new_cache(self, batch_size: int, max_seq_len: int | None = None) -> KVCache:
        """An empty cache for `batch_size` rows of at most `max_seq_len` tokens
        (default: the model's own limit), in the model's type and on its device.
        """
        limit = self.config.max_seq_len
        max_seq_len = limit if max_seq_len is None else max_seq_len
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, but it must be at least 1")
        if not 1 <= max_seq_len <= limit:
            raise ValueError(
                f"max_seq_len is {max_seq_len}, but this model takes 1 to {limit}"
            )
        weight = self.embed.weight
        return KVCache(
            self.config, batch_size, max_seq_len, weight.dtype, weight.device
        )

    def _rope(self, end: int) -> tuple[Tensor, Tensor]:
        """The first `end` rows of the cosine and sine tables, which grow as needed."""
        weight = self.embed.weight
        dtype = torch.promote_types(weight.dtype, torch.float32)
        key = (weight.device, dtype)
        if key not in self._tables or self._tables[key][0].shape[0] < end:
            rows = min(max(2 * end, 256), self.config.max_seq_len)
            positions = torch.arange(rows, device=weight.device)
            part = self.config.attention
            mla = isinstance(part, MLAConfig)
            head_dim = part.qk_rope_head_dim if mla else part.head_dim
            with torch.inference_mode(False):  # the same table serves training later
                rope = self.config.rope
                self._tables[key] = rope_table(rope, head_dim, positions, dtype)
        cos, sin = self._tables[key]
        return cos[:end], sin[:end]

    def _check(
        self,
        tokens: Tensor,
        cache: KVCache | None,
        pad: Tensor | None,
        documents: Tensor | None,
    ) -> None:
        if tokens.ndim != 2 or tokens.numel() == 0:
            raise ValueError(
                f"tokens has shape {list(tokens.shape)}, but it must be [B, T] with at "
                "least one row and one token"
            )
        limit, vocab = self.config.max_seq_len, self.config.vocab_size
        total = tokens.shape[1] + (0 if cache is None else cache.length)
        if total > limit:
            raise ValueError(
                f"the text is {total} tokens long, but this model's max_seq_len is "
                f"{limit}: shorten it or load the model with a longer one"
            )
        if tokens.device.type == "cpu":  # elsewhere a look at the values costs a wait
            low, high = int(tokens.min()), int(tokens.max())
            if low < 0 or high >= vocab:
                raise ValueError(
                    f"token id {low if low < 0 else high} is outside the vocabulary: "
                    f"ids go from 0 to {vocab - 1}"
                )
        if cache is not None:
            cache.check_room(*tokens.shape)
        if pad is not None and (pad.shape != tokens.shape or pad.dtype != torch.bool):
            raise ValueError(
                f"pad is {pad.dtype} of shape {list(pad.shape)}, but it must be "
                f"torch.bool of the tokens' shape {list(tokens.shape)}"
            )
        if documents is None:
            return
        if cache is not None or pad is not None:
            other = "a pad" if cache is None else "a cache"
            raise ValueError(
                f"documents were given with {other}: give packed documents alone"
            )
        if documents.shape != tokens.shape or documents.dtype.is_floating_point:
            raise ValueError(
                f"documents is {documents.dtype} of shape {list(documents.shape)}, but "
                f"it must be integers of the tokens' shape {list(tokens.shape)}"
            )
