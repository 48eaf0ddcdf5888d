// Shows the bits of the character that the slider, the mouse or a finger is at, and changes what the marks are of.
const { model, ngram, n, bounds, differences } = JSON.parse(document.getElementById("surprise-data").textContent);
const scored = document.getElementById("scored"), spans = [...scored.children];
const at = document.getElementById("scored-at"), about = document.getElementById("scored-about");
const form = document.getElementById("surprise-form");
const names = { " ": "a space", "\n": "a line break", "\t": "a tab" };
const level = (value, bounds) => bounds.filter((bound) => value >= bound).length;

function describe() {
  const number = Number(at.value) - 1, character = spans[number].textContent;
  scored.querySelector(".here")?.classList.remove("here");
  spans[number].classList.add("here");
  // U+2068 and U+2069 keep a character of a text from right to left from turning the sentence
  let text = `Character ${number + 1}, ${names[character] ?? `“\u2068${character}\u2069”`}: model ${model[number].toFixed(2)} bits`;
  if (ngram) {
    const more = ngram[number] - model[number];
    text += `, ${n}-gram ${ngram[number].toFixed(2)} bits; `;
    text += more === 0 ? "equally good" : `the ${more > 0 ? "model" : `${n}-gram`} is better by ${Math.abs(more).toFixed(2)} bits`;
  }
  about.textContent = text;
  at.setAttribute("aria-valuetext", text);
}

function mark() {
  const view = new FormData(form).get("view"), difference = view === "difference";
  for (const [number, span] of spans.entries()) {
    const bits = view === "ngram" ? ngram[number] : model[number];
    const mark = difference ? `d${level(model[number] - ngram[number], differences)}` : `b${level(bits, bounds)}`;
    span.className = span.className.replace(/^\S+/, mark);
  }
  for (const scale of document.querySelectorAll(".scale"))
    scale.hidden = (scale.dataset.scale === "difference") !== difference;
}

function pointed({ target }) {
  const number = spans.indexOf(target);
  if (number < 0) return;
  at.value = number + 1;
  describe();
}
scored.addEventListener("pointerover", pointed);
scored.addEventListener("click", pointed);
at.addEventListener("input", () => {
  describe();
  // scrollIntoView would move the page as well, and the slider away
  const place = scored.querySelector(".here").getBoundingClientRect(), box = scored.getBoundingClientRect();
  if (place.top < box.top || place.bottom > box.bottom) scored.scrollTop += place.top - box.top - box.height / 2;
});
form?.addEventListener("change", mark);
