// The matrix: what a setting does to an indicator.

import { latest } from "./api.js";
import { seriesColour } from "./canvas.js";
import { Chart } from "./chart.js";
import { choice, h, pairs, switcher, Tip } from "./dom.js";
import { level, levels, number, plural, quantity } from "./format.js";
import { keep, runAddress } from "./state.js";
import { Table } from "./table.js";

const BETTER = { lower: "lower is better", higher: "higher is better", neutral: "" };
const NONE = "-";

const isNumeric = (factor) => factor.levels.every((l) => typeof l === "number");
const title = (factor) => `${factor.name}${factor.unit && factor.unit !== factor.name ? ` [${factor.unit}]` : ""}`;

/** Which factor goes where when nobody has chosen: numbers with most levels along x, then colour, then facets. */
function roles(study, query) {
  const names = study.factors.map((f) => f.name);
  const free = [...study.factors].sort((a, b) => isNumeric(b) - isNumeric(a) || b.levels.length - a.levels.length).map((f) => f.name);
  const taken = new Set();
  const pick = (key, optional) => {
    const asked = query.get(key);
    const wanted = asked === NONE && optional ? NONE : names.includes(asked) && !taken.has(asked) ? asked : free.find((n) => !taken.has(n) && ![...["x", "colour", "facet"]].some((k) => k !== key && query.get(k) === n));
    if (wanted && wanted !== NONE) taken.add(wanted);
    return wanted ?? NONE;
  };
  return { x: pick("x", false), colour: pick("colour", true), facet: pick("facet", true) };
}

export function matrixView(root, study, query) {
  return new MatrixView(root, study, query);
}

class MatrixView {
  constructor(root, study, query) {
    this.study = study;
    const asked = query.get("y");
    const responses = study.responses;
    this.y = responses.some((r) => r.name === asked) ? asked : responses[0]?.name;
    this.roles = roles(study, query);
    this.lines = query.get("marks") === "lines";
    this.fromZero = query.get("zero") !== "0";
    this.fixed = Object.fromEntries(study.factors.map((f) => [f.name, f.levels.findIndex((l) => String(l) === query.get(`at.${f.name}`))]));
    this.point = query.get("point") === null ? null : Number(query.get("point"));
    this.get = latest();
    this.getRuns = latest();
    this.tip = new Tip();
    this.controls = h("div", { class: "bar" });
    this.heading = h("div", { class: "head" });
    this.legend = h("div", { class: "legend" });
    const plot = h("div", { class: "plot", id: "matrix-plot" });
    this.cellsTable = h("div");
    this.runsCard = h("section", { class: "card", id: "runs", "aria-label": "Runs" });
    this.status = h("p", { class: "error", role: "alert", hidden: true });
    root.append(this.controls, this.status,
      h("section", { class: "card", "aria-label": "Plot" }, this.heading, plot, this.legend),
      h("section", { class: "card", "aria-label": "The same numbers" }, this.cellsTable),
      this.runsCard, this.about());
    this.chart = new Chart(plot, {
      hover: (mark, run, x, y) => (mark ? this.note(mark, run, x, y) : this.tip.hide()),
      open: (mark, run) => this.open(mark.cell, run),
    });
    if (!this.y) {
      this.fail(new Error("the study asks for no indicators"));
      return;
    }
    this.drawControls();
    this.load();
  }

  factor(name) {
    return this.study.factors.find((f) => f.name === name);
  }

  fail(error) {
    this.status.hidden = false;
    this.status.textContent = error.message;
  }

