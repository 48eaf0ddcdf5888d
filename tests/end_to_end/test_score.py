"""The score of a text, in the pipeline and by hand, and what the page shows of it in a real browser."""

import json

import keras
import numpy as np
import pytest
from axe_core_python.selenium import Axe
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from stages.common.params import read_params
from stages.evaluation.page import render
from stages.evaluation.terms import TERMS
from stages.evaluation.writer import Writer
from tests.browser import open_page, with_browser
from tests.end_to_end.test_generate import run_module
from tests.unit.evaluation.test_ngram import naive_counts, naive_probability


def score(project, *arguments, **options):
    """Run the command in a project; returns standard output and standard error."""
    return run_module("score", project, *arguments, **options)


def normalized(project):
    return (project.root / "corpora/book.txt").read_text().lower().replace("\n", " ")


def naive_bits(project, text, targets):
    """Of the characters at these positions, each from the 12 before it, by Keras's `predict`."""
    model = keras.models.load_model(project.root / "models/model.keras")
    vocabulary = sorted(set(normalized(project)))
    indices = np.array([vocabulary.index(character) for character in text])
    windows = np.eye(len(vocabulary), dtype=np.float32)[[indices[at - 12 : at] for at in targets]]
    chances = model.predict(windows, verbose=0)
    return -np.log2(chances[np.arange(len(targets)), indices[targets]])


def test_the_stage_scores_the_text_without_a_validation_split(finished):
    got = json.loads(finished.read("metrics/score.json"))
    text = normalized(finished)
    assert (got["start"], got["text"], got["ngram"]) == (0, text[:2000], None)
    assert len(got["bits"]) == 2000
    np.testing.assert_allclose(got["bits"][12:], naive_bits(finished, text, range(12, 2000)), atol=2e-4)


def test_the_stage_scores_the_validation_split_beside_the_ngram(small):
    small.set_params(vectorize__validation=0.2)
    small.run("python", "-m", "stages.baseline")
    small.run("python", "-m", "stages.sample")
    got = json.loads(small.read("metrics/score.json"))
    text = normalized(small)
    start = len(text) - round(len(text) * 0.2)
    assert (got["start"], got["text"]) == (start, text[start:])
    np.testing.assert_allclose(
        got["bits"], naive_bits(small, text, range(start, len(text))), atol=2e-4
    )  # the first ones read the end of the training part
    rows = [line.split("\t") for line in small.read("metrics/baseline.tsv").decode().splitlines()[1:]]
    n = int(min(rows, key=lambda row: float(row[1]))[0])
    assert got["ngram"]["n"] == n
    counts, size = naive_counts(text[:start], n), len(set(text))
    expected = [
        -np.log2(naive_probability(counts, size, text[at - n + 1 : at], text[at]))
        for at in range(start, len(text))
    ]
    np.testing.assert_allclose(got["ngram"]["bits"], expected, atol=6e-5)


def test_a_text_is_scored_from_a_file_and_from_standard_input(finished):
    text = normalized(finished)
    known = json.loads(finished.read("metrics/score.json"))["bits"][:60]
    output, complaint = score(finished, "-", "--json", stdin=text[:30] + "€ö€" + text[30:60])
    got = json.loads(output)
    assert got["left_out"] == {"€": 2, "ö": 1}
    assert complaint == (
        "warning: standard input: characters outside the vocabulary are left out: '€' (2), 'ö' (1)\n"
    )
    assert (got["characters"], got["text"], got["bits"]) == (60, text[:60], known)
    assert got["bits_per_char"] == pytest.approx(np.mean(known), abs=1e-4)
    sums = [sum(known[at : at + 40]) for at in range(21)]
    best = int(np.argmax(sums))
    (passage,) = got["passages"]  # no other one fits beside it
    assert passage["position"] == best if best < 30 else best + 3
    assert passage["text"] == text[best : best + 40]
    assert passage["bits_per_char"] == pytest.approx(sums[best] / 40, abs=1e-4)

    (finished.root / "any.txt").write_bytes(b"\xef\xbb\xbfBa\r\nDi")
    output, complaint = score(finished, "any.txt", "--model", "models", "--passages", "1")
    first, heading, only = output.splitlines()
    assert first.startswith("5 characters: ")
    assert heading.startswith("most surprising passages")
    assert only.endswith("  0  'ba di'")
    assert complaint == ""


@pytest.mark.parametrize(
    ("arguments", "stdin", "complaint"),
    [
        (["-"], "", "standard input is empty; there is nothing to score"),
        (["nowhere.txt"], "", "nowhere.txt: No such file or directory"),
        (["models/model.keras"], "", "models/model.keras is not UTF-8 text (byte "),
        (["--json"], "", "the following arguments are required: FILE (see --help)"),
        (["-", "--passages", "x"], "", "argument --passages: got 'x'; takes a whole number from 0 to 1,000"),
        (["-", "--model", "data"], "", "data/vocabulary.json is missing; a model's folder has model"),
    ],
)
def test_a_mistake_is_one_line(finished, arguments, stdin, complaint):
    output, said = score(finished, *arguments, code=1, stdin=stdin)
    assert (output, said.count("\n")) == ("", 1)
    assert said.startswith(f"error: {complaint}")


def test_a_text_of_unknown_characters_only_is_named(finished):
    said = score(finished, "-", code=1, stdin="€€")[1].splitlines()
    assert said == [
        "warning: standard input: characters outside the vocabulary are left out: '€' (2)",
        "error: standard input has no character of the vocabulary; there is nothing to score",
    ]


