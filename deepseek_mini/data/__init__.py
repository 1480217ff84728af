"""Corpora, each with an offline default, and the packing of text into batches.

``python_code()``, ``english()`` or ``from_files(...)`` gives a corpus;
``pack(corpus, Tokenizer.small(), seq_len=128)`` tokenises it; its
``batch(step, batch_size, seed)`` is int64 [batch_size, 129].
"""

from deepseek_mini.data.corpora import (
    Corpus,
    Document,
    english,
    from_files,
    python_code,
)
from deepseek_mini.data.packing import PackedData, pack

__all__ = [
    "Corpus",
    "Document",
    "PackedData",
    "english",
    "from_files",
    "pack",
    "python_code",
]
