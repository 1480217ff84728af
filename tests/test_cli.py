"""The command line, in this process where possible and in its own where it matters."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import deepseek_mini as dm
from deepseek_mini.cli import main

COMMANDS = ["train", "generate", "chat", "count", "grade", "train-tokenizer"]
FAST = ["--seq-len", "16", "--batch-size", "1", "--warmup", "2"]


def run(capsys, *argv):
    """Exit code, stdout and stderr of a command."""
    capsys.readouterr()
    try:
        code = main([str(word) for word in argv])
    except SystemExit as stop:  # argparse
        code = stop.code
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "story.txt"
    path.write_text("".join(f"Line {i} of a story: the end.\n" for i in range(200)))
    return path


@pytest.fixture(scope="module")
def folder(text):
    """A model that ``train`` wrote."""
    out = text.parent / "run"
    argv = ["train", "--data", text, "--steps", 3, "--out", out, *FAST]
    assert main([str(word) for word in argv]) == 0
    return out


def test_help(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(name in out for name in COMMANDS)
    for name in COMMANDS:
        code, out, _ = run(capsys, name, "--help")
        assert code == 0
        assert f"example: python -m deepseek_mini {name}" in out


def test_bad_usage(capsys):
    for argv in ([], ["fly"], ["train"], ["generate"], ["train", "--steps", "x"]):
        code, out, err = run(capsys, *argv)
        assert code == 2 and out == "" and "error:" in err


def test_train_writes_a_model(folder, text, capsys):
    rows = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2, 3]
    assert dm.load(folder).config == dm.Config.preset("deepseek-llm-mini")
    assert dm.Tokenizer.from_file(folder).vocab_size == 1024
    argv = ["train", "--data", text, "--steps", 3, "--out", folder, *FAST]
    code, out, err = run(capsys, *argv)
    assert code == 2 and "already holds a training run" in err
    code, out, err = run(capsys, *argv, "--resume")
    assert code == 0 and "story.txt" in out and "1,053,824 parameters" in out
    code, out, err = run(capsys, *argv, "--resume", "--lr", "0.5")
    assert code == 2 and "train.lr" in err


def test_generate(folder, capsys):
    argv = ["generate", folder, "--prompt", "Line 1", "--max-new-tokens", 12]
    code, out, err = run(capsys, *argv, "--seed", 4)
    assert (code, err) == (0, "") and out.startswith("Line 1") and len(out) > 8
    assert run(capsys, *argv, "--seed", 4)[1] == out
    assert run(capsys, *argv, "--seed", 5)[1] != out
    code, out, _ = run(capsys, "generate", folder, "--temperature", 0)
    assert code == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--temperature", "-1"], "temperature"),
        (["--top-p", "3"], "top_p"),
        (["--max-new-tokens", "-4"], "-4"),
        (["--max-new-tokens", "5000"], "5000"),
        (["--prompt", "word " * 400], "max_seq_len"),
        (["--prompt", "\udcff"], "lone surrogate"),
    ],
)
def test_generate_bad_input(folder, capsys, argv, said):
    code, _, err = run(capsys, "generate", folder, *argv)
    assert code == 2 and said in err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert err.startswith("python -m deepseek_mini generate: ")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--temperature", "-1"], "temperature"),
        (["--top-k", "0"], "top_k"),
        (["--max-new-tokens", "-4"], "max_new_tokens is -4"),
    ],
)
def test_settings_are_checked_before_a_word_is_said(folder, capsys, argv, said):
    """`generate` has not printed the prompt yet, `chat` has not asked (stdin fails)."""
    for words in (["chat", folder], ["generate", folder, "--prompt", "Line"]):
        code, out, err = run(capsys, *words, *argv)
        assert code == 2 and out == "" and said in err and err.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "generate", "chat"])
def test_a_seed_that_torch_does_not_take(tmp_path, capsys, command):
    for seed in (2**64, "9" * 5000, "-1", "1.5"):
        given = ["--out", tmp_path / "run"] if command == "train" else ["any-folder"]
        code, out, err = run(capsys, command, *given, f"--seed={seed}")
        assert code == 2 and out == "" and not (tmp_path / "run").exists()
        assert (
            f"{command}: error: argument --seed: a seed must be a whole number" in err
        )


def test_generate_without_a_model(tmp_path, folder, capsys):
    code, _, err = run(capsys, "generate", tmp_path / "none")
    assert code == 2 and "none" in err and err.count("\n") == 1
    code, _, err = run(capsys, "generate", tmp_path)
    assert code == 2 and err.count("\n") == 1
    dm.save(dm.load(folder), tmp_path)  # a model without a tokenizer
    code, _, err = run(capsys, "generate", tmp_path)
    assert code == 2 and "tokenizer.json" in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--preset", "gpt-2"], "no preset 'gpt-2'"),
        (["--steps", "0"], "steps"),
        (["--data", "no-such.txt"], "no such file: no-such.txt"),
        (["--data", "."], "is a folder"),
        (["--seq-len", "999"], "999"),
        (["--device", "abacus"], "device is 'abacus'"),
        (["--device", "meta"], "one of: cpu"),
        (["--device", "cuda:99"], "one of: cpu"),
        (["--lr", "nan"], "TrainConfig.lr"),
    ],
)
def test_train_bad_input(text, tmp_path, capsys, argv, said):
    given = ["train", "--data", text, "--out", tmp_path / "run", *FAST, *argv]
    code, _, err = run(capsys, *given)
    assert code == 2 and said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_folder_is_looked_at_before_the_data(folder, tmp_path, capsys):
    argv = ["train", "--data", tmp_path / "none.txt", "--out"]
    for out, more, said in (
        (folder, [], "already holds a training run"),
        (tmp_path / "new", ["--resume"], "new holds no training run to resume"),
        (folder / "config.json", [], "config.json is a file"),
    ):
        code, shown, err = run(capsys, *argv, out, *more)
        assert code == 2 and said in err and shown == "" and err.count("\n") == 1
    argv = ["train-tokenizer", "--data", tmp_path / "none.txt", "--out", tmp_path]
    code, shown, err = run(capsys, *argv)
    assert code == 2 and shown == "" and err.count("\n") == 1
    assert f"{tmp_path} is a folder: give the file to write" in err


def test_train_on_text_that_is_none(tmp_path, capsys):
    bad = tmp_path / "bad.txt"
    for content, said in ((b"", "is empty"), (b"abc\xff", "0xff at offset 3")):
        bad.write_bytes(content)
        argv = ["train", "--data", bad, "--out", tmp_path / "run"]
        code, _, err = run(capsys, *argv)
        assert code == 2 and said in err and "bad.txt" in err


def test_chat(folder, capsys, monkeypatch):
    lines = iter(["hello", "", "again", "x " * 900])

    def typed(prompt=""):
        print(prompt, end="")
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", typed)
    code, out, err = run(capsys, "chat", folder, "--max-new-tokens", 5, "--seed", 1)
    assert code == 0
    assert out.count("User: ") == 5 and out.count("Assistant:") == 2
    assert "too long" in err


def test_chat_uses_the_template_and_forgets_the_oldest(folder, monkeypatch, capsys):
    from deepseek_mini import commands

    prompts = []

    def record(model, tokenizer, prompt, args, max_new_tokens, said=None):
        prompts.append(tokenizer.decode(prompt))
        said += tokenizer.encode(" fine")
        yield " fine"

    turns = iter(["one", "two", *["long " * 30] * 3])
    monkeypatch.setattr(commands, "_reply", record)

    def typed(prompt=""):
        try:
            return next(turns)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", typed)
    assert run(capsys, "chat", folder, "--max-new-tokens", 50)[0] == 0
    bos, eos = (dm.tokenizer.SPECIAL_TOKENS[name] for name in ("bos", "eos"))
    assert prompts[0] == f"{bos}User: one\n\nAssistant:"
    assert prompts[1] == (
        f"{bos}User: one\n\nAssistant: fine{eos}User: two\n\nAssistant:"
    )
    assert prompts[-1].startswith(f"{bos}User: long") and "one" not in prompts[-1]


def test_count(folder, capsys):
    argv = ["count", "deepseek-llm-67b", "--seq-len", 131072]
    code, out, _ = run(capsys, *argv)
    assert code == 0 and "67.4 B" in out and "131,072" in out
    code, out, _ = run(capsys, "count", folder)
    assert code == 0 and "1.05 M" in out
    for argv in (["count", "gpt-2"], ["count", "deepseek-llm-7b", "--seq-len", "-1"]):
        code, _, err = run(capsys, *argv)
        assert code == 2 and err.count("\n") == 1


def test_train_tokenizer(text, tmp_path, capsys):
    out = tmp_path / "new" / "tokenizer.json"
    argv = ["train-tokenizer", "--data", text, "--out", out, "--vocab-size"]
    code, shown, _ = run(capsys, *argv, 280)
    assert code == 0 and "280 entries" in shown
    assert dm.Tokenizer.from_file(out).vocab_size == 280
    code, _, err = run(capsys, *argv, 9)
    assert code == 2 and "at least 266" in err
    assert dm.Tokenizer.from_file(out).vocab_size == 280


def test_characters_are_printed_whole():
    from deepseek_mini.commands import _pieces

    tokenizer = dm.Tokenizer.small()
    text = "a🙂é done"
    said: list[int] = []
    pieces = list(_pieces(tokenizer, tokenizer.encode(text), said))
    assert "".join(pieces) == text and said == tokenizer.encode(text)
    assert not any("\ufffd" in piece for piece in pieces)
    cut = tokenizer.encode("🙂")[:1]
    assert "".join(_pieces(tokenizer, cut, [])) == "\ufffd"


def test_grade_hands_over(monkeypatch, capsys):
    grade = pytest.importorskip("deepseek_mini.lesson.grade")
    called = []
    monkeypatch.setattr(grade, "main", lambda *a, **k: called.append((a, k)) or 0)
    assert run(capsys, "grade", "work/03_rope.ipynb", "--json")[0] == 0
    assert called[0][0][0] == "work/03_rope.ipynb" and called[0][1]["as_json"]


def test_grade_says_what_is_no_notebook(tmp_path, capsys):
    bad = tmp_path / "bad.ipynb"
    bad.write_text('{"cells": [{"cell_type": "code", "source": 5}]}')
    code, out, err = run(capsys, "grade", bad)
    assert code == 2 and out == "" and err.count("\n") == 1 and "is 5" in err


def command(*argv):
    return [sys.executable, "-m", "deepseek_mini", *map(str, argv)]


@pytest.mark.skipif(os.name == "nt", reason="SIGINT is sent otherwise on Windows")
def test_ctrl_c_saves_and_says_how_to_go_on(text, tmp_path, capsys):
    out = tmp_path / "my run"
    argv = ["train", "--data", text, "--steps", 40, "--out", out, *FAST]
    process = subprocess.Popen(command(*argv), stderr=subprocess.PIPE, text=True)
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 100
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "saved; go on with" in err and "--resume" in err and "my run'" in err
    assert "Traceback" not in err
    dm.load(out)
    assert run(capsys, *argv, "--resume")[0] == 0
    losses = [json.loads(row)["loss"] for row in metrics.read_text().splitlines()]
    whole = tmp_path / "whole"
    argv[argv.index(out)] = whole
    assert run(capsys, *argv)[0] == 0
    rows = (whole / "metrics.jsonl").read_text().splitlines()
    assert losses == [json.loads(row)["loss"] for row in rows]


def test_the_module_runs_and_minds_a_closed_pipe():
    done = subprocess.run(
        command("count", "fly-9b"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("python -m deepseek_mini count: there is no preset")
