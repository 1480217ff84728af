"""Lesson 07, DeepSeek-Coder's data."""

import posixpath
from pathlib import PurePosixPath

import numpy as np

from . import Answers, Wrong

# --- 07.1 -------------------------------------------------------------------------

BEGIN, HOLE, END = "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"


def psm_by_parts(text, first, second):
    out = BEGIN
    out += text[0:first]
    out += HOLE
    out += text[second : len(text)]
    out += END
    out += text[first:second]
    return out


def psm_suffix_first(text, first, second):
    return BEGIN + text[second:] + HOLE + text[:first] + END + text[first:second]


def psm_in_place(text, first, second):
    return BEGIN + text[:first] + HOLE + text[first:second] + END + text[second:]


def psm_prompt(text, first, second):
    return BEGIN + text[:first] + HOLE + text[second:] + END


def psm_no_begin(text, first, second):
    return text[:first] + HOLE + text[second:] + END + text[first:second]


def psm_hole_last(text, first, second):
    return BEGIN + text[:first] + END + text[second:] + HOLE + text[first:second]


def psm_end_last(text, first, second):
    return BEGIN + text[:first] + HOLE + text[second:] + text[first:second] + END


def psm_skips_one(text, first, second):
    middle = text[first:second]
    return BEGIN + text[:first] + HOLE + text[second + 1 :] + END + middle


def psm_takes_one(text, first, second):
    middle = text[first : second + 1]
    return BEGIN + text[:first] + HOLE + text[second:] + END + middle


def psm_pieces(text, first, second):
    return [BEGIN, text[:first], HOLE, text[second:], END, text[first:second]]


def psm_one_further(text, first, second):
    middle = text[first : second + 1]
    return BEGIN + text[:first] + HOLE + text[second + 1 :] + END + middle


def psm_replace(text, first, second):
    middle = text[first:second]
    return BEGIN + text.replace(middle, HOLE) + END + middle


def psm_replace_once(text, first, second):
    middle = text[first:second]
    return BEGIN + text.replace(middle, HOLE, 1) + END + middle


def psm_split(text, first, second):
    middle = text[first:second]
    return BEGIN + HOLE.join(text.split(middle, 1)) + END + middle


# --- 07.2 -------------------------------------------------------------------------


def module_by_slicing(importer, dots, module):
    folders = importer.split("/")[:-1]
    up = dots - 1
    if up > len(folders):
        return None
    kept = folders[: len(folders) - up]
    return "/".join([*kept, module.replace(".", "/")] if module else kept)


def module_by_loop(importer, dots, module):
    path = importer
    for _ in range(dots):
        if not path:
            return None
        path = path.rpartition("/")[0]
    tail = module.replace(".", "/")
    return f"{path}/{tail}".strip("/")


def module_too_high(importer, dots, module):
    folders = importer.split("/")[:-1]
    if dots > len(folders):
        return None
    kept = folders[: len(folders) - dots]
    return "/".join([*kept, module.replace(".", "/")] if module else kept)


def module_from_file(importer, dots, module):
    parts = importer.removesuffix(".py").split("/")
    if dots - 1 > len(parts):
        return None
    kept = parts[: len(parts) - (dots - 1)]
    return "/".join([*kept, module.replace(".", "/")] if module else kept)


def module_never_none(importer, dots, module):
    folders = importer.split("/")[:-1]
    for _ in range(dots - 1):
        folders = folders[:-1]
    return "/".join(folders + [p for p in module.split(".") if p])


def module_negative(importer, dots, module):
    folders = importer.split("/")[:-1]
    kept = folders[: len(folders) - (dots - 1)]
    return "/".join(kept + [p for p in module.split(".") if p])


def module_slashes(importer, dots, module):
    folders = importer.split("/")[:-1]
    if dots - 1 > len(folders):
        return None
    folder = "/".join(folders[: len(folders) - (dots - 1)])
    return folder + "/" + module.replace(".", "/")


def module_with_dots(importer, dots, module):
    folders = importer.split("/")[:-1]
    if dots - 1 > len(folders):
        return None
    kept = folders[: len(folders) - (dots - 1)]
    return "/".join([*kept, module] if module else kept)


