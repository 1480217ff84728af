"""What each command of the command line does; see ``deepseek_mini.cli``.

A command takes the parsed arguments, prints its result, and returns the exit code.
What is heavy is imported inside: ``--help`` needs none of it.
"""

import argparse
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PROGRAM = "python -m deepseek_mini"


def train(args: argparse.Namespace) -> int:
    import torch

    from deepseek_mini import Config, Tokenizer, Transformer, training
    from deepseek_mini.devices import find_device

    config = Config.preset(args.preset)
    recipe = training.TrainConfig(
        steps=args.steps,
        batch_size=args.batch_size,
        lr=args.lr,
        schedule=args.schedule,
        warmup=args.warmup,
        seed=args.seed,
        eval_every=args.eval_every,
        save_every=args.save_every,
        accumulate=args.accumulate,
        autocast=args.autocast,
        compile=args.compile,
        fp8=args.fp8,
        balance=_balance(args.balance, config),
        mtp_weight=args.mtp_weight,
    )
    device = find_device(args.device)
    training.check_out_dir(args.out, args.resume)
    data = _data(args, Tokenizer.small())
    print(f"data: {data.source}")
    torch.manual_seed(args.seed)
    model = Transformer(config).to(device)
    n_parameters = sum(p.numel() for p in model.parameters())
    print(f"model: {args.preset}, {n_parameters:,} parameters", flush=True)
    result = training.train(
        model,
        data,
        recipe,
        args.out,
        resume=args.resume,
        progress=sys.stderr.isatty(),
        log=lambda line: print(line, flush=True),
    )
    if result.interrupted:
        command = [part for part in args.argv if part != "--resume"] + ["--resume"]
        print(
            f"stopped after step {len(result.history)} and saved; go on with\n"
            f"  {PROGRAM} {shlex.join(command)}",
            file=sys.stderr,
        )
        return 130
    print(f"saved: {PROGRAM} generate {shlex.quote(args.out)} --prompt 'import os'")
    return 0


def generate(args: argparse.Namespace) -> int:
    model, tokenizer = _open_model(args.folder)
    prompt = tokenizer.encode(args.prompt, bos=True)
    pieces = _reply(model, tokenizer, prompt, args, args.max_new_tokens)
    print(args.prompt, end="", flush=True)  # now that the settings have been checked
    for piece in pieces:
        print(piece, end="", flush=True)
    print()
    return 0


def chat(args: argparse.Namespace) -> int:
    """DeepSeek-LLM's template: User: …, a blank line, Assistant: …, end of sentence."""
    model, tokenizer = _open_model(args.folder)
    eos, limit = tokenizer.id("eos"), model.config.max_seq_len
    room = limit // 2 if args.max_new_tokens is None else args.max_new_tokens
    room = min(room, limit - 1)
    _reply(model, tokenizer, [eos], args, room)  # refuses bad settings, writes nothing
    turns: list[list[int]] = []
    if sys.stdin.isatty():
        print("Ctrl-D leaves.")
    while True:
        try:
            text = input("User: ").strip()
        except EOFError:
            print()
            return 0
        if not text:
            continue
        turns.append(tokenizer.encode(f"User: {text}\n\nAssistant:"))
        if 1 + len(turns[-1]) + room > limit:
            print(f"(too long: this model reads {limit} tokens)", file=sys.stderr)
            turns.pop()
            continue
        while 1 + sum(map(len, turns)) + room > limit:  # forget the oldest turn
            turns.pop(0)
        prompt = [tokenizer.id("bos"), *(id for turn in turns for id in turn)]
        print("Assistant:", end="", flush=True)
        said: list[int] = []
        for piece in _reply(model, tokenizer, prompt, args, room, said):
            print(piece, end="", flush=True)
        print("\n")
        turns[-1] += said if said[-1:] == [eos] else [*said, eos]


def count(args: argparse.Namespace) -> int:
    import torch

    import deepseek_mini as dm

    if Path(args.preset).is_dir():
        from deepseek_mini.hf_config import read_config

        config = read_config(Path(args.preset) / "config.json")
    else:
        config = dm.Config.preset(args.preset)
    dtype = getattr(torch, args.cache_dtype)
    print(f"{args.preset}\n{dm.count(config, args.seq_len, dtype)}")
    return 0


