"""Where text comes from: the Python on this machine, or the files of a user.

A corpus is cut into training and validation text by document, never inside one: the
second half of a module is easy to guess for a model that has read the first.
"""

import ast
import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deepseek_mini.data.stdlib_modules import STDLIB_MODULES

# One document in ten is held out: a smaller part of these few hundred documents
# would be a handful, and say little about the rest.
HELD_OUT = 10


@dataclass(frozen=True)
class Document:
    """A text and the name that decides whether it is held out."""

    name: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """Documents to train on, documents to validate on, and where they came from.

    ``corpus + corpus`` joins two; ``source`` is a sentence to show to the reader.
    """

    source: str
    train: tuple[Document, ...]
    validation: tuple[Document, ...]

    def __add__(self, other: "Corpus") -> "Corpus":
        return Corpus(
            f"{self.source}; {other.source}",
            self.train + other.train,
            self.validation + other.validation,
        )

    def __repr__(self) -> str:
        return (
            f"Corpus({self.source!r}, train: {len(self.train)} documents, "
            f"validation: {len(self.validation)})"
        )


def python_code() -> Corpus:
    """The source of 264 standard-library modules: about 5.7 MB, always there.

    The list is the same for Python 3.11 to 3.13, the text of a module is that of the
    Python which runs. FileNotFoundError if this Python came without its sources.
    """
    documents = list(_stdlib_sources())
    source = f"{len(documents)} standard-library modules of {_python()}"
    return _split_by_name(source, documents)


def english() -> Corpus:
    """English about Python: the language reference's topics, and docstrings.

    A module's docstrings carry the module's name, so that they are held out together
    with its code. FileNotFoundError as for ``python_code``.
    """
    from pydoc_data.topics import topics

    documents = [Document(f"topic {name}", text) for name, text in topics.items()]
    modules = list(_stdlib_sources())
    documents += [Document(module.name, _docstrings(module.text)) for module in modules]
    documents = [document for document in documents if document.text.strip()]
    source = (
        f"{len(topics)} topics of the language reference and the docstrings of "
        f"{len(modules)} standard-library modules, of {_python()}"
    )
    return _split_by_name(source, documents)


def from_files(*paths: str | os.PathLike) -> Corpus:
    """UTF-8 text files of your own, each a document.

    With too few files to hold one out, the last tenth of each is the validation text.

    Raises:
        FileNotFoundError, IsADirectoryError: as named.
        ValueError: no path at all, an empty file, or one that is not UTF-8; the
            message names the file and the byte.
    """
    if not paths:
        raise ValueError("from_files needs at least one path")
    documents = [Document(Path(path).name, read_text(path)) for path in paths]
    names = ", ".join(str(path) for path in paths[:3])
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    corpus = _split_by_name(f"{names}{more}", documents)
    if corpus.train and corpus.validation:
        return corpus
    cuts = [_cut(document.text) for document in documents]
    return Corpus(
        f"{corpus.source}, the last tenth held out",
        tuple(Document(d.name, d.text[:cut]) for d, cut in zip(documents, cuts)),
        tuple(Document(d.name, d.text[cut:]) for d, cut in zip(documents, cuts)),
    )


def read_text(path: str | os.PathLike) -> str:
    """The text of a UTF-8 file, lines ended by newline; errors as ``from_files``."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name the text files in it")
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text: byte 0x{content[error.start]:02x} at offset "
            f"{error.start}"
        ) from None
    if not text.strip():
        raise ValueError(f"{path} is empty")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_held_out(name: str) -> bool:
    """Whether the document of this name is for validation: a hash decides.

    The same for every order of documents, every seed and every machine.
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT == 0


def _split_by_name(source: str, documents: list[Document]) -> Corpus:
    train = tuple(d for d in documents if not is_held_out(d.name))
    validation = tuple(d for d in documents if is_held_out(d.name))
    size = sum(len(document.text.encode()) for document in documents)
    return Corpus(f"{source} ({_in_units(size)})", train, validation)


def _in_units(size: int) -> str:
    for unit, bytes_each in (("MB", 1_000_000), ("kB", 1000)):
        if size >= bytes_each:
            return f"{size / bytes_each:.1f} {unit}"
    return f"{size} bytes"


def _cut(text: str) -> int:
    """Where the last tenth begins: after the newline before it, if there is one."""
    tenth = len(text) * (HELD_OUT - 1) // HELD_OUT
    return text.rfind("\n", 0, tenth) + 1 or tenth


def _stdlib_sources() -> Iterator[Document]:
    """Modules are found as files and never imported: importing runs their code."""
    root = Path(sysconfig.get_path("stdlib"))
    found = 0
    for name in STDLIB_MODULES:
        module = root / name.replace(".", "/")
        for path in (module.with_suffix(".py"), module / "__init__.py"):
            if path.is_file():
                found += 1
                yield Document(name, path.read_text(encoding="utf-8"))
                break
    if found < len(STDLIB_MODULES) // 2:  # some systems package a few modules apart
        raise FileNotFoundError(
            f"{_python()} has the source of only {found} of {len(STDLIB_MODULES)} "
            f"standard-library modules in {root}: use a Python with its sources"
        )


def _docstrings(code: str) -> str:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(ast.parse(code)) if isinstance(node, kinds))
    return "\n\n".join(filter(None, map(ast.get_docstring, nodes)))


def _python() -> str:
    return f"Python {platform.python_version()}"
