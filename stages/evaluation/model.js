// The trained model, computed in the page: the layers of stages/model/architecture.py, the draws of
// stages/common/randomness.py (PCG64 seeded through numpy's SeedSequence) and of stages/model/streaming.py.
"use strict";

const GATES = { lstm: 4, gru: 3, rnn: 1 };
const WINDOWS = 5; // that are multiplied together, so that a weight is loaded once for all of them
const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const tanh = (x) => 1 - 2 / (Math.exp(2 * x) + 1); // with Math.tanh a character takes a tenth longer

// The weights of a base64 text, matrix by matrix: little-endian float32; or for int16 a float32 factor for each
// column, then whole numbers.
class WeightReader {
  constructor(base64, dtype) {
    this.view = new DataView(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer);
    this.dtype = dtype;
    this.at = 0;
  }

  next(dtype) {
    const value = dtype === "int16" ? this.view.getInt16(this.at, true) : this.view.getFloat32(this.at, true);
    this.at += dtype === "int16" ? 2 : 4;
    return value;
  }

  take(rows, columns) {
    const factors = this.dtype === "int16" ? Float32Array.from({ length: columns }, () => this.next("float32")) : null;
    return Float32Array.from({ length: rows * columns }, (_, index) => this.next(this.dtype) * (factors?.[index % columns] ?? 1));
  }

  get left() {
    return this.view.byteLength - this.at;
  }
}

// A matrix (rows, columns) times many vectors at once. It is kept in pairs of columns and the vectors in
// groups of WINDOWS, so that the inner loop reads both from front to back.
class Product {
  constructor(matrix, rows, columns) {
    this.rows = rows;
    this.columns = columns;
    this.pairs = new Float64Array(rows * 2 * Math.ceil(columns / 2));
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++)
        this.pairs[(column >> 1) * 2 * rows + 2 * row + (column & 1)] = matrix[row * columns + column];
  }

  // vectors: groups × rows × WINDOWS; sums: groups × columns × WINDOWS. With `start`, a number for each column, the
  // sums become start + products; without, the products are added to them.
  add(vectors, sums, groups, start = null) {
    const { rows, columns, pairs } = this;
    for (let column = 0; column < columns; column += 2) {
      for (let group = 0; group < groups; group++) {
        let a0 = 0, a1 = 0, a2 = 0, a3 = 0, a4 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0, b4 = 0;
        let w = column * rows, v = group * rows * WINDOWS;
        for (let row = 0; row < rows; row++, w += 2, v += WINDOWS) {
          const a = pairs[w], b = pairs[w + 1];
          const v0 = vectors[v], v1 = vectors[v + 1], v2 = vectors[v + 2], v3 = vectors[v + 3], v4 = vectors[v + 4];
          a0 += a * v0; a1 += a * v1; a2 += a * v2; a3 += a * v3; a4 += a * v4;
          b0 += b * v0; b1 += b * v1; b2 += b * v2; b3 += b * v3; b4 += b * v4;
        }
        let at = (group * columns + column) * WINDOWS;
        if (start !== null) for (let to = 0; to < WINDOWS; to++) sums[at + to] = start[column];
        sums[at++] += a0; sums[at++] += a1; sums[at++] += a2; sums[at++] += a3; sums[at++] += a4;
        if (column + 1 === columns) continue;
        if (start !== null) for (let to = 0; to < WINDOWS; to++) sums[at + to] = start[column + 1];
        sums[at++] += b0; sums[at++] += b1; sums[at++] += b2; sums[at++] += b3; sums[at] += b4;
      }
    }
  }
}

