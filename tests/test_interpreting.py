"""Kernels interpreted in a block: counted, watched, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from deepseek_mini.lesson.interpreting import HERE, interpreted, tl, triton
from deepseek_mini.lesson.watch import MemoryFault

needs_triton = pytest.mark.skipif(not HERE, reason="there is no Triton here")


@triton.jit
def twice_kernel(x, out, n, BLOCK: tl.constexpr, MASK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    loads, stores = MASK
    h = tl.load(x + i, (i < n) if loads else (i > -1000), 0.0)
    tl.store(out + i, 2 * h, (i < n) if stores else (i > -1000))


@triton.jit
def meeting_kernel(x, out, KIND: tl.constexpr):
    p = tl.program_id(0)
    if KIND == "store":
        tl.store(out, tl.load(x + p))
    elif KIND == "load":  # what the program before has stored
        tl.store(out + p + 1, tl.load(out + p) + 1)
    elif KIND == "store after load":
        tl.store(out + p, tl.load(out + p + 1))
    elif KIND == "atomic":
        tl.atomic_add(out, tl.load(x + p))
    else:  # one's own place, as often as one likes
        tl.store(out + p, tl.load(x + p))
        tl.store(out + p, tl.load(out + p) + 1)


@triton.jit
def product_kernel(a, b, out):
    m, n = tl.arange(0, 4)[:, None], tl.arange(0, 4)[None, :]
    x, y = tl.load(a + m * 4 + n), tl.load(b + m * 4 + n)
    tl.store(out + m * 4 + n, tl.dot(x, y, input_precision="ieee"))


@triton.jit
def failing_kernel(out):
    tl.store(out, tl.sum(tl.load(out)).no_such_thing)


@triton.jit
def sum_kernel(x, out, D, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    row = tl.program_id(1) * D
    tl.store(out + tl.program_id(1), tl.sum(tl.load(x + row + i, i < D, 0.0), axis=0))


@triton.jit
def whole_tile_kernel(x, out, n, OTHER: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    inside = i < n
    h = tl.load(x + i, inside, 0.0) if OTHER else tl.load(x + i, inside)
    tl.store(out + i, h)


def twice(n=10, mask=(True, True)):
    x, out = torch.randn(n), torch.full((n,), torch.nan)
    with interpreted() as seen:
        twice_kernel[(triton.cdiv(n, 4),)](x, out, n, BLOCK=4, MASK=mask)
    assert torch.equal(out, 2 * x)
    return seen


@needs_triton
def test_what_is_not_masked_is_counted():
    seen = twice()
    assert str(seen) == "3 programs, 40 bytes loaded, 40 bytes stored"
    assert (seen.programs, seen.moved, seen.flops) == (3, 80, 0)
    assert str(twice(4)) == "1 program, 16 bytes loaded, 16 bytes stored"
    a, b, out = torch.randn(3, 4, 4).clone().unbind()
    with interpreted() as seen:
        product_kernel[(1,)](a.clone(), b.clone(), out)
    assert seen.flops == 2 * 4**3 and str(seen).endswith("128 FLOP in tl.dot")
    assert torch.allclose(out, a @ b)


@needs_triton
def test_launches_of_a_block_are_added_up():
    x, out = torch.randn(3, 6), torch.empty(3)
    with interpreted() as seen:
        for _ in range(2):
            sum_kernel[(1, 3)](x, out, 6, BLOCK=8)
    assert torch.allclose(out, x.sum(1))
    assert (seen.programs, seen.loaded, seen.stored) == (6, 144, 24)


@needs_triton
@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ((False, True), "program 2 loads element 10 of x and 1 more, but x has the"),
        ((True, False), "program 2 stores element 10 of out and 1 more, but out has"),
    ],
)
def test_an_address_outside_is_a_fault(mask, said):
    with pytest.raises(MemoryFault, match=said) as caught:
        twice(mask=mask)
    assert caught.value.kind == "outside"


@needs_triton
def test_a_fault_names_program_and_tensor():
    x, out = torch.randn(4, 6), torch.empty(3)
    said = r"program \(0, 3\) stores element 3 of out, but out has the elements 0 to 2"
    with pytest.raises(MemoryFault, match=said), interpreted():
        sum_kernel[(1, 4)](x, out, 6, BLOCK=8)
    said = "loads element 18 of x and 5 more"
    with pytest.raises(MemoryFault, match=said), interpreted():
        sum_kernel[(1, 4)](x[:3].clone(), torch.empty(4), 6, BLOCK=8)


@needs_triton
@pytest.mark.parametrize("kind", ["store", "load", "store after load"])
def test_programs_that_meet_are_a_fault(kind):
    x, out = torch.randn(3), torch.zeros(5)
    with pytest.raises(MemoryFault, match="another program") as caught, interpreted():
        meeting_kernel[(3,)](x, out, KIND=kind)
    assert caught.value.kind == "race"
    with interpreted():  # one program has nobody to meet
        meeting_kernel[(1,)](x, out, KIND=kind)


FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn)


@needs_triton
@pytest.mark.parametrize("dtype", [*FLOATS, torch.float8_e5m2, torch.int32, torch.int8])
def test_masked_lanes_without_other_hold_no_useful_number(dtype):
    """On a GPU they may hold anything; in Triton's interpreter it is 0."""
    for other in (False,) if dtype.itemsize == 1 else (True, False):
        x, out = torch.ones(3).to(dtype), torch.ones(4).to(dtype)
        with interpreted():
            whole_tile_kernel[(1,)](x, out, 3, OTHER=other, BLOCK=4)
        values = out.double()
        assert values[:3].tolist() == [1, 1, 1]
        undefined = values[3].isnan() if dtype.is_floating_point else values[3] > 40
        assert values[3] == 0 if other else undefined