def grade(args: argparse.Namespace) -> int:
    from deepseek_mini.lesson import grade

    return grade.main(args.notebook, as_json=args.json)


def train_tokenizer(args: argparse.Namespace) -> int:
    from deepseek_mini import Tokenizer

    if Path(args.out).is_dir():
        raise IsADirectoryError(f"{args.out} is a folder: give the file to write")
    corpus = _corpus(args.data)
    print(f"data: {corpus.source}")
    texts = [document.text for document in corpus.train]
    tokenizer = Tokenizer.train(texts, args.vocab_size)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(args.out)
    print(f"{args.out}: {tokenizer.vocab_size} entries")
    return 0


def _balance(settings: list[str] | None, config: Any) -> Any:
    """``name=value`` pairs as a Balance; "none" for nothing, None for the default."""
    from deepseek_mini.training import Balance, default_balance

    if settings is None:
        return default_balance(config)
    values = dict(setting.partition("=")[::2] for setting in settings)
    known = Balance.__dataclass_fields__
    if settings == ["none"]:
        return Balance()
    if bad := [name for name in values if name not in known]:
        raise ValueError(f"--balance knows {', '.join(known)} and none, not {bad[0]!r}")
    try:
        numbers = {n: int(v) if v.isdigit() else float(v) for n, v in values.items()}
    except ValueError as error:
        raise ValueError(f"--balance takes NAME=NUMBER pairs: {error}") from None
    return Balance(**numbers)


def _data(args: argparse.Namespace, tokenizer: Any) -> Any:
    """What ``--data`` names, packed: joined, or mixed by ``--weights``."""
    from deepseek_mini.data import mix, pack

    if args.weights is None:
        return pack(_corpus(args.data), tokenizer, args.seq_len)
    if not len(args.weights) == len(args.data) == len(set(args.data)):
        raise ValueError(
            f"--weights gives {len(args.weights)} numbers for --data with "
            f"{len(set(args.data))} different texts: one is needed for each"
        )
    packed = [pack(_corpus([name]), tokenizer, args.seq_len) for name in args.data]
    return mix(dict(zip(args.data, zip(packed, args.weights))))


def _corpus(names: list[str]) -> Any:
    """The corpora called "code" and "english", and files; joined if several."""
    from deepseek_mini import data

    known = {"code": data.python_code, "english": data.english}
    parts = [known[name]() for name in dict.fromkeys(names) if name in known]
    files = [name for name in names if name not in known]
    if files:
        parts.append(data.from_files(*files))
    corpus = parts[0]
    for part in parts[1:]:
        corpus = corpus + part
    return corpus


def _open_model(folder: str) -> tuple[Any, Any]:
    from deepseek_mini import Tokenizer, load

    model = load(folder)
    if Path(folder).is_dir():
        return model, Tokenizer.from_file(folder)
    from huggingface_hub import hf_hub_download

    return model, Tokenizer.from_file(hf_hub_download(folder, "tokenizer.json"))


def _reply(
    model: Any,
    tokenizer: Any,
    prompt: list[int],
    args: argparse.Namespace,
    max_new_tokens: int | None,
    said: list[int] | None = None,
) -> Iterator[str]:
    """What the model writes after ``prompt``, in pieces; ``said`` collects its ids."""
    import torch

    from deepseek_mini import stream

    if max_new_tokens is None:  # as much as fits, up to a screenful
        max_new_tokens = max(1, min(200, model.config.max_seq_len - len(prompt)))
    steps = stream(
        model,
        torch.tensor([prompt]),
        max_new_tokens=max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        stop=tokenizer.id("eos"),
        seed=args.seed,
    )
    said = [] if said is None else said
    return _pieces(tokenizer, (token.item() for token in steps), said)


def _pieces(tokenizer: Any, ids: Iterable[int], said: list[int]) -> Iterator[str]:
    """Text as it grows: a character waits until all its bytes are there."""
    shown = ""
    for id in ids:
        said.append(id)
        text = tokenizer.decode(said, skip_special=True)
        if not text.endswith("\ufffd"):
            yield text[len(shown) :]
            shown = text
    yield tokenizer.decode(said, skip_special=True)[len(shown) :]
