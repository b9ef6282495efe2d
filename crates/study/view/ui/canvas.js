// Sharp canvases in the page's colours, and the note beside the pointer.

// Okabe and Ito's colours, which people of all colour visions tell apart; ordered for contrast with the background.
const LIGHT = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#7f7300", "#333333"];
const DARK = ["#56b4e9", "#e69f00", "#1fc89a", "#ff7f32", "#e39ac4", "#3a93d6", "#f0e442", "#dddddd"];

export function theme() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  return {
    back: colour("card"), ink: colour("ink"), quiet: colour("quiet"), line: colour("line"), grid: colour("grid"),
    accent: colour("accent"), warn: colour("warn"), shade: colour("shade"), colours: dark ? DARK : LIGHT,
    font: (px, weight = 400) => `${weight} ${px}px ${colour("font")}`,
  };
}

// Sizes a canvas to its place in the page, in device pixels; gives a context that draws in CSS pixels.
export function fit(canvas, height) {
  const place = getComputedStyle(canvas.parentElement);
  const padding = parseFloat(place.paddingLeft) + parseFloat(place.paddingRight);
  const width = Math.max(1, Math.floor(canvas.parentElement.clientWidth - padding));
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

// A straight line that lies on device pixels and not between them.
export function rule(context, x0, y0, x1, y1, colour, dash = []) {
  const still = (v) => Math.round(v) + 0.5;
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.setLineDash(dash);
  context.beginPath();
  if (x0 === x1) {
    context.moveTo(still(x0), y0);
    context.lineTo(still(x0), y1);
  } else {
    context.moveTo(x0, still(y0));
    context.lineTo(x1, still(y1));
  }
  context.stroke();
  context.setLineDash([]);
}

export function text(context, words, x, y, { colour, font, align = "left", base = "middle", width } = {}) {
  context.fillStyle = colour;
  context.font = font;
  context.textAlign = align;
  context.textBaseline = base;
  let shown = words;
  while (width !== undefined && shown.length > 1 && context.measureText(shown).width > width) shown = `${shown.slice(0, -2)}…`;
  context.fillText(shown, x, y);
}

// The note beside the pointer; null hides it. Kept inside the window.
export function tip(content, x = 0, y = 0) {
  const box = document.getElementById("tip");
  box.hidden = !content;
  if (!content) return;
  box.replaceChildren(content);
  const { offsetWidth: w, offsetHeight: h } = box;
  const left = x + 16 + w > innerWidth - 8 ? x - 16 - w : x + 16;
  const top = Math.min(y + 14, innerHeight - h - 8);
  box.style.transform = `translate(${Math.max(4, Math.round(left))}px, ${Math.max(4, Math.round(top))}px)`;
}
