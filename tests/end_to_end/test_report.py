"""The page in a real headless Chromium, compared with the files that it was made of."""

import csv
import json
import shutil
import socket
import time

import pytest
from axe_core_python.selenium import Axe
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from stages.common.history import history_of
from stages.common.params import read_params
from stages.evaluation.page import render
from stages.evaluation.writer import Writer
from tests.browser import open_page, requested, with_browser


@pytest.fixture
def page(driver, longer):
    """The page, just opened, with what the browser noted before forgotten."""
    driver.get("about:blank")
    driver.get_log("browser")
    requested(driver)
    open_page(driver, longer.root / "metrics/report.html")
    return driver


def rows_of(project, path):
    return list(csv.DictReader(project.read(path).decode().splitlines(), delimiter="\t"))


def policy_of(driver):
    return driver.find_element(By.CSS_SELECTOR, "meta[http-equiv]").get_attribute("content")


def text_of(driver, name):
    return driver.find_element(By.ID, name).get_attribute("textContent")


@with_browser
def test_the_slider_and_the_temperature_move_the_text(page, longer):
    samples = [json.loads(line) for line in longer.read("metrics/samples.jsonl").splitlines()]
    rows = list(csv.DictReader(longer.read("metrics/quality.tsv").decode().splitlines(), delimiter="\t"))
    history = history_of(longer.read("metrics/train/losses.tsv").decode(), "last")
    slider = page.find_element(By.ID, "epoch")
    seen = set()
    for number, temperature in enumerate((0.0, 0.5, 1.0)):
        radio = page.find_elements(By.NAME, "temperature")[number]
        radio.click() if number == 0 else page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
        assert radio.is_selected()
        slider.send_keys(Keys.HOME)
        for epoch in range(5):
            (sample,) = (s for s in samples if (s["epoch"], s["temperature"]) == (epoch, temperature))
            (row,) = (r for r in rows if (int(r["epoch"]), float(r["temperature"])) == (epoch, temperature))
            assert text_of(page, "prompt") == sample["prompt"]
            assert text_of(page, "text") == sample["text"]
            assert slider.get_attribute("aria-valuetext") == f"epoch {epoch}"
            loss, val_loss = (history[epoch][name] for name in ("loss", "val_loss"))
            assert text_of(page, "about") == f"epoch {epoch}: loss {loss:.3f}, validation loss {val_loss:.3f}"
            assert float(text_of(page, "known_words").removesuffix(" %")) == pytest.approx(
                100 * float(row["known_words"]), abs=0.51
            )
            assert text_of(page, "longest_copy") == f"{float(row['longest_copy']):g} characters"
            seen.add(sample["text"])
            slider.send_keys(Keys.ARROW_RIGHT)
        page.find_elements(By.NAME, "temperature")[number].send_keys("")  # the keyboard goes back there
    assert len(seen) > 8


@with_browser
def test_it_plays_the_epochs_to_the_last_and_stops(page):
    play = page.find_element(By.ID, "play")
    play.send_keys(Keys.ENTER)
    assert play.text == "Stop"
    seen: list[str] = []
    deadline = time.monotonic() + 20
    while play.text == "Stop" and time.monotonic() < deadline:
        seen.append(text_of(page, "about").split(":")[0])
        time.sleep(0.05)
    seen.append(text_of(page, "about").split(":")[0])
    assert list(dict.fromkeys(seen)) == [f"epoch {epoch}" for epoch in range(5)]


@with_browser
def test_the_charts_draw_the_metrics_and_follow_the_slider(page, longer):
    charts = page.find_elements(By.CLASS_NAME, "chart")
    assert [figure.text for figure in page.find_elements(By.TAG_NAME, "figcaption")][:2] == [
        "Loss",
        "Known words: words that occur in the text",
    ]
    drawn = [len(chart.find_elements(By.CSS_SELECTOR, ".mark-line path")) for chart in charts]
    assert drawn == [2, 3, 3, 3, 3]
    points = [chart.find_elements(By.CSS_SELECTOR, "path[aria-roledescription=point]") for chart in charts]
    assert [len(each) for each in points] == [10, 15, 15, 15, 15]
    rows = list(csv.DictReader(longer.read("metrics/quality.tsv").decode().splitlines(), delimiter="\t"))
    labels = [point.get_attribute("aria-label") for point in points[1]]
    for row in rows:
        label = f"epoch: {row['epoch']}; share of words: {float(row['known_words']):.4g}; "
        assert any(each.startswith(label + f"series: {row['temperature']};") for each in labels), label
    assert "-gram, validation" in charts[0].text
    assert "mean cross-entropy, nats" in charts[0].text
    assert "0.5" in charts[1].text

    def upright(chart):
        return chart.find_elements(By.CSS_SELECTOR, ".mark-rule.role-mark line")[0].get_attribute("transform")

    before = [upright(chart) for chart in charts]
    page.find_element(By.ID, "epoch").send_keys(Keys.HOME)
    time.sleep(0.3)
    after = [upright(chart) for chart in charts]
    assert all(b != a for b, a in zip(before, after, strict=True))


