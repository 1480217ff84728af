"""The training loop: learns, repeats, resumes to the last bit, fails cleanly."""

import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import torch

import deepseek_mini as dm
from deepseek_mini import training
from deepseek_mini.data import Corpus, Document, PackedData, pack
from deepseek_mini.training import (
    TrainConfig,
    evaluate,
    make_optimizer,
    train,
)
from deepseek_mini.training.schedules import SCHEDULES

TINY = dm.Config(
    vocab_size=1024,
    dim=16,
    n_layers=1,
    max_seq_len=32,
    attention=dm.config.GQA(n_heads=2, n_kv_heads=1, head_dim=8),
    dense=dm.config.SwiGLU(24),
    init_std=0.05,
)
RECIPE = TrainConfig(
    steps=24, batch_size=2, lr=1e-2, warmup=4, save_every=5, eval_every=8
)


def new_model(seed=0, config=TINY):
    torch.manual_seed(seed)
    return dm.Transformer(config)


def make_data(seq_len=16):
    words = itertools.cycle(["alpha ", "beta(", "gamma\n", "  delta ", "42 "])
    texts = ["".join(itertools.islice(words, 200 + i)) for i in range(4)]
    documents = tuple(Document(f"d{i}", text) for i, text in enumerate(texts))
    corpus = Corpus("words", documents[1:], documents[:1])
    return pack(corpus, dm.Tokenizer.small(), seq_len)


@pytest.fixture(scope="module")
def data():
    return make_data()


@pytest.fixture(scope="module")
def whole(data):
    """A run that nothing stops."""
    return train(new_model(), data, RECIPE, progress=False)


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def without_time(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


class StopAt(PackedData):
    """Data that raises when a step's batch is asked for: a crash in the loop."""

    def __init__(self, data, step, error=None):
        self.__dict__.update(vars(data), at=step, error=error)

    def batch(self, step, batch_size, seed=0):
        if step == self.at:
            self.happen()
        return super().batch(step, batch_size, seed)

    def happen(self):
        raise self.error


def test_it_learns(whole):
    assert whole.losses[0] == pytest.approx(math.log(1024), abs=0.5)
    assert whole.losses[-1] < whole.losses[0] - 1
    assert not whole.interrupted and whole.out_dir is None
    assert [row["step"] for row in whole.history] == list(range(1, 25))
    assert [row["step"] for row in whole.validation] == [8, 16, 24]
    keys = {"step", "loss", "lr", "grad_norm", "tokens", "seconds"}
    assert set(whole.history[0]) == keys
    assert whole.history[-1]["tokens"] == 24 * 2 * 16
    assert [row["lr"] for row in whole.history[:4]] == [0.0025, 0.005, 0.0075, 0.01]


def test_it_repeats(whole, data):
    again = train(new_model(), data, RECIPE, progress=False)
    assert without_time(again.history) == without_time(whole.history)
    other = train(new_model(), data, replace(RECIPE, seed=1), progress=False)
    assert other.losses != whole.losses


def test_the_first_step_by_hand(whole, data):
    """Loss, clipping and AdamW of one step, written out."""
    model = new_model()
    tokens = data.batch(0, 2, 0)
    logits = model(tokens[:, :-1])
    picked = logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])
    loss = -picked.mean()
    assert loss.item() == pytest.approx(whole.losses[0], rel=1e-6)
    loss.backward()
    norm = math.sqrt(sum(float(p.grad.pow(2).sum()) for p in model.parameters()))
    assert norm == pytest.approx(whole.history[0]["grad_norm"], rel=1e-5)
    expected = {}
    for name, p in model.named_parameters():
        g = p.grad * min(1.0, 1.0 / norm)
        decay = 0.1 if p.ndim >= 2 else 0.0
        lr = 0.01
        # After one step both averages, freed of their bias, are g and g².
        expected[name] = p * (1 - lr * decay) - lr * g / (g.abs() + 1e-8)
    one = new_model()
    train(
        one,
        data,
        TrainConfig(
            steps=1,
            batch_size=2,
            lr=0.01,
            warmup=0,
            schedule="constant",
            eval_windows=1,
        ),
        progress=False,
    )
    for name, p in one.named_parameters():
        torch.testing.assert_close(p, expected[name], rtol=1e-4, atol=1e-6)


