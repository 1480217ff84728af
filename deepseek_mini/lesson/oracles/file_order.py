"""Exercises 07.2 and 07.3: what an import means, and the order of files.

The order is computed with in-degrees, as the paper prints it; the lesson keeps sets.
"""

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake

# --- 07.2 -------------------------------------------------------------------------


def imported_module(importer, dots, module):
    folders = importer.split("/")[:-1]
    for _ in range(dots - 1):
        if not folders:
            return None
        folders.pop()
    return "/".join(folders + [name for name in module.split(".") if name])


def _climbs(extra):
    """Folders climbed: dots - 1 + extra."""

    def wrong(importer, dots, module):
        folders = importer.split("/")[:-1]
        keep = len(folders) - (dots - 1 + extra)
        if keep < 0 or keep > len(folders):
            return None
        return "/".join(folders[:keep] + [n for n in module.split(".") if n])

    return wrong


def _never_none(importer, dots, module):
    folders = importer.split("/")[:-1]
    keep = max(0, len(folders) - dots + 1)
    return "/".join(folders[:keep] + [n for n in module.split(".") if n])


def _negative_slice(importer, dots, module):
    folders = importer.split("/")[:-1]
    folders = folders[: len(folders) - dots + 1]
    return "/".join(folders + [n for n in module.split(".") if n])


def _loose_slashes(importer, dots, module):
    right = imported_module(importer, dots, module)
    folder = imported_module(importer, dots, "")
    return right if right is None else f"{folder}/{module.replace('.', '/')}"


def _from_the_file(importer, dots, module):
    parts = importer.removesuffix(".py").split("/")
    if dots - 1 > len(parts):
        return None
    parts = parts[: len(parts) - (dots - 1)]
    return "/".join(parts + [n for n in module.split(".") if n])


def import_cases(rng):
    a, b, c, d, e = (f"{x}{rng.integers(10, 99)}" for x in "abcde")
    yield Case((f"{a}/{b}/{c}.py", 2, f"{d}.{e}"), "two dots, a module in a package")
    yield Case((f"{a}/{b}/{c}.py", 1, d), "one dot")
    yield Case((f"{a}/{b}/{c}.py", 3, f"{d}"), "three dots")
    yield Case((f"{a}/{b}.py", 1, ""), "one dot and no module")
    yield Case((f"{a}/__init__.py", 1, d), "the __init__.py of a package")
    yield Case((f"{c}.py", 1, d), "a file at the top")
    yield Case((f"{c}.py", 1, ""), "a file at the top and no module")
    yield Case((f"{a}/{b}/{c}.py", 4, d), "one folder above the repository")
    yield Case((f"{c}.py", 3, ""), "two folders above the repository")


IMPORT = Exercise(
    id="07.2",
    title="What an import means",
    signature="imported_module(importer, dots, module)",
    difficulty="a few lines",
    minutes=10,
    right=imported_module,
    cases=import_cases,
    mistakes=(
        Mistake(
            "this climbs one folder too many: one dot is the folder of the file itself",
            gives=_climbs(1),
        ),
        Mistake(
            "this climbs one folder too few: each dot after the first is one folder up",
            gives=_climbs(-1),
        ),
        Mistake(
            "this starts at the file, and one dot means the folder that it is in",
            gives=_from_the_file,
        ),
        Mistake(
            "an import above the repository's own folder leads nowhere: give None",
            gives=_never_none,
        ),
        Mistake(
            "a slice that ends at a negative number counts from the end: an import "
            "above the repository's own folder should give None",
            gives=_negative_slice,
        ),
        Mistake(
            "a slash stands where there is no folder or no module before or after it",
            gives=_loose_slashes,
        ),
        Mistake(
            "the dots of the module's name are still in the path",
            when=lambda got, want, args: (
                isinstance(got, str) and "." in args[2] and args[2] in got
            ),
        ),
        Mistake(
            "give the path of the module without the ending .py",
            when=lambda got, want, args: isinstance(got, str) and got.endswith(".py"),
        ),
    ),
    hint="split the file's path at its slashes, and print which folders are left",
)

# --- 07.3 -------------------------------------------------------------------------


