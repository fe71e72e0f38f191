// The bar: what is shown, and the legend
function makeBar() {
  CHOICES.shade = segments("shades", SHADES.map((s) => ({ value: s.key, name: s.name, title: s.text, off: !has(s) })),
    (key) => choose({ shade: SHADES.find((s) => s.key === key) }));
  CHOICES.fitted = segments("scales", [{ value: false, name: "⅓ – 3", title: "the same for every page (f)" }, { value: true, name: "fitted", title: "to these rollouts, which magnifies small differences (f)" }],
    (fitted) => choose({ fitted }));
  const known = ROLLOUTS.some((r) => r.correct !== null);
  const kinds = [["all", `all ${ROLLOUTS.length}`], ["right", "right"], ["wrong", "wrong"]];
  CHOICES.filter = segments("filters", kinds.map(([value, name]) => ({ value, name: value === "all" ? name : `${name} ${ROLLOUTS.filter((r) => r.side === value).length}`, off: value !== "all" && !known })),
    (filter) => choose({ filter }));
  $("beside").disabled = GATINGS.length < 2;
}
function drawBar() {
  CHOICES.shade.mark(state.shade.key);
  CHOICES.fitted.mark(state.fitted);
  CHOICES.filter.mark(state.filter);
  $("scale-field").hidden = state.shade.kind !== "ratio";
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
  const ends = { ratio: ["less", "more"], signed: ["discouraged", "reinforced"], rising: ["", "high"], falling: ["", "unlikely"] }[state.shade.kind];
  const caption = make("span", "", `${state.shade.name}${state.beside >= 0 && state.shade.gated ? "" : gating}${scale.fitted ? ", fitted" : ""}`);
  box.replaceChildren(caption, make("span", "", ends[0]), body, make("span", "", ends[1]));
}
const ratioText = (value) => Math.abs(value - 1 / 3) < 1e-9 ? "⅓" : Math.abs(Math.log(value)) < 0.02 && value !== 1 ? value.toFixed(4) : short(value);
