"""Read the built site in a headless browser, as visitors do: `python docs/browse.py site`.

Each page is opened at the width of a desktop in the light theme, and at that of a phone in the dark
theme. Every link inside the site is followed. A problem is a link without a target, an error on the
console, a request that fails or leaves the site, a picture that isn't shown, and a text that is
wider than its page.
"""

from __future__ import annotations

import shutil
import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag

from playwright.sync_api import TimeoutError, sync_playwright  # noqa: A004

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Request, Response

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
VISITORS = ((1280, "light"), (390, "dark"))
LOOK = """() => ({
    ids: [...document.querySelectorAll("[id]")].map(element => element.id),
    links: [...document.querySelectorAll("a[href]")].map(element => element.href),
    hidden: [...document.images].filter(image => !image.naturalWidth).map(image => image.src),
    cut: [...document.querySelectorAll("pre > code")]
        .filter(code => code.scrollWidth > code.clientWidth)
        .map(code => code.textContent.trim().split("\\n")[0]),
    width: document.documentElement.scrollWidth,
})"""
SEARCHED = "from_conn_string"


class Visit:
    """A visitor of all pages that links reach from the first page."""

    def __init__(self, browser: Browser, site: str, width: int, theme: str) -> None:
        self.site = site
        self.width = width
        self.name = f"{width} pixels, {theme}"
        self.problems: list[str] = []
        self.place = ""
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.page.on("console", lambda message: self._hear(message.type, message.text))
        self.page.on("pageerror", lambda error: self._hear("error", str(error)))
        self.page.on("request", self._ask)
        self.page.on("requestfailed", self._fail)
        self.page.on("response", self._check)

    def walk(self) -> int:
        """Open every page, and compare the links with the ids of their pages; count the links."""
        ids: dict[str, set[str]] = {}
        links: dict[str, str] = {}
        waiting = [f"{self.site}index.html"]
        while waiting:
            url = waiting.pop()
            if url in ids:
                continue
            found = self._open(url)
            ids[url] = set(found["ids"])
            for link in found["links"]:
                if link.startswith(self.site):
                    links.setdefault(link, self.place)
                    waiting.append(urldefrag(link).url)
        for link, self.place in links.items():
            url, anchor = urldefrag(link)
            if anchor and unquote(anchor) not in ids[url]:
                self._add(f"the target of {link.removeprefix(self.site)} is missing")
        return len(links)

    def search(self) -> None:
        """Type a method's name into the search; a result must lead to the API."""
        self.place = "search"
        self.page.goto(f"{self.site}index.html")
        try:
            self.page.fill("input.md-search__input", SEARCHED)
            self.page.wait_for_selector("a.md-search-result__link[href*='api.html']")
        except TimeoutError:
            self._add(f"{SEARCHED} isn't found in api.html")

    def _open(self, url: str) -> dict[str, Any]:
        self.place = url.removeprefix(self.site)
        self.page.goto(url)
        found: dict[str, Any] = self.page.evaluate(LOOK)
        if found["width"] > self.width:
            self._add(f"the page is {found['width']} pixels wide")
        for source in found["hidden"]:
            self._add(f"{source} isn't shown")
        if self.width > 1000:  # noqa: PLR2004 - on a phone, tables of a terminal are scrolled
            for line in found["cut"]:
                self._add(f"code is cut: {line}")
        return found

    def _ask(self, request: Request) -> None:
        if not request.url.startswith((self.site, "data:", "blob:")):
            self._add(f"{request.url} is outside of the site")

    def _fail(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the next page was opened before its end
            self._add(f"{request.url} fails: {request.failure}")

    def _hear(self, kind: str, text: str) -> None:
        if kind == "error":
            self._add(f"console: {text}")

    def _check(self, response: Response) -> None:
        if response.status >= 400:  # noqa: PLR2004 - a client or server error
            self._add(f"{response.url} answers {response.status}")

    def _add(self, problem: str) -> None:
        self.problems.append(f"{self.place} ({self.name}): {problem}")


class _Handler(SimpleHTTPRequestHandler):
    """Files of a folder, without a log."""

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback; yield its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def main(folder: Path) -> int:
    """Visit the site in `folder`; print the problems, and return whether there are any."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        print("No Chromium on PATH. On Debian: apt-get install chromium", file=sys.stderr)
        return 1
    if not (folder / "index.html").exists():
        print(f"No site in {folder}. Build it: nox -s docs", file=sys.stderr)
        return 1
    problems: list[str] = []
    count = 0
    with served(folder) as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        for width, theme in VISITORS:
            visit = Visit(browser, site, width, theme)
            count += visit.walk()
            if (width, theme) == VISITORS[0]:
                visit.search()
            problems += visit.problems
        browser.close()
    print("\n".join(problems) or f"{count} links followed, no problem")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
