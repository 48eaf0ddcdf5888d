"""params.yaml: what is accepted, and the one line for what is not."""

import subprocess

import pytest
import yaml

from stages.common.errors import StageError
from stages.common.params import read_params
from tests.support import ROOT, changed_params


def test_committed_params_are_the_articles_settings(tmp_path):
    """As git has them: an experiment changes the file in the workspace."""
    committed = subprocess.run(["git", "show", "HEAD:params.yaml"], cwd=ROOT, capture_output=True, check=True)
    (tmp_path / "params.yaml").write_bytes(committed.stdout)
    params = read_params(tmp_path / "params.yaml")
    assert (params.vectorize.maxlen, params.vectorize.step, params.model.units) == (40, 3, 128)
    assert (params.train.epochs, params.train.batch_size, params.train.learning_rate) == (40, 1024, 0.01)
    assert (params.sample.length, params.sample.temperatures) == (400, [0.2, 0.5, 1.0, 1.2])
    assert (params.sample.prompt, params.vectorize.validation) == (None, 0)
    assert params.vectorize.lowercase
    assert params.vectorize.newlines_to_spaces


BAD = [
    ("train__epochs", -3, "train.epochs: got -3; takes a whole number from 1 to 100,000"),
    ("train__epochs", "many", "train.epochs: got 'many'; takes a whole number"),
    ("train__epochs", 2.5, "train.epochs: got 2.5; takes a whole number"),
    ("train__epochs", True, "train.epochs: got True; takes a whole number"),
    ("train__epochs", None, "train.epochs: got None; takes a whole number"),
    ("train__learning_rate", 0, "train.learning_rate: got 0; takes a number above 0"),
    ("train__learning_rate", float("nan"), "train.learning_rate: got nan; takes a number above 0"),
    ("train__learning_rate", float("inf"), "train.learning_rate: got inf; takes a number above 0"),
    ("train__batch_size", 0, "train.batch_size: got 0; takes"),
    ("train__seed", -1, "train.seed: got -1; takes a whole number from 0 to 4,294,967,295"),
    ("train__seed", 2**32, "train.seed: got 4294967296; takes"),
    ("train__init_from", None, "train.init_from: got None; takes initial/random or the path of a model"),
    (
        "train__init_from",
        "models/model.keras",
        "train.init_from: got 'models/model.keras'; takes initial/random or the path of a model in initial/",
    ),
    ("train__device", "tpu", "train.device: got 'tpu'; takes auto, cpu or gpu"),
    ("train__microbatches", 65, "train.microbatches: got 65; takes"),
    ("train__preview", -1, "train.preview: got -1; takes"),
    ("train__epoch", 3, "train.epoch: no such parameter; there are epochs, batch_size"),
    ("vectorize__maxlen", 0, "vectorize.maxlen: got 0; takes a whole number from 1 to 1,000"),
    ("vectorize__step", 0, "vectorize.step: got 0; takes"),
    ("vectorize__lowercase", "yes", "vectorize.lowercase: got 'yes'; takes true or false"),
    ("vectorize__newlines_to_spaces", 1, "vectorize.newlines_to_spaces: got 1; takes true or false"),
    ("vectorize__validation", 0.6, "vectorize.validation: got 0.6; takes a number from 0 to 0.5"),
    ("vectorize__test", 0.6, "vectorize.test: got 0.6; takes a number from 0 to 0.5, with vectorize.val"),
    ("vectorize__one_hot", "no", "vectorize.one_hot: got 'no'; takes true or false"),
    ("vectorize__validation_step", 0, "vectorize.validation_step: got 0; takes a whole number"),
    ("model__cell", "tree", "model.cell: got 'tree'; takes lstm, gru or rnn"),
    ("model__layers", 9, "model.layers: got 9; takes a whole number from 1 to 8"),
    ("model__dropout", 1, "model.dropout: got 1; takes a number from 0 to 0.9"),
    ("model__embedding", 0, "model.embedding: got 0; takes a whole number from 1 to 4,096, or null"),
    ("train__targets", "first", "train.targets: got 'first'; takes last or all"),
    ("train__optimizer", "sgd", "train.optimizer: got 'sgd'; takes rmsprop or adam"),
    ("train__schedule", "linear", "train.schedule: got 'linear'; takes constant, step or cosine"),
    ("train__warmup_epochs", -1, "train.warmup_epochs: got -1; takes a number of epochs from 0"),
    ("train__decay_epochs", 0, "train.decay_epochs: got 0; takes a number of epochs from 0.001"),
    ("train__decay_epochs", 1e-320, "train.decay_epochs: got 1e-320; takes a number of epochs from 0.001"),
    ("train__decay", 1.5, "train.decay: got 1.5; takes a number from 0 to 1"),
    ("train__clip_norm", 0, "train.clip_norm: got 0; takes a number from 1e-30 to 1e37, or null"),
    ("train__clip_norm", 1e39, "train.clip_norm: got 1e+39; takes a number from 1e-30 to 1e37, or null"),
    ("model__units", 0, "model.units: got 0; takes a whole number from 1 to 4,096"),
    ("sample__temperatures", [], "sample.temperatures: got []; takes a list of 1 to 100"),
    ("sample__temperatures", 0.5, "sample.temperatures: got 0.5; takes a list"),
    ("sample__temperatures", [0.5, -1], "sample.temperatures.1: got -1; takes a list of 1 to 100"),
    ("sample__temperatures", [0.5, 0.5], "sample.temperatures: got [0.5, 0.5]; takes a list of 1"),
    ("sample__length", 0, "sample.length: got 0; takes"),
    ("sample__prompt", "", "sample.prompt: got ''; takes text of at least one character, or null"),
    ("sample__prompt", 7, "sample.prompt: got 7; takes text"),
    ("sample__seed", 0.5, "sample.seed: got 0.5; takes"),
    ("report__weights", "best", "report.weights: got 'best'; takes final, all or none"),
    ("report__weights_dtype", "int8", "report.weights_dtype: got 'int8'; takes float32 or int16"),
    ("report__weights_limit", 0, "report.weights_limit: got 0; takes megabytes from 0.001 to 500"),
    ("download__corpus", "", "download.corpus: got ''; takes the path of a corpus's"),
    (
        "download__corpus",
        "/home/me/book.txt",
        "download.corpus: got '/home/me/book.txt'; takes the path of a corpus's description (.yaml) or of a "
        "text file in corpora/ (copy yours there)",
    ),
    ("download__corpus", "corpora/../book.txt", "download.corpus: got 'corpora/../book.txt'; takes"),
    ("download__corpus", "corpora/", "download.corpus: got 'corpora/'; takes the path of a corpus's"),
    ("download__corpus", f"{ROOT}/corpora/nietzsche.yaml", "download.corpus: got '/"),
    (
        "download__offline_corpus",
        "x.yaml",
        "download.offline_corpus: got 'x.yaml'; takes the path of a corpus's description (.yaml) in corpora/",
    ),
    ("download__offline_corpus", "corpora/bible", "download.offline_corpus: got 'corpora/bible'; takes"),
    ("download__sha256", "12ab", "download.sha256: got '12ab'; takes 64 hexadecimal digits"),
    ("download__timeout", 0, "download.timeout: got 0; takes seconds from 0.1 to 60"),
    ("download__deadline", 1000, "download.deadline: got 1000; takes seconds from 1 to 600"),
    ("download__retries", 11, "download.retries: got 11; takes"),
    ("download__max_bytes", 0, "download.max_bytes: got 0; takes"),
]


