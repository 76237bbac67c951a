"""Headless Chromium, driven through a pair of pipes by its DevTools protocol: no other package."""

import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
TRIES = 2000
KEY_CODES = {"ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40, "Backspace": 8, "Enter": 13}


def find() -> str | None:
    """The browser's program, if there is one on this machine."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A page that is open."""

    def __init__(self, to_browser: Any, from_browser: Any) -> None:
        self._to, self._from = to_browser, from_browser
        self._numbers, self._session = itertools.count(1), ""

    def open(self, file: Path, downloads: Path) -> None:
        """Show a file, and have its downloads in a folder."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        self._session = found["sessionId"]
        self.call("Page.enable")
        self.call("Page.navigate", url=file.absolute().as_uri())
        self.wait_for("document.readyState === 'complete'")

    def reload(self) -> None:
        """Load the page again."""
        self.run("window.earlier = true")
        self.call("Page.reload")
        self.wait_for("!window.earlier && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until an expression is true."""
        for _ in range(TRIES):
            if self.run(condition) is True:
                return
            self.pause()
        raise AssertionError(f"never came true: {condition}")

    def wait_for_file(self, file: Path) -> None:
        """Wait until a download is there."""
        for _ in range(TRIES):
            if file.is_file():
                return
            self.pause()
        raise AssertionError(f"never came: {file}")

    def pause(self) -> None:
        """Let the page go on."""
        self.run("new Promise((done) => setTimeout(done, 20))")

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        typed = {"text": "\r"} if key == "Enter" else {}  # which presses the button in focus
        for kind in ("keyDown", "keyUp"):
            options = {"key": key, "code": key, "windowsVirtualKeyCode": KEY_CODES[key]}
            self.call("Input.dispatchKeyEvent", type=kind, **options, **typed)

    def type(self, text: str) -> None:
        """Type a text where the focus is."""
        self.call("Input.insertText", text=text)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = json.loads(self._read())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self) -> bytes:
        found = bytearray()
        while (byte := self._from.read(1)) != b"\0":
            assert byte, "the browser has ended"
            found += byte
        return bytes(found)


@contextmanager
def page(program: str, profile: Path) -> Iterator[Page]:
    """A browser with a profile of its own, ended afterwards."""
    command_read, command_write = os.pipe()
    answer_read, answer_write = os.pipe()

    # The protocol's pipes are 3 and 4: a shell makes them so, as nothing may fork beside jax.
    shell = f'exec "$0" "$@" 3<&{command_read} 4>&{answer_write}'
    options = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--remote-debugging-pipe", f"--user-data-dir={profile}", "--disable-dev-shm-usage"),
    )
    process = subprocess.Popen(
        ["bash", "-c", shell, program, *options],
        pass_fds=(command_read, answer_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(command_read)
    os.close(answer_write)
    try:
        with open(command_write, "wb") as to, open(answer_read, "rb", buffering=1 << 16) as out:
            yield Page(to, out)
    finally:
        process.terminate()
        process.wait(60)
