// One panel of a run's timeline: the chosen indicators of guest, host or client, one plot a unit.

import { linear, range, ticks, tickText } from "./axis.js";
import { colour, hairline, seriesColour, Surface } from "./canvas.js";
import { h } from "./dom.js";
import { quantity, scaleOf } from "./format.js";
import { backdrop, control, crosshair, LEFT, RIGHT, shownMarkers } from "./time.js";

const PLOT = 104;
const GAP = 12;
const TOP = 12;
const LABELS = 22;
/** Units of values that are means over the time since the sample before: drawn as steps, for that is what is known. */
const STEPS = ["%", "1/s", "B/s"];
/** Samples closer than this many pixels are a line, others a line with dots. */
const DOTS = 7;

export class Panel {
  /** `chosen`: ids; `change(panel)` is called when a person has chosen others. */
  constructor(name, time, chosen, last, change) {
    Object.assign(this, { name, time, chosen, last, change });
    this.series = [];
    this.clock = h("span", { class: "quiet small" });
    this.chips = h("div", { class: "legend" });
    this.picker = h("div");
    this.details = h("details", { class: "pick end" }, h("summary", {}, "Indicators ▾"), this.picker);
    this.plot = h("div", { class: "plot" });
    this.element = h("section", { class: "panel", id: `panel-${name}`, "aria-label": `${name} over time` },
      h("div", { class: "head" }, h("h2", {}, name), this.clock, this.chips, this.details), this.plot);
    const height = () => this.height();
    this.base = new Surface(this.plot, { height, draw: (c, w) => this.draw(c, w), label: `${name} over time. Plus and minus zoom, arrow keys move, 0 shows everything.` });
    this.over = new Surface(this.plot, { height, over: true, draw: (c, w) => crosshair(c, this.time, w, TOP, this.height() - (this.last ? LABELS : 6)) });
    this.close = (event) => {
      if (!this.details.contains(event.target) || event.key === "Escape") this.details.open = false;
    };
    addEventListener("pointerdown", this.close);
    this.details.addEventListener("keydown", (event) => event.key === "Escape" && this.close(event));
    control(this.base, time);
    time.addEventListener("range", () => this.base.redraw());
    time.addEventListener("cursor", () => this.values());
  }

  height() {
    const plots = Math.max(1, this.groups().length);
    return TOP + plots * PLOT + (plots - 1) * GAP + (this.last ? LABELS : 6);
  }

  /** Series that are drawn, by unit. */
  groups() {
    const groups = new Map();
    this.shown().forEach((series) => {
      if (!groups.has(series.unit)) groups.set(series.unit, []);
      groups.get(series.unit).push(series);
    });
    return [...groups];
  }

  shown() {
    return this.chosen.map((id) => this.series.find((s) => s.id === id)).filter((s) => s?.t);
  }

  set(timeline, panel) {
    this.timeline = timeline;
    this.series = panel?.series ?? [];
    const known = panel && panel.uncertainty_ns !== null;
    this.clock.textContent = !panel ? "recorded nothing" : known ? `clock ± ${quantity(panel.uncertainty_ns, "ns")}${panel.relative ? ", relative to the quickest frame" : ""}` : "clock not aligned";
    this.clock.title = panel?.relative
      ? "Found from the frames themselves: the way of the quickest frame counts as no time, which is not in the uncertainty"
      : known
      ? "How far this panel's clock can be from the collector's, as the exchanges between the two allow"
      : "Too few clock exchanges: its instants are shown as they are";
    this.drawChips();
    this.drawPicker();
    this.base.now();
    this.over.now();
  }

  colourOf(id) {
    return seriesColour(Math.max(0, this.chosen.indexOf(id)));
  }

  drawChips() {
    this.outputs = new Map();
    this.chips.replaceChildren(...this.shown().map((s) => {
      const output = h("output", {}, "");
      this.outputs.set(s.id, output);
      const unsure = s.uncertainty_ns ? h("span", { class: "quiet" }, `± ${quantity(s.uncertainty_ns, "ns")}${s.relative ? ", relative" : ""}`) : null;
      const about = unsure ? `${s.description}; begins and ends on different clocks, true within ${unsure.textContent}${s.relative ? " to the quickest frame, whose own time nobody knows" : ""}` : s.description;
      return h("span", { class: "chip", title: about }, h("i", { colour: this.colourOf(s.id) }), s.label, output, unsure,
        h("button", { type: "button", "aria-label": `Hide ${s.label}`, onclick: () => this.toggle(s.id, false) }, "✕"));
    }));
    this.values();
  }

  drawPicker() {
    const key = this.series.map((s) => s.id).join() + this.chosen.join();
    if (key === this.picked) return;
    this.picked = key;
    const groups = [...new Set(this.series.map((s) => s.group))];
    this.picker.replaceChildren(...groups.map((group) => h("fieldset", {}, h("legend", {}, group),
      this.series.filter((s) => s.group === group).map((s) => {
        const box = h("input", { type: "checkbox", checked: this.chosen.includes(s.id), onchange: () => this.toggle(s.id, box.checked) });
        return h("label", { title: s.description }, box, s.label, h("span", { class: "quiet" }, s.samples ? s.unit.replace(/^1$/, "") : "no samples"));
      }))));
  }

  toggle(id, on) {
    this.chosen = on ? [...this.chosen, id] : this.chosen.filter((c) => c !== id);
    this.change(this);
  }

