// The section Write: its form, the text as it comes, and what the model expected at each character.
const byId = (id) => document.getElementById(id);
const settings = JSON.parse(byId("writer").textContent);
const vocabulary = Array.from(settings.vocabulary);
const indexOf = new Map(vocabulary.map((character, index) => [character, index]));
const form = byId("write-form"), at = byId("character"), text = byId("written").appendChild(new Text());
const SHOWN_OF_PROMPT = 2000, NAMED = 20; // characters
const NAMES = { " ": "space", "\n": "new line", "\t": "tab" };
let worker = null, job = 0, writing = false, followed = true, characters = [], ends = [], sent = null, withEpoch = "";

const name = (index) => NAMES[vocabulary[index]] ?? vocabulary[index];
const percent = (share) => `${(share * 100).toFixed(1)} %`;
const written = () => `${characters.length.toLocaleString("en")} character${characters.length === 1 ? "" : "s"}${withEpoch}`;
const say = (...sentences) => (byId("write-status").textContent = sentences.filter(Boolean).join(" "));

function epoch() {
  const { epochs } = settings, slider = byId("epoch");
  return epochs.length > 1 ? epochs[Number(slider.value)] : epochs[0];
}

// The prompt as the text was read, and a sentence about what it leaves out.
function read(prompt) {
  if (settings.lowercase) prompt = prompt.toLowerCase();
  if (settings.newlines_to_spaces) prompt = prompt.replaceAll("\n", " ");
  const all = Array.from(prompt), known = all.filter((character) => indexOf.has(character));
  const foreign = [...new Set(all.filter((character) => !indexOf.has(character)))].map((each) => `“${each}”`);
  if (foreign.length > NAMED) foreign.splice(NAMED, Infinity, "…");
  return [known, foreign.length ? `Left out, since the text has no such character: ${foreign.join(", ")}.` : ""];
}

function start() {
  const code = new Blob([byId("model-code").textContent], { type: "text/javascript" });
  worker = new Worker(URL.createObjectURL(code));
  worker.onmessage = ({ data }) => data.id === job && receive(data);
  worker.onerror = (event) => {
    writing = false;
    sent = worker = null;
    say(`The model does not run in this browser: ${event.message || "it allows no worker"}.`);
  };
}

let leftOut = "";
function write() {
  const [known, foreign] = read(byId("write-prompt").value);
  byId("write-prompt").setAttribute("aria-invalid", String(!known.length));
  if (!known.length) return writing || say(foreign, "Write at least one character that the text has.");
  leftOut = foreign;
  if (worker === null) start();
  const number = (id) => byId(id).valueAsNumber, topK = number("top-k"), from = epoch();
  text.data = "";
  characters = [];
  ends = [];
  followed = writing = true;
  // a browser takes seconds to lay out some scripts
  byId("written-prompt").textContent = known.length > SHOWN_OF_PROMPT ? `…${known.slice(-SHOWN_OF_PROMPT).join("")}` : known.join("");
  byId("result").hidden = false;
  at.value = at.max = 1;
  byId("drawn").textContent = "";
  byId("bars").replaceChildren();
  withEpoch = ` with epoch ${from}`;
  say(leftOut, `Writing${withEpoch} …`);
  worker.postMessage({
    id: ++job, settings, epoch: from,
    weights: from === sent ? undefined : byId(`weights-${from}`).textContent,
    prompt: known.map((character) => indexOf.get(character)),
    temperature: number("write-temperature"), length: number("length"), seed: number("seed"),
    topK: Number.isNaN(topK) ? null : topK,
  });
  sent = from;
}

function receive({ characters: more, done, seconds }) {
  for (const each of more) {
    characters.push(each);
    ends.push((ends.at(-1) ?? 0) + vocabulary[each.drawn].length);
  }
  text.appendData(more.map(({ drawn }) => vocabulary[drawn]).join(""));
  at.max = characters.length;
  if (followed) at.value = at.max;
  show();
  if (followed) reveal();
  if (!done) return;
  writing = false;
  const rate = Math.round(characters.length / Math.max(seconds, 1e-4)).toLocaleString("en"); // the clock's step
  say(leftOut, `${written()}, ${rate} a second.`);
}

