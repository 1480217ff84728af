"""Conversations as text: the chat templates of DeepSeek's models.

A base model continues text. What makes it answer is a text that looks like half a
conversation, always with the same marks, and each release has its own (`TEMPLATES`).
A conversation is rendered to pieces: a piece is a control token, or text that can
never become one, whatever it contains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deepseek_mini.tokenizer import SPECIAL_TOKENS, Tokenizer

Message = Mapping[str, str]


@dataclass(frozen=True)
class Piece:
    """A stretch of a rendered conversation.

    `control`: one special token, not text. `trained`: the model has to write it.
    """

    text: str
    control: bool = False
    trained: bool = False


def _control(name: str) -> Piece:
    return Piece(SPECIAL_TOKENS.get(name, name), control=True)


BOS, EOS = _control("bos"), _control("eos")
USER, ASSISTANT = _control("user"), _control("assistant")
THINK, END_THINK = _control("think"), _control("end_think")
EOT = _control("<|EOT|>")  # how DeepSeek-Coder ends an answer


@dataclass(frozen=True)
class Template:
    """What one generation of models writes around a message.

    `opened` is how a prompt ends, and `closed` how the turn of an answer begins whose
    reasoning is not shown. With it, the answer is: reasoning, `between`, content.
    """

    after_system: str = ""
    before_user: Piece = USER
    after_user: str = ""
    opened: tuple[Piece, ...] = (ASSISTANT,)
    closed: tuple[Piece, ...] = (ASSISTANT,)
    before_answer: str = ""
    between: tuple[Piece, ...] = ()
    after_answer: str = ""
    end: Piece = EOS
    after_end: str = ""


PLAIN = Template(
    after_system="\n\n",
    before_user=Piece("User: "),
    after_user="\n\n",
    opened=(Piece("Assistant:"),),
    closed=(Piece("Assistant:"),),
    before_answer=" ",
)
CODER = Template(
    before_user=Piece("### Instruction:\n"),
    after_user="\n",
    opened=(Piece("### Response:\n"),),
    closed=(Piece("### Response:\n"),),
    after_answer="\n",
    end=EOT,
    after_end="\n",
)
R1 = Template(
    opened=(ASSISTANT, THINK, Piece("\n")),
    between=(Piece("\n"), END_THINK, Piece("\n\n")),
)
V4 = Template(opened=(ASSISTANT, END_THINK), closed=(ASSISTANT, END_THINK))
V4_THINKING = replace(V4, opened=(ASSISTANT, THINK), between=(END_THINK,))

# By name, without and with thinking; None where the models have no such mode.
TEMPLATES: dict[str, tuple[Template | None, Template | None]] = {
    "llm": (PLAIN, None),  # DeepSeek-LLM 7B and 67B Chat
    "coder": (CODER, None),  # DeepSeek-Coder Instruct
    "v2": (PLAIN, None),  # V2, V2-Lite, Coder-V2
    "v3": (Template(), None),
    "r1": (None, R1),  # R1 and the models distilled from it
    "v4": (V4, V4_THINKING),
}


@dataclass(frozen=True)
class ChatTokens:
    """A conversation as ids, and for each whether the model is trained to write it."""

    ids: list[int]
    trained: list[bool]


@dataclass(frozen=True)
class Rendered:
    """A conversation in its template; `text` is what the official renderers give."""

    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    def encode(self, tokenizer: Tokenizer) -> ChatTokens:
        """The ids of the pieces. Only control pieces become control tokens.

        Text is cut where training begins or ends, so that a prompt has the same ids
        in training as when the model has to go on from it.

        Raises:
            ValueError: the tokenizer lacks a control token of the template.
        """
        ids: list[int] = []
        trained: list[bool] = []
        for piece in self.pieces:
            if piece.control:
                new = [tokenizer.id(piece.text)]
            else:
                new = tokenizer.encode(piece.text)
            ids += new
            trained += [piece.trained] * len(new)
        return ChatTokens(ids, trained)


def render(
    messages: Sequence[Message],
    template: str = "v3",
    *,
    add_generation_prompt: bool = False,
    thinking: bool | None = None,
    effort: str = "",
) -> Rendered:
    """A conversation in the template of one of DeepSeek's models.

    A message is {"role": ..., "content": ...}: a "system" message may be the first,
    then "user" and "assistant" take turns. An assistant's may have a
    "reasoning_content". With `add_generation_prompt` the text ends where the model has
    to begin.

    `thinking` chooses between V4's two modes (default False); R1 always thinks, the
    others never. Reasoning is rendered when thinking, and in the last message only:
    earlier turns are shown to the model without it. `effort` is a text that a thinking
    V4 reads before the system message (its own are in the package deepseek-recipe).

    What the model has to write is `trained`: answers and what ends them. An answer
    without its reasoning is not when the template has no prompt that asks for one (R1).

    One official habit is left out: with no system message, Coder's own template puts in
    a sentence about the model. Give it as the system message, its newline included.

    Raises:
        ValueError: an unknown template, role or key, messages out of order, a mode that
            the template lacks, reasoning for models that never reason, or a prompt
            after an assistant's message.
    """
    form = _form(template, thinking)
    _check(messages, template, add_generation_prompt)
    if effort and form is not V4_THINKING:
        raise ValueError("effort is for the template 'v4' with thinking=True only")
    pieces = [BOS, Piece(f"{effort}\n\n" if effort else "")]
    asked = TEMPLATES[template][0] is not None
    for i, message in enumerate(messages):
        content = message["content"]
        if message["role"] == "system":
            pieces += [Piece(content), Piece(form.after_system)]
        elif message["role"] == "user":
            pieces += [form.before_user, Piece(content), Piece(form.after_user)]
        else:
            shown = form.between and i == len(messages) - 1
            reasoning = message.get("reasoning_content") if shown else None
            pieces += _answer(form, content, reasoning, asked)
    if add_generation_prompt:
        pieces += form.opened
    return Rendered(_join(pieces))


def end_token(template: str) -> str:
    """The token that ends an answer, as it is spelled. ValueError: no such template."""
    return _form(template, None).end.text


def _answer(
    form: Template, content: str, reasoning: str | None, asked: bool
) -> list[Piece]:
    """An assistant's turn. `asked`: a prompt can ask for an answer without thought."""
    written = [Piece(content), Piece(form.after_answer), form.end]
    if reasoning is None:
        opening, written = form.closed, [Piece(form.before_answer), *written]
    else:
        opening, written = form.opened, [Piece(reasoning), *form.between, *written]
    trained = asked or reasoning is not None
    written = [replace(piece, trained=trained) for piece in written]
    return [*opening, *written, Piece(form.after_end)]


