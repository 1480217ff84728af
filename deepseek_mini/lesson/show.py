"""Put the package's own source into a lesson, so that what is read is what runs."""

import ast
import inspect
import sys
import textwrap
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from deepseek_mini.lesson.display import in_ipython, publish

_PACKAGE = Path(__file__).resolve().parent.parent


def show(obj: object, *more: object, docstrings: bool = True) -> None:
    """Display the installed source of functions, classes, methods or modules.

    Each comes as a Markdown code block under its path in the package, without line
    numbers; neighbours from one file share a block. The text is cut from the file by
    its syntax tree, which makes it the same under every version of Python.

    A string names what must not be imported, as kernels where there is no Triton:
    show("kernels.rmsnorm.add_rmsnorm_kernel"), or a value such as "kernels.rope.TILES".

    docstrings: False leaves the docstrings out, where the lesson's prose says it.
    Raises TypeError for what has no source of its own (an instance, a number), and
    ValueError for what is not part of deepseek_mini.
    """
    text = source_markdown(obj, *more, docstrings=docstrings)
    if in_ipython():
        heads = [line for line in text.splitlines() if line.startswith("**`")]
        plain = "source of " + ", ".join(head.strip("*`") for head in heads)
        publish({"text/markdown": text, "text/plain": plain})
    else:
        print(text)


def source_markdown(*objs: object, docstrings: bool = True) -> str:
    """What `show` displays, as a string."""
    blocks: list[tuple[str, list[str]]] = []
    for obj in objs:
        path, source = source_of(obj, docstrings=docstrings)
        if blocks and blocks[-1][0] == path:
            blocks[-1][1].append(source)
        else:
            blocks.append((path, [source]))
    parts = []
    for path, sources in blocks:
        code = "\n\n\n".join(sources)
        fence = "````" if "```" in code else "```"
        parts.append(f"**`{path}`**\n\n{fence}python\n{code}\n{fence}")
    return "\n\n".join(parts)


def source_of(obj: object, docstrings: bool = True) -> tuple[str, str]:
    """The path in the package ("deepseek_mini/model/rope.py") and the source text."""
    if isinstance(obj, str):
        path, names = _file_of(obj)
        return _cut(path, _named(_parsed(path)[1], names, obj)[-1], docstrings)
    obj = _defined(obj)
    module = obj if isinstance(obj, ModuleType) else sys.modules.get(obj.__module__)
    file = getattr(module, "__file__", None)
    path = Path(file).resolve() if file else None
    if path is None or _PACKAGE not in path.parents:
        name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", obj)
        raise ValueError(
            f"{name} is not part of deepseek_mini, and show displays only the source "
            "of the installed package"
        )
    tree = _parsed(path)[1]
    node = tree if isinstance(obj, ModuleType) else _find(tree, obj)
    return _cut(path, node, docstrings)


def _file_of(name: str) -> tuple[Path, list[str]]:
    """The file of a dotted name within the package, and what is left of the name."""
    parts = name.removeprefix("deepseek_mini.").split(".")
    for n in range(len(parts), 0, -1):
        path = _PACKAGE.joinpath(*parts[:n]).with_suffix(".py")
        if path.is_file():
            return path, parts[n:]
    raise ValueError(
        f"{name!r} is not in deepseek_mini: a name is like 'kernels.rmsnorm.reference'"
    )


def _cut(path: Path, node: ast.AST, docstrings: bool) -> tuple[str, str]:
    lines = _parsed(path)[0].splitlines()
    keep = range(*_span(node, len(lines)))
    if not docstrings:
        hidden = _docstring_lines(node, lines)
        keep = [i for i in keep if i not in hidden]
    source = textwrap.dedent("\n".join(lines[i].rstrip() for i in keep)).strip("\n")
    return path.relative_to(_PACKAGE.parent).as_posix(), source


def _defined(obj: object) -> object:
    """The module, class or function behind a method, a property or a wrapper."""
    if isinstance(obj, property):
        obj = obj.fget
    if isinstance(obj, staticmethod | classmethod):
        obj = obj.__func__
    obj = getattr(obj, "__func__", obj)
    if inspect.isroutine(obj):
        obj = inspect.unwrap(obj)
    if isinstance(obj, ModuleType | type) or inspect.isroutine(obj):
        return obj
    raise TypeError(
        "show takes a function, a class, a method or a module, not an instance of "
        f"{type(obj).__name__}"
    )


@lru_cache
def _parsed(path: Path) -> tuple[str, ast.Module]:
    text = path.read_text(encoding="utf-8")
    return text, ast.parse(text)


def _find(tree: ast.Module, obj: object) -> ast.AST:
    """The definition of `obj` in the tree: by its name and, if need be, its line."""
    names = [n for n in obj.__qualname__.split(".") if n != "<locals>"]
    found = _named(tree, names, obj.__qualname__)
    first_line = getattr(getattr(obj, "__code__", None), "co_firstlineno", None)
    for node in found:
        if _first_line(node) == first_line:
            return node
    return found[-1]


def _named(tree: ast.Module, names: list[str], whole: str) -> list[ast.AST]:
    """What a module's file defines under a name, in its order."""
    found: list[ast.AST] = [tree]
    for name in names:
        found = [n for f in found for n in _definitions(f) if name in _names(n)]
    if not found:
        raise ValueError(f"{whole} has no definition in its module's file")
    return found


def _names(node: ast.AST) -> list[str]:
    """The names that a definition or an assignment gives."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return []
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _definitions(node: ast.AST) -> list[ast.AST]:
    """Definitions directly inside a node, those under `if` and `try` included."""
    inside = []
    for child in ast.iter_child_nodes(node):
        inside.append(child)
        if isinstance(child, ast.If | ast.Try | ast.With | ast.For):
            inside += _definitions(child)
    return inside


def _first_line(node: ast.AST) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in decorators)])


def _span(node: ast.AST, n_lines: int) -> tuple[int, int]:
    """First and one-past-last line of a definition, counted from 0."""
    if isinstance(node, ast.Module):
        return 0, n_lines
    return _first_line(node) - 1, node.end_lineno


def _docstring_lines(node: ast.AST, lines: list[str]) -> set[int]:
    """The lines of every docstring in a node, and one blank line after each."""
    hidden: set[int] = set()
    kinds = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for inner in ast.walk(node):
        if not isinstance(inner, kinds) or ast.get_docstring(inner) is None:
            continue
        text = inner.body[0]
        if len(inner.body) == 1 and not isinstance(inner, ast.Module):
            continue  # the docstring is the whole body: without it, no Python
        hidden.update(range(text.lineno - 1, text.end_lineno))
        if text.end_lineno < len(lines) and not lines[text.end_lineno].strip():
            hidden.add(text.end_lineno)
    return hidden
