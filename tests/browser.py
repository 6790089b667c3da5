"""A headless Chromium, driven by its DevTools protocol, for the tests of pages; these are skipped
where there is none.
"""

import base64
import itertools
import json
import re
import shutil
import subprocess
import threading
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Browser:
    """One page. `errors`: what the console and the page complained of; `requests`: what it asked
    for, data: and blob: left out.
    """

    def __init__(self, folder: Any):
        path = next(filter(None, map(shutil.which, NAMES)), None)
        if path is None:
            pytest.skip("there is no Chromium on this machine")
        websocket = pytest.importorskip("tornado.websocket", reason="needs tornado")
        from tornado.ioloop import IOLoop

        options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0")
        self._process = subprocess.Popen(
            [path, *options, f"--user-data-dir={folder}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"ws://(\S+?)/", line):
                break
        else:
            pytest.skip("Chromium does not start here")
        # its pipe must not fill up
        self._reader = threading.Thread(target=self._process.stderr.read, daemon=True)
        self._reader.start()
        self._loop, self._numbers = IOLoop(make_current=False), itertools.count(1)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._run = self._loop.run_sync
        address = f"http://{found[1]}/json"
        (target,) = [t for t in self._fetch(address) if t["type"] == "page"]
        url = target["webSocketDebuggerUrl"]
        self._socket = self._run(lambda: websocket.websocket_connect(url, max_message_size=2**27))
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def _fetch(self, address: str) -> Any:
        from urllib.request import urlopen

        with urlopen(address) as reply:
            return json.loads(reply.read())

    def _message(self) -> dict[str, Any]:
        message = json.loads(self._run(self._socket.read_message, timeout=60))
        kind, content = message.get("method"), message.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.errors.append(str(content["exceptionDetails"]))
        elif kind == "Log.entryAdded" and content["entry"]["level"] == "error":
            self.errors.append(content["entry"]["text"])
        elif kind == "Runtime.consoleAPICalled" and content["type"] == "error":
            self.errors.append(str(content["args"]))
        elif kind == "Network.requestWillBeSent":
            asked = content["request"]["url"]
            if not asked.startswith(("data:", "blob:")):
                self.requests.append(asked)
        return message

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a DevTools command."""
        number = next(self._numbers)
        text = json.dumps({"id": number, "method": method, "params": parameters})
        self._run(lambda: self._socket.write_message(text))
        while (message := self._message()).get("id") != number:
            pass
        assert "error" not in message, message
        return message["result"]

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load a page at a size of the window."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        self.call("Page.navigate", url=url)
        while self._message().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, script: str) -> Any:
        """The value of JavaScript; a promise is waited for."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Until JavaScript is true, at most 20 s."""
        waits = f"""new Promise((done, failed) => {{
            const start = Date.now();
            const look = () => ({script}) ? done(true)
                : Date.now() - start > 20000 ? failed("never: " + {json.dumps(script)})
                : setTimeout(look, 20);
            look(); }})"""
        assert self.evaluate(waits)

    def drag(self, *points: tuple[float, float]) -> None:
        """Press the mouse at the first point, move it over the others, release it at the last."""
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [*points, points[-1]], strict=True):
            held = {"button": "left", "buttons": 0 if kind == "mouseReleased" else 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, clickCount=1, **held)

    def hover(self, x: float, y: float) -> None:
        """Move the mouse to a point, without a button."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def touch(self, x: float, y: float) -> None:
        """Put a finger on a point and lift it."""
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window, scroll bar left out. innerWidth is
        no measure of that: a phone zooms out until it holds the page, however wide that is.
        """
        return self.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )

    def screenshot(self) -> bytes:
        """A PNG of the window."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def close(self) -> None:
        async def leave() -> None:  # within the loop: elsewhere there may be none (asyncio.run)
            self._socket.close()

        try:
            self._run(leave)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            self._process.stderr.close()
            self._loop.close()
