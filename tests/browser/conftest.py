"""Browser tests: Chromium driven by playwright. They skip, with a reason, where either is missing.

`blank` mounts a widget's JavaScript alone; `lab` and `nb7` drive a notebook in JupyterLab 4 and Notebook 7.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pages import PATIENCE, Blank, Lab, notebook_page, watched_page
from server import Server, jupyter_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HERE = Path(__file__).parent
OPTIONS = [
    "--no-sandbox",  # Chromium's sandbox refuses to run as root; it sees only pages of these tests
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--force-color-profile=srgb",
]


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and run them last: their browser and server live until the end."""
    here = [item for item in items if item.path.is_relative_to(HERE)]
    for item in here:
        item.add_marker("browser")
    items.sort(key=set(here).__contains__)


def browser_path() -> str | None:
    """Chromium: what NADKIT_CHROMIUM names, else what is on PATH."""
    named = os.environ.get("NADKIT_CHROMIUM")
    return named or next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright")
    path = browser_path()
    if path is None:
        pytest.skip("no Chromium: install chromium, or name one in NADKIT_CHROMIUM")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=OPTIONS, timeout=PATIENCE * 1000)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="session")
def lab_server(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:  # noqa: ARG001
    """One server for all tests; it asks for the browser, lest it start where every test is skipped."""
    with jupyter_server(tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("jupyter")) as server:
        yield server


@pytest.fixture
def lab(chromium: Browser, lab_server: Server) -> Iterator[Lab]:
    """A page of JupyterLab 4."""
    with notebook_page(chromium, lab_server) as page:
        yield page


@pytest.fixture
def nb7(chromium: Browser, lab_server: Server) -> Iterator[Lab]:
    """A page of Notebook 7."""
    if find_spec("notebook") is None:
        pytest.skip("no Notebook 7: pip install notebook")
    with notebook_page(chromium, lab_server, "notebooks") as page:
        yield page


@pytest.fixture(params=["lab", "nb7"])
def either(request: pytest.FixtureRequest) -> Lab:
    """A page of JupyterLab 4, then one of Notebook 7."""
    page: Lab = request.getfixturevalue(request.param)
    return page


@pytest.fixture
def blank(chromium: Browser) -> Iterator[Callable[..., Blank]]:
    """Mounts a widget's JavaScript on a fake model: `blank(esm, {"trait": value}, css="")`."""
    with ExitStack() as pages:

        def mount(esm: str | Path, state: dict[str, Any], css: str | Path = "") -> Blank:
            esm, css = (x.read_text() if isinstance(x, Path) else x for x in (esm, css))
            return Blank(
                pages.enter_context(watched_page(chromium, "http://localhost/blank")), esm, state, css
            )

        yield mount


@pytest.fixture(scope="session")
def axe() -> Path:
    """axe-core, the accessibility checker; of axe-playwright-python only this file is used."""
    spec = find_spec("axe_playwright_python")
    if spec is None or spec.origin is None:
        pytest.skip("no axe-core: pip install axe-playwright-python")
    return Path(spec.origin).with_name("axe.min.js")


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """The folder for screenshots: NADKIT_SHOTS, else the test's own temporary one."""
    folder = Path(os.environ.get("NADKIT_SHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
