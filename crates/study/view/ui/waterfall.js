// What each frame went through: a column a frame, at the time at which its capture began; upwards the time since then.

import { linear, range, ticks, tickText } from "./axis.js";
import { colour, hairline, stageColour, Surface } from "./canvas.js";
import { h, pairs } from "./dom.js";
import { plural, quantity, scaleOf } from "./format.js";
import { lower } from "./panel.js";
import { backdrop, control, crosshair, LEFT, RIGHT } from "./time.js";

const TOP = 8;
const LABELS = 22;
const HEIGHT = 230;
const WIDEST = 26;

export class Waterfall {
  constructor(time, tip) {
    this.time = time;
    this.tip = tip;
    this.note = h("span", { class: "quiet small" });
    this.legend = h("div", { class: "legend" });
    this.plot = h("div", { class: "plot" });
    this.element = h("section", { class: "panel", id: "waterfall", "aria-label": "Stages of each frame" },
      h("div", { class: "head" }, h("h2", {}, "frames"), this.note), this.legend, this.plot);
    this.base = new Surface(this.plot, { height: HEIGHT, draw: (c, w) => this.draw(c, w), label: "Stages of each frame over time" });
    this.over = new Surface(this.plot, { height: HEIGHT, over: true, draw: (c, w) => crosshair(c, time, w, TOP, HEIGHT - LABELS) });
    control(this.base, time);
    time.addEventListener("range", () => this.base.redraw());
    time.addEventListener("cursor", () => this.over.redraw());
    this.base.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.base.canvas.addEventListener("pointerleave", () => tip.hide());
  }

  set(timeline, answer) {
    this.timeline = timeline;
    this.answer = answer;
    this.starts = answer.frames.map((f) => f.t);
    const lost = answer.unmatched.filter(([, n]) => n).map(([panel, n]) => `${n} only partly known at ${panel}`);
    const fewer = answer.in_interval > answer.frames.length ? `; of ${answer.in_interval} here the slowest of each column` : "";
    this.note.textContent = `${plural(answer.matched, "frame")} seen on every panel${lost.length ? `, ${lost.join(", ")}` : ""}${
      answer.mismatched ? `, ${answer.mismatched} of differing size` : ""}${fewer}`;
    this.legend.replaceChildren(...answer.stages.map((stage, i) => h("span", {
      class: "key small",
      title: stage.relative ? "Ends on another clock than it begins, aligned from the frames: relative to the quickest frame" : stage.uncertainty_ns ? "Ends on another clock than it begins: true within the stated uncertainty" : "Begins and ends on one clock",
    }, h("i", { colour: stageColour(stage.name, i) }), stage.label, stage.uncertainty_ns ? h("span", { class: "quiet" }, `± ${quantity(stage.uncertainty_ns, "ns")}${stage.relative ? ", relative" : ""}`) : null)));
    this.base.now();
    this.over.now();
  }

  /** Frames that are (partly) in sight, with one more on either side. */
  visible() {
    const first = Math.max(0, lower(this.starts, this.time.from) - 1);
    const last = Math.min(this.starts.length, lower(this.starts, this.time.to) + 1);
    return [first, last];
  }

  /** Width of a column: less than the distance of frames, so that neighbours stay apart. */
  column(width) {
    const [first, last] = this.visible();
    if (last - first < 2) return WIDEST;
    const x = this.time.scale(width);
    const apart = (x(this.starts[last - 1]) - x(this.starts[first])) / (last - first - 1);
    return Math.max(1, Math.min(WIDEST, apart * 0.72));
  }

