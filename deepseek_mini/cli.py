"""The command line: ``python -m deepseek_mini train|generate|chat|count|grade``.

Each command is a function of ``commands``; its errors become one sentence on stderr.
Exit codes: 0 done, 1 it failed on the way, 2 the input was wrong, 130 Ctrl-C.
"""

import argparse
import os
import sys

from deepseek_mini import commands
from deepseek_mini.commands import PROGRAM

# What a user mended would make the command work; any other OSError is our failure.
BAD_INPUT = (
    ValueError,
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


class _Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Show a default wherever there is one to show."""

    def _get_help_string(self, action: argparse.Action) -> str:
        unset = action.default in (None, "") or isinstance(action.default, bool | list)
        return action.help if unset else super()._get_help_string(action)


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code (argparse exits by itself on bad usage)."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(argv)
    args.argv = argv
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has gone (| head): nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (*BAD_INPUT, OSError, FloatingPointError) as error:
        # Our own OSErrors carry a whole sentence, the system's a file name as well.
        whole = getattr(error, "strerror", None) and error.filename is None
        said = error.strerror if whole else error
        print(f"{PROGRAM} {args.command}: {said}", file=sys.stderr)
        return 2 if isinstance(error, BAD_INPUT) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Train, run and measure small DeepSeek models."
    )
    every = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run, about: str, example: str) -> argparse.ArgumentParser:
        added = every.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}.",
            epilog=f"example: {PROGRAM} {name} {example}",
            formatter_class=_Defaults,
        )
        added.set_defaults(run=run)
        return added

    sub = command(
        "train",
        commands.train,
        "train a model on text",
        "--preset deepseek-llm-mini --data code --steps 800 --out runs/first",
    )
    _train_options(sub)
    sub = command(
        "generate",
        commands.generate,
        "continue a text",
        "runs/first --prompt 'import os' --temperature 0.8 --seed 1",
    )
    sub.add_argument("--prompt", default="", help="the text to continue")
    _sampling_options(sub)
    sub = command(
        "chat",
        commands.chat,
        "talk to a model, turn by turn (Ctrl-D leaves)",
        "runs/first --temperature 0.7",
    )
    _sampling_options(sub)
    sub = command(
        "count",
        commands.count,
        "count parameters, FLOPs and KV-cache bytes of a model",
        "deepseek-llm-67b --seq-len 131072",
    )
    sub.add_argument("preset", help="a preset's name, or a folder with config.json")
    sub.add_argument("--seq-len", type=int, help="context (default: the model's own)")
    dtypes = ("bfloat16", "float16", "float32")
    sub.add_argument(
        "--cache-dtype", choices=dtypes, default="bfloat16", help="its type"
    )
    sub = command(
        "grade",
        commands.grade,
        "run the checks of an exercise notebook, with hidden seeds",
        "work/03_rope.ipynb --json",
    )
    sub.description += " This executes the notebook's code: run it where you would run"
    sub.description += " any program of its author."
    sub.add_argument("notebook", help="a notebook of exercises")
    sub.add_argument("--json", action="store_true", help="print JSON, for a program")
    sub = command(
        "train-tokenizer",
        commands.train_tokenizer,
        "train a byte-level BPE tokenizer",
        "--data code english --vocab-size 1024 --out tokenizer.json",
    )
    _data_option(sub, ["code", "english"])
    sub.add_argument("--vocab-size", type=int, default=1024, help="entries in all")
    sub.add_argument("--out", required=True, help="the tokenizer.json to write")
    return parser


def _train_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--preset", default="deepseek-llm-mini", help="the model's shape")
    _data_option(sub, ["code"])
    sub.add_argument(
        "--weights",
        nargs="+",
        type=float,
        metavar="W",
        help="mix the --data in these proportions (default: joined, each by its size)",
    )
    sub.add_argument("--out", required=True, help="the folder of the run")
    sub.add_argument("--resume", action="store_true", help="go on with that run")
    sub.add_argument("--steps", type=int, default=800, help="updates")
    sub.add_argument("--seq-len", type=int, default=128, help="tokens in a row")
    sub.add_argument("--batch-size", type=int, default=4, help="rows in a step")
    sub.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    schedules = ("multi-step", "cosine", "wsd", "constant")
    sub.add_argument(
        "--schedule", choices=schedules, default="multi-step", help="how the rate falls"
    )
    sub.add_argument("--warmup", type=int, default=20, help="steps of rising rate")
    sub.add_argument("--seed", type=_seed, default=0, help="of weights and batches")
    sub.add_argument(
        "--eval-every", type=int, default=100, help="steps between validations"
    )
    sub.add_argument("--save-every", type=int, default=100, help="steps between saves")
    sub.add_argument(
        "--accumulate", type=int, default=1, help="pieces that a step is computed in"
    )
    sub.add_argument(
        "--autocast", action="store_true", help="matrix products in bfloat16"
    )
    sub.add_argument(
        "--compile", action="store_true", help="torch.compile, where it works"
    )
    sub.add_argument(
        "--fp8", action="store_true", help="emulated FP8, as DeepSeek-V3 trains"
    )
    sub.add_argument(
        "--balance",
        nargs="+",
        metavar="NAME=VALUE",
        help="between experts: expert_loss, device_loss, comm_loss, sequence_loss, "
        "bias_speed, bias_until, capacity, n_devices; or none "
        "(default: as the paper of such a model)",
    )
    sub.add_argument(
        "--mtp-weight", type=float, default=0.3, help="of multi-token prediction"
    )
    sub.add_argument("--device", default="cpu", help="cpu, cuda or mps")


def _seed(text: str) -> int:
    """A seed as torch takes it."""
    try:
        seed = int(text)
    except ValueError:
        seed = -1
    if not 0 <= seed < 2**64:
        rule = "a seed must be a whole number from 0 to 2**64 - 1"
        raise argparse.ArgumentTypeError(f"{rule}, not {text!r}")
    return seed


def _data_option(sub: argparse.ArgumentParser, default: list[str]) -> None:
    sub.add_argument(
        "--data",
        nargs="+",
        default=default,
        metavar="code|english|FILE",
        help="standard-library code, English about Python, or UTF-8 text files "
        f"(default: {' '.join(default)})",
    )


def _sampling_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("folder", help="a model's folder, or its id on the hub")
    sub.add_argument("--max-new-tokens", type=int, help="how much to write")
    sub.add_argument("--temperature", type=float, default=0.8, help="0: the likeliest")
    sub.add_argument("--top-k", type=int, help="draw from the k likeliest")
    sub.add_argument("--top-p", type=float, help="… from the likeliest that hold p")
    sub.add_argument(
        "--min-p", type=float, help="… from those above p times the likeliest"
    )
    sub.add_argument("--seed", type=_seed, help="the same seed, the same text")
