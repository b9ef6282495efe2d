// Numbers as people read them.

const LADDERS = {
  ns: [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]],
  B: [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]],
  "B/s": [[1e9, "GB/s"], [1e6, "MB/s"], [1e3, "kB/s"], [1, "B/s"]],
};

/** The scale in which values up to `largest` read well: divide by `by`, write `unit`. */
export function scaleOf(unit, largest) {
  const ladder = LADDERS[unit];
  if (!ladder) return { by: 1, unit: unit === "1" ? "" : unit };
  const [by, name] = ladder.find(([size]) => Math.abs(largest) >= size) ?? ladder.at(-1);
  return { by, unit: name };
}

/** Three or four digits that count. */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e9 || size < 1e-4) return value.toExponential(2);
  const decimals = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : Math.min(6, 2 - Math.floor(Math.log10(size)));
  const [whole, fraction] = value.toFixed(decimals).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, "\u202f");
  return (fraction ? `${grouped}.${fraction}` : grouped).replace("-", "−");
}

/** A number and its unit, scaled. */
export function quantity(value, unit) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const scale = scaleOf(unit, value);
  return `${number(value / scale.by)}${scale.unit ? `\u202f${scale.unit}` : ""}`;
}

/** A level as it is written, with the unit where there is one. */
export function level(value, unit) {
  return `${value}${unit ? `\u202f${unit}` : ""}`;
}

/** Levels of the varied factors in one line. */
export function levels(study, of) {
  return study.factors.map((f) => (f.name in of ? (f.unit ? level(of[f.name], f.unit) : `${of[f.name]}`) : null)).filter(Boolean).join(" · ");
}

export const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
