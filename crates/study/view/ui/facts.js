// The facts of a run: what was asked, what was in force, with what it was made.

import { h } from "./dom.js";
import { level, quantity } from "./format.js";

const PANELS = ["guest", "host", "client"];

const list = (entries) => h("dl", {}, entries.flatMap(([name, value, bad]) => [h("dt", {}, name), h("dd", { class: bad ? "differs" : null }, value)]));

/** Settings that a program reads back in another form (`4` and `4.0`) are the same. */
const same = (a, b) => String(a) === String(b) || (a !== "" && b !== "" && Number(a) === Number(b));

function settings(run, study) {
  const units = Object.fromEntries([...study.factors, ...study.fixed].map((f) => [f.name, f.unit]));
  const rows = Object.entries(run.asked).map(([name, asked]) => {
    const found = PANELS.filter((p) => run.panels[p]?.in_force && name in run.panels[p].in_force).map((p) => [p, run.panels[p].in_force[name]]);
    const differs = found.some(([, value]) => !same(value, asked) && asked !== "");
    const inForce = found.length ? [...new Set(found.map(([, v]) => String(v)))].join(", ") : "–";
    return h("tr", {}, h("td", {}, name), h("td", {}, asked === "" ? "–" : level(asked, units[name])), h("td", { class: differs ? "error" : null }, inForce));
  });
  return h("table", { class: "data" }, h("thead", {}, h("tr", {}, ["setting", "asked", "in force"].map((t) => h("th", { scope: "col" }, t)))), h("tbody", {}, rows));
}

function panel(name, facts, run) {
  const lost = Object.values(facts.lost).reduce((a, b) => a + b, 0);
  const extra = Object.entries(facts.in_force).filter(([key]) => !(key in run.asked));
  return h("div", {}, h("h3", {}, name), list([
    ["program", `${facts.program} ${facts.version}`],
    ...Object.entries(facts.versions),
    ...extra.map(([key, value]) => [key, String(value)]),
    ...Object.entries(facts.facts),
    ["clock", facts.clock ? `± ${quantity(facts.clock.uncertainty_ns, "ns")} (${facts.clock.exchanges} exchanges, drift ${facts.clock.drift_ppm.toFixed(3)} ppm)` : "not aligned"],
    ["samples lost", String(lost), lost > 0],
  ]));
}

/** The facts of a run as a card. */
export function facts(run, study) {
  const { host } = run;
  return h("section", { class: "card", id: "facts", "aria-label": "Facts" }, h("div", { class: "head" }, h("h2", {}, "Facts")), h("div", { class: "facts" },
    h("div", {}, h("h3", {}, "Settings"), settings(run, study)),
    ...PANELS.filter((p) => run.panels[p]).map((p) => panel(p, run.panels[p], run)),
    h("div", {}, h("h3", {}, "Machine"), list([
      ["CPU", `${host.cpu} (${host.cpus} online)`], ["memory", quantity(host.memory_bytes, "B")], ["system", host.os], ["kernel", host.kernel],
      ["load before", host.load.map((l) => l.toFixed(2)).join(" ")]])),
    h("div", {}, h("h3", {}, "Run"), list([
      ["begun", run.started], ["ended", run.ended || "–"], ["repeat", `${run.repeat + 1} of ${study.repeats}`], ["seed of the order", String(study.seed)],
      ["warm-up", `${study.warmup_s} s`], ["recorded", run.window_ns ? `${((run.window_ns[1] - run.window_ns[0]) / 1e9).toFixed(3)} s` : "never reached"],
      ["written by", run.writer]]))));
}
