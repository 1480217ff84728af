"""The tokenizer: round trips, special tokens that text cannot make, clear errors."""

import json
import random

import pytest
import torch

from deepseek_mini import Tokenizer
from deepseek_mini.tokenizer import SMALL_PATH, SPECIAL_TOKENS

TEXTS = [
    "",
    " ",
    "def f(x):\n    return x\n",
    "  two  spaces\t\ttabs\r\nand a line\n\n\n",
    "naïve café, 你好 世界, かな, 🙂👩‍👩‍👧, \u0301 alone",
    "1 22 333 4444 12345678",
    "x = {'a': [1, 2], \"b\": None}  # comment!?",
    "\x00\x01\x7f\ufeff\ufffd",
]


@pytest.fixture(scope="module")
def small():
    return Tokenizer.small()


@pytest.fixture
def source():
    return json.loads(SMALL_PATH.read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip(small, text):
    assert small.decode(small.encode(text)) == text


def test_round_trip_of_any_text(small):
    draw = random.Random(0)
    spans = [(0, 127), (0, 0x7FF), (0x2000, 0xD7FF), (0xE000, 0x10FFFF)]
    lengths = small.byte_lengths()
    for _ in range(200):
        points = [draw.randint(*draw.choice(spans)) for _ in range(draw.randrange(40))]
        text = "".join(map(chr, points))
        ids = small.encode(text)
        assert small.decode(ids) == text
        assert sum(lengths[id] for id in ids) == len(text.encode())


def test_small_has_exactly_1024_entries(small):
    assert small.vocab_size == 1024
    assert len(small._backend.get_vocab()) == 1024
    assert len(small.byte_lengths()) == 1024


def test_special_tokens_are_spelled_as_deepseek_does(small):
    assert [small.id(name) for name in ("bos", "eos", "pad")] == [0, 1, 2]
    assert set(small.special_ids) == set(SPECIAL_TOKENS.values())
    for name, spelled in SPECIAL_TOKENS.items():
        assert small.id(name) == small.id(spelled) == small.special_ids[spelled]
    assert "\uff5c" in SPECIAL_TOKENS["bos"] and "\u2581" in SPECIAL_TOKENS["bos"]
    assert "|" not in SPECIAL_TOKENS["bos"] and "_" not in SPECIAL_TOKENS["bos"]


def test_text_never_makes_a_special_token(small):
    text = "a" + "".join(SPECIAL_TOKENS.values()) + "b"
    ids = small.encode(text)
    assert not set(ids) & set(small.special_ids.values())
    assert small.decode(ids) == text
    asked = small.encode(text, allow_special=True)
    assert set(small.special_ids.values()) <= set(asked)
    assert small.decode(asked) == text
    assert small.decode(asked, skip_special=True) == "ab"


def test_tokens_not_marked_special_are_refused_to_text_as_well(source):
    """Released files say "special": false of <｜User｜> and <think>."""
    for token in source["added_tokens"]:
        token["special"] = False
    tokenizer = Tokenizer(json.dumps(source))
    assert tokenizer.id("think") not in tokenizer.encode("<think>")
    assert tokenizer.encode("<think>", allow_special=True) == [tokenizer.id("think")]
    assert tokenizer.decode([tokenizer.id("think")], skip_special=True) == ""


def test_marks_without_angle_brackets_are_refused_too(source):
    """V4's file adds ｜DSML｜ and <dsml: and does not mark them as special."""
    for id, content in ((1024, "｜DSML｜"), (1025, "<dsml:")):
        token = {**source["added_tokens"][0], "content": content, "id": id}
        source["added_tokens"].append({**token, "special": False, "normalized": True})
    tokenizer = Tokenizer(json.dumps(source))
    for id, content in ((1024, "｜DSML｜"), (1025, "<dsml:")):
        assert id not in tokenizer.encode(content)
        assert tokenizer.encode(content, allow_special=True) == [id]


def test_plain_added_letters_stay_text(source):
    """DeepSeek-Coder adds a few letters to its entries: they are text."""
    letter = {**source["added_tokens"][0], "content": "Ж", "id": 1024, "special": False}
    source["added_tokens"].append(letter)
    tokenizer = Tokenizer(json.dumps(source))
    assert tokenizer.encode("Ж") == [1024]
    assert "Ж" not in tokenizer.special_ids
    assert tokenizer.byte_lengths()[1024] == 2
    assert tokenizer.vocab_size == 1025


def test_bos_only_on_request(small):
    assert small.encode("x", bos=True) == [0, *small.encode("x")]


def test_digits_are_cut_in_groups_of_three(small):
    """Text that is nothing but digits still teaches no entry of four."""
    digits = " ".join(str(number) for number in range(1000, 3000))
    trained = Tokenizer.train([digits], 400)
    pieces = [trained.decode([id]) for id in range(400)]
    assert max(len(piece) for piece in pieces[10:]) == 3
    ids = trained.encode("1001002003")
    assert trained.decode(ids[:1]) in ("100", "10", "1")
    assert trained.decode(ids) == "1001002003"


def test_batch_equals_one_by_one(small):
    assert small.encode_batch(TEXTS) == [small.encode(text) for text in TEXTS]


def test_equals_the_library_on_the_same_file(small, tmp_path):
    """Ids are those of an independent reader of the saved file."""
    transformers = pytest.importorskip("transformers")
    small.save(tmp_path / "tokenizer.json")
    path = str(tmp_path / "tokenizer.json")
    other = transformers.PreTrainedTokenizerFast(tokenizer_file=path)
    for text in TEXTS:
        assert small.encode(text) == other.encode(text, add_special_tokens=False)


def test_decode_takes_tensors_and_half_characters(small):
    ids = small.encode("aé")
    assert small.decode(torch.tensor(ids)) == "aé"
    byte = small.encode("🙂")
    if len(byte) > 1:
        assert "\ufffd" in small.decode(byte[:1])


@pytest.mark.parametrize(
    "ids", [[1024], [-1], [0.5], [[1, 2]], torch.zeros(1, 2).long()]
)
def test_decode_refuses_what_is_no_id(small, ids):
    with pytest.raises(ValueError, match="ids from 0 to 1023"):
        small.decode(ids)


def test_encode_refuses_what_is_no_text(small):
    with pytest.raises(ValueError, match="position 1"):
        small.encode("a\ud800")
    with pytest.raises(ValueError, match="position 2"):
        small.encode_batch(["fine", "ab\udfff"])
    with pytest.raises(TypeError, match="bytes"):
        small.encode(b"bytes")


def test_train_is_repeatable_and_exact():
    texts = ["the cat sat on the mat, the hat sat on the cat. " * 5] * 3
    first, second = (Tokenizer.train(iter(texts), 280) for _ in range(2))
    assert first.vocab_size == 280
    assert first._source == second._source
    assert first.decode(first.encode("the cat")) == "the cat"


def test_train_refuses_impossible_sizes():
    with pytest.raises(ValueError, match="at least 266"):
        Tokenizer.train(["x"], 265)
    with pytest.raises(ValueError, match="of 5000 entries"):
        Tokenizer.train(["only a few words"], 5000)


def test_save_and_read_again(small, tmp_path):
    small.save(tmp_path / "tokenizer.json")
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        again = Tokenizer.from_file(place)
        assert again.encode(TEXTS[4]) == small.encode(TEXTS[4])
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        Tokenizer.from_file(tmp_path / "nothing.json")
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        Tokenizer.from_file(tmp_path)
    bad = tmp_path / "bad.json"
    for content in (b"", b"{}", b"[]", b"null", b"not json", b'{"model": {}}'):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.json is not a tokenizer\.json"):
            Tokenizer.from_file(bad)
    bad.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match=r"bad\.json .*byte 7 is not UTF-8"):
        Tokenizer.from_file(bad)


def test_no_such_special_token(small):
    with pytest.raises(ValueError, match="'eot'"):
        small.id("eot")
