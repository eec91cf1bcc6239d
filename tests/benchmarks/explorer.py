"""Measure the explorer in JupyterLab in Chromium: from what somebody does to what the browser has painted.

Needs playwright and a Chromium. Times are taken in the page: from the input event to the second animation
frame after the controls, the map and the matrix show the new state. "Warm" means that every answer is known
and nothing is worked out; "cold" that none is but the pass over all pictures, and that the worker is busy
when the change comes.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "browser")]

from conftest import OPTIONS, browser_path  # noqa: E402
from pages import PATIENCE, Lab, notebook_page  # noqa: E402
from run import ROOT, Row  # noqa: E402
from server import jupyter_server  # noqa: E402

CHANGES = 60
SETUP = """
import nadkit as nk, torch
network, masks = nk.load_network("resnet-fashion"), nk.load_masks("resnet-fashion")
images, train = (nk.load_images("fashion", split=split, per_class=50) for split in ("test", "train"))
"""
SHOW = """
explorer = nk.explore(network, masks, images, calibrate_on=train)
explorer
"""
# As many units as VGG-16 has channels, and classes as ImageNet.
WIDE = """
names = [f"class number {at}" for at in range(1000)]
units = {f"layer{at}": n for at, n in enumerate([64] * 2 + [128] * 2 + [256] * 3 + [512] * 6)}
scores = {address: torch.rand(1000, count) for address, count in units.items()}
wide = nk.explore(None, nk.MaskSet.from_scores(scores, names))
wide
"""
WATCH = """([cell, event, key]) => {
    const output = document.querySelectorAll(".jp-Notebook .jp-CodeCell")[cell];
    const kinds = ["controls", "map", "matrix"];
    const roots = kinds.map((kind) => output.querySelector(`section.nadkit-${kind}`));
    const before = roots[0].dataset.stamp;
    window.took = new Promise((done) => {
        let start = null;
        const note = (e) => { if (start === null && (!key || e.key === key)) start = e.timeStamp; };
        document.addEventListener(event, note, true);
        const check = () => {
            const stamps = roots.map((root) => root.dataset.stamp);
            if (!stamps.every((stamp) => stamp === stamps[0] && stamp !== before)) return;
            observer.disconnect();
            document.removeEventListener(event, note, true);
            requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
        };
        const observer = new MutationObserver(check);
        for (const root of roots) observer.observe(root, { attributes: true, attributeFilter: ["data-stamp"] });
    });
}"""
OPEN = """
    const { content } = panel();
    const old = content.widgets[arg].node.querySelector("section.nadkit-map");
    content.activeCellIndex = arg;
    const start = performance.now();
    const ran = window.jupyterapp.commands.execute("notebook:run-cell");
    const took = await new Promise((done) => {
        const look = () => {
            const map = content.widgets[arg].node.querySelector("section.nadkit-map");
            if (map && map !== old && map.querySelector("path.nadkit-mark")) {
                requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
            } else requestAnimationFrame(look);
        };
        look();
    });
    await ran;
    return took;"""


class Bench:
    """One explorer in an open notebook, and the bytes that went through the page's sockets."""

    def __init__(self, lab: Lab, cell: int, name: str) -> None:
        self.lab, self.page, self.cell, self.name = lab, lab.page, cell, name
        self.output = lab.output(cell)
        self.bytes = 0
        self.page.on("websocket", self._listen)

    def _listen(self, socket: Any) -> None:
        def count(payload: str | bytes) -> None:
            self.bytes += len(payload if isinstance(payload, bytes) else payload.encode())

        socket.on("framereceived", count)
        socket.on("framesent", count)

    def watch(self, event: str, key: str = "") -> None:
        self.page.evaluate(WATCH, [self.cell, event, key])

    def took(self) -> float:
        return float(self.page.evaluate("window.took"))

    def by_class(self, _: int) -> float:
        """The next class of the list, by keys."""
        self.output.get_by_role("combobox", name="Class").focus()
        for key in ("ArrowDown", "ArrowDown"):
            self.page.keyboard.press(key)
        self.watch("keydown", "Enter")
        self.page.keyboard.press("Enter")
        return self.took()

    def by_layer(self, number: int) -> float:
        """Another layer, by a click on its column."""
        heads = self.output.locator("section.nadkit-map .nadkit-head[role=button]:not(.nadkit-on)")
        head = heads.nth(3 * number % heads.count())
        head.scroll_into_view_if_needed()
        self.watch("click")
        head.click()
        return self.took()

    def by_threshold(self, number: int) -> float:
        """A step of the slider, up and down within eight values."""
        self.output.get_by_role("slider").focus()
        self.watch("input")
        self.page.keyboard.press("ArrowRight" if number % 14 < 7 else "ArrowLeft")
        return self.took()

    def repeat(self, change: Callable[[int], float], before: str = "", pause: int = 0) -> list[float]:
        """The times of many changes; Python before each, and milliseconds to let the worker begin."""
        times = []
        for number in range(CHANGES):
            if before:
                self.lab.do(before)
            self.page.wait_for_timeout(pause)
            times.append(change(number))
        return times


def late(times: list[float]) -> float:
    """The 95th percentile."""
    return statistics.quantiles(times, n=20)[-1]


