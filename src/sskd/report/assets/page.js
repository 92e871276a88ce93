/* Tables that sort, a filter for long ones, copying of commands; then the plots. */

function key(cell) {
  const text = (cell.dataset.v ?? cell.textContent).trim().replace("−", "-").replaceAll(",", "");
  const number = parseFloat(text);
  return text === "" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
}

function sort(table, column, down) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row, i) => [key(row.cells[column]), i, row]);
  rows.sort(([a, i], [b, j]) => {
    if (a === null || b === null) return (a === null) - (b === null) || i - j; // nothing comes last either way
    const order = typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
    return (down ? -order : order) || i - j;
  });
  body.append(...rows.map((one) => one[2]));
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    if (i === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = html("button", { type: "button" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const down = before ? before === "ascending" : head.classList.contains("number");
      sort(table, column, down);
      if (table.id) keep(`sort/${table.id}`, `${column} ${down}`);
    });
  });
  const [column, down] = (kept(`sort/${table.id}`) || "").split(" ");
  if (table.id && column) sort(table, Number(column), down === "true");
}

/* Where a table is wider than the page, a line says so, and its end fades until it has been scrolled to. */
for (const box of document.querySelectorAll(".wide")) {
  const hint = html("p", { class: "scrolls", hidden: "" }, null, "↔ This table goes on to the right: scroll it.");
  box.before(hint);
  const look = () => {
    hint.hidden = box.scrollWidth <= box.clientWidth + 1;
    box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
  };
  box.addEventListener("scroll", look);
  new ResizeObserver(look).observe(box);
}

for (const field of document.querySelectorAll("input[data-filters]")) {
  const table = document.getElementById(field.dataset.filters);
  field.closest("label").hidden = false;
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const row of table.tBodies[0].rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
  });
}

for (const block of document.querySelectorAll("pre.command")) {
  if (!navigator.clipboard) break;
  const button = html("button", { type: "button", class: "quiet copy" }, null, "Copy");
  block.before(button);
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(block.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

const data = JSON.parse(document.getElementById("plots").textContent);
const PAPER = 660; // pixels across a printed page
const figures = data.map((plot) => {
  const host = document.getElementById(plot.id);
  host.replaceChildren();
  return new Figure(plot, host);
});
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details:not(.long)")) details.open = true;
  for (const figure of figures) figure.redraw(figure.host.closest(".pair") ? PAPER / 2 : PAPER);
});
window.addEventListener("afterprint", () => {
  for (const figure of figures) figure.redraw();
});
