"""A real browser, headless, and what tests ask of it. Chromium is started once; a page is opened in tens of ms."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REQUIRE = "EQUIPOISE_REQUIRE_BROWSER"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WAIT = 60  # seconds, of a machine that does other work too

READY = """
return document.readyState === 'complete' && [...document.querySelectorAll('.plot')].every(
  plot => plot.querySelector('.main-svg') && plot._fullLayout && !plot._replotPending)
"""
#: Text whose contrast with what it stands on is under 4.5:1, or 3:1 where it is large (WCAG 2, 1.4.3).
FAINT = """
const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = element => {
  for (let at = element; at; at = at.parentElement) {
    const [r, g, b, a = 1] = numbers(getComputedStyle(at).backgroundColor);
    if (a === 1) return [r, g, b];
  }
  return [255, 255, 255];
};
const own = element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
return [...document.body.querySelectorAll('*')].filter(own).filter(element => element.checkVisibility())
  .filter(element => !['SCRIPT', 'STYLE', 'NOSCRIPT'].includes(element.tagName)).flatMap(element => {
    const style = getComputedStyle(element), svg = element instanceof SVGElement;
    const [one, other] = [light(numbers(svg ? style.fill : style.color)), light(behind(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05), size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.6 && Number(style.fontWeight) >= 600) ? 3 : 4.5;
    return ratio < least ? [`${ratio.toFixed(2)} ${element.tagName} ${element.textContent.slice(0, 40)}`] : [];
  });
"""


class Browser:
    """Chromium with a page open.

    Attributes:
        driver: selenium's.
        console: what the page has written to the console since it was opened.
        requests: what it has asked for, but for itself and for data inside it.
    """

    def __init__(self, driver: Any):
        self.driver = driver

    def open(self, file: Path, width: int = 1400, dark: bool = False, drawn: bool = True) -> None:
        """Open a file, and wait until its figures are drawn."""
        self.resize(width)
        self.prefer(dark)
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.file = file.as_uri()
        self.driver.get(self.file)
        if drawn:
            self.wait(READY)

    def resize(self, width: int) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, dark: bool) -> None:
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def ask(self, script: str, *arguments: Any) -> Any:
        """The value of a script's `return`."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, *arguments: Any) -> Any:
        """The first true value of a script's `return`."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, WAIT, 0.05).until(lambda driver: driver.execute_script(script, *arguments))

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def seen(self, selector: str) -> list[Any]:
        script = "return [...document.querySelectorAll(arguments[0])].filter(element => element.checkVisibility())"
        return self.ask(script, selector)

    @property
    def console(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    @property
    def requests(self) -> list[str]:
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        assert self.file in [each["documentURL"] for each in asked], "the log is not kept"
        urls = [each["request"]["url"] for each in asked]
        return [url for url in urls if not url.startswith(("data:", "blob:")) and url.partition("#")[0] != self.file]


def start() -> Iterator[Browser]:
    """Start Chromium; skip where there is none, or fail where the environment says that there has to be one."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    try:
        from selenium import webdriver
    except ImportError:
        webdriver = None
    lacking = [
        name for name, found in (("chromium", program), ("chromedriver", driver), ("selenium", webdriver)) if not found
    ]
    if lacking:
        reason = f"reports are not looked at: {', '.join(lacking)} not found (apt-get install chromium chromium-driver)"
        pytest.fail(f"{REQUIRE}=1 and {reason}") if os.environ.get(REQUIRE) == "1" else pytest.skip(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for switch in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-background-networking",
    ):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chromium = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield Browser(chromium)
    finally:
        chromium.quit()
