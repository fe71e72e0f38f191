// The bar: what is shown, and the legend
function makeBar() {
  CHOICES.shade = segments("shades", SHADES.map((s) => ({ value: s.key, name: s.name, title: s.text, off: !has(s) })),
    (key) => choose({ shade: SHADES.find((s) => s.key === key) }));
  CHOICES.fitted = segments("scales", [{ value: false, name: "⅓ – 3", title: "the same for every page (f)" }, { value: true, name: "fitted", title: "to these rollouts, which magnifies small differences (f)" }],
    (fitted) => choose({ fitted }));
  const known = ROLLOUTS.some((r) => r.correct !== null);
  CHOICES.filter = segments("filters", ["all", "right", "wrong"].map((value) => ({ value, name: value, off: value !== "all" && !known })),
    (filter) => choose({ filter }));
  $("beside").disabled = GATINGS.length < 2;
  for (const [value, name, off] of [["mixed", "mixed groups first"], ["credit", "largest credit", !GATINGS.length],
    ["advantage", "largest |A|", !ROLLOUTS.some((r) => r.advantage)], ["d", "largest d", !SIGNALS.hellinger]]) $("order").append(option(value, name, off));
  $("order").addEventListener("change", () => choose({ order: $("order").value }));
  $("prompt").addEventListener("change", () => choose({ prompt: Number($("prompt").value) }));
}
function option(value, name, off) {
  const element = make("option", "", name);
  element.value = value;
  element.disabled = Boolean(off);
  return element;
}
// What depends on the step: how many are right, and which prompts there are.
function fillBar() {
  const rollouts = OF_STEP[state.step];
  for (const button of $("filters").children) {
    const { value } = button.dataset;
    button.textContent = `${value} ${value === "all" ? rollouts.length : rollouts.filter((r) => r.side === value).length}`;
  }
  const prompts = [...new Set([...(state.prompt >= 0 ? [state.prompt] : []), ...rollouts.map((r) => r.prompt)])].sort((a, b) => a - b);
  $("prompt").replaceChildren(option(-1, "all prompts"), ...prompts.map((prompt) => {
    const members = rollouts.filter((r) => r.prompt === prompt), name = visibleText(DATA.prompts[prompt].id).slice(0, 40);
    const right = members.filter((r) => r.correct === true).length;
    return option(prompt, members.some((r) => r.correct === null) ? name : `${name} (${right} of ${members.length} right)`);
  }));
}
function drawBar() {
  CHOICES.shade.mark(state.shade.key);
  CHOICES.fitted.mark(state.fitted);
  CHOICES.filter.mark(state.filter);
  $("order").value = state.order;
  $("prompt").value = state.prompt;
  $("scale-field").hidden = state.shade.kind !== "ratio";
  $("against").hidden = state.beside < 0;
  if (state.beside >= 0) {
    $("against").replaceChildren(...GATINGS.map((gating, g) => option(g, gating.label, g === state.gating)));
    $("against").value = state.beside;
  }
  $("beside").setAttribute("aria-pressed", String(state.beside >= 0));
  drawLegend();
}
function drawLegend() {
  const box = $("legend"), scale = scaleOf(state.shade), ramp = make("div", "ramp");
  const levels = [];
  for (let level = scale.two ? -LEVELS : 0; level <= LEVELS; level++) levels.push(level);
  for (const level of levels) ramp.append(make("i", classOf(scale, level).replace(/^t ?/, "")));
  const ticks = make("div", "ticks"), body = make("div");
  for (const tick of scale.ticks) ticks.append(make("b", "", scale.two && state.shade.kind === "ratio" ? ratioText(tick) : short(tick)));
  body.append(ramp, ticks);
  const gating = state.shade.gated && state.gating >= 0 ? `, ${GATINGS[state.gating].label}` : "";
  const ends = state.shade.ends || { ratio: ["less", "more"], rising: ["", "high"], falling: ["", "unlikely"] }[state.shade.kind];
  const caption = make("span", "", `${state.shade.name}${state.beside >= 0 && state.shade.gated ? "" : gating}${scale.fitted ? ", fitted" : ""}`);
  box.replaceChildren(caption, make("span", "", ends[0]), body, make("span", "", ends[1]));
}
const ratioText = (value) => Math.abs(value - 1 / 3) < 1e-9 ? "⅓" : Math.abs(Math.log(value)) < 0.02 && value !== 1 ? value.toFixed(4) : short(value);
