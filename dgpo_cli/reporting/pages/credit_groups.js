// Groups: the rollouts of a prompt, right beside wrong.
const SIDES = { right: "Right", wrong: "Wrong", above: "Above the group's mean", below: "At or below the group's mean", alone: "Not graded" };

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