def _join(pieces: list[Piece]) -> tuple[Piece, ...]:
    """The pieces without empty ones, neighbours in text as one."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else BOS
        if piece.control or last.control or piece.trained != last.trained:
            if piece.text:
                joined.append(piece)
        else:
            joined[-1] = replace(last, text=last.text + piece.text)
    return tuple(joined)


def _form(template: str, thinking: bool | None) -> Template:
    if template not in TEMPLATES:
        raise ValueError(f"no template {template!r}: there are {', '.join(TEMPLATES)}")
    plain, thoughtful = TEMPLATES[template]
    if thinking is None:
        return plain or thoughtful
    form = thoughtful if thinking else plain
    if form is None:
        habit = "always think" if plain is None else "never think"
        raise ValueError(
            f"thinking is {thinking}, but models of the template {template!r} {habit}"
        )
    return form


def _check(messages: Sequence[Message], template: str, prompt: bool) -> None:
    """Raise an error for what is no conversation."""
    if not messages:
        raise ValueError("the conversation has no messages")
    first_turn = 1 if messages[0].get("role") == "system" else 0
    for i, message in enumerate(messages):
        where, role = f"message {i}", message.get("role")
        allowed = {"role", "content"} | ({"reasoning_content"} & {*message})
        if {*message} != allowed:
            raise ValueError(
                f"{where} has the keys {sorted(message)}, but it must have role and "
                "content, and may have reasoning_content"
            )
        if not all(isinstance(message[key], str) for key in message):
            raise ValueError(f"{where} has a value that is not a text: {message!r}")
        if role not in ("system", "user", "assistant"):
            raise ValueError(
                f"{where} has the role {role!r}: known are system, user and assistant"
            )
        expected = (
            ("user", "assistant")[(i - first_turn) % 2] if i >= first_turn else role
        )
        if role != expected:
            rule = "system may only come first, then user and assistant take turns"
            raise ValueError(
                f"{where} is of the role {role!r}, not {expected!r}: {rule}"
            )
        if "reasoning_content" in message:
            _check_reasoning(where, role, template)
    if prompt and messages[-1]["role"] != "user":
        raise ValueError(
            "a generation prompt follows a user's message, but the last one is of the "
            f"role {messages[-1]['role']!r}"
        )


def _check_reasoning(where: str, role: str, template: str) -> None:
    if role != "assistant":
        raise ValueError(f"{where} has reasoning_content, but its role is {role!r}")
    if TEMPLATES[template][1] is None:
        raise ValueError(
            f"{where} has reasoning_content, but models of the template {template!r} "
            "never think: use 'r1' or 'v4'"
        )
