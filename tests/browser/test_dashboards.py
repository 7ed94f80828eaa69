"""What the user sees in TensorBoard and in report.html."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from neuralode_exp.report.report import html, make_report
from tests.browser.conftest import GRID, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
SCREENSHOTS = os.environ.get("SCREENSHOTS")  # a folder to keep them in

# TensorBoard is made of nested components; this finds elements in all of them: text, left and middle in pixels.
FIND = """
const found = [];
const visit = (node) => {
  if (node.shadowRoot) visit(node.shadowRoot);
  for (const child of node.children) visit(child);
  if (!node.matches || !node.matches(arguments[0])) return;
  const box = node.getBoundingClientRect();
  if (box.width) found.push([node.innerText.trim(), Math.round(box.left), Math.round(box.top + box.height / 2)]);
  if (arguments[1] && !node.checked) node.click();
};
visit(document.body);
return found;
"""


def find(browser: Any, selector: str, *, check: bool = False) -> list[tuple[str, int, int]]:
    """Visible elements of a CSS selector: text, left, middle; with `check`, boxes are ticked."""
    return [tuple(element) for element in browser.execute_script(FIND, selector, check)]


def texts(browser: Any, selector: str) -> set[str]:
    return {text for text, _, _ in find(browser, selector) if text}


def headings(browser: Any) -> set[str]:
    """Of the foldable sections, without the number of charts beside them."""
    return {text.split("\n")[0] for text in texts(browser, ".heading")}


def table(browser: Any) -> list[dict[str, str]]:
    """The HParams table as it is drawn: for each row, heading -> text."""
    cells = [cell for cell in find(browser, "vaadin-grid-cell-content") if cell[0]]
    heads = {left: text for text, left, top in cells if top == min(top for _, _, top in cells)}
    rows: dict[int, dict[str, str]] = {}
    for text, left, top in cells:
        if left in heads and text != heads[left]:
            rows.setdefault(top, {})[heads[left]] = text
    return [row for row in rows.values() if "Trial ID" in row]


def keep(browser: Any, name: str) -> None:
    if SCREENSHOTS:
        browser.save_screenshot(str(Path(SCREENSHOTS) / f"{name}.png"))


def test_hparams_has_a_row_a_run_and_the_columns_of_all_models(browser: Any, tensorboard: str) -> None:
    browser.get(f"{tensorboard}/#hparams")
    wait_for(lambda: len(table(browser)) == len(GRID), "a row a run")
    keep(browser, "hparams")
    find(browser, ".hparam-checkbox, .metric-checkbox", check=True)
    wait_for(lambda: any("time/step_ms" in row for row in table(browser)), "all columns")
    keep(browser, "hparams-all")
    rows = {row["Trial ID"].rpartition("/")[2]: row for row in table(browser)}
    assert rows.keys() == GRID.keys()
    for name, row in rows.items():
        assert row["model.name"] == (name if name not in ("flow", "failed") else "odenet")
        assert {"seed", "model.channels", "solver.name", "trainer.lr", "dataset.kind"} <= row.keys()
        assert row["final/completed"] == ("0.0000" if name == "failed" else "1.0000")
        if name not in ("failed", "flow"):
            assert {"final/error/test", "final/nfe/forward", "final/memory/saved_mib", "dataset.shift"} <= row.keys()
    assert {"final/density/nll", "final/density/kl", "dataset.noise"} <= rows["flow"].keys()
    assert "final/error/test" not in rows["flow"].keys() | rows["failed"].keys()
    assert rows["resnet"]["final/nfe/backward"] == "6.0000"


def test_scalars_are_grouped_and_charted_together(browser: Any, tensorboard: str) -> None:
    browser.get(f"{tensorboard}/#custom_scalars")
    wait_for(lambda: {"loss and error", "function evaluations", "memory", "solver"} <= headings(browser), "charts")
    keep(browser, "custom-scalars")
    browser.get(f"{tensorboard}/#timeseries")
    groups = {"loss", "error", "density", "nfe", "memory", "solver", "time", "final"}
    wait_for(lambda: groups <= texts(browser, "[class*=group]"), "groups")
    keep(browser, "time-series")


def test_images_are_shown(browser: Any, tensorboard: str) -> None:
    browser.get(f"{tensorboard}/#images")
    wait_for(lambda: {"density", "flow"} <= headings(browser), "images")
    keep(browser, "images")


def test_report_sorts_hides_and_asks_the_network_for_nothing(browser: Any, grid: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(html(make_report([grid])), encoding="utf-8")
    browser.get(page.as_uri())
    keep(browser, "report")
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    column = (
        "[...document.querySelector('table').tBodies[0].rows].map((row) => Number(row.cells[arguments[0]].dataset.n))"
    )
    heads = browser.execute_script("return [...document.querySelector('tr').cells].map((cell) => cell.innerText)")
    place = next(i for i, head in enumerate(heads) if head.startswith("parameters"))
    for order in (sorted, lambda values: sorted(values, reverse=True)):
        browser.execute_script("document.querySelectorAll('th button')[arguments[0]].click()", place)
        values = [value for value in browser.execute_script(f"return {column}", place) if value == value and value]
        assert values == order(values)
        assert len(values) == len(GRID) - 1
    drawn = "return getComputedStyle(document.querySelector('.charts .g0')).display"
    assert browser.execute_script(drawn) == "inline"
    browser.execute_script("document.querySelector('.legend input').click()")
    assert browser.execute_script(drawn) == "none"
    sizes = browser.execute_script("return [...document.images].map((image) => image.naturalWidth)")
    assert sizes
    assert all(sizes)