def test_norms_and_biases_do_not_decay():
    biased = replace(TINY, attention=dm.config.GQA(2, 1, 8, bias=True))
    model = new_model(config=biased)
    decayed, kept = make_optimizer(model, RECIPE).param_groups
    assert decayed["weight_decay"] == 0.1 and kept["weight_decay"] == 0.0
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in kept["params"]} == {1}
    n_parameters = len(list(model.parameters()))
    assert len(decayed["params"]) + len(kept["params"]) == n_parameters
    assert decayed["betas"] == (0.9, 0.95)


def test_validation_loss_by_hand(data):
    model = new_model()
    score = evaluate(model, data, batch_size=3, n_windows=5)
    tokens = torch.cat(list(data.validation_batches(1, 5)))
    logprobs = model(tokens[:, :-1]).log_softmax(-1)
    nats = -logprobs.gather(-1, tokens[:, 1:, None]).sum().item()
    plain = [
        id
        for id in tokens[:, 1:].flatten().tolist()
        if id not in data.tokenizer.special_ids.values()
    ]
    pieces = (data.tokenizer.decode([id]) for id in plain)
    n_bytes = sum(len(piece.encode()) for piece in pieces)  # this text is ASCII
    assert score["val_loss"] == pytest.approx(nats / tokens[:, 1:].numel(), rel=1e-5)
    bits = nats / math.log(2) / n_bytes
    assert score["val_bits_per_byte"] == pytest.approx(bits, rel=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_warm_up_and_stay_within_the_peak(name):
    rates = [SCHEDULES[name](step, 100, 10) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(rates) == 1.0 and min(rates[10:]) >= 0.1
    assert SCHEDULES[name](0, 100, 0) == 1.0


def test_schedule_shapes():
    rates = [training.multi_step(step, 100, 10) for step in range(100)]
    assert rates[10:80] == [1.0] * 70
    assert rates[80:90] == [0.316] * 10 and rates[90:] == [0.1] * 10
    falling = [training.cosine(step, 100, 10) for step in range(10, 101)]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] == 1.0 and falling[-1] == pytest.approx(0.1)
    assert falling[45] == pytest.approx(0.55)
    rates = [training.warmup_stable_decay(step, 100, 10) for step in range(101)]
    assert rates[10:91] == [1.0] * 81
    assert rates[90:] == pytest.approx([0.1 ** (i / 10) for i in range(11)])


# --- pieces, casts and compilation ----------------------------------------------


@pytest.mark.parametrize("clip", [1.0, 0.05])
def test_pieces_add_up_to_the_whole_batch(data, clip):
    """To rounding, and with a clip that bites (the gradient is clipped as a whole)."""
    recipe = replace(RECIPE, steps=6, batch_size=6, clip=clip)
    models, histories = [], []
    for accumulate in (1, 2, 6):
        model = new_model().double()
        result = train(
            model, data, replace(recipe, accumulate=accumulate), progress=False
        )
        models.append(model)
        histories.append(result.history)
    assert all(row["grad_norm"] > 0.05 for row in histories[0])
    for model, history in zip(models[1:], histories[1:]):
        for row, expected in zip(history, histories[0]):
            assert row["tokens"] == expected["tokens"]
            for key in ("loss", "grad_norm"):
                assert row[key] == pytest.approx(expected[key], rel=1e-6)
        for p, expected in zip(model.parameters(), models[0].parameters()):
            torch.testing.assert_close(p, expected, rtol=0, atol=1e-6)


def test_a_piece_is_a_part_of_the_batch(data):
    seen = []
    model = new_model()

    def watch(embed, args):
        if model.training:
            seen.append(args[0])

    model.embed.register_forward_pre_hook(watch)
    recipe = replace(RECIPE, steps=1, batch_size=6, accumulate=3)
    train(model, data, recipe, progress=False)
    assert [len(piece) for piece in seen] == [2, 2, 2]
    assert torch.equal(torch.cat(seen), data.batch(0, 6, 0)[:, :-1])


def test_autocast(whole, data):
    """Products in bfloat16, weights and validation in float32, nearly the same loss."""
    types = set()
    model = new_model()
    model.head.register_forward_hook(
        lambda m, i, out: types.add((m.training, out.dtype))
    )
    result = train(model, data, replace(RECIPE, autocast=True), progress=False)
    assert types == {(True, torch.bfloat16), (False, torch.float32)}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert result.losses != whole.losses
    assert result.losses == pytest.approx(whole.losses, abs=0.02)
    assert not torch.is_autocast_enabled("cpu")


COMPILED = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
from test_training import *
graphs = []
def count(graph, inputs):  # a compiler that leaves everything as it is
    graphs.append(graph)
    return graph.forward
def compile(forward):
    return plain(forward, backend=count)
plain, torch.compile = torch.compile, compile
data = make_data()
recipe = replace(RECIPE, steps=3, accumulate=2, compile=True)
with dm.paths(attention={path!r}):
    print(json.dumps(train(new_model(), data, recipe, progress=False).losses))
assert sum(len(list(graph.graph.nodes)) for graph in graphs) > 20
"""


@pytest.mark.parametrize("path", ["auto", "naive"])
def test_compiled_layers_compute_the_same(data, path):
    """In a process of its own: here the checks of shapes would be compiled as well."""
    here = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(here)
    script = COMPILED.format(tests=here, root=root, path=path)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "does not work" not in done.stderr, done.stderr
    recipe = replace(RECIPE, steps=3, accumulate=2)
    with dm.paths(attention=path):
        plain = train(new_model(), data, recipe, progress=False)
    assert json.loads(done.stdout) == pytest.approx(plain.losses, rel=1e-6)


def test_without_a_compiler_training_goes_on(whole, data, monkeypatch):
    def broken(forward):
        def call(*args):
            raise RuntimeError("no compiler\nand many more words")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    model = new_model()
    with pytest.warns(UserWarning, match="does not work here .no compiler., so the"):
        result = train(model, data, replace(RECIPE, compile=True), progress=False)
    assert without_time(result.history) == without_time(whole.history)
    assert "forward" not in vars(model.layers[0])


# --- resuming -------------------------------------------------------------------


@pytest.mark.parametrize("crash", [0, 1, 5, 13, 23])
def test_resume_after_an_exception(whole, data, tmp_path, crash):
    broken = StopAt(data, crash, RuntimeError("power cut"))
    with pytest.raises(RuntimeError, match="power cut"):
        train(new_model(), broken, RECIPE, tmp_path, progress=False)
    other = new_model(seed=99)  # its weights come from the checkpoint
    result = train(other, data, RECIPE, tmp_path, resume=True, progress=False)
    assert without_time(result.history) == without_time(whole.history)
    assert without_time(rows(tmp_path)) == without_time(whole.history)
    seconds = [row["seconds"] for row in result.history]
    assert seconds == sorted(seconds)


def test_resume_twice_and_after_the_end(whole, data, tmp_path):
    run = [RECIPE, tmp_path]
    with pytest.raises(RuntimeError):
        train(new_model(), StopAt(data, 7, RuntimeError()), *run, progress=False)
    with pytest.raises(RuntimeError):
        broken = StopAt(data, 16, RuntimeError())
        train(new_model(), broken, *run, resume=True, progress=False)
    train(new_model(), data, *run, resume=True, progress=False)
    done = train(new_model(), data, *run, resume=True, progress=False)
    assert without_time(done.history) == without_time(whole.history)


KILLED = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
from test_training import *
model, data = new_model(), make_data()
recipe = replace(RECIPE, save_every={save_every})
train(model, data, recipe, {out!r}, resume={resume}, progress=False)
"""


def start(out, save_every, resume=False):
    here = os.path.dirname(os.path.abspath(__file__))
    script = KILLED.format(
        tests=here,
        root=os.path.dirname(here),
        out=str(out),
        save_every=save_every,
        resume=resume,
    )
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)


