// Sorting and filtering. The page is complete without this.

const tables = [...document.querySelectorAll("table")];

// A service stays together with its instances: bodies are sorted by their first row, and the rest of
// each body by the same column.
let sorted = new Map();

function key(row, column) {
  const cell = row?.cells[column];
  if (!cell) return "";
  return cell.dataset.order === undefined ? cell.textContent : Number(cell.dataset.order);
}

function compare(column, direction) {
  return (a, b) => {
    const [x, y] = [key(a, column), key(b, column)];
    const less = typeof x === "number" && typeof y === "number"
      ? x - y
      // What has no value is last, whatever the direction.
      : (x === "") - (y === "") ? direction * ((x === "") - (y === ""))
      : String(x).localeCompare(String(y), "en", { numeric: true });
    return direction * less;
  };
}

export function sort(table) {
  const order = sorted.get(table);
  if (!order) return;
  const by = compare(order.column, order.direction);
  const bodies = [...table.tBodies];
  for (const body of bodies) {
    const [head, ...rest] = body.rows;
    if (head) body.append(head, ...rest.sort(by));
  }
  bodies.sort((a, b) => by(a.rows[0], b.rows[0]));
  if (bodies.some((body, at) => table.tBodies[at] !== body)) table.append(...bodies);
}

export function sortAll() {
  tables.forEach(sort);
}

for (const table of tables) {
  [...table.tHead.rows[1].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const before = sorted.get(table);
      const first = column === 0 ? 1 : -1;
      const direction = before?.column === column ? -before.direction : first;
      sorted.set(table, { column, direction });
      for (const other of table.tHead.rows[1].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      sort(table);
    });
  });
}

const label = document.querySelector("#filter");
const input = label.querySelector("input");
label.hidden = false;
input.addEventListener("input", filter);

// A body is shown whole if its service is meant, else the instances that are.
export function filter() {
  const wanted = input.value.trim().toLowerCase();
  const meant = (row) => row.id.toLowerCase().includes(wanted) || row.cells[0].textContent.toLowerCase().includes(wanted)
    || [...row.cells].slice(1, 3).some((cell) => cell.textContent.toLowerCase().includes(wanted));
  for (const table of tables) {
    for (const body of table.tBodies) {
      const [head, ...rest] = body.rows;
      const whole = wanted === "" || head.cells[0].textContent.toLowerCase().includes(wanted);
      for (const row of rest) row.hidden = !(whole || meant(row));
      head.hidden = !(whole || meant(head) || rest.some((row) => !row.hidden));
    }
  }
}
