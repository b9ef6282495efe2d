// Scales and round ticks.

/** Round steps of 1, 2 or 5 that cover `from..to`, about `count` of them. */
export function ticks(from, to, count) {
  if (!(to > from)) return [from];
  const raw = (to - from) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= raw * 0.999);
  const first = Math.ceil(from / step - 1e-9);
  const all = [];
  for (let i = first; i * step <= to + step * 1e-9; i += 1) all.push(Number((i * step).toPrecision(12)));
  return all;
}

/** Ticks as text, all with as many decimals as the step needs. */
export function tickText(values) {
  const step = values.length > 1 ? Math.abs(values[1] - values[0]) : Math.abs(values[0]) || 1;
  const decimals = Math.max(0, Math.min(9, -Math.floor(Math.log10(step) + 1e-9)));
  return values.map((v) => v.toFixed(decimals).replace("-", "−"));
}

/** The range of the values with some air above; from zero if asked. */
export function range(values, fromZero) {
  let low = Infinity;
  let high = -Infinity;
  for (const v of values) {
    if (Number.isFinite(v)) {
      low = Math.min(low, v);
      high = Math.max(high, v);
    }
  }
  if (low > high) return [0, 1];
  if (fromZero) {
    low = Math.min(0, low);
    high = Math.max(0, high);
  }
  if (low === high) high = low === 0 ? 1 : low + Math.abs(low) * 0.1;
  const air = (high - low) * 0.06;
  return [fromZero && low === 0 ? 0 : low - air, high + air];
}

/** A function from values to pixels, with its inverse. */
export function linear(from, to, start, end) {
  const scale = (v) => start + ((v - from) / (to - from)) * (end - start);
  scale.invert = (p) => from + ((p - start) / (end - start)) * (to - from);
  return scale;
}
