// The credit view. Data comes from #data (reporting/credit_page.py); text enters the page as text nodes alone (visible.js).
const DATA = JSON.parse(document.getElementById("data").textContent);
const LEVELS = 12;          // strengths of a shade; credit.css has one rule each
const FIXED_RANGE = 3;      // the fixed credit scale runs from 1/3 to 3
const $ = (id) => document.getElementById(id);

function unpacked(text, Type) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Type(bytes.buffer);
}
function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined && text !== null) element.textContent = text;
  return element;
}

const TOKENS = unpacked(DATA.tokens, DATA.wide ? Uint32Array : Uint16Array);
const COUNTED = DATA.rollouts.reduce((sum, rollout) => sum + rollout.counted, 0);
const COLUMNS = DATA.columns.map((c) => typeof c === "number" ? new Float32Array(COUNTED).fill(c) : unpacked(c, Float32Array));
const SIGNALS = Object.fromEntries(Object.entries(DATA.signals).map(([name, column]) => [name, COLUMNS[column]]));
const GATINGS = DATA.gatings.map((g) => ({ ...g, score: COLUMNS[g.score], credit: COLUMNS[g.credit] }));
const ROLLOUTS = DATA.rollouts;
{
  let token = 0, counted = 0;
  for (const rollout of ROLLOUTS) {   // where a rollout's values begin in the joined lists
    rollout.firstToken = token; rollout.first = counted;
    token += rollout.tokens; counted += rollout.counted;
  }
}

// What can shade a token. `at(k, rollout, gating)`: the value of the k-th counted token of all.
const SHADES = [
  { key: "credit", name: "credit", kind: "ratio", gated: true, at: (k, r, g) => GATINGS[g].credit[k],
    text: "w, the multiple of the rollout's advantage that this token carries. Mean 1 over each rollout: above 1 it counts more, below 1 less." },
  { key: "score", name: "score", kind: "rising", gated: true, at: (k, r, g) => GATINGS[g].score[k],
    text: "s, what the gating ranks tokens by, before its softmax." },
  { key: "hellinger", name: "hellinger", kind: "rising", needs: "hellinger", at: (k) => SIGNALS.hellinger[k],
    text: "d, the squared Hellinger distance between the policy's and the reference's next-token distributions: 0 the same, 1 disjoint." },
  { key: "entropy", name: "entropy", kind: "rising", needs: "entropy", at: (k) => SIGNALS.entropy[k],
    text: "H of the policy's next-token distribution in nats: 0 certain; a fair fork between two tokens is 0.693." },
  { key: "logprob", name: "log p", kind: "falling", needs: "logprobs", at: (k) => SIGNALS.logprobs[k],
    text: "log-probability of this token under the policy, at the sampling temperature. Shaded where it is low: a surprising token." },
  { key: "ref_logprob", name: "log q", kind: "falling", needs: "ref_logprobs", at: (k) => SIGNALS.ref_logprobs[k],
    text: "the same under the reference." },
  { key: "advantage", name: "advantage", kind: "signed", gated: true, at: (k, r, g) => (r.advantage ?? NaN) * (g < 0 ? 1 : GATINGS[g].credit[k]),
    text: "credit times the rollout's advantage A: what the loss multiplies this token's log-probability ratio with. Orange is reinforced, blue discouraged." },
];
const has = (shade) => (shade.needs ? SIGNALS[shade.needs] !== undefined
  : shade.key === "advantage" ? ROLLOUTS.some((r) => r.advantage !== null) : GATINGS.length > 0);
const AVAILABLE = SHADES.filter(has);

const state = {
  shade: AVAILABLE.find((s) => s.key === DATA.shade) || AVAILABLE[0] || SHADES[0],
  gating: GATINGS.length ? 0 : -1, beside: -1, fitted: false, filter: "all", matches: [], match: -1, version: 0,
};

const shownGatings = () => (state.beside >= 0 ? [state.gating, state.beside].sort((a, b) => a - b) : [state.gating]);

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

