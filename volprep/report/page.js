"use strict";
// Tables that can be sorted and filtered, labels that can be hidden, pictures that can be enlarged.
const value = (row, column) => {
  const cell = row.cells[column];
  const number = cell.dataset.v === undefined ? NaN : Number(cell.dataset.v);
  return Number.isNaN(number) ? cell.textContent.trim() : number;
};
const compare = (a, b) => {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1; // what has no number comes last
  return a.localeCompare(b, "en", { numeric: true });
};
for (const table of document.querySelectorAll("table[data-sort]")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const tools = document.getElementById(table.dataset.tools);
  const listed = [...body.rows];
  const show = (rows, column, way) => {
    body.append(...rows);
    heads.forEach((head, n) => {
      if (head.hasAttribute("aria-sort")) head.setAttribute("aria-sort", n === column ? way : "none");
    });
  };
  const sortBy = (column, down) => {
    const rows = [...body.rows];
    rows.sort((a, b) => (down ? -1 : 1) * compare(value(a, column), value(b, column)));
    show(rows, column, down ? "descending" : "ascending");
  };
  heads.forEach((head, column) => {
    head.querySelector("button")?.addEventListener("click", () =>
      sortBy(column, head.getAttribute("aria-sort") === "ascending"));
  });
  if (!tools) continue;
  tools.hidden = false;
  const [words, order, sides] = ["[type=search]", ".order", ".sides"].map((s) => tools.querySelector(s));
  const count = tools.querySelector("output");
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      const fits = wanted.every((word) => text.includes(word)) &&
        (!sides || !sides.value || row.dataset.side === sides.value);
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${body.rows.length} shown`;
  };
  words.addEventListener("input", filter);
  sides?.addEventListener("change", filter);
  order.addEventListener("change", () => {
    if (!order.value) return show(listed, -1);
    const [column, down] = order.value.split(" ");
    sortBy(Number(column), down === "down");
  });
  filter();
}
document.getElementById("outlines")?.addEventListener("change", (event) =>
  document.body.classList.toggle("bare", !event.target.checked));
const large = document.querySelector("dialog");
document.addEventListener("click", (event) => {
  const picture = event.target.closest("button.pic");
  if (!large || !picture) return;
  if (large.open) return large.close();
  const copy = picture.cloneNode(true);
  const first = copy.querySelector("img");
  copy.style.setProperty("--ratio", first.getAttribute("width") / first.getAttribute("height"));
  copy.setAttribute("aria-label", "Close");
  const words = document.createElement("p");
  words.textContent = first.alt;
  large.replaceChildren(copy, words);
  large.showModal();
});
large?.addEventListener("click", (event) => { if (event.target === large) large.close(); });
// A set may be moved, and its page with it: where they lie is known here alone.
const folder = location.protocol === "file:" &&
  /^(.*)\/report\.html$/.exec(decodeURIComponent(location.pathname));
for (const name of folder ? document.querySelectorAll("var") : []) {
  if (name.textContent !== "PATCHES") continue;
  const path = folder[1].replace(/^\/(?=[A-Za-z]:)/, "");
  const plain = name.className === "raw" || /^[\w@%+=:,.\/-]+$/.test(path);
  name.replaceWith(plain ? path : `'${path.replaceAll("'", "'\"'\"'")}'`);
}
for (const note of folder ? document.querySelectorAll(".stands") : [])
  if (note.textContent.startsWith("PATCHES")) note.remove();
// Paper cannot be opened: notes are, the long lists stay closed.
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("#findings details")) fold.open = true;
});
