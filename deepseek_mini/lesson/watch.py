"""What an interpreted kernel loads and stores: counted, and checked.

Two faults are found that Triton's interpreter does not see. It follows an address
outside of every tensor, as a GPU does. And it runs one program after the other, so two
programs that use one place, at least one of them storing there, give the result of that
order, where a GPU gives that of any.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import ModuleType
from unittest.mock import patch

import numpy as np
import torch

_GUARD = 1 << 20  # bytes around each tensor, so that what lies behind is no other


class MemoryFault(Exception):
    """A kernel used memory that it must not use; `kind` is "outside" or "race"."""

    def __init__(self, message: str, kind: str):
        super().__init__(message)
        self.kind = kind


@dataclass
class Traffic:
    """Bytes that kernels loaded and stored, as if there were no cache; what is masked
    does not count. flops: multiplications and additions of tl.dot.

    Of the last launch, by the names of its tensors: writers, the program that stored
    each element, -1 where none did; tiles, the lanes of the widest load or store.
    """

    programs: int = 0
    loaded: int = 0
    stored: int = 0
    flops: int = 0
    writers: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    tiles: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def moved(self) -> int:
        """Bytes in all."""
        return self.loaded + self.stored

    def __str__(self) -> str:
        text = (
            f"{self.programs:,} program{'s' if self.programs != 1 else ''}, "
            f"{self.loaded:,} bytes loaded, {self.stored:,} bytes stored"
        )
        return text + (f", {self.flops:,} FLOP in tl.dot" if self.flops else "")


_NOBODY, _SEVERAL = -1, -2


@dataclass
class _Extent:
    """A tensor of a launch: where it is, and which program used each byte of it.

    Tensors that share their memory share `readers` and `writers` too.
    """

    name: str
    first: int  # the address of its first byte
    end: int  # the address behind its last
    itemsize: int
    memory: int  # the address to which readers[0] belongs
    readers: np.ndarray
    writers: np.ndarray


class Watch:
    """Stands between Triton's interpreter, `stock`, and the memory."""

    def __init__(self, seen: Traffic, stock: ModuleType):
        self.seen, self.stock = seen, stock
        self.extents: list[_Extent] = []

    def patches(self) -> Iterator:
        """Context managers that put the watch in place."""
        builder, executor = self.stock.InterpreterBuilder, self.stock.GridExecutor
        load, store = builder.create_masked_load, builder.create_masked_store
        dot, rmw = builder.create_dot, builder.create_atomic_rmw
        index, launch = builder.set_grid_idx, executor.__call__

        def masked_load(self_, ptrs, mask, *rest, **how):
            self._used(ptrs.data, mask.data, stores=False)
            return load(self_, ptrs, mask, *rest, **how)

        def masked_store(self_, ptrs, value, mask, *rest, **how):
            self._used(ptrs.data, mask.data, stores=True)
            return store(self_, ptrs, value, mask, *rest, **how)

        def atomic_rmw(self_, operation, ptr, value, mask, *rest):
            self._atomic(ptr.data, mask.data)
            return rmw(self_, operation, ptr, value, mask, *rest)

        def create_dot(self_, a, b, *rest):
            self.seen.flops += 2 * a.data.size * b.data.shape[-1]
            return dot(self_, a, b, *rest)

        def set_grid_idx(self_, *where):
            self.seen.programs += 1
            return index(self_, *where)

        def call(self_, *args, **kwargs):
            with self._guarded(self_.arg_names, args, kwargs) as (args, kwargs):
                try:
                    return launch(self_, *args, **kwargs)
                except self.stock.InterpreterError as error:
                    raise _first_cause(error) from None

        yield patch.object(builder, "create_masked_load", masked_load)
        yield patch.object(builder, "create_masked_store", masked_store)
        yield patch.object(builder, "create_atomic_rmw", atomic_rmw)
        yield patch.object(builder, "create_dot", create_dot)
        yield patch.object(builder, "set_grid_idx", set_grid_idx)
        yield patch.object(executor, "__call__", call)

    @contextmanager
    def _guarded(self, names: list[str], args: tuple, kwargs: dict) -> Iterator[tuple]:
        """The arguments of a launch, tensors moved to where nothing is near them.

        What the kernel stored is copied back at the end.
        """
        self.extents, self.seen.tiles, moved = [], {}, {}
        there = [self._moved(name, x, moved) for name, x in zip(names, args)]
        named = {name: self._moved(name, x, moved) for name, x in kwargs.items()}
        yield [*there, *args[len(names) :]], named
        self.seen.writers = {
            e.name: e.writers[e.first - e.memory : e.end - e.memory : e.itemsize]
            for e in self.extents
        }
        for original, copy, _, _ in moved.values():
            original.copy_(copy[_GUARD:-_GUARD])

    def _moved(self, name: str, x: object, moved: dict) -> object:
        base = getattr(x, "base", None)
        if isinstance(base, torch.Tensor) and hasattr(x, "block_shape"):  # a descriptor
            return replace(x, base=self._moved(name, base, moved))
        if not isinstance(x, torch.Tensor):
            return x
        storage = x.untyped_storage()
        if storage.data_ptr() not in moved:
            original = torch.empty(0, dtype=torch.uint8).set_(storage)  # [bytes]
            copy = torch.empty(storage.nbytes() + 2 * _GUARD, dtype=torch.uint8)
            copy[_GUARD:-_GUARD] = original
            users = (np.full(storage.nbytes(), _NOBODY, np.int32) for _ in range(2))
            moved[storage.data_ptr()] = original, copy, *users
        _, copy, readers, writers = moved[storage.data_ptr()]
        size, start = x.element_size(), _GUARD // x.element_size() + x.storage_offset()
        there = torch.empty(0, dtype=x.dtype)
        there.set_(copy.untyped_storage(), start, x.size(), x.stride())
        steps = zip(x.size(), x.stride())
        length = 1 + sum((n - 1) * s for n, s in steps) if x.numel() else 0
        first, memory = there.data_ptr(), copy.data_ptr() + _GUARD
        end = first + length * size
        extent = _Extent(name, first, end, size, memory, readers, writers)
        self.extents.append(extent)
        return there

    def _used(self, pointers: np.ndarray, mask: np.ndarray, stores: bool) -> None:
        """Count and check what the program now running loads or stores."""
        addresses = self._addresses(pointers, mask)
        for extent, here in self._placed(addresses, "stores" if stores else "loads"):
            if stores:
                self.seen.stored += here.size * extent.itemsize
            else:
                self.seen.loaded += here.size * extent.itemsize
            lanes = max(self.seen.tiles.get(extent.name, 0), np.size(pointers))
            self.seen.tiles[extent.name] = lanes
            self._meets(extent, here - extent.memory, stores)

    def _atomic(self, pointers: np.ndarray, mask: np.ndarray) -> None:
        """Programs may meet in what is changed in one piece."""
        for extent, here in self._placed(self._addresses(pointers, mask), "changes"):
            self.seen.loaded += here.size * extent.itemsize
            self.seen.stored += here.size * extent.itemsize

    def _addresses(self, pointers: np.ndarray, mask: np.ndarray) -> np.ndarray:
        pointers = np.asarray(pointers)
        mask = np.broadcast_to(np.asarray(mask, dtype=bool), pointers.shape)
        return pointers[mask].astype(np.int64)  # [n]

    def _placed(self, addresses: np.ndarray, does: str) -> Iterator[tuple]:
        """The addresses by the tensor that they are in; all must be in one."""
        left = addresses
        for extent in self.extents:
            inside = (left >= extent.first) & (left < extent.end)
            if inside.any():
                yield extent, left[inside]
                left = left[~inside]
        if left.size:
            raise MemoryFault(self._outside(left, does), "outside")

    def _outside(self, left: np.ndarray, does: str) -> str:
        program = f"{self._program()} {does}"
        near = [e for e in self.extents if abs(left[0] - e.first) < 2**40]
        if not near:
            return f"{program} something that is in no tensor"
        distances = [max(e.first - left[0], left[0] - e.end) for e in near]
        extent = near[int(np.argmin(distances))]
        index = (left[0] - extent.first) // extent.itemsize
        length = (extent.end - extent.first) // extent.itemsize
        more = f" and {left.size - 1} more" if left.size > 1 else ""
        return (
            f"{program} element {index:,} of {extent.name}{more}, but {extent.name} "
            f"has the elements 0 to {length - 1:,}"
        )

    def _meets(self, extent: _Extent, at: np.ndarray, stores: bool) -> None:
        """A fault if another program stored here, or loaded what is stored now."""
        place = self.stock.interpreter_builder.grid_idx
        me = int(np.ravel_multi_index(place, self._grid()))
        readers, writers = extent.readers, extent.writers
        others = (writers[at] != _NOBODY) & (writers[at] != me)
        if stores:
            others |= (readers[at] != _NOBODY) & (readers[at] != me)
        if others.any():
            index = (at[others][0] + extent.memory - extent.first) // extent.itemsize
            raise MemoryFault(
                f"{self._program()} {'stores' if stores else 'loads'} element "
                f"{index:,} of {extent.name}, which another program "
                f"{'uses' if stores else 'stores'} too: on a GPU either may be first",
                "race",
            )
        if stores:
            writers[at] = me
        else:
            known = readers[at]
            readers[at] = np.where((known == _NOBODY) | (known == me), me, _SEVERAL)

    def _grid(self) -> tuple[int, int, int]:
        return self.stock.interpreter_builder.grid_dim

    def _program(self) -> str:
        """The program now running: "program 2", in a grid of rows "program (1, 2)"."""
        grid, place = self._grid(), self.stock.interpreter_builder.grid_idx
        axes = max([1, *(i + 1 for i in range(3) if grid[i] > 1)])
        if axes == 1:
            return f"program {place[0]}"
        return f"program {tuple(int(i) for i in place[:axes])}"


def _first_cause(error: BaseException) -> BaseException:
    """What was raised inside of a kernel: each call of a function wraps it once."""
    kind = type(error)
    while isinstance(error, kind) and error.__cause__ is not None:
        error = error.__cause__
    return error
