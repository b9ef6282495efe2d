// One run: its three panels on one clock, the stages of its frames, its facts.

import { ask, latest } from "./api.js";
import { facts } from "./facts.js";
import { fill, h, Tip } from "./dom.js";
import { levels, number } from "./format.js";
import { Panel } from "./panel.js";
import { keep, runAddress } from "./state.js";
import { shownMarkers, Time } from "./time.js";
import { Waterfall } from "./waterfall.js";

const PANELS = ["guest", "host", "client"];
/** What is drawn when nobody has chosen; what a run does not have is left out. */
const DEFAULTS = {
  guest: ["guest.frames.encode_ns", "guest.frames.capture_ns", "guest.process.cpu_percent"],
  host: ["host.joined.host_added_ns", "host.process.cpu_percent"],
  client: ["client.joined.latency_ns", "client.frames.decode_ns", "client.process.cpu_percent"],
};
/** How much of the warm-up is shown with the recorded window at first, as a part of the window's length. */
const MARGIN = 0.06;
/** Samples are asked for this long after the last movement. */
const SETTLE_MS = 60;

export function runView(root, study, id, query, back) {
  return new RunView(root, study, id, query, back);
}

class RunView {
  constructor(root, study, id, query, back) {
    Object.assign(this, { root, study, id, query, back });
    this.getTimeline = latest();
    this.getFrames = latest();
    this.tip = new Tip();
    this.head = h("div", { class: "bar" });
    this.body = h("div");
    this.status = h("p", { class: "error", role: "alert", hidden: true });
    this.quality = h("div");
    root.append(this.head, this.status, this.quality, this.body);
    this.load();
  }

  fail(error) {
    this.status.hidden = false;
    this.status.textContent = error.message;
  }

  async load() {
    try {
      const [run, runs] = await Promise.all([ask(`/run/${encodeURIComponent(this.id)}`), ask("/runs")]);
      if (this.gone) return;
      this.run = run;
      this.runs = runs;
      this.drawHead();
      this.chosen = Object.fromEntries(PANELS.map((p) => [p, this.query.has(p) ? this.query.get(p).split(",").filter(Boolean) : DEFAULTS[p]]));
      await this.fetch(true);
    } catch (error) {
      this.fail(error);
    }
  }

  drawHead() {
    const { run, study } = this;
    const siblings = this.runs.filter((r) => r.point === run.point && !["pending", "unreadable"].includes(r.status));
    const values = this.runs.find((r) => r.id === run.id)?.responses ?? {};
    fill(this.head,
      h("div", {}, h("a", { href: this.back(), id: "back" }, "← Matrix"),
        h("h1", {}, levels(study, run.asked) || run.id),
        h("div", { class: "quiet small" }, study.factors.length ? `${run.id} ` : null, h("span", { class: `badge ${run.status}` }, run.status), run.reason ? h("span", { class: "error" }, ` ${run.reason}`) : null)),
      siblings.length > 1 ? h("div", { class: "field" }, "Repeats of this point", h("nav", { class: "group", "aria-label": "Repeats" },
        siblings.map((r) => h("button", { type: "button", "aria-pressed": String(r.id === run.id), title: r.id, onclick: () => this.go(r.id) }, String(r.repeat + 1))))) : null,
      h("dl", { class: "end", id: "responses" }));
    this.responses(values);
  }

  /** What disturbed the run, and what nobody looked at. */
  drawQuality({ quality, flags }) {
    const unknown = quality?.unknown?.length ? `Not judged, for nobody sampled it: ${quality.unknown.join(", ")}.` : "";
    this.quality.replaceChildren(...(flags.length ? [h("section", { class: "card disturbances", id: "disturbances", role: "note", "aria-label": "Disturbed from outside" },
      h("div", { class: "head" }, h("h2", { class: "warn" }, "△ Disturbed from outside"), h("span", { class: "quiet small" }, "hatched below, where it is known when")),
      h("ul", {}, flags.map((text) => h("li", {}, text))), unknown ? h("p", { class: "quiet small" }, unknown) : null)] : []));
  }

  responses(values) {
    const shown = this.study.responses.filter((r) => r.name in values);
    const box = this.head.querySelector("#responses");
    box.replaceWith(h("div", { class: "legend small", id: "responses" }, shown.map((r) => h("span", { title: r.description },
      h("span", { class: "quiet" }, `${r.label} `), h("b", {}, `${number(values[r.name])} ${r.unit}`)))));
  }

  /** Another repeat, looked at in the same way. */
  go(id) {
    const { hash } = location;
    const query = hash.includes("?") ? hash.slice(hash.indexOf("?")) : "";
    location.hash = runAddress(id) + query;
  }