@with_browser
def test_no_complaint_and_no_request_leaves_the_page(page, longer):
    page.find_element(By.ID, "epoch").send_keys(Keys.HOME)
    assert page.get_log("browser") == []
    assert requested(page) == [(longer.root / "metrics/report.html").as_uri()]
    with socket.create_server(("127.0.0.1", 0)) as server:  # nor could one
        server.settimeout(1)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        page.execute_script(f"fetch('{address}').catch(() => 0); new Image().src = '{address}'")
        with pytest.raises(TimeoutError):
            server.accept()
    run = "const own = document.createElement('script'); own.textContent = 'window.ran = true';"
    page.execute_script(run + "document.body.append(own)")  # no script runs but the page's own
    assert page.execute_script("return window.ran") is None
    assert "unsafe-eval" not in (policy := policy_of(page))
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]


@with_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [None, 390], ids=["desk", "phone"])
def test_it_is_readable_for_everyone(driver, longer, dark, width):
    """By axe's rules, with everything unfolded; and no line is wider than the screen."""
    open_page(driver, longer.root / "metrics/report.html", dark, width)
    for fold in driver.find_elements(By.TAG_NAME, "summary"):
        fold.click()
    found = Axe().run(driver)
    assert not found["violations"], json.dumps(found["violations"], indent=1)[:3000]
    assert len(found["passes"]) > 15
    wide, screen = driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= screen
    page_color, axis_color = driver.execute_script(
        "return [getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.querySelector('.chart .role-axis-label text')).fill]"
    )

    def brightness(color):
        return sum(map(float, color.removeprefix("rgb(").removesuffix(")").split(", "))) / 3

    darker, lighter = sorted((page_color, axis_color), key=brightness)
    assert (darker == page_color) == dark
    assert brightness(lighter) - brightness(darker) > 150


def test_without_a_browser_script_the_last_epoch_can_be_read(finished):
    page = finished.read("metrics/report.html").decode()
    samples = [json.loads(line) for line in finished.read("metrics/samples.jsonl").splitlines()]
    assert f'<span id="text">{samples[3]["text"]}</span>' in page
    assert "<h1>book.txt: character-level LSTM</h1>" in page
    assert "<dd>1 × 16 LSTM</dd>" in page
    assert '<th scope="row">train.batch_size</th><td>128</td>' in page
    assert "validation windows" not in page
    assert "<dt>8-gram novelty</dt>" in page
    assert "train.workers" not in page


def test_the_test_loss_and_that_of_the_best_n_are_on_the_page(longer, finished):
    page = longer.read("metrics/report.html").decode()
    loss = json.loads(longer.read("metrics/train/metrics.json"))["test_loss"]
    assert f"<dt>test loss</dt><dd>{loss:.3f}</dd>" in page
    best = min(rows_of(longer, "metrics/baseline.tsv"), key=lambda row: float(row["val_loss"]))
    assert f"<dt>{best['n']}-gram, test</dt><dd>{float(best['test_loss']):.3f}</dd>" in page
    assert '<th scope="row">test windows</th>' in page
    assert "test loss" not in finished.read("metrics/report.html").decode()


def test_the_same_run_gives_the_same_page(finished, small):
    """However many processes computed it."""
    small.set_params(train__workers=2, train__worker_timeout=7, train__cores=1)
    small.run("python", "-m", "stages.report")
    assert small.read("metrics/report.html") == finished.read("metrics/report.html")


@with_browser
def test_no_text_can_break_out_of_the_page(driver, finished, tmp_path):
    text = "</script><script>document.title = 'broken'</script> <b>&amp; \u2028 \"'"
    quality = {"epoch": "0", "temperature": "1.0", "known_words": "0.5", "novelty_8": "0"}
    page = tmp_path / "page.html"
    page.write_text(
        render(
            read_params(finished.root / "params.yaml"),
            [{"epoch": 0, "temperature": 1.0, "prompt": text, "text": text}],
            [quality | {"longest_copy": "3", "distinct_3": "1"}],
            [{"loss": 1.0, "bits_per_char": 1.4}],
            {"corpus": text, "characters": 5, "vocab_size": 3, "windows": 2}
            | {"validation_windows": 0, "test_windows": 0},
            None,
            text,
            None,
            {"start": 0, "text": text, "bits": [1.5] * len(text), "ngram": None},
            Writer(why_not=text),
        ),
        encoding="utf-8",
    )
    driver.get_log("browser")
    open_page(driver, page)
    assert driver.title.startswith("</script><script>")
    assert text_of(driver, "text") == text_of(driver, "prompt") == text_of(driver, "scored") == text
    assert driver.find_element(By.TAG_NAME, "footer").get_attribute("textContent").strip() == (
        f"Trained on: {text}"
    )
    assert driver.find_element(By.CSS_SELECTOR, "[aria-labelledby=write] > p").text.startswith(text[:50])
    assert driver.get_log("browser") == []


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("metrics/quality.tsv", "metrics/quality.tsv is missing; `dvc repro sample` creates it"),
        ("metrics/train/device.json", "metrics/train/device.json is missing; `dvc repro train` creates it"),
        ("metrics/train", "metrics/train/losses.tsv is missing; `dvc repro train` creates it"),
    ],
)
def test_what_is_missing_is_named(small, file, says):
    path = small.root / file
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = small.read("metrics/report.html")
    done = small.run("python", "-m", "stages.report", code=1)
    assert done.stderr == f"error: {says}\n"
    assert small.read("metrics/report.html") == before