  drawControls() {
    const { study } = this;
    const byName = study.factors.map((f) => [f.name, title(f)]);
    const role = (key, value) => {
      const other = Object.entries(this.roles).find(([k, v]) => k !== key && v === value && v !== NONE);
      if (other) this.roles[other[0]] = this.roles[key];
      this.roles[key] = value;
      keep(this.roles);
      this.drawControls();
      this.draw();
    };
    const rest = study.factors.filter((f) => !Object.values(this.roles).includes(f.name));
    const focused = document.activeElement?.id;
    this.controls.replaceChildren(
      choice("Indicator", "pick-y", study.responses.map((r) => [r.name, `${r.label}${r.unit ? ` [${r.unit}]` : ""}`]), this.y, (y) => {
        this.y = y;
        keep({ y });
        this.load();
      }),
      ...(byName.length ? [choice("Along x", "pick-x", byName, this.roles.x, (v) => role("x", v))] : []),
      ...(byName.length > 1 ? [choice("Colour", "pick-colour", [...byName, [NONE, "none"]], this.roles.colour, (v) => role("colour", v))] : []),
      ...(byName.length > 1 ? [choice("Small multiples", "pick-facet", [...byName, [NONE, "none"]], this.roles.facet, (v) => role("facet", v))] : []),
      ...rest.map((f) => choice(title(f), `pick-at-${f.name}`, f.levels.map((l, i) => [i, String(l)]), Math.max(0, this.fixed[f.name]), (i) => {
        this.fixed[f.name] = Number(i);
        keep({ [`at.${f.name}`]: String(f.levels[i]) });
        this.draw();
      })),
      switcher("Marks", [["bars", "Bars"], ["lines", "Lines"]], this.lines ? "lines" : "bars", (v) => {
        this.lines = v === "lines";
        keep({ marks: this.lines ? "lines" : null });
        this.drawControls();
        this.draw();
      }),
      ...(this.lines ? [switcher("Axis", [["1", "From zero"], ["0", "Fit"]], this.fromZero ? "1" : "0", (v) => {
        this.fromZero = v === "1";
        keep({ zero: this.fromZero ? null : "0" });
        this.drawControls();
        this.draw();
      })] : []));
    if (focused) document.getElementById(focused)?.focus();
  }

  async load() {
    try {
      const [matrix, runs] = await Promise.all([this.get("/matrix", { response: this.y }), this.getRuns("/runs")]);
      if (!matrix || !runs) return;
      this.status.hidden = true;
      this.matrix = matrix;
      this.runs = runs;
      this.draw();
      this.drawCells();
      this.drawRuns();
    } catch (error) {
      this.fail(error);
    }
  }

  async refresh(study, changed) {
    this.study = study;
    if (changed) await this.load();
  }

  model() {
    const { response, cells } = this.matrix;
    const [x, series, facet] = [this.factor(this.roles.x), this.factor(this.roles.colour), this.factor(this.roles.facet)];
    const rest = this.study.factors.filter((f) => ![x, series, facet].includes(f));
    const shown = cells.filter((c) => rest.every((f) => c.levels[f.name] === f.levels[Math.max(0, this.fixed[f.name])]));
    const index = (factor, cell) => (factor ? factor.levels.indexOf(cell.levels[factor.name]) : 0);
    const marks = shown.map((cell) => ({ cell, x: index(x, cell), series: index(series, cell), facet: index(facet, cell) }));
    return {
      facets: (facet?.levels ?? [null]).map((l, i) => ({
        title: facet ? (facet.unit === facet.name ? level(l, facet.unit) : `${facet.name} ${level(l, facet.unit)}`) : "",
        marks: marks.filter((m) => m.facet === i),
      })),
      xs: x ? x.levels.map(String) : ["all runs"],
      xNumbers: x && isNumeric(x) ? x.levels : null,
      series: series ? series.levels.map((l) => level(l, series.unit)) : [""],
      xTitle: x ? title(x) : "",
      yTitle: `${response.label}${response.unit ? ` [${response.unit}]` : ""}`,
      lines: this.lines,
      fromZero: this.fromZero,
    };
  }

