"""A model's answers to conversations."""

from collections.abc import Sequence
from dataclasses import dataclass

from deepseek_mini.generate import generate, left_pad
from deepseek_mini.model import Transformer
from deepseek_mini.posttraining.chat import END_THINK, Message, end_token, render
from deepseek_mini.tokenizer import Tokenizer


@dataclass(frozen=True)
class Reply:
    """What a model wrote. `ended`: it stopped by itself; `ids` include how."""

    message: dict[str, str]
    ended: bool
    ids: list[int]

    @property
    def text(self) -> str:
        """The answer, without its reasoning."""
        return self.message["content"]


def reply(
    model: Transformer,
    tokenizer: Tokenizer,
    conversations: Sequence[Sequence[Message]],
    template: str = "v3",
    *,
    thinking: bool | None = None,
    max_new_tokens: int = 64,
    temperature: float = 0.0,
    top_p: float | None = None,
    seed: int | None = None,
) -> list[Reply]:
    """The model's answer to each conversation; all are generated as one batch.

    A reply's `message` can be appended to its conversation, whose last message must be
    a user's. Where the template opens a thought, what comes before </think> is its
    "reasoning_content": all of it if the thought was not finished.

    Raises:
        ValueError: as `render` and `generate`.
    """
    rendered = [
        render(messages, template, add_generation_prompt=True, thinking=thinking)
        for messages in conversations
    ]
    prompts = [form.encode(tokenizer).ids for form in rendered]
    end = tokenizer.id(end_token(template))
    tokens, pad = left_pad(prompts, pad_id=end)
    out = generate(
        model,
        tokens,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        stop=end,
        seed=seed,
        pad=pad,
    )
    replies = []
    for form, ids in zip(rendered, out[:, tokens.shape[1] :].tolist()):
        ended = end in ids
        ids = ids[: ids.index(end) + 1] if ended else ids
        thinks = "<think>" in [piece.text for piece in form.pieces[-2:]]
        replies.append(Reply(_message(tokenizer, ids, end, thinks), ended, ids))
    return replies


def _message(
    tokenizer: Tokenizer, ids: list[int], end: int, thinks: bool
) -> dict[str, str]:
    written = [i for i in ids if i != end]
    message = {"role": "assistant", "content": tokenizer.decode(written)}
    if thinks:
        close = tokenizer.id(END_THINK.text)
        cut = written.index(close) if close in written else len(written)
        thought, answer = written[:cut], written[cut + 1 :]
        message["reasoning_content"] = tokenizer.decode(thought).strip("\n")
        message["content"] = tokenizer.decode(answer).strip("\n")
    return message