  draw(context, width) {
    if (!this.timeline) return;
    const groups = this.groups();
    const bottom = this.height() - (this.last ? LABELS : 6);
    if (!groups.length) {
      backdrop(context, this.time, this.timeline, width, TOP, bottom, this.last);
      context.fillStyle = colour("quiet");
      context.textAlign = "center";
      context.fillText(this.series.length ? "No indicator chosen" : "Nothing recorded", width / 2, TOP + PLOT / 2);
      return;
    }
    groups.forEach(([unit, series], i) => {
      const top = TOP + i * (PLOT + GAP);
      backdrop(context, this.time, this.timeline, width, top, top + PLOT, this.last && i === groups.length - 1);
      this.group(context, width, top, unit, series);
    });
    this.markers(context, width, bottom);
  }

  group(context, width, top, unit, series) {
    const { from, to } = this.time;
    const visible = series.map((s) => inside(s, from, to));
    const [low, high] = range(visible.flatMap((v, i) => onPlot(series[i], v, from, to)), true);
    const scale = scaleOf(unit, Math.max(Math.abs(low), Math.abs(high)));
    const y = linear(low, high, top + PLOT, top + 4);
    const values = ticks(low / scale.by, high / scale.by, 3);
    const texts = tickText(values);
    values.forEach((v, i) => {
      hairline(context, LEFT, y(v * scale.by), width - RIGHT, y(v * scale.by), v === 0 ? colour("line") : colour("grid"));
      context.fillStyle = colour("quiet");
      context.textAlign = "right";
      context.fillText(texts[i], LEFT - 6, y(v * scale.by));
    });
    context.save();
    context.fillStyle = colour("quiet");
    context.translate(9, top + PLOT / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = "center";
    context.fillText(scale.unit || "number", 0, 0);
    context.restore();
    context.save();
    context.beginPath();
    context.rect(LEFT, top - 2, width - LEFT - RIGHT, PLOT + 4);
    context.clip();
    series.forEach((s, i) => this.line(context, width, s, visible[i], y));
    context.restore();
  }

  line(context, width, s, { start, end }, y) {
    const x = this.time.scale(width);
    const first = Math.max(0, start - 1);
    const last = Math.min(s.t.length, end + 1);
    context.strokeStyle = this.colourOf(s.id);
    context.fillStyle = context.strokeStyle;
    context.lineWidth = 1.4;
    context.lineJoin = "round";
    context.beginPath();
    for (let i = first; i < last; i += 1) {
      if (i === first) context.moveTo(x(s.t[i]), y(s.v[i]));
      else {
        if (STEPS.includes(s.unit)) context.lineTo(x(s.t[i - 1]), y(s.v[i]));
        context.lineTo(x(s.t[i]), y(s.v[i]));
      }
    }
    context.stroke();
    if ((width - LEFT) / Math.max(1, end - start) < DOTS) return;
    for (let i = first; i < last; i += 1) {
      context.beginPath();
      context.arc(x(s.t[i]), y(s.v[i]), 2.2, 0, 2 * Math.PI);
      context.fill();
    }
  }

  markers(context, width, bottom) {
    const x = this.time.scale(width);
    let free = 0;
    for (const marker of shownMarkers(this.timeline)) {
      if ((marker.panel && marker.panel !== this.name) || marker.t_ns < this.time.from || marker.t_ns > this.time.to) continue;
      const tint = ["fault", "gone"].includes(marker.kind) ? colour("fault") : colour("c6");
      context.setLineDash([4, 3]);
      hairline(context, x(marker.t_ns), TOP, x(marker.t_ns), bottom, tint);
      context.setLineDash([]);
      context.fillStyle = tint;
      // All of them are listed below the plots; here those that find room.
      const text = marker.text || marker.kind;
      const at = x(marker.t_ns) + 4;
      const end = at + context.measureText(text).width;
      if (at < free || end > width - RIGHT) continue;
      context.textAlign = "left";
      context.fillText(text, at, TOP + 6);
      free = end + 8;
    }
  }

  /** The values at the pointer, in the chips; without a pointer, nothing. */
  values() {
    this.over.redraw();
    for (const s of this.shown()) {
      const i = this.time.cursor === null ? -1 : holding(s, this.time.cursor);
      const output = this.outputs?.get(s.id);
      if (output) output.textContent = i < 0 ? "" : quantity(s.v[i], s.unit);
    }
  }

  remove() {
    removeEventListener("pointerdown", this.close);
    this.base.remove();
    this.over.remove();
  }
}

/** First index with `t >= at`. */
export function lower(t, at) {
  let [low, high] = [0, t.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (t[middle] < at) low = middle + 1;
    else high = middle;
  }
  return low;
}

const inside = (s, from, to) => ({ start: lower(s.t, from), end: lower(s.t, to + 1) });

/** Values that the axis must hold: samples in view, and what is drawn towards the neighbours on either side. */
function onPlot(s, { start, end }, from, to) {
  const values = s.v.slice(start, end);
  if (STEPS.includes(s.unit)) return end < s.v.length ? [...values, s.v[end]] : values;
  const at = (i, t) => s.v[i - 1] + ((s.v[i] - s.v[i - 1]) * (t - s.t[i - 1])) / (s.t[i] - s.t[i - 1] || 1);
  if (start > 0 && start < s.v.length) values.push(at(start, from));
  if (end > 0 && end < s.v.length) values.push(at(end, to));
  return values;
}

/** Index of the sample that tells the value at an instant: the step that covers it, else the nearest. */
function holding(s, at) {
  if (!STEPS.includes(s.unit)) return nearest(s.t, at);
  const i = lower(s.t, at);
  return i < s.t.length ? i : -1;
}

function nearest(t, at) {
  const i = lower(t, at);
  if (i === 0) return t.length ? 0 : -1;
  return i === t.length || at - t[i - 1] <= t[i] - at ? i - 1 : i;
}
