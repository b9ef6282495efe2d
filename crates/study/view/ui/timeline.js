// Draws one panel's indicators over the shared time axis.

import { fit, rule, text, theme } from "./canvas.js";
import { scale, tickLabels, ticks } from "./format.js";

export const LEFT = 58;
export const RIGHT = 58;
const TOP = 8;
const BOTTOM = 20;
const HEIGHT = 138;

// Pixels of an instant and back, the same in every panel.
export class Axis {
  constructor(from, to, width) {
    this.from = from;
    this.to = to;
    this.left = LEFT;
    this.right = Math.max(LEFT + 10, width - RIGHT);
  }

  x(t) { return this.left + ((t - this.from) / (this.to - this.from)) * (this.right - this.left); }

  t(x) { return this.from + ((x - this.left) / (this.right - this.left)) * (this.to - this.from); }
}

// Index of the sample nearest to an instant; -1 without samples.
export function nearest(times, t) {
  let [low, high] = [0, times.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < t) low = middle + 1; else high = middle;
  }
  if (low === times.length) return times.length - 1;
  return low > 0 && t - times[low - 1] < times[low] - t ? low - 1 : low;
}

const kind = (unit) => (unit === "" ? "1" : unit);

// The units on the two vertical axes, in the order in which they were chosen.
export const units = (series) => [...new Set(series.map((s) => kind(s.unit)))].slice(0, 2);

function extent(series, axis) {
  let [low, high] = [Infinity, -Infinity];
  for (const { t, v } of series) {
    for (let i = 0; i < t.length; i += 1) {
      if (v[i] === null || t[i] < axis.from || t[i] > axis.to) continue;
      if (v[i] < low) low = v[i];
      if (v[i] > high) high = v[i];
    }
  }
  if (low > high) return null;
  // From zero, unless the values are far from it and close together (memory, clocks).
  const near = low > 0 && (high - low) / high < 0.15 ? low - Math.max(high - low, high * 0.002) * 0.6 : Math.min(0, low);
  const pad = (high - near) * 0.08 || 1;
  return [near < 0 ? near - pad : near, high + pad];
}

// What lies outside the recorded window, the markers, and the ticks of time.
export function ground(context, axis, box, colours, data, { label = false, panel = null } = {}) {
  const { top, bottom } = box;
  const clip = (t) => Math.max(axis.left, Math.min(axis.right, axis.x(t)));
  if (data.window_ns) {
    const [start, end] = data.window_ns;
    context.fillStyle = colours.shade;
    context.fillRect(axis.left, top, clip(start) - axis.left, bottom - top);
    context.fillRect(clip(end), top, axis.right - clip(end), bottom - top);
    if (label && clip(start) - axis.left > 60) text(context, "warm-up", (axis.left + clip(start)) / 2, top + 9, { colour: colours.quiet, font: colours.font(11), align: "center" });
  }
  const marks = ticks(axis.from / 1e9, axis.to / 1e9, Math.max(3, (axis.right - axis.left) / 110));
  const labels = tickLabels(marks);
  marks.forEach((s, i) => {
    const x = axis.x(s * 1e9);
    rule(context, x, top, x, bottom, colours.grid);
    text(context, i === marks.length - 1 || i === 0 ? `${labels[i]} s` : labels[i], x, bottom + 11, { colour: colours.quiet, font: colours.font(11), align: "center" });
  });
  for (const marker of data.markers) {
    if (marker.t_ns < axis.from || marker.t_ns > axis.to) continue;
    const own = marker.panel === panel || marker.panel === null;
    const bad = ["fault", "gone"].includes(marker.kind);
    rule(context, axis.x(marker.t_ns), top, axis.x(marker.t_ns), bottom, bad ? colours.warn : own ? colours.quiet : colours.line, [3, 3]);
  }
}

