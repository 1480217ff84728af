"""Every kernel compiles, without a GPU, to the instructions that it should."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

pytest.importorskip("triton", reason="there is no Triton here")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("kernels are interpreted in this process", allow_module_level=True)

from tools import compile_gate as tool

ENTRIES = {f"{module}: {gate.name}": gate for module, gate in tool.entries()}


@pytest.mark.parametrize("architecture", tool.ARCHITECTURES)
@pytest.mark.parametrize("name", ENTRIES)
def test_kernel_compiles_as_declared(name, architecture):
    line, wrong = tool.check(ENTRIES[name], architecture)
    assert not wrong, f"{line}\n" + "\n".join(wrong)


def test_every_kernel_declares_gates():
    assert {"rmsnorm", "fp8_matmul"} <= set(tool.modules())
    assert all(tool.gates(module) for module in tool.modules())


def test_the_gate_says_what_is_wrong():
    gate = next(iter(ENTRIES.values()))
    built = tool.build(gate, 90)
    assert not tool.faults(gate, 90, built)
    strict = replace(gate, instruction={90: "UTCQMMA"})
    assert tool.faults(strict, 90, built) == ["there is no UTCQMMA"]
    spilling = replace(built, stack=8, shared=300_000)
    assert len(tool.faults(gate, 90, spilling)) == 2
    refusing = replace(gate, refused={90: "no such thing"})
    assert tool.check(refusing, 90)[1] == ["it should not compile (no such thing)"]
    with pytest.raises(ValueError, match="they differ in"):
        tool.build(replace(gate, signature={**gate.signature, "nothing": "i32"}), 90)
