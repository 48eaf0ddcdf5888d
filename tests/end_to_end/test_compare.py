"""The page that compares runs: real experiments of DVC, read without a checkout, in a real browser."""

import json
import shutil

import pytest
import yaml
from axe_core_python.selenium import Axe
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from stages.common.errors import StageError
from stages.evaluation.runs import read_run, read_runs
from tests.browser import open_page, requested, with_browser
from tests.support import Project, outputs

HOSTILE = "</script><script>document.title = 'broken'</script>\u2028 שלום &amp;"


def replace_file(project, path, text):
    (project.root / path).unlink()  # a link into DVC's cache, maybe
    (project.root / path).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def compared(finished, tmp_path_factory) -> Project:
    """Beside the finished run the experiment `units-20`, which has other parameters and results.

    They are written by hand, so that nothing trains. The workspace is then as it was.
    """
    root = tmp_path_factory.mktemp("compared") / "project"
    shutil.copytree(finished.root, root, symlinks=True)
    project = Project(root)
    project.set_params(model__units=20, sample__temperatures=[0.5, 1.5], vectorize__validation=0.2)
    losses = "epoch\tpart\tloss\tbits_per_char\n"
    losses += "".join(
        f"{epoch}\t{part}\t{loss}\t{loss * 1.5}\n"
        for epoch in range(3)
        for part, loss in (("training", 3 - epoch), ("validation", 4 - epoch))
    )
    replace_file(project, "metrics/train/losses.tsv", losses)
    replace_file(
        project, "metrics/baseline.tsv", "n\tval_loss\tval_bits_per_char\n1\t2.5\t3.6\n2\t2.25\t3.2\n"
    )
    header = project.read("metrics/quality.tsv").decode().splitlines()[0].split("\t")
    rows = [dict.fromkeys(header, "0.25") for _ in range(6)]
    samples = []
    for row, (epoch, temperature) in zip(rows, [(e, t) for e in range(3) for t in (0.5, 1.5)], strict=True):
        row |= {"epoch": str(epoch), "temperature": str(temperature), "longest_copy": str(epoch + 5)}
        text = f"{HOSTILE} {epoch} {temperature}"
        samples.append({"epoch": epoch, "temperature": temperature, "prompt": "begin ", "text": text})
    lines = ["\t".join(header), *("\t".join(row[name] for name in header) for row in rows)]
    replace_file(project, "metrics/quality.tsv", "\n".join(lines) + "\n")
    replace_file(project, "metrics/samples.jsonl", "".join(json.dumps(each) + "\n" for each in samples))
    project.dvc("commit", "-f")
    project.dvc("exp", "save", "--force", "--name", "units-20")
    project.run("git", "checkout", "-q", "--", ".")
    project.dvc("checkout")
    return project


@pytest.fixture(scope="module")
def page(compared):
    """The page of the workspace (which is HEAD) and the experiment; the workspace is as before."""
    before, status = outputs(compared.root), compared.run("git", "status", "--porcelain").stdout
    done = compared.run("python", "-m", "stages.compare", "units-20", "HEAD")
    assert done.stdout == "workspace = HEAD, units-20: metrics/compare.html\n"
    path = compared.root / "metrics/compare.html"
    content = path.read_bytes()
    assert outputs(compared.root) == before | {"metrics/compare.html": content}
    assert compared.run("git", "status", "--porcelain").stdout == status
    return path


def test_the_parameters_are_those_that_the_results_were_made_with(small):
    """Also where `git checkout params.yaml` or -S has changed the file."""
    small.set_params(train__targets="all", model__units=99)
    done = small.run("python", "-m", "stages.compare", "HEAD")
    assert done.stdout.startswith("workspace = HEAD: metrics/compare.html\n")
    small.run("git", "checkout", "params.yaml")
    small.set_params(sample__seed=1)
    small.dvc("repro", "sample")
    small.run("git", "checkout", "params.yaml")
    done = small.run("python", "-m", "stages.compare", "HEAD")
    assert done.stdout.startswith("workspace, HEAD: ")
    assert "sample.seed" in small.read("metrics/compare.html").decode()


def test_results_of_different_runs_are_refused(small):
    """Losses of one model and samples of another one, or windows that no model learned from yet."""
    small.set_params(vectorize__step=5)
    for target in ("vectorize", "train"):
        small.dvc("repro", target)
        done = small.run("python", "-m", "stages.compare", "HEAD", code=1)
        assert done.stderr.startswith("error: workspace: its results are of different runs; run all stages")
        assert done.stderr.count("\n") == 1
    small.run("python", "-m", "stages.compare", "--no-workspace", "HEAD")


def test_while_a_run_goes_on_the_parameters_are_those_of_the_file(small):
    small.set_params(train__targets="all")
    lines = ["epoch\tpart\tloss\tbits_per_char", "0\ttraining, all positions\t2.5\t3.6"]
    replace_file(small, "metrics/train/losses.tsv", "\n".join(lines) + "\n")
    done = small.run("python", "-m", "stages.compare", "HEAD")
    assert done.stdout.startswith("workspace, HEAD: ")
    assert "train.targets" in small.read("metrics/compare.html").decode()


