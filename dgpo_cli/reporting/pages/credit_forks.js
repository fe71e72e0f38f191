// Where right and wrong part: the first token of a wrong completion that no right one of its group goes along with.

// The forks of a group: the place, what wrong completions write there, and what the right ones that came so far write.
function forksOf(group) {
  if (group.forks) return group.forks;
  const right = group.members.filter((r) => r.side === "right"), found = [];
  for (const rollout of group.mixed ? group.members.filter((r) => r.side === "wrong") : []) {
    const shared = right.map((other) => samePlaces(rollout, other)), place = Math.max(...shared);
    rollout.fork = place < rollout.counted ? place : null;   // null: it breaks off where a right one goes on
    if (rollout.fork === null) continue;
    const known = found.find((fork) => fork.place === place && samePlaces(fork.wrong[0], rollout) > place);
    if (known) known.wrong.push(rollout);
    else found.push({ place, wrong: [rollout], right: right.filter((_, i) => shared[i] === place) });
  }
  group.forks = found.sort((a, b) => b.wrong.length - a.wrong.length || a.place - b.place);
  return found;
}
// The credit of a rollout's token, and the share of its tokens that have as much: what a random one has by chance.
function creditAt(rollout, place, gating) {
  const { credit } = GATINGS[gating], value = credit[rollout.first + place];
  let above = 0, larger = 0;
  for (let k = rollout.first; k < rollout.first + rollout.counted; k++) { above += credit[k] >= value; larger += credit[k] > value; }
  return { value, chance: above / rollout.counted, first: larger === 0 && above === 1 };
}
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`;

const SHOWN_FORKS = 4;
function forksElement(group) {
  const list = make("ol", "forks");
  for (const fork of forksOf(group).slice(0, SHOWN_FORKS)) {
    const line = make("li"), go = make("button", "go", `token ${fork.place}`), worth = make("span", "worth");
    go.type = "button";
    go.title = "go to this token";
    go.addEventListener("click", () => goToRollout(fork.wrong[0].card, fork.place, null, true));
    line.append("Right and wrong part at ", go);
    const before = make("code", "context");
    for (let i = Math.max(0, fork.place - 6); i < fork.place; i++) appendToken(before, DATA.texts[TOKENS[fork.wrong[0].firstToken + i]]);
    if (fork.place) line.append(", after ", before);
    line.append(": wrong goes ", wordElement(fork.wrong[0], fork.place, "wrong"), ` (${fork.wrong.length})`);
    const ways = new Map();
    for (const r of fork.right) {
      const token = fork.place < r.tokens ? TOKENS[r.firstToken + fork.place] : -1;
      ways.set(token, [...(ways.get(token) || []), r]);
    }
    [...ways.values()].forEach((same, i) => line.append(i ? ", " : ", right goes ", wordElement(same[0], fork.place, "right"), ` (${same.length})`));
    line.append(worth);
    fork.worth = worth;
    list.append(line);
  }
  const more = forksOf(group).length - SHOWN_FORKS, ended = group.members.filter((r) => r.fork === null).length;
  if (more > 0) list.append(make("li", "more", `and ${more} more places`));
  if (ended) list.append(make("li", "more", `${ended} wrong ${ended === 1 ? "completion breaks" : "completions break"} off where a right one goes on`));
  return list;
}
function wordElement(rollout, place, side) {
  const word = make("code", `word ${side}`);
  if (place < rollout.tokens) appendToken(word, DATA.texts[TOKENS[rollout.firstToken + place]]);
  else word.append(badge("end"));
  return word;
}
// What the chosen gating puts there. Numbers change with the gating, the lines stay.
function drawForks() {
  const seen = [];
  for (const group of groupsOf(state.step)) for (const fork of forksOf(group)) {
    if (state.gating < 0) continue;
    const found = fork.wrong.map((rollout) => creditAt(rollout, fork.place, state.gating));
    found.forEach((one, i) => seen.push({ ...one, length: fork.wrong[i].counted }));
    if (!fork.worth) continue;
    const value = mean(found.map((one) => one.value)), chance = mean(found.map((one) => one.chance));
    fork.worth.textContent = Number.isFinite(value)
      ? `; credit there ${short(value)}, and a random token of ${found.length === 1 ? "that completion" : "those completions"} has as much with a chance of ${percent(chance)}` : "";
  }
  const known = seen.filter((one) => Number.isFinite(one.value));
  $("forked").textContent = !known.length ? "" : `Where right and wrong part (${known.length} wrong completions), ${GATINGS[state.gating].label} puts a credit of ${short(mean(known.map((one) => one.value)))} on average `
    + `(a random token: 1), the most of its completion in ${known.filter((one) => one.first).length} (by chance ${short(known.reduce((sum, one) => sum + 1 / one.length, 0))}).`;
}

// The same group as a tree: what completions share is written once, and branches where they part.
function treeElement(group) {
  const tree = make("div", "tree");
  tree.append(branchElement([...group.members].sort(byReward), 0));
  return tree;
}
function branchElement(rollouts, start) {
  const branch = make("div", "branch"), run = make("div", "run"), first = rollouts[0];
  let end = start;
  const at = (r, i) => i < r.tokens ? TOKENS[r.firstToken + i] : -1;
  while (end < first.tokens && rollouts.every((r) => at(r, end) === at(first, end))) end++;
  const right = rollouts.filter((r) => r.side === "right").length, wrong = rollouts.length - right;
  const label = rollouts.length === 1 ? `#${first.sample ?? "–"} ${right ? "✓" : "✗"}` : [right && `${right} ✓`, wrong && `${wrong} ✗`].filter(Boolean).join(" ");
  branch.classList.add(!wrong ? "right" : !right ? "wrong" : "both");
  for (let i = start; i < end; i++) {
    const span = make("span", "t");
    span.place = i;
    appendToken(span, DATA.texts[at(first, i)]);
    run.append(span);
  }
  if (end === start) run.append(badge("end"));
  run.rollout = first;
  run.rollouts = rollouts;
  branch.append(make("span", "who", label), run);
  const ways = new Map();
  if (rollouts.length > 1) for (const r of rollouts) ways.set(at(r, end), [...(ways.get(at(r, end)) || []), r]);
  if (ways.size > 1) for (const same of ways.values()) branch.append(branchElement(same, end));
  return branch;
}
// Shades are means over the completions that share a token.
function drawTree(tree) {
  const scale = scaleOf(state.shade);
  for (const run of tree.querySelectorAll(".run")) {
    run.gating = state.gating;
    for (const span of run.querySelectorAll(":scope > .t")) {
      const values = run.rollouts.filter((r) => span.place < r.counted).map((r) => state.shade.at(r.first + span.place, r, state.gating));
      span.className = (has(state.shade) && values.length ? classOf(scale, scale.level(mean(values))) : "t") + (span === here ? " here" : "");
    }
  }
}
function drawTrees() { for (const group of groupsOf(state.step)) if (group.tree && !group.tree.hidden) drawTree(group.tree); }
function toggleTree(group) {
  if (!group.tree) {
    group.tree = treeElement(group);
    group.tree.hidden = true;
    group.body.append(group.tree);
  }
  const open = group.tree.hidden;
  group.tree.hidden = !open;
  group.body.querySelector(".sides").hidden = open;
  group.asTree.setAttribute("aria-pressed", String(open));
  closeTip();
  if (open) drawTree(group.tree);
}
// The group of the token that is looked at, or the first.
function toggleTreeHere() {
  const group = groupsOf(state.step).find((one) => here && one.section.contains(here)) || groupsOf(state.step).find((one) => one.asTree && one.section === document.querySelector(".group.parted"));
  if (group && group.asTree) toggleTree(group);
}
