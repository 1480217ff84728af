"""Documents that fit a miniature's context: single functions, and tiny repositories.

A module of the standard library is twenty kilobytes long, a miniature reads one. So
functions are taken out of their modules, and a module becomes a repository with a file
for each of its definitions, which import each other as the definitions use each other.
"""

import ast
import textwrap
from collections.abc import Iterator

from deepseek_mini.data.corpora import Corpus, Document, python_code
from deepseek_mini.data.repository import Repository

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def python_functions(min_lines: int = 3, max_lines: int = 25) -> Corpus:
    """The functions and methods of ``python_code``'s modules, each a document.

    Functions inside functions are part of them. A method's indentation is taken away.
    Held out as their modules are, so that none has a neighbour on the other side.
    """
    corpus = python_code()
    parts = [
        tuple(
            function
            for module in modules
            for function in _functions(module)
            if min_lines <= function.text.count("\n") <= max_lines
        )
        for modules in (corpus.train, corpus.validation)
    ]
    source = f"functions of {min_lines} to {max_lines} lines of {corpus.source}"
    return Corpus(source, *parts)


def split_module(module: Document) -> Repository:
    """A module as a repository: a file for each function and class at its top level.

    A file imports the others whose names it uses ("from name import name"). What the
    module does outside of definitions is left out. Of a name defined twice the last
    counts, as in Python. SyntaxError if the text is no Python.
    """
    lines = _lines(module.text)
    definitions = {
        node.name: (node, _source(node, lines))
        for node in ast.parse(module.text).body
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef))
    }
    files = []
    for name, (node, text) in definitions.items():
        names = [inner for inner in ast.walk(node) if isinstance(inner, ast.Name)]
        own = {inner.id for inner in names if isinstance(inner.ctx, ast.Store)} | {name}
        own |= {inner.arg for inner in ast.walk(node) if isinstance(inner, ast.arg)}
        used = {inner.id for inner in names} - own
        heads = [f"from {d} import {d}\n" for d in definitions if d in used]
        files.append(Document(f"{name}.py", "".join(heads) + text))
    return Repository(module.name, tuple(files))


def _functions(module: Document) -> Iterator[Document]:
    lines = _lines(module.text)

    def inside(node: ast.AST, above: str) -> Iterator[Document]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, _FUNCTIONS):
                text = textwrap.dedent(_source(child, lines))
                if _is_python(text):
                    name = f"{module.name}:{child.lineno} {above}{child.name}"
                    yield Document(name, text)
            elif isinstance(child, ast.ClassDef):
                yield from inside(child, f"{above}{child.name}.")
            elif isinstance(child, ast.stmt | ast.ExceptHandler):
                yield from inside(child, above)

    yield from inside(ast.parse(module.text), "")


def _lines(text: str) -> list[str]:
    return text.split("\n")  # as the syntax tree counts: a form feed ends no line


def _source(node: ast.AST, lines: list[str]) -> str:
    """The lines of a definition, its decorators included, each ended by a newline."""
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    return "\n".join(lines[first - 1 : node.end_lineno]) + "\n"


def _is_python(text: str) -> bool:
    """False where taking the indentation away broke a string of several lines."""
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True
