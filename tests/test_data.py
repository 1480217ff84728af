"""Corpora and packed batches."""

import itertools
import os

import pytest
import torch

from deepseek_mini import Tokenizer
from deepseek_mini.data import (
    Corpus,
    Document,
    english,
    from_files,
    pack,
    packing,
    python_code,
)
from deepseek_mini.data.corpora import is_held_out
from deepseek_mini.data.stdlib_modules import STDLIB_MODULES


@pytest.fixture(scope="module")
def small():
    return Tokenizer.small()


@pytest.fixture(scope="module")
def code():
    return python_code()


def corpus_of(n_documents, length=300):
    words = itertools.cycle(["alpha ", "beta(", "gamma\n", "  delta ", "42 "])
    texts = ["".join(itertools.islice(words, length)) for _ in range(n_documents)]
    documents = tuple(Document(f"d{i}", text) for i, text in enumerate(texts))
    return Corpus("words", documents[1:], documents[:1])


def test_module_list():
    gone = {"cgi", "crypt", "imghdr", "telnetlib", "imp", "distutils", "asyncore"}
    assert len(set(STDLIB_MODULES)) == len(STDLIB_MODULES)
    assert not gone & set(STDLIB_MODULES)
    assert not [name for name in STDLIB_MODULES if "test" in name.split(".")]


def test_python_code(code):
    assert len(code.train) + len(code.validation) == len(STDLIB_MODULES)
    assert f"{len(STDLIB_MODULES)} standard-library modules of Python" in code.source
    assert "MB" in code.source
    assert 0.05 < len(code.validation) / len(STDLIB_MODULES) < 0.2
    argparse = next(d for d in code.train if d.name == "argparse")
    assert "class ArgumentParser" in argparse.text


def test_english_shares_the_split_with_code(code):
    text = english()
    names = {document.name for document in text.train}
    assert not names & {document.name for document in code.validation}
    assert not names & {document.name for document in text.validation}
    whole = "\n".join(document.text for document in text.train)
    assert len(whole) > 800_000
    assert "def " not in whole[:0] and whole.count("    return self.") < 50


def test_split_depends_on_the_name_alone():
    names = [f"name {i}" for i in range(2000)]
    held = [name for name in names if is_held_out(name)]
    assert held == [name for name in names if is_held_out(name)]
    assert 150 < len(held) < 250
    assert [name for name in reversed(names) if is_held_out(name)] == held[::-1]


