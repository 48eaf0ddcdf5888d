"""Generation by hand, as a user runs it, against Keras's `predict` and against closed forms."""

import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.support import ROOT


def generate(project, *arguments, **options):
    """Run it in a project; returns standard output and standard error."""
    return run_module("generate", project, *arguments, **options)


def run_module(name, project, *arguments, code=0, stdin=""):
    """Run `python -m stages.NAME` in a project; returns standard output and standard error."""
    done = project.run("python", "-m", f"stages.{name}", *arguments, code=code, given=stdin)
    return done.stdout, done.stderr


def test_the_likeliest_text_is_that_of_predict(finished):
    """One window of the last characters at a time, through the saved model, in this test's own loop."""
    model = keras.models.load_model(finished.root / "models/model.keras")
    maxlen, size = model.input_shape[1:]
    any_length = keras.Sequential(
        [keras.Input((None, size)), keras.layers.LSTM(16), keras.layers.Dense(size, "softmax")]
    )
    any_length.set_weights(model.get_weights())
    corpus = (finished.root / "corpora/book.txt").read_text().lower().replace("\n", " ")
    vocabulary = sorted(set(corpus))
    text = "di Ra\nme".lower().replace("\n", " ")
    assert len(text) < maxlen
    for _ in range(20):
        window = np.eye(size)[[vocabulary.index(character) for character in text[-maxlen:]]]
        text += vocabulary[any_length.predict(window[None], verbose=0)[0].argmax()]
    (finished.root / "prompt.txt").write_text("di Ra\nme\n")
    options = ["--temperature", "0", "--length", "20"]
    assert generate(finished, "--prompt-file", "prompt.txt", *options) == (text[8:] + "\n", "")
    assert generate(finished, "--prompt", "-", *options, stdin="di Ra\nme\n") == (text[8:] + "\n", "")


def test_an_epochs_text_is_the_one_that_the_sample_stage_wrote(finished):
    samples = [json.loads(line) for line in finished.read("metrics/samples.jsonl").splitlines()]
    (expected,) = (s["text"] for s in samples if (s["epoch"], s["temperature"]) == (0, 0.0))
    options = ["--temperature", "0", "--length", "20"]
    assert generate(finished, "--epoch", "0", *options)[0] == expected + "\n"


def test_a_model_and_its_vocabulary_are_enough(finished, tmp_path):
    """In a folder that has nothing else, and no params.yaml where the command runs."""
    for name in ("model.keras", "vocabulary.json"):
        shutil.copy(finished.root / "models" / name, tmp_path)
    options = ["--prompt", "Di\nra", "--length", "20", "--seed", "3"]
    expected = generate(finished, *options)[0]
    command = [sys.executable, "-m", "stages.generate", *options]
    done = subprocess.run(
        [*command, "--model", "."],
        cwd=tmp_path,
        env={**finished.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == (expected, "")


def test_another_text_of_as_many_characters_is_not_taken_for_the_models(small):
    """Vectorizing it changes nothing; the files of a model of it are not mixed with those of this one."""
    samples = [json.loads(line) for line in small.read("metrics/samples.jsonl").splitlines()]
    (before,) = (s["text"] for s in samples if (s["epoch"], s["temperature"]) == (1, 0.0))
    text = (small.root / "corpora/book.txt").read_text()
    (small.root / "corpora/book.txt").write_text(text.replace("x", "z").replace("X", "Z"))
    for stage in ("check", "download", "vectorize"):
        small.run("python", "-m", f"stages.{stage}")
    assert generate(small, "--temperature", "0", "--length", "20")[0] == before + "\n"
    path = small.root / "models/vocabulary.json"
    about = json.loads(path.read_text())
    path.unlink()  # a link into DVC's cache, maybe
    path.write_text(json.dumps(about | {"vocabulary": about["vocabulary"].replace("x", "z")}))
    for options, file in (([], "model.keras"), (["--epoch", "0"], "checkpoints/epoch-000.npz")):
        said = generate(small, "--prompt", "ba", *options, code=1)[1]
        assert said.startswith(f"error: models/{file} is of another text")
        assert said.count("\n") == 1


def test_a_damaged_model_is_named(small):
    path = small.root / "models/model.keras"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    said = generate(small, code=1)[1]
    assert said.startswith("error: models/model.keras is damaged or was not written by the train stage")
    assert said.count("\n") == 1


def test_the_same_seed_gives_the_same_texts(finished):
    def texts(seed):
        options = ["--temperature", "1", "--length", "30", "--count", "3", "--seed", seed]
        return generate(finished, *options)[0].splitlines()

    first, again, other = texts("1"), texts("1"), texts("2")
    assert first == again
    assert [len(text) for text in first] == [30, 30, 30]
    assert len({*first, *other}) == 6


def test_it_asks_again_and_goes_on(finished):
    options = ["--interactive", "--temperature", "0", "--length", "10"]
    output, complaint = generate(finished, *options, stdin="di ra\n\n€\ndi ra\n")
    first, second, third = output.removesuffix("> \n").replace("> ", "").splitlines()
    assert first == third
    straight = generate(finished, "--prompt", "di ra", "--temperature", "0", "--length", "20")[0]
    assert first + second + "\n" == straight
    assert complaint.startswith("error: the prompt: character '€' at position 0 is not in")
    assert complaint.count("\n") == 1


def test_it_streams_and_stops_quietly_when_the_pipe_closes(finished):
    process = finished.start("python", "-m", "stages.generate", "--length", "100000000", fork=False)
    assert process.stdout is not None
    assert process.stderr is not None
    assert len(process.stdout.read(50)) == 50  # long before it is done
    process.stdout.close()
    process.wait(timeout=60)
    assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--temperature", "-1"], "argument --temperature: got '-1'; takes a number from 0 to 100"),
        (["--temperature", "nan"], "argument --temperature: got 'nan'; takes a number from 0 to 100"),
        (["--length", "0"], "argument --length: got '0'; takes a whole number from 1 to 1,000,000,000"),
        (["--top-k", "x"], "argument --top-k: got 'x'; takes a whole number from 1 to 1,000,000"),
        (["--prompt", "a", "--prompt-file", "b"], "argument --prompt-file: not allowed with"),
        (["--prompt-file", "nowhere.txt"], "nowhere.txt: No such file"),
        (["--model", "data"], "data/vocabulary.json is missing; a model's folder has model"),
        (["--prompt", ""], "the prompt: got an empty text; takes at least one character"),
        (
            ["--epoch", "9"],
            "models/checkpoints/epoch-009.npz is missing; there are epochs 0 to 1",
        ),
    ],
)
def test_a_mistake_is_one_line(finished, arguments, complaint):
    output, said = generate(finished, *arguments, code=1)
    assert (output, said.count("\n")) == ("", 1)
    assert said.startswith(f"error: {complaint}")


def test_a_damaged_checkpoint_is_named(small):
    path = small.root / "models/checkpoints/epoch-000.npz"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1])
    said = generate(small, "--epoch", "0", code=1)[1]
    assert said.startswith("error: models/checkpoints/epoch-000.npz: its checksum does not match")
    assert said.count("\n") == 1
