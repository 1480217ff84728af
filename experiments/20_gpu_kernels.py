"""Tiles on a CPU: an RMSNorm in one piece, and some rows at a time.

    python experiments/20_gpu_kernels.py

A residual addition and RMSNorm of 2,048 x 7,168 numbers in float32, on one thread, as
five operations of PyTorch that each go over all they are given. They are given all rows
at once, or a tile of 1 to 1,024 rows after the other: the same arithmetic, but what an
operation leaves of a small tile is still in the cache for the next. "fresh": each makes
a new tensor, as one writes it; "reused": it writes into one that exists. Beside them:
copying what is read and written at least, and a product of matrices.

Times are the processor's, the least of several rounds in which all are taken in turn.
The log goes to deepseek_mini/assets/logs/20_gpu_kernels.jsonl: a line that says what
ran where, then one for each kind and size, in milliseconds. Lesson 20 plots it.
"""

import argparse
import datetime
import json
import time
from pathlib import Path

import torch
from shared import processor
from torch import Tensor

LOG = Path(__file__).parent.parent / "deepseek_mini/assets/logs/20_gpu_kernels.jsonl"
ROWS, WIDTH, EPS = 2048, 7168, 1e-6
TILES = (1, 2, 4, 8, 16, 32, 64, 256, 1024, 2048)
PRODUCT = 1024


def fresh(x: Tensor, residual: Tensor, w: Tensor, h: Tensor, y: Tensor) -> None:
    """h = residual + x, y = RMSNorm(h): temporary results in new tensors."""
    total = residual + x
    inverse = torch.rsqrt(total.square().mean(-1, keepdim=True) + EPS)
    h.copy_(total)
    y.copy_(total * inverse * w)


def reused(x: Tensor, residual: Tensor, w: Tensor, h: Tensor, y: Tensor) -> None:
    """The same: temporary results in y."""
    torch.add(residual, x, out=h)
    torch.square(h, out=y)
    inverse = torch.rsqrt(y.mean(-1, keepdim=True) + EPS)
    torch.mul(h, inverse, out=y)
    y.mul_(w)


def in_tiles(function, rows: int, tensors: list[Tensor], w: Tensor) -> None:
    for start in range(0, ROWS, rows):
        x, residual, h, y = (t[start : start + rows] for t in tensors)
        function(x, residual, w, h, y)


def measure(rounds: int) -> dict[tuple[str, int], float]:
    """Milliseconds of each kind and tile."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tensors = list(torch.randn(4, ROWS, WIDTH).unbind())
    x, residual, h, y = tensors
    w = 1 + 0.3 * torch.randn(WIDTH)
    a = torch.randn(PRODUCT, PRODUCT)
    runs = {("copy", ROWS): lambda: (h.copy_(residual), y.copy_(x))}
    runs["product", PRODUCT] = lambda: a @ a
    for function in (fresh, reused):
        for rows in TILES:
            name = function.__name__, rows
            runs[name] = lambda f=function, n=rows: in_tiles(f, n, tensors, w)
    fresh(x, residual, w, h, y)
    wanted = y.clone()
    least = dict.fromkeys(runs, float("inf"))
    for turn in range(rounds):
        for name, run in runs.items():
            began = time.process_time()
            run()
            least[name] = min(least[name], 1e3 * (time.process_time() - began))
            if turn == 0 and name[0] in ("fresh", "reused"):
                torch.testing.assert_close(y, wanted)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    rounds = parser.parse_args().rounds
    began = time.process_time()
    least = measure(rounds)
    head = {
        "hardware": processor(),
        "threads": 1,
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "seconds": round(time.process_time() - began, 1),
        "rows": ROWS,
        "width": WIDTH,
        "rounds": rounds,
    }
    with LOG.open("w", encoding="utf-8") as file:
        print(json.dumps(head), file=file)
        for (kind, rows), ms in least.items():
            line = {"kind": kind, "rows": rows, "ms": round(ms, 2)}
            print(json.dumps(line), file=file)
            print(line)


if __name__ == "__main__":
    main()
