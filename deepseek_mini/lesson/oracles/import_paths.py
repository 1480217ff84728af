"""Exercise 07.2: what an import means."""

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake


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


def _root_outside(importer, dots, module):
    """None already where the dots lead to the repository's own folder."""
    folders = importer.split("/")[:-1]
    if dots - 1 >= len(folders):
        return None
    return imported_module(importer, dots, module)


def _root_alone_outside(importer, dots, module):
    return imported_module(importer, dots, module) or None


def _empty_module(importer, dots, module):
    right = imported_module(importer, dots, module)
    return right if module or right is None else ""


def _zero_slice(importer, dots, module):
    """folders[:-up], which is empty for up = 0."""
    folders = importer.split("/")[:-1]
    up = dots - 1
    if up > len(folders):
        return None
    return "/".join(folders[:-up] + [name for name in module.split(".") if name])


def import_cases(rng):
    a, b, c, d, e = (f"{x}{rng.integers(10, 99)}" for x in "abcde")
    yield Case((f"{a}/{b}/{c}.py", 2, f"{d}.{e}"), "two dots, a module in a package")
    yield Case((f"{a}/{b}/{c}.py", 1, d), "one dot")
    yield Case((f"{a}/{b}/{c}.py", 3, f"{d}"), "three dots")
    yield Case((f"{a}/{b}/{c}.py", 2, ""), "two dots and no module")
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
        *(
            Mistake(
                "None is for dots that lead above the repository's own folder; that "
                "folder itself, where no folder is left, is still inside",
                gives=gives,
            )
            for gives in (_root_outside, _root_alone_outside)
        ),
        Mistake(
            "without a module the folder that the dots lead to is meant, whichever "
            "it is",
            gives=_empty_module,
        ),
        Mistake(
            "with one dot no folder is to go, but a slice that ends at -0 is empty",
            gives=_zero_slice,
        ),
        Mistake(
            "there is no folder left to go up from: what is to be returned then?",
            raises="^IndexError",
        ),
        Mistake(
            "this is a text of four letters; None itself is asked for",
            gives=lambda *args: str(imported_module(*args)),
        ),
        Mistake(
            'the repository\'s own folder is written "" here, not "."',
            when=lambda got, want, args: got == ".",
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
