"""The built site: links, texts, no foreign host, and what only a browser can tell.

The site is built by `make book`, which `make test` does first. The browser is Chromium, driven by
Playwright; where there is none, its tests are skipped.
"""

import http.server
import os
import re
import shutil
import threading
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup

from panorama.course.chapters import all_chapters

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build" / "html"
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"

# Defects of the theme that cannot be mended from here: axe's rule, selector, reason.
THEME_DEFECTS: list[tuple[str, str, str]] = []

# Directives, roles and fences that Markdown left as text.
RAW = re.compile(r"```\s*\{|:::|\{[a-z][a-z:_-]*\}`|\{glue|\{code-cell|^\+\+\+", re.MULTILINE)


def contents():
    """The pages of `_toc.yml`, in their order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    found = [toc["root"]]
    for part in toc["parts"]:
        for entry in part["chapters"]:
            found += [entry["file"], *(section["file"] for section in entry.get("sections", []))]
    return found


PAGES = contents()
CODE_PAGES = [chapter.name for chapter in all_chapters(ROOT) if chapter.name in PAGES]


@pytest.fixture(scope="module", autouse=True)
def site():
    if not (SITE / "index.html").is_file():
        pytest.fail("the site is not built: run `make book` first")
    return SITE


@cache
def soup(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def html_pages():
    return [p for p in sorted(SITE.rglob("*.html")) if "_static" not in p.relative_to(SITE).parts]


def base_path():
    """The path under which the site is published, such as `/deep-learning-panorama/`."""
    return urlsplit(soup(SITE / "index.html").select_one("link[rel=canonical]")["href"]).path[
        : -len("index.html")
    ]


# ---------------------------------------------------------------------------- files


@pytest.mark.parametrize("page", PAGES)
def test_every_page_of_the_contents_is_built(page):
    assert (SITE / f"{page}.html").is_file()


@pytest.mark.parametrize("page", CODE_PAGES)
def test_a_code_page_can_be_opened_in_colab_and_binder_and_downloaded(page):
    targets = {
        kind: soup(SITE / f"{page}.html").select_one(f".chapter-buttons a.open-{kind}")["href"]
        for kind in ("colab", "binder", "notebook", "source")
    }
    colab = re.search(r"/blob/[^/]+/(.+)$", urlsplit(targets["colab"]).path)[1]
    binder = re.search(r"urlpath=lab/tree/(.+)$", targets["binder"])[1]
    assert unquote(colab) == unquote(binder) == f"notebooks/{page}.ipynb"
    assert (ROOT / f"notebooks/{page}.ipynb").is_file(), (
        "run `make notebooks` and commit the result"
    )
    download = (SITE / page).parent / targets["notebook"]
    assert download.read_bytes() == (ROOT / f"notebooks/{page}.ipynb").read_bytes()
    source = (SITE / page).parent / targets["source"]
    assert source.read_bytes() == (ROOT / f"book/{page}.md").read_bytes()


def test_no_internal_link_or_anchor_is_broken():
    broken = []
    for path in html_pages():
        for link in soup(path).select("a[href]"):
            address, anchor = urldefrag(link["href"])
            if urlsplit(address).scheme or address.startswith("//"):
                continue
            address = unquote(urlsplit(address).path)
            if address.startswith("/"):
                target = SITE / address.removeprefix(base_path())
            else:
                target = (path.parent / address).resolve() if address else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                broken.append(f"{path.relative_to(SITE)}: {link['href']} does not exist")
            elif anchor and target.suffix == ".html":
                page = soup(target)
                if not page.find(id=unquote(anchor)) and not page.find(attrs={"name": anchor}):
                    broken.append(f"{path.relative_to(SITE)}: {link['href']} has no such anchor")
    assert broken == []


def test_every_image_has_an_alternative_text():
    """MyST-NB puts the file's name where a cell gives no text: that is none."""
    missing = [
        f"{path.relative_to(SITE)}: {image['src']}"
        for path in html_pages()
        for image in soup(path).select("img")
        if not image.get("alt", "").strip() or re.search(r"\.(png|svg|jpe?g)$", image["alt"])
    ]
    assert missing == []