// Choices: one of several buttons. They are made once and marked anew, so that the focus stays where it is.
function makeChoice(box, values, buttons, onChoose) {
  buttons.forEach((button, i) => {
    button.type = "button";
    button.setAttribute("role", "radio");
    button.addEventListener("click", () => onChoose(values[i]));
  });
  box.append(...buttons);
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  box.addEventListener("keydown", (event) => {
    const able = buttons.filter((button) => !button.disabled), at = able.indexOf(event.target);
    if (at < 0 || !steps[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const next = able[(at + steps[event.key] + able.length) % able.length];
    next.focus();
    next.click();
  });
  return { mark(value) {
    const able = buttons.findIndex((button) => !button.disabled), chosen = values.indexOf(value);
    const stop = chosen >= 0 && !buttons[chosen].disabled ? chosen : able;   // where Tab enters the group
    buttons.forEach((button, i) => {
      button.setAttribute("aria-checked", String(i === chosen));
      button.tabIndex = i === stop ? 0 : -1;
    });
  } };
}
function segments(id, options, onChoose) {
  const buttons = options.map(({ value, name, title, off }) => {
    const button = make("button", "", name);
    button.title = title || "";
    button.disabled = Boolean(off);
    button.dataset.value = value;
    return button;
  });
  return makeChoice($(id), options.map((option) => option.value), buttons, onChoose);
}

// The gatings' cards
const CHOICES = {};   // what `choose` marks
function makeGatings() {
  const cards = GATINGS.map(gatingCard);
  CHOICES.gating = makeChoice($("gatings"), GATINGS.map((_, g) => g), cards,
    (g) => choose({ gating: g, beside: state.beside === g ? -1 : state.beside }));
  if (GATINGS.length) $("scope").textContent = `Numbers over ${DATA.scope}`;
}
function gatingCard(gating) {
  const card = make("button", "gating"), numbers = make("span", "numbers");
  card.append(make("strong", "", gating.label), histogram(gating), make("span", "rule", gating.rule));
  for (const [name, label] of [["ess", "effective share"], ["std", "std"], ["max", "max"], ["top20", "top fifth holds"]]) {
    const item = make("span", "", label);
    const value = gating.diagnostics[name];
    const bold = make("b", "", value === null ? "–" : name === "top20" ? (100 * value).toFixed(1) + "%" : name === "ess" ? value.toFixed(4) : short(value));
    bold.dataset.metric = name;
    item.prepend(bold);
    numbers.append(item);
  }
  card.append(numbers);
  if (gating.diagnostics.ess > 0.999) card.append(make("span", "note", "Hardly to be told from uniform: almost every token counts alike."));
  if (gating.diagnostics.noise_gate < 0.5) card.append(make("span", "note", `The noise gate lets ${(100 * gating.diagnostics.noise_gate).toFixed(0)}% through: the distance is near its numerical floor.`));
  return card;
}
function drawGatings() {
  CHOICES.gating.mark(state.gating);
  [...$("gatings").children].forEach((card, g) => card.classList.toggle("beside", state.beside === g));
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
  for (const value of gating.credit) {
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

// Groups, rollouts and their tokens. Tokens are drawn when their rollout comes near the window.
const SIDES = { right: "Right", wrong: "Wrong", above: "Above the group's mean", below: "At or below the group's mean", alone: "Not graded" };

const near = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    entry.target.isNear = entry.isIntersecting;
    if (entry.isIntersecting) draw(entry.target);
  }
}, { rootMargin: "900px 0px" });

const CARDS = [];   // one a rollout, in the order of the page
function drawGroups() {
  const main = $("groups"), groups = new Map();
  for (const rollout of ROLLOUTS) {
    if (!groups.has(rollout.group)) groups.set(rollout.group, []);
    groups.get(rollout.group).push(rollout);
  }
  for (const members of groups.values()) main.append(groupElement(members));
  if (!ROLLOUTS.length) main.append(make("p", "none", "No rollouts."));
}
function groupElement(members) {
  const prompt = DATA.prompts[members[0].prompt], section = make("section", "group"), header = make("header");
  header.append(make("h3", "", `Prompt ${visibleText(prompt.id)}`));
  const right = members.filter((r) => r.correct === true).length, known = members.every((r) => r.correct !== null);
  header.append(make("span", "share", known ? `${right} of ${members.length} right` : `${members.length} completions`));
  if (members[0].gold) {
    const gold = make("span", "gold", "gold ");
    gold.append(make("code", "", visibleText(members[0].gold)));
    header.append(gold);
  }
  const text = make("div", "prompt");
  text.tabIndex = 0;
  text.setAttribute("aria-label", "prompt");
  appendVisible(text, prompt.text);
  section.append(header, text);
  const sides = make("div", "sides");
  const names = known ? ["right", "wrong"] : Object.keys(SIDES).filter((name) => members.some((r) => r.side === name));
  if (names.length === 1) sides.classList.add("single");
  for (const name of names) {
    const side = make("div", `side ${name}`), inside = members.filter((r) => r.side === name);
    inside.sort((a, b) => (b.reward ?? 0) - (a.reward ?? 0) || a.sample - b.sample);
    side.append(make("h4", "", `${SIDES[name]} (${inside.length})`));
    if (!inside.length) side.append(make("p", "empty", "none in this group"));
    for (const rollout of inside) side.append(rolloutElement(rollout, name));
    sides.append(side);
  }
  section.append(sides);
  return section;
}
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
  CARDS.push(card);
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
    if (hits.has(i)) className += " hit";
    if (span === here) className += " here";
    if (span.className !== className) span.className = className;
    i++;
  }
}
function choose(change) {
  const before = state.beside;
  Object.assign(state, change);
  state.version++;
  document.body.classList.toggle("comparing", state.beside >= 0);
  drawGatings();
  drawBar();
  if (change.filter !== undefined) for (const card of CARDS) card.hidden = state.filter !== "all" && card.rollout.side !== state.filter;
  if (before !== state.beside) closeTip();
  for (const card of CARDS) if (card.isNear) draw(card);
}

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

