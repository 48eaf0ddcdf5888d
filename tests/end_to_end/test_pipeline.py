"""The pipeline as people use it: real `dvc repro`, `dvc exp run` and the rest, in real clones."""

import gzip
import json
import os
import shutil
import subprocess
import zipfile

import keras
import numpy as np
import pytest
import vl_convert
import yaml

from tests.support import ROOT, SMALL, Project, changed_params, of_check, outputs, without_training


@pytest.mark.parametrize("stage", ["check", "download", "vectorize", "baseline", "report"])
def test_light_stages_do_not_import_tensorflow(finished, stage):
    code = f"import sys, stages.{stage} as s; s.main(); sys.exit('tensorflow' in sys.modules)"
    finished.run("python", "-c", code, fork=False)


def ran(done: subprocess.CompletedProcess) -> list[str]:
    """The stages that DVC ran, but `check`, which runs after any change of a parameter."""
    stages = [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]
    return [stage for stage in stages if stage != "check"]


def samples(project: Project) -> list[dict]:
    return [json.loads(line) for line in project.read("metrics/samples.jsonl").splitlines()]


def test_every_output_is_there(finished):
    files = outputs(finished.root)
    assert set(files) == {
        "data/corpus_files.json",
        "data/initial_files.json",
        "data/corpus.txt",
        "data/windows.npz",
        "models/checkpoints/epoch-000.npz",
        "models/checkpoints/epoch-001.npz",
        "models/model.keras",
        "models/vocabulary.json",
        "metrics/corpus.json",
        "metrics/windows.json",
        "metrics/train/device.json",
        "metrics/train/metrics.json",
        "metrics/train/losses.tsv",
        "metrics/samples.jsonl",
        "metrics/samples/epoch-000.txt",
        "metrics/samples/epoch-001.txt",
        "metrics/score.json",
        "metrics/quality.tsv",
        "metrics/baseline.tsv",
        "metrics/report.html",
    }
    text = (finished.root / "corpora/book.txt").read_text()
    assert files["data/corpus.txt"].decode() == text
    found = samples(finished)
    assert [(s["epoch"], s["temperature"]) for s in found] == [(e, t) for e in (0, 1) for t in (0, 0.5, 1)]
    assert {s["prompt"] for s in found} == {text[:12].lower().replace("\n", " ")}
    assert {len(s["text"]) for s in found} == {20}
    page = files["metrics/samples/epoch-001.txt"].decode()
    assert page.startswith("epoch: 1\nloss: ")
    for sample in found[3:]:
        assert f"temperature: {sample['temperature']}\nGenerating with seed: {sample['prompt']}\n" in page
        assert f"GENERATED:{sample['text']}\n" in page


def test_the_model_is_the_last_checkpoint_and_stock_keras_opens_it(finished):
    model = keras.models.load_model(finished.root / "models/model.keras")
    vocabulary = len(set((finished.root / "corpora/book.txt").read_text().lower().replace("\n", " ")))
    assert model.input_shape == (None, 12, vocabulary)
    assert model.output_shape == (None, vocabulary)
    with np.load(finished.root / "models/checkpoints/epoch-001.npz") as last:
        for position, weight in enumerate(model.get_weights()):
            np.testing.assert_array_equal(weight, last[f"weights_{position:03d}"])
        assert int(model.optimizer.iterations) == int(last["optimizer_000"]) > 0
    with zipfile.ZipFile(finished.root / "models/model.keras") as archive:
        assert {member.date_time[0] for member in archive.infolist()} == {1980}


def test_nothing_runs_twice(small):
    assert ran(small.dvc("repro")) == []
    assert small.dvc("status").stdout.strip() == "Data and pipelines are up to date."
    first = outputs(small.root)

    small.set_params(train__learning_rate=0.005, sample__temperatures=[0.0, 2.0])
    done = small.dvc("repro")
    assert ran(done) == ["train", "sample", "report"]
    assert "computed before" not in done.stdout
    assert outputs(small.root)["models/model.keras"] != first["models/model.keras"]

    small.set_params(train__learning_rate=0.01, sample__temperatures=SMALL["sample__temperatures"])
    done = small.dvc("repro")
    assert ran(done) == []
    assert done.stdout.count("is cached - skipping run") == 4
    assert outputs(small.root) == first


