"""Several texts mixed by weight: exact shares, own epochs, one fingerprint, resumed."""

import itertools
import json
from dataclasses import replace

import pytest
import torch
from test_training import RECIPE, StopAt, new_model, without_time

import deepseek_mini as dm
from deepseek_mini.cli import main
from deepseek_mini.data import Corpus, Document, MixedData, mix, pack
from deepseek_mini.data.mixing import ROUND, _shares
from deepseek_mini.training import evaluate, train


def packed(words, n_words=600, seq_len=8):
    text = "".join(itertools.islice(itertools.cycle(words), n_words))
    documents = (Document("a", text), Document("b", text))
    corpus = Corpus(words[0], documents[1:], documents[:1])
    return pack(corpus, dm.Tokenizer.small(), seq_len)


@pytest.fixture(scope="module")
def letters():
    return packed(["a", "b "])


@pytest.fixture(scope="module")
def digits():
    return packed(["1", "2", "3"], n_words=150)


@pytest.fixture(scope="module")
def mixed(letters, digits):
    return mix({"letters": (letters, 7), "digits": (digits, 3)})


def rows_of(data, source, n_rows, seed=0):
    """The rows of a source, in the order in which the mixture gives them."""
    own = {tuple(w.tolist()) for w in source.train.unfold(0, source.seq_len + 1, 1)}
    every = (data.batch(i, 1, seed)[0] for i in range(n_rows))
    return [row for row in every if tuple(row.tolist()) in own]


def test_shares_are_exact(mixed, letters, digits):
    assert mixed.weights == {"letters": 0.7, "digits": 0.3}
    for seed in (0, 1):
        assert len(rows_of(mixed, letters, ROUND, seed)) == 700
        assert len(rows_of(mixed, digits, ROUND, seed)) == 300
    early = len(rows_of(mixed, letters, 100))
    assert 50 < early < 90  # and mixed from the start, not one after the other


def test_a_source_is_read_as_it_would_be_alone(mixed, letters, digits):
    """Across the border of two rounds: no row lost, none twice."""
    for source, n_rows in ((letters, 840), (digits, 360)):
        rows = rows_of(mixed, source, 1200)
        assert abs(len(rows) - n_rows) < 40
        alone = source.batch(0, len(rows), 0)
        assert torch.equal(torch.stack(rows), alone)


def test_a_batch_is_a_function_of_seed_and_step(mixed):
    whole = mixed.batch(0, 12, seed=3)
    assert whole.shape == (12, 9)
    pieces = [mixed.batch(step, 3, seed=3) for step in (2, 0, 3, 1)]
    assert torch.equal(torch.cat([pieces[1], pieces[3], pieces[0], pieces[2]]), whole)
    assert not torch.equal(mixed.batch(0, 12, seed=4), whole)


def test_one_text_is_itself(letters):
    alone = mix({"letters": (letters, 0.2)})
    assert torch.equal(alone.batch(5, 4, 1), letters.batch(5, 4, 1))


def test_validation(mixed, letters, digits):
    assert mixed.validation_shares(10) == {"letters": 7, "digits": 3}
    assert mixed.validation_shares(1) == {"letters": 1, "digits": 1}
    together = torch.cat(list(mixed.validation_batches(4, 10)))
    parts = [*letters.validation_batches(9, 7), *digits.validation_batches(9, 3)]
    assert torch.equal(together, torch.cat(parts))
    model = new_model()
    score = evaluate(model, mixed, n_windows=10)
    for name, source, share in (("letters", letters, 7), ("digits", digits, 3)):
        own = evaluate(model, source, n_windows=share)
        for key, value in own.items():
            assert score[f"{key}/{name}"] == pytest.approx(value, rel=1e-6)
    mean = 0.7 * score["val_loss/letters"] + 0.3 * score["val_loss/digits"]
    assert score["val_loss"] == pytest.approx(mean, rel=1e-6)
    bits = [score[f"val_bits_per_byte/{name}"] for name in ("letters", "digits")]
    assert min(bits) < score["val_bits_per_byte"] < max(bits)


