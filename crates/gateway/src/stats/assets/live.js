// Keeps the page fresh: one event per second tells the cells that have changed.

import { filter, sortAll } from "/stats/still.js";

// What grows by itself is no news: 4s, 1m05s.
const AGE = /^\d+[smhd](\d\d[smh])?$/;

const state = document.querySelector("#state");
const own = [...document.querySelectorAll("#own dd")];

// The server's own view (`;up`) is a part of the path.
const events = new EventSource(location.pathname.replace("/stats", "/stats/events"));

events.addEventListener("open", () => say("live", "live"));
events.addEventListener("error", () => say("lost", "no connection; trying again"));
events.addEventListener("message", (message) => {
  const { own: values, order, rows } = JSON.parse(message.data);
  values.forEach((value, at) => put(own[at], value));
  for (const row of rows) update(row);
  if (order) arrange(order);
  if (rows.length > 0 || order) {
    sortAll();
    filter();
  }
  say("live", "live");
});

function say(name, text) {
  if (state.className !== name) {
    state.className = name;
    state.textContent = text;
  }
}

function put(cell, text) {
  if (cell && cell.textContent !== text) {
    cell.textContent = text;
    return true;
  }
  return false;
}

function update({ id, class: name, cells }) {
  const row = document.getElementById(id) ?? make(id, name, cells.length);
  row.className = name;
  cells.forEach(([text, order], at) => {
    const cell = row.cells[at];
    if (order === null) delete cell.dataset.order;
    else cell.dataset.order = order;
    if (put(cell, text) && order !== null && !AGE.test(text)) {
      cell.classList.add("fresh");
      requestAnimationFrame(() => requestAnimationFrame(() => cell.classList.remove("fresh")));
    }
  });
}

function make(id, name, columns) {
  const table = document.querySelector(name.startsWith("frontend") ? "#frontends" : "#services");
  const heads = table.tHead.rows[1].cells;
  const row = document.createElement("tr");
  row.id = id;
  for (let at = 0; at < columns; at++) {
    const cell = document.createElement(at === 0 ? "th" : "td");
    if (heads[at].classList.contains("first")) cell.className = "first";
    row.append(cell);
  }
  const body = name.startsWith("server") && document.getElementById(id.slice(0, id.indexOf("/")) + "/BACKEND")?.parentElement;
  if (body) {
    body.append(row);
  } else {
    const fresh = document.createElement("tbody");
    fresh.append(row);
    table.querySelector("tbody.none")?.remove();
    table.append(fresh);
  }
  return row;
}

// All rows that there are: others have left.
function arrange(order) {
  const there = new Set(order);
  for (const row of document.querySelectorAll("tbody tr[id]")) {
    if (!there.has(row.id)) {
      const body = row.parentElement;
      row.remove();
      if (body.rows.length === 0) body.remove();
    }
  }
}
