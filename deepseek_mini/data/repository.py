"""Repositories as training text: files ordered so that what is used comes first.

    for repository in python_packages():
        for sample in samples(repository):  # a Document a connected group of files
            ...

The pipeline of DeepSeek-Coder (arXiv 2401.14196, §2.2): find out which file imports
which, order the files, write them one after the other, each under its path. Near
duplicates are dropped a whole repository at a time (``deepseek_mini.data.dedup``).
"""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from deepseek_mini.data.corpora import Document, python_code, read_text

# Where absolute imports start: the repository's folder, or "src" inside it.
ROOTS = ([], ["src"])

# "import a.b as c, d", and "from ..a import b, c" with or without brackets.
_IMPORT = re.compile(r"^[ \t]*import[ \t]+([^\n;#]+)", re.MULTILINE)
_FROM = re.compile(
    r"^[ \t]*from[ \t]+(\.*)[ \t]*([\w.]*)[ \t]*\bimport\b[ \t]*(\([^)]*\)|[^\n;#]+)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Repository:
    """A name and files; a file's ``name`` is its path inside the repository.

    ValueError for two files of one path, or a path that is not relative, with forward
    slashes, and on one line.
    """

    name: str
    files: tuple[Document, ...]

    def __post_init__(self):
        seen = set()
        for path in (file.name for file in self.files):
            parts = path.split("/")
            if not path.isprintable() or "\\" in path or not all(parts):
                rule = "relative, with forward slashes, like 'package/module.py'"
                raise ValueError(f"the path {path!r} in {self.name!r} must be {rule}")
            if path in seen:
                raise ValueError(f"{self.name!r} has two files at {path!r}")
            seen.add(path)

    def __repr__(self) -> str:
        return f"Repository({self.name!r}, {len(self.files)} files)"


def imports(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """The import statements of Python text: (module, names taken from it).

    "import a.b" gives ("a.b", ()), "from ..a import b" gives ("..a", ("b",)).

    Found by pattern, as in the paper: nothing is executed, and text that is not valid
    Python does no harm. The price: an import in a docstring counts, and one after a
    semicolon or through ``importlib`` does not.
    """
    text = text.replace("\r\n", "\n").replace("\\\n", " ")
    found = []
    for match in _IMPORT.finditer(text):
        found += [(match.start(), name, ()) for name in _names(match[1])]
    for match in _FROM.finditer(text):
        names = re.sub(r"#[^\n]*", "", match[3]).strip("() \t\n")
        if match[1] or match[2]:
            found.append((match.start(), match[1] + match[2], tuple(_names(names))))
    return [(module, names) for _, module, names in sorted(found)]


def dependencies(files: Collection[Document]) -> dict[str, list[str]]:
    """For every file the files of ``files`` that it imports: {path: sorted paths}.

    ``from package import name`` means the file package/name.py where there is one, and
    else package.py or package/__init__.py. Absolute imports start in the repository's
    own folder or in src. What is not among the files (other libraries) is left out, and
    so is a file's import of itself. A file that is not ``.py`` has no imports.
    """
    paths = {file.name for file in files}
    graph = {}
    for file in files:
        found = set()
        if file.name.endswith(".py"):
            for module, names in imports(file.text):
                found.update(_resolve(file.name, module, names, paths))
        graph[file.name] = sorted(found - {file.name})
    return graph


def order(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Files with what they depend on first: a list for each connected group.

    graph: {path: the paths that it imports}, each of them a key too.

    Algorithm 1 of arXiv 2401.14196. The next file is one with the **fewest** imports
    that are not written yet, not one with none: where files import each other in a
    circle there is no such file, and the order goes on all the same. Of equals the
    first by path, so that the order of ``graph`` does not matter.

    ValueError for an import of a path that is no key.
    """
    for path, imported in graph.items():
        if unknown := sorted(set(imported) - set(graph)):
            raise ValueError(f"{path!r} imports {unknown[0]!r}, which is not a file")
    return [_order_group(group, graph) for group in _connected(graph)]


def samples(repository: Repository) -> list[Document]:
    """The repository as training texts: one for each connected group of its files.

    Its name is that of the repository, with the first file's path if there are more
    groups than one. An empty repository gives none.
    """
    texts = {file.name: file for file in repository.files}
    groups = order(dependencies(repository.files))
    return [
        Document(
            f"{repository.name}:{group[0]}" if len(groups) > 1 else repository.name,
            concatenate([texts[path] for path in group]),
        )
        for group in groups
    ]


def concatenate(files: Collection[Document]) -> str:
    """The files one after the other, each below a comment with its path."""
    parts = []
    for file in files:
        text = file.text.replace("\r\n", "\n")
        newline = "" if text.endswith("\n") or not text else "\n"
        parts.append(f"# {file.name}\n{text}{newline}")
    return "\n".join(parts)


def python_packages() -> list[Repository]:
    """The packages in ``python_code``'s corpus (json, email, asyncio, ...), offline.

    Each is a repository; modules that stand alone are not among them. Sorted by name.
    """
    corpus = python_code()
    documents = {d.name: d for d in (*corpus.train, *corpus.validation)}
    packages = {name.rpartition(".")[0] for name in documents}
    inside = {}
    for name, document in sorted(documents.items()):
        path = name.replace(".", "/") + ("/__init__" if name in packages else "")
        file = Document(f"{path}.py", document.text)
        inside.setdefault(name.split(".")[0], []).append(file)
    return [
        Repository(name, tuple(files))
        for name, files in inside.items()
        if len(files) > 1
    ]


def read_repository(folder: str | os.PathLike) -> Repository:
    """The Python files in a folder and those below it, hidden folders left out.

    Empty files stay: an empty ``__init__.py`` says that a folder is a package.
    FileNotFoundError if there is no such folder or no Python file in it; ValueError
    for a file that is not UTF-8.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    files = []
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):
            empty = not path.read_bytes().strip()
            text = "" if empty else read_text(path)
            files.append(Document(inside.as_posix(), text))
    if not files:
        raise FileNotFoundError(f"no Python file in {folder}")
    return Repository(folder.resolve().name, tuple(files))


def _names(listed: str) -> list[str]:
    """The names in "a.b as c, d": a.b and d. What is no such list gives none."""
    parts = [part.split() for part in listed.split(",")]
    parts = [part for part in parts if len(part) == 1 or part[1:2] == ["as"]]
    return [part[0] for part in parts if re.fullmatch(r"[\w.]+|\*", part[0])]


def _resolve(
    importer: str, module: str, names: tuple[str, ...], paths: Collection[str]
) -> set[str]:
    """The files that one import statement in the file ``importer`` means."""
    tail = module.lstrip(".")
    parts = tail.split(".") if tail else []
    folder = importer.split("/")[:-1]
    above = len(module) - len(tail) - 1  # one dot: the folder of the file itself
    if above > len(folder):
        return set()
    starts = [folder[: len(folder) - above]] if above >= 0 else ROOTS
    for start in starts:
        # "import os.path" means os.py where that is the file: the longest part is it.
        lengths = range(len(parts), 0, -1) if parts else [0]
        known = (_file([*start, *parts[:n]], paths) for n in lengths)
        whole = next(filter(None, known), None)
        inside = [_file([*start, *parts, name], paths) for name in names]
        found = {path or whole for path in inside} if names else {whole}
        if found - {None}:
            return found - {None}
    return set()


def _file(parts: list[str], paths: Collection[str]) -> str | None:
    """The file of the module package/name, if it is among ``paths``."""
    candidates = ("/".join(parts) + ".py", "/".join([*parts, "__init__.py"]))
    return next((path for path in candidates if path in paths), None)


def _connected(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """The groups of files that imports hold together, each sorted by path."""
    neighbours = {path: set(imported) for path, imported in graph.items()}
    for path, imported in graph.items():
        for other in imported:
            neighbours[other].add(path)
    groups, seen = [], set()
    for first in sorted(graph):
        if first in seen:
            continue
        group, ahead = {first}, [first]
        while ahead:
            for path in neighbours[ahead.pop()] - group:
                group.add(path)
                ahead.append(path)
        seen |= group
        groups.append(sorted(group))
    return groups


def _order_group(group: list[str], graph: Mapping[str, Collection[str]]) -> list[str]:
    missing = {path: set(graph[path]) - {path} for path in group}
    ordered = []
    while missing:
        chosen = min(missing, key=lambda path: (len(missing[path]), path))
        del missing[chosen]
        for imported in missing.values():
            imported.discard(chosen)
        ordered.append(chosen)
    return ordered
