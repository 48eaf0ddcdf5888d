"""Initial weights out of saved models: real files, rows and columns moved by character."""

import numpy as np
import pytest

from stages.check import file_of, require_same_architecture
from stages.common.errors import StageError
from stages.model.architecture import build_model
from stages.model.export import save_model
from stages.text.vocabulary import vocabulary_sha256
from stages.text.vocabulary_file import ModelText, write_model_text
from stages.training.checkpoints import Checkpoint, file_name, to_bytes
from stages.training.initial_weights import initial_weights

OLD, NEW = "abcxy", "!aczy€"  # a, c and y are in both; b and x are gone; !, z and € are new
UNITS = 3


def saved(folder, model, settings, vocabulary=OLD):
    """The model as the train stage leaves it: model.keras, vocabulary.json and a checkpoint."""
    text = ModelText(vocabulary=vocabulary, lowercase=True, newlines_to_spaces=True, first_window="abc")
    write_model_text(folder, text)
    digest = vocabulary_sha256(vocabulary)
    save_model(model, folder / "model.keras", digest)
    arguments = {"maxlen": 4, "vocab_size": len(vocabulary), **settings.model_dump()}
    state = Checkpoint(7, "", arguments, digest, {}, model.get_weights(), [])
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / file_name(7)).write_bytes(to_bytes(state))


def file_at(path):
    """The file that a path names."""
    file = file_of(str(path))
    assert file is not None
    return file


def random_model(settings, vocabulary, seed):
    model = build_model(4, len(vocabulary), **settings.model_dump())
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=each.shape).astype(np.float32) for each in model.get_weights()])
    return model


@pytest.mark.parametrize("path", ["", "model.keras", "checkpoints/epoch-007.npz"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"model__cell": "gru", "model__layers": 2, "model__embedding": 2}, {"model__cell": "rnn"}],
    ids=["lstm", "gru", "rnn"],
)
def test_rows_and_columns_are_moved_by_character(params, tmp_path, changes, path):
    settings = params(model__units=UNITS, **changes)
    before, fresh = (random_model(settings.model, *each) for each in ((OLD, 0), (NEW, 1)))
    saved(tmp_path, before, settings.model)
    old, random = before.get_weights(), fresh.get_weights()
    file = file_at(tmp_path / path)
    weights = initial_weights(file, settings, NEW, random)
    assert len(weights) == len(old) == len(random)
    for new_index, character in enumerate(NEW):
        at = OLD.find(character)
        source, index = (old, at) if at >= 0 else (random, new_index)
        np.testing.assert_array_equal(weights[0][new_index], source[0][index])
        np.testing.assert_array_equal(weights[-2][:, new_index], source[-2][:, index])
        assert weights[-1][new_index] == source[-1][index]
    for moved, kept in zip(weights[1:-2], old[1:-2], strict=True):
        np.testing.assert_array_equal(moved, kept)
    fresh.set_weights(weights)  # the shapes are those of the new model
    same = initial_weights(file, settings, OLD, before.get_weights())
    assert [each.tobytes() for each in same] == [each.tobytes() for each in old]


def test_a_text_of_shared_characters_is_predicted_as_before(params, tmp_path):
    """Logits of shared characters are the same; new characters only share in the normalization."""
    settings = params(model__units=UNITS)
    before, after = (random_model(settings.model, *each) for each in ((OLD, 0), (NEW, 1)))
    saved(tmp_path, before, settings.model)
    after.set_weights(initial_weights(tmp_path / "model.keras", settings, NEW, after.get_weights()))
    shared, text = "acy", "cayc"
    logits = [
        np.log(model(np.eye(len(v), dtype=np.float32)[None, [v.index(c) for c in text]])[0].numpy())[
            [v.index(c) for c in shared]
        ]
        for model, v in ((before, OLD), (after, NEW))
    ]
    ours, theirs = (each - each[0] for each in logits)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("path", ["", "checkpoints/epoch-007.npz"])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model__cell": "gru"}, 'has model.cell: "lstm"; takes a model with model.cell: "gru", as in par'),
        ({"model__layers": 2}, "has model.layers: 1; takes a model with model.layers: 2"),
        ({"model__units": 5}, "has model.units: 3; takes a model with model.units: 5"),
        ({"model__embedding": 2}, "has model.embedding: null; takes a model with model.embedding: 2"),
    ],
)
def test_another_architecture_is_named(params, tmp_path, changes, says, path):
    settings = params(model__units=UNITS).model
    saved(tmp_path, random_model(settings, OLD, 0), settings)
    wanted = params(**{"model__units": UNITS} | changes).model
    with pytest.raises(StageError) as caught:
        require_same_architecture(file_at(tmp_path / path), wanted)
    assert str(caught.value).startswith("train.init_from: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_that_dropout_trained_is_taken(params, tmp_path):
    settings = params(model__units=UNITS, model__dropout=0.3).model
    saved(tmp_path, random_model(settings, OLD, 0), settings)
    require_same_architecture(tmp_path / "model.keras", params(model__units=UNITS).model)


def test_what_is_no_model_is_named(params, tmp_path):
    settings = params(model__units=UNITS).model
    saved(tmp_path, random_model(settings, OLD, 0), settings)

    def says(path, message):
        with pytest.raises(StageError, match=message):
            require_same_architecture(file_at(tmp_path / path), settings)

    says("missing.keras", r"^train\.init_from: got '.*missing\.keras'; takes initial/random, a folder with")
    says("checkpoints", r"takes initial/random, .*, and .*checkpoints/model\.keras is not there")
    (tmp_path / "cut.keras").write_bytes((tmp_path / "model.keras").read_bytes()[:-9])
    says("cut.keras", "is damaged or was not written by the train stage")
    for name in ("flipped.keras", "epoch-008.npz"):
        source = tmp_path / ("model.keras" if "keras" in name else "checkpoints/epoch-007.npz")
        content = bytearray(source.read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / name).write_bytes(content)
        says(name, f"{name}.*(is damaged|checksum)")
    saved(tmp_path, random_model(settings, "abc", 0), settings, "abc")
    (tmp_path / "old.npz").write_bytes((tmp_path / "checkpoints/epoch-007.npz").read_bytes())
    write_model_text(
        tmp_path, ModelText(vocabulary="abd", lowercase=True, newlines_to_spaces=True, first_window="a")
    )
    for name in ("model.keras", "old.npz"):
        says(name, r"is not of the vocabulary in .*vocabulary\.json")
    (tmp_path / "vocabulary.json").unlink()
    says("model.keras", r"vocabulary\.json is missing; a model's folder has model\.keras and")


@pytest.mark.parametrize("path", ["initial/random", "./initial/random"])
def test_random_weights_have_no_file(path):
    assert file_of(path) is None


def test_a_tied_embedding_takes_no_output_layer_of_its_own(params, tmp_path):
    settings = params(
        model__units=UNITS, model__embedding=UNITS, train__targets="all", train__tied_embedding=True
    )
    model = random_model(settings.model, OLD, 0)
    saved(tmp_path, model, settings.model)
    with pytest.raises(StageError, match="has an output layer of its own; takes a model that was trained"):
        initial_weights(tmp_path / "model.keras", settings, OLD, model.get_weights())
    model.layers[-1].kernel.assign(np.transpose(model.layers[0].kernel))
    saved(tmp_path, model, settings.model)
    weights = initial_weights(tmp_path / "model.keras", settings, OLD, model.get_weights())
    np.testing.assert_array_equal(weights[0].T, weights[-2])
