// The token that is looked at
let here = null;
function look(span, event) {
  if (here !== span) {
    if (here) here.classList.remove("here");
    here = span;
    span.classList.add("here");
    fillTip(span);
  }
  placeTip(span, event);
}
function closeTip() {
  if (here) here.classList.remove("here");
  here = null;
  $("tip").hidden = true;
}
function fillTip(span) {
  const { rollout, gating } = span.parentNode, i = span.place, k = rollout.first + i, counted = i < rollout.counted;
  const index = TOKENS[rollout.firstToken + i], tip = $("tip"), id = DATA.ids[index];
  const text = visibleText(DATA.texts[index]);
  tip.replaceChildren(make("div", "name", text.length > 80 ? `${text.slice(0, 80)}… (${DATA.texts[index].length} characters)` : text || "(no text)"));
  tip.append(make("div", "place", `token ${i} of ${rollout.tokens}` + (id === null ? "" : `, id ${id}`) + `, completion ${rollout.sample ?? "–"}`));
  if (!counted) { tip.append(make("div", "", rollout.counted ? "does not count: no loss on it" : "not scored")); return; }
  const table = make("table"), body = make("tbody");
  const row = (key, name, values) => {
    const line = make("tr", state.shade.key === key ? "shown" : "");
    line.append(make("th", "", name));
    for (const value of values) { const cell = make("td", "", number(value)); cell.dataset.key = key; line.append(cell); }
    return line;
  };
  for (const s of SHADES) if (!s.gated && has(s)) body.append(row(s.key, { logprob: "log p, policy", ref_logprob: "log q, reference", entropy: "entropy, nats", hellinger: "hellinger d" }[s.key], [s.at(k, rollout)]));
  if (rollout.advantage !== null) { const line = row("A", "advantage A of the rollout", [rollout.advantage]); body.append(line); }
  table.append(body);
  tip.append(table);
  if (GATINGS.length) {
    const each = make("table"), head = make("thead"), titles = make("tr"), values = make("tbody");
    titles.append(make("th", "", "by gating"));
    GATINGS.forEach((g) => titles.append(make("th", "", g.label)));
    head.append(titles);
    for (const s of SHADES) if (s.gated && has(s)) values.append(row(s.key, s.key === "advantage" ? "credit × A" : s.name, GATINGS.map((_, g) => s.at(k, rollout, g))));
    for (const line of values.children) line.children[gating + 1].classList.add("shown");
    each.append(head, values);
    tip.append(each);
  }
  const shown = state.shade.gated ? state.shade.at(k, rollout, gating) : state.shade.at(k, rollout);
  $("spoken").textContent = `${text}, ${state.shade.name} ${number(shown)}`;
}
function placeTip(span, event) {
  const tip = $("tip");
  tip.hidden = false;
  const boxes = [...span.getClientRects()];
  const box = (event && boxes.find((b) => event.clientY >= b.top - 4 && event.clientY <= b.bottom + 4 && event.clientX >= b.left - 4 && event.clientX <= b.right + 4)) || boxes[0] || span.getBoundingClientRect();
  const width = tip.offsetWidth, height = tip.offsetHeight;
  const below = box.bottom + 10 + height <= innerHeight || box.top < height + 10;
  tip.style.left = `${Math.max(6, Math.min(innerWidth - width - 6, box.left - 12))}px`;
  tip.style.top = `${Math.max(6, below ? Math.min(box.bottom + 10, innerHeight - height - 6) : box.top - height - 10)}px`;
}
const tokenAt = (target) => target instanceof Element ? target.closest(".t") : null;
let byKeys = false;   // while keys scroll the page, it moves under a pointer that rests: that is no hover
function hover(event) {
  const span = tokenAt(event.target);
  if (byKeys) return;
  if (span) look(span, event);
  else if (!event.target.closest(".tokens")) closeTip();
}
$("groups").addEventListener("pointerover", hover);
$("groups").addEventListener("pointerleave", () => { if (!byKeys) closeTip(); });
$("groups").addEventListener("pointermove", (event) => {
  if (!byKeys || !(event.movementX || event.movementY)) return;
  byKeys = false;
  hover(event);
});
$("groups").addEventListener("focusin", (event) => {
  if (event.target.classList.contains("tokens") && (!here || here.parentNode !== event.target)) goTo(event.target, 0);
});
$("groups").addEventListener("click", (event) => { const span = tokenAt(event.target); if (span) { span.parentNode.focus({ preventScroll: true }); look(span, event); } });
function goTo(tokens, i) {
  const span = tokens.children[Math.max(0, Math.min(tokens.children.length - 1, i))];
  if (!span) return;
  span.scrollIntoView({ block: "nearest" });
  const box = span.getBoundingClientRect(), bar = document.querySelector(".bar").getBoundingClientRect();
  if (box.top < bar.bottom + 8) scrollBy(0, box.top - bar.bottom - 40);
  look(span);
  tokens.focus({ preventScroll: true });
}
function goToRollout(card, i = 0, gating = null) {
  draw(card);
  card.scrollIntoView({ block: "nearest" });
  const all = [...card.querySelectorAll(".tokens")];
  goTo(all.find((t) => t.gating === gating) || all[0], i);
}
function otherRollout(step) {
  const shown = CARDS.filter((card) => !card.hidden);
  const at = here ? shown.indexOf(here.closest(".rollout")) : -1;
  const card = shown[at < 0 ? 0 : Math.max(0, Math.min(shown.length - 1, at + step))];
  if (card) goToRollout(card, 0, here ? here.parentNode.gating : null);
}
function strongest() {
  const card = here ? here.closest(".rollout") : CARDS.find((c) => !c.hidden && c.rollout.counted);
  if (!card || !card.rollout.counted) return;
  const r = card.rollout, gating = here ? here.parentNode.gating : state.gating;
  let best = 0;
  const value = (i) => { const v = state.shade.at(r.first + i, r, gating); return state.shade.kind === "ratio" ? v : Math.abs(v); };
  for (let i = 1; i < r.counted; i++) if (value(i) > value(best)) best = i;
  goToRollout(card, best, gating);
}
