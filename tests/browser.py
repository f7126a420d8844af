"""Headless browser for tests of HTML pages."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1300,950",
]


@contextlib.contextmanager
def open_browser(profile: Path) -> Iterator[Any]:
    """Open Chromium through selenium, or skip the test if it is not installed.

    Args:
        profile: Empty folder for the browser's profile.
    """
    webdriver = pytest.importorskip("selenium.webdriver")
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    for name, path in programs.items():
        if path is None:
            pytest.skip(f"{name} is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = programs["chromium"]
    for flag in [*_FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(programs["chromedriver"]))
    try:
        yield browser
    finally:
        browser.quit()


def check_page(browser: Any, path: Path) -> None:
    """Check a self-contained page at the widths of a desktop and a phone screen.

    It must log nothing, request nothing from the network, load all images and fit the width."""
    for width in (1300, 412):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.get(path.resolve().as_uri())
        assert browser.get_log("browser") == []
        events = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
        requested = [
            e["params"]["request"]["url"] for e in events if e["method"].endswith("BeSent")
        ]
        assert [url for url in requested if url.startswith("http")] == []
        images = browser.execute_script(
            "return [...document.images].map(i => i.complete && i.naturalWidth)"
        )
        assert images
        assert all(images)
        # Only elements with their own scroll bar may be wider than the screen.
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
