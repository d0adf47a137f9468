// The few things that HTML cannot do by itself. Forms and pages work without them.
"use strict";

// On a narrow screen a table's row is a card, and each value needs its column's name beside it.
const nameCells = (part) => {
  for (const table of part.querySelectorAll(".table > table")) {
    const names = [...table.querySelectorAll("thead th")].map((cell) => cell.textContent);
    if (names.length > 10) continue;  // a file's first rows: they are read across
    table.classList.add("named");
    for (const cell of table.querySelectorAll("tbody tr > *")) {
      const name = cell.colSpan === 1 ? names[cell.cellIndex] : "";
      if (name) cell.dataset.label = name;
    }
  }
};
nameCells(document);

// A form is sent once.
document.addEventListener("submit", (event) => {
  for (const button of event.target.querySelectorAll("button[type=submit]")) {
    setTimeout(() => { button.disabled = !event.defaultPrevented; }, 0);
  }
});
window.addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("button[disabled][type=submit]")) button.disabled = false;
});

// A live part that could not be refreshed says so instead of looking current.
document.addEventListener("htmx:sendError", (event) => event.target.classList.add("stale"));
document.addEventListener("htmx:afterSwap", (event) => {
  event.target.classList.remove("stale");
  nameCells(event.target);
});

// What somebody unfolded in a live part stays unfolded when the part is refreshed.
let unfolded = [];
document.addEventListener("htmx:beforeSwap", (event) => {
  unfolded = [...event.target.querySelectorAll("details[id][open]")].map((part) => part.id);
});
document.addEventListener("htmx:afterSwap", () => {
  for (const id of unfolded) document.getElementById(id)?.setAttribute("open", "");
  unfolded = [];
});