def module_with_ending(importer, dots, module):
    path = module_by_slicing(importer, dots, module)
    return path if path is None else path + ".py"


def module_by_normpath(importer, dots, module):
    up = [".."] * (dots - 1)
    tail = module.replace(".", "/")
    path = posixpath.join(posixpath.dirname(importer), *up, tail)
    path = posixpath.normpath(path)
    return None if path.startswith("..") else path.removeprefix(".")


def module_none_too_early(importer, dots, module):
    folders = importer.split("/")[:-1]
    if dots > len(folders):
        return None
    kept = folders[: len(folders) - (dots - 1)]
    return "/".join(kept + [p for p in module.split(".") if p])


def module_none_for_root(importer, dots, module):
    path = module_by_slicing(importer, dots, module)
    return path if path else None


def module_root_for_empty(importer, dots, module):
    if dots > importer.count("/") + 1:
        return None
    return module_by_slicing(importer, dots, module) if module else ""


def module_minus_zero(importer, dots, module):
    folders = importer.split("/")[:-1]
    up = dots - 1
    if up > len(folders):
        return None
    return "/".join(folders[:-up] + [p for p in module.split(".") if p])


def module_pops(importer, dots, module):
    folders = importer.split("/")[:-1]
    for _ in range(dots - 1):
        folders.pop()
    return "/".join(folders + [p for p in module.split(".") if p])


def module_named_none(importer, dots, module):
    path = module_by_slicing(importer, dots, module)
    return "None" if path is None else path


def module_by_pathlib(importer, dots, module):
    parents = PurePosixPath(importer).parents
    if dots > len(parents):
        return None
    return str(parents[dots - 1].joinpath(*module.split(".")))


def module_nothing(importer, dots, module):
    module_by_slicing(importer, dots, module)


# --- 07.3 -------------------------------------------------------------------------


def order_with_sets(imports):
    missing = {file: set(others) for file, others in imports.items()}
    done = []
    while missing:
        chosen = min(missing, key=lambda file: (len(missing[file]), file))
        missing.pop(chosen)
        for others in missing.values():
            others.discard(chosen)
        done.append(chosen)
    return done


def order_counting_again(imports):
    done = []
    while len(done) < len(imports):
        best = None
        for file in sorted(imports):
            if file in done:
                continue
            count = sum(other not in done for other in imports[file])
            if best is None or count < best[0]:
                best = (count, file)
        done.append(best[1])
    return done


def order_reversed(imports):
    return order_with_sets(imports)[::-1]


def order_once(imports):
    return sorted(imports, key=lambda file: (len(imports[file]), file))


def order_textbook(imports):
    missing = {file: set(others) for file, others in imports.items()}
    done = []
    while ready := [file for file in sorted(missing) if not missing[file]]:
        missing.pop(ready[0])
        for others in missing.values():
            others.discard(ready[0])
        done.append(ready[0])
    return done


def order_by_importers(imports):
    turned = {file: [] for file in imports}
    for file, others in imports.items():
        for other in others:
            turned[other].append(file)
    return order_with_sets(turned)


def order_most_first(imports):
    missing = {file: set(others) for file, others in imports.items()}
    done = []
    while missing:
        chosen = max(sorted(missing), key=lambda file: len(missing[file]))
        missing.pop(chosen)
        for others in missing.values():
            others.discard(chosen)
        done.append(chosen)
    return done


def order_by_name(imports):
    return sorted(imports)


def order_depth_first(imports):
    done = []

    def visit(file, above):
        if file in done or file in above:
            return
        for other in sorted(imports[file]):
            visit(other, {*above, file})
        done.append(file)

    for file in sorted(imports):
        visit(file, set())
    return done


def order_as_given(imports):
    done = []
    while len(done) < len(imports):
        left = [file for file in imports if file not in done]
        done.append(min(left, key=lambda f: len(set(imports[f]) - {*done})))
    return done


# --- 07.4 -------------------------------------------------------------------------

P = 2**31 - 1


def similarity_in_numpy(a, b, factors, terms):
    def signature(hashes):
        return ((factors[:, None] * hashes + terms[:, None]) % P).min(axis=1)

    return (signature(a) == signature(b)).mean()


