// The time that all plots of a run share: the interval shown, and where the pointer is.

import { linear, ticks, tickText } from "./axis.js";
import { colour, hairline } from "./canvas.js";

export const LEFT = 58;
export const RIGHT = 10;
/** Nanoseconds of the shortest interval that can be shown. */
const SHORTEST = 1e5;
/** Pixels that a press must move to be a drag. */
const DRAG = 4;

export class Time extends EventTarget {
  constructor(end, from, to) {
    super();
    this.end = end;
    this.from = 0;
    this.to = end;
    this.cursor = null;
    this.brush = null;
    if (Number.isFinite(from) && Number.isFinite(to) && to > from) [this.from, this.to] = this.clamped(from, to);
  }

  get whole() {
    return this.from <= 0 && this.to >= this.end;
  }

  clamped(from, to) {
    const length = Math.min(this.end, Math.max(SHORTEST, to - from));
    const start = Math.max(0, Math.min(from + (to - from - length) / 2, this.end - length));
    return [start, start + length];
  }

  set(from, to) {
    [from, to] = this.clamped(from, to);
    if (from === this.from && to === this.to) return;
    this.from = from;
    this.to = to;
    this.dispatchEvent(new Event("range"));
  }

  /** A run under way grows; whoever looks at all of it goes on to do so. */
  grow(end) {
    const { whole } = this;
    this.end = end;
    if (whole) this.set(0, end);
  }

  zoom(factor, about = (this.from + this.to) / 2) {
    this.set(about - (about - this.from) * factor, about + (this.to - about) * factor);
  }

  pan(by) {
    const shift = Math.max(-this.from, Math.min(by, this.end - this.to));
    this.set(this.from + shift, this.to + shift);
  }

  point(cursor) {
    this.cursor = cursor;
    this.dispatchEvent(new Event("cursor"));
  }

  scale(width) {
    return linear(this.from, this.to, LEFT, width - RIGHT);
  }
}

/** Wheel, drag, double click and keys over a plot move the shared time. */
export function control(surface, time) {
  const { canvas } = surface;
  const at = (event) => time.scale(surface.width).invert(surface.at(event)[0]);
  const length = () => time.to - time.from;
  let press = null;
  canvas.addEventListener("wheel", (event) => {
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey;
    const delta = event.shiftKey && !event.deltaX ? event.deltaY : sideways ? event.deltaX : event.deltaY;
    // Without Ctrl (or a pinch), the wheel is the page's until a click has chosen the plot.
    if (!sideways && !event.ctrlKey && document.activeElement !== canvas) return;
    if (!sideways && delta > 0 && time.whole) return;
    event.preventDefault();
    if (sideways) time.pan((delta / surface.width) * length());
    else time.zoom(Math.exp(Math.max(-200, Math.min(200, delta)) * 0.0025), at(event));
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    press = { x: event.clientX, t: at(event), from: time.from, moved: false, pan: event.shiftKey || event.pointerType === "touch" };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (press && Math.abs(event.clientX - press.x) > DRAG) press.moved = true;
    if (press?.moved && press.pan) {
      const by = ((press.x - event.clientX) / (surface.width - LEFT - RIGHT)) * length();
      time.pan(press.from + by - time.from);
    } else if (press?.moved) time.brush = [press.t, at(event)].sort((a, b) => a - b);
    const t = at(event);
    time.point(t < time.from || t > time.to ? null : t);
  });
  const release = (event, accepted) => {
    const { brush } = time;
    press = null;
    time.brush = null;
    if (accepted && brush) time.set(...brush);
    time.point(time.cursor);
  };
  canvas.addEventListener("pointerup", (event) => release(event, true));
  canvas.addEventListener("pointercancel", (event) => release(event, false));
  canvas.addEventListener("pointerleave", () => time.point(null));
  canvas.addEventListener("dblclick", () => time.set(0, time.end));
  canvas.addEventListener("keydown", (event) => {
    const act = {
      ArrowLeft: () => time.pan(-0.2 * length()),
      ArrowRight: () => time.pan(0.2 * length()),
      "+": () => time.zoom(0.5),
      "=": () => time.zoom(0.5),
      "-": () => time.zoom(2),
      0: () => time.set(0, time.end),
      Escape: () => {
        press = null;
        time.brush = null;
        time.point(null);
      },
    }[event.key];
    if (!act || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    act();
  });
}

/** What every plot over time has: warm-up shaded, markers, vertical grid; the labels too if asked. */
export function backdrop(context, time, timeline, width, top, bottom, labels) {
  const x = time.scale(width);
  const clip = (t) => Math.max(LEFT, Math.min(width - RIGHT, x(t)));
  context.fillStyle = colour("shade");
  const outside = timeline.window_ns ? [[0, timeline.window_ns[0]], [timeline.window_ns[1], time.end]] : [];
  for (const [from, to] of outside) {
    if (to > from && clip(to) > clip(from)) context.fillRect(clip(from), top, clip(to) - clip(from), bottom - top);
  }
  disturbed(context, timeline, clip, top, bottom);
  const seconds = ticks(time.from / 1e9, time.to / 1e9, Math.max(2, width / 110));
  const texts = tickText(seconds);
  seconds.forEach((s, i) => {
    hairline(context, x(s * 1e9), top, x(s * 1e9), bottom, colour("grid"));
    if (!labels) return;
    context.fillStyle = colour("quiet");
    context.textAlign = "center";
    context.fillText(`${texts[i]} s`, Math.max(LEFT + 12, Math.min(width - RIGHT - 14, x(s * 1e9))), bottom + 12);
  });
}

/** Disturbed spans are hatched: the pattern says it, not the colour. */
function disturbed(context, timeline, clip, top, bottom) {
  const spans = (timeline.quality?.disturbances ?? []).flatMap((d) => d.spans_ns ?? []);
  if (!spans.length) return;
  context.save();
  context.beginPath();
  for (const [from, to] of spans) context.rect(clip(from), top, clip(to) - clip(from), bottom - top);
  context.clip();
  context.strokeStyle = colour("warn");
  context.globalAlpha = 0.35;
  context.lineWidth = 1;
  context.beginPath();
  const height = bottom - top;
  for (let x = LEFT - height; x < context.canvas.width; x += 8) {
    context.moveTo(x, bottom);
    context.lineTo(x + height, top);
  }
  context.stroke();
  context.restore();
}

/** Pointer and drag, over everything. */
export function crosshair(context, time, width, top, bottom) {
  const x = time.scale(width);
  if (time.brush) {
    context.fillStyle = colour("shade");
    context.fillRect(x(time.brush[0]), top, x(time.brush[1]) - x(time.brush[0]), bottom - top);
    for (const t of time.brush) hairline(context, x(t), top, x(t), bottom, colour("accent"));
  }
  if (time.cursor !== null) hairline(context, x(time.cursor), top, x(time.cursor), bottom, colour("ink"));
}

/** Kinds that the shading shows already. */
const SHADED = ["window_start", "window_end"];
export const shownMarkers = (timeline) => timeline.markers.filter((m) => !SHADED.includes(m.kind));
