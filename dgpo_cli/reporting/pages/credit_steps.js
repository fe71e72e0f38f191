// The stored steps of a run: a slider, and the same prompt in other steps.
function makeSteps() {
  $("steps").hidden = STEPS.length < 2;
  $("step").max = STEPS.length - 1;
  $("step").addEventListener("input", () => choose({ step: Number($("step").value) }));
  $("earlier").addEventListener("click", () => otherStep(-1));
  $("later").addEventListener("click", () => otherStep(1));
}
const hasPrompt = (step, prompt) => OF_STEP[step].some((r) => r.prompt === prompt);
// The next step; while one prompt is shown alone, the next that has it.
function otherStep(by) {
  let step = state.step + by;
  while (STEPS[step] && state.prompt >= 0 && !hasPrompt(step, state.prompt)) step += by;
  if (STEPS[step]) choose({ step });
}
function drawSteps() {
  const { step, of } = STEPS[state.step], shown = OF_STEP[state.step].length;
  $("step").value = state.step;
  $("step").setAttribute("aria-valuetext", `step ${step}`);
  $("of-step").textContent = `step ${step}` + (of > shown ? `, ${shown} of its ${of} rollouts` : "");
  $("earlier").disabled = state.step === 0;
  $("later").disabled = state.step === STEPS.length - 1;
  const absent = state.prompt >= 0 && !hasPrompt(state.step, state.prompt);
  $("absent").hidden = !absent;
  if (absent) $("absent").replaceChildren(`Prompt ${visibleText(DATA.prompts[state.prompt].id)} is not shown of step ${step}; it is of `, ...stepButtons(state.prompt));
}
// Buttons to the steps that have a prompt, but for the one that is shown.
const stepButtons = (prompt) => STEPS.map((_, s) => s).filter((s) => s !== state.step && hasPrompt(s, prompt)).map((s) => stepButton(s, prompt));
function stepButton(step, prompt) {
  const button = make("button", "go", `step ${STEPS[step].step}`);
  button.type = "button";
  button.addEventListener("click", () => choose({ step, prompt }));
  return button;
}
