// The gatings' cards, and the line that says so if the chosen one is as good as uniform.
const CHOICES = {};   // what `choose` marks
const NEARLY_UNIFORM = 0.999;   // effective share
function makeGatings() {
  const cards = GATINGS.map(() => make("button", "gating"));
  CHOICES.gating = makeChoice($("gatings"), GATINGS.map((_, g) => g), cards,
    (g) => choose({ gating: g, beside: state.beside === g ? -1 : state.beside }));
  $("fit").addEventListener("click", () => choose({ fitted: true }));
  $("calibrated").addEventListener("click", () => choose({ gating: livelier() }));
}
function fillGatings() {
  [...$("gatings").children].forEach((card, g) => fillGating(card, GATINGS[g], diagnosticsOf(g)));
  if (GATINGS.length) $("scope").textContent = `Numbers over ${STEPS[state.step].scope}`;
}
function fillGating(card, gating, diagnostics) {
  const numbers = make("span", "numbers");
  const control = gating.label.includes("control=");   // what the gating before has to beat: as small as it can be
  card.classList.toggle("control", control);
  card.replaceChildren(make("strong", "", gating.label), ...(control ? [] : [histogram(gating)]), make("span", "rule", gating.rule));
  for (const [name, label] of [["ess", "effective share"], ["std", "std"], ["max", "max"], ["top20", "top fifth"]]) {
    const item = make("span", "", label);
    const value = diagnostics[name];
    const bold = make("b", "", value === null ? "–" : name === "top20" ? (100 * value).toFixed(1) + "%" : name === "ess" ? value.toFixed(4) : short(value));
    bold.dataset.metric = name;
    item.prepend(bold);
    numbers.append(item);
  }
  card.append(numbers);
  if (control) return;
  if (diagnostics.ess > NEARLY_UNIFORM) card.append(make("span", "note", "Hardly to be told from uniform: almost every token counts alike."));
  if (diagnostics.noise_gate !== null && diagnostics.noise_gate < 0.5) card.append(make("span", "note", `The noise gate lets ${(100 * diagnostics.noise_gate).toFixed(0)}% through: the distance is near its numerical floor.`));
}
// The gating to look at instead: calibrated, or else the one that moves most credit.
function livelier() {
  const moving = GATINGS.map((_, g) => g).filter((g) => diagnosticsOf(g).ess !== null && diagnosticsOf(g).ess <= NEARLY_UNIFORM);
  const real = moving.filter((g) => !GATINGS[g].label.includes("control="));
  const named = real.find((g) => GATINGS[g].label.split(" ")[0] === "calibrated");
  return named ?? real.sort((a, b) => diagnosticsOf(a).ess - diagnosticsOf(b).ess)[0] ?? -1;
}
function drawGatings() {
  CHOICES.gating.mark(state.gating);
  [...$("gatings").children].forEach((card, g) => card.classList.toggle("beside", state.beside === g));
  drawPlainness();
}
// Where the tokens are: why they look plain, and what to do about it.
function drawPlainness() {
  const diagnostics = state.gating >= 0 ? diagnosticsOf(state.gating) : {};
  const shown = state.shade.key === "credit" && diagnostics.ess > NEARLY_UNIFORM;
  $("plain").hidden = !shown;
  if (!shown) return;
  const { label } = GATINGS[state.gating], same = diagnostics.std === 0, other = livelier();
  const scale = state.fitted && !same ? " The scale is fitted: a strong shade here is a weight close to 1." : "";
  $("plainness").textContent = same ? `${label}: every token carries the same credit.`
    : `${label} is as good as uniform here: effective share ${diagnostics.ess.toFixed(4)}, largest weight ${short(diagnostics.max)}.${scale}`;
  $("fit").hidden = same || state.fitted;
  $("calibrated").hidden = other < 0;
  if (other >= 0) $("calibrated").textContent = `Show ${GATINGS[other].label}`;
}
const NS = "http://www.w3.org/2000/svg";
function svg(tag, attributes, text) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text) element.textContent = text;
  return element;
}
// How many tokens have which credit, on the log scale that all gatings share.
function histogram(gating) {
  const bins = 31, counts = new Array(bins).fill(0), span = Math.log(4);
  const rollouts = OF_STEP[state.step], last = rollouts[rollouts.length - 1];
  for (const value of rollouts.length ? gating.credit.subarray(rollouts[0].first, last.first + last.counted) : []) {
    const at = Math.round((Math.log(Math.max(value, 1e-6)) / span + 1) * (bins - 1) / 2);
    counts[Math.max(0, Math.min(bins - 1, at))]++;
  }
  const top = Math.max(1, ...counts), picture = svg("svg", { viewBox: "0 0 150 76", role: "img" });
  picture.append(svg("title", {}, `tokens by credit, from 1/4 to 4, under ${gating.label}`));
  picture.append(svg("line", { x1: 0, x2: 150, y1: 60.5, y2: 60.5 }));
  counts.forEach((n, i) => {
    const height = n ? Math.max(1.5, 58 * Math.sqrt(n / top)) : 0;   // root: rare credits stay visible
    const side = i < (bins - 1) / 2 ? "bar-low" : i > (bins - 1) / 2 ? "bar-high" : "bar-mid";
    picture.append(svg("rect", { class: side, x: 2 + i * 4.72, width: 4.1, y: 60 - height, height }));
  });
  for (const [x, label] of [[10, "¼"], [39.5, "½"], [75, "1"], [110.5, "2"], [140, "4"]]) picture.append(svg("text", { x, y: 73 }, label));
  return picture;
}
