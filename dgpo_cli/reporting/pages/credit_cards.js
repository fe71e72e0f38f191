// A rollout's card and its tokens, which are drawn when the card comes near the window.
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    entry.target.isNear = entry.isIntersecting;
    if (entry.isIntersecting) draw(entry.target);
  }
}, { rootMargin: "900px 0px" });

const CARDS = [];   // one a rollout, in the order of the page
function rolloutElement(rollout, side) {
  const card = make("article", `rollout ${side}`), facts = make("div", "facts");
  const fact = (name, value, code) => {
    const item = make("span", "", `${name} `);
    item.append(make(code ? "code" : "b", "", value));
    facts.append(item);
  };
  facts.append(make("b", "", `#${rollout.sample ?? "–"} ${{ right: "✓ right", wrong: "✗ wrong" }[side] || ""}`));
  if (rollout.reward !== null) fact("reward", short(rollout.reward));
  if (rollout.advantage !== null) fact("advantage", (rollout.advantage > 0 ? "+" : "") + short(rollout.advantage));
  fact("tokens", String(rollout.tokens));
  if (rollout.answer !== null && rollout.answer.length < 60 && !isWhole(rollout, rollout.answer)) fact("answer", visibleText(rollout.answer), true);
  if (rollout.error) facts.append(make("span", "", visibleText(rollout.error)));
  if (rollout.finish_reason === "length") facts.append(make("span", "", "cut at the limit"));
  if (!rollout.counted && rollout.tokens) facts.append(make("span", "", "not scored: nothing is known of its tokens"));
  card.append(facts, make("div", "views"));
  card.rollout = rollout;
  rollout.card = card;
  card.style.containIntrinsicSize = `auto ${Math.max(70, 60 + Math.ceil(rollout.tokens / 24) * 25)}px`;
  near.observe(card);
  return card;
}
// Whether the answer is the completion itself, which stands below.
function isWhole(rollout, answer) {
  let text = "";
  for (let i = 0; i < rollout.tokens && text.length <= 80; i++) text += DATA.texts[TOKENS[rollout.firstToken + i]];
  return text.length <= 80 && text.trim().startsWith(answer);
}
function draw(card) {
  const wanted = state.beside >= 0 && card.rollout.counted ? shownGatings() : [state.gating];
  const views = card.lastChild;
  if (views.children.length !== wanted.length) {
    views.replaceChildren(...wanted.map(() => viewElement(card.rollout, wanted.length > 1)));
    card.version = -1;
  }
  wanted.forEach((gating, i) => {   // the tokens stay, and with them the focus
    const view = views.children[i];
    view.gating = view.lastChild.gating = gating;
    if (wanted.length > 1) view.firstChild.textContent = GATINGS[gating].label;
  });
  if (card.version === state.version) return;
  card.version = state.version;
  for (const view of views.children) shade(view, card.rollout);
}
function viewElement(rollout, titled) {
  const view = make("div", "view"), strip = make("canvas", "strip"), tokens = make("div", "tokens");
  if (titled) view.append(make("h5"));
  strip.width = Math.max(1, rollout.tokens);
  strip.height = 1;
  strip.title = "the whole completion: click to go there";
  strip.addEventListener("click", (event) => {
    const box = strip.getBoundingClientRect();
    goTo(tokens, Math.floor((event.clientX - box.left) / box.width * rollout.tokens));
  });
  tokens.tabIndex = 0;
  tokens.setAttribute("role", "group");
  tokens.setAttribute("aria-label", `completion ${rollout.sample ?? ""}, ${rollout.tokens} tokens: arrow keys go through them`);
  const spans = document.createDocumentFragment();
  for (let i = 0; i < rollout.tokens; i++) {
    const span = make("span", "t");
    span.place = i;
    appendToken(span, DATA.texts[TOKENS[rollout.firstToken + i]]);
    spans.append(span);
  }
  tokens.append(spans);
  tokens.rollout = rollout;
  view.append(strip, tokens);
  return view;
}
const COLOURS = new Map();   // class -> colour of this theme, for the strip
function colourOf(className) {
  if (!COLOURS.has(className)) {
    const probe = make("span", className);
    document.body.append(probe);
    COLOURS.set(className, getComputedStyle(probe).backgroundColor);
    probe.remove();
  }
  return COLOURS.get(className);
}
function shade(view, rollout) {
  const scale = scaleOf(state.shade), at = state.shade.at, tokens = view.lastChild, context = view.querySelector("canvas").getContext("2d");
  context.clearRect(0, 0, rollout.tokens, 1);
  const hits = new Set();
  for (const match of rollout.matches || []) for (let i = match.from; i < match.to; i++) hits.add(i);
  let i = 0;
  for (const span of tokens.children) {
    let className = "t";
    if (i < rollout.counted) {
      if (has(state.shade)) className = classOf(scale, scale.level(at(rollout.first + i, rollout, view.gating)));
      if (className !== "t") { context.fillStyle = colourOf(className); context.fillRect(i, 0, 1, 1); }
    } else if (rollout.counted) className = "t uncounted";
    if (i === rollout.fork) className += " fork";
    if (hits.has(i)) className += " hit";
    if (span === here) className += " here";
    if (span.className !== className) span.className = className;
    i++;
  }
}
function choose(change) {
  const before = { ...state };
  Object.assign(state, change);
  state.version++;
  document.body.classList.toggle("comparing", state.beside >= 0);
  if (before.step !== state.step) return showStep();
  if (before.order !== state.order || (state.order === "credit" && before.gating !== state.gating)) arrange();
  drawGatings();
  drawBar();
  drawSteps();
  if (change.filter !== undefined || change.prompt !== undefined) applyFilters();
  if (before.beside !== state.beside) closeTip();
  drawCards();
  drawForks();
  drawTrees();
}
function drawCards() {
  for (const card of CARDS) if (card.isNear) draw(card);
}
// Everything of the step that is chosen.
function showStep() {
  closeTip();
  fillGatings();
  fillBar();
  arrange();
  applyFilters();
  drawGatings();
  drawBar();
  drawSteps();
  drawCards();
  drawForks();
  drawTrees();
  if (searched) search(searched);
}