// Search, over whole completions: a match may run over several tokens
const LOWER = DATA.texts.map((text) => text.toLowerCase());
function joined(rollout) {
  if (!rollout.joined) {
    rollout.starts = [];
    let text = "";
    for (let i = 0; i < rollout.tokens; i++) { rollout.starts.push(text.length); text += LOWER[TOKENS[rollout.firstToken + i]]; }
    rollout.joined = text;
  }
  return rollout.joined;
}
function tokenOf(rollout, character) {
  let low = 0, high = rollout.starts.length - 1;
  while (low < high) { const middle = (low + high + 1) >> 1; if (rollout.starts[middle] <= character) low = middle; else high = middle - 1; }
  return low;
}
const MOST_MATCHES = 5000;
let searched = "";   // what the matches are of
function search(query) {
  clearTimeout(waiting);
  searched = query;
  const wanted = query.toLowerCase(), matches = [];
  for (const card of CARDS) {
    card.rollout.matches = [];
    if (!wanted) continue;
    const text = joined(card.rollout);
    for (let at = text.indexOf(wanted); at >= 0 && matches.length < MOST_MATCHES; at = text.indexOf(wanted, at + wanted.length)) {
      const match = { rollout: card.rollout, from: tokenOf(card.rollout, at), to: tokenOf(card.rollout, at + wanted.length - 1) + 1 };
      matches.push(match);
      card.rollout.matches.push(match);
    }
  }
  choose({ matches, match: -1 });
  const places = new Set(matches.map((m) => m.rollout)).size;
  $("found").textContent = !wanted ? "" : !matches.length ? "not found" : `${matches.length === MOST_MATCHES ? "5000 or more" : matches.length} in ${places}`;
}
function nextMatch(step) {
  if ($("search").value !== searched) search($("search").value);   // typed so lately that the search still waits
  const matches = state.matches.filter((m) => !m.rollout.card.hidden);
  if (!matches.length) return;
  const before = state.match < 0 && step < 0 ? 0 : state.match;
  state.match = (before + step + matches.length) % matches.length;
  const match = matches[state.match];
  $("found").textContent = `${state.match + 1} of ${matches.length}`;
  goToRollout(match.rollout.card, match.from);
}
let waiting = 0;
$("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => search($("search").value), 120); });
$("search").addEventListener("keydown", (event) => {
  if (event.key === "Enter") { event.preventDefault(); nextMatch(event.shiftKey ? -1 : 1); }
});

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
  $("explained").hidden = !$("explained").hidden;
  $("help").setAttribute("aria-expanded", String(!$("explained").hidden));
}
function toggleBeside() {
  if (GATINGS.length < 2) return;
  choose({ beside: state.beside >= 0 ? -1 : (state.gating + 1) % GATINGS.length });
}
function nextGating() {
  if (!GATINGS.length) return;
  const gating = (state.gating + 1) % GATINGS.length;
  choose({ gating, beside: state.beside < 0 ? -1 : (gating + 1) % GATINGS.length });
}
$("beside").addEventListener("click", toggleBeside);
$("theme").addEventListener("click", toggleTheme);
$("spaces").addEventListener("click", toggleSpaces);
$("help").addEventListener("click", toggleHelp);
const KEYS = {
  ArrowRight: () => here ? goTo(here.parentNode, here.place + 1) : otherRollout(0),
  ArrowLeft: () => here && goTo(here.parentNode, here.place - 1),
  ArrowDown: () => otherRollout(1), ArrowUp: () => otherRollout(-1), j: () => otherRollout(1), k: () => otherRollout(-1),
  Home: () => here && goTo(here.parentNode, 0), End: () => here && goTo(here.parentNode, Infinity),
  m: strongest, g: nextGating, c: toggleBeside, t: toggleTheme, w: toggleSpaces, "?": toggleHelp,
  f: () => choose({ fitted: !state.fitted }), n: () => nextMatch(1), N: () => nextMatch(-1), "/": () => $("search").focus(),
};
const ON_TOKENS = ["ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "Home", "End"];   // elsewhere these scroll, as always
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") { closeTip(); document.activeElement.blur(); if (!$("explained").hidden) toggleHelp(); return; }
  if (event.target instanceof HTMLInputElement) return;
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
  $("summary").textContent = `${ROLLOUTS.length.toLocaleString("en")} completions${graded} of ${DATA.prompts.length} prompts, ${tokens} tokens; ${visibleText(DATA.source).replaceAll("·", " ")}; dgpo ${DATA.version}`;
  for (const s of SHADES) {
    const meaning = make("dd", "", s.text);
    if (!has(s)) meaning.append(make("b", "", " Not stored in these rollouts."));
    $("meanings").append(make("dt", "", s.name), meaning);
  }
  makeGatings();
  makeBar();
  drawGatings();
  drawBar();
  drawGroups();
}
