"""The report in headless Chromium: it loads in silence, tables sort, plots answer to mouse and keyboard."""

import base64
import io
import json
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sskd.report.found import find
from sskd.report.page import as_html, gather
from tests.reports import STUDENT, TEACHER, config, records, write_analyses, write_grid, write_run, write_study

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1200,900"),
)

SETTLED = "return new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)))"  # after a change of size


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report that has everything."""
    top = tmp_path_factory.mktemp("browser")
    write_grid(top / "bench", seeds=2, epochs=30)
    write_study(top / "bench")
    write_analyses(top / "bench" / "cells" / f"{TEACHER}--{STUDENT}-0" / "sskd-seed0")
    write_run(top / "half", config("kd", 7, 9), records("kd", 7, 4), finished=False)
    page = gather(find([str(top)]), "A <title> & more", "now", "sskd report", "0")
    (top / "report.html").write_text(as_html(page))
    return (top / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser(report: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium at the report, with its log kept."""
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for word in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(word)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    driver.get(report)
    yield driver
    driver.quit()


def run(browser: Any, code: str) -> Any:
    return browser.execute_script(code)


def plot(browser: Any, title: str) -> Any:
    """The drawing of a plot, in sight."""
    found = browser.find_element("xpath", f"//figure[h3='{title}']//*[local-name()='svg' and @role='img']")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found)
    return found


def ticks(drawing: Any) -> list[str]:
    return [one.text for one in drawing.find_elements("css selector", ".axes text")]


def test_it_loads_in_silence(browser: Any, report: str) -> None:
    assert browser.title == "A <title> & more"
    assert [line for line in browser.get_log("browser") if line["level"] != "DEBUG"] == []
    messages = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    asked = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    asked = [one["request"]["url"] for one in asked if one["documentURL"] == report]  # not Chromium's own first page
    assert report in asked and all(url == report or url.startswith("data:") for url in asked)


def test_the_picture_is_not_blank(browser: Any) -> None:
    shades = {}
    for theme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": theme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(browser.get_screenshot_as_base64()))).convert("L"))
        assert pixels.std() > 8 and len(np.unique(pixels)) > 50
        shades[theme] = np.median(pixels)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert shades["light"] > 200 > 60 > shades["dark"]
    for drawing in browser.find_elements("css selector", ".frame svg"):
        assert drawing.find_elements("css selector", ".series *"), "an empty plot"


def test_tables_sort(browser: Any) -> None:
    table = browser.find_element("css selector", "[id^=part] table.sortable")
    heads = table.find_elements("css selector", "thead th")
    column = next(i for i, head in enumerate(heads) if head.text.startswith("last epoch"))

    def values() -> list[float]:
        rows = table.find_elements("css selector", "tbody tr")
        return [float(row.find_elements("css selector", "th, td")[column].text.split()[0]) for row in rows]

    button = heads[column].find_element("css selector", "button")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
    for order, down in (("descending", True), ("ascending", False)):
        button.click()
        assert heads[column].get_attribute("aria-sort") == order
        assert values() == sorted(values(), reverse=down) and len(values()) == 5


def test_plots_answer(browser: Any) -> None:
    from selenium.webdriver import ActionChains, Keys

    drawing = plot(browser, "Curves")
    tip = drawing.find_element("xpath", "../div[contains(@class, 'tip')]")
    mark = drawing.find_elements("css selector", ".series .mark")[3]
    ActionChains(browser, duration=0).move_to_element(mark).perform()
    assert tip.is_displayed() and "test top-1 %:" in tip.text and "seed" in tip.text
    before = ticks(drawing)
    dragged = ActionChains(browser, duration=50).move_to_element_with_offset(drawing, -150, -80).click_and_hold()
    dragged.move_by_offset(200, 120).release().perform()
    assert ticks(drawing) != before, "zoomed"
    ActionChains(browser, duration=0).move_to_element(drawing).double_click().perform()
    assert ticks(drawing) == before, "and back"
    drawing.send_keys("+")
    assert ticks(drawing) != before
    drawing.send_keys("0", Keys.ARROW_RIGHT)
    said = drawing.find_element("xpath", "../../p[@aria-live]").get_attribute("textContent")
    assert ticks(drawing) == before and "epoch: 1" in said


