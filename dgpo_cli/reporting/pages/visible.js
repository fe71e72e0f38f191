"use strict";
// Text as nodes: everything in it is text, and what has no shape of its own, or would reorder the line, gets a symbol.

const NAMED = {
  0x00ad: "SHY", 0x061c: "ALM", 0x180e: "MVS", 0x200b: "ZWSP", 0x200c: "ZWNJ", 0x200d: "ZWJ", 0x200e: "LRM", 0x200f: "RLM",
  0x2028: "LSEP", 0x2029: "PSEP", 0x202a: "LRE", 0x202b: "RLE", 0x202c: "PDF", 0x202d: "LRO", 0x202e: "RLO", 0x2060: "WJ",
  0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI", 0xfeff: "BOM", 0x00a0: "NBSP",
};
const CONTROLS = ("NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS "
  + "RS US").split(" ");
const LONGEST = 300;   // characters of one token that are drawn
const ORDINARY = /^[!-~]*$/;
const PIECES = / +|[\s\S]/gu;

// The symbol of a character that cannot be seen, or null for one that can.
function symbolOf(character) {
  const code = character.codePointAt(0);
  if (code === 9) return "⇥";
  if (code < 32) return CONTROLS[code];
  if (code === 127) return "DEL";
  if (NAMED[code]) return NAMED[code];
  const unseen = /[\p{Z}\p{C}]/u.test(character);
  return unseen ? "U+" + code.toString(16).toUpperCase().padStart(4, "0") : null;
}

// Put `text` into `element`, spaces and line ends kept as they are with a symbol drawn over them.
function appendVisible(element, text) {
  if (!text) { element.append(badge("empty")); return; }
  if (ORDINARY.test(text)) { element.append(text); return; }
  let plain = "";
  const flush = () => { if (plain) element.append(plain); plain = ""; };
  for (const piece of text.match(PIECES) || []) {
    if (piece[0] === " ") { flush(); element.append(drawn("·".repeat(piece.length), piece)); continue; }
    if (piece === "\n") { flush(); element.append(drawn("⏎", "\n", true)); continue; }
    const symbol = symbolOf(piece);
    if (symbol === null) { plain += piece; continue; }
    flush();
    element.append(badge(symbol));
  }
  flush();
}

// A token, of which the first characters are enough.
function appendToken(element, text) {
  if (text.length <= LONGEST) { appendVisible(element, text); return; }
  appendVisible(element, text.slice(0, LONGEST).replace(/[\ud800-\udbff]$/, ""));
  element.append(badge(`… ${text.length.toLocaleString("en")} characters`));
}

function badge(symbol) {
  const element = document.createElement("b");
  element.className = "c";
  element.textContent = symbol;
  return element;
}

function drawn(symbol, text, isEnd) {
  const mark = document.createElement("i");
  mark.className = isEnd ? "v end" : "v";
  mark.dataset.v = symbol;
  mark.textContent = text;
  return mark;
}

// The same as one string, for labels and the tooltip's title.
function visibleText(text) {
  return [...text].map((character) => character === " " ? "·" : character === "\n" ? "⏎" : symbolOf(character) || character).join("");
}
