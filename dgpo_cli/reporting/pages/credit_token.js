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
  tip.append(make("div", "place", `token ${i} of ${rollout.tokens}` + (id === null ? "" : `, id ${id}`) + `, completion ${rollout.sample ?? "–"}` + (i === rollout.fork ? ": here it parts from every right one" : "")));
  if (!counted) { tip.append(make("div", "", rollout.counted ? "does not count: no loss on it" : "not scored")); return; }
  const table = make("table"), body = make("tbody");
  const row = (key, name, values) => {
    const line = make("tr", state.shade.key === key ? "shown" : "");
    line.append(make("th", "", name));
    for (const value of values) { const cell = make("td", "", number(value)); cell.dataset.key = key; line.append(cell); }
    return line;
  };
  for (const s of SHADES) if (!s.gated && has(s)) body.append(row(s.key, { logprob: "log p, policy", ref_logprob: "log q, reference", entropy: "entropy, nats", hellinger: "hellinger d" }[s.key] || s.name, [s.at(k, rollout)]));
  if (rollout.advantage !== null) { const line = row("A", "advantage A of the rollout", [rollout.advantage]); body.append(line); }
  table.append(body);
  tip.append(table);
  if (GATINGS.length) {   // a line each: there may be many
    const each = make("table"), head = make("thead"), titles = make("tr"), lines = make("tbody"), gated = SHADES.filter((s) => s.gated && has(s));
    titles.append(make("th", "", "by gating"));
    for (const s of gated) titles.append(make("th", state.shade.key === s.key ? "shown" : "", s.name));
    head.append(titles);
    GATINGS.forEach((g, at) => {
      const line = make("tr", at === gating ? "shown" : "");
      line.append(make("th", "", g.label));
      for (const s of gated) { const cell = make("td", "", number(s.at(k, rollout, at))); cell.dataset.key = s.key; line.append(cell); }
      lines.append(line);
    });
    each.append(head, lines);
    tip.append(each);
  }
  const alternatives = alternativesElement(k, index);
  if (alternatives) tip.append(alternatives);
  const shown = state.shade.gated ? state.shade.at(k, rollout, gating) : state.shade.at(k, rollout);
  $("spoken").textContent = `${text}, ${state.shade.name} ${number(shown)}`;
}
function placeTip(span, event) {
  const tip = $("tip");
  tip.hidden = false;
  const boxes = [...span.getClientRects()];
  const box = (event && boxes.find((b) => event.clientY >= b.top - 4 && event.clientY <= b.bottom + 4 && event.clientX >= b.left - 4 && event.clientX <= b.right + 4)) || boxes[0] || span.getBoundingClientRect();
  const width = tip.offsetWidth, height = tip.offsetHeight;
  const edge = document.body.getBoundingClientRect().right, under = innerHeight - box.bottom - 16, over = box.top - 16;
  const beside = Math.max(under, over) < height;   // too high for either: it stands beside the token, or is cut off below it
  const right = box.right + 12 + width <= edge - 6, besideLeft = right ? box.right + 12 : box.left - width - 12;
  if (beside && besideLeft >= 6) {
    tip.style.left = `${besideLeft}px`;
    tip.style.top = `${Math.max(6, Math.min(box.top - 12, innerHeight - height - 6))}px`;
    return;
  }
  const below = under >= height || under >= over;
  tip.style.left = `${Math.max(6, Math.min(edge - width - 6, box.left - 12))}px`;
  tip.style.top = `${below ? box.bottom + 10 : box.top - height - 10}px`;
}
const tokenAt = (target) => target instanceof Element ? target.closest(".t") : null;
let byKeys = false;   // while a key or a link scrolls the page, it moves under a pointer that rests: that is no hover
function hover(event) {
  const span = tokenAt(event.target);
  if (byKeys) return;
  if (span) look(span, event);
  else if (!event.target.closest(".tokens, .run")) closeTip();
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
$("groups").addEventListener("click", (event) => {
  const span = tokenAt(event.target);
  if (!span) return;
  if (span.parentNode.classList.contains("run")) { goToRollout(span.parentNode.rollout.card, span.place, null, true); return; }
  span.parentNode.focus({ preventScroll: true });
  look(span, event);
});
function goTo(tokens, i, centred = false) {
  const span = tokens.children[Math.max(0, Math.min(tokens.children.length - 1, i))];
  if (!span) return;
  byKeys = true;
  const scroll = () => span.scrollIntoView({ block: centred ? "center" : "nearest" });   // beside the bar: see scroll-padding
  scroll();
  look(span);
  tokens.focus({ preventScroll: true });
  // What is scrolled past is laid out only now, and moves the token.
  requestAnimationFrame(() => requestAnimationFrame(() => { if (here === span) { scroll(); placeTip(span); } }));
}
function goToRollout(card, i = 0, gating = null, centred = false) {
  reveal(card);
  draw(card);
  if (!centred) card.scrollIntoView({ block: "nearest" });
  const all = [...card.querySelectorAll(".tokens")];
  goTo(all.find((t) => t.gating === gating) || all[0], i, centred);
}
function otherRollout(step) {
  const shown = CARDS.filter(isOut);
  const at = here ? shown.indexOf(here.closest(".rollout")) : -1;
  const card = shown[at < 0 ? 0 : Math.max(0, Math.min(shown.length - 1, at + step))];
  if (card) goToRollout(card, 0, here ? here.parentNode.gating : null);
}
// The strongest token of these cards, in the middle of the window.
function strongest(cards) {
  const gating = here ? here.parentNode.gating : state.gating;
  let best = null, most = -Infinity;
  for (const card of cards) {
    const r = card.rollout;
    for (let i = 0; i < r.counted; i++) {
      const signed = state.shade.at(r.first + i, r, gating), value = state.shade.kind === "ratio" ? signed : Math.abs(signed);
      if (value > most) { most = value; best = [card, i]; }
    }
  }
  if (best) goToRollout(best[0], best[1], gating, true);
}
const strongestOfPage = () => strongest(CARDS.filter(isOut));
const strongestOfRollout = () => strongest(here ? [here.closest(".rollout")] : CARDS.filter(isOut).slice(0, 1));