def test_one_hot_layout_gives_the_same_model(small):
    first = outputs(small.root)
    small.set_params(vectorize__one_hot=True)
    assert ran(small.dvc("repro", "train")) == ["vectorize", "train"]
    second = outputs(small.root)
    with np.load(small.root / "data/windows.npz") as file:
        assert (file["x"].dtype, file["x"].ndim, file["y"].ndim) == (bool, 3, 2)
    assert len(second["data/windows.npz"]) > 5 * len(first["data/windows.npz"])
    for name in ("models/model.keras", "models/vocabulary.json", "metrics/train/metrics.json"):
        assert first[name] == second[name]


def test_experiments_metrics_and_plots(longer, tmp_path):
    """The experiment `longer` beside the run of the branch, which has no splits."""
    shutil.copytree(longer.root, tmp_path / "project", symlinks=True)
    small = Project(tmp_path / "project")
    shown = json.loads(small.dvc("metrics", "show", "--json").stdout)
    metrics = shown[""]["data"]
    assert metrics.keys() == {"metrics/corpus.json", "metrics/train/metrics.json"}
    assert metrics["metrics/corpus.json"]["data"] == {"corpus": "book.txt"}
    train = metrics["metrics/train/metrics.json"]["data"]
    assert train.keys() == {"loss", "val_loss", "test_loss", "best_epoch"}
    assert 0 < train["val_loss"] < 10
    assert 0 < train["test_loss"] < 10
    (small.root / "metrics/corpus.json").write_text('{"corpus": "a_name_of_20_letters"}')  # the longest
    lines = small.dvc("metrics", "show").stdout.splitlines()
    assert lines[0].split() == ["Path", "best_epoch", "corpus", "loss", "test_loss", "val_loss"]
    assert max(map(len, lines)) < 100
    without = {"loss": 1.23456, "bits_per_char": 1.23456, "val_loss": 1.23456, "best_epoch": 100}
    (small.root / "metrics/train/metrics.json").write_text(json.dumps(without))
    lines = small.dvc("metrics", "show").stdout.splitlines()
    assert lines[0].split() == ["Path", "best_epoch", "bits_per_char", "corpus", "loss", "val_loss"]
    assert max(map(len, lines)) < 100
    assert len(samples(small)) == 15

    assert "longer" in small.dvc("exp", "show", "--only-changed", "--csv").stdout
    small.dvc("plots", "diff", "longer", "HEAD", "-o", "plots")
    assert "mean cross-entropy, nats" in (small.root / "plots/index.html").read_text()
    done = small.dvc("plots", "diff", "longer", "HEAD", "--json")
    assert done.stderr == ""
    drawn = {name: plot["content"] for name, (plot,) in json.loads(done.stdout)["data"].items()}
    loss, words = "metrics/train/losses.tsv", "metrics/quality.tsv"
    baseline = drawn.pop("metrics/baseline.tsv")
    assert {(row["rev"], row["n"]) for row in baseline["data"]["values"]} == {
        ("longer", str(n)) for n in range(1, 13)
    }
    assert drawn.keys() == {loss, words, "bits_per_char", "novelty_8", "longest_copy", "distinct_3"}
    parts = {("longer", "training"), ("longer", "validation"), ("HEAD", "training")}
    temperatures = {(rev, t) for rev in ("longer", "HEAD") for t in ("0.0", "0.5", "1.0")}
    for name, plot in drawn.items():
        split = "part" if name in (loss, "bits_per_char") else "temperature"
        lines = {(row["rev"], row[split]) for row in plot["data"]["values"]}
        assert lines == (parts if split == "part" else temperatures)
        encoding = plot["encoding"]
        assert {encoding["color"]["field"], encoding["strokeDash"]["field"]} == {split, "rev"}
        assert encoding["x"]["title"] == "epoch"
        assert "<svg" in vl_convert.vegalite_to_svg(plot)
    assert drawn[loss]["encoding"]["y"]["title"] == "mean cross-entropy, nats"
    assert drawn[words]["title"]["text"] == "Known words"


