"""Many conversations in one row, and the loss on what a model has to write.

A batch of conversations of different lengths is mostly padding. Packing puts several
into one row; the attention mask keeps them apart, so that each is read as if alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from deepseek_mini.posttraining.chat import ChatTokens


@dataclass(frozen=True)
class PackedChats:
    """Rows of conversations. `documents` numbers those of a row from 1; 0 is padding.

    `trained` marks the tokens that the model has to write.
    """

    tokens: Int[Tensor, "B T"]
    trained: Bool[Tensor, "B T"]
    documents: Int[Tensor, "B T"]

    def to(self, device: torch.device | str) -> "PackedChats":
        parts = (self.tokens, self.trained, self.documents)
        return PackedChats(*(part.to(device) for part in parts))

    def rows(self, chosen: Sequence[int] | Int[Tensor, " n"]) -> "PackedChats":
        """Some of the rows, as a batch."""
        parts = (self.tokens, self.trained, self.documents)
        return PackedChats(*(part[chosen] for part in parts))

    def __len__(self) -> int:
        return len(self.tokens)


def pack_chats(
    chats: Sequence[ChatTokens], seq_len: int, pad_id: int = 0
) -> PackedChats:
    """Conversations in as few rows of `seq_len` tokens as a simple rule finds.

    The longest is placed first, each in the first row that has room for it. A
    conversation's first token is never trained: nothing stands before it.

    Raises:
        ValueError: no conversations, an empty one, or one that is longer than a row.
    """
    if not chats:
        raise ValueError("there are no conversations to pack")
    lengths = [len(chat.ids) for chat in chats]
    if min(lengths) == 0:
        raise ValueError(f"conversation {lengths.index(0)} has no tokens")
    if max(lengths) > seq_len:
        i = lengths.index(max(lengths))
        raise ValueError(
            f"conversation {i} has {lengths[i]} tokens, but a row has {seq_len}: leave "
            "it out or make the rows longer"
        )
    rows: list[list[ChatTokens]] = []
    room: list[int] = []
    for chat in sorted(chats, key=lambda chat: -len(chat.ids)):
        place = next((i for i, n in enumerate(room) if n >= len(chat.ids)), len(rows))
        if place == len(rows):
            rows.append([])
            room.append(seq_len)
        rows[place].append(chat)
        room[place] -= len(chat.ids)
    tokens = torch.full((len(rows), seq_len), pad_id)
    trained = torch.zeros(len(rows), seq_len, dtype=torch.bool)
    documents = torch.zeros(len(rows), seq_len, dtype=torch.int64)
    for row, several in enumerate(rows):
        start = 0
        for number, chat in enumerate(several, start=1):
            place = slice(start, start + len(chat.ids))
            tokens[row, place] = torch.tensor(chat.ids)
            trained[row, place] = torch.tensor([False, *chat.trained[1:]])
            documents[row, place] = number
            start = place.stop
    return PackedChats(tokens, trained, documents)


def answer_loss(
    model: nn.Module, batch: PackedChats
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Cross-entropy of the trained tokens, summed, in nats; and how many there are.

    Each conversation is read as if it were alone in its row.
    """
    logits = model(batch.tokens[:, :-1], documents=batch.documents[:, :-1])
    return masked_cross_entropy(logits, batch.tokens[:, 1:], batch.trained[:, 1:])


def masked_cross_entropy(
    logits: Float[Tensor, "B T V"],
    targets: Int[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """-log p(target), in nats, summed where the mask is True; and how many that are."""
    losses = F.cross_entropy(logits[mask].float(), targets[mask], reduction="sum")
    return losses, mask.sum()