@needs_triton
def test_who_stored_what_and_in_what_tiles():
    x, out = torch.randn(10), torch.empty(12)
    with interpreted() as seen:
        twice_kernel[(3,)](x, out, 10, BLOCK=4, MASK=(True, True))
    assert seen.writers["out"].tolist() == [0] * 4 + [1] * 4 + [2] * 2 + [-1] * 2
    assert set(seen.writers["x"]) == {-1} and seen.tiles == {"x": 4, "out": 4}
    with interpreted() as seen:
        sum_kernel[(1, 3)](torch.randn(3, 6), out[:3], 6, BLOCK=8)
    assert seen.writers["out"].tolist() == [0, 1, 2]
    assert seen.tiles == {"x": 8, "out": 1}


@needs_triton
@pytest.mark.parametrize("kind", ["atomic", "own"])
def test_programs_that_do_not_meet(kind):
    x, out = torch.randn(3), torch.zeros(3)
    with interpreted():
        meeting_kernel[(3,)](x, out, KIND=kind)
    wanted = x + 1 if kind == "own" else torch.tensor([x.sum(), 0, 0])
    assert torch.allclose(out, wanted)


@needs_triton
def test_views_of_one_tensor_stay_views():
    """The kernel reads the second half and writes into the first."""
    both = torch.arange(8.0)
    with interpreted():
        twice_kernel[(1,)](both[4:], both[:4], 4, BLOCK=4, MASK=(True, True))
    assert both.tolist() == [8, 10, 12, 14, 4, 5, 6, 7]


@needs_triton
def test_nothing_is_left_behind():
    from triton.runtime import interpreter as stock
    from triton.runtime.jit import JITFunction

    from deepseek_mini.kernels import launch

    owners = (tl, tl.core, tl.math, tl.standard, tl.tensor, JITFunction, launch)
    owners += (stock.InterpreterBuilder, stock.GridExecutor)
    twice()  # the interpreter is mended once, for good
    before = [dict(vars(owner)) for owner in owners]
    twice()
    with pytest.raises(AttributeError, match="no_such_thing"), interpreted():
        failing_kernel[(1,)](torch.zeros(1))
    names = {"np", "ast", "stock"}  # Triton puts its own imports beside a kernel's
    for owner, old in zip(owners, before):
        changed = {k for k, v in vars(owner).items() if old.get(k) is not v}
        assert changed <= names or not changed & old.keys(), (owner, changed)


@needs_triton
def test_what_was_interpreted_still_compiles():
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("kernels are interpreted in this process")
    x, out = torch.randn(1, 6), torch.empty(1)
    with interpreted():
        sum_kernel[(1, 1)](x, out, 6, BLOCK=8)
    types = {"x": "*fp32", "out": "*fp32", "D": "i32", "BLOCK": "constexpr"}
    source = ASTSource(sum_kernel, types, {"BLOCK": 8})
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]


def _cases():
    if HERE:
        from tools.compile_gate import load, modules

        for module in modules():
            cases = getattr(load(module), "cases", None)
            for case in cases("cpu", True) if cases else ():
                yield pytest.param(case, id=case.name)


@needs_triton
@pytest.mark.parametrize("case", list(_cases()))
def test_kernels_stay_in_their_tensors_and_do_not_meet(case):
    """What tests/kernels compares, here under the watch."""
    torch.manual_seed(0)
    with interpreted() as seen:
        assert case.error(case.make()) <= case.bound
    assert seen.programs > 0


WITH_VARIABLE = """
import torch
from deepseek_mini.lesson.interpreting import interpreted, tl, triton
from deepseek_mini.lesson.watch import MemoryFault

@triton.jit
def sum_kernel(x, out, D, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out, tl.sum(tl.load(x + i, i < D, 0.0), axis=0))

assert type(sum_kernel).__name__ == "InterpretedFunction"
x, out = torch.arange(6.0), torch.empty(1)
with interpreted() as seen:
    sum_kernel[(1,)](x, out, 6, BLOCK=8)
print(out.item(), seen)
try:
    with interpreted():
        sum_kernel[(2,)](x, out, 6, BLOCK=8)
except MemoryFault as fault:
    print(fault.kind)
"""


@needs_triton
def test_with_the_variable_it_works_as_well(tmp_path):
    (path := tmp_path / "with_variable.py").write_text(WITH_VARIABLE)
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    line = [sys.executable, path]
    done = subprocess.run(line, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = ["15.0 1 program, 24 bytes loaded, 4 bytes stored", "race"]
    assert done.stdout.splitlines() == told


ABSENT = """
import sys

sys.modules["triton"] = None  # as where there is none
from deepseek_mini.lesson import check
from deepseek_mini.lesson.interpreting import interpreted, tl, triton

@triton.jit
def add_kernel(x, y, BLOCK: tl.constexpr):
    tl.store(x, tl.load(y))

with interpreted():
    add_kernel[(triton.cdiv(10, 4),)](1, 2, BLOCK=4)
    raise AssertionError("the block is left at the launch")
with interpreted():
    from deepseek_mini.kernels.vector_add import add
with interpreted() as seen:
    print(seen)
check("20.2", add_kernel)
"""


def test_where_there_is_no_triton(tmp_path):
    (path := tmp_path / "absent.py").write_text(ABSENT)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == said[1]
    assert said[0].startswith("Kernels are not interpreted here: Triton exists for")
    assert said[2].startswith("0 programs")
    assert said[3].startswith("20.2: not yet - kernels are checked by Triton's")
    assert "Colab" in said[4]
