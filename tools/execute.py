"""Run a notebook's cells in this interpreter and store outputs that stay the same."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from traitlets import default

from tools import png
from tools.source import Cell

TIMEOUT = 120  # seconds a cell; the tests allow the same
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
WIDGET = "application/vnd.jupyter.widget-view+json"
# Stored instead of a widget's repr; tests/nbval_sanitize.cfg knows the sentence.
WIDGET_NOTE = "[interactive: run this cell to use it]"
WIDGET_REPR = re.compile(r"[A-Z][A-Za-z]+\(")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CARRIAGE_RETURN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)


class NotebookFailed(RuntimeError):
    """A cell raised, took too long, or killed its kernel."""


class ThisPython(KernelSpecManager):
    """Answers every kernel name with the interpreter that runs this code."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=[*argv, "--log-level=40"], language="python")


class KernelManager(AsyncKernelManager):
    """A kernel manager for this interpreter, whatever kernels are installed."""

    @default("kernel_spec_manager")
    def _this_python(self) -> ThisPython:
        return ThisPython(parent=self)


def environment(scratch: str) -> dict[str, str]:
    """What a kernel sees: one thread, no network hub, no personal settings."""
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "DEEPSEEK_MINI_PROGRESS": "off",
        "IPYTHONDIR": scratch,
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def new_notebook(cells: list[Cell]) -> NotebookNode:
    """An nbformat notebook of these cells, not yet run."""
    notebook = nbformat.v4.new_notebook()
    notebook.nbformat_minor = 5
    for cell in cells:
        make = getattr(nbformat.v4, f"new_{cell.kind}_cell")
        metadata = {"tags": list(cell.tags)} if cell.tags else {}
        notebook.cells.append(make(cell.text, id=cell.id, metadata=metadata))
    return notebook


def execute(notebook: NotebookNode, folder: Path, name: str) -> None:
    """Run every cell in `folder` and normalise; NotebookFailed names the cell."""
    with tempfile.TemporaryDirectory() as scratch:
        client = NotebookClient(
            notebook,
            kernel_manager_class=KernelManager,
            timeout=TIMEOUT,
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": str(folder)}},
        )
        try:
            client.execute(env=environment(scratch))
        except CellExecutionError as error:
            raise NotebookFailed(f"{name}: {failure(notebook, error)}") from None
        except CellTimeoutError as error:
            first = str(error).splitlines()[0]
            raise NotebookFailed(f"{name}: {first}") from None
        except DeadKernelError:
            raise NotebookFailed(f"{name}: the kernel died") from None
    normalise(notebook)


def failure(notebook: NotebookNode, error: CellExecutionError) -> str:
    """The number and the text of the cell that raised, and its traceback."""
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", ()):
            if output.output_type == "error" and output.evalue == error.evalue:
                trace = COLOUR.sub("", "\n".join(output.traceback))
                return f"cell {number} failed\n{cell.source}\n\n{trace}"
    return str(error)


def normalise(notebook: NotebookNode) -> None:
    """Remove everything that two runs of the same code do not share."""
    notebook.metadata = NotebookNode(
        kernelspec=NotebookNode(KERNEL), language_info=NotebookNode(name="python")
    )
    count = 0
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.get("tags")
        cell.metadata = NotebookNode(tags=tags) if tags else NotebookNode()
        if cell.execution_count is not None:
            count += 1
            cell.execution_count = count
        cell.outputs = [tidy(out, count) for out in merge_streams(cell.outputs)]


def merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """One output for stdout and one for stderr, as a reader sees them."""
    result: list[NotebookNode] = []
    streams: dict[str, NotebookNode] = {}
    for output in outputs:
        if output.output_type == "stream" and output.name in streams:
            streams[output.name].text += output.text
            continue
        if output.output_type == "stream":
            streams[output.name] = output
        result.append(output)
    for output in streams.values():
        output.text = CARRIAGE_RETURN.sub("", output.text)
    return result


def tidy(output: NotebookNode, count: int) -> NotebookNode:
    """One output without run numbers of its own, widget ids and traceback paths."""
    if output.output_type == "execute_result":
        output.execution_count = count
    if output.output_type == "error":
        output.traceback = [f"{output.ename}: {output.evalue}"]
    if "data" in output:
        output.metadata.pop("needs_background", None)
        if WIDGET in output.data:
            # The view is useless without the state, which we do not store.
            del output.data[WIDGET]
            if WIDGET_REPR.match(output.data.get("text/plain", "")):
                output.data["text/plain"] = WIDGET_NOTE
        if "image/png" in output.data:
            output.data.pop("image/svg+xml", None)
            output.data["image/png"] = png.smaller(output.data["image/png"])
    return output


def fingerprint(package: Path) -> str:
    """A hash of the package's files, and of what shapes outputs here.

    Outputs are stale when it changes.
    """
    total = hashlib.sha256()
    for module in (__file__, png.__file__):
        total.update(Path(module).read_bytes())
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            total.update(str(path.relative_to(package)).encode())
            total.update(path.read_bytes())
    return total.hexdigest()[:16]