def test_what_differs_and_what_came_of_it_is_told(compared, page):
    html = page.read_text(encoding="utf-8")
    for name, here, there in (
        ("model.units", "16", "20"),
        ("vectorize.validation", "0.0", "0.2"),
        ("sample.temperatures", "[0.0, 0.5, 1.0]", "[0.5, 1.5]"),
        ("epochs", "2", "3"),
        ("last loss, validation", "–", "2.0000"),
        ("lowest validation loss", "–", "2.0000 in epoch 2"),
        ("n-gram baseline", "–", "2.2500 (2-gram)"),
    ):
        assert f'<th scope="row">{name}</th><td>{here}</td><td>{there}</td>' in html
    assert "train.batch_size</th>" not in html  # the same in both
    assert "so their losses cannot be compared" in html
    last = yaml.safe_load(compared.read("metrics/train/metrics.json"))["loss"]
    assert f'<th scope="row">last loss, training</th><td>{last:.4f}</td><td>1.0000</td>' in html


@with_browser
def test_samples_stand_beside_each_other_at_the_same_epoch_and_temperature(driver, compared, page):
    driver.get("about:blank")
    driver.get_log("browser")
    requested(driver)  # those of the browser's own first page
    open_page(driver, page)
    own = [json.loads(line) for line in compared.read("metrics/samples.jsonl").splitlines()]

    def shown():
        runs = driver.find_elements(By.CSS_SELECTOR, "#runs article")
        assert [run.find_element(By.TAG_NAME, "h3").text for run in runs] == ["workspace = HEAD", "units-20"]
        return [run.find_element(By.CLASS_NAME, "text").get_attribute("textContent") for run in runs]

    def text_at(epoch, temperature):
        (sample,) = (s for s in own if (s["epoch"], s["temperature"]) == (epoch, temperature))
        return sample["text"]

    # the page begins with the last epoch that both have, at the one temperature that both have
    assert shown() == [text_at(1, 0.5), f"{HOSTILE} 1 0.5"]
    copies = driver.find_elements(By.CSS_SELECTOR, "[data-metric=longest_copy]")
    assert copies[1].text == "6 characters"
    slider = driver.find_element(By.ID, "epoch")
    slider.send_keys(Keys.HOME)
    assert shown() == [text_at(0, 0.5), f"{HOSTILE} 0 0.5"]
    driver.find_element(By.CSS_SELECTOR, "input[value='0']").click()
    assert shown() == [text_at(0, 0.0), "no sample of this epoch at this temperature"]
    driver.find_element(By.CSS_SELECTOR, "input[value='3']").click()
    slider.send_keys(Keys.END)
    assert shown() == ["no sample of this epoch at this temperature", f"{HOSTILE} 2 1.5"]
    assert driver.title == "workspace = HEAD, units-20: runs side by side"
    assert driver.get_log("browser") == []
    assert requested(driver) == [page.as_uri()]


@with_browser
def test_all_losses_are_in_one_chart_and_qualities_follow_the_temperature(driver, page):
    open_page(driver, page)
    charts = driver.find_elements(By.CLASS_NAME, "chart")

    def labels(chart):
        points = chart.find_elements(By.CSS_SELECTOR, "path[aria-roledescription=point]")
        return [point.get_attribute("aria-label") for point in points]

    of_losses = labels(charts[0])
    assert len(of_losses) == 2 + 3 + 3
    for epoch, loss in enumerate((4, 3, 2)):
        expected = f"epoch: {epoch}; mean cross-entropy, nats: {loss}; series: units-20, validation;"
        assert any(label.startswith(expected) for label in of_losses), of_losses
    assert [len(labels(chart)) for chart in charts[1:]] == [5] * 4  # at 0.5: two epochs and three
    driver.find_element(By.CSS_SELECTOR, "input[value='3']").click()  # 1.5, which one run has
    driver.execute_async_script("setTimeout(arguments[0], 300)")
    assert [len(labels(chart)) for chart in charts[1:]] == [3] * 4


@with_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_is_readable_for_everyone(driver, page, dark):
    open_page(driver, page, dark, 390)
    found = Axe().run(driver)
    assert not found["violations"], json.dumps(found["violations"], indent=1)[:3000]
    assert len(found["passes"]) > 15


def test_runs_without_results_are_named(compared, monkeypatch, tmp_path):
    root = tmp_path / "project"
    shutil.copytree(compared.root, root, symlinks=True)
    monkeypatch.chdir(root)

    def complaint(*names):
        with pytest.raises(StageError) as caught:
            read_runs(list(names))
        return str(caught.value)

    assert complaint("nowhere") == (
        "nowhere: there is no such experiment or git revision; `dvc exp show` lists the experiments"
    )
    assert complaint("HEAD~1").startswith(
        "HEAD~1: metrics/corpus.json is neither in git nor in DVC's cache; run it with `dvc exp run`"
    )
    assert read_run("units-20").history[2]["val_loss"] == 2
    (root / "metrics/samples.jsonl").unlink()
    assert complaint("workspace") == (
        "workspace: metrics/samples.jsonl is missing; `dvc repro` creates it, --no-workspace leaves the "
        "workspace out"
    )
    shutil.rmtree(root / ".dvc/cache/files")
    assert complaint("units-20").startswith("units-20: metrics/samples.jsonl is neither in git nor in DVC's")
    (root / "metrics/train/losses.tsv").write_text("epoch\tloss\n0\t1\n")
    assert complaint("workspace").startswith("workspace: its results are not ones that this version reads (")


def test_a_mistake_is_one_line_and_leaves_the_page(compared, page):
    before = page.read_bytes()
    done = compared.run("python", "-m", "stages.compare", "nowhere", code=1, fork=False)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert done.stderr.startswith("error: nowhere: there is no such experiment")
    assert page.read_bytes() == before
