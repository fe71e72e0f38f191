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
  const matches = state.matches.filter((m) => isWanted(m.rollout.card));
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
