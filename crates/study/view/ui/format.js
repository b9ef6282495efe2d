// Numbers and ticks as people read them.

// Four significant digits, or all before the point; a real minus sign; "–" for what is not there.
export function number(x, digits = 4) {
  if (x === null || x === undefined || !Number.isFinite(x)) return "–";
  if (x === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(x)));
  if (size < -4) return x.toExponential(2).replaceAll("-", "−");
  const places = Math.max(0, Math.min(8, digits - 1 - size));
  const text = Math.abs(x).toFixed(places);
  const [whole, part] = text.split(".");
  const grouped = whole.length > 4 ? whole.replace(/\B(?=(\d{3})+$)/g, "\u202f") : whole;
  return (x < 0 ? "−" : "") + grouped + (part ? `.${part}` : "");
}

// What a quantity of this unit is best shown in: a divisor and a unit.
export function scale(unit, largest) {
  const steps = {
    ns: [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]],
    B: [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"], [1, "B"]],
    "B/s": [[1e9, "GB/s"], [1e6, "MB/s"], [1e3, "kB/s"], [1, "B/s"]],
  }[unit];
  if (!steps) return { divisor: 1, unit: unit === "1" ? "" : unit };
  // Durations below 10 s stay in ms: that is what latencies are compared in.
  const limit = unit === "ns" ? { s: 1e10 } : {};
  const found = steps.find(([size, name]) => largest >= (limit[name] ?? size * 0.9999)) ?? steps.at(-1);
  return { divisor: found[0], unit: found[1] };
}

export function duration(ns) {
  const { divisor, unit } = scale("ns", Math.abs(ns));
  return `${number(ns / divisor, 3)} ${unit}`;
}

export function withUnit(x, unit) {
  const text = number(x);
  return unit && unit !== "1" && text !== "–" ? `${text} ${unit}` : text;
}

// Round steps (1, 2, 5 · 10ⁿ) from low to high, about `count` of them.
export function ticks(low, high, count) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const raw = span / Math.max(1, count);
  const magnitude = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * magnitude).find((s) => s >= raw * 0.999);
  const made = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) made.push(i * step);
  return made;
}

// Labels of ticks, all with the same number of decimals.
export function tickLabels(values) {
  if (values.length < 2) return values.map((v) => number(v));
  const step = Math.abs(values[1] - values[0]);
  const places = Math.max(0, Math.min(9, -Math.floor(Math.log10(step) + 1e-9)));
  return values.map((v) => {
    const text = Math.abs(v).toFixed(places);
    const [whole, part] = text.split(".");
    const grouped = whole.length > 4 ? whole.replace(/\B(?=(\d{3})+$)/g, "\u202f") : whole;
    return (v < 0 && Number(text) !== 0 ? "−" : "") + grouped + (part ? `.${part}` : "");
  });
}

// Seconds of an instant within an interval: as many decimals as its width needs.
export function seconds(ns, widthNs) {
  const places = Math.max(0, Math.min(6, 3 - Math.floor(Math.log10(Math.max(1, widthNs) / 1e9))));
  return `${(ns / 1e9).toFixed(places).replace("-", "−")} s`;
}

// A level with its factor's unit; "fps" as unit of "fps" says nothing new.
export function level(value, factor) {
  const text = typeof value === "number" ? number(value, 6).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "") : String(value === "" ? "(default)" : value);
  return factor?.unit ? `${text} ${factor.unit}` : text;
}
