// The frames of the visible interval: where the time of each went.

import { element, swatch } from "./api.js";
import { fit, rule, text, theme } from "./canvas.js";
import { duration, number, seconds, tickLabels, ticks } from "./format.js";
import { Axis, LEFT, RIGHT, crosshair, ground } from "./timeline.js";

const HEIGHT = 216;
const TOP = 16;
const BOTTOM = 20;
const ROW = 15;
export const ROWS = 40;

// Work in full colours, ways between panels and waits in lighter and grey ones.
const COLOURS = {
  capture: 0, encode: 1, send: 2, host: 3, to_client: 5, decode: 4, present: 6,
};
const WAITS = new Set(["to_host", "queue"]);

export function stageColour(name, i) {
  const { colours, quiet } = theme();
  return WAITS.has(name) ? quiet : colours[COLOURS[name] ?? i % colours.length];
}

export function legend(stages) {
  return stages.map((s, i) => element("li", { title: s.uncertainty_ns ? `known to ± ${duration(s.uncertainty_ns)}` : "" }, swatch(stageColour(s.name, i)), s.label));
}

const length = (frame) => frame.stages.reduce((most, s) => (s ? Math.max(most, s[1]) : most), 0);

function top(frames) {
  const lengths = frames.map(length).sort((a, b) => a - b);
  return (lengths.at(-1) || 1e6) * 1.06;
}

// One thin column a frame, on the time axis of the panels above; height is the time since its capture began.
export function drawColumns(canvas, { axis, data, frames, stages, cursor, hovered, drag }) {
  const colours = theme();
  const { context, width } = fit(canvas, HEIGHT);
  const shared = new Axis(axis.from, axis.to, width);
  const box = { top: TOP, bottom: HEIGHT - BOTTOM };
  ground(context, shared, box, colours, data);
  const high = top(frames);
  const y = (ns) => box.bottom - (ns / high) * (box.bottom - box.top);
  const marks = ticks(0, high / 1e6, 4);
  const labels = tickLabels(marks);
  marks.forEach((ms, i) => {
    rule(context, shared.left, y(ms * 1e6), shared.right, y(ms * 1e6), ms ? colours.grid : colours.line);
    if (y(ms * 1e6) > box.top + 8) text(context, labels[i], shared.left - 6, y(ms * 1e6), { colour: colours.quiet, font: colours.font(11), align: "right" });
  });
  text(context, "ms", shared.left - 6, box.top, { colour: colours.ink, font: colours.font(11, 600), align: "right" });
  const gaps = frames.slice(1).map((f, i) => shared.x(f.t) - shared.x(frames[i].t)).sort((a, b) => a - b);
  const wide = Math.max(1.5, Math.min(16, (gaps[gaps.length >> 1] ?? 16) * 0.82));
  const fills = stages.map((s, i) => stageColour(s.name, i));
  const hits = [];
  for (const frame of frames) {
    const x = shared.x(frame.t);
    if (x < shared.left - wide || x > shared.right) continue;
    const left = Math.max(shared.left, x);
    const right = Math.min(shared.right, x + wide);
    frame.stages.forEach((span, i) => {
      if (!span) return;
      const [a, b] = [Math.min(span[0], span[1]), Math.max(span[0], span[1])];
      context.fillStyle = fills[i];
      context.fillRect(left, y(b), Math.max(1, right - left), Math.max(0.6, y(a) - y(b)));
    });
    if (frame.dropped || frame.missing.length) text(context, "×", x + wide / 2, y(length(frame)) - 7, { colour: colours.warn, font: colours.font(14, 600), align: "center" });
    if (frame.keyframe) triangle(context, x + wide / 2, box.bottom + 1, colours.ink);
    if (frame === hovered) {
      context.strokeStyle = colours.accent;
      context.lineWidth = 1.5;
      context.strokeRect(left - 1, y(length(frame)) - 1, right - left + 2, box.bottom - y(length(frame)) + 1);
    }
    hits.push({ frame, left: x - 2, right: x + Math.max(wide, 3) + 2, x: x + wide / 2 });
  }
  if (!frames.length) text(context, "no frame in this interval", (shared.left + shared.right) / 2, HEIGHT / 2, { colour: colours.quiet, font: colours.font(12), align: "center" });
  crosshair(context, shared, box, colours, cursor, 0, drag);
  return (px) => hits.filter((h) => px >= h.left && px <= h.right).sort((a, b) => Math.abs(a.x - px) - Math.abs(b.x - px))[0]?.frame ?? null;
}