// Draws; gives the places of the vertical axes for hit tests.
export function drawPanel(canvas, { axis, data, panel, series, cursor, colour, uncertainty, first, drag }) {
  const colours = theme();
  const { context, width } = fit(canvas, HEIGHT);
  const box = { top: TOP, bottom: HEIGHT - BOTTOM };
  const shared = new Axis(axis.from, axis.to, width);
  ground(context, shared, box, colours, data, { label: first, panel });
  units(series).forEach((unit, side) => {
    const own = series.filter((s) => kind(s.unit) === unit);
    const span = extent(own, shared);
    if (!span) return;
    const shown = scale(unit, Math.max(Math.abs(span[0]), Math.abs(span[1])));
    const y = (v) => box.bottom - ((v - span[0]) / (span[1] - span[0])) * (box.bottom - box.top);
    const marks = ticks(span[0] / shown.divisor, span[1] / shown.divisor, 3);
    const labels = tickLabels(marks);
    marks.forEach((v, i) => {
      const py = y(v * shown.divisor);
      if (side === 0) rule(context, shared.left, py, shared.right, py, colours.grid);
      if (py > box.top + 14) text(context, labels[i], side ? shared.right + 6 : shared.left - 6, py, { colour: colours.quiet, font: colours.font(11), align: side ? "left" : "right" });
    });
    text(context, shown.unit || "count", side ? shared.right + 6 : shared.left - 6, box.top + 4, { colour: colours.ink, font: colours.font(11, 600), align: side ? "left" : "right" });
    for (const s of own) line(context, s, shared, y, box, colour(s.id), side === 1);
  });
  rule(context, shared.left, box.bottom, shared.right, box.bottom, colours.line);
  if (!series.some((s) => s.t?.length)) text(context, "nothing chosen, or no sample in this interval", (shared.left + shared.right) / 2, HEIGHT / 2 - 8, { colour: colours.quiet, font: colours.font(12), align: "center" });
  crosshair(context, shared, box, colours, cursor, uncertainty, drag);
  return shared;
}

export function crosshair(context, axis, box, colours, cursor, uncertainty, drag) {
  if (drag) {
    const [a, b] = [axis.x(Math.min(drag.from, drag.to)), axis.x(Math.max(drag.from, drag.to))];
    context.fillStyle = colours.accent;
    context.globalAlpha = 0.15;
    context.fillRect(a, box.top, b - a, box.bottom - box.top);
    context.globalAlpha = 1;
  }
  if (cursor === null || cursor < axis.from || cursor > axis.to) return;
  const x = axis.x(cursor);
  const half = uncertainty ? axis.x(cursor + uncertainty) - x : 0;
  if (half > 0.7) {
    // What the clock of this panel leaves open.
    context.fillStyle = colours.accent;
    context.globalAlpha = 0.18;
    context.fillRect(Math.max(axis.left, x - half), box.top, Math.min(axis.right, x + half) - Math.max(axis.left, x - half), box.bottom - box.top);
    context.globalAlpha = 1;
  }
  rule(context, x, box.top, x, box.bottom, colours.accent);
}

function line(context, series, axis, y, box, colour, dashed) {
  const { t, v } = series;
  if (!t) return;
  context.save();
  context.beginPath();
  context.rect(axis.left, box.top - 2, axis.right - axis.left, box.bottom - box.top + 4);
  context.clip();
  context.strokeStyle = colour;
  context.fillStyle = colour;
  context.lineWidth = 1.5;
  context.lineJoin = "round";
  if (dashed) context.setLineDash([6, 2]);
  context.beginPath();
  let drawing = false;
  for (let i = 0; i < t.length; i += 1) {
    if (v[i] === null) { drawing = false; continue; }
    if (drawing) context.lineTo(axis.x(t[i]), y(v[i])); else context.moveTo(axis.x(t[i]), y(v[i]));
    drawing = true;
  }
  context.stroke();
  context.setLineDash([]);
  const inside = t.filter((x) => x >= axis.from && x <= axis.to).length;
  if (inside > 0 && (axis.right - axis.left) / inside > 9) {
    for (let i = 0; i < t.length; i += 1) {
      if (v[i] === null) continue;
      context.beginPath();
      context.arc(axis.x(t[i]), y(v[i]), 2.4, 0, 7);
      context.fill();
    }
  }
  context.restore();
}
