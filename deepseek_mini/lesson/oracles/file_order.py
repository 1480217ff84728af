"""Exercise 07.3: the order of files.

It is computed with in-degrees, as the paper prints it; the lesson keeps sets.
"""

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


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