def similarity_one_by_one(a, b, factors, terms):
    same = 0
    for k in range(len(factors)):
        smallest_a = min((factors[k] * a + terms[k]) % P)
        smallest_b = min((factors[k] * b + terms[k]) % P)
        if smallest_a == smallest_b:
            same += 1
    return same / len(factors)


def similarity_true(a, b, factors, terms):
    return len(np.intersect1d(a, b)) / len(np.union1d(a, b))


def similarity_largest(a, b, factors, terms):
    def signature(hashes):
        return ((factors[:, None] * hashes + terms[:, None]) % P).max(axis=1)

    return (signature(a) == signature(b)).mean()


def similarity_no_terms(a, b, factors, terms):
    def signature(hashes):
        return (factors[:, None] * hashes % P).min(axis=1)

    return (signature(a) == signature(b)).mean()


def similarity_anywhere(a, b, factors, terms):
    def signature(hashes):
        return set(((factors[:, None] * hashes + terms[:, None]) % P).min(axis=1))

    return len(signature(a) & signature(b)) / len(factors)


def similarity_count(a, b, factors, terms):
    def signature(hashes):
        return ((factors[:, None] * hashes + terms[:, None]) % P).min(axis=1)

    return (signature(a) == signature(b)).sum()


def similarity_each(a, b, factors, terms):
    def signature(hashes):
        return ((factors[:, None] * hashes + terms[:, None]) % P).min(axis=1)

    return signature(a) == signature(b)


def similarity_of_smallest(a, b, factors, terms):
    def signature(hashes):
        return ((factors[:, None] * hashes + terms[:, None]) % P).min(axis=0)

    return np.isin(signature(a), signature(b)).mean()


def similarity_by_hashes(a, b, factors, terms):
    """The hash that has the smallest value names it: no two have the same."""

    def smallest(hashes):
        values = (factors[:, None] * hashes + terms[:, None]) % P
        return hashes[values.argmin(axis=1)]

    return np.mean(smallest(a) == smallest(b))


def similarity_term_after(a, b, factors, terms):
    def signature(hashes):
        return (factors[:, None] * hashes % P + terms[:, None]).min(axis=1)

    return (signature(a) == signature(b)).mean()


def similarity_no_modulo(a, b, factors, terms):
    def signature(hashes):
        return (factors[:, None] * hashes + terms[:, None]).min(axis=1)

    return (signature(a) == signature(b)).mean()


def similarity_modulo_of_term(a, b, factors, terms):
    def signature(hashes):
        return (factors[:, None] * hashes + terms[:, None] % P).min(axis=1)

    return (signature(a) == signature(b)).mean()


def similarity_modulo_last(a, b, factors, terms):
    def signature(hashes):
        return (factors[:, None] * hashes + terms[:, None]).min(axis=1) % P

    return (signature(a) == signature(b)).mean()


def similarity_other_p(a, b, factors, terms):
    def signature(hashes):
        values = (factors[:, None] * hashes + terms[:, None]) % 2**31 - 1
        return values.min(axis=1)

    return (signature(a) == signature(b)).mean()


def similarity_sum_first(a, b, factors, terms):
    def signature(hashes):
        return (factors[:, None] * (hashes + terms[:, None]) % P).min(axis=1)

    return (signature(a) == signature(b)).mean()


def similarity_of_places(a, b, factors, terms):
    def place(hashes):
        values = (factors[:, None] * hashes + terms[:, None]) % P
        return values.argmin(axis=1)

    return (place(a) == place(b)).mean()


def similarity_over_functions(a, b, factors, terms):
    def signature(hashes):
        return ((factors[:, None] * hashes + terms[:, None]) % P).min(axis=0)

    return np.mean(signature(a)[: len(b)] == signature(b)[: len(a)])


# --- 07.5 -------------------------------------------------------------------------


def pack_by_steps(documents, cuts):
    row = []
    for ids, cut in zip(documents, cuts):
        row.append(0)
        if cut is None:
            row.extend(ids)
        else:
            first, second = cut
            row.append(4)
            row.extend(ids[:first])
            row.append(3)
            row.extend(ids[second:])
            row.append(5)
            row.extend(ids[first:second])
        row.append(1)
    return row


