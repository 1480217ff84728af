"""Text to token ids and back: byte-level BPE with DeepSeek's special tokens.

The work is done by the ``tokenizers`` library; this class adds what a model needs
from it (ids by name, bytes per token) and one guarantee: the text of a user never
turns into a control token unless the caller asks for it.
"""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

# DeepSeek writes these with U+FF5C (a wide bar) and U+2581 (a low block), not with
# "|" and "_": nobody types them by accident. The order gives ids 0, 1, 2, ...
SPECIAL_TOKENS = {
    "bos": "<｜begin▁of▁sentence｜>",
    "eos": "<｜end▁of▁sentence｜>",
    "pad": "<｜▁pad▁｜>",
    "fim_hole": "<｜fim▁hole｜>",
    "fim_begin": "<｜fim▁begin｜>",
    "fim_end": "<｜fim▁end｜>",
    "user": "<｜User｜>",
    "assistant": "<｜Assistant｜>",
    "think": "<think>",
    "end_think": "</think>",
}

# How DeepSeek-V3 cuts text before BPE (its released tokenizer.json): digits in
# groups of up to three, runs of CJK, then words, punctuation, newlines and spaces.
V3_SPLITS = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+",
)

SMALL_PATH = Path(__file__).parent / "assets" / "tokenizer" / "tokenizer.json"


