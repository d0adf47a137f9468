// The few things that HTML cannot do by itself. Forms and pages work without them.
"use strict";

// The menu on a narrow screen.
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-toggle]");
  if (!button) return;
  const isOpen = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!isOpen));
  document.getElementById(button.dataset.toggle).classList.toggle("open", !isOpen);
});

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
