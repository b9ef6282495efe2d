// A table that is sorted by clicking its heads.

import { h } from "./dom.js";

function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return 1;
  if (b === null || b === undefined) return -1;
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

/**
 * `columns`: `{ name, title, numeric, value(row), cell(row) }`. The order that a person chose outlives new rows.
 */
export class Table {
  constructor(columns, { caption, rowClass } = {}) {
    this.columns = columns;
    this.rowClass = rowClass;
    this.rows = [];
    this.by = null;
    this.up = true;
    this.body = h("tbody");
    this.heads = columns.map((column) =>
      h("th", { class: column.numeric ? "n" : null, scope: "col", title: column.title },
        h("button", { type: "button", onclick: () => this.sort(column) }, column.name)));
    this.element = h("div", { class: "scroll" },
      h("table", { class: "data", "aria-label": caption }, h("thead", {}, h("tr", {}, this.heads)), this.body));
  }

  sort(column) {
    this.up = this.by === column ? !this.up : true;
    this.by = column;
    this.columns.forEach((c, i) => {
      const sorted = c === column;
      this.heads[i].setAttribute("aria-sort", sorted ? (this.up ? "ascending" : "descending") : "none");
      this.heads[i].firstChild.textContent = sorted ? `${c.name} ${this.up ? "↑" : "↓"}` : c.name;
    });
    this.draw();
  }

  set(rows) {
    this.rows = rows;
    this.draw();
  }

  draw() {
    const rows = [...this.rows];
    if (this.by) {
      const { value } = this.by;
      const missing = (row) => value(row) === null || value(row) === undefined;
      rows.sort((a, b) => {
        const order = compare(value(a), value(b));
        return this.up || missing(a) || missing(b) ? order : -order;
      });
    }
    this.body.replaceChildren(...rows.map((row) => h("tr", { class: this.rowClass?.(row) }, this.columns.map((column) =>
      h("td", { class: column.numeric ? "n" : column.class }, column.cell ? column.cell(row) : String(column.value(row) ?? "–"))))));
  }
}