def test_from_files_one(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("".join(f"line {i}\r\n" for i in range(100)).encode())
    corpus = from_files(path)
    assert "a.txt" in corpus.source and "last tenth" in corpus.source
    (train,), (validation,) = corpus.train, corpus.validation
    assert train.text + validation.text == "".join(f"line {i}\n" for i in range(100))
    assert train.text.endswith("\n") and validation.text.startswith("line 9")


def test_from_files_many(tmp_path):
    paths = [tmp_path / f"{i}.txt" for i in range(60)]
    for path in paths:
        path.write_text(f"file {path.stem}\n" * 3)
    corpus, reverse = from_files(*paths), from_files(*reversed(paths))
    assert len(corpus.train) + len(corpus.validation) == 60
    assert {d.name for d in corpus.train} == {d.name for d in reverse.train}
    assert "57 more" in corpus.source


def test_bad_files(tmp_path):
    with pytest.raises(ValueError, match="at least one"):
        from_files()
    with pytest.raises(FileNotFoundError, match=r"no such file: .*none\.txt"):
        from_files(tmp_path / "none.txt")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        from_files(tmp_path)
    bad = tmp_path / "bad.txt"
    bad.write_bytes("é fine ".encode() + b"\xff\xfe")
    with pytest.raises(ValueError, match=r"bad\.txt .*0xff at offset 8"):
        from_files(bad)
    for content in (b"", b" \n\t", b"\xef\xbb\xbf"):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.txt is empty"):
            from_files(bad)


def test_join(code):
    both = code + corpus_of(3)
    assert both.source.endswith("; words")
    assert len(both.train) == len(code.train) + 2


def test_documents_are_joined_with_bos_and_eos(small):
    data = pack(corpus_of(3), small, seq_len=16)
    assert data.train.dtype == torch.int64
    bos, eos = small.id("bos"), small.id("eos")
    starts = (data.train == bos).nonzero().flatten().tolist()
    ends = (data.train == eos).nonzero().flatten().tolist()
    assert len(starts) == len(ends) == 2
    assert starts == [0, ends[0] + 1] and ends[-1] == len(data.train) - 1
    first = corpus_of(3).train[0].text
    assert small.decode(data.train[1 : ends[0]]) == first


def test_a_batch_is_a_function_of_seed_and_step(small):
    data, again = (pack(corpus_of(9), small, seq_len=16) for _ in range(2))
    batch = data.batch(7, 4, seed=1)
    packing._epoch.cache_clear()  # as another process, which has no orders yet
    assert batch.shape == (4, 17) and batch.dtype == torch.int64
    assert torch.equal(batch, again.batch(7, 4, seed=1))
    assert not torch.equal(batch, data.batch(7, 4, seed=2))
    assert not torch.equal(batch, data.batch(8, 4, seed=1))
    assert data.fingerprint == again.fingerprint
    assert data.fingerprint != pack(corpus_of(8), small, seq_len=16).fingerprint


@pytest.mark.parametrize("length", [17, 18, 32, 33, 34, 48, 200])
def test_an_epoch_reads_every_window_once(small, length):
    data = pack(corpus_of(3), small, seq_len=16)
    numbers = torch.arange(length)  # each token is its place
    data = type(data)(numbers, numbers, 16, small, "numbers")
    n_windows = max(1, (length - 16) // 16)
    for epoch in range(3):
        steps = range(epoch * n_windows, (epoch + 1) * n_windows)
        rows = torch.cat([data.batch(step, 1, seed=3) for step in steps])
        assert (rows.diff(dim=1) == 1).all() and rows.max() < length
        targets = rows[:, 1:].flatten()
        assert len(targets.unique()) == n_windows * 16  # none twice


def test_epochs_differ(small):
    data = pack(corpus_of(20), small, seq_len=16)
    n_windows = (len(data.train) - 16) // 16
    first, second = data.batch(0, n_windows), data.batch(1, n_windows)
    assert not torch.equal(first, second)


def test_batches_do_not_depend_on_the_batch_size(small):
    data = pack(corpus_of(9), small, seq_len=16)
    ones = torch.cat([data.batch(step, 1) for step in range(8)])
    assert torch.equal(ones, torch.cat([data.batch(step, 4) for step in range(2)]))


def test_validation_is_spread_and_bounded(small):
    data = pack(corpus_of(3), small, seq_len=16)
    numbers = torch.arange(1000)
    data = type(data)(numbers, numbers, 16, small, "numbers")
    rows = torch.cat(list(data.validation_batches(4, 10)))
    assert rows.shape == (10, 17)
    assert rows[0, 0] == 0 and rows[-1, 0] > 800
    everything = torch.cat(list(data.validation_batches(4, 10**9)))
    assert everything.shape == (62, 17)
    assert len(everything[:, 1:].unique()) == 62 * 16
    short = type(data)(numbers, numbers[:5], 16, small, "numbers")
    assert [rows.tolist() for rows in short.validation_batches(4, 10)] == [
        [[0, 1, 2, 3, 4]]
    ]


def test_too_little_text(small, tmp_path):
    (tmp_path / "a.txt").write_text("short\ntext\n")
    with pytest.raises(ValueError, match="window of seq_len 128 needs 129"):
        pack(from_files(tmp_path / "a.txt"), small, seq_len=128)
    with pytest.raises(ValueError, match="no validation text"):
        pack(Corpus("x", corpus_of(3).train, ()), small, seq_len=16)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        pack(corpus_of(3), small, seq_len=0)


@pytest.mark.skipif(os.name == "nt", reason="names are bytes only on POSIX")
def test_a_file_name_that_is_not_utf8(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"\xff.txt")
    with open(path, "wb") as file:
        file.write(b"text of a file\n" * 9)
    assert from_files(os.fsdecode(path)).train
