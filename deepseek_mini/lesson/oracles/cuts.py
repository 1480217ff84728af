"""Exercises 07.1 and 07.5: texts and rows of ids, cut for filling in the middle."""

import itertools

import numpy as np

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake

# --- 07.1 -------------------------------------------------------------------------

BEGIN, HOLE, END = (f"<｜fim▁{name}｜>" for name in ("begin", "hole", "end"))


def fill_in_the_middle(text, first, second):
    pieces = {"prefix": text[:first], "middle": text[first:second]}
    pieces["suffix"] = text[second:]
    return f"{BEGIN}{{prefix}}{HOLE}{{suffix}}{END}{{middle}}".format(**pieces)


def _marked(written):
    """A version that writes the pieces a (before), b (hidden) and c (after) so."""
    return lambda text, i, j: written(text[:i], text[i:j], text[j:])


def cut_cases(rng):
    letters = "".join(rng.choice(list("abcdefghij é\n"), size=18).tolist())
    first, second = sorted(rng.choice(np.arange(3, 15), size=2, replace=False).tolist())
    yield Case((letters, first, second), f"a text of 18 characters, {first}, {second}")
    yield Case(("print(a + b)", 6, 11), "print(a + b), 6 and 11")
    yield Case((letters, 0, second), "an empty prefix")
    yield Case((letters, first, 18), "an empty suffix")
    yield Case((letters, first, first), "an empty middle")


CUT = Exercise(
    id="07.1",
    title="Prefix, suffix, middle",
    signature="fill_in_the_middle(text, first, second)",
    difficulty="one line",
    minutes=4,
    right=fill_in_the_middle,
    cases=cut_cases,
    mistakes=(
        Mistake(
            "the suffix comes first: that is SPM, which DeepSeek does not use",
            gives=_marked(lambda a, b, c: BEGIN + c + HOLE + a + END + b),
        ),
        Mistake(
            "the pieces stand as in the text: the middle has to go last, where a model "
            "can write it after it has read both sides",
            gives=_marked(lambda a, b, c: BEGIN + a + HOLE + b + END + c),
        ),
        Mistake(
            "the middle is missing: this is the prompt of a user, and a training text "
            "ends with the answer",
            gives=_marked(lambda a, b, c: BEGIN + a + HOLE + c + END),
        ),
        Mistake(
            "the begin mark is missing: without it the model learns that it is to fill "
            "a gap only when it comes to the hole",
            gives=_marked(lambda a, b, c: a + HOLE + c + END + b),
        ),
        Mistake(
            "the hole mark stands where the middle is; it stands where the middle was, "
            "between prefix and suffix",
            gives=_marked(lambda a, b, c: BEGIN + a + END + c + HOLE + b),
        ),
        Mistake(
            "the end mark comes last; it ends the suffix, and the middle follows it",
            gives=_marked(lambda a, b, c: BEGIN + a + HOLE + c + b + END),
        ),
        Mistake(
            "the character at `second` is in two pieces or in none: text[i:j] ends "
            "before j",
            gives=lambda t, i, j: BEGIN + t[:i] + HOLE + t[j + 1 :] + END + t[i:j],
        ),
        Mistake(
            "the character at `second` is in two pieces or in none: text[i:j] ends "
            "before j",
            gives=lambda t, i, j: BEGIN + t[:i] + HOLE + t[j:] + END + t[i : j + 1],
        ),
        Mistake(
            "the pieces come back one by one; join them to one text",
            when=lambda got, want, args: isinstance(got, tuple | list),
        ),
    ),
    hint="write the three pieces of print(a + b) under their names, then join them",
)

# --- 07.5 -------------------------------------------------------------------------

BOS, EOS, HOLE_ID, BEGIN_ID, END_ID = 0, 1, 3, 4, 5


def pack_documents(documents, cuts, *, marks=(BEGIN_ID, HOLE_ID, END_ID)):
    packed = []
    for ids, cut in zip(documents, cuts):
        body = ids
        if cut is not None:
            pieces = ids[: cut[0]], ids[cut[1] :], ids[cut[0] : cut[1]]
            body = itertools.chain(*((m, *piece) for m, piece in zip(marks, pieces)))
        packed += [BOS, *body, EOS]
    return packed


