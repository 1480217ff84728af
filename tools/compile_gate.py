"""Compile every kernel for GPUs that are not here, and look at the machine code.

    python -m tools.compile_gate [KERNEL ...] [--arch 90]

Triton brings its compiler and NVIDIA's assembler along, so no GPU is needed. For each
kernel's `GATES` (in deepseek_mini/kernels/cases) a line says which tensor-core
instructions it became, how many registers it takes, what spilled, and its shared
memory. Exit status 1 when one is not as declared. Not with TRITON_INTERPRET.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import deepseek_mini.kernels.cases
from deepseek_mini.kernels.launch import Gate, tile_for

ARCHITECTURES = (80, 90, 100)  # A100; H100 and H200; B200
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}  # bytes a block
OPTIONS = ("num_warps", "num_stages", "num_ctas", "maxnreg")
# Tensor-core instructions as nvdisasm spells them, older ones first.
TENSOR_CORE = re.compile(r"\b(HMMA|IMMA|QMMA|HGMMA|QGMMA|IGMMA|UTC[A-Z]*MMA)\b")
BIN = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Built:
    """What a kernel became: counts of tensor-core instructions, registers a thread,
    bytes of stack a thread, bytes of shared memory a block, seconds to compile."""

    instructions: Counter
    registers: int
    stack: int
    shared: int
    seconds: float

    def __str__(self) -> str:
        named = " ".join(f"{n}x{k}" for k, n in sorted(self.instructions.items()))
        return (
            f"{named or '-':<22} {self.registers:>3} registers  stack {self.stack:>4}  "
            f"shared {self.shared / 1024:>5.1f} KB  {self.seconds:.1f} s"
        )


def modules() -> list[str]:
    """The modules of cases, by name."""
    path = deepseek_mini.kernels.cases.__path__
    return sorted(m.name for m in pkgutil.iter_modules(path))


def gates(module: str) -> list[Gate]:
    """What a module declares."""
    return load(module).GATES


def load(module: str) -> ModuleType:
    """One of the modules."""
    return importlib.import_module(f"deepseek_mini.kernels.cases.{module}")


def build(gate: Gate, architecture: int) -> Built:
    """Compile one kernel for one architecture. Raises what Triton raises."""
    tile = tile_for(gate.tiles, architecture)
    options = {name: tile[name] for name in OPTIONS if name in tile} | gate.options
    sizes = {name: size for name, size in tile.items() if name not in OPTIONS}
    constexprs = {**gate.constexprs, **sizes}
    source = ASTSource(gate.kernel, *_arguments(gate, constexprs))
    start = time.perf_counter()
    target = GPUTarget("cuda", architecture, 32)
    compiled = triton.compile(source, target=target, options=options)
    seconds = time.perf_counter() - start
    usage, code = _disassemble(compiled.asm["cubin"])
    return Built(
        Counter(TENSOR_CORE.findall(code)),
        int(re.search(r"REG:(\d+)", usage)[1]),
        int(re.search(r"STACK:(\d+)", usage)[1]),
        compiled.metadata.shared,
        seconds,
    )


def _arguments(gate: Gate, constexprs: dict) -> tuple[dict, dict, dict]:
    """Triton's signature, constants and attributes."""
    names = gate.kernel.arg_names
    given = {*gate.signature, *constexprs}
    if given != set(names):
        raise ValueError(
            f"{gate.name}: the kernel takes {', '.join(names)}, but the gate gives "
            f"{', '.join(sorted(given))}; they differ in {given ^ set(names)}"
        )
    signature, attributes = {}, {}
    for index, name in enumerate(names):
        kind, _, divisor = gate.signature.get(name, "constexpr").partition(":")
        signature[name] = kind
        if kind.startswith("*") or divisor:
            attributes[(index,)] = [["tt.divisibility", int(divisor or 16)]]
    return signature, constexprs, attributes


def _disassemble(cubin: bytes) -> tuple[str, str]:
    """What cubin uses, and its machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        lines = ([BIN / "cuobjdump", "-res-usage"], [BIN / "nvdisasm", "-c"])
        done = [
            subprocess.run(
                [*line, file.name], capture_output=True, text=True, check=True
            )
            for line in lines
        ]
    return done[0].stdout, done[1].stdout


def faults(gate: Gate, architecture: int, built: Built) -> list[str]:
    """In what the kernel is not as declared, in words."""
    found = []
    wanted = gate.instruction.get(architecture)
    if wanted and not built.instructions[wanted]:
        found.append(f"there is no {wanted}")
    if built.stack > (allowed := gate.stack.get(architecture, 0)):
        found.append(f"the stack takes {built.stack} bytes, not {allowed}")
    if built.shared > (limit := SHARED_LIMIT[architecture]):
        found.append(f"shared memory is {built.shared} bytes, over {limit}")
    return found


def check(gate: Gate, architecture: int) -> tuple[str, list[str]]:
    """A line about one kernel on one architecture, and what is wrong with it."""
    if refused := gate.refused.get(architecture):
        try:
            build(gate, architecture)
        except Exception as error:
            told = _chain(error)
            wrong = [] if refused in told else [f"refused, but for: {told}"]
            return f"refused, as it should be: {refused}", wrong
        return "compiled", [f"it should not compile ({refused})"]
    built = build(gate, architecture)
    return str(built), faults(gate, architecture, built)


def _chain(error: BaseException | None) -> str:
    """An error's message and those of what caused it."""
    said = []
    while error is not None:
        said.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(said)


def entries(names: list[str] | None = None) -> Iterator[tuple[str, Gate]]:
    """(module, gate) of the named modules, or of all."""
    for module in names or modules():
        for gate in gates(module):
            yield module, gate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kernels", nargs="*", metavar="KERNEL")
    parser.add_argument("--arch", type=int, choices=ARCHITECTURES, action="append")
    args = parser.parse_args()
    failed = 0
    for module, gate in entries(args.kernels):
        print(f"{module}: {gate.name}")
        for architecture in args.arch or ARCHITECTURES:
            line, wrong = check(gate, architecture)
            print(f"  sm_{architecture:<4} {line}", *wrong, sep="\n    WRONG: ")
            failed += bool(wrong)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
