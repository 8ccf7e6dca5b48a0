"""A Chromium for tests of pages, which are skipped where there is none.

To have one: apt-get install chromium chromium-driver.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (the test extra)")
from selenium.webdriver.common.by import By  # noqa: E402  # after the skip
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


class Browser:
    """A Chromium that keeps what pages store in a folder, and saves files into another."""

    def __init__(self, profile: Path, saved: Path) -> None:
        if not (CHROMIUM and DRIVER):
            pytest.skip("needs chromium and chromedriver in the PATH")
        saved.mkdir(exist_ok=True)
        self.saved = saved
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        sandbox = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")  # for containers
        for word in ("--headless=new", "--window-size=1200,800", *sandbox):
            options.add_argument(word)
        options.add_argument(f"--user-data-dir={profile}")
        options.add_experimental_option("prefs", {"download.default_directory": str(saved)})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))

    def open(self, page: Path) -> None:
        self.driver.get(page.as_uri())

    def press(self, *keys: str) -> None:
        """One after the other, wherever the focus is."""
        webdriver.ActionChains(self.driver, duration=0).send_keys(*keys).perform()

    def text(self, selector: str) -> str:
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    def run(self, script: str) -> object:
        return self.driver.execute_script(script)

    def canvas(self) -> str:
        """The content of the first canvas."""
        return str(self.run("return document.querySelector('canvas').toDataURL()"))

    def wait_for(self, there: Callable[[], object]) -> object:
        return WebDriverWait(self.driver, 20).until(lambda _: there())

    def download(self) -> dict:
        """The newest file of answers, once it is whole; it is taken away."""
        found = self.wait_for(lambda: sorted(self.saved.glob("answers-*.json")))
        content = self.wait_for(lambda: found[-1].read_text(encoding="utf-8"))
        found[-1].unlink()
        return json.loads(str(content))