  draw(context, width) {
    if (!this.answer) return;
    const bottom = HEIGHT - LABELS;
    backdrop(context, this.time, this.timeline, width, TOP, bottom, true);
    const [first, last] = this.visible();
    const frames = this.answer.frames.slice(first, last);
    const [low, high] = range(frames.flatMap((f) => f.stages.flatMap((s) => s ?? [])), true);
    const y = linear(low, high, bottom, TOP);
    const scale = scaleOf("ns", high);
    const values = ticks(low / scale.by, high / scale.by, 4);
    const texts = tickText(values);
    values.forEach((v, i) => {
      hairline(context, LEFT, y(v * scale.by), width - RIGHT, y(v * scale.by), v === 0 ? colour("quiet") : colour("grid"));
      context.fillStyle = colour("quiet");
      context.textAlign = "right";
      context.fillText(texts[i], LEFT - 6, y(v * scale.by));
    });
    context.save();
    context.translate(9, (TOP + bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.textAlign = "center";
    context.fillText(`since capture began [${scale.unit}]`, 0, 0);
    context.restore();
    context.save();
    context.beginPath();
    context.rect(LEFT, 0, width - LEFT - RIGHT, HEIGHT);
    context.clip();
    this.bars(context, width, frames, y);
    context.restore();
    if (!frames.length) {
      context.fillStyle = colour("quiet");
      context.textAlign = "center";
      context.fillText("No frame in this interval", width / 2, HEIGHT / 2);
    }
  }

  bars(context, width, frames, y) {
    const x = this.time.scale(width);
    const w = this.column(width);
    for (const frame of frames) {
      frame.stages.forEach((stage, i) => {
        if (!stage) return;
        context.fillStyle = stageColour(this.answer.stages[i].name, i);
        const [a, b] = [y(stage[0]), y(stage[1])];
        context.fillRect(x(frame.t) - w / 2, Math.min(a, b), w, Math.max(0.75, Math.abs(a - b)));
      });
      if (!frame.dropped && !frame.missing.length) continue;
      const ends = frame.stages.flatMap((s) => s ?? []);
      context.fillStyle = colour("fault");
      context.textAlign = "center";
      context.fillText("✕", x(frame.t), Math.max(TOP + 4, y(Math.max(0, ...ends)) - 7));
    }
  }

  hover(event) {
    if (!this.answer?.frames.length) return;
    const width = this.base.width;
    const x = this.time.scale(width);
    const [px, py] = this.base.at(event);
    const t = x.invert(px);
    const i = lower(this.starts, t);
    const near = [i - 1, i].filter((k) => k >= 0 && k < this.starts.length)
      .sort((a, b) => Math.abs(this.starts[a] - t) - Math.abs(this.starts[b] - t))[0];
    const frame = this.answer.frames[near];
    if (Math.abs(x(frame.t) - px) > Math.max(6, this.column(width)) || py > HEIGHT - LABELS) {
      this.tip.hide();
      return;
    }
    this.tip.show(event.clientX, event.clientY, ...this.describe(frame));
  }

  describe(frame) {
    const { stages } = this.answer;
    const end = Math.max(0, ...frame.stages.map((s) => s?.[1] ?? 0));
    const about = [frame.bytes === undefined ? null : quantity(frame.bytes, "B"), frame.keyframe ? "key frame" : null, frame.dropped ? "dropped" : null].filter(Boolean);
    const rows = stages.map((stage, i) => {
      const span = frame.stages[i];
      const unsure = stage.uncertainty_ns ? ` ± ${quantity(stage.uncertainty_ns, "ns")}${stage.relative ? ", relative to the quickest frame" : ""}` : "";
      return [stage.label, span ? `${quantity(span[1] - span[0], "ns")}${unsure}` : "–", stageColour(stage.name, i)];
    });
    return [h("b", {}, `Frame ${frame.index}`), h("span", { class: "quiet" }, ` at ${(frame.t / 1e9).toFixed(3)} s${about.length ? `, ${about.join(", ")}` : ""}`),
      pairs([...rows, ["until the last of them", quantity(end, "ns")]]),
      ...(frame.missing.length ? [h("div", { class: "error small" }, `Not seen by: ${frame.missing.join(", ")}`)] : [])];
  }

  remove() {
    this.base.remove();
    this.over.remove();
  }
}