def latency(what: str, times: list[float], limits: bool = True) -> Iterator[Row]:
    yield Row(f"{what}, median", statistics.median(times), "ms", 150 if limits else None)
    yield Row(f"{what}, 95th percentile", late(times), "ms", 300 if limits else None)


def static_sizes() -> Iterator[Row]:
    from nadkit.widgets.explorer import PANELS
    from nadkit.widgets.panel import STATIC, source

    files = ["shared.js", *(f"{kind}.js" for kind in PANELS)]
    size = sum((STATIC / name).stat().st_size for name in files)
    yield Row("explorer's own JavaScript", size / 1e3, "kB", 60)
    sent = sum(len((source("shared.js", f"{kind}.js") + source("nadkit.css")).encode()) for kind in PANELS)
    yield Row("  as sent at opening, with styles, six panels", sent / 1e3, "kB")


def rows() -> Iterator[Row]:
    """Every number, as it is measured."""
    from playwright.sync_api import sync_playwright

    yield from static_sizes()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path(), args=OPTIONS, timeout=PATIENCE * 1000
        )
        notebooks, state = Path(folder) / "notebooks", Path(folder) / "state"
        notebooks.mkdir()
        state.mkdir()
        with jupyter_server(notebooks, state) as server, notebook_page(browser, server) as lab:
            yield from measured(lab)
        browser.close()


def measured(lab: Lab) -> Iterator[Row]:
    bench, wide = Bench(lab, 1, "explorer"), Bench(lab, 2, "wide")
    lab.page.set_viewport_size({"width": 1300, "height": 2600})  # every panel is seen, and works
    lab.open(lab.write(SETUP, SHOW, WIDE)).run_all()
    lab.do("explorer.wait(300)")
    opening = [float(lab.inside(OPEN, 1)) / 1e3 for _ in range(5)]
    yield Row("opening again, to the map painted, slowest of 5", max(opening), "s", 3)

    # Warm: all answers of all classes, and of eight thresholds of one of them, are there.
    lab.do("""
for threshold in (0.51, 0.52, 0.53, 0.54, 0.55, 0.56, 0.57, 0.5):
    explorer.threshold = threshold
    explorer.wait(300)
for task in reversed(masks.tasks):
    explorer.task = task
    explorer.wait(300)
""")
    idle = "explorer.wait(300)"
    bench.page.wait_for_timeout(1000)
    changes = {"class": bench.by_class, "layer": bench.by_layer, "threshold": bench.by_threshold}
    for name, change in changes.items():
        if name == "threshold":
            lab.do(f"explorer.task = {lab.py('masks.tasks[0]')!r}; explorer.wait(300)")
        yield from latency(f"{name}, warm", bench.repeat(change, idle, 60))
    sizes = []
    for number in range(20):
        lab.do("explorer.wait(300)")
        lab.page.wait_for_timeout(200)
        before = bench.bytes
        bench.by_class(number)
        lab.page.wait_for_timeout(300)
        sizes.append((bench.bytes - before) / 1e3)
    yield Row("traffic of a change of class, warm, largest of 20", max(sizes), "kB", 200)

    # Cold: what was known is forgotten, panels ask for it anew, and the change comes while it is worked out.
    lab.do("""
busy = []
def forget():
    for key in [key for key in explorer._answers._found if key[0] != "peaks"]:
        del explorer._answers._found[key]
    explorer._refresh()
""")
    forget = "busy.append(explorer._answers.now is not None); forget()"
    for name, change in changes.items():
        yield from latency(f"{name}, cold", bench.repeat(change, forget, 350))
    yield Row("  of these, the worker was busy at", 100 * lab.py("sum(busy) / len(busy)"), "%")
    sizes = []
    for number in range(5):
        lab.do("explorer._answers.wait(300); forget(); explorer._answers.wait(300)")
        lab.page.wait_for_timeout(200)
        before = bench.bytes
        bench.by_class(number)
        lab.page.wait_for_timeout(600)
        lab.page.wait_for_function(
            "!document.querySelector('.nadkit progress:not([hidden])') && "
            "!document.querySelector('.nadkit-stale')"
        )
        sizes.append((bench.bytes - before) / 1e3)
    yield Row("traffic of a change of class, cold, to the last answer", max(sizes), "kB")

    opening = [float(lab.inside(OPEN, 2)) / 1e3 for _ in range(3)]
    yield Row("1,000 classes, 4,224 units: opening, slowest of 3", max(opening), "s", 5)
    for name, change in {
        "class": wide.by_class,
        "layer": wide.by_layer,
        "threshold": wide.by_threshold,
    }.items():
        yield from latency(f"  {name}", wide.repeat(change, "", 60))


def main() -> int:
    """Print a line for each number as it comes."""
    if browser_path() is None:
        print("not measured: no Chromium; install chromium, or name one in NADKIT_CHROMIUM")
        return 1
    loads = [Path("/proc/loadavg").read_text().split()[0]]
    form = "{:<54} {:>12} {:>12}  {}"
    print(f"{ROOT.name}: load {loads[0]} at the start\n" + form.format("what", "target", "measured", ""))
    for row in rows():
        print(form.format(*row.cells()), flush=True)
    print(f"load {Path('/proc/loadavg').read_text().split()[0]} at the end")
    return 0


if __name__ == "__main__":
    sys.exit(main())
