// A run: three panels over one time axis, and the frames below.

import { element, get, run as path, swatch } from "./api.js";
import { theme, tip } from "./canvas.js";
import { duration, level, number, scale, seconds } from "./format.js";
import { ROWS, drawColumns, drawRows, frameNote, legend } from "./frames.js";
import { Axis, drawPanel, nearest, units } from "./timeline.js";

// What a panel shows at first, the first two that it has.
const FIRST = {
  guest: ["guest.frames.encode_ns", "guest.process.cpu_percent"],
  host: ["host.frames+.to_host_ns", "host.frames+.host_added_ns", "host.traffic.to_client_bytes", "host.process.cpu_percent"],
  client: ["client.frames+.latency_ns", "client.process.cpu_percent", "client.frames.decode_ns"],
};
const SHOWN_FIRST = 2;
const SETTLE_MS = 90; // after a movement, before finer samples are asked for
const LEAST_NS = 1e6; // narrowest interval

export class RunView {
  constructor(main, shared) {
    this.shared = shared;
    this.cursor = null;
    this.drag = null;
    this.hovered = null;
    this.panels = new Map();
    this.crumbs = element("nav", { class: "crumbs", "aria-label": "Run" });
    this.stack = element("div", { id: "stack" });
    this.framesHead = element("h2", {});
    this.framesLegend = element("ul", { class: "legend" });
    this.framesCanvas = element("canvas", { id: "frames-canvas", tabindex: "0", role: "img", "aria-label": "Frames of the visible interval" });
    this.framesCard = element("section", { class: "card panel" }, this.framesHead, this.framesLegend, this.framesCanvas);
    main.append(this.crumbs, this.stack, element("p", { class: "hint" },
      "Wheel: zoom. Drag: choose an interval. Shift + drag or shift + wheel: move. Double click: whole run. Keys: + − ← →, 0 whole run, W window."), this.framesCard);
    this.#listen(this.framesCanvas, true);
    this.keys = (e) => this.#key(e);
    window.addEventListener("keydown", this.keys);
  }

  close() {
    tip(null);
    clearTimeout(this.timer);
    window.removeEventListener("keydown", this.keys);
  }

  async update(grown = false) {
    const { state } = this.shared;
    if (state.run !== this.run) {
      this.run = state.run;
      this.data = null;
      this.range = null;
      this.cursor = null;
      this.facts = await get(path(this.run));
    } else if (grown) this.facts = await get(path(this.run));
    this.rows = state.frames === "rows";
    this.#range();
    await this.#fetch();
  }