def wait_for_lines(process, folder, n_lines):
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= n_lines:
            return
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.001)
    raise AssertionError("the run did not get on")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("save_every", [1, 5])  # 1: likely killed while it saves
def test_resume_after_sigkill(whole, data, tmp_path, save_every):
    out = tmp_path / "run"
    process = start(out, save_every)
    wait_for_lines(process, out, random.randrange(1, 20))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    result = train(new_model(seed=5), data, RECIPE, out, resume=True, progress=False)
    assert without_time(result.history) == without_time(whole.history)
    assert without_time(rows(out)) == without_time(whole.history)
    left = {path.name for path in out.iterdir()}
    files = "config.json model.safetensors tokenizer.json"
    assert left == {*files.split(), "resume.safetensors", "metrics.jsonl"}


def test_a_metrics_line_cut_in_half_is_dropped(whole, data, tmp_path):
    with pytest.raises(RuntimeError):
        broken = StopAt(data, 12, RuntimeError())
        train(new_model(), broken, RECIPE, tmp_path, progress=False)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "lo')
    (tmp_path / "resume.safetensors.part").write_bytes(b"half")
    result = train(new_model(), data, RECIPE, tmp_path, resume=True, progress=False)
    assert without_time(result.history) == without_time(whole.history)
    assert not (tmp_path / "resume.safetensors.part").exists()