def _without_end_of_middle(documents, cuts):
    """The end mark stands in for the end of text in the documents that are cut."""
    return [
        id
        for ids, cut in zip(documents, cuts)
        for id in pack_documents([ids], [cut])[: None if cut is None else -1]
    ]


def _end_after_suffix(documents, cuts):
    packed = []
    for ids, cut in zip(documents, cuts):
        if cut is None:
            packed += [BOS, *ids, EOS]
        else:
            i, j = cut
            packed += [BOS, BEGIN_ID, *ids[:i], HOLE_ID, *ids[j:], EOS]
            packed += [END_ID, *ids[i:j]]
    return packed


def _natural_order(documents, cuts):
    packed = []
    for ids, cut in zip(documents, cuts):
        i, j = cut or (0, 0)
        marked = [BEGIN_ID, *ids[:i], HOLE_ID, *ids[i:j], END_ID, *ids[j:]]
        packed += [BOS, *(ids if cut is None else marked), EOS]
    return packed


def _suffix_first(documents, cuts):
    packed = []
    for ids, cut in zip(documents, cuts):
        i, j = cut or (0, 0)
        marked = [BEGIN_ID, *ids[j:], HOLE_ID, *ids[:i], END_ID, *ids[i:j]]
        packed += [BOS, *(ids if cut is None else marked), EOS]
    return packed


def packing_cases(rng):
    def document(n):
        return rng.integers(10, 1000, size=n).tolist()

    lengths = rng.integers(5, 9, size=4).tolist()
    documents = [document(n) for n in lengths]
    yield Case((documents, [(1, 3), None, (2, 4), None]), "two of four cut")
    yield Case((documents[:1], [None]), "one document, not cut")
    yield Case((documents[:2], [(0, 2), (3, lengths[1])]), "no prefix; no suffix")
    yield Case(
        ([document(3), []], [(1, 1), None]), "an empty middle, an empty document"
    )
    yield Case(([document(2)], [(0, 2)]), "all of a document hidden")


PACKING = Exercise(
    id="07.5",
    title="Cut, then pack",
    signature="pack_documents(documents, cuts)",
    difficulty="a few lines",
    minutes=12,
    right=pack_documents,
    cases=packing_cases,
    mistakes=(
        Mistake(
            "a document that is cut has no EOS: without it after the middle a model "
            "never learns where to stop",
            gives=_without_end_of_middle,
        ),
        Mistake(
            "EOS stands after the suffix; the text ends after the middle",
            gives=_end_after_suffix,
        ),
        Mistake(
            "the middle is still in the middle: it goes to the end, after the end mark",
            gives=_natural_order,
        ),
        Mistake(
            "the suffix stands before the prefix: that is SPM; DeepSeek writes prefix, "
            "suffix, middle",
            gives=_suffix_first,
        ),
        Mistake(
            "begin and hole are exchanged: begin is 4, hole is 3",
            gives=lambda d, c: pack_documents(d, c, marks=(HOLE_ID, BEGIN_ID, END_ID)),
        ),
        Mistake(
            "documents that are not to be cut (None) have marks as well",
            gives=lambda d, c: pack_documents(d, [x or (0, 0) for x in c]),
        ),
        Mistake(
            "nothing is cut",
            gives=lambda d, c: pack_documents(d, [None] * len(c)),
        ),
        Mistake(
            "BOS and EOS stand once around everything; each document has its own",
            gives=lambda d, c: [
                BOS,
                *(i for i in pack_documents(d, c) if i not in (BOS, EOS)),
                EOS,
            ],
        ),
        Mistake(
            "the documents are still apart: make one list of them",
            when=lambda got, want, args: (
                isinstance(got, list) and any(isinstance(x, list) for x in got)
            ),
        ),
    ),
    hint="write down the row for one document that is cut and one that is not",
)