def test_menus_and_legend(browser: Any) -> None:
    from selenium.webdriver.support.select import Select

    drawing = plot(browser, "Curves")
    menu = Select(drawing.find_element("xpath", "../../div[@class='plot-bar']/label[2]/select"))
    assert {"loss / total", "loss / ce", "train / top1", "lr"} <= {option.text for option in menu.options}
    menu.select_by_visible_text("loss / ce")
    assert "loss, ce" in ticks(drawing)
    lines = len(drawing.find_elements("css selector", ".series .line"))
    button = drawing.find_element("xpath", "../../div[@class='legend']/button[1]")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert len(drawing.find_elements("css selector", ".series .line")) < lines


def test_people_who_do_not_see_it_or_use_no_mouse(browser: Any) -> None:
    assert run(browser, "return document.documentElement.lang") == "en"
    assert run(browser, "return [...document.querySelectorAll('table')].filter(t => !t.caption).length") == 0
    assert run(browser, "return [...document.images].filter(i => !i.alt).length") == 0
    nameless = "b => !b.textContent.trim() && !b.getAttribute('aria-label')"
    assert run(browser, f"return [...document.querySelectorAll('button')].filter({nameless}).length") == 0
    ids = run(browser, "return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert run(browser, "return [...document.querySelectorAll('a')].every(a => document.querySelector(a.hash))")
    assert run(browser, "return document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_it_prints(browser: Any) -> None:
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert pdf.startswith(b"%PDF") and len(pdf) > 50_000


@pytest.fixture(scope="module")
def wide(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a report with twelve stages of the teacher and a name that is long."""
    top = tmp_path_factory.mktemp("wide")
    write_grid(top, ("ce", "kd", "a-method-of-my-own-with-" + "long-" * 12 + "name"), seeds=1)
    run = top / "cells" / f"{TEACHER}--{STUDENT}-0" / "kd-seed0"
    write_analyses(run)
    path = run / "analyses" / "similarity.json"
    values = json.loads(path.read_text())
    values["stages"]["teacher"] = [f"stage{i}.pre" for i in range(12)]
    values["cka"] = [[0.5] * 12 for _ in values["cka"]]
    path.write_text(json.dumps(values))
    (top / "report.html").write_text(as_html(gather(find([str(top)]), "", "now", "sskd report", "0")))
    yield (top / "report.html").as_uri()
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_columns_fit_or_are_seen_to_go_on(browser: Any, wide: str) -> None:
    overflowing = """return [...document.querySelectorAll('.wide')].filter((box) => box.checkVisibility()).map(
        (box) => [box.scrollWidth > box.clientWidth + 1, !box.previousElementSibling.hidden, box.className])"""
    for width in (1280, 500):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(wide)
        run(browser, SETTLED)
        found = run(browser, overflowing)
        assert all(over == told == ("more" in name) for over, told, name in found), "a line says so, and the end fades"
        assert any(over for over, *_ in found) == (width == 500)
        assert run(browser, "return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    numbers = "[...document.querySelectorAll('[id^=part] td.main')].map((cell) => cell.getBoundingClientRect().left)"
    assert all(left < 400 for left in run(browser, f"return {numbers}")), "a long name leaves the numbers on the page"
    moved = """const box = document.querySelector('.wide.more'); box.scrollLeft = 9999; return box"""
    box = run(browser, moved)
    run(browser, SETTLED)
    assert "more" not in box.get_attribute("class"), "its end is in sight"


def test_a_method_has_one_colour_in_all_plots(browser: Any, wide: str) -> None:
    browser.get(wide)
    code = """const found = {}; for (const button of document.querySelectorAll('[id^=part] .legend button')) {
        const name = button.textContent;
        const kind = button.querySelector('svg').getAttribute('class').match(/s\\d/)?.[0] ?? 'plain';
        (found[name] ??= []).includes(kind) || found[name].push(kind); } return found"""
    colours = run(browser, code)
    assert colours["ce"] == ["s0"] and colours["kd"] == ["s1"] and all(len(one) == 1 for one in colours.values())
