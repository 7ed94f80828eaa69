// A click on a heading sorts its table by that column, a second one the other way round; empty cells stay last.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = head.closest("table").tBodies[0];
    const compare = (a, b) => {
      const [x, y] = [a.cells[column], b.cells[column]];
      if (!x.textContent || !y.textContent) return !x.textContent - !y.textContent;
      const isNumber = x.dataset.n !== undefined && y.dataset.n !== undefined;
      const order = isNumber ? x.dataset.n - y.dataset.n : x.textContent.localeCompare(y.textContent);
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort(compare));
  });
}

// A box of the legend shows or hides its group in all charts of the section.
for (const box of document.querySelectorAll(".legend input")) {
  box.addEventListener("change", () => {
    for (const drawn of box.closest("section").querySelectorAll(`.charts .g${box.dataset.g}`)) {
      drawn.style.display = box.checked ? "inline" : "none";
    }
  });
}