@pytest.mark.parametrize(("name", "value", "line"), BAD, ids=lambda case: str(case)[:40])
def test_a_bad_value_is_named(tmp_path, name, value, line):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(changed_params(**{name: value})), encoding="utf-8")
    with pytest.raises(StageError) as caught:
        read_params(path)
    assert str(caught.value).startswith(f"{path}: {line}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["corpora//book.txt", "./corpora/book.txt", "corpora/a/../b c.txt"])
def test_a_path_into_the_folder_is_taken_as_it_is(params, path):
    assert params(download__corpus=path).download.corpus == path


def test_half_of_the_text_is_left_to_train_on(params):
    for validation, test in ((0.1, 0.4), (0.29, 0.21), (0, 0.5), (0.5, 0)):
        params(vectorize__validation=validation, vectorize__test=test)
    says = (
        r"vectorize\.test: got 0\.21; takes a number from 0 to 0\.5, with vectorize\.validation 0\.5 together"
    )
    with pytest.raises(StageError, match=says):
        params(vectorize__validation=0.3, vectorize__test=0.21)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "takes the keys download, vectorize, model, train, sample, report; got 'None'"),
        ("- 1\n", "takes the keys download, vectorize"),
        ("train: {epochs: 1\n", "not YAML"),
        ("train: !!python/object/apply:os.getcwd []\n", "not YAML"),
        ("typo: 1\n", "missing"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, line):
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StageError, match=line):
        read_params(path)


def test_a_missing_key_is_named(tmp_path):
    tree = changed_params()
    del tree["train"]["epochs"]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    with pytest.raises(StageError, match=r"train\.epochs: is missing; takes a whole number"):
        read_params(path)


def test_numbers_as_people_write_them(tmp_path):
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(text.replace("learning_rate: 0.01", "learning_rate: 1e-3"), encoding="utf-8")
    assert read_params(path).train.learning_rate == 0.001


@pytest.mark.parametrize(
    ("old", "new", "readings"),
    [
        (
            "seed: 0\n  # What",
            "seed: 010\n  # What",
            "train.seed: YAML 1.1 reads 8, YAML 1.2 (DVC) reads 10;",
        ),
        (
            "batch_size: 1024",
            "batch_size: 4:16",
            "train.batch_size: YAML 1.1 reads 256, YAML 1.2 (DVC) reads '4:16';",
        ),
        (
            "lowercase: true",
            "lowercase: yes",
            "vectorize.lowercase: YAML 1.1 reads True, YAML 1.2 (DVC) reads 'yes';",
        ),
        (
            "0.2, 0.5, 1.0",
            "0.2, 0o7, 1.0",
            "sample.temperatures.1: YAML 1.1 reads '0o7', YAML 1.2 (DVC) reads 7;",
        ),
        ("  maxlen: 40", "  maxlen: 40\n  maxlen: 50", ", line 27: not YAML: found duplicate key"),
    ],
)
def test_what_two_readers_of_yaml_understand_differently_is_refused(tmp_path, old, new, readings):
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(StageError) as caught:
        read_params(path)
    assert readings in str(caught.value)


@pytest.mark.parametrize(
    ("section", "old", "new"),
    [("train", "streams", "microbatches"), ("download", "patience", "deadline")],
)
def test_a_former_name_is_answered_with_the_present_one(tmp_path, section, old, new):
    tree = changed_params()
    tree[section][old] = tree[section].pop(new)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    with pytest.raises(StageError) as caught:
        read_params(path)
    assert str(caught.value) == f"{path}: {section}.{old} is now called {section}.{new}; rename it"