  parts() {
    const time = this.time;
    this.panels = PANELS.map((name, i) => new Panel(name, time, this.chosen[name], i === PANELS.length - 1, (panel) => this.choose(panel)));
    this.waterfall = new Waterfall(time, this.tip);
    const button = (text, title, act) => h("button", { type: "button", title, "aria-label": title, onclick: act }, text);
    this.readout = h("span", { class: "quiet small", id: "readout" });
    this.markers = h("div", { class: "small markers" });
    fill(this.body,
      h("section", { class: "card", "aria-label": "Timeline" },
        h("div", { class: "head" }, h("h2", {}, "Timeline"), h("div", { class: "group" },
          button("+", "Zoom in", () => time.zoom(0.5)), button("−", "Zoom out", () => time.zoom(2)),
          button("All", "Show the whole run", () => time.set(0, time.end)),
          this.timeline.window_ns ? button("Window", "Show the recorded window", () => time.set(...this.timeline.window_ns)) : null),
        this.readout, h("span", { class: "quiet small end" }, "drag: zoom · Ctrl-wheel, or click and wheel: zoom · Shift-drag: move · double click: all · shaded: outside the recorded window")),
        ...this.panels.map((p) => p.element), this.waterfall.element, this.markers),
      facts(this.run, this.study));
    let settle;
    time.addEventListener("range", () => {
      clearTimeout(settle);
      settle = setTimeout(() => this.moved(), SETTLE_MS);
    });
    time.addEventListener("cursor", () => this.read());
    this.read();
  }

  read() {
    const { cursor, from, to, brush } = this.time;
    const s = (ns) => `${(ns / 1e9).toFixed(4)} s`;
    if (brush) this.readout.textContent = `${s(brush[1] - brush[0])} chosen`;
    else this.readout.textContent = cursor === null ? `${s(from)} to ${s(to)}` : `at ${s(cursor)}`;
  }

  moved() {
    const { time } = this;
    const text = (ns) => (ns / 1e9).toFixed(4);
    keep({ from: text(time.from), to: text(time.to) });
    this.read();
    this.fetch(false).catch((error) => this.fail(error));
  }

  choose(panel) {
    this.chosen[panel.name] = panel.chosen;
    const usual = panel.chosen.join() === DEFAULTS[panel.name].join();
    keep({ [panel.name]: usual ? null : panel.chosen.join() || "," });
    this.fetch(false).catch((error) => this.fail(error));
  }

  /** Samples for what is shown now. */
  async fetch(first) {
    const width = Math.max(200, Math.round(this.body.clientWidth * (devicePixelRatio || 1)));
    const wanted = Object.values(this.chosen).flat();
    const asked = this.time ? { from: Math.floor(this.time.from), to: Math.ceil(this.time.to) } : this.firstRange();
    const path = `/run/${encodeURIComponent(this.id)}`;
    const [timeline, frames] = await Promise.all([
      this.getTimeline(`${path}/timeline`, { ...asked, width, series: wanted.join() }),
      this.getFrames(`${path}/frames`, { ...asked, width }).catch((error) => {
        if (error.status === 404) return null;
        throw error;
      }),
    ]);
    if (!timeline || frames === undefined || this.gone) return;
    this.status.hidden = true;
    this.show(timeline, frames, first);
  }

  /** What is shown at first: what the address says, else the recorded window with some of its surroundings, else everything. */
  firstRange() {
    const [from, to] = ["from", "to"].map((k) => Number.parseFloat(this.query.get(k)) * 1e9);
    if (Number.isFinite(from) && Number.isFinite(to)) return { from: Math.floor(from), to: Math.ceil(to) };
    if (!this.run.window_ns || this.run.status === "running") return {};
    const [start, end] = this.run.window_ns.map((t) => t - this.run.started_ns);
    const margin = Math.round((end - start) * MARGIN);
    return { from: Math.max(0, start - margin), to: end + margin };
  }

  show(timeline, frames, first) {
    this.timeline = timeline;
    if (first) {
      const { from, to } = this.firstRange();
      this.time = new Time(timeline.end_ns, from, to);
      this.parts();
    } else this.time.grow(timeline.end_ns);
    for (const panel of this.panels) panel.set(timeline, timeline.panels.find((p) => p.panel === panel.name));
    this.drawQuality(timeline);
    this.waterfall.element.hidden = !frames;
    if (frames) this.waterfall.set(timeline, frames);
    const markers = shownMarkers(timeline);
    this.markers.replaceChildren(...(markers.length ? [h("span", { class: "quiet" }, "Markers: "),
      ...markers.map((m) => h("span", { class: "marker" }, h("b", {}, `${(m.t_ns / 1e9).toFixed(3)} s`), ` ${m.panel ? `${m.panel}: ` : ""}${m.text || m.kind}`))] : []));
    document.documentElement.dataset.plot = `run:${this.id}`;
    document.documentElement.dataset.drawn = String(Number(document.documentElement.dataset.drawn ?? 0) + 1);
  }

  /** A run under way is asked for again each time; a closed one has been told. */
  async refresh(study) {
    this.study = study;
    if (this.run?.status !== "running" || !this.time) return;
    this.run = await ask(`/run/${encodeURIComponent(this.id)}`);
    if (this.run.status !== "running") {
      this.runs = await ask("/runs");
      this.drawHead();
      this.body.querySelector("#facts")?.replaceWith(facts(this.run, study));
    }
    await this.fetch(false);
  }

  remove() {
    this.gone = true;
    this.tip.remove();
    for (const part of this.panels ?? []) part.remove();
    this.waterfall?.remove();
  }
}