function stop() {
  if (!writing) return;
  job++;
  writing = false;
  worker.postMessage({ stop: true });
  say(leftOut, `Stopped after ${written()}.`);
}

// What the model expected at the character that the slider is at.
function show() {
  const position = Number(at.value) - 1, chosen = characters[position];
  if (!chosen) return;
  const { drawn, own, used } = chosen;
  const rows = chosen.likeliest.some(([index]) => index === drawn)
    ? chosen.likeliest : [...chosen.likeliest.slice(0, -1), [drawn, own]];
  byId("bars").replaceChildren(...rows.map(([index, share]) => {
    const row = byId("bar").content.cloneNode(true).firstElementChild;
    row.querySelector("bdi").textContent = name(index);
    row.querySelector(".share").style.width = `${share * 100}%`;
    row.querySelector(".percent").textContent = percent(share) + (index === drawn ? ", drawn" : "");
    row.classList.toggle("drawn", index === drawn);
    return row;
  }));
  const sentence = `“${name(drawn)}”: ${percent(own)} by the model, ${percent(used)} with this temperature and top-k`;
  byId("drawn").textContent = `character ${position + 1}, ${sentence}`;
  at.setAttribute("aria-valuetext", `${position + 1}, ${sentence}`);
  if (globalThis.Highlight) CSS.highlights.set("character", new Highlight(rangeOf(position)));
}

function rangeOf(position) {
  const range = new Range();
  range.setStart(text, ends[position - 1] ?? 0);
  range.setEnd(text, ends[position]);
  return range;
}

// Scrolls the text, not the page, until the chosen character is seen.
function reveal() {
  const box = byId("page-of-text"), seen = box.getBoundingClientRect();
  const { top, bottom } = rangeOf(Number(at.value) - 1).getBoundingClientRect();
  if (bottom > seen.bottom) box.scrollTop += bottom - seen.bottom + 16;
  else if (top < seen.top) box.scrollTop -= seen.top - top + 16;
}

// The number of the written character under the pointer, from 1; 0 for none.
function under({ clientX, clientY }) {
  const caret = document.caretPositionFromPoint?.(clientX, clientY);
  const range = caret ? null : document.caretRangeFromPoint?.(clientX, clientY);
  const [node, offset] = caret ? [caret.offsetNode, caret.offset] : [range?.startContainer, range?.startOffset];
  if (node !== text) return 0;
  const first = ends.findIndex((end) => end >= offset);
  for (const position of [first, first + 1]) { // a caret is between two characters
    if (position < 0 || position >= ends.length) continue;
    for (const { left, right, top, bottom } of rangeOf(position).getClientRects())
      if (left <= clientX && clientX <= right && top <= clientY && clientY <= bottom) return position + 1;
  }
  return 0;
}

function choose(event) {
  const position = under(event);
  if (!position) return;
  followed = false;
  at.value = position;
  show();
  if (event.type === "click") at.focus({ preventScroll: true });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  write();
});
byId("write-prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
byId("stop").addEventListener("click", stop);
byId("written").addEventListener("pointermove", choose);
byId("written").addEventListener("click", choose);
byId("page-of-text").addEventListener("pointerleave", () => (followed ||= writing));
at.addEventListener("input", () => {
  followed = false;
  show();
  reveal();
});
const temperature = byId("write-temperature");
temperature.addEventListener("input", () => (byId("write-temperature-value").value = temperature.valueAsNumber.toFixed(2)));
document.addEventListener("epoch", () => (byId("write-epoch").textContent = epoch()));
byId("write-epoch").textContent = epoch();
byId("write-prompt").value = settings.prompt;
form.hidden = false;