def test_no_directive_or_role_is_shown_as_text():
    raw = []
    for path in html_pages():
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for node in page.select("pre, code, script, style, .math"):
            node.decompose()
        text = page.get_text("\n")
        raw += [f"{path.relative_to(SITE)}: {match[0]}" for match in RAW.finditer(text)]
    assert raw == []


def test_nothing_that_a_page_needs_is_on_another_host():
    """Links and the site's own canonical address aside. Style sheets included."""
    loaded = "script[src], img[src], iframe[src], source[src], video[src], audio[src], object[data]"
    kinds = ("stylesheet", "icon", "preload", "prefetch", "preconnect", "manifest", "modulepreload")
    foreign = []
    for path in html_pages():
        addresses = [n.get("src") or n.get("data") for n in soup(path).select(loaded)]
        links = soup(path).select("link[href]")
        addresses += [n["href"] for n in links if set(n.get("rel", [])) & set(kinds)]
        foreign += [
            f"{path.relative_to(SITE)}: {address}"
            for address in addresses
            if re.match(r"(https?:)?//", address)
        ]
    for sheet in SITE.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        found = re.findall(r"(?:url\(|@import\s+)[\"']?(?:https?:)?//[^\"')]+", text)
        foreign += [f"{sheet.relative_to(SITE)}: {address}" for address in found]
    assert foreign == []