// The model's weights, from Keras's order.
class Model {
  constructor({ cell, layers, units, embedding, vocabulary }, weights) {
    this.cell = cell;
    this.units = units;
    this.size = Array.from(vocabulary).length;
    const width = GATES[cell] * units;
    const table = embedding === null ? null : weights.take(this.size, embedding);
    this.layers = Array.from({ length: layers }, (_, number) => {
      const inputs = number ? units : embedding ?? this.size;
      const kernel = weights.take(inputs, width), recurrent = new Product(weights.take(units, width), units, width);
      // GRU has a second bias, added to the recurrent product (Keras's reset_after)
      const biases = weights.take(cell === "gru" ? 2 : 1, width), bias = biases.subarray(0, width);
      const inner = cell === "gru" ? biases.subarray(width) : null;
      if (number) return { input: new Product(kernel, units, width), recurrent, bias, inner };
      return { rows: this.inputRows(table, kernel, embedding, width), recurrent, bias, inner };
    });
    this.kernel = weights.take(units, this.size);
    this.bias = weights.take(1, this.size);
    if (weights.left) throw new Error(`the page has ${weights.left} bytes more than the model`);
  }

  // Each character's product with the first layer's kernel: a row of it, or of embedding times kernel.
  inputRows(table, kernel, embedding, width) {
    if (table === null) return kernel;
    const rows = new Float32Array(this.size * width), sums = new Float64Array(width);
    for (let character = 0; character < this.size; character++) {
      sums.fill(0);
      for (let at = 0; at < embedding; at++) {
        const factor = table[character * embedding + at];
        for (let column = 0; column < width; column++) sums[column] += factor * kernel[at * width + column];
      }
      rows.set(sums, character * width);
    }
    return rows;
  }
}

// Reads a text character by character and knows the logits of the next one, each from the `maxlen` characters
// before it and a zero state, as the article has it: as many windows are open as a window has characters,
// each new character is fed to all, the oldest gives the logits and its place goes to a new one. With
// maxlen null one window stays open: the state is carried.
class Reader {
  constructor(model, maxlen) {
    this.model = model;
    this.windows = maxlen ?? 1;
    this.carried = maxlen === null;
    this.read = 0;
    const groups = Math.ceil(this.windows / WINDOWS), width = GATES[model.cell] * model.units;
    const zeros = (size) => new Float64Array(groups * size * WINDOWS);
    this.states = model.layers.map(() => ({ h: zeros(model.units), c: model.cell === "lstm" ? zeros(model.units) : null }));
    this.inputs = zeros(width);
    this.inner = model.cell === "gru" ? zeros(width) : null; // others add both products up
    this.logits = new Float32Array(model.size);
  }

  feed(character) {
    const { model, states } = this;
    const slot = this.carried ? 0 : this.read % this.windows;
    const open = Math.min(++this.read, this.windows), groups = Math.ceil(open / WINDOWS);
    if (!this.carried) this.forget(slot);
    model.layers.forEach(({ rows, input, recurrent, bias, inner }, number) => {
      const width = bias.length, state = states[number];
      const start = Float64Array.from(bias);
      if (input) input.add(states[number - 1].h, this.inputs, groups, start);
      else for (let column = 0; column < width; column++) start[column] += rows[character * width + column];
      if (inner && !input) this.fill(start, groups);
      if (inner) recurrent.add(state.h, this.inner, groups, inner);
      else recurrent.add(state.h, this.inputs, groups, input ? null : start);
      this[model.cell](state, groups);
    });
    return this.predict(this.carried || this.read < this.windows ? 0 : this.read % this.windows);
  }

  // The inputs of all windows where they have no product of their own.
  fill(start, groups) {
    for (let group = 0, at = 0; group < groups; group++)
      for (const value of start) this.inputs.fill(value, at, (at += WINDOWS));
  }

  forget(slot) {
    const { units } = this.model, first = (slot - (slot % WINDOWS)) * units + (slot % WINDOWS);
    for (const { h, c } of this.states)
      for (let unit = 0, at = first; unit < units; unit++, at += WINDOWS) {
        h[at] = 0;
        if (c) c[at] = 0;
      }
  }

  lstm({ h, c }, groups) {
    const size = this.model.units * WINDOWS, z = this.inputs;
    for (let group = 0; group < groups; group++)
      for (let at = 0, i = 4 * group * size, s = group * size; at < size; at++, i++, s++) {
        c[s] = sigmoid(z[i + size]) * c[s] + sigmoid(z[i]) * tanh(z[i + 2 * size]);
        h[s] = sigmoid(z[i + 3 * size]) * tanh(c[s]);
      }
  }