  draw() {
    if (!this.matrix) return;
    const { response } = this.matrix;
    const model = this.model();
    const series = this.factor(this.roles.colour);
    const value = (v) => quantity(v, response.unit);
    this.heading.replaceChildren(h("h1", {}, response.label), h("span", { class: "quiet" },
      [response.unit ? `in ${response.unit}` : null, BETTER[response.better]].filter(Boolean).join(", ")),
    ...(this.matrix.clocks === null ? [] : [h("span", { class: "quiet", title: "Begins on one clock and ends on another: every value is true within this, in the worst run" }, `clocks ± ${value(this.matrix.clocks)}`)]),
    ...(this.matrix.relative ? [h("span", { class: "quiet", title: "The clocks were found from the frames themselves: the way of the quickest frame counts as no time" }, "relative to the quickest frame")] : []),
    h("span", { class: "quiet small end" }, response.description));
    const flagged = model.facets.some((f) => f.marks.some((m) => m.cell.values.some((v) => v.flags.length)));
    const failed = model.facets.some((f) => f.marks.some((m) => m.cell.without.length));
    this.legend.replaceChildren(
      ...(series ? [h("span", { class: "quiet" }, series.name), ...model.series.map((text, i) => h("span", { class: "key" }, h("i", { colour: seriesColour(i) }), text))] : []),
      h("span", { class: "quiet small" }, `${this.lines ? "Points" : "Bars"}: mean over runs · whiskers: 95 % interval of the mean (Student) · circles: single runs${flagged ? " · triangles: runs disturbed from outside" : ""}${failed ? " · crosses: runs without a result" : ""}`));
    this.chart.set(model);
    document.documentElement.dataset.plot = `matrix:${response.name}`;
    if (!performance.getEntriesByName("first-plot").length) performance.mark("first-plot");
  }

  note(mark, run, x, y) {
    const { cell } = mark;
    const { unit } = this.matrix.response;
    const value = (v) => quantity(v, unit);
    const of = run ? cell.values.find((v) => v.run === run) : null;
    this.tip.show(x, y, h("b", {}, levels(this.study, cell.levels) || "all runs"), pairs([
      ...(of ? [[`run ${of.run}`, value(of.value)]] : []),
      ["mean", value(cell.mean)],
      ["95 % interval", cell.low === null ? (cell.n ? "needs two runs" : "–") : `${number(cell.low)} … ${value(cell.high)}`],
      ["standard deviation", value(cell.sd)],
      ...(this.matrix.clocks === null ? [] : [["clocks", `± ${value(this.matrix.clocks)}`]]),
      ["runs", String(cell.n)],
    ]), ...cell.values.filter((v) => v.flags.length && (!of || of.run === v.run)).map((v) => h("div", { class: "warn small" }, `△ ${v.run}: disturbed: ${v.flags.join("; ")}`)),
    ...cell.without.map((w) => h("div", { class: "error small" }, `${w.run}: ${w.status}${w.reason ? `, ${w.reason}` : ""}`)),
    h("div", { class: "quiet small" }, of ? "Click: this run" : "Click: the runs of this point"));
  }

  /** A dot opens its run, a bar the list of its runs. */
  open(cell, run) {
    if (run) {
      location.hash = runAddress(run);
      return;
    }
    this.choose(cell.point);
    this.runsCard.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    this.runsCard.querySelector("a")?.focus({ preventScroll: true });
  }

  choose(point) {
    this.point = point;
    keep({ point });
    this.drawCells();
    this.drawRuns();
  }

  factorColumns() {
    return this.study.factors.map((f) => ({ name: title(f), title: f.description, numeric: isNumeric(f), value: (row) => row.levels[f.name] }));
  }

  drawCells() {
    const { response, cells } = this.matrix;
    const unit = response.unit ? ` [${response.unit}]` : "";
    const numeric = (name, value, hint) => ({ name, numeric: true, title: hint, value, cell: (row) => number(value(row)) });
    if (this.cells?.columnsFor !== response.name) {
      const order = this.cells ? { by: this.cells.by?.name, up: this.cells.up } : null;
      this.cells = new Table([
        ...this.factorColumns(),
        { ...numeric("mean", (c) => c.mean), name: `mean${unit}` },
        numeric("low", (c) => c.low, "Lower end of the 95 % interval of the mean"),
        numeric("high", (c) => c.high, "Upper end of the 95 % interval of the mean"),
        numeric("sd", (c) => c.sd, "Standard deviation over runs"),
        { name: "n", numeric: true, title: "Runs with a result", value: (c) => c.n },
        { name: "runs", class: "runs", value: (c) => c.values.length, cell: (c) => [
          ...c.values.map((v) => h("a", { href: runAddress(v.run), class: v.flags.length ? "warn" : null, title: [v.run, ...v.flags].join("\n") }, `${number(v.value)}${v.flags.length ? " △" : ""}`)),
          ...c.without.map((w) => h("a", { href: runAddress(w.run), class: "error", title: w.reason }, w.status)),
        ] },
      ], { caption: `${response.label} by point`, rowClass: (c) => (c.point === this.point ? "picked" : null) });
      this.cells.columnsFor = response.name;
      const again = order?.by && this.cells.columns.find((c) => c.name === order.by || (order.by.startsWith("mean") && c.name.startsWith("mean")));
      if (again) {
        this.cells.up = !order.up;
        this.cells.by = again;
        this.cells.sort(again);
      }
      this.cellsTable.replaceChildren(this.cells.element);
    }
    this.cells.set(cells);
  }

