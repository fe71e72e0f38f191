// From a value to its shade, and numbers as text.
// Scales: a value to a signed level, -LEVELS..LEVELS for what has a centre, 0..LEVELS for what has none.
const scales = new Map();
function scaleOf(shade) {
  const key = [shade.key, shade.kind === "ratio" && state.fitted, ...(shade.gated ? shownGatings() : [])].join();
  if (!scales.has(key)) scales.set(key, makeScale(shade));
  return scales.get(key);
}
function makeScale(shade) {
  const values = [];
  if (shade.kind === "ratio" && !state.fitted) return { ...ratioScale(FIXED_RANGE), fitted: false };
  for (const g of shade.gated ? shownGatings() : [-1]) for (const r of ROLLOUTS) for (let k = r.first; k < r.first + r.counted; k++) {
    const value = shade.at(k, r, g);
    if (Number.isFinite(value)) values.push(shade.kind === "ratio" ? Math.abs(Math.log(Math.max(value, 1e-6))) : Math.abs(value));
  }
  values.sort((a, b) => a - b);
  const high = values.length ? values[Math.floor(0.995 * (values.length - 1))] || values[values.length - 1] : 0;
  if (shade.kind === "ratio") return { ...ratioScale(Math.exp(Math.max(high, 1e-7))), fitted: true };
  const top = high || 1e-12;
  const strength = (value) => Math.min(LEVELS, Math.round(LEVELS * Math.abs(value) / top));
  if (shade.kind === "signed") return { level: (v) => Math.sign(v) * strength(v), ticks: [-top, 0, top], two: true, hues: ["low", "high"] };
  const ticks = shade.kind === "falling" ? [0, -top / 2, -top] : [0, top / 2, top];
  return { level: strength, ticks, two: false, hues: ["sq", "sq"] };
}
function ratioScale(range) {
  const span = Math.log(range);
  const level = (value) => Math.max(-LEVELS, Math.min(LEVELS, Math.round(LEVELS * Math.log(Math.max(value, 1e-6)) / span)));
  return { level, ticks: [1 / range, 1, range], two: true, hues: ["low", "high"] };
}
const classOf = (scale, level) => level === 0 || !Number.isFinite(level) ? "t" : `t ${scale.hues[level > 0 ? 1 : 0]} l${Math.abs(level)}`;

function number(value) {
  if (value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  return Number(value.toPrecision(6)).toString().replace("-", "−");
}
const short = (value) => value === null || value === undefined ? "–" : String(Number(value.toPrecision(4))).replace("-", "−");
