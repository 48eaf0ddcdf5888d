"""A real headless Chromium to look at the page with, and `python -m tests.browser PAGE PICTURE`."""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
with_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver"
)


@contextmanager
def browser(width: int = 1100, height: int = 900) -> Iterator[webdriver.Chrome]:
    """Chromium with an empty profile that notes its console and every request."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    with tempfile.TemporaryDirectory() as profile:
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--window-size={width},{height}",
            f"--user-data-dir={profile}",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            yield driver
        finally:
            driver.quit()


def open_page(driver: webdriver.Chrome, page: Path, dark: bool = False, width: int | None = None) -> None:
    """Open a report from its file and wait until it is drawn; width: of a phone, in pixels (None: a desk)."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    if width is not None:
        phone = {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": True}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    driver.get(page.resolve().as_uri())
    WebDriverWait(driver, 30).until(
        lambda d: d.execute_script("return document.documentElement.dataset.ready === 'true'")
    )


def requested(driver: webdriver.Chrome) -> list[str]:
    """The addresses that were asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def take_picture(page: Path, picture: Path) -> None:
    """Write a picture of a page with a text that the model wrote in it."""
    with browser(1100, 1240) as driver:
        open_page(driver, page)
        driver.find_elements("css selector", "input[type=radio]")[1].click()  # 0.5 by default
        driver.find_element("css selector", "#write-form button").click()
        status = driver.find_element("id", "write-status")
        WebDriverWait(driver, 60).until(lambda _: "a second" in status.text)
        driver.save_screenshot(str(picture))


if __name__ == "__main__":
    take_picture(Path(sys.argv[1]), Path(sys.argv[2]))