def test_ctrl_c_finishes_the_step_and_saves(whole, data, tmp_path):
    class CtrlC(StopAt):
        def happen(self):
            os.kill(os.getpid(), signal.SIGINT)

    stopping = CtrlC(data, 7)
    result = train(new_model(), stopping, RECIPE, tmp_path, progress=False)
    assert result.interrupted and len(result.history) == 8
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    result = train(new_model(), data, RECIPE, tmp_path, resume=True, progress=False)
    assert not result.interrupted
    assert without_time(result.history) == without_time(whole.history)


def test_it_trains_in_a_thread(data):
    results = []
    recipe = replace(RECIPE, steps=2)

    def work():
        results.append(train(new_model(), data, recipe, progress=False))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(results[0].losses) == 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"lr": 0.02}, "train.lr = 0.01, this is 0.02"),
        ({"seed": 3}, "train.seed"),
        ({"steps": 48}, "train.steps"),
        ({"betas": (0.9, 0.99)}, "train.betas"),
    ],
)
def test_resuming_another_recipe_is_refused(data, tmp_path, change, named):
    recipe = replace(RECIPE, steps=2)
    train(new_model(), data, recipe, tmp_path, progress=False)
    before = (tmp_path / "resume.safetensors").read_bytes()
    with pytest.raises(ValueError, match=named):
        changed = replace(recipe, **change)
        train(new_model(), data, changed, tmp_path, resume=True, progress=False)
    assert (tmp_path / "resume.safetensors").read_bytes() == before


def test_resuming_with_another_model_or_data_is_refused(data, tmp_path):
    recipe = replace(RECIPE, steps=2)
    train(new_model(), data, recipe, tmp_path, progress=False)
    resume = {"resume": True, "progress": False}
    with pytest.raises(ValueError, match=r"model\.n_layers = 1, this is 2"):
        other = new_model(config=replace(TINY, n_layers=2))
        train(other, data, recipe, tmp_path, **resume)
    with pytest.raises(ValueError, match=r"data\.seq_len"):
        train(new_model(), make_data(8), recipe, tmp_path, **resume)
    with pytest.raises(ValueError, match=r"data\.tokens"):
        other = replace(data, train=data.train.flip(0))
        train(new_model(), other, recipe, tmp_path, **resume)
    often = replace(recipe, eval_every=1, save_every=1)  # changes no loss
    train(new_model(), data, often, tmp_path, **resume)


def test_nothing_to_resume(data, tmp_path):
    resume = {"resume": True, "progress": False}
    with pytest.raises(FileNotFoundError, match="no training run"):
        train(new_model(), data, RECIPE, tmp_path / "none", **resume)
    with pytest.raises(ValueError, match="needs out_dir"):
        train(new_model(), data, RECIPE, **resume)
    assert not (tmp_path / "none").exists()


def test_a_damaged_checkpoint(data, tmp_path):
    recipe = replace(RECIPE, steps=2)
    train(new_model(), data, recipe, tmp_path, progress=False)
    checkpoint = tmp_path / "resume.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"resume\.safetensors is not a checkpoint"):
        train(new_model(), data, recipe, tmp_path, resume=True, progress=False)
    (tmp_path / "model.safetensors").replace(checkpoint)
    with pytest.raises(ValueError, match=r"resume\.safetensors is not a checkpoint"):
        train(new_model(), data, recipe, tmp_path, resume=True, progress=False)


# --- folders --------------------------------------------------------------------


def test_a_run_is_a_model_folder(data, tmp_path):
    model = new_model()
    out = tmp_path / "a" / "b"
    result = train(model, data, replace(RECIPE, steps=3), out, progress=False)
    assert result.out_dir == out
    loaded = dm.load(out)
    assert loaded.config.dim == 16
    tokens = data.batch(0, 1)
    torch.testing.assert_close(loaded(tokens), model(tokens))
    assert dm.Tokenizer.from_file(out).encode("a b") == data.tokenizer.encode("a b")