  gru({ h }, groups) {
    const size = this.model.units * WINDOWS, x = this.inputs, r = this.inner;
    for (let group = 0; group < groups; group++)
      for (let at = 0, i = 3 * group * size, s = group * size; at < size; at++, i++, s++) {
        const update = sigmoid(x[i] + r[i]), reset = sigmoid(x[i + size] + r[i + size]);
        h[s] = update * h[s] + (1 - update) * tanh(x[i + 2 * size] + reset * r[i + 2 * size]);
      }
  }

  rnn({ h }, groups) {
    for (let at = 0; at < groups * this.model.units * WINDOWS; at++) h[at] = tanh(this.inputs[at]);
  }

  predict(slot) {
    const { units, size, kernel, bias } = this.model, { h } = this.states.at(-1);
    const sums = Float64Array.from(bias);
    let at = (slot - (slot % WINDOWS)) * units + (slot % WINDOWS);
    for (let unit = 0; unit < units; unit++, at += WINDOWS)
      for (let index = 0, w = unit * size; index < size; index++, w++) sums[index] += h[at] * kernel[w];
    this.logits.set(sums);
    return this.logits;
  }
}

// The draws of numpy's PCG64 with the SeedSequence of these whole numbers below 2 ** 32.
function* uniformDraws(...entropy) {
  const scrambler = (constant, factor) => (value) => {
    value = Math.imul(value ^ constant, (constant = Math.imul(constant, factor)));
    return value ^ (value >>> 16);
  };
  const scramble = scrambler(0x43b0d7e5, 0x931e8875);
  const pool = Array.from({ length: 4 }, (_, at) => scramble(entropy[at] ?? 0));
  const mix = (at, value) => {
    value = Math.imul(0xca01f9dd, pool[at]) - Math.imul(0x4973f715, scramble(value));
    pool[at] = value ^ (value >>> 16);
  };
  for (let from = 0; from < 4; from++) for (let to = 0; to < 4; to++) if (from !== to) mix(to, pool[from]);
  for (const more of entropy.slice(4)) for (let to = 0; to < 4; to++) mix(to, more);
  const output = scrambler(0x8b51f9dd, 0x58f38ded);
  const words = Array.from({ length: 8 }, (_, at) => BigInt(output(pool[at % 4]) >>> 0));
  const [high, low, highStep, lowStep] = [0, 2, 4, 6].map((at) => words[at] | (words[at + 1] << 32n));
  const factor = (2549297995355413924n << 64n) + 4865540595714422341n;
  const step = (((highStep << 64n) + lowStep) << 1n) | 1n;
  let state = BigInt.asUintN(128, (step + (high << 64n) + low) * factor + step);
  for (;;) {
    state = BigInt.asUintN(128, state * factor + step);
    const folded = (state >> 64n) ^ BigInt.asUintN(64, state), turn = state >> 122n;
    const turned = BigInt.asUintN(64, (folded >> turn) | (folded << (64n - turn)));
    yield Number(turned >> 11n) / 2 ** 53;
  }
}

// The weights of softmax(logits / temperature) among the topK largest (null: all), relative to the largest.
function relativeWeights(logits, temperature, topK = null) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const divisor = Math.max(temperature, 1e-300);
  const weights = Float64Array.from(logits, (logit) => Math.exp(Math.fround(logit - largest) / divisor));
  if (topK !== null) for (const index of byLogit(logits).slice(topK)) weights[index] = 0;
  return weights;
}

// The indices from the largest logit to the smallest; equal ones in their order.
function byLogit(logits) {
  return Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a]);
}

// Draws an index by the cumulative distribution at `uniform`; temperature 0 takes the first largest logit.
function draw(logits, temperature, topK, uniform) {
  if (temperature === 0) return byLogit(logits)[0];
  const cumulative = relativeWeights(logits, temperature, topK);
  for (let index = 1; index < cumulative.length; index++) cumulative[index] += cumulative[index - 1];
  const wanted = uniform * cumulative.at(-1), index = cumulative.findIndex((sum) => sum > wanted);
  return index < 0 ? cumulative.length - 1 : index;
}
