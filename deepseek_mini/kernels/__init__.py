"""Kernels in Triton for the released models' sizes, one operation a file.

Each file holds the kernel, the function that launches it, `reference` (the same in
plain PyTorch) and the tiles for each GPU; `cases/` has what it is tried at, and its
demonstration:

    python -m deepseek_mini.kernels.cases.rmsnorm

On a GPU kernels are compiled. With TRITON_INTERPRET=1 in the environment when Python
starts they are interpreted instead, block by block in NumPy, on any Linux machine:
slow, and enough to see that they are right. Nothing else in deepseek_mini imports
Triton; this package needs it.
"""

import os

# Triton 3.10 will no longer fuse multiplications into additions unless told to.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

try:
    import triton
except ImportError as error:
    raise ImportError(
        "deepseek_mini.kernels needs Triton, which exists for Linux alone: "
        "`pip install triton` (with a GPU it comes with PyTorch). "
        "All else in deepseek_mini works without it."
    ) from error

from deepseek_mini.kernels import interpreter

if triton.knobs.runtime.interpret:
    interpreter.install()