def test_a_prompt_of_ones_own(small):
    small.set_params(sample__prompt="Ba di lu\nme no pi ra")  # normalized as the text is
    assert ran(small.dvc("repro")) == ["sample", "report"]
    assert {s["prompt"] for s in samples(small)} == {"ba di lu me no pi ra"}
    before = outputs(small.root)
    small.set_params(sample__prompt="ba#")
    for stage in ("train", "sample"):  # before the first epoch is computed
        done = small.run("python", "-m", f"stages.{stage}", code=1)
        assert done.stderr.startswith("error: sample.prompt: character '#' at position 2 is not in the voc")
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    done = small.dvc("repro", code=None)
    assert done.returncode != 0
    assert "error: sample.prompt: character '#' at position 2 is not in" in done.stderr
    assert "Traceback" not in done.stderr
    small.set_params(sample__prompt="Ba di lu\nme no pi ra")
    assert ran(small.dvc("repro")) == []
    assert outputs(small.root) == before  # nothing was lost


def test_a_mistake_loses_nothing(small):
    """DVC removes a stage's outputs before it runs the stage, so `check` has to meet the mistake first."""
    before = outputs(small.root)
    small.set_params(train__batch_size=-1)
    done = small.dvc("repro", code=255)
    assert done.stderr.startswith("error: params.yaml: train.batch_size: got -1; takes a whole number")
    assert "Traceback" not in done.stderr
    assert {**of_check(before), **outputs(small.root)} == before
    small.set_params(train__batch_size=SMALL["train__batch_size"])
    assert ran(small.dvc("repro")) == []
    assert outputs(small.root) == before


def test_troubleshooting_has_the_words_of_errors(small):
    pages = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    before = outputs(small.root)
    for path in ("corpora/boook.txt", "/home/me/book.txt"):
        small.set_params(download__corpus=path)
        line = small.run("python", "-m", "stages.check", code=1).stderr.strip()
        assert line.split("; there are")[0] in pages
    (small.root / "corpora/linked.txt").symlink_to("no-such-file.txt")
    done = small.dvc("repro", code=255)
    assert done.stderr.strip().replace(str(small.root), "...") in pages
    (small.root / "corpora/linked.txt").unlink()
    small.set_params(download__corpus="corpora/book.txt", train__epochs=3)  # other than in the last commit
    small.environment = {k: v for k, v in small.environment.items() if not k.startswith("GIT_")}
    no_identity = {"HOME": str(small.root), "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = small.dvc("exp", "run", "-S", "train.epochs=3", code=255, fork=False, **no_identity)
    assert done.stderr.strip().splitlines()[0] in pages
    small.set_params(train__epochs=2)
    assert ran(small.dvc("repro")) == []
    assert outputs(small.root) == before


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (
            "corpora/boook.txt",
            "download.corpus: got 'corpora/boook.txt', and there is no such file; takes a text or a "
            "description in corpora/; there are corpora/book.txt, corpora/enwik8.yaml, corpora/nie",
        ),
        (
            "corpora/nietsche.yaml",
            "corpora/nietsche.yaml is missing; there are corpora/book.txt, corpora/enwik8.yaml,",
        ),
        (
            "corpora/linked/book.txt",
            "corpora/linked/book.txt is in a folder that is a link, where DVC notices no change; replace",
        ),
        ("corpora/a\0.yaml", "params.yaml: download.corpus: got 'corpora/a\\x00.yaml'; takes the path of a"),
    ],
)
def test_a_corpus_that_will_not_do_is_named_before_anything_is_removed(small, tmp_path, path, says):
    before = outputs(small.root)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/book.txt").write_text("a text in a folder outside")
    (small.root / "corpora/linked").symlink_to(tmp_path / "texts")
    small.set_params(download__corpus=path)
    done = small.dvc("repro", code=255)
    first, last = done.stderr.strip().splitlines()
    assert first.startswith(f"error: {says}")
    assert last.startswith("ERROR: failed to reproduce 'check'")
    assert {**of_check(before), **outputs(small.root)} == before


