"""The fingerprint: it changes with what a weight depends on, and with nothing else."""

import ast
import shutil
from copy import deepcopy

import pytest

from stages.training import fingerprint as module
from stages.training.fingerprint import code_digests, fingerprint, fingerprint_inputs
from tests.support import ROOT, changed_params

NUMERIC = {
    "stages.common.randomness",
    "stages.distributed.strategy",
    "stages.model.architecture",
    "stages.model.cells",
    "stages.model.fused_layer",
    "stages.model.fused_lstm",
    "stages.model.fused_sequence",
    "stages.model.microbatches",
    "stages.model.regularization",
    "stages.text.windows_file",
    "stages.training.checkpoints",
    "stages.training.device",
    "stages.training.device_loop",
    "stages.training.host_loop",
    "stages.training.initial_weights",
    "stages.training.plan",
    "stages.training.schedule",
    "stages.training.steps",
    "stages.training.trainer",
    "stages.training.validation",
}

PACKAGES = ["tensorflow", "keras", "numpy"]

# of each parameter of model and train another value, and whether a weight depends on it
OTHER_VALUES = {
    "model__cell": ("gru", True),
    "model__layers": (2, True),
    "model__units": (5, True),
    "model__dropout": (0.1, True),
    "model__embedding": (3, True),
    "train__epochs": (3, False),
    "train__batch_size": (7, True),
    "train__steps_per_epoch": (3, True),
    "train__targets": ("all", True),
    "train__optimizer": ("adam", True),
    "train__learning_rate": (0.02, True),
    "train__schedule": ("cosine", True),
    "train__warmup_epochs": (1, True),
    "train__decay_epochs": (7, False),  # with a constant schedule
    "train__decay": (0.5, False),
    "train__clip_norm": (1.0, True),
    "train__state": ("carried", True),
    "train__weight_decay": (0.1, True),
    "train__ema_momentum": (0.9, True),
    "train__weight_dropout": (0.1, True),
    "train__embedding_dropout": (0.1, True),
    "train__variational_dropout": (True, True),
    "train__tied_embedding": (True, True),
    "train__seed": (1, True),
    "train__init_from": ("initial/model.keras", True),  # any file's hash
    "train__device": ("cpu", False),
    "train__precision": ("mixed_bfloat16", True),
    "train__use_cudnn": (False, False),  # on a CPU
    "train__microbatches": (2, True),
    "train__cores": (1, False),
    "train__workers": (2, False),
    "train__worker_timeout": (5, False),
    "train__keep": ("best", False),
    "train__patience": (3, False),
    "train__preview": (0, False),
}

# a formula, a constant or a call in each numeric module
MUTATIONS = [
    ("common/randomness.py", "[seed, zlib.crc32", "[seed + 1, zlib.crc32"),
    ("common/randomness.py", "zlib.crc32", "zlib.adler32"),
    ("distributed/strategy.py", "(self.index + 1) * parts", "(self.index + 2) * parts"),
    ("distributed/strategy.py", "axis=0)", "axis=1)"),
    ("model/architecture.py", 'activation="softmax"', 'activation="sigmoid"'),
    ("model/architecture.py", '"global_clipnorm"', '"clipnorm"'),
    ("model/architecture.py", "return_sequences or number", "return_sequences and number"),
    ("model/cells.py", "(dc * f,)", "(dc * i,)"),
    ("model/fused_layer.py", "math.unsorted_segment_sum", "math.unsorted_segment_max"),
    ("model/fused_sequence.py", "exponentials / total - hot", "exponentials / total"),
    ("model/fused_lstm.py", "c = f * c + i * g", "c = f * c - i * g"),
    ("model/fused_lstm.py", "1 - tanh_c * tanh_c", "1 - tanh_c"),
    ("model/fused_lstm.py", "for t in reversed(range(maxlen))", "for t in range(maxlen)"),
    ("model/fused_lstm.py", "i * (1 - g * g)", "i * (2 - g * g)"),
    ("model/microbatches.py", "weight / tf.reduce_sum(weight)", "weight / tf.reduce_max(weight)"),
    ("model/microbatches.py", "for part in parts[1:]", "for part in parts[:0:-1]"),
    ("model/regularization.py", "draws >= rate", "draws < rate"),
    ("text/windows_file.py", "argmax(axis=-1)", "argmin(axis=-1)"),
    ("training/checkpoints.py", "names = sorted(file.files)", "names = file.files"),
    ("training/device.py", "intra_op_parallelism_threads(1)", "intra_op_parallelism_threads(2)"),
    ("training/device_loop.py", '"SUM"', '"MEAN"'),
    ("training/host_loop.py", "< len(chosen)", "<= len(chosen)"),
    ("training/initial_weights.py", "[:, new] = saved[-2]", "[:, old] = saved[-2]"),
    ("training/schedule.py", "(step + 1) / warmup", "step / warmup"),
    ("training/schedule.py", "(1 - math.cos(", "(1 - math.sin("),
    ("training/steps.py", "losses = tf.reduce_mean(", "losses = tf.reduce_sum("),
    ("training/steps.py", "size)[:, 1:]", "size)[:, :-1]"),
    ("training/validation.py", "starts + step", "starts"),
    ("training/plan.py", "number).integers(n)", "0).integers(n)"),
    ("training/plan.py", '"order of windows"', '"order"'),
    ("training/plan.py", "learning_rate_at(self._train, step,", "learning_rate_at(self._train, 0,"),
    ("training/trainer.py", "total += loss * count", "total += loss"),
    ("training/trainer.py", "checkpoint.epoch + 1", "checkpoint.epoch"),
    ("training/trainer.py", "if epoch != self.next_epoch", "if epoch > self.next_epoch"),
]


