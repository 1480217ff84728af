"""Exercise 07.5: a row of ids, of documents that are cut or not."""

import itertools

from deepseek_mini.lesson.oracles import Case, Exercise, Mistake

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


def _one_by_one(change):
    """Each document by `change(ids, cut)`, its own marks and all."""

    def wrong(documents, cuts):
        return [i for ids, cut in zip(documents, cuts) for i in change(ids, cut)]

    return wrong


def _no_start(ids, cut):
    """A document that is cut begins with its begin mark, not with BOS."""
    packed = pack_documents([ids], [cut])
    return packed if cut is None else packed[1:]


def _start_inside(ids, cut):
    packed = pack_documents([ids], [cut])
    return packed if cut is None else [BEGIN_ID, BOS, *packed[2:]]


def _middle_too_long(ids, cut):
    packed = pack_documents([ids], [cut])
    return packed if cut is None else [*packed[:-1], *ids[cut[1] :][:1], EOS]


def _only_the_cut(ids, cut):
    return [] if cut is None else pack_documents([ids], [cut])


def _cut_where(kept):
    """Cuts for which `kept` is false count as None."""

    def change(ids, cut):
        return pack_documents([ids], [cut if cut and kept(*cut) else None])

    return _one_by_one(change)


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
            "EOS stands after the suffix; it belongs at the very end, after the middle",
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
            "no document is cut: where there is a pair of places, the marks and the "
            "new order are missing",
            gives=lambda d, c: pack_documents(d, [None] * len(c)),
        ),
        Mistake(
            "a document whose middle is empty is cut as well: it has its three marks, "
            "and nothing between the end mark and EOS",
            gives=_cut_where(lambda first, second: first < second),
        ),
        Mistake(
            "a cut at place 0 is a cut: only None says that a document stays whole",
            gives=_cut_where(lambda first, second: first and second),
        ),
        Mistake(
            "a document that is cut has no BOS; it stands before the begin mark",
            gives=_one_by_one(_no_start),
        ),
        Mistake(
            "BOS and the begin mark have changed places: BOS starts every document",
            gives=_one_by_one(_start_inside),
        ),
        Mistake(
            "the middle is one token too long: `second` is the place before token "
            "number second",
            gives=_one_by_one(_middle_too_long),
        ),
        Mistake(
            "documents that are not to be cut (None) are missing; they stand as they "
            "are, between BOS and EOS",
            gives=_one_by_one(_only_the_cut),
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
