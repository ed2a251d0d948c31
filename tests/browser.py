"""Drive headless Chromium through its DevTools protocol, with the websockets of aiohttp, which DVC brings."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium")
MARKS = ".role-mark.mark-line path, .role-mark.mark-symbol path"  # that Vega draws
DRAWN = f"[...document.querySelectorAll('.chart')].every(chart => chart.querySelector('{MARKS}'))"
FAILURES = ("Network.loadingFailed", "Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")


class Page:
    """A page in a browser without network: what it computes, and what went wrong in it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.session, self.count = socket, "", 0
        self.failures: list[Any] = []

    async def call(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol; note what goes wrong in the page meanwhile."""
        self.count += 1
        session = {"sessionId": self.session} if self.session else {}
        await self.socket.send_json({"id": self.count, "method": method, "params": params, **session})
        while True:
            answer = json.loads((await self.socket.receive(timeout=60)).data)
            if answer.get("method") in FAILURES:
                self.failures.append(answer["params"])
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]

    async def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; of a promise, what it resolves to."""
        result = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def open(self, path: Path, width: int, *, dark: bool = False) -> None:
        """Open a file in a window of that width, and wait until its charts are drawn."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        await self.call("Page.navigate", url=path.as_uri())
        for _ in range(300):
            if await self.value(f"document.readyState === 'complete' && {DRAWN}"):
                return
            await asyncio.sleep(0.1)
        raise TimeoutError(f"{path} is not drawn: {self.failures}")


async def _visited(script: Any) -> Any:
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run"]
        network = ["--proxy-server=127.0.0.1:9", "--disable-background-networking", f"--user-data-dir={profile}"]
        process = subprocess.Popen([str(CHROMIUM), *options, *network], stderr=subprocess.DEVNULL)
        try:
            port_file = Path(profile, "DevToolsActivePort")
            for _ in range(300):
                if port_file.exists() and len(port_file.read_text().splitlines()) == 2:
                    break
                await asyncio.sleep(0.1)
            else:
                raise TimeoutError("Chromium has not opened its DevTools port")
            port, address = port_file.read_text().splitlines()
            address = f"ws://127.0.0.1:{port}{address}"
            async with aiohttp.ClientSession() as client, client.ws_connect(address, max_msg_size=0) as socket:
                page = Page(socket)
                target = await page.call("Target.createTarget", url="about:blank")
                attached = await page.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
                page.session = attached["sessionId"]
                for domain in ("Page", "Network", "Log", "Runtime"):
                    await page.call(f"{domain}.enable")
                speeds = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
                await page.call("Network.emulateNetworkConditions", offline=True, **speeds)
                return await script(page)
        finally:
            process.kill()
            process.wait()


def visit(script: Any) -> Any:
    """Return what a coroutine function returns for a page of a new browser."""
    return asyncio.run(_visited(script))
