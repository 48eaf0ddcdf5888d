"""The model that runs in the page, in a real headless Chromium, against Keras, numpy and `generate`."""

import json
import math
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from axe_core_python.selenium import Axe
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from stages.common.randomness import keyed_generator
from stages.evaluation.page import FOLDER
from stages.evaluation.writer import PURPOSE
from tests.browser import open_page, requested, with_browser
from tests.end_to_end.writer_support import (
    DRAWN,
    KINDS,
    LIKELIEST,
    PROMPT,
    VOCABULARY,
    WINDOWS,
    page_of,
    writer_of,
)
from tests.support import ROOT, forking_python, made_once

pytestmark = with_browser
MODEL = (FOLDER / "model.js").read_text(encoding="utf-8")
FIELDS = {"--temperature": "write-temperature", "--top-k": "top-k", "--seed": "seed"}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with a model of each kind."""

    def make(folder: Path) -> None:
        command = [forking_python(), "-m", "tests.end_to_end.writer_support", str(folder)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    return made_once(tmp_path_factory, "writers", make)


@pytest.fixture
def show(driver, tmp_path):
    """A function that opens a page with a writer, and forgets what the browser noted before."""

    def open_writer(writer, **options):
        (tmp_path / "page.html").write_text(page_of(writer), encoding="utf-8")
        driver.get("about:blank")
        driver.get_log("browser")
        requested(driver)
        open_page(driver, tmp_path / "page.html", **options)
        return driver

    return open_writer


def about(models, kind):
    return json.loads((models / kind / "about.json").read_text(encoding="utf-8"))


def fill(driver, **values):
    """Set fields of the form by their ids, with the event that an input causes."""
    for name, value in values.items():
        driver.execute_script(
            "const field = document.getElementById(arguments[0]); field.value = arguments[1];"
            "field.dispatchEvent(new Event('input'))",
            name.replace("_", "-"),
            value,
        )


def content(driver, name):
    return driver.find_element(By.ID, name).get_attribute("textContent")


def write(driver, expected="a second"):
    """Press Write and wait for the end; returns the text."""
    driver.find_element(By.CSS_SELECTOR, "#write-form button").click()
    WebDriverWait(driver, 30, 0.05).until(lambda d: expected in content(d, "write-status"))
    return content(driver, "written")


@pytest.mark.parametrize("kind", KINDS)
def test_its_text_is_that_of_generate(show, models, kind):
    """The likeliest text, and the same draws of the same seed."""
    expected = about(models, kind)
    page = show(writer_of(models, kind))
    fill(page, write_prompt=PROMPT, length=300)
    assert len(set(expected["likeliest"])) > 4
    for options, text in ((LIKELIEST, expected["likeliest"]), (DRAWN, expected["drawn"])):
        chosen = dict(zip(options[::2], options[1::2], strict=True))
        fill(page, **{field: chosen.get(option, "") for option, field in FIELDS.items() if option in chosen})
        assert write(page) == text
    assert page.get_log("browser") == []


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("int16", 2e-3)])
@pytest.mark.parametrize("kind", KINDS)
def test_its_logits_are_those_of_keras(driver, models, kind, dtype, tolerance):
    writer = writer_of(models, kind, dtype)
    expected = about(models, kind)["logits"]
    found = driver.execute_script(
        MODEL
        + """
        const [settings, weights, windows] = arguments, { maxlen, carried, dtype } = settings;
        const model = new Model(settings, new WeightReader(weights, dtype));
        return windows.map((window) => {
          const reader = new Reader(model, carried ? null : maxlen);
          window.forEach((character) => reader.feed(character));
          return [...reader.logits];
        });""",
        writer.settings,
        writer.weights[0],
        WINDOWS,
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    assert np.std(found) > 0.1


def test_it_draws_what_numpy_draws(driver):
    """PCG64 seeded by SeedSequence, and frequencies at temperature 1 against softmax."""
    seeds = [[0, 0, 0], [7, 2**32 - 1, 3], [5], [1, 2, 3, 4, 5, 6]]
    found = driver.execute_script(
        MODEL
        + """
        return arguments[0].map((seed) => {
          const draws = uniformDraws(...seed);
          return Array.from({ length: 1000 }, () => draws.next().value);
        });""",
        seeds,
    )
    for seed, draws in zip(seeds, found, strict=True):
        assert draws == np.random.Generator(np.random.PCG64(seed)).random(1000).tolist()
    logits, count = np.array([1.0, 0.3, -0.9, 2.0, -3.0]), 50_000
    drawn = driver.execute_script(
        MODEL
        + """
        const logits = Float32Array.from(arguments[0]), draws = uniformDraws(3, 1);
        return Array.from({ length: arguments[1] }, () => draw(logits, 1, null, draws.next().value));""",
        logits.tolist(),
        count,
    )
    p = np.exp(logits) / np.exp(logits).sum()
    frequencies = np.bincount(drawn, minlength=len(p)) / count
    # five standard deviations of a binomial share
    assert np.all(np.abs(frequencies - p) <= 5 * np.sqrt(p * (1 - p) / count))


def test_the_seed_is_keyed_as_by_hand(models):
    settings = writer_of(models, "lstm").settings
    expected = keyed_generator(9, PURPOSE, 0).random(3)
    assert np.random.Generator(np.random.PCG64([9, settings["purpose"], 0])).random(3).tolist() == list(
        expected
    )


def expected_shares(logits, temperature=1.0, top_k=None):
    """Softmax by its definition."""
    scaled = [math.exp(logit / temperature) for logit in logits]
    for index in sorted(range(len(logits)), key=lambda index: -logits[index])[top_k:] if top_k else []:
        scaled[index] = 0
    return [each / sum(scaled) for each in scaled]


def test_what_it_expects_is_shown_for_each_character(show, models):
    """By keyboard, by pointer; the shares are those of Keras's logits after the same window."""
    page = show(writer_of(models, "lstm"))
    window, logits = WINDOWS[2], about(models, "lstm")["logits"][2]
    prompt = "".join(VOCABULARY[index] for index in window)
    fill(page, write_prompt=prompt, length=40, seed=3, write_temperature=0.8, top_k=3)
    text = write(page)
    assert len(text) == 40
    slider = page.find_element(By.ID, "character")
    assert slider.get_attribute("value") == "40"  # followed while it wrote
    slider.send_keys(Keys.HOME)
    shares, used = expected_shares(logits), expected_shares(logits, 0.8, 3)
    order = sorted(range(len(shares)), key=lambda index: -shares[index])
    drawn = VOCABULARY.index(text[0])
    assert used[drawn] > 0
    rows = [row.text.split("\n") for row in page.find_elements(By.CSS_SELECTOR, "#bars li")]
    names = {"\n": "new line", " ": "space"}
    assert rows == [
        [names.get(VOCABULARY[i], VOCABULARY[i]), f"{100 * shares[i]:.1f} %" + ", drawn" * (i == drawn)]
        for i in order[:8]
    ]
    widths = page.execute_script(
        "return [...document.querySelectorAll('#bars .share')].map("
        "  (bar) => bar.getBoundingClientRect().width / bar.parentElement.getBoundingClientRect().width)"
    )
    np.testing.assert_allclose(widths, [shares[i] for i in order[:8]], atol=0.005)
    said = f"“{names.get(text[0], text[0])}”: {100 * shares[drawn]:.1f} % by the model, "
    said += f"{100 * used[drawn]:.1f} % with this temperature and top-k"
    assert content(page, "drawn").startswith(f"character 1, {said}")
    assert slider.get_attribute("aria-valuetext").startswith(f"1, {said}")
    # the pointer on a character, which may take two code units
    for position, character in ((7, list(text)[7]), (20, list(text)[20])):
        page.execute_script(
            """
            const [before, length] = arguments, range = new Range();
            const place = document.getElementById("written"), node = place.firstChild;
            range.setStart(node, before);
            range.setEnd(node, before + length);
            place.scrollIntoView({ block: "center" });
            const { left, top, width, height } = range.getBoundingClientRect();
            const at = { clientX: left + width / 2, clientY: top + height / 2, bubbles: true };
            place.dispatchEvent(new PointerEvent("pointermove", at));""",
            len(text[:position].encode("utf-16-le")) // 2,
            len(character.encode("utf-16-le")) // 2,
        )
        assert content(page, "drawn").startswith(
            f"character {position + 1}, “{names.get(character, character)}”"
        )
        assert (
            page.execute_script("return CSS.highlights.get('character').values().next().value.toString()")
            == character
        )


