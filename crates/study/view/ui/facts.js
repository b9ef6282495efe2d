// The facts of a run: what was asked, what was in force, with what it was made.

import { h } from "./dom.js";
import { level, quantity } from "./format.js";

const PANELS = ["guest", "host", "client"];

const list = (entries) => h("dl", {}, entries.flatMap(([name, value, bad]) => [h("dt", {}, name), h("dd", { class: bad ? "differs" : null }, value)]));

/** Settings that a program reads back in another form (`4` and `4.0`) or more exactly (`x11` and `x11::0`) are the same. */
const same = (found, asked) => String(found) === String(asked) || String(found).startsWith(`${asked}:`)
  || (found !== "" && asked !== "" && Number(found) === Number(asked));

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
  const inner = extra.filter(([key]) => key.includes("."));
  return h("div", {}, h("h3", {}, name), list([
    ["program", `${facts.program} ${facts.version}`],
    ...Object.entries(facts.versions),
    ...extra.filter(([key]) => !key.includes(".")).map(([key, value]) => [key, value]),
    ...Object.entries(facts.facts),
    ["clock", facts.clock?.basis === "frames" ? `± ${quantity(facts.clock.uncertainty_ns, "ns")} relative to the quickest frame (found from the frames, drift ${facts.clock.drift_ppm.toFixed(3)} ppm)` : facts.clock ? `± ${quantity(facts.clock.uncertainty_ns, "ns")} (${facts.clock.exchanges} exchanges, drift ${facts.clock.drift_ppm.toFixed(3)} ppm)` : "not aligned"],
    ["samples lost", String(lost), lost > 0],
  ].map(([key, value, bad]) => [key, plain(value), bad])), properties(inner));
}

/** `1.3999999761581421`, a single-precision number in double precision, is 1.4. */
const plain = (value) => (typeof value === "number" ? String(Number(value.toPrecision(7))) : String(value));

/** What an encoder says of itself: many, and rarely looked at. */
function properties(inner) {
  if (!inner.length) return null;
  const group = inner[0][0].split(".")[0];
  return h("details", {}, h("summary", { class: "small" }, `${inner.length} ${group} properties in force`), list(inner.map(([key, value]) => [key.slice(key.indexOf(".") + 1), plain(value)])));
}

/** The facts of a run as a card. */
export function facts(run, study) {
  const { host } = run;
  return h("section", { class: "card", id: "facts", "aria-label": "Facts" }, h("div", { class: "head" }, h("h2", {}, "Facts")), h("div", { class: "facts" },
    h("div", {}, h("h3", {}, "Settings"), settings(run, study)),
    ...PANELS.filter((p) => run.panels[p]).map((p) => panel(p, run.panels[p], run)),
    host.cpus ? h("div", {}, h("h3", {}, "Machine"), list([
      ["CPU", `${host.cpu} (${host.cpus} online)`], ["memory", quantity(host.memory_bytes, "B")], ["system", host.os], ["kernel", host.kernel],
      ["load before", host.load.map((l) => l.toFixed(2)).join(" ")]])) : null,
    h("div", {}, h("h3", {}, "Run"), list([
      ["begun", run.started], ["ended", run.ended || "–"], ["repeat", `${run.repeat + 1} of ${study.repeats}`], ["seed of the order", String(study.seed)],
      ["warm-up", `${study.warmup_s} s`], ["recorded", run.window_ns ? `${((run.window_ns[1] - run.window_ns[0]) / 1e9).toFixed(3)} s` : "never reached"],
      ["quality", run.quality ? `${run.quality.disturbed ? "disturbed from outside" : "no disturbance found"}${run.quality.unknown?.length ? `; not judged: ${run.quality.unknown.join(", ")}` : ""}` : "not judged", run.quality?.disturbed],
      ["written by", run.writer]]))));
}
