// The credit view: its data, and what can shade a token. Data comes from #data (reporting/credit_page.py).
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
const STEPS = DATA.steps;   // of a run's page; of any other one, without a number
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
  { key: "advantage", name: "credit × A", kind: "signed", ends: ["discouraged", "reinforced"], gated: true,
    at: (k, r, g) => (r.advantage ?? NaN) * (g < 0 ? 1 : GATINGS[g].credit[k]),
    text: "credit times the rollout's advantage A: what the loss multiplies this token's log-probability ratio with. Orange is reinforced, blue discouraged." },
  { key: "logratio", name: "log p − log q", kind: "signed", ends: ["likelier under q", "under p"], needs: "ref_logprobs",
    at: (k) => SIGNALS.logprobs[k] - SIGNALS.ref_logprobs[k],
    text: "how much likelier the policy makes this token than the reference does, in nats. Orange: it learned to say it; blue: it unlearned it." },
];
const has = (shade) => (shade.key === "logratio" && !SIGNALS.logprobs ? false : shade.needs ? SIGNALS[shade.needs] !== undefined
  : shade.key === "advantage" ? ROLLOUTS.some((r) => r.advantage !== null) : GATINGS.length > 0);
const AVAILABLE = SHADES.filter(has);

const state = {
  shade: AVAILABLE.find((s) => s.key === DATA.shade) || AVAILABLE[0] || SHADES[0],
  gating: GATINGS.length ? 0 : -1, beside: -1, fitted: false, filter: "all", prompt: -1, order: "mixed", step: STEPS.length - 1,
  matches: [], match: -1, version: 0,
};
const OF_STEP = STEPS.map((_, s) => ROLLOUTS.filter((rollout) => rollout.step === s));   // in the file's order
const diagnosticsOf = (g) => STEPS[state.step].diagnostics[g];

const shownGatings = () => (state.beside >= 0 ? [state.gating, state.beside].sort((a, b) => a - b) : [state.gating]);
