// Groups: the rollouts of a prompt in one step, right beside wrong. What carries no signal is one line each.
const SIDES = { right: "Right", wrong: "Wrong", above: "Above the group's mean", below: "At or below the group's mean", alone: "Not graded" };
const MADE = new Map();   // step -> its groups, each with its section of the page

function groupsOf(step) {
  if (!MADE.has(step)) {
    const groups = new Map();
    for (const rollout of OF_STEP[step]) {
      if (!groups.has(rollout.group)) groups.set(rollout.group, []);
      groups.get(rollout.group).push(rollout);
    }
    MADE.set(step, [...groups.values()].map(groupOf));
  }
  return MADE.get(step);
}
function groupOf(members) {
  const right = members.filter((r) => r.correct === true).length, known = members.every((r) => r.correct !== null);
  const group = { members, right, known, prompt: members[0].prompt, mixed: known && right > 0 && right < members.length };
  group.signal = members.some((r) => r.advantage !== 0);   // an advantage that nobody knows may be one
  group.section = groupElement(group);
  return group;
}

// The step's groups in the order that was asked for; their cards in the order of the page.
function arrange() {
  const groups = groupsOf(state.step), main = $("groups");
  const rank = (group) => group.signal ? (group.mixed ? 2 : 1) : 0;
  const worth = new Map(groups.map((group) => [group, worthOf(group.members)]));
  const sorted = [...groups].sort((a, b) => state.order === "mixed" ? rank(b) - rank(a)
    : Number(b.signal) - Number(a.signal) || worth.get(b) - worth.get(a));
  for (const group of sorted) {
    arrangeSides(group);
    main.append(group.section);
  }
  for (const section of [...main.children]) if (!sorted.some((group) => group.section === section)) section.remove();
  if (!groups.length) main.append(make("p", "none", "No rollouts."));
  CARDS.splice(0, CARDS.length, ...main.querySelectorAll(".rollout"));
  if (groups.length && !groups.some((group) => group.signal)) unfold(sorted[0], true);   // something to see all the same
}
// By how much a rollout stands out: the largest of what the order goes by.
const WORTH = {
  credit: (r) => largest(r, GATINGS[state.gating].credit), d: (r) => largest(r, SIGNALS.hellinger), advantage: (r) => Math.abs(r.advantage ?? 0),
};
function largest(rollout, values) {
  let found = -Infinity;
  for (let k = rollout.first; k < rollout.first + rollout.counted; k++) if (values[k] > found) found = values[k];
  return found;
}
const byReward = (a, b) => (b.reward ?? 0) - (a.reward ?? 0) || a.sample - b.sample;
const worthOf = (members) => state.order === "mixed" ? 0 : members.reduce((most, r) => Math.max(most, WORTH[state.order](r)), -Infinity);
function arrangeSides(group) {
  const order = [...group.members].sort(state.order === "mixed" ? byReward : (a, b) => WORTH[state.order](b) - WORTH[state.order](a));
  for (const side of group.section.querySelectorAll(".side")) {
    for (const rollout of order) {
      const piece = rollout.card.closest(".stack") || rollout.card;
      if (side.contains(piece)) piece.parentNode.append(piece);
    }
  }
}
function verdictOf({ members, right, known }) {
  const wrong = members.length - right;
  if (!known) return `${members.length} completions of one reward, no signal`;
  return `${[right && `${right} right`, wrong && `${wrong} wrong`].filter(Boolean).join(", ")}, no signal`;
}
function groupElement(group) {
  const { members, right, known } = group, prompt = DATA.prompts[group.prompt];
  const section = make("section", "group"), header = make("header"), body = make("div", "body");
  header.append(make("h3", "", `Prompt ${visibleText(prompt.id)}`));
  header.append(make("span", "share", !group.signal ? verdictOf(group) : known ? `${right} of ${members.length} right` : `${members.length} completions`));
  if (group.signal) header.append(...extras(group));
  else {
    section.classList.add("folded");
    group.fold = make("button", "fold", "");
    group.fold.type = "button";
    group.fold.append(...header.childNodes);
    group.fold.addEventListener("click", () => unfold(group, body.hidden));
    header.append(group.fold);
  }
  const text = make("div", "prompt");
  text.tabIndex = 0;
  text.setAttribute("aria-label", "prompt");
  appendVisible(text, prompt.text);
  group.body = body;
  body.append(text);
  if (group.mixed) {
    section.classList.add("parted");
    body.append(forksElement(group));
  }
  body.append(sidesElement(group));
  section.append(header, body);
  if (group.fold) unfold(group, false);
  return section;
}
function unfold(group, open) {
  if (!group.fold) return;
  group.body.hidden = !open;
  group.fold.setAttribute("aria-expanded", String(open));
}
// What a group's header says beside its name.
function extras(group) {
  const found = [], { gold, step } = group.members[0];
  if (gold) {
    const span = make("span", "gold", "gold ");
    span.append(make("code", "", visibleText(gold)));
    found.push(span);
  }
  if (group.mixed) {
    group.asTree = make("button", "as-tree", "⑂ Tree");
    group.asTree.type = "button";
    group.asTree.title = "the completions as a tree, branching where they part (b)";
    group.asTree.setAttribute("aria-pressed", "false");
    group.asTree.addEventListener("click", () => toggleTree(group));
    found.push(group.asTree);
  }
  const elsewhere = STEPS.map((_, s) => s).filter((s) => s !== step && hasPrompt(s, group.prompt));
  if (elsewhere.length) {
    const also = make("span", "also", "also in ");
    also.append(...elsewhere.map((s) => stepButton(s, group.prompt)));
    found.push(also);
  }
  return found;
}
function sidesElement(group) {
  const sides = make("div", "sides");
  for (const name of Object.keys(SIDES)) {
    const inside = group.members.filter((r) => r.side === name);
    if (!inside.length) continue;
    const side = make("div", `side ${name}`), cards = make("div", "cards");
    inside.sort(byReward);
    for (const same of identical(inside)) cards.append(same.length > 1 ? stackElement(same, name) : rolloutElement(same[0], name));
    side.append(make("h4", "", `${SIDES[name]} (${inside.length})`), cards);
    sides.append(side);
  }
  return sides;
}
// Rollouts of the same tokens and reward together, in the order of the first of each.
function identical(rollouts) {
  const found = [], byHash = new Map();
  for (const rollout of rollouts) {
    let hash = rollout.tokens;
    for (let i = 0; i < rollout.tokens; i++) hash = (Math.imul(hash, 31) + TOKENS[rollout.firstToken + i]) | 0;
    const near = byHash.get(hash) || byHash.set(hash, []).get(hash);
    const same = near.find(([first]) => first.reward === rollout.reward && first.advantage === rollout.advantage && samePlaces(first, rollout) === rollout.tokens);
    if (same) same.push(rollout);
    else { near.push([rollout]); found.push(near[near.length - 1]); }
  }
  return found;
}
// How many tokens two rollouts begin with alike.
function samePlaces(a, b) {
  const most = Math.min(a.tokens, b.tokens);
  let i = 0;
  while (i < most && TOKENS[a.firstToken + i] === TOKENS[b.firstToken + i]) i++;
  return i === most && a.tokens !== b.tokens ? most : i;
}
// One card for all of them; the others come out when they are asked for, or looked for.
function stackElement(same, name) {
  const stack = make("div", "stack"), others = make("div", "others"), first = rolloutElement(same[0], name), times = make("button", "times", `× ${same.length}`);
  times.type = "button";
  times.title = `the same tokens: ${same.map((r) => `#${r.sample ?? "–"}`).join(", ")}`;
  const open = (shown) => { others.hidden = !shown; times.setAttribute("aria-expanded", String(shown)); };
  times.addEventListener("click", () => open(others.hidden));
  stack.open = open;
  first.firstChild.firstChild.after(times);
  others.append(...same.slice(1).map((rollout) => rolloutElement(rollout, name)));
  stack.append(first, others);
  open(false);
  return stack;
}
// Bring a card out of a group that is folded, or from under one that it equals.
function reveal(card) {
  const group = groupsOf(card.rollout.step).find((one) => one.section.contains(card)), others = card.closest(".others");
  if (group) unfold(group, true);
  if (group && group.tree && !group.tree.hidden) toggleTree(group);
  if (others) others.parentNode.open(true);
}
const isOut = (card) => !card.closest("[hidden]");
const isWanted = (card) => (state.filter === "all" || card.rollout.side === state.filter) && (state.prompt < 0 || card.rollout.prompt === state.prompt);

// What the filters leave: no side and no group that would be empty.
function applyFilters() {
  for (const card of CARDS) card.hidden = !isWanted(card);
  for (const group of groupsOf(state.step)) {
    let count = 0;
    for (const side of group.section.querySelectorAll(".side")) {
      side.hidden = ![...side.querySelectorAll(".rollout")].some((card) => !card.hidden);
      for (const stack of side.querySelectorAll(".stack")) stack.hidden = [...stack.querySelectorAll(".rollout")].every((card) => card.hidden);
      count += !side.hidden;
    }
    group.section.hidden = count === 0;
    group.section.querySelector(".sides").classList.toggle("single", count === 1);
  }
}