def test_it_is_used_by_keyboard_alone_and_no_request_leaves_it(show, models):
    page = show(writer_of(models, "gru"))
    page.execute_script("document.getElementById('write-prompt').focus()")
    keys = page.switch_to.active_element
    keys.send_keys(Keys.CONTROL, "a")
    keys.send_keys("Bad€% 7cab")
    for _ in range(2):
        page.switch_to.active_element.send_keys(Keys.TAB)
    page.switch_to.active_element.send_keys(Keys.CONTROL, "a")
    page.switch_to.active_element.send_keys("25", Keys.TAB)
    page.switch_to.active_element.send_keys("4", Keys.TAB)
    page.switch_to.active_element.send_keys(Keys.TAB)
    assert page.switch_to.active_element.text == "Write"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    WebDriverWait(page, 30, 0.05).until(lambda d: "a second" in content(d, "write-status"))
    assert content(page, "written-prompt") == "bad€ cab"
    assert content(page, "write-status").startswith(
        "Left out, since the text has no such character: “%”, “7”. 25 characters with epoch 0, "
    )
    for expected in ("stop", "page-of-text", "character"):
        page.switch_to.active_element.send_keys(Keys.TAB)
        assert page.switch_to.active_element.get_attribute("id") == expected
    before = content(page, "drawn")
    page.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert content(page, "drawn") != before
    assert page.get_log("browser") == []
    own, worker = requested(page)
    assert own.startswith("file://")
    assert worker.startswith("blob:")


