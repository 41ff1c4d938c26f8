"""A headless Chromium for tests of pages; they are skipped where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
#: Where to keep screenshots, for people who want to look; not kept without it.
SHOTS = os.environ.get("UKB_INFER_SCREENSHOTS")
MISSING = "no Chromium on the PATH: install it (Debian: apt-get install chromium) to run the tests of pages"


def chromium_path() -> str | None:
    """Where Chromium is."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def open_browser() -> Iterator[Any]:
    """A browser; skips the test without one."""
    path = chromium_path()
    if path is None:
        pytest.skip(MISSING)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class OpenPage:
    """A report in a tab, and all that it says and asks for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True, **options)
        self.tab = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.tab.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.tab.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(path.absolute().as_uri())
        self.tab.wait_for_selector("html[data-ready=yes]", timeout=60_000)

    def requests(self) -> list[str]:
        """Addresses outside the machine that were asked for."""
        return [url for url in self.asked if not url.startswith(("file:", "blob:", "data:"))]

    def text(self, selector: str) -> str:
        """Text of an element."""
        return str(self.tab.inner_text(selector))

    def wait_for_count(self, words: str) -> None:
        """Wait until the table says how many scans are chosen."""
        self.tab.wait_for_function("w => document.getElementById('scan-count').textContent.startsWith(w)", arg=words)


def shoot(page: OpenPage, name: str, *, full: bool = False) -> None:
    """Keep a screenshot, if asked to.

    Args:
        page: open.
        name: of the file.
        full: the whole page, not only what is in view.
    """
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.tab.wait_for_timeout(300)
        page.tab.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=full)