@pytest.mark.parametrize(
    ("stage", "file", "content", "says"),
    [
        ("vectorize", "data/corpus.txt", b"short", "the text has 5 characters; a window and its target"),
        ("vectorize", "data/corpus.txt", b"\xff\xfe", "data/corpus.txt is not UTF-8 text"),
        ("vectorize", "data/corpus.txt", None, "data/corpus.txt is missing; `dvc repro download`"),
        ("train", "data/windows.npz", None, "data/windows.npz is missing; `dvc repro vectorize`"),
        ("train", "data/windows.npz", b"PK", "data/windows.npz is damaged"),
        ("sample", "data/corpus.txt", None, "data/corpus.txt is missing; `dvc repro download`"),
        ("sample", "models/vocabulary.json", b"{", "models/vocabulary.json is damaged"),
        ("sample", "models/vocabulary.json", None, "models/vocabulary.json is missing; `dvc repro train`"),
        (
            "sample",
            "models/checkpoints/epoch-000.npz",
            b"PK",
            "models/checkpoints/epoch-000.npz: its checksum",
        ),
        ("sample", "models/model.keras", None, "models/model.keras is missing; `dvc repro train`"),
        (
            "sample",
            "data/corpus.txt",
            "a\u20ac".encode(),
            "models has a model of another text than data/corpus",
        ),
        ("sample", "models/checkpoints", None, "models/checkpoints has no checkpoints; `dvc repro train`"),
    ],
)
def test_what_a_stage_cannot_read_is_named(small, stage, file, content, says):
    before = outputs(small.root)
    path = small.root / file
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if content is not None:
        path.write_bytes(content)
    done = small.run("python", "-m", f"stages.{stage}", code=1)
    assert done.stderr.startswith(f"error: {says}")
    assert done.stderr.count("\n") == 1
    after = outputs(small.root)
    assert {name for name in before if before[name] != after.get(name)} <= {
        name for name in before if name.startswith(file)
    }


def test_a_text_that_has_changed_since_its_check_is_named(small):
    """DVC would otherwise record the old text's hash beside the new one's results."""
    before = outputs(small.root)
    (small.root / "corpora/book.txt").write_text("di ra ko " * 400)
    done = small.run("python", "-m", "stages.download", code=1)
    says = "error: corpora/book.txt is not what the stage check read; run `dvc repro`\n"
    assert done.stderr == says
    assert outputs(small.root) == before


def test_a_gpu_that_is_not_there_is_named(small):
    small.set_params(vectorize__lowercase=False)
    small.dvc("repro", "vectorize")  # another vocabulary
    small.set_params(train__device="gpu")
    before = outputs(small.root)
    done = small.run("python", "-m", "stages.train", code=1, fork=False, CUDA_VISIBLE_DEVICES="-1")
    assert done.stderr.startswith("error: train.device: got 'gpu', but TensorFlow sees no GPU here: ")
    assert "TensorFlow does not say why" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert outputs(small.root) == before


def test_the_device_is_named(small):
    small.set_params(train__device="cpu", train__cores=1)
    done = small.run("python", "-m", "stages.train")
    assert done.stdout.splitlines()[0] == "device: CPU, 1 core, float32"
    assert done.stderr == ""
    facts = json.loads(small.read("metrics/train/device.json"))
    assert (facts["device"], facts["precision"], facts["no_gpu"]) == ("cpu", "float32", None)
    small.run("python", "-m", "stages.report")
    assert "<p>Trained on: CPU, float32</p>" in small.read("metrics/report.html").decode()


