// What a person has decided and the server has not yet taken: it lies in this browser until it has.
//
// Every entry has a name of its own in localStorage, so that two pages never write over each other's. They are sent one
// after another in the order in which they were made; one page sends at a time (Web Locks, where the browser has them).
// The server stores the same label once, however often it comes, so that an answer that was lost does no harm.

import { Problem, ask, query } from "./client.js";

const PREFIX = "afm-triage.waiting.";
const REFUSED = "afm-triage.refused";
const AFTER_MS = 30; // first the next curve is drawn
const PAUSES_MS = [300, 600, 1200, 2500, 5000];

export class Outbox {
  #isRunning = false;
  #number = 0;
  #failures = 0;
  #timer = 0;

  /** `changed(problem)`: something was added or taken, or could not be (a Problem); `taken(entry)`: the server has it. */
  constructor(changed, taken) {
    this.changed = changed;
    this.taken = taken;
    this.problem = null;
    this.stream = null; // of the ledger behind this address, once it is known
    addEventListener("online", () => this.send());
    addEventListener("storage", (event) => event.key?.startsWith(PREFIX) && this.changed(this.problem));
  }

  /** Oldest first. */
  get waiting() {
    const names = [];
    for (let i = 0; i < localStorage.length; i++) {
      const name = localStorage.key(i);
      if (name.startsWith(PREFIX)) names.push(name);
    }
    return names.sort();
  }

  /** Those for the ledger behind this address: at another time another instrument may have had it. */
  get ours() {
    return this.stream === null ? [] : this.waiting.filter((name) => !this.#isForeign(name));
  }

  get foreign() {
    return this.stream === null ? [] : this.waiting.filter((name) => this.#isForeign(name));
  }

  #isForeign(name) {
    const entry = read(name);
    return entry !== null && ![entry.body].flat()[0].id.startsWith(`${this.stream}:`);
  }

  dropForeign() {
    for (const name of this.foreign) localStorage.removeItem(name);
    this.changed(this.problem);
  }

  get labels() {
    return this.waiting.map(read).filter((entry) => entry?.kind === "label").flatMap((entry) => entry.body);
  }

  /** kind: label (body: a list), undo ({id, rater}) or skip ({id, rater}). */
  add(kind, body) {
    const order = String(Date.now()).padStart(15, "0") + String(this.#number++).padStart(6, "0");
    const name = `${PREFIX}${order}.${Math.random().toString(36).slice(2, 8)}`;
    localStorage.setItem(name, JSON.stringify({ kind, body }));
    this.changed(this.problem);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.send(), AFTER_MS);
  }

  get refused() {
    return JSON.parse(localStorage.getItem(REFUSED) ?? "[]");
  }

  forgetRefused() {
    localStorage.removeItem(REFUSED);
    this.changed(this.problem);
  }

  async send() {
    if (this.#isRunning) return;
    this.#isRunning = true;
    clearTimeout(this.#timer);
    try {
      if (navigator.locks) await navigator.locks.request("afm-triage.outbox", () => this.#sendAll());
      else await this.#sendAll();
      this.#failures = 0;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.problem = problem;
      this.#timer = setTimeout(() => this.send(), PAUSES_MS[Math.min(this.#failures++, PAUSES_MS.length - 1)]);
    } finally {
      this.#isRunning = false;
      this.changed(this.problem);
    }
  }

  async #sendAll() {
    for (let [name] = this.ours; name; [name] = this.ours) {
      const entry = read(name);
      try {
        if (entry) await deliver(entry);
        this.problem = null;
      } catch (problem) {
        if (problem.passes !== false || problem.status === 401) throw problem;
        const text = `${describe(entry)}: ${problem.message}`;
        localStorage.setItem(REFUSED, JSON.stringify([...this.refused, text].slice(-20)));
      }
      localStorage.removeItem(name);
      if (entry) this.taken(entry);
      this.changed(this.problem);
    }
  }
}

function read(name) {
  try {
    return JSON.parse(localStorage.getItem(name));
  } catch {
    return null;
  }
}

function describe({ kind, body }) {
  if (kind !== "label") return kind;
  return body.length === 1 ? `the label ${body[0].label}` : `${body.length} labels`;
}

async function deliver({ kind, body }) {
  if (kind === "label") return ask("/api/labels", { method: "POST", body: body.length === 1 ? body[0] : body });
  if (kind === "skip") return ask("/api/skips", { method: "POST", body }).catch(unlessRefused);
  try {
    return await ask(`/api/labels/${encodeURIComponent(body.id)}?${query({ rater: body.rater })}`, { method: "DELETE" });
  } catch (problem) {
    if (problem.status === 404) return null; // nothing is there any more: that is what was wanted
    throw problem;
  }
}

/** A skip that is refused is no loss: the curve comes again. */
function unlessRefused(problem) {
  if (problem.passes) throw problem;
  return null;
}