# a right-to-left text that also tries to break out of the page
TEXT = "</div><script>document.title = 'broken'</script>\n" + "שלום עולם " * 4 + "\u202eab\t&amp;"
MODEL = [(at * 7 % 80) / 10 for at in range(len(TEXT))]
NGRAM = [(at * 3 % 80) / 10 for at in range(len(TEXT))]


@pytest.fixture
def page(driver, finished, tmp_path):
    """A page of these bits, in a browser."""
    score = {"start": 9, "text": TEXT, "bits": MODEL, "ngram": {"n": 4, "bits": NGRAM}}
    metrics = {"known_words": "0.5", "novelty_8": "0", "longest_copy": "3", "distinct_3": "1"}
    html = render(
        read_params(finished.root / "params.yaml"),
        [{"epoch": 0, "temperature": 1.0, "prompt": "a", "text": "b"}],
        [{"epoch": "0", "temperature": "1.0"} | metrics],
        [{"loss": 1.0, "bits_per_char": 1.4, "val_loss": 2.0, "val_bits_per_char": 2.9}],
        {
            "corpus": "c",
            "characters": 5,
            "vocab_size": 3,
            "windows": 2,
            "validation_windows": 1,
            "test_windows": 0,
        },
        {"n": 4, "val_loss": 2.0},
        "CPU",
        None,
        score,
        Writer(why_not="not here"),
    )
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    driver.get_log("browser")
    open_page(driver, tmp_path / "page.html")
    return driver


def level(value, bounds):
    return sum(value >= bound for bound in bounds)


@with_browser
def test_each_character_is_marked_and_described(page):
    assert page.find_element(By.ID, "scored").get_attribute("textContent") == TEXT
    assert page.find_element(By.ID, "scored").get_attribute("innerHTML").count("<span") == len(TEXT)

    def marks():
        spans = page.find_elements(By.CSS_SELECTOR, "#scored > span")
        return [span.get_attribute("class").split()[0] for span in spans]

    expected = {
        "model": [f"b{level(bits, [1, 2, 4, 6])}" for bits in MODEL],
        "ngram": [f"b{level(bits, [1, 2, 4, 6])}" for bits in NGRAM],
        "difference": [f"d{level(m - n, [-2, -0.5, 0.5, 2])}" for m, n in zip(MODEL, NGRAM, strict=True)],
    }
    assert len(set(expected["difference"])) == len(set(expected["model"])) == 5
    for view, marked in expected.items():
        page.find_element(By.CSS_SELECTOR, f"input[value={view}]").send_keys(Keys.SPACE)
        assert marks() == marked, view
        shown = [scale.is_displayed() for scale in page.find_elements(By.CLASS_NAME, "scale")]
        assert shown == [view != "difference", view == "difference"]
    decorations = page.execute_script(
        "return ['b0', 'b1', 'b2', 'b3', 'b4'].map(name => getComputedStyle("
        "document.querySelector('.scale .' + name)).textDecorationLine + getComputedStyle("
        "document.querySelector('.scale .' + name)).textDecorationStyle)"
    )
    assert len(set(decorations)) == 5  # not by colour alone

    slider, about = page.find_element(By.ID, "scored-at"), page.find_element(By.ID, "scored-about")
    slider.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * 48)
    gap = MODEL[48] - NGRAM[48]
    says = f"Character 49, a line break: model {MODEL[48]:.2f} bits, 4-gram {NGRAM[48]:.2f} bits; the "
    says += f"{'4-gram' if gap > 0 else 'model'} is better by {abs(gap):.2f} bits"
    assert about.text == slider.get_attribute("aria-valuetext") == says
    page.find_elements(By.CSS_SELECTOR, "#scored > span")[50].click()
    assert "Character 51," in about.text
    assert "ל" in about.text
    assert page.find_element(By.CLASS_NAME, "here").text == "ל"
    assert page.title != "broken"
    assert page.get_log("browser") == []


@with_browser
def test_the_averages_are_those_of_the_characters(page):
    text = page.find_element(By.CSS_SELECTOR, "section[aria-labelledby=surprise] p").text
    assert f"model {np.mean(MODEL):.3f} bits per character (perplexity {2 ** np.mean(MODEL):.2f})" in text
    assert f"4-gram {np.mean(NGRAM):.3f} ({2 ** np.mean(NGRAM):.2f})" in text
    better = 100 * np.mean([m < n for m, n in zip(MODEL, NGRAM, strict=True)])
    assert f"The model is better on {better:.0f} % of the characters" in text


@with_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_marks_are_readable_for_everyone(page, tmp_path, dark):
    open_page(page, tmp_path / "page.html", dark, 390)
    for view in ("model", "difference"):
        page.execute_script(f"document.querySelector('input[value={view}]').click()")
        found = Axe().run(page)
        assert not found["violations"], json.dumps(found["violations"], indent=1)[:3000]
        assert len(found["passes"]) > 15
        assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


@with_browser
def test_a_word_leads_to_its_sentence(page):
    links = page.find_elements(By.CLASS_NAME, "word")
    assert {link.text for link in links} >= {"vocabulary", "known words", "8-gram novelty", "4-gram baseline"}
    for link in links:
        name = link.get_attribute("href").split("#")[1]
        sentence = page.find_element(By.ID, name).find_element(By.TAG_NAME, "dd").text
        assert link.get_attribute("title") == sentence
        assert sentence in TERMS.values()
    links[0].send_keys(Keys.ENTER)
    target = page.find_element(By.CSS_SELECTOR, ":target")
    assert target.text.startswith("vocabulary\nThe distinct characters")
    top = page.execute_script("return arguments[0].getBoundingClientRect().top", target)
    assert -1 <= top < page.execute_script("return window.innerHeight")
