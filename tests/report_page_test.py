"""report.html, gate.html and history.html draw every chart in a real browser, offline, and ask the network for nothing.

Usage: report_page_test.py <dsa-report>
"""
import html.parser
import pathlib
import platform
import re
import shutil
import sys
import tempfile

from report_checks import GateRun, GoldenRun, HistoryRun, check, need, run

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def browser() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if shutil.which(name):
            return name
    # Ubuntu has a browser only as a snap, which no container can run: there ctest shows "Skipped".
    if platform.freedesktop_os_release().get("ID") == "ubuntu":
        print("skipped: this test needs a browser, and apt has none here but a snap; "
              "put a chromium or google-chrome into PATH")
        sys.exit(77)
    sys.exit("this test needs a browser: apt install chromium")


class Page(html.parser.HTMLParser):
    """Everything a browser would fetch, and how many marks each chart drew."""

    def __init__(self):
        super().__init__()
        self.fetched, self.marks, self.body, self.chart, self.depth = [], {}, {}, None, 0

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        for name in ("src", "href", "data", "poster", "action"):
            if tag not in ("a", "use") and attrs.get(name) and not attrs[name].startswith(("#", "data:")):
                self.fetched.append((tag, name, attrs[name][:80]))
        if tag == "body":
            self.body = attrs
        if tag == "div":
            if self.chart:
                self.depth += 1
            elif "data-chart" in attrs:
                self.chart, self.depth = attrs["data-chart"], 1
                self.marks[self.chart] = 0
        # A drawn path or text, not the empty group a failed chart may leave.
        if self.chart and tag in ("path", "text", "line", "rect") and (attrs.get("d", "M0") != ""):
            self.marks[self.chart] += 1

    def handle_endtag(self, tag):
        if tag == "div" and self.chart:
            self.depth -= 1
            if self.depth == 0:
                self.chart = None


def dump(page, profile) -> str:
    said = run(browser(), *FLAGS, f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--dump-dom",
               page.as_uri())
    check(said.returncode == 0, f"the browser ended with {said.returncode}: {said.stderr[-500:]}")
    return said.stdout


def check_page(words: list, folder: pathlib.Path, name: str, profile: str) -> dict:
    """What dsa-report writes on this folder draws whole. Returns how many marks each chart drew."""
    said = run(sys.argv[1], *words, folder, "--python", sys.executable)
    check(said.returncode == 0, f"dsa-report ended with {said.returncode}: {said.stderr}")
    charts = sorted(p.name.removesuffix(".vl.json") for p in (folder / "charts").glob("*.vl.json"))
    text = (folder / name).read_text(encoding="utf-8")

    source = Page()
    source.feed(text)
    check(source.fetched == [], f"{name} fetches {source.fetched}")
    check("default-src 'none'" in text, f"{name} has no content policy")

    dom = Page()
    dom.feed(dump(folder / name, profile))
    check(dom.fetched == [], f"the drawn page fetches {dom.fetched}")
    check(sorted(dom.marks) == charts, f"charts in the page {sorted(dom.marks)}, in the folder {charts}")
    check(dom.body.get("data-drawn") == str(len(charts)), f"drawn {dom.body}, charts {len(charts)}")
    check(dom.body.get("data-failed") == "0", f"failed {dom.body}")
    for chart, marks in dom.marks.items():
        check(marks >= 20, f"{chart} drew only {marks} marks")
    return dom.marks


def main() -> None:
    need("vl_convert")
    with GoldenRun() as folder, tempfile.TemporaryDirectory(prefix="dsa-chromium-") as profile:
        marks = check_page(["make"], folder, "report.html", profile)
        # The counter itself: a chart that cannot be drawn must be seen.
        page_file = folder / "report.html"
        text = page_file.read_text(encoding="utf-8")
        text = re.sub(r'("mark":\{"type":)"bar"', r'\1"no_such_mark"', text, count=1)
        page_file.write_text(text, encoding="utf-8")
        spoilt = Page()
        spoilt.feed(dump(page_file, profile))
        check(spoilt.body.get("data-failed") == "1", f"a broken chart went unnoticed: {spoilt.body}")
        with GateRun() as gate:
            marks.update(check_page(["gate"], gate, "gate.html", profile))
        with HistoryRun(sys.argv[1]) as store:
            marks.update(check_page(["history", "show", "--store"], store, "history.html", profile))
    print(f"{len(marks)} charts drew: {marks}")


if __name__ == "__main__":
    main()
