// The thread that writes: model.js stands before it. It answers in batches, so that the page has time to draw.
const BATCH = 40; // milliseconds
const SHOWN = 8; // of the likeliest characters
let model, epoch = null, reader, job = null, turning = false;
const turns = new MessageChannel(); // setTimeout would wait 4 ms
turns.port1.onmessage = () => {
  turning = false;
  writeBatch();
};

// At most one is waiting, however often a text is asked for: a text that is not wanted any more costs nothing.
function turn() {
  if (!turning) turns.port2.postMessage(null);
  turning = true;
}

self.onmessage = ({ data }) => {
  job = null;
  if (data.stop) return;
  const { settings, prompt } = data;
  if (data.weights !== undefined && data.epoch !== epoch) {
    model = new Model(settings, new WeightReader(data.weights, settings.dtype));
    epoch = data.epoch;
  }
  reader = new Reader(model, settings.carried ? null : settings.maxlen);
  // a window has no room for more
  const unread = settings.carried ? prompt : prompt.slice(-settings.maxlen);
  const draws = uniformDraws(data.seed, settings.purpose, 0);
  job = { ...data, unread, read: 0, draws, written: 0, began: null };
  turn();
};

function writeBatch() {
  if (job === null) return;
  const { id, temperature, topK, length } = job, until = performance.now() + BATCH;
  while (job.read < job.unread.length && performance.now() < until) reader.feed(job.unread[job.read++]);
  if (job.read < job.unread.length) return turn();
  job.began ??= performance.now();
  const characters = [];
  do {
    const logits = reader.logits, drawn = draw(logits, temperature, topK, job.draws.next().value);
    const own = shares(relativeWeights(logits, 1));
    const used = temperature ? shares(relativeWeights(logits, temperature, topK)) : null;
    const likeliest = byLogit(logits).slice(0, SHOWN).map((index) => [index, own[index]]);
    characters.push({ drawn, likeliest, own: own[drawn], used: used ? used[drawn] : 1 });
    if (++job.written < length) reader.feed(drawn);
  } while (job.written < length && performance.now() < until);
  const done = job.written === length;
  self.postMessage({ id, characters, done, seconds: (performance.now() - job.began) / 1000 });
  if (done) job = null;
  else turn();
}

function shares(weights) {
  const sum = weights.reduce((a, b) => a + b);
  return weights.map((weight) => weight / sum);
}