  // The interval shown, in nanoseconds since the start of the run: as the address says, else everything.
  #range() {
    const { from, to } = this.shared.state;
    const ms = (v) => (v !== undefined && Number.isFinite(Number(v)) ? Number(v) * 1e6 : null);
    const [a, b] = [ms(from), ms(to)];
    if (a !== null && b !== null && b - a >= LEAST_NS) this.range = [a, b];
    else if (this.data) this.range = [0, this.data.end_ns];
    else this.range = null;
    this.whole = a === null || b === null;
  }

  #wanted() {
    const chosen = (panel) => {
      const text = this.shared.state[panel];
      if (text === undefined) return null;
      return text.split(",").filter((id) => id && id !== "-").map((id) => `${panel}.${id}`);
    };
    if (!this.data) return Object.entries(FIRST).flatMap(([panel, ids]) => chosen(panel) ?? ids);
    return this.data.panels.flatMap((p) => chosen(p.panel) ?? this.#first(p));
  }

  #first(panel) {
    const has = (id) => panel.series.some((s) => s.id === id && s.samples > 0);
    const known = (FIRST[panel.panel] ?? []).filter(has).slice(0, SHOWN_FIRST);
    return known.length ? known : panel.series.filter((s) => s.samples > 0).slice(0, 1).map((s) => s.id);
  }

  async #fetch() {
    const asked = (this.asked = {});
    const width = Math.max(200, Math.round(this.stack.clientWidth));
    const query = (width_) => ({ width: width_, ...(this.range ? { from: Math.floor(this.range[0]), to: Math.ceil(this.range[1]) } : {}) });
    const wanted = this.#wanted();
    const [data, frames] = await Promise.all([
      get(`${path(this.run)}/timeline`, { ...query(width), series: wanted.join(",") }),
      get(`${path(this.run)}/frames`, query(this.rows ? ROWS : Math.floor(width / 2))).catch((error) => ({ error })),
    ]);
    if (this.asked !== asked) return; // something newer was asked for meanwhile
    const before = this.data;
    this.data = data;
    if (!this.range || this.whole) this.range = [0, data.end_ns];
    this.frames = frames.error ? null : frames;
    this.framesError = frames.error;
    const missing = this.#wanted().some((id) => !wanted.includes(id));
    if (!before && missing) return this.#fetch();
    this.#build();
    this.draw();
    this.stack.dataset.ready = this.run;
  }

  #colour(panel, id) {
    const order = this.#chosen(panel).map((s) => s.id);
    return theme().colours[Math.max(0, order.indexOf(id)) % theme().colours.length];
  }

  #chosen(panel) {
    const wanted = this.#wanted();
    return wanted.map((id) => panel.series.find((s) => s.id === id)).filter(Boolean);
  }

  #build() {
    this.#crumbs();
    const kept = document.activeElement?.id;
    for (const panel of this.data.panels) {
      if (!this.panels.has(panel.panel)) {
        const head = element("div", { class: "head" });
        const canvas = element("canvas", { id: `${panel.panel}-canvas`, tabindex: "0", role: "img", "aria-label": `${panel.panel}: indicators over time` });
        this.stack.append(element("section", { class: "card panel" }, head, canvas));
        this.#listen(canvas, false);
        this.panels.set(panel.panel, { head, canvas });
      }
      this.panels.get(panel.panel).head.replaceChildren(...this.#head(panel));
    }
    this.#framesHead();
    if (kept) document.getElementById(kept)?.focus({ preventScroll: true });
  }

  #head(panel) {
    const chosen = this.#chosen(panel);
    const set = (list) => this.shared.go({ [panel.panel]: list.map((s) => s.id.slice(panel.panel.length + 1)).join(",") || "-" });
    const chips = chosen.map((s) => element("button", { type: "button", title: `${s.description}${s.uncertainty_ns ? `, known to ± ${duration(s.uncertainty_ns)}` : ""} — click to take it away`, click: () => set(chosen.filter((c) => c !== s)) },
      swatch(this.#colour(panel, s.id)), this.#name(panel, s), element("b", { "data-id": s.id })));
    const groups = new Map();
    for (const s of panel.series) if (!chosen.includes(s)) groups.set(s.group, [...(groups.get(s.group) ?? []), s]);
    const add = element("select", { id: `add-${panel.panel}`, "aria-label": `Add an indicator to ${panel.panel}`, change: (e) => {
      const added = panel.series.find((s) => s.id === e.target.value);
      // Two vertical axes: an indicator of a third unit takes the place of those of the second.
      const all = [...chosen, added];
      const [first] = units(all);
      const kind = (s) => (s.unit === "" ? "1" : s.unit);
      set(units(all).includes(kind(added)) ? all : [...chosen.filter((s) => kind(s) === first), added]);
    } }, element("option", { value: "" }, "+ indicator"),
      ...[...groups].map(([name, list]) => element("optgroup", { label: name }, ...list.map((s) => element("option", { value: s.id, disabled: s.samples === 0 }, s.unit && s.unit !== "1" ? `${s.label} (${s.unit})` : s.label)))));
    const clock = panel.uncertainty_ns === null ? "clock not aligned" : `clock ± ${duration(panel.uncertainty_ns)}`;
    return [element("h2", {}, panel.panel), element("div", { class: "chips" }, ...chips, add),
      element("span", { class: "clock", title: "How well this panel's clock is known against the collector's. Differences between panels are known to the sum of both." }, clock)];
  }

  #name(panel, series) {
    const twice = panel.series.filter((s) => s.label === series.label).length > 1;
    return twice ? `${series.group} ${series.label}` : series.label;
  }

  #crumbs() {
    const { study, runs, go } = this.shared;
    const entry = runs.find((r) => r.id === this.run);
    const levels = study.factors.map((f) => `${f.name} ${level(this.facts.asked[f.name] ?? entry?.levels[f.name] ?? "", f)}`).join(", ");
    const begun = runs.filter((r) => !["pending", "unreadable"].includes(r.status));
    const at = begun.findIndex((r) => r.id === this.run);
    const step = (label, words, by) => element("button", { type: "button", title: words, "aria-label": words, disabled: !begun[at + by], click: () => go({ run: begun[at + by].id, from: undefined, to: undefined }) }, label);
    const status = this.facts.status;
    const back = new URLSearchParams(this.shared.state);
    for (const key of ["run", "from", "to", "frames"]) back.delete(key);
    if (entry) back.set("point", entry.point);
    this.crumbs.replaceChildren(element("a", { href: `#${back}`, id: "to-matrix" }, "← matrix"), element("h1", {}, levels),
      element("span", { class: "quiet" }, `${this.run}, repeat ${this.facts.repeat + 1}`),
      element("span", { class: status }, status === "complete" ? "" : `${status}${this.facts.reason ? `: ${this.facts.reason}` : ""}`),
      element("span", { class: "end" }, step("‹", "the run before", -1), step("›", "the next run", 1),
        element("button", { type: "button", id: "to-window", disabled: !this.data.window_ns, click: () => this.#window() }, "Window"),
        element("button", { type: "button", id: "to-whole", click: () => this.#whole() }, "Whole run")));
  }

  #framesHead() {
    const { frames } = this;
    this.framesCard.hidden = !frames && !this.framesError;
    if (!frames) {
      this.framesHead.replaceChildren("frames", element("span", {}, this.framesError?.message ?? ""));
      this.framesLegend.replaceChildren();
      return;
    }
    const unmatched = frames.unmatched.filter(([, n]) => n > 0).map(([panel, n]) => `${n} of ${panel}'s without a partner`);
    const words = [`${frames.in_interval} in this interval`, frames.frames.length < frames.in_interval ? `the slowest of each ${this.rows ? "slice" : "column"} shown` : "",
      `${frames.matched} of the run seen by every panel`, ...unmatched, frames.mismatched ? `${frames.mismatched} size mismatches` : "no size mismatch"];
    const toggle = (name, words_, on) => element("button", { type: "button", id: `frames-${name}`, "aria-pressed": String(on), click: () => this.shared.go({ frames: name === "rows" ? "rows" : undefined }) }, words_);
    this.framesHead.replaceChildren("where each frame's time went", element("span", {}, words.filter(Boolean).join(" · ")),
      element("span", { class: "controls" }, element("span", { class: "group", role: "group", "aria-label": "Frames drawn as" }, element("div", {}, toggle("columns", "Over time", !this.rows), toggle("rows", "Waterfall", this.rows)))));
    this.framesLegend.replaceChildren(...legend(frames.stages), element("li", { class: "quiet" }, "▲ key frame   × dropped or not seen by every panel"));
  }

  draw() {
    if (!this.data || !this.range) return;
    const axis = { from: this.range[0], to: this.range[1] };
    let first = true;
    for (const panel of this.data.panels) {
      const { canvas } = this.panels.get(panel.panel);
      this.axis = drawPanel(canvas, { axis, data: this.data, panel: panel.panel, series: this.#chosen(panel), cursor: this.cursor,
        colour: (id) => this.#colour(panel, id), uncertainty: panel.uncertainty_ns, first, drag: this.drag });
      first = false;
    }
    if (this.frames) {
      const { frames, stages } = this.frames;
      const common = { axis, data: this.data, frames, stages, cursor: this.cursor, hovered: this.hovered, drag: this.drag };
      this.frameAt = this.rows ? drawRows(this.framesCanvas, common) : drawColumns(this.framesCanvas, common);
    }
    this.#values();
  }

  // Values at the cross-hair: of the nearest sample, which may be decimated.
  #values() {
    for (const panel of this.data.panels) {
      for (const s of this.#chosen(panel)) {
        const cell = this.panels.get(panel.panel).head.querySelector(`[data-id="${CSS.escape(s.id)}"]`);
        if (!cell) continue;
        const i = this.cursor === null || !s.t?.length ? -1 : nearest(s.t, this.cursor);
        if (i < 0) { cell.textContent = ""; continue; }
        const shown = scale(s.unit, Math.abs(s.v[i]));
        cell.textContent = `${number(s.v[i] / shown.divisor, 4)} ${shown.unit}`;
      }
    }
  }

  #listen(canvas, frames) {
    const place = (e) => e.clientX - canvas.getBoundingClientRect().left;
    const aligned = () => !(frames && this.rows);
    let start = null;
    canvas.addEventListener("pointermove", (e) => {
      if (!this.axis) return;
      const t = this.axis.t(place(e));
      if (start?.pan) this.#show(start.range[0] + start.t - start.axis.t(place(e)), start.range[1] + start.t - start.axis.t(place(e)));
      else if (start) this.drag = { from: start.t, to: Math.max(this.range[0], Math.min(this.range[1], t)) };
      this.cursor = aligned() ? t : null;
      this.hovered = frames && this.frameAt ? this.frameAt(place(e), e.clientY - canvas.getBoundingClientRect().top) : null;
      if (this.hovered && !aligned()) this.cursor = this.hovered.t;
      this.#soon();
      if (this.hovered) tip(frameNote(this.hovered, this.frames.stages), e.clientX, e.clientY);
      else tip(frames ? null : this.#note(t), e.clientX, e.clientY);
    });
    canvas.addEventListener("pointerleave", () => { this.cursor = null; this.hovered = null; tip(null); this.#soon(); });
    canvas.addEventListener("pointerdown", (e) => {
      if (!this.axis || !aligned() || e.button > 1) return;
      canvas.setPointerCapture(e.pointerId);
      start = { t: this.axis.t(place(e)), axis: new Axis(this.range[0], this.range[1], this.axis.right + 58), range: [...this.range], pan: e.shiftKey || e.button === 1, x: place(e) };
      start.axis.left = this.axis.left;
      start.axis.right = this.axis.right;
    });
    canvas.addEventListener("pointerup", (e) => {
      const { drag } = this;
      const far = start && Math.abs(place(e) - start.x) > 4;
      this.drag = null;
      start = null;
      if (drag && far) this.#show(Math.min(drag.from, drag.to), Math.max(drag.from, drag.to));
      this.#soon();
    });
    canvas.addEventListener("pointercancel", () => { this.drag = null; start = null; this.#soon(); });
    canvas.addEventListener("dblclick", () => this.#whole());
    canvas.addEventListener("wheel", (e) => {
      if (!this.axis || !aligned() || e.ctrlKey) return;
      e.preventDefault();
      const sideways = e.shiftKey ? e.deltaY || e.deltaX : e.deltaX;
      if (Math.abs(sideways) > Math.abs(e.deltaY) || e.shiftKey) this.#move(sideways / 1000);
      else this.#zoom(Math.exp(Math.max(-240, Math.min(240, e.deltaY)) * 0.0022), this.axis.t(place(e)));
    }, { passive: false });
  }

  // Instant and what happened about then.
  #note(t) {
    if (t < this.range[0] || t > this.range[1]) return null;
    const width = this.range[1] - this.range[0];
    const near = this.data.markers.filter((m) => Math.abs(this.axis.x(m.t_ns) - this.axis.x(t)) < 6);
    return element("div", {}, seconds(t, width), ...near.map((m) => element("div", {}, element("b", {}, m.kind.replaceAll("_", " ")), ` ${[m.panel, m.text].filter(Boolean).join(": ")} (${seconds(m.t_ns, width)})`)));
  }

  #soon() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.draw(); });
  }

  #zoom(factor, about) {
    const [a, b] = this.range;
    this.#show(about - (about - a) * factor, about + (b - about) * factor);
  }

  #move(part) {
    const width = this.range[1] - this.range[0];
    this.#show(this.range[0] + width * part, this.range[1] + width * part);
  }

  #window() {
    const [a, b] = this.data.window_ns;
    this.#show(a, b);
  }

  #whole() { this.#show(0, this.data.end_ns); }

  // Shows an interval inside the run: at once with the samples at hand, then with finer ones.
  #show(from, to) {
    const end = this.data.end_ns;
    const width = Math.max(LEAST_NS, Math.min(end, to - from));
    const start = Math.max(0, Math.min(end - width, from));
    this.range = [start, start + width];
    this.whole = width >= end;
    this.#soon();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const ms = (ns) => String(Math.round(ns / 1e3) / 1e3);
      this.shared.go(this.whole ? { from: undefined, to: undefined } : { from: ms(this.range[0]), to: ms(this.range[1]) }, { replace: true });
      this.#fetch().catch(() => {});
    }, SETTLE_MS);
  }

  #key(event) {
    if (!this.range || event.ctrlKey || event.metaKey || event.altKey || ["SELECT", "INPUT"].includes(event.target.tagName)) return;
    const middle = (this.range[0] + this.range[1]) / 2;
    const action = {
      "+": () => this.#zoom(0.6, this.cursor ?? middle), "=": () => this.#zoom(0.6, this.cursor ?? middle), "-": () => this.#zoom(1.6, this.cursor ?? middle),
      ArrowLeft: () => this.#move(-0.2), ArrowRight: () => this.#move(0.2), 0: () => this.#whole(), w: () => this.data.window_ns && this.#window(),
    }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }
}
