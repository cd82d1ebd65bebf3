// What the page asks of its server, and the curves that it has fetched ahead.

/** What the server answered instead: `status` 0 when it did not answer at all. */
export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  /** Asking again later may help. */
  get passes() {
    return this.status === 0 || this.status >= 500 || this.status === 408 || this.status === 429;
  }
}

const PATIENCE_MS = 15000;

/** The JSON of an answer; null where it has none. Throws Problem. */
export async function ask(path, { method = "GET", body, signal, patience_ms = PATIENCE_MS } = {}) {
  let answer;
  const patience = AbortSignal.timeout(patience_ms);
  try {
    answer = await fetch(path, {
      method,
      signal: signal ? AbortSignal.any([signal, patience]) : patience,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
    });
    const text = await answer.text();
    const told = text ? JSON.parse(text) : null;
    if (answer.ok) return told;
    throw new Problem(answer.status, told?.error ?? `the server answered ${answer.status}`);
  } catch (error) {
    if (error instanceof Problem || error.name === "AbortError") throw error;
    if (answer && !answer.ok) throw new Problem(answer.status, `the server answered ${answer.status}`);
    throw new Problem(0, "the server does not answer");
  }
}

export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return new URLSearchParams(given).toString();
}

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

export function floats(base64) {
  return new Float32Array(bytesOf(base64).buffer);
}

/** `{low, high}`: for each column of a small drawing its lower and upper edge, 255 at the top; null for none. */
export function edges(preview) {
  if (!preview) return null;
  try {
    const bytes = bytesOf(preview);
    const width = bytes.length >> 1;
    return { low: bytes.subarray(0, width), high: bytes.subarray(width) };
  } catch {
    return null;
  }
}

function decoded(curve) {
  const line = (one) => (one ? { x: floats(one.x), y: floats(one.y) } : null);
  return { ...curve, retract: line(curve.retract), approach: line(curve.approach) };
}

const KEPT = 48;

/** Curves by id, fetched ahead: the next one is there before its key is pressed. */
export class Curves {
  #known = new Map(); // key -> {curve} | {promise}

  /** `raterOf()`: whose label comes with a curve. */
  constructor(raterOf) {
    this.raterOf = raterOf;
  }

  /** The curve if it has come already. */
  peek(id, blind) {
    return this.#known.get(`${id} ${blind}`)?.curve ?? null;
  }

  get(id, blind) {
    const key = `${id} ${blind}`;
    const known = this.#known.get(key);
    if (known) {
      this.#known.delete(key); // the newest stand last, so that the oldest go first
      this.#known.set(key, known);
      return known.promise;
    }
    const entry = {};
    entry.promise = ask(`/api/curve/${encodeURIComponent(id)}?${query({ blind: blind ? 1 : "", rater: this.raterOf() })}`).then(
      (curve) => (entry.curve = decoded(curve)),
      (problem) => {
        if (this.#known.get(key) === entry) this.#known.delete(key);
        throw problem;
      },
    );
    entry.promise.catch(() => {}); // of those fetched ahead nobody may ever ask
    this.#known.set(key, entry);
    while (this.#known.size > KEPT) this.#known.delete(this.#known.keys().next().value);
    return entry.promise;
  }

  forgetAll() {
    this.#known.clear();
  }

  forget(id) {
    for (const key of [...this.#known.keys()]) if (key.startsWith(`${id} `)) this.#known.delete(key);
  }
}