def pack_no_end(documents, cuts):
    row = []
    for ids, cut in zip(documents, cuts):
        if cut is None:
            row += [0, *ids, 1]
        else:
            i, j = cut
            row += [0, 4, *ids[:i], 3, *ids[j:], 5, *ids[i:j]]
    return row


def pack_end_after_suffix(documents, cuts):
    row = []
    for ids, cut in zip(documents, cuts):
        if cut is None:
            row += [0, *ids, 1]
        else:
            i, j = cut
            row += [0, 4, *ids[:i], 3, *ids[j:], 1, 5, *ids[i:j]]
    return row


def pack_in_place(documents, cuts):
    row = []
    for ids, cut in zip(documents, cuts):
        if cut is None:
            row += [0, *ids, 1]
        else:
            i, j = cut
            row += [0, 4, *ids[:i], 3, *ids[i:j], 5, *ids[j:], 1]
    return row


def pack_suffix_first(documents, cuts):
    row = []
    for ids, cut in zip(documents, cuts):
        if cut is None:
            row += [0, *ids, 1]
        else:
            i, j = cut
            row += [0, 4, *ids[j:], 3, *ids[:i], 5, *ids[i:j], 1]
    return row


def pack_marks_exchanged(documents, cuts):
    row = []
    for ids, cut in zip(documents, cuts):
        if cut is None:
            row += [0, *ids, 1]
        else:
            i, j = cut
            row += [0, 3, *ids[:i], 4, *ids[j:], 5, *ids[i:j], 1]
    return row


def pack_always_cut(documents, cuts):
    row = []
    for ids, cut in zip(documents, cuts):
        i, j = cut or (0, 0)
        row += [0, 4, *ids[:i], 3, *ids[j:], 5, *ids[i:j], 1]
    return row


def pack_once_around(documents, cuts):
    row = [0]
    for ids, cut in zip(documents, cuts):
        if cut is None:
            row += ids
        else:
            i, j = cut
            row += [4, *ids[:i], 3, *ids[j:], 5, *ids[i:j]]
    return [*row, 1]


def pack_apart(documents, cuts):
    return [pack_by_steps([ids], [cut]) for ids, cut in zip(documents, cuts)]


def pack_no_start(documents, cuts):
    row = []
    for ids, cut in zip(documents, cuts):
        if cut is None:
            row += [0, *ids, 1]
        else:
            i, j = cut
            row += [4, *ids[:i], 3, *ids[j:], 5, *ids[i:j], 1]
    return row


def pack_start_inside(documents, cuts):
    row = []
    for ids, cut in zip(documents, cuts):
        if cut is None:
            row += [0, *ids, 1]
        else:
            i, j = cut
            row += [4, 0, *ids[:i], 3, *ids[j:], 5, *ids[i:j], 1]
    return row


def pack_one_too_many(documents, cuts):
    row = []
    for ids, cut in zip(documents, cuts):
        if cut is not None:
            i, j = cut
            ids = [4, *ids[:i], 3, *ids[j:], 5, *ids[i : j + 1]]
        row += [0, *ids, 1]
    return row


def pack_the_cut_alone(documents, cuts):
    row = []
    for ids, cut in zip(documents, cuts):
        if cut is not None:
            row += pack_by_steps([ids], [cut])
    return row


def pack_not_the_empty(documents, cuts):
    cuts = [None if cut and cut[0] == cut[1] else cut for cut in cuts]
    return pack_by_steps(documents, cuts)


def pack_truth_of_places(documents, cuts):
    cuts = [cut if cut and all(cut) else None for cut in cuts]
    return pack_by_steps(documents, cuts)


def pack_nothing_cut(documents, cuts):
    return [i for ids in documents for i in (0, *ids, 1)]


def pack_in_a_tuple(documents, cuts):
    return tuple(pack_by_steps(documents, cuts))


