// The matrix as bars or lines: one small plot a facet, means with their 95 % interval, every run a dot.

import { linear, range, ticks, tickText } from "./axis.js";
import { colour, fitted, hairline, seriesColour, Surface } from "./canvas.js";

const LEFT = 62;
const GAP = 22;
const TITLE = 24;
const BOTTOM = 44;
const PLOT = 250;
const LEAST = 250;

/**
 * Draws a model `{ facets: [{ title, marks: [{ x, series, cell }] }], xs: [text], xNumbers, series: [text], xTitle, yTitle, lines,
 * fromZero }`. `on.hover(mark, run, event)` and `on.open(mark, run)` tell what the pointer or the keyboard is at.
 */
export class Chart {
  constructor(container, on) {
    this.on = on;
    this.model = null;
    this.focus = null;
    this.surface = new Surface(container, {
      height: (width) => this.layout(width).height,
      draw: (context, width) => this.draw(context, width),
      label: "Plot of the chosen indicator; the table below has the same numbers. Arrow keys go from point to point, Enter opens its runs.",
    });
    const { canvas } = this.surface;
    canvas.addEventListener("pointermove", (event) => this.hover(event));
    canvas.addEventListener("pointerleave", () => this.leave());
    canvas.addEventListener("click", (event) => this.click(event));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.leave());
  }

  set(model) {
    this.model = model;
    this.focus = null;
    this.surface.canvas.setAttribute("aria-label", `${model.yTitle} by ${model.xTitle}; the table below has the same numbers.`);
    this.surface.now();
  }

  layout(width) {
    const n = Math.max(1, this.model?.facets.length ?? 1);
    const columns = Math.max(1, Math.min(n, Math.floor((width - LEFT + GAP) / (LEAST + GAP))));
    const rows = Math.ceil(n / columns);
    const plotWidth = (width - LEFT - 6 - GAP * (columns - 1)) / columns;
    const boxes = Array.from({ length: n }, (_, i) => {
      const [column, row] = [i % columns, Math.floor(i / columns)];
      return { left: LEFT + column * (plotWidth + GAP), top: TITLE + row * (TITLE + PLOT + BOTTOM), width: plotWidth, first: column === 0 };
    });
    return { boxes, height: rows * (TITLE + PLOT + BOTTOM) };
  }

  /** The scale that all facets share. Whiskers count, and are cut at 0 where the quantity cannot be less. */
  scale() {
    const cells = this.model.facets.flatMap((f) => f.marks.map((m) => m.cell));
    const values = cells.flatMap((c) => [c.mean, ...c.values.map((v) => v.value)]).filter((v) => v !== null);
    const least = Math.min(...values, 0);
    const ends = cells.flatMap((c) => [c.low, c.high]).filter((v) => v !== null).map((v) => (least >= 0 ? Math.max(0, v) : v));
    const fromZero = !this.model.lines || this.model.fromZero;
    return range([...values, ...ends], fromZero);
  }

  /** Pixels of a mark: centre, half of its width, end of its slot. */
  place(mark, box) {
    const { model } = this;
    const slot = box.width / model.xs.length;
    if (model.lines) {
      const numbers = model.xNumbers;
      const [low, high] = numbers ? [Math.min(...numbers), Math.max(...numbers)] : [0, 0];
      const pad = Math.min(46, slot / 2);
      const x = numbers && high > low
        ? linear(low, high, box.left + pad, box.left + box.width - pad)(numbers[mark.x])
        : box.left + slot * (mark.x + 0.5);
      const n = model.series.length;
      return { x: x + (mark.series - (n - 1) / 2) * 10, half: 4 };
    }
    const n = model.series.length;
    const bar = Math.min(64, (slot * 0.78) / n);
    return { x: box.left + slot * (mark.x + 0.5) + (mark.series - (n - 1) / 2) * bar, half: Math.max(1.5, bar / 2 - 1.5) };
  }

  draw(context, width) {
    const { model } = this;
    if (!model) return;
    const { boxes } = this.layout(width);
    const [low, high] = this.scale();
    this.placed = [];
    model.facets.forEach((facet, i) => {
      const box = boxes[i];
      const y = linear(low, high, box.top + PLOT, box.top);
      this.frame(context, facet, box, y, [low, high]);
      if (model.lines) this.lines(context, facet, box, y);
      for (const mark of facet.marks) this.mark(context, mark, box, y);
    });
    if (this.focus) this.ring(context);
  }

  frame(context, facet, box, y, [low, high]) {
    const { model } = this;
    const values = ticks(low, high, 5);
    const texts = tickText(values);
    values.forEach((v, i) => {
      hairline(context, box.left, y(v), box.left + box.width, y(v), v === 0 ? colour("quiet") : colour("grid"));
      if (!box.first) return;
      context.fillStyle = colour("quiet");
      context.textAlign = "right";
      context.fillText(texts[i], box.left - 8, y(v));
    });
    context.textAlign = "left";
    context.fillStyle = colour("ink");
    if (facet.title) context.fillText(fitted(context, facet.title, box.width), box.left, box.top - 13);
    if (box.first) {
      context.save();
      context.translate(12, box.top + PLOT / 2);
      context.rotate(-Math.PI / 2);
      context.textAlign = "center";
      context.fillText(fitted(context, model.yTitle, PLOT + 20), 0, 0);
      context.restore();
    }
    context.textAlign = "center";
    const slot = box.width / model.xs.length;
    model.xs.forEach((text, x) => {
      const at = this.place({ x, series: (model.series.length - 1) / 2 }, box).x;
      context.fillStyle = colour("ink");
      context.fillText(fitted(context, text, Math.max(24, slot - 4)), at, box.top + PLOT + 13);
    });
    context.fillStyle = colour("quiet");
    context.fillText(model.xTitle, box.left + box.width / 2, box.top + PLOT + 31);
  }

  lines(context, facet, box, y) {
    this.model.series.forEach((_, series) => {
      context.strokeStyle = seriesColour(series);
      context.lineWidth = 2;
      context.beginPath();
      let pen = false;
      for (const mark of facet.marks.filter((m) => m.series === series).sort((a, b) => a.x - b.x)) {
        if (mark.cell.mean === null) {
          pen = false;
          continue;
        }
        const at = [this.place(mark, box).x, y(mark.cell.mean)];
        if (pen) context.lineTo(...at);
        else context.moveTo(...at);
        pen = true;
      }
      context.stroke();
    });
  }

  mark(context, mark, box, y) {
    const { x, half } = this.place(mark, box);
    const { cell } = mark;
    const base = y(Math.max(y.invert(box.top + PLOT), 0));
    const placed = { mark, x, half: Math.max(half, 9), box, top: base, dots: [] };
    this.placed.push(placed);
    if (cell.mean !== null) this.value(context, placed, y, half);
    // Last, on a patch of the card's colour: a failure must not drown in its bar.
    if (cell.without.length) this.cross(context, x, box.top + PLOT - 12, cell.without.length);
  }

  value(context, placed, y, half) {
    const { mark, x, box, top: base } = placed;
    const { cell } = mark;
    const tint = seriesColour(mark.series);
    const top = y(cell.mean);
    placed.top = top;
    context.fillStyle = tint;
    if (this.model.lines) {
      context.beginPath();
      context.arc(x, top, 4, 0, 2 * Math.PI);
      context.fill();
    } else {
      context.globalAlpha = 0.8;
      context.fillRect(x - half, Math.min(top, base), half * 2, Math.max(1, Math.abs(base - top)));
      context.globalAlpha = 1;
    }
    // Lines of several series cross: their whiskers and runs must tell whose they are.
    const own = this.model.lines ? tint : colour("ink");
    if (cell.low !== null) this.whisker(context, x, y, cell, box, half, own);
    const n = cell.values.length;
    cell.values.forEach((v, i) => {
      const dx = n > 1 && !this.model.lines ? ((i / (n - 1)) * 2 - 1) * Math.min(half * 0.6, 14) : 0;
      const dot = { run: v.run, x: x + dx, y: y(v.value) };
      placed.dots.push(dot);
      if (v.flags.length) {
        this.warning(context, dot);
        return;
      }
      context.beginPath();
      context.arc(dot.x, dot.y, 2.6, 0, 2 * Math.PI);
      context.fillStyle = colour("card");
      context.fill();
      context.strokeStyle = own;
      context.lineWidth = 1;
      context.stroke();
    });
  }

  /** A run that something outside disturbed: another shape than the others' circles. */
  warning(context, { x, y }) {
    context.beginPath();
    context.moveTo(x, y - 6);
    context.lineTo(x + 5.5, y + 4);
    context.lineTo(x - 5.5, y + 4);
    context.closePath();
    context.fillStyle = colour("card");
    context.fill();
    context.strokeStyle = colour("warn");
    context.lineWidth = 1.8;
    context.stroke();
  }

  /** The interval; an end beyond the axis (a quantity that cannot be negative) has no cap. */
  whisker(context, x, y, cell, box, half, own) {
    const cap = Math.min(6, half);
    const bottom = Math.min(y(cell.low), box.top + PLOT);
    context.strokeStyle = own;
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(x, y(cell.high));
    context.lineTo(x, bottom);
    context.moveTo(x - cap, y(cell.high));
    context.lineTo(x + cap, y(cell.high));
    if (y(cell.low) <= box.top + PLOT) {
      context.moveTo(x - cap, bottom);
      context.lineTo(x + cap, bottom);
    }
    context.stroke();
  }

  cross(context, x, y, n) {
    context.fillStyle = colour("card");
    context.beginPath();
    context.arc(x, y, 8, 0, 2 * Math.PI);
    context.fill();
    context.strokeStyle = colour("fault");
    context.lineWidth = 2;
    context.beginPath();
    for (const d of [-1, 1]) {
      context.moveTo(x - 4, y - 4 * d);
      context.lineTo(x + 4, y + 4 * d);
    }
    context.stroke();
    if (n < 2) return;
    context.fillStyle = colour("fault");
    context.textAlign = "left";
    context.fillText(String(n), x + 11, y);
  }

  ring(context) {
    const placed = this.placed.find((p) => p.mark === this.focus);
    if (!placed) return;
    context.strokeStyle = colour("focus");
    context.lineWidth = 2;
    const bottom = placed.box.top + PLOT;
    context.strokeRect(placed.x - placed.half - 3, placed.top - 8, placed.half * 2 + 6, Math.max(16, bottom - placed.top + 10));
  }

  /** The mark, and the run's dot, at a place. */
  at([px, py]) {
    const inside = this.placed?.filter((p) => py >= p.box.top - 6 && py <= p.box.top + PLOT + BOTTOM && px >= p.box.left && px <= p.box.left + p.box.width) ?? [];
    let best = null;
    for (const placed of inside) {
      for (const dot of placed.dots) {
        const away = Math.hypot(dot.x - px, dot.y - py);
        if (away <= 7 && (!best?.run || away < best.away)) best = { placed, run: dot.run, away };
      }
    }
    if (best) return best;
    for (const placed of inside) {
      const away = Math.abs(placed.x - px) + (this.model.lines ? Math.abs(placed.top - py) * 0.5 : 0);
      const reach = this.model.lines ? 40 : placed.half + 3;
      if (away <= reach && (!best || away < best.away)) best = { placed, run: null, away };
    }
    return best;
  }

  hover(event) {
    const found = this.at(this.surface.at(event));
    this.surface.canvas.style.cursor = found ? "pointer" : "default";
    this.on.hover(found?.placed.mark ?? null, found?.run ?? null, event.clientX, event.clientY);
  }

  leave() {
    this.focus = null;
    this.surface.redraw();
    this.on.hover(null);
  }

  click(event) {
    const found = this.at(this.surface.at(event));
    if (found) this.on.open(found.placed.mark, found.run);
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter" && this.focus) this.on.open(this.focus, null);
    if (!step || !this.placed?.length) return;
    event.preventDefault();
    const order = [...this.placed].sort((a, b) => a.box.top - b.box.top || a.x - b.x);
    const now = order.findIndex((p) => p.mark === this.focus);
    const next = order[Math.max(0, Math.min(order.length - 1, now < 0 ? 0 : now + step))];
    this.focus = next.mark;
    this.surface.now();
    const box = this.surface.canvas.getBoundingClientRect();
    this.on.hover(next.mark, null, box.left + next.x, box.top + next.top);
  }

  remove() {
    this.surface.remove();
  }
}