# ---------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def address(site):
    """The site served by this machine, under the path that it is published under."""
    prefix = base_path()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def translate_path(self, path):
            inside = unquote(urlsplit(path).path).removeprefix(prefix)
            return str(site / inside)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}{prefix}"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium():
    """One browser for the module. It can reach this machine only."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if name and (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium was found: `make browser` installs it on Debian and Ubuntu")
    arguments = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
    arguments += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


class Visit:
    """A tab that remembers errors and requests to other hosts."""

    def __init__(self, browser, address, **options):
        self.address, self.errors, self.foreign = address, [], []
        self.context = browser.new_context(**options)
        self.tab = self.new_tab()

    def new_tab(self):
        tab = self.context.new_page()
        tab.on("console", lambda m: m.type == "error" and self.errors.append(m.text))
        tab.on("pageerror", lambda error: self.errors.append(str(error)))
        tab.on("request", lambda request: self.note(request.url))
        return tab

    def note(self, url):
        if url.startswith("http") and not url.startswith(self.address):
            self.foreign.append(url)

    def open(self, page):
        self.tab.goto(f"{self.address}{page}.html", wait_until="load")
        return self.tab


@pytest.fixture
def visit(chromium, address):
    visits = []

    def start(**options):
        visits.append(Visit(chromium, address, **options))
        return visits[-1]

    yield start
    for each in visits:
        each.context.close()


def test_pages_load_without_an_error_or_a_request_to_another_host(visit):
    visitor = visit()
    for page in [*PAGES, "404", "search"]:
        visitor.open(page)
    assert visitor.errors == []
    assert visitor.foreign == []


def test_no_page_is_wider_than_a_phone(visit):
    phone = visit(viewport={"width": 390, "height": 844})
    width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    wide = {page: extra for page in PAGES if (extra := phone.open(page).evaluate(width)) > 0}
    assert wide == {}


def test_a_table_in_an_output_keeps_its_columns_on_a_phone(visit):
    phone = visit(viewport={"width": 390, "height": 844})
    script = """[...document.querySelectorAll('.cell_output pre')].map(pre => [
        pre.textContent, getComputedStyle(pre).whiteSpace,
        pre.scrollWidth > pre.clientWidth, pre.tabIndex])"""
    tables = 0
    for page in PAGES:
        for text, space, scrolls, focus in phone.open(page).evaluate(script):
            rows = [line for line in text.split("\n") if re.search(r" {2,}\S", line.strip())]
            table = len(rows) > 2
            assert space == ("pre" if table else "pre-wrap"), f"{page}: {text[:200]}"
            assert not scrolls or focus == 0, f"{page}: the keyboard cannot scroll {text[:200]}"
            tables += table
    assert tables > 0


def test_mathematics_is_rendered_without_a_network(visit):
    if not (SITE / "_static" / "mathjax").is_dir():
        pytest.skip("built without npm: mathematics comes from a CDN")
    page = next(p for p in reversed(PAGES) if soup(SITE / f"{p}.html").select(".math"))
    written = len(soup(SITE / f"{page}.html").select(".math"))
    tab = visit().open(page)
    tab.wait_for_function("window.MathJax?.startup?.promise !== undefined")
    tab.evaluate("MathJax.startup.promise.then(() => true)")
    assert tab.locator("mjx-container").count() >= written
    assert tab.locator("mjx-merror").count() == 0


def test_tabs_switch_and_stay_switched_on_the_next_page(visit):
    pages = [p for p in PAGES if soup(SITE / f"{p}.html").select(".framework-tabs")]
    assert pages, "no page has framework tabs"
    visitor = visit()

    def shown(tab):
        """Frameworks whose panels are visible, over all complete pairs of tabs."""
        label = ".framework-tabs:has([data-sync-id=pytorch]):has([data-sync-id=tensorflow])"
        script = f"""[...document.querySelectorAll('{label} > label')]
            .filter(l => l.nextElementSibling.checkVisibility()).map(l => l.dataset.syncId)"""
        return set(tab.evaluate(script))

    tab = visitor.open(pages[0])
    assert shown(tab) == {"pytorch"}
    tab.locator(".framework-tabs > label[data-sync-id=tensorflow]").first.click()
    assert shown(tab) == {"tensorflow"}
    for page in pages:
        assert shown(visitor.open(page)) == {"tensorflow"}
    assert shown(visit().open(pages[0])) == {"pytorch"}, "another reader's choice is another one"


def test_search_finds_convolution(visit):
    tab = visit().open("search")
    tab.goto(tab.url + "?q=convolution")
    hit = tab.locator("#search-results a[href*='vision/convolution.html']").first
    hit.wait_for(timeout=10_000)
    assert "Convolution" in hit.inner_text()


def test_solutions_open_with_a_click(visit):
    page = next(p for p in PAGES if soup(SITE / f"{p}.html").select(".tag_solution"))
    solution = visit().open(page).locator(".tag_solution").first
    assert not solution.locator(".cell_input").is_visible()
    solution.locator("summary").click()
    assert solution.locator(".cell_input").is_visible()


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_axe_finds_no_violation_of_wcag_aa(visit, mode):
    if not AXE.is_file():
        pytest.skip("axe-core is not installed: run `npm ci`")
    visitor = visit(color_scheme=mode)
    found = []
    for page in [*PAGES, "404", "search"]:
        tab = visitor.open(page)
        assert tab.evaluate("document.documentElement.dataset.theme") == mode
        # Buttons fade into the theme's colours; axe must see where they end.
        tab.evaluate("Promise.allSettled(document.getAnimations().map(a => a.finished))")
        tab.add_script_tag(path=AXE)
        rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
        options = {"runOnly": rules, "resultTypes": ["violations"]}
        for violation in tab.evaluate("options => axe.run(document, options)", options)[
            "violations"
        ]:
            for node in violation["nodes"]:
                where = " ".join(map(str, node["target"]))
                known = any(violation["id"] == r and s in where for r, s, _ in THEME_DEFECTS)
                if not known:
                    found.append(f"{page}: {violation['id']} at {where}: {node['failureSummary']}")
    assert found == []
