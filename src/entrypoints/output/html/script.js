
"use strict";
const all = (query, root = document) => [...root.querySelectorAll(query)];
for (const found of all(".controls, .copy")) found.hidden = false;

// How old the page is: it may lie open, or be written no more.
const age = document.getElementById("age");
const written = Date.parse(document.getElementById("at").dateTime);
function showAge() {
  const minutes = Math.round((Date.now() - written) / 60000);
  if (!(minutes > 1)) return;
  const hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
  const text = days > 1 ? `${days} days` : hours > 1 ? `${hours} hours` : `${minutes} minutes`;
  const old = minutes > 60;
  age.className = old ? "old" : "";
  age.textContent = ` (written ${text} ago${old ? ": it may be out of date" : ""})`;
}
showAge();
setInterval(showAge, 60000);

for (const button of all(".copy")) {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

const tables = document.getElementById("tables");
if (tables) {
  const body = tables.tBodies[0], filter = document.getElementById("filter");
  const shown = document.getElementById("shown"), chips = all(".chip[data-state]");
  function choose() {
    const wanted = filter.value.trim().toLowerCase();
    const states = chips.filter((c) => c.getAttribute("aria-pressed") === "true").map((c) => c.dataset.state);
    let count = 0;
    for (const row of body.rows) {
      const named = (row.cells[0].textContent + "\n" + row.cells[1].textContent).toLowerCase().includes(wanted);
      row.hidden = !(named && (!states.length || states.includes(row.dataset.state)));
      if (!row.hidden) count += 1;
    }
    shown.textContent = count === body.rows.length ? `${count} ${count === 1 ? "table" : "tables"}` : `${count} of ${body.rows.length} tables`;
  }
  filter.addEventListener("input", choose);
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
      choose();
    });
  }
  const heads = all("th", tables.tHead);
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const numeric = head.dataset.kind === "number";
      const before = head.getAttribute("aria-sort");
      // Numbers: the largest first.
      const order = before ? (before === "ascending" ? "descending" : "ascending") : numeric ? "descending" : "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
      const compare = numeric ? (a, b) => Number(key(a)) - Number(key(b)) : (a, b) => key(a).localeCompare(key(b));
      const sign = order === "ascending" ? 1 : -1;
      body.append(...[...body.rows].sort((a, b) => sign * compare(a, b)));
    });
  });
}

// Charts: the value at the pointer, or at the arrow keys' place.
for (const chart of all("svg[data-values]")) {
  const values = JSON.parse(chart.dataset.values);
  const cursor = chart.querySelector(".cursor");
  const readout = chart.closest("figure").querySelector(".readout");
  let place = values.length - 1;
  function show() {
    const x = ((place + 0.5) / values.length) * 1000;
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.style.visibility = "visible";
    readout.textContent = `${values[place][0]}: ${values[place][1]}`;
  }
  function leave() {
    cursor.style.visibility = "hidden";
    readout.textContent = readout.dataset.summary;
  }
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    place = Math.max(0, Math.min(values.length - 1, Math.floor(share * values.length)));
    show();
  });
  chart.addEventListener("pointerleave", leave);
  chart.addEventListener("blur", leave);
  chart.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) place = Math.max(0, Math.min(values.length - 1, place + step));
    else if (event.key === "Home") place = 0;
    else if (event.key === "End") place = values.length - 1;
    else return;
    event.preventDefault();
    show();
  });
}