// One row a frame, from the start of its capture to the right.
export function drawRows(canvas, { frames, stages, hovered, axis }) {
  const colours = theme();
  const height = TOP + Math.max(1, frames.length) * ROW + BOTTOM;
  const { context, width } = fit(canvas, height);
  const high = top(frames);
  const [left, right] = [LEFT + 30, width - RIGHT];
  const x = (ns) => left + (ns / high) * (right - left);
  const bottom = height - BOTTOM;
  const marks = ticks(0, high / 1e6, 8);
  const labels = tickLabels(marks);
  marks.forEach((ms, i) => {
    rule(context, x(ms * 1e6), TOP, x(ms * 1e6), bottom, colours.grid);
    text(context, i === marks.length - 1 ? `${labels[i]} ms` : labels[i], x(ms * 1e6), bottom + 11, { colour: colours.quiet, font: colours.font(11), align: "center" });
  });
  frames.forEach((frame, row) => {
    const y = TOP + row * ROW;
    text(context, seconds(frame.t, axis.to - axis.from), left - 8, y + ROW / 2, { colour: frame === hovered ? colours.ink : colours.quiet, font: colours.font(11), align: "right" });
    frame.stages.forEach((span, i) => {
      if (!span) return;
      const [a, b] = [Math.min(span[0], span[1]), Math.max(span[0], span[1])];
      context.fillStyle = stageColour(stages[i].name, i);
      context.fillRect(x(a), y + 2, Math.max(1, x(b) - x(a)), ROW - 4);
    });
    const words = [frame.keyframe && "key", frame.dropped && "dropped", frame.missing.length && `not seen by ${frame.missing.join(", ")}`].filter(Boolean).join(", ");
    if (words) text(context, words, x(length(frame)) + 6, y + ROW / 2, { colour: frame.dropped || frame.missing.length ? colours.warn : colours.quiet, font: colours.font(11) });
    if (frame === hovered) { context.strokeStyle = colours.accent; context.lineWidth = 1; context.strokeRect(left - 1, y + 0.5, x(length(frame)) - left + 2, ROW - 1); }
  });
  return (px, py) => frames[Math.floor((py - TOP) / ROW)] ?? null;
}

function triangle(context, x, y, colour) {
  context.fillStyle = colour;
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x - 3, y + 4.5);
  context.lineTo(x + 3, y + 4.5);
  context.fill();
}

// The numbers of one frame.
export function frameNote(frame, stages) {
  const row = (mark, name, value) => element("tr", {}, element("td", {}, mark, name), element("td", { class: "n" }, value));
  const rows = stages.map((s, i) => {
    const span = frame.stages[i];
    const known = span && duration(span[1] - span[0]) + (s.uncertainty_ns ? ` ± ${duration(s.uncertainty_ns)}` : "");
    return row(swatch(stageColour(s.name, i)), s.label, known ?? "–");
  });
  const marks = [frame.keyframe && "key frame", frame.dropped && "dropped", frame.missing.length && `not seen by ${frame.missing.join(", ")}`].filter(Boolean);
  return element("div", {}, element("div", {}, `frame ${frame.index} at ${seconds(frame.t, 1e7)}`, frame.bytes === undefined ? "" : `, ${number(frame.bytes)} B`),
    marks.length ? element("div", { class: "failed" }, marks.join(", ")) : null,
    element("table", {}, element("tbody", {}, ...rows, row("", "to its last known stage", duration(length(frame))))));
}
