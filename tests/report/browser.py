"""A real browser for tests: headless Chromium over its DevTools pipe, which needs nothing but the program."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SECONDS = 60
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--remote-debugging-pipe", "--font-render-hinting=none"),
)


def chromium() -> str:
    """The program; without it the test is skipped, and fails where CI should have installed it."""
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("chromium is missing: apt-get install chromium")
    return found


class Browser:
    """One page in a browser of its own. ``problems`` holds whatever the page complained of, and every request that left the file."""

    def __init__(self, folder: Path) -> None:
        there, self._send = os.pipe()
        self._read, back = os.pipe()
        # The program reads commands from descriptor 3 and writes answers to 4.
        shell = f'exec "$0" "$@" 3<&{there} 4>&{back} {there}<&- {back}>&-'
        if {there, back} & {3, 4}:
            shell = f'exec 8<&{there} 9>&{back}; exec "$0" "$@" 3<&8 4>&9 8<&- 9>&-'
        self._log = (folder / "chromium.log").open("w+")
        self._process = subprocess.Popen(
            ["bash", "-c", shell, chromium(), *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            pass_fds=(there, back),
            stdout=self._log,
            stderr=self._log,
        )
        os.close(there)
        os.close(back)
        self._left, self._last, self._session = b"", 0, None
        self.problems: list[str] = []
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in (self._send, self._read):
            os.close(handle)  # the browser ends with its pipe
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def call(self, method: str, **parameters: object) -> dict:
        """Run a DevTools command and return its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session and not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def open(self, path: Path, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Load a page and wait until all of it is there."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self._loaded:
            self._receive()

    def evaluate(self, script: str) -> object:
        """The value of an expression of JavaScript in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Write what the page looks like as PNG."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self, path: Path) -> None:
        """Print the page."""
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"]))

    def _receive(self) -> dict:
        end = time.monotonic() + SECONDS
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(self._read, 1 << 20) if ready else b""
            if not piece:
                self._log.seek(0)
                raise AssertionError(f"chromium {'fell silent' if not ready else 'ended'}:\n{self._log.read()[-3000:]}")
            self._left += piece
        text, _, self._left = self._left.partition(b"\0")
        message = json.loads(text)
        self._notice(message.get("method"), message.get("params", {}))
        return message

    def _notice(self, method: str | None, params: dict) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.problems.append(f"exception: {params['exceptionDetails'].get('text')}")
        elif method == "Runtime.consoleAPICalled":
            self.problems.append(f"console.{params['type']}: {params['args']}")
        elif method == "Log.entryAdded":
            self.problems.append(f"{params['entry']['level']}: {params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.loadingFailed":
            self.problems.append(f"failed to load: {params.get('errorText')} {params.get('blockedReason', '')}")
        elif method == "Network.requestWillBeSent" and params["type"] != "Document" and not params["request"]["url"].startswith("data:"):
            self.problems.append(f"asks for {params['request']['url']}")