@pytest.fixture
def copy(tmp_path):
    """A copy of the code that can be changed."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=ignored)
    return tmp_path


def of(inputs_of_code: dict[str, str]) -> str:
    return fingerprint({"code": inputs_of_code})


def test_it_covers_the_numeric_modules():
    assert set(code_digests()) == NUMERIC


@pytest.mark.parametrize(("file", "old", "new"), MUTATIONS, ids=lambda text: text[:40])
def test_a_changed_formula_constant_or_call_is_noticed(copy, file, old, new):
    path = copy / "stages" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert of(code_digests(copy)) != of(code_digests())


def reworded(text: str) -> str:
    """The same code with other comments, docstrings, messages, line breaks and parentheses."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                first.value.value = "Say it in another way."
            elif not isinstance(node, ast.Module):
                node.body.insert(0, ast.Expr(ast.Constant("Say it for the first time.")))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("StageError", "ValueError"):
            node.args = [ast.Constant("it is wrong")]
    return "# a comment\n" + ast.unparse(ast.fix_missing_locations(tree)) + "\n\n# and another\n"


def test_comments_docstrings_messages_and_formatting_have_no_influence(copy):
    for path in (copy / "stages").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(reworded(text), encoding="utf-8")
        assert path.read_text(encoding="utf-8") != text
    assert code_digests(copy) == code_digests()


def test_a_moved_module_has_no_influence(copy, monkeypatch):
    (copy / "stages/training/schedule.py").rename(copy / "stages/training/learning_rate.py")
    plan = copy / "stages/training/plan.py"
    text = plan.read_text(encoding="utf-8")
    plan.write_text(text.replace("training.schedule", "training.learning_rate"), encoding="utf-8")
    moved = code_digests(copy)
    assert "stages.training.learning_rate" in moved
    assert of(moved) == of(code_digests())


def test_a_new_module_is_covered_unless_it_is_exempted(copy):
    (copy / "stages/training/extra.py").write_text("FACTOR = 2\n", encoding="utf-8")
    plan = copy / "stages/training/plan.py"
    text = plan.read_text(encoding="utf-8")
    plan.write_text(text + "\nfrom stages.training.extra import FACTOR\n", encoding="utf-8")
    assert set(code_digests(copy)) == NUMERIC | {"stages.training.extra"}
    for name in module.WITHOUT_INFLUENCE | set(module.ENTRIES):
        assert (ROOT / name).is_file(), name


def test_every_parameter_counts_exactly_if_a_weight_depends_on_it(params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "initial").mkdir()
    (tmp_path / "initial/model.keras").write_bytes(b"a file with a hash")
    defaults = changed_params()
    listed = {f"{section}__{name}" for section in ("model", "train") for name in defaults[section]}
    assert set(OTHER_VALUES) == listed
    before = fingerprint(fingerprint_inputs(params(), "cpu", "0" * 64))
    for name, (value, matters) in OTHER_VALUES.items():
        after = fingerprint(fingerprint_inputs(params(**{name: value}), "cpu", "0" * 64))
        assert (before != after) == matters, name


def test_each_input_is_there_and_counts(params, monkeypatch):
    """Also what no parameter can change: a version, the machine, each module's code."""
    names = {name.replace("__", ".") for name, (_, matters) in OTHER_VALUES.items() if matters}
    names = names - {"train.init_from"} | {"initial_weights"}  # its file's hash
    of_schedule = {"train.decay", "train.decay_epochs"}
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")  # as the set-up of the device pins it
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # likewise
    variables = ("XLA_FLAGS", "TF_ENABLE_ONEDNN_OPTS", "CUBLAS_WORKSPACE_CONFIG")
    others = {"windows", "device", "machine", "processor", *(f"versions.{each}" for each in PACKAGES)}
    others |= {f"environment.{name}" for name in variables}
    inputs = fingerprint_inputs(params(train__schedule="step"), "cpu", "0" * 64)
    leaves = {
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in inputs.items()
        for key in (value if isinstance(value, dict) else [""])
    }
    assert leaves == names | of_schedule | others | {f"code.{module}" for module in NUMERIC}
    before = fingerprint(inputs)
    for leaf in leaves:
        changed = deepcopy(inputs)
        section, _, key = leaf.partition(".")
        if key:
            changed[section][key] = "another"
        else:
            changed[section] = "another"
        assert fingerprint(changed) != before, leaf
    assert fingerprint(deepcopy(inputs)) == before


def test_the_schedule_counts_where_there_is_one(params):
    for schedule in ("step", "cosine"):
        before, *others = (
            fingerprint(fingerprint_inputs(params(train__schedule=schedule, **change), "cpu", "0" * 64))
            for change in ({}, {"train__decay": 0.5}, {"train__decay_epochs": 7})
        )
        assert before not in others


def test_a_gpu_has_parameters_of_its_own(params):
    def of(processes=1, **changes):
        return fingerprint(fingerprint_inputs(params(**changes), "gpu", "0" * 64, processes))

    assert of() == of(train__microbatches=2)
    assert len({of(), of(train__use_cudnn=False), of(train__precision="tf32"), of(processes=2)}) == 4


@pytest.mark.parametrize("package", PACKAGES)
def test_versions_windows_and_device_count(params, monkeypatch, package):
    def now(device="cpu", windows="0" * 64):
        return fingerprint(fingerprint_inputs(params(), device, windows))

    before = now()
    assert before == now()
    assert before not in (now(device="gpu"), now(windows="1" * 64))
    shown = {"tensorflow": module.tf, "keras": module.keras, "numpy": module.np}[package]
    monkeypatch.setattr(shown, "__version__", "0.0.1")
    assert now() != before