class Tokenizer:
    """A byte-level BPE tokenizer in the ``tokenizer.json`` format.

    Build one with ``from_file`` (a released model's file), ``small`` (the one of
    1,024 entries that comes with the package) or ``train``. Every text has an
    encoding, because the 256 bytes are entries, and ``decode(encode(text)) == text``
    (for the tokenizers whose normaliser changes nothing, as all of DeepSeek's).
    """

    def __init__(self, source: str):
        """``source``: the text of a tokenizer.json. ValueError if it is not one."""
        try:
            backend = tokenizers.Tokenizer.from_str(source)
            plain = tokenizers.Tokenizer.from_str(_without_control_tokens(source))
        except Exception as error:  # the library raises a bare Exception
            raise ValueError(f"not a tokenizer.json: {error}") from None
        self._source = source
        self._backend = backend
        self._plain = plain
        added = backend.get_added_tokens_decoder()
        self.special_ids = {
            token.content: id
            for id, token in sorted(added.items())
            if is_control(token.content, token.special)
        }
        self.vocab_size = max(backend.get_vocab().values()) + 1

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> "Tokenizer":
        """Read a ``tokenizer.json``, or the one in a model's folder.

        FileNotFoundError if there is none; ValueError if it is not a tokenizer.
        """
        path = Path(path)
        if path.is_dir():
            path = path / "tokenizer.json"
        if not path.is_file():
            raise FileNotFoundError(f"no tokenizer file at {path}")
        try:
            return cls(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} is not a tokenizer.json: byte {error.start} is not UTF-8"
            ) from None
        except ValueError as error:
            raise ValueError(f"{path} is {error}") from None

    @classmethod
    def small(cls) -> "Tokenizer":
        """The tokenizer of the miniature models: 1,024 entries, special ones included.

        It was trained on the package's offline corpora by
        ``python -m deepseek_mini train-tokenizer --out FILE``.
        """
        return cls.from_file(SMALL_PATH)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> "Tokenizer":
        """Learn the merges from ``texts``, cutting them as DeepSeek-V3 does.

        ``vocab_size`` counts everything: the special tokens, the 256 bytes and the
        merges. ValueError if it leaves no room for the first two, or if the texts
        are too few to fill it.
        """
        least = len(SPECIAL_TOKENS) + 256
        if vocab_size < least:
            raise ValueError(
                f"vocab_size must be at least {least} ({len(SPECIAL_TOKENS)} special "
                f"tokens and 256 bytes), got {vocab_size}"
            )
        backend = tokenizers.Tokenizer(models.BPE())
        splits = [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated")
            for pattern in V3_SPLITS
        ]
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([*splits, to_bytes])
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS.values()),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        if backend.get_vocab_size() < vocab_size:
            raise ValueError(
                f"the texts fill only {backend.get_vocab_size()} of {vocab_size} "
                "entries: give more text or a smaller vocab_size"
            )
        return cls(backend.to_str(pretty=True))

    def save(self, path: str | os.PathLike) -> None:
        """Write the ``tokenizer.json``; a failure leaves an older file as it was."""
        path = Path(path)
        part = path.with_name(path.name + ".part")
        try:
            part.write_text(self._source, encoding="utf-8", newline="\n")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def encode(
        self, text: str, *, bos: bool = False, allow_special: bool = False
    ) -> list[int]:
        """The ids of ``text``; nothing is added unless ``bos=True`` asks for it.

        ``<｜User｜>`` inside ``text`` is encoded as the characters it is made of;
        only ``allow_special=True``, for templates that we wrote ourselves, turns it
        into the control token. ValueError for a text that is not valid Unicode.
        """
        if not isinstance(text, str):
            raise TypeError(f"encode takes a str, got {type(text).__name__}")
        backend = self._backend if allow_special else self._plain
        try:
            ids = backend.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError):
            raise ValueError(_bad_character(text)) from None
        return [self.id("bos"), *ids] if bos else ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """``encode`` of each text; on several cores the texts are shared out."""
        try:
            encoded = self._plain.encode_batch_fast(
                list(texts), add_special_tokens=False
            )
        except (UnicodeEncodeError, TypeError):
            return [self.encode(text) for text in texts]  # names the one at fault
        return [encoding.ids for encoding in encoded]

    def decode(self, ids: Iterable, *, skip_special: bool = False) -> str:
        """The text of one sequence of ids (a list or a 1-D integer tensor).

        Bytes that are no complete UTF-8 character come out as U+FFFD. ValueError
        for an id outside 0 .. vocab_size - 1.
        """
        ids = ids.tolist() if hasattr(ids, "tolist") else list(ids)
        for id in ids:
            if not isinstance(id, int) or not 0 <= id < self.vocab_size:
                raise ValueError(
                    f"decode takes ids from 0 to {self.vocab_size - 1}, got {id!r}"
                )
        # Not the library's skip_special_tokens: it keeps what a released file marks
        # as "special": false, among them <｜User｜> and <think>.
        if skip_special:
            control = set(self.special_ids.values())
            ids = [id for id in ids if id not in control]
        return self._backend.decode(ids, skip_special_tokens=False)

    def id(self, name: str) -> int:
        """The id of a special token, by its short name ("bos") or as it is spelled.

        ValueError if this tokenizer has no such token.
        """
        spelled = SPECIAL_TOKENS.get(name, name)
        if spelled not in self.special_ids:
            raise ValueError(f"this tokenizer has no special token {name!r}")
        return self.special_ids[spelled]

    def byte_lengths(self) -> list[int]:
        """How many bytes of text each id stands for; 0 for special tokens.

        Loss per token becomes loss per byte with it, which tokenizers of different
        sizes share.
        """
        lengths = [0] * self.vocab_size
        for token, id in self._backend.get_vocab(with_added_tokens=False).items():
            lengths[id] = len(token)  # byte-level: one character stands for one byte
        for id, token in self._backend.get_added_tokens_decoder().items():
            control = token.content in self.special_ids
            lengths[id] = 0 if control else len(token.content.encode())
        return lengths

    def __repr__(self) -> str:
        return f"Tokenizer(vocab_size={self.vocab_size})"


def is_control(content: str, special: bool) -> bool:
    """Whether an added token steers the model rather than stands for text.

    Released files mark <｜User｜>, <think> and ｜DSML｜ as not special, and add a few
    plain letters (DeepSeek-Coder: "ü"); the mark alone does not tell the two apart.
    """
    return special or len(content) > 1


def _without_control_tokens(source: str) -> str:
    """The same tokenizer.json, unable to produce a control token from text."""
    content = json.loads(source)
    content["added_tokens"] = [
        token
        for token in content.get("added_tokens") or []
        if not is_control(token["content"], token["special"])
    ]
    content["post_processor"] = None
    return json.dumps(content, ensure_ascii=False)


def _bad_character(text: str) -> str:
    for position, character in enumerate(text):
        if "\ud800" <= character <= "\udfff":
            where = f"a lone surrogate {character!r} at position {position}"
            return f"the text is not valid Unicode: {where}"
    return "the text cannot be encoded"