  drawRuns() {
    const { response } = this.matrix;
    const of = this.point === null ? this.runs : this.runs.filter((r) => r.point === this.point);
    const began = (r) => !["pending", "unreadable"].includes(r.status);
    const table = new Table([
      { name: "run", value: (r) => r.id, cell: (r) => (began(r) ? h("a", { href: runAddress(r.id) }, r.id) : r.id) },
      ...this.factorColumns(),
      { name: "repeat", numeric: true, value: (r) => r.repeat + 1 },
      { name: "status", value: (r) => r.status, cell: (r) => [h("span", { class: `badge ${r.status}` }, r.status), r.reason ? ` ${r.reason}` : "",
        r.flags.length ? h("span", { class: "warn small" }, " ", h("span", { class: "badge disturbed" }, "△ disturbed"), ` ${r.flags.join("; ")}`) : ""] },
      { name: `${response.label}${response.unit ? ` [${response.unit}]` : ""}`, numeric: true, value: (r) => r.responses[response.name], cell: (r) => number(r.responses[response.name]) },
      { name: "started", value: (r) => r.started, cell: (r) => r.started.replace("T", " ").replace(/\.\d+Z$|Z$/, "") },
    ], { caption: "Runs" });
    const chosen = this.runs.find((r) => r.point === this.point);
    this.runsCard.replaceChildren(h("div", { class: "head" },
      h("h2", {}, chosen ? `Runs at ${levels(this.study, chosen.levels) || "this point"}` : "Runs in the order in which they were made"),
      chosen
        ? h("button", { type: "button", class: "end", onclick: () => this.choose(null) }, "Show all runs")
        : h("span", { class: "quiet small end" }, `${plural(this.runs.length, "run")}${this.study.seed ? `, order drawn with seed ${this.study.seed}` : ""}`)),
    table.element);
    table.set(of);
  }

  about() {
    const { study } = this;
    const host = study.host;
    const list = (items) => h("dl", {}, items.flatMap(([k, v, hint]) => [h("dt", { title: hint }, k), h("dd", {}, v)]));
    return h("section", { class: "card", "aria-label": "Facts" }, h("div", { class: "facts" },
      h("div", {}, h("h3", {}, "Study"), list([
        ["subject", study.subject], ["points", String(study.factors.reduce((n, f) => n * f.levels.length, 1))], ["repeats", String(study.repeats)],
        ["warm-up", `${study.warmup_s} s`], ["recorded", `${study.record_s} s a run`], ["begun", study.created], ["folder", study.folder], ["written by", study.writer]])),
      h("div", {}, h("h3", {}, "Varied"), study.factors.length ? list(study.factors.map((f) => [f.name, f.levels.map((l) => level(l, f.unit)).join(", "), f.description])) : h("span", { class: "quiet" }, "nothing: one point")),
      h("div", {}, h("h3", {}, "The same in every run"), study.fixed.length ? list(study.fixed.map((s) => [s.name, level(s.value, s.unit)])) : h("span", { class: "quiet" }, "nothing was set")),
      host?.cpus ? h("div", {}, h("h3", {}, "Machine"), list([["CPU", `${host.cpu} (${host.cpus} online)`], ["memory", quantity(host.memory_bytes, "B")], ["system", host.os], ["kernel", host.kernel]])) : null));
  }

  remove() {
    this.chart.remove();
    this.tip.remove();
  }
}