def test_more_and_fewer_epochs_compute_only_what_is_missing(finished, small):
    """One epoch, extended, then shortened: the bytes and the lock of a run of two epochs in one go."""

    def computed(done):
        return sum(line.startswith("epoch ") for line in done.stdout.splitlines())

    without_training(small)
    for epochs, missing in ((1, 1), (4, 3)):
        small.set_params(train__epochs=epochs)
        assert computed(small.run("python", "-m", "stages.train")) == missing
        assert len(list((small.root / "models/checkpoints").iterdir())) == epochs
    small.set_params(train__epochs=2)
    done = small.dvc("repro")
    assert (ran(done), computed(done)) == (["train", "sample"], 0)
    assert outputs(small.root) == outputs(finished.root)
    assert yaml.safe_load(small.read("dvc.lock")) == yaml.safe_load(finished.read("dvc.lock"))


def test_a_text_in_any_script(small):
    text = "".join(chr(0x4E00 + i % 300) for i in np.random.default_rng(0).integers(0, 300, 3000))
    (small.root / "corpora/han.txt").write_text(text, encoding="utf-8")
    small.set_params(download__corpus="corpora/han.txt")
    small.dvc("repro", "sample")
    with np.load(small.root / "data/windows.npz") as file:
        assert file["x"].dtype == np.uint16
        assert len(file["vocabulary"]) == len(set(text))
    assert all(set(sample["text"]) <= set(text) for sample in samples(small))


def test_a_text_of_ones_own_that_changes_is_noticed(small, tmp_path):
    """Packed too, where it is a link to a file outside, and in an experiment that runs elsewhere."""
    before = outputs(small.root)
    text = (small.root / "corpora/book.txt").read_text()
    (small.root / "corpora/book.txt").write_text(text + "di ra ko\n")
    assert "corpora" in small.dvc("status").stdout
    assert "download" in ran(small.dvc("repro", "vectorize"))
    assert small.read("data/corpus.txt").decode() == text + "di ra ko\n"

    elsewhere = tmp_path / "elsewhere.gz"
    elsewhere.write_bytes(gzip.compress(text.encode()))
    (small.root / "corpora/linked.gz").symlink_to(elsewhere)
    assert ran(small.dvc("repro", "vectorize")) == []  # no stage but `check` depends on a text beside
    done = small.dvc("exp", "run", "-S", "download.corpus=corpora/linked.gz", "vectorize")
    assert ran(done) == ["download"]  # the text is the first one's again
    assert small.read("data/windows.npz") == before["data/windows.npz"]
    elsewhere.write_bytes(gzip.compress(text[::-1].encode()))
    assert ran(small.dvc("repro", "vectorize")) == ["download", "vectorize"]

    (small.root / "corpora/linked.gz").unlink()
    kept = small.read("data/corpus.txt")
    done = small.dvc("repro", "vectorize", code=255)
    line, _ = done.stderr.strip().splitlines()
    assert line.startswith(
        "error: download.corpus: got 'corpora/linked.gz', and there is no such file; takes"
    )
    assert small.read("data/corpus.txt") == kept

    (small.root / "corpora/other.txt").write_text(text[::2])
    options = ("-S", "download.corpus=corpora/other.txt", "--name", "other", "vectorize")
    done = small.dvc("exp", "run", "--temp", *options, code=None)
    assert "(only what git tracks is here; add -C PATH to dvc exp run for others)" in done.stderr
    small.dvc("exp", "run", "--temp", "-C", "corpora/other.txt", *options)
    small.dvc("get", ".", "metrics/corpus.json", "--rev", "other", "-o", "other.json")
    assert json.loads(small.read("other.json")) == {"corpus": "other.txt"}


@pytest.mark.parametrize("stage", ["check", "download", "vectorize", "train", "sample"])
def test_every_stage_answers_in_one_line(tmp_path, stage):
    project = Project.__new__(Project)
    project.root = tmp_path
    (tmp_path / "stages").symlink_to(ROOT / "stages")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed_params(train__epochs=0)))
    project.environment = {}
    done = project.run("python", "-m", f"stages.{stage}", code=1)
    assert done.stderr == (
        "error: params.yaml: train.epochs: got 0; takes a whole number from 1 to 100,000\n"
    )
    assert done.stdout == ""
    (tmp_path / "params.yaml").unlink()
    done = project.run("python", "-m", f"stages.{stage}", code=1)
    assert done.stderr.startswith("error: params.yaml is missing;")
    assert done.stderr.count("\n") == 1