def order_files(imports, *, pick=min, update=True):
    """The oracle: in-degrees and edges; the keywords make known mistakes."""
    in_degree = {file: len(set(imports[file])) for file in imports}
    result = []
    while len(result) < len(imports):
        rest = sorted(set(imports) - set(result))
        file = pick(rest, key=in_degree.get)
        for other in imports:
            if update and file in imports[other]:
                in_degree[other] -= 1
        result.append(file)
    return result


def _only_without_imports(imports):
    """Stops at a circle, as textbooks' sorting does."""
    done = []
    while ready := sorted(
        f for f in set(imports) - set(done) if set(imports[f]) <= {*done}
    ):
        done.append(ready[0])
    return done


def _by_importers(imports):
    turned = {file: [f for f in imports if file in imports[f]] for file in imports}
    return order_files(turned)


def _ties_last(imports):
    return order_files(imports, pick=lambda rest, key: min(rest[::-1], key=key))


def _in_rounds(imports):
    """All the files with the fewest are taken at once, before anything is counted."""
    left, result = {f: set(imports[f]) for f in imports}, []
    while left:
        fewest = min(map(len, left.values()))
        ready = sorted(f for f in left if len(left[f]) == fewest)
        result += ready
        left = {f: left[f] - {*ready} for f in left if f not in ready}
    return result


def graph_cases(rng):
    def named(graph):
        """Other names, in another order of the dictionary."""
        numbers = rng.choice(np.arange(10, 99), size=len(graph), replace=False)
        names = {old: f"f{n}.py" for old, n in zip(sorted(graph), sorted(numbers))}
        keys = rng.permutation(sorted(graph)).tolist()
        return {names[k]: sorted(names[o] for o in graph[k]) for k in keys}

    yield Case((named({"a": "bc", "b": "d", "c": "d", "d": ""}),), "no circle")
    yield Case((named({"a": "b", "b": "c", "c": "a", "d": "a"}),), "a circle of three")
    graph = {"a": "bcd", "b": "acd", "c": "d", "d": "c", "e": "ab", "f": "e"}
    yield Case((named(graph),), "a circle in a circle")
    yield Case((named({"a": "b", "b": "", "c": "b", "d": "abc"}),), "equal counts")
    letters = "abcdefghij"
    graph = {x: [y for y in letters if x != y and rng.random() < 0.3] for x in letters}
    yield Case((named(graph),), "ten files")
    yield Case(({"only.py": []},), "a single file")


ORDER = Exercise(
    id="07.3",
    title="The order of files",
    signature="order_files(imports)",
    difficulty="from the paper",
    minutes=20,
    right=order_files,
    cases=graph_cases,
    mistakes=(
        Mistake(
            "this is the order from the end: what is imported comes before the file "
            "that imports it",
            gives=lambda imports: order_files(imports)[::-1],
        ),
        Mistake(
            "the counts are never updated: a file that is written no longer counts for "
            "those that import it",
            gives=lambda imports: order_files(imports, update=False),
        ),
        Mistake(
            "the files are counted by who imports them; count what they import",
            gives=_by_importers,
        ),
        Mistake(
            "where files import each other in a circle, none has a count of zero: take "
            "the smallest count, whatever it is",
            gives=_only_without_imports,
        ),
        Mistake(
            "where files import each other in a circle, none has a count of zero: take "
            "the smallest count, whatever it is",
            when=lambda got, want, args: isinstance(got, list) and len(got) < len(want),
        ),
        Mistake(
            "the file with the most imports comes first; take the one with the fewest",
            gives=lambda imports: order_files(imports, pick=max),
        ),
        Mistake(
            "of files with equal counts take the first by name",
            gives=_ties_last,
        ),
        Mistake(
            "several files are taken at once: count again after each one",
            gives=_in_rounds,
        ),
        Mistake(
            "the files are sorted by name; the imports are to decide",
            gives=lambda imports: sorted(imports),
        ),
        Mistake(
            "the files are in the order in which they were given; the imports are to "
            "decide, and of equal counts the first by name comes first",
            gives=lambda imports: list(imports),
        ),
        Mistake(
            "this is an order of the right kind, but not the one that the rule gives: "
            "after each file look at all that are left, and of equal counts take the "
            "first by name",
            when=lambda got, want, args: (
                isinstance(got, list) and sorted(map(str, got)) == sorted(want)
            ),
        ),
    ),
    hint="before each choice print the count of every file that is left",
)