@pytest.mark.parametrize("total", [3, 7, 1000])
def test_shares_add_up(total):
    for weights in ((1, 1, 1), (0.998, 0.001, 0.001), (0.5, 0.3, 0.2)):
        named = {str(i): w / sum(weights) for i, w in enumerate(weights)}
        shares = _shares(named, total)
        assert sum(shares.values()) == total and min(shares.values()) >= 1
        if total == 1000:
            assert all(abs(shares[n] - 1000 * w) <= 1 for n, w in named.items())


def test_fingerprint(mixed, letters, digits):
    same = mix({"letters": (letters, 0.7), "digits": (digits, 0.3)})
    assert same.fingerprint == mixed.fingerprint
    others = [
        mix({"letters": (letters, 6), "digits": (digits, 3)}),
        mix({"digits": (digits, 3), "letters": (letters, 7)}),
        mix({"letters": (letters, 7), "digits": (letters, 3)}),
    ]
    prints = {mixed.fingerprint, *(other.fingerprint for other in others)}
    assert len(prints) == 4
    assert "70.0% a; 30.0% 1" in mixed.source and "letters: 70.0%" in repr(mixed)


def test_a_run_over_a_mixture_is_resumed(mixed, letters, digits, tmp_path):
    recipe = replace(RECIPE, steps=14, batch_size=4, accumulate=2)
    whole = train(new_model(), mixed, recipe, progress=False)
    assert "val_loss/digits" in whole.validation[0]
    broken = MixedData(dict(mixed.sources), mixed.weights)
    broken.sources["digits"] = StopAt(digits, 8, RuntimeError("power cut"))
    with pytest.raises(RuntimeError, match="power cut"):
        train(new_model(), broken, recipe, tmp_path, progress=False)
    again = {"resume": True, "progress": False}
    result = train(new_model(9), mixed, recipe, tmp_path, **again)
    assert without_time(result.history) == without_time(whole.history)
    other = mix({"letters": (letters, 6), "digits": (digits, 4)})
    with pytest.raises(ValueError, match=r"data\.tokens"):
        train(new_model(), other, recipe, tmp_path, **again)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((0, 1), "weight of 'a' must be a positive number, got 0"),
        ((1, -2), "weight of 'b' must be a positive number, got -2"),
        ((float("nan"), 1), "weight of 'a'"),
        ((1, float("inf")), "weight of 'b'"),
        ((1, 5000), "'a' is 0.0002 of the whole, but it must be at least 0.001"),
    ],
)
def test_bad_weights(letters, digits, weights, said):
    with pytest.raises(ValueError, match=said):
        mix({"a": (letters, weights[0]), "b": (digits, weights[1])})


def test_parts_that_do_not_fit(letters):
    with pytest.raises(ValueError, match="at least one text"):
        mix({})
    with pytest.raises(ValueError, match="'a' has seq_len 8, but 'b' has 4"):
        mix({"a": (letters, 1), "b": (packed(["x"], seq_len=4), 1)})
    other = replace(letters, tokenizer=dm.Tokenizer.train(["some text"], 270))
    with pytest.raises(ValueError, match="different tokenizers"):
        mix({"a": (letters, 1), "b": (other, 1)})


def test_the_command_line(tmp_path, capsys):
    files = []
    for name, word in (("a.txt", "alpha beta "), ("b.txt", "1 2 3 ")):
        path = tmp_path / name
        path.write_text(f"{word}\n" * 200)
        files.append(str(path))
    fast = ["--steps", "2", "--seq-len", "16", "--batch-size", "2", "--warmup", "1"]
    fast += ["--accumulate", "2", "--schedule", "wsd", "--autocast", "--data", *files]
    argv = ["train", "--out", str(tmp_path / "run"), *fast, "--weights", "3", "1"]
    assert main(argv) == 0
    assert "75.0%" in capsys.readouterr().out
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    scores = [key for key in json.loads(lines[-1]) if key.startswith("val_loss/")]
    assert scores == [f"val_loss/{path}" for path in files]
    argv = ["train", "--out", str(tmp_path / "other"), *fast, "--weights", "1"]
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert "--weights gives 1 numbers for --data with 2" in err
    assert not (tmp_path / "other").exists()
