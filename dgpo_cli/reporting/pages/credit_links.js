// A link to a token or a view: the page's own address with a fragment, which names what is seen and holds no data.

// What the fragment says. A rollout is named by its prompt and sample, which stay when the page is written again.
function viewNow() {
  const view = new URLSearchParams(), { step } = STEPS[state.step];
  const token = here && here.closest(".tokens, .run");
  if (step !== null && (token || state.step < STEPS.length - 1)) view.set("step", step);   // else: the newest one
  if (token) {
    const { rollout } = token;
    view.set("prompt", DATA.prompts[rollout.prompt].id);
    view.set("sample", rollout.sample ?? "");
    if (likeIt(rollout).length > 1) view.set("nth", likeIt(rollout).indexOf(rollout));
    view.set("token", here.place);
  }
  if (state.gating >= 0) view.set("gating", GATINGS[state.gating].label);
  if (state.beside >= 0) view.set("beside", GATINGS[state.beside].label);
  if (token && state.beside >= 0) view.set("under", GATINGS[token.gating].label);   // in which of the two views
  view.set("shade", state.shade.key);
  if (state.fitted) view.set("scale", "fitted");
  return view;
}
const likeIt = (rollout) => OF_STEP[rollout.step].filter((r) => r.prompt === rollout.prompt && r.sample === rollout.sample);

// Show what a fragment names; what it names and the page lacks stays as it is.
function openView(fragment) {
  const view = new URLSearchParams(fragment.replace(/^#/, "")), change = {};
  const gating = GATINGS.findIndex((g) => g.label === view.get("gating")), beside = GATINGS.findIndex((g) => g.label === view.get("beside"));
  const shade = AVAILABLE.find((s) => s.key === view.get("shade")), step = STEPS.findIndex((s) => String(s.step) === view.get("step"));
  if (gating >= 0) change.gating = gating;
  if (beside >= 0) change.beside = beside;
  if (shade) change.shade = shade;
  if (step >= 0) change.step = step;
  if (view.has("scale")) change.fitted = view.get("scale") === "fitted";
  if (["all", "right", "wrong"].includes(view.get("show"))) change.filter = view.get("show");
  if ([...$("order").options].some((o) => o.value === view.get("order") && !o.disabled)) change.order = view.get("order");
  const only = DATA.prompts.findIndex((p) => p.id === view.get("only"));
  if (only >= 0) change.prompt = only;
  choose(change);
  if (!view.has("token")) return;
  const found = OF_STEP[state.step].filter((r) => DATA.prompts[r.prompt].id === view.get("prompt") && String(r.sample ?? "") === view.get("sample"));
  const rollout = found[Number(view.get("nth")) || 0];
  if (!rollout || !rollout.tokens) { $("spoken").textContent = "the token of this link is not on the page"; return; }
  if (!isWanted(rollout.card)) choose({ filter: "all", prompt: -1 });
  const under = GATINGS.findIndex((g) => g.label === view.get("under"));
  goToRollout(rollout.card, Number(view.get("token")) || 0, under >= 0 ? under : state.gating, true);
}
async function copyLink() {
  const address = `${location.href.split("#")[0]}#${viewNow()}`;
  history.replaceState(null, "", address);
  let copied = false;
  try { await navigator.clipboard.writeText(address); copied = true; } catch { copied = copiedAsBefore(address); }
  $("link").textContent = copied ? "✓ Copied" : "↑ In the address bar";
  $("spoken").textContent = copied ? "link copied" : "the link is in the address bar";
  setTimeout(() => { $("link").textContent = "⧉ Link"; }, 1600);
}
// For browsers that give a file no clipboard.
function copiedAsBefore(text) {
  const area = make("textarea", "unseen");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}
$("link").addEventListener("click", copyLink);
addEventListener("hashchange", () => openView(location.hash));

// A running run writes its page anew after each stored step. From a file there is no asking whether it did: reload, and come back to the same view.
const RELOAD_SECONDS = 10;
let reloading = 0;
function reloadLater() {
  clearTimeout(reloading);
  if ($("live").checked) reloading = setTimeout(reload, 1000 * RELOAD_SECONDS);
}
function reload() {
  if (document.hidden || document.activeElement === $("search") || $("explained").open) { reloadLater(); return; }
  const view = viewNow();
  view.set("live", 1);
  view.set("y", Math.round(scrollY));
  view.set("show", state.filter);
  view.set("order", state.order);
  if (state.prompt >= 0) view.set("only", DATA.prompts[state.prompt].id);
  if (document.documentElement.dataset.theme) view.set("theme", document.documentElement.dataset.theme);
  history.replaceState(null, "", `#${view}`);
  location.reload();
}
function openLive() {
  const view = new URLSearchParams(location.hash.slice(1));
  $("alive").hidden = !DATA.live;
  $("live").checked = Boolean(DATA.live) && view.has("live");
  $("live").addEventListener("change", () => {
    const now = new URLSearchParams(location.hash.slice(1));
    if ($("live").checked) now.set("live", 1);
    else for (const name of ["live", "y"]) now.delete(name);
    history.replaceState(null, "", `#${now}`);   // a reload by hand keeps it, too
    reloadLater();
  });
  if (["dark", "light"].includes(view.get("theme"))) document.documentElement.dataset.theme = view.get("theme");
  openView(location.hash);
  if (view.has("y")) { history.scrollRestoration = "manual"; requestAnimationFrame(() => scrollTo(0, Number(view.get("y")) || 0)); }
  reloadLater();
}
