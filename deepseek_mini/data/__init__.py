"""Corpora, each with an offline default, and the packing of text into batches.

``python_code()``, ``english()`` or ``from_files(...)`` gives a corpus;
``pack(corpus, Tokenizer.small(), seq_len=128)`` tokenises it; its
``batch(step, batch_size, seed)`` is int64 [batch_size, 129]. ``mix(...)`` draws from
several packed texts by weight. ``samples(repository)`` writes a repository's files in
the order of their imports, ``deduplicate`` drops near copies of repositories, and
``pack(..., fim_rate=0.5)`` cuts documents for filling in the middle.
"""

from deepseek_mini.data.corpora import (
    Corpus,
    Document,
    english,
    from_files,
    python_code,
)
from deepseek_mini.data.dedup import deduplicate
from deepseek_mini.data.mixing import MixedData, mix
from deepseek_mini.data.packing import PackedData, pack
from deepseek_mini.data.repository import (
    Repository,
    python_packages,
    read_repository,
    samples,
)

__all__ = [
    "Corpus",
    "Document",
    "MixedData",
    "PackedData",
    "Repository",
    "deduplicate",
    "english",
    "from_files",
    "mix",
    "pack",
    "python_code",
    "python_packages",
    "read_repository",
    "samples",
]