def test_what_is_not_wanted_any_more_costs_nothing(show, models):
    """Write is pressed many times; then a text is stopped while its very long prompt is read."""
    page = show(writer_of(models, "carried"))
    fill(page, write_prompt=PROMPT, length=10_000)
    write(page, "Writing")
    page.execute_script(
        "for (let press = 0; press < 200; press++) document.getElementById('write-form').requestSubmit()"
    )
    began = time.monotonic()
    WebDriverWait(page, 30, 0.02).until(lambda d: content(d, "written"))
    assert time.monotonic() - began < 4  # 200 batches of 40 ms are 8 s
    fill(page, write_prompt="bad cab " * 50_000)
    write(page, "Writing")
    assert len(content(page, "written-prompt")) == 2001
    page.find_element(By.ID, "stop").click()
    assert content(page, "write-status") == "Stopped after 0 characters with epoch 0."
    fill(page, write_prompt="bad", length=1)
    began = time.monotonic()
    assert len(write(page)) == 1
    assert content(page, "write-status").startswith("1 character with epoch 0, ")
    assert time.monotonic() - began < 4


def test_a_prompt_needs_a_character_of_the_text(show, models):
    page = show(writer_of(models, "lstm"))
    fill(page, write_prompt="7%")
    page.find_element(By.CSS_SELECTOR, "#write-form button").click()
    assert content(page, "write-status") == (
        "Left out, since the text has no such character: “7”, “%”. "
        "Write at least one character that the text has."
    )
    assert not page.find_element(By.ID, "result").is_displayed()
    fill(page, write_prompt="<b>", length=20)
    assert len(write(page)) == 20


def test_it_stops_and_begins_again(show, models):
    page = show(writer_of(models, "gru, all of it"))
    fill(page, write_prompt="a", length=10_000)
    page.find_element(By.CSS_SELECTOR, "#write-form button").click()
    WebDriverWait(page, 30, 0.01).until(lambda d: len(content(d, "written")) > 0)
    page.find_element(By.ID, "stop").click()
    stopped = content(page, "written")
    assert content(page, "write-status") == f"Stopped after {len(stopped):,} characters with epoch 0."
    assert 0 < len(stopped) < 10_000
    fill(page, length=30)
    assert write(page) == stopped[:30]  # nothing of the first text comes after it


def test_texts_from_right_to_left_and_for_everyone(show, models):
    """By axe's rules, with a text written and on a phone, in the dark."""
    page = show(writer_of(models, "rnn"), dark=True, width=390)
    fill(page, write_prompt="אבג", length=200)
    write(page)
    found = Axe().run(page)
    assert not found["violations"], json.dumps(found["violations"], indent=1)[:3000]
    wide, screen = page.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= screen
    directions = (
        "return ['page-of-text', 'write-prompt'].map("
        "  (id) => getComputedStyle(document.getElementById(id)).direction)"
    )
    assert page.execute_script(directions) == ["rtl", "rtl"]


def test_a_vocabulary_cannot_break_out(show, models):
    hostile = writer_of(models, "lstm")
    breakout = "</script><script>document.title = 'broken'</script>"
    hostile.settings["prompt"] = breakout
    page = show(hostile)
    assert page.title == "made up: character-level LSTM"
    assert page.find_element(By.ID, "write-prompt").get_attribute("value") == breakout
    assert page.get_log("browser") == []


def test_the_chosen_epoch_writes_what_the_sample_stage_wrote(driver, small):
    samples = [json.loads(line) for line in small.read("metrics/samples.jsonl").splitlines()]
    likeliest = {s["epoch"]: s["text"] for s in samples if s["temperature"] == 0}
    assert likeliest[0] != likeliest[1]
    small.set_params(report__weights="all", report__weights_dtype="float32")
    small.run("python", "-m", "stages.report")
    open_page(driver, small.root / "metrics/report.html")
    fill(driver, length=20, write_temperature=0)
    for key, epoch in ((Keys.HOME, 0), (Keys.END, 1)):
        driver.find_element(By.ID, "epoch").send_keys(key)
        assert content(driver, "write-epoch") == str(epoch)
        assert write(driver) == likeliest[epoch]
    driver.find_element(By.ID, "epoch").send_keys(Keys.HOME)
    assert content(driver, "write-epoch") == "0"  # of the next text
    assert content(driver, "write-status").startswith("20 characters with epoch 1, ")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"report__weights": "none"}, "This page has no weights, so the model cannot write in it"),
        (
            {"report__weights_limit": 0.002},
            " MB, and report.weights_limit is 0.002; use a higher limit or report.weights_dtype: int16.",
        ),
    ],
)
def test_the_page_says_why_it_cannot_write(driver, small, changes, says):
    small.set_params(**changes)
    small.run("python", "-m", "stages.report")
    driver.get_log("browser")
    open_page(driver, small.root / "metrics/report.html")
    assert says in driver.find_element(By.CSS_SELECTOR, "[aria-labelledby=write] > p").text
    assert not driver.find_elements(By.ID, "write-form")
    assert driver.get_log("browser") == []