ANSWERS = {
    "07.1": Answers(
        right=[psm_by_parts],
        wrong=[
            Wrong(psm_suffix_first, "SPM"),
            Wrong(psm_in_place, "the middle has to go last"),
            Wrong(psm_prompt, "the middle is missing"),
            Wrong(psm_no_begin, "the begin mark is missing"),
            Wrong(psm_hole_last, "where the middle was"),
            Wrong(psm_end_last, "the end mark comes last"),
            Wrong(psm_skips_one, "in two pieces or in none"),
            Wrong(psm_takes_one, "in two pieces or in none"),
            Wrong(psm_pieces, "join them to one text"),
            Wrong(psm_one_further, "in two pieces or in none"),
            Wrong(psm_replace, "cut at the places"),
            Wrong(psm_replace_once, "cut at the places"),
            Wrong(psm_split, "cut at the places"),
        ],
    ),
    "07.2": Answers(
        right=[module_by_slicing, module_by_loop, module_by_normpath],
        wrong=[
            Wrong(module_too_high, "one folder too many"),
            Wrong(module_from_file, "this starts at the file"),
            Wrong(module_never_none, "give None"),
            Wrong(module_negative, "counts from the end"),
            Wrong(module_slashes, "a slash stands where"),
            Wrong(module_with_dots, "still in the path"),
            Wrong(module_with_ending, "without the ending .py"),
            Wrong(module_none_too_early, "is still inside"),
            Wrong(module_none_for_root, "is still inside"),
            Wrong(module_root_for_empty, "without a module the folder"),
            Wrong(module_minus_zero, "ends at -0"),
            Wrong(module_pops, "no folder left to go up from"),
            Wrong(module_named_none, "None itself"),
            Wrong(module_by_pathlib, 'not "."'),
            Wrong(module_nothing, "your function returns nothing"),
        ],
    ),
    "07.3": Answers(
        right=[order_with_sets, order_counting_again],
        wrong=[
            Wrong(order_reversed, "the order from the end"),
            Wrong(order_once, "never updated"),
            Wrong(order_textbook, "in a circle"),
            Wrong(order_by_importers, "counted by who imports them"),
            Wrong(order_most_first, "the file with the most imports"),
            Wrong(order_by_name, "sorted by name"),
            Wrong(order_depth_first, "not the one that the rule gives"),
            Wrong(order_as_given, "first by name"),
        ],
    ),
    "07.4": Answers(
        right=[similarity_in_numpy, similarity_one_by_one, similarity_by_hashes],
        wrong=[
            Wrong(similarity_true, "the true share"),
            Wrong(similarity_largest, "the largest values"),
            Wrong(similarity_no_terms, "the terms change nothing"),
            Wrong(similarity_term_after, "under the modulo"),
            Wrong(similarity_no_modulo, "the modulo is missing"),
            Wrong(similarity_modulo_of_term, "covers the term alone"),
            Wrong(similarity_modulo_last, "after the smallest is taken"),
            Wrong(similarity_other_p, "p is 2^31 - 1"),
            Wrong(similarity_sum_first, "multiplied by the factor"),
            Wrong(similarity_of_places, "the places of the smallest"),
            Wrong(similarity_over_functions, "for every function, not for every hash"),
            Wrong(similarity_anywhere, "anywhere in the other"),
            Wrong(similarity_count, "divide it by"),
            Wrong(similarity_each, "a truth value for each"),
            Wrong(similarity_of_smallest, "print the signatures"),
        ],
    ),
    "07.5": Answers(
        right=[pack_by_steps, pack_in_a_tuple],
        wrong=[
            Wrong(pack_no_end, "has no EOS"),
            Wrong(pack_end_after_suffix, "EOS stands after the suffix"),
            Wrong(pack_in_place, "still in the middle"),
            Wrong(pack_suffix_first, "that is SPM"),
            Wrong(pack_marks_exchanged, "begin and hole are exchanged"),
            Wrong(pack_always_cut, "not to be cut"),
            Wrong(pack_once_around, "once around everything"),
            Wrong(pack_apart, "make one list"),
            Wrong(pack_no_start, "has no BOS"),
            Wrong(pack_start_inside, "have changed places"),
            Wrong(pack_one_too_many, "one token too long"),
            Wrong(pack_the_cut_alone, "are missing"),
            Wrong(pack_not_the_empty, "whose middle is empty"),
            Wrong(pack_truth_of_places, "a cut at place 0"),
            Wrong(pack_nothing_cut, "no document is cut"),
        ],
    ),
}
