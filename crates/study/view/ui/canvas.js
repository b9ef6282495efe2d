// A canvas as sharp as the screen, in the colours of the style sheet.

export const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif';

let colours = new Map();
const listeners = new Set();
for (const query of ["(prefers-color-scheme: dark)", "(prefers-contrast: more)"]) {
  matchMedia(query).addEventListener("change", () => {
    colours = new Map();
    for (const listener of listeners) listener();
  });
}

/** A colour of the style sheet (`ink`, `c0`). */
export function colour(name) {
  if (!colours.has(name)) {
    colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  }
  return colours.get(name);
}

export const SERIES = 8;
export const seriesColour = (i) => colour(`c${i % SERIES}`);
/** Stages that the style sheet does not know take the colours of series. */
export const stageColour = (name, i) => colour(name) || seriesColour(i);

/** A canvas that fills its container, and calls `draw(context, width, height)` whenever that is needed. */
export class Surface {
  constructor(container, { height, draw, label, over = false }) {
    this.container = container;
    this.height = height;
    this.onDraw = draw;
    this.canvas = document.createElement("canvas");
    if (over) this.canvas.className = "over";
    else {
      this.canvas.tabIndex = 0;
      this.canvas.setAttribute("role", "img");
      this.canvas.setAttribute("aria-label", label ?? "plot");
    }
    container.append(this.canvas);
    this.redraw = this.redraw.bind(this);
    this.observer = new ResizeObserver(this.redraw);
    this.observer.observe(container);
    listeners.add(this.redraw);
  }

  get width() {
    return this.container.clientWidth;
  }

  /** Draws in the next frame; calls before that are one. */
  redraw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.now();
    });
  }

  now() {
    const { width } = this;
    if (width === 0) return;
    const height = typeof this.height === "function" ? this.height(width) : this.height;
    const ratio = devicePixelRatio || 1;
    const [w, p] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== w || this.canvas.height !== p) {
      this.canvas.width = w;
      this.canvas.height = p;
      this.canvas.style.height = `${height}px`;
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = FONT;
    context.textBaseline = "middle";
    this.onDraw(context, width, height);
  }

  /** Position of a pointer event in CSS pixels. */
  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  remove() {
    cancelAnimationFrame(this.pending);
    this.observer.disconnect();
    listeners.delete(this.redraw);
    this.canvas.remove();
  }
}

/** A line that fills whole pixels. */
export function hairline(context, x1, y1, x2, y2, style) {
  context.strokeStyle = style;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(Math.round(x1) + 0.5, Math.round(y1) + 0.5);
  context.lineTo(Math.round(x2) + 0.5, Math.round(y2) + 0.5);
  context.stroke();
}

/** Text that never gets wider than `width`. */
export function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let short = text;
  while (short.length > 1 && context.measureText(`${short}…`).width > width) short = short.slice(0, -1);
  return `${short}…`;
}