def test_a_taken_folder_is_left_alone(data, tmp_path):
    recipe = replace(RECIPE, steps=2)
    dm.save(new_model(), tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="already holds a model"):
        train(new_model(), data, recipe, tmp_path / "model", progress=False)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    train(new_model(), data, recipe, tmp_path / "run", progress=False)
    with pytest.raises(FileExistsError, match="already holds a training run"):
        train(new_model(), data, recipe, tmp_path / "run", progress=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file is a file"):
        train(new_model(), data, recipe, tmp_path / "file", progress=False)


def test_a_full_disk_keeps_the_last_checkpoint(whole, data, tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Fills(StopAt):  # no file may grow beyond 20 kB from this step on
        def happen(self):
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))

    try:
        with pytest.raises(OSError, match=r"could not save step 10 .*step 5 is whole"):
            train(new_model(), Fills(data, 7), RECIPE, tmp_path, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob("*.part"))
    assert dm.load(tmp_path).config.dim == 16
    result = train(new_model(), data, RECIPE, tmp_path, resume=True, progress=False)
    assert without_time(result.history) == without_time(whole.history)


def test_a_full_disk_at_the_start(data, tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match="could not save step 0"):
            train(new_model(), data, RECIPE, tmp_path / "run", progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "run").exists()
    result = train(
        new_model(), data, replace(RECIPE, steps=1), tmp_path / "run", progress=False
    )
    assert len(result.losses) == 1


def test_tied_weights_are_saved_once(data, tmp_path):
    config = replace(TINY, tie_embeddings=True)
    recipe = replace(RECIPE, steps=9)
    whole = train(new_model(config=config), data, recipe, progress=False)
    with pytest.raises(RuntimeError):
        broken = StopAt(data, 7, RuntimeError())
        train(new_model(config=config), broken, recipe, tmp_path, progress=False)
    model = new_model(1, config)
    result = train(model, data, recipe, tmp_path, resume=True, progress=False)
    assert result.losses == whole.losses
    assert model.head.weight is model.embed.weight


# --- bad input ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch_size", -1),
        ("lr", 0.0),
        ("lr", math.nan),
        ("clip", math.inf),
        ("warmup", -1),
        ("weight_decay", -0.1),
        ("betas", (0.9, 1.0)),
        ("betas", (0.9,)),
        ("betas", 0.9),
        ("betas", ("a", "b")),
        ("lr", "x"),
        ("lr", True),
        ("clip", None),
        ("weight_decay", "0.1"),
        ("steps", "10"),
        ("steps", True),
        ("schedule", ["wsd"]),
        ("accumulate", 3),
        ("accumulate", 0),
        ("autocast", "bfloat16"),
        ("compile", 1),
        ("fp8", "yes"),
        ("balance", {"bias_speed": 0.1}),
        ("mtp_weight", -0.1),
        ("mtp_weight", "0.3"),
        ("schedule", "linear"),
        ("save_every", 0),
        ("seed", 2**64),
    ],
)
def test_impossible_recipes(field, value):
    """Made without __init__, where beartype would see a wrong type before we do."""
    config = object.__new__(TrainConfig)
    vars(config).update(vars(TrainConfig(steps=10)))
    config.__post_init__()
    object.__setattr__(config, field, value)
    with pytest.raises(ValueError, match=rf"TrainConfig\.{field} must be .* got"):
        config.__post_init__()


def test_a_folder_is_checked_before_any_work(data, tmp_path):
    training.check_out_dir(tmp_path / "new", resume=False)
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("mine")
    for resume in (False, True):
        with pytest.raises(NotADirectoryError, match="file is a file"):
            training.check_out_dir(tmp_path / "file", resume)
        with pytest.raises(NotADirectoryError, match="file is a file"):
            train(new_model(), data, RECIPE, tmp_path / "file", resume=resume)


def test_data_that_does_not_fit(data):
    with pytest.raises(ValueError, match="reads at most 8"):
        train(new_model(config=replace(TINY, max_seq_len=8)), data, RECIPE)
    with pytest.raises(ValueError, match="1024 entries, but the model only 1000"):
        train(new_model(config=replace(TINY, vocab_size=1000)), data, RECIPE)


def test_a_loss_that_is_no_number(data, tmp_path):
    model = new_model()
    with torch.no_grad():
        model.norm.weight.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="nan at step 1: lower the learning"):
        train(model, data, RECIPE, tmp_path, progress=False)


def test_progress_and_log(data, capsys):
    lines = []
    recipe = replace(RECIPE, steps=9)
    train(new_model(), data, recipe, progress=True, log=lines.append)
    assert [line.split(":")[0] for line in lines] == ["step 8/9", "step 9/9"]
    assert "bits/byte" in lines[0]
    shown = capsys.readouterr().err
    assert "9/9" in shown and "loss=" in shown and "tokens/s=" in shown
    train(new_model(), data, recipe, progress=False)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
