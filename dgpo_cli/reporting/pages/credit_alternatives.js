// What policy and reference would rather have said at a token, if the rollouts hold it (rollout.alternatives=5).
const ALTERNATIVES = DATA.alternatives && {
  counts: unpacked(DATA.alternatives.counts, Uint8Array),
  tokens: unpacked(DATA.alternatives.tokens, DATA.wide ? Uint32Array : Uint16Array),
  p: unpacked(DATA.alternatives.p, Float32Array), q: DATA.alternatives.q && unpacked(DATA.alternatives.q, Float32Array),
  ranks: unpacked(DATA.alternatives.ranks, Uint32Array), refRanks: DATA.alternatives.ref_ranks && unpacked(DATA.alternatives.ref_ranks, Uint32Array),
};
let begins = null;   // where the entries of each counted token begin
function beginOf(k) {
  if (!begins) {
    begins = new Uint32Array(ALTERNATIVES.counts.length);
    for (let i = 1; i < begins.length; i++) begins[i] = begins[i - 1] + ALTERNATIVES.counts[i - 1];
  }
  return begins[k];
}
// The table of the k-th counted token, which is `drawn` among the page's tokens; null if nothing is stored of it.
function alternativesElement(k, drawn) {
  if (!ALTERNATIVES || !ALTERNATIVES.counts[k]) return null;
  const box = make("div"), table = make("table", "alternatives"), head = make("thead"), titles = make("tr"), body = make("tbody");
  for (const title of ["instead", "p", ...(ALTERNATIVES.q ? ["q"] : [])]) titles.append(make("th", "", title));
  head.append(titles);
  const begin = beginOf(k), entries = [];
  for (let i = begin; i < begin + ALTERNATIVES.counts[k]; i++) entries.push([ALTERNATIVES.tokens[i], ALTERNATIVES.p[i], ALTERNATIVES.q && ALTERNATIVES.q[i]]);
  if (!entries.some(([token]) => DATA.ids[token] === DATA.ids[drawn])) entries.push([drawn, SIGNALS.logprobs ? SIGNALS.logprobs[k] : NaN, SIGNALS.ref_logprobs ? SIGNALS.ref_logprobs[k] : NaN]);
  for (const [token, p, q] of entries) {
    const line = make("tr", DATA.ids[token] === DATA.ids[drawn] ? "drawn" : ""), name = make("th");
    name.dataset.id = DATA.ids[token];
    appendVisible(name, DATA.texts[token].slice(0, 40));
    line.append(name, make("td", "", chanceText(p)));
    if (ALTERNATIVES.q) line.append(make("td", "", chanceText(q)));
    body.append(line);
  }
  table.append(head, body);
  const rank = ALTERNATIVES.ranks[k], refRank = ALTERNATIVES.refRanks ? ALTERNATIVES.refRanks[k] : 0;
  box.append(table);
  if (rank) box.append(make("div", "ranks", `drawn: rank ${rank} of the policy${refRank ? `, ${refRank} of the reference` : ""}`));
  return box;
}
function chanceText(logprob) {
  if (Number.isNaN(logprob)) return "–";
  const share = 100 * Math.exp(logprob);
  return share === 0 ? "0%" : share < 0.1 ? `${share.toPrecision(2)}%` : `${share.toFixed(1)}%`;
}
