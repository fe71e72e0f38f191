// Buttons and keys
function toggleTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches, now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  recolour();
}
function recolour() { COLOURS.clear(); choose({}); }
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
function toggleSpaces() {
  const plain = document.body.classList.toggle("plain");
  $("spaces").setAttribute("aria-pressed", String(!plain));
}
function toggleHelp() {
  const dialog = $("explained");
  if (dialog.open) { dialog.close(); return; }
  closeTip();
  dialog.showModal();
  $("help").setAttribute("aria-expanded", "true");
}
$("explained").addEventListener("close", () => $("help").setAttribute("aria-expanded", "false"));
$("explained").addEventListener("click", (event) => { if (event.target === $("explained")) toggleHelp(); });   // beside it
$("close").addEventListener("click", toggleHelp);
function toggleBeside() {
  if (GATINGS.length < 2) return;
  choose({ beside: state.beside >= 0 ? -1 : otherThan(state.gating) });
}
function nextGating() {
  if (!GATINGS.length) return;
  const gating = (state.gating + 1) % GATINGS.length;
  choose({ gating, beside: state.beside < 0 ? -1 : state.beside === gating ? otherThan(gating) : state.beside });
}
// What stands beside a gating: the next one that is no control, if there is one.
function otherThan(gating) {
  const others = GATINGS.map((_, i) => (gating + 1 + i) % GATINGS.length).filter((g) => g !== gating);
  return others.find((g) => !GATINGS[g].label.includes("control=")) ?? others[0];
}
$("against").addEventListener("change", () => choose({ beside: Number($("against").value) }));
$("beside").addEventListener("click", toggleBeside);
$("theme").addEventListener("click", toggleTheme);
$("spaces").addEventListener("click", toggleSpaces);
$("help").addEventListener("click", toggleHelp);
const KEYS = {
  ArrowRight: () => here ? goTo(here.parentNode, here.place + 1) : otherRollout(0),
  ArrowLeft: () => here && goTo(here.parentNode, here.place - 1),
  ArrowDown: () => otherRollout(1), ArrowUp: () => otherRollout(-1), j: () => otherRollout(1), k: () => otherRollout(-1),
  Home: () => here && goTo(here.parentNode, 0), End: () => here && goTo(here.parentNode, Infinity),
  m: strongestOfPage, M: strongestOfRollout, g: nextGating, c: toggleBeside, t: toggleTheme, w: toggleSpaces, "?": toggleHelp,
  b: toggleTreeHere, l: copyLink, "[": () => otherStep(-1), "]": () => otherStep(1), f: () => choose({ fitted: !state.fitted }), n: () => nextMatch(1), N: () => nextMatch(-1), "/": () => $("search").focus(),
};
const ON_TOKENS = ["ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "Home", "End"];   // elsewhere these scroll, as always
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") { if (!$("explained").open) { closeTip(); document.activeElement.blur(); } return; }
  if (event.target === $("search") || event.target instanceof HTMLSelectElement) return;   // letters are theirs
  if ($("explained").open && event.key !== "?") return;
  if (ON_TOKENS.includes(event.key) && !(event.target instanceof Element && event.target.closest(".tokens"))) return;
  const shadeOfKey = SHADES[Number(event.key) - 1];
  const action = KEYS[event.key] || (shadeOfKey && has(shadeOfKey) ? () => choose({ shade: shadeOfKey }) : null);
  if (!action) return;
  event.preventDefault();
  byKeys = true;
  action();
  if (here) { fillTip(here); placeTip(here); }
});
addEventListener("scroll", () => { if (here && !$("tip").hidden) placeTip(here); }, { passive: true });

// The page
{
  const tokens = TOKENS.length.toLocaleString("en"), right = ROLLOUTS.filter((r) => r.correct === true).length;
  const graded = ROLLOUTS.some((r) => r.correct !== null) ? `, ${right} right` : "";
  const stepped = STEPS.length > 1 ? ` of ${STEPS.length} steps` : "";
  $("summary").textContent = `${ROLLOUTS.length.toLocaleString("en")} completions${graded} of ${DATA.prompts.length} prompts${stepped}, ${tokens} tokens; ${visibleText(DATA.source).replaceAll("·", " ")}; dgpo ${DATA.version}`;
  for (const s of SHADES) {
    const meaning = make("dd", "", s.text);
    if (!has(s)) meaning.append(make("b", "", " Not stored in these rollouts."));
    $("meanings").append(make("dt", "", s.name), meaning);
  }
  const over = document.querySelector(".over"), covering = new ResizeObserver(() => {   // nothing that is gone to may lie under what stays
    const whole = getComputedStyle(over).display !== "contents";   // in a narrow window the line about uniform credit stays alone
    document.documentElement.style.setProperty("--covered", `${(whole ? over.offsetHeight : $("plain").offsetHeight) + 8}px`);
  });
  for (const element of [over, $("plain"), document.body]) covering.observe(element);
  for (const note of DATA.notes) $("notes").append(make("p", "", note));
  makeGatings();
  makeBar();
  makeSteps();
  showStep();
  openLive();
}
