// What was asked for and what was in force, versions, machine: everything that tells whether two runs can be compared.

import { element, get, run as path } from "./api.js";
import { duration, level, number } from "./format.js";

function list(pairs) {
  const shown = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  if (!shown.length) return element("p", { class: "quiet" }, "none");
  return element("dl", {}, ...shown.flatMap(([name, value, marked]) => [element("dt", {}, name), element("dd", { class: marked ? "differs" : "" }, value)]));
}

const when = (text) => text.replace("T", " ").replace(/(\.\d+)?Z$/, " UTC");

function machine(host) {
  return list([["CPU", host.cpu], ["CPUs", String(host.cpus)], ["memory", `${number(host.memory_bytes / 2 ** 30, 3)} GiB`], ["system", host.os], ["kernel", host.kernel],
    ["load before", host.load.map((l) => number(l, 3)).join("  ")]]);
}

function ofStudy(study) {
  const factor = (name) => study.factors.find((f) => f.name === name);
  return [element("h2", {}, "Study"), list([["name", study.name], ["folder", study.folder], ["begun", when(study.created)], ["subject", study.subject], ["written by", study.writer],
    ["seed of the order", String(study.seed)], ["repeats", String(study.repeats)], ["warm-up", `${number(study.warmup_s)} s`], ["recorded", `${number(study.record_s)} s a run`]]),
  element("h2", {}, "Varied"), list(study.factors.map((f) => [f.name, f.levels.map((l) => level(l, factor(f.name))).join(", ")])),
  element("h2", {}, "The same in every run"), list(study.fixed.map((s) => [s.name, level(s.value, s)])),
  ...(study.host ? [element("h2", {}, "Machine"), machine(study.host)] : [])];
}

function ofRun(facts, study) {
  const unit = (name) => study.factors.find((f) => f.name === name) ?? study.fixed.find((f) => f.name === name);
  const parts = [element("h2", {}, `Run ${facts.id}`), list([["state", facts.status], ["why", facts.reason, true], ["begun", when(facts.started)], ["ended", when(facts.ended)],
    ["window", facts.window_ns ? duration(facts.window_ns[1] - facts.window_ns[0]) : "never reached"]]),
  element("h2", {}, "Asked for"), list(Object.entries(facts.asked).map(([name, value]) => [name, level(value, unit(name))]))];
  for (const panel of ["guest", "host", "client"].filter((p) => facts.panels[p])) {
    const p = facts.panels[panel];
    const clock = p.clock ? `± ${duration(p.clock.uncertainty_ns)}, drift ${number(p.clock.drift_ppm, 3)} ppm (${p.clock.exchanges} exchanges)` : "not aligned";
    const lost = Object.entries(p.lost).filter(([, n]) => n > 0);
    const differs = (name, value) => name in facts.asked && facts.asked[name] !== "" && facts.asked[name] !== value;
    parts.push(element("h2", {}, `${panel}: ${p.program} ${p.version}`), list([["clock", clock], ...Object.entries(p.versions), ...Object.entries(p.facts),
      ["rows lost", lost.map(([table, n]) => `${table}: ${n}`).join(", "), true]]),
    element("h2", { class: "quiet" }, "in force"), list(Object.entries(p.in_force).map(([name, value]) => [name, level(value, unit(name)), differs(name, value)])));
  }
  parts.push(element("h2", {}, "Machine"), machine(facts.host));
  return parts;
}

export async function showFacts(aside, { study, state }) {
  const facts = state.run ? await get(path(state.run)) : null;
  aside.replaceChildren(...(facts ? [...ofRun(facts, study), element("hr")] : []), ...ofStudy(facts ? { ...study, host: null } : study));
}
