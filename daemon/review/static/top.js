// The top line, the session and the lengths of the queues: what /api/state says, asked again every few seconds.

import { ask, query } from "./client.js";
import { SHAPES, clock, count, element, figure, lasting, plural, sentence } from "./words.js";

const HOURS = 12; // bars of the yield
const EVERY_MS = 4000;
const NAMES = { kept: "Kept", review: "Review", discards: "Discards, blind", disagreements: "Disagreements", found: "Found" };
const $ = (id) => document.getElementById(id);

export class Top {
  #timer = 0;
  #answered = new Map(); // queue -> answers since the server last counted
  scope = "current"; // of which session the queues are; "all": of every night

  /** `raterOf()`: whose figures; `changed(state)`: something new is known; `isNight()`: the night is looked at. */
  constructor(raterOf, changed, isNight = () => false) {
    this.raterOf = raterOf;
    this.isNight = isNight;
    this.changed = changed;
    this.state = null;
    this.waiting = 0;
    this.refused = [];
    this.foreign = 0;
    this.silence = null;
    this.trouble = ""; // what a person asked for here was refused
    document.addEventListener("visibilitychange", () => !document.hidden && this.look());
  }

  async look() {
    clearTimeout(this.#timer);
    try {
      const before = new Map(this.#answered);
      this.state = await ask(`/api/state?${query({ rater: this.raterOf(), session: this.scope, night: this.isNight() ? 1 : "" })}`);
      for (const [queue, many] of before) this.#answered.set(queue, this.#answered.get(queue) - many);
      this.silence = null;
    } catch (problem) {
      this.silence = problem;
    }
    this.draw();
    this.changed(this.state);
    this.#timer = setTimeout(() => this.look(), document.hidden ? 10 * EVERY_MS : EVERY_MS);
  }

  /** One more answer (or one fewer) in a queue, before the server has counted it. */
  note(queue, many) {
    this.#answered.set(queue, (this.#answered.get(queue) ?? 0) + many);
    this.drawQueues();
    this.drawTonight();
  }

  /** Curves that wait in a queue; null where nobody has said. */
  left(queue) {
    const length = this.state?.queues?.[queue];
    return Number.isFinite(length) ? Math.max(length - (this.#answered.get(queue) ?? 0), 0) : null;
  }

  draw() {
    const { state } = this;
    this.drawTrouble();
    if (!state) return;
    $("judging").replaceChildren(...judging(state));
    this.drawTonight();
    $("yield").replaceChildren(...yieldOf(state));
    drawGoal(state.goal);
    drawPromises(state.promises ?? []);
    $("last-report").hidden = !state.report;
    $("last-report").querySelector("b").textContent = state.report?.slice(5) ?? "";
    drawAdvice(state.advice ?? []);
    $("session").replaceChildren(...session(state, this.scope));
    this.drawQueues();
  }

  drawTonight() {
    if (this.state) $("tonight").replaceChildren(...tonight(this.state, this.left("review")));
  }

  drawQueues() {
    const { sheet } = this.state ?? {};
    $("certified").textContent = sheet ? `${count(sheet.events)}/${count(sheet.goal)}` : "";
    $("found").hidden = this.left("found") === null; // the page was given no list
    for (const button of document.querySelectorAll("nav button[data-queue]")) {
      const left = this.left(button.dataset.queue);
      button.querySelector("b").textContent = left === null ? "" : count(left);
      button.setAttribute("aria-label", label(NAMES[button.dataset.queue], left));
    }
  }

  /** Red only where a person is needed. */
  drawTrouble() {
    const said = [];
    const alarms = (this.state?.health ?? []).filter((one) => one.level === "alarm");
    const mark = () => element("span", { class: "lamp bad", "aria-hidden": "true" });
    // The night tells them itself, so that each stands once.
    if (!this.isNight()) for (const one of alarms) said.push(element("span", {}, mark(), sentence(one.text)));
    if (this.waiting && this.silence) {
      said.push(`${plural(this.waiting, "answer")} kept in this browser until the server takes ${this.waiting === 1 ? "it" : "them"}: ${this.silence.message}.`);
    } else if (this.silence) said.push(`No news: ${this.silence.message}. What you answer now is kept in this browser.`);
    if (this.trouble) said.push(this.trouble);
    for (const text of this.refused) said.push(`The server refused ${text}.`);
    if (this.foreign) said.push(`${plural(this.foreign, "answer")} in this browser for another ledger than this one.`);
    const trouble = $("trouble");
    const rows = said.map((one) => element("span", { class: "line" }, one));
    if (this.refused.length || this.trouble) rows.push(element("button", { type: "button", class: "bare", id: "forget" }, "understood"));
    if (this.foreign) rows.push(element("button", { type: "button", class: "bare", id: "drop" }, "drop them"));
    const text = rows.map((row) => row.textContent).join("\n");
    if (text !== this.told) trouble.replaceChildren(...rows.flatMap((row) => [row, " "])); // else it would be read out again
    this.told = text;
    trouble.hidden = !said.length;
  }
}

function label(name, left) {
  return left === null ? name : `${name}, ${count(left)} left`;
}

function judging(state) {
  const lamp = (kind) => element("span", { class: `lamp ${kind}`, "aria-hidden": "true" });
  if (!state.running) return [lamp(""), "no service is running"];
  const troubled = (state.health ?? []).some((one) => one.level === "alarm");
  const since = state.last_curve_s ? Date.now() / 1000 - state.last_curve_s : null;
  const wide = element("span", { class: "only-wide" }, "last curve ");
  const words = since === null ? ["no curve yet"] : [wide, `${lasting(Math.max(since, 0))} ago`];
  return [lamp(troubled ? "bad" : "on"), troubled ? "needs you, " : "judging, ", ...words];
}

function tonight(state, waits) {
  const counts = state.session?.counts ?? state.counts;
  if (!counts) return [];
  const total = Object.values(counts).reduce((a, b) => a + b, 0);
  return [
    state.session ? "session " : "in all ",
    element("b", {}, count(total)),
    element("span", { class: "only-wide" }, total === 1 ? " curve" : " curves"),
    " · ",
    element("b", { class: "keep" }, `● ${count(counts.keep ?? 0)} kept`),
    " · ",
    element("b", { class: "review" }, `◐ ${count(waits ?? 0)}`, element("span", { class: "only-wide" }, " left"), " to review"),
  ];
}

function yieldOf(state) {
  const hours = state.yield?.hours ?? [];
  if (!hours.length) return [];
  const kept = hours.map((hour) => hour.keep).slice(-HOURS);
  const top = Math.max(...kept, 1);
  const wide = 100 / HOURS;
  const bars = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  bars.setAttribute("viewBox", "0 0 100 24");
  bars.setAttribute("preserveAspectRatio", "none");
  bars.setAttribute("role", "img");
  bars.setAttribute("aria-label", `kept in each of the last ${plural(kept.length, "hour")}: ${kept.join(", ")}`);
  kept.forEach((many, hour) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const tall = Math.max((24 * many) / top, many ? 2 : 0.8);
    for (const [name, value] of Object.entries({ x: hour * wide + 0.8, y: 24 - tall, width: wide - 1.6, height: tall })) {
      bar.setAttribute(name, value);
    }
    bars.append(bar);
  });
  const { per_hour: rate, kept: many, seconds } = state.yield;
  const words = Number.isFinite(rate) ? ["yield ", element("b", {}, `${figure(rate, 2)}/h`)] : many ? ["yield ", element("b", {}, count(many)), ` in ${lasting(seconds)}`] : [];
  return [...words, hours.length > 1 ? bars : ""];
}

/** Path, events, unseen: three numbers that are never merged. Written only when they change: a hand may be on them. */
function drawPromises(said) {
  const place = $("promises").firstElementChild;
  const text = said.join(" · ") || "the night";
  if (place.textContent !== text) place.textContent = text;
}

/** What to look at on tip and run: no alarm, for the service is well. */
function drawAdvice(texts) {
  const place = $("advice");
  place.hidden = !texts.length;
  const rows = texts.map((text) => element("span", {}, `▲ ${text}`));
  if (place.textContent !== rows.map((row) => row.textContent).join(" ")) place.replaceChildren(...rows.flatMap((row) => [row, " "]).slice(0, -1));
}

function session(state, scope) {
  const button = element("button", { type: "button", class: "bare", "data-act": "session" }, "begin a session");
  const now = state.session;
  if (!now) return [element("p", { class: "quiet" }, "none goes on"), ...goalOf(state), button];
  const name = [now.name, now.sample, now.tip && `tip ${now.tip}`].filter(Boolean).join(", ");
  const lines = [element("p", {}, element("bdi", {}, name || `session ${now.number ?? ""}`))];
  const since = (Date.now() - new Date(now.began ?? NaN)) / 1000;
  if (now.ended) {
    lines.push(element("p", { class: "quiet" }, `ended ${clock(now.ended)}`));
    button.textContent = "begin a session";
  } else if (Number.isFinite(since)) lines.push(element("p", { class: "quiet" }, `for ${lasting(Math.max(since, 0))}`));
  if (now.goal) lines.push(element("p", { class: "quiet" }, "goal: ", element("bdi", {}, now.goal)));
  lines.push(...goalOf(state), beside(now.counts ?? {}, state.counts ?? {}));
  if (!now.ended) button.textContent = "begin another";
  const end = element("button", { type: "button", class: "bare", "data-act": "session-end" }, "end it");
  const other = scope === "all" ? "only this session's curves" : "curves of all nights";
  const turn = element("button", { type: "button", class: "bare", "data-act": "scope" }, other);
  return [...lines, element("p", {}, button, now.ended ? "" : end), element("p", {}, turn)];
}

/** The goal in the top line, in short: a telephone has no room for the sentence, which the session tells. */
function drawGoal(goal) {
  const { kept, wanted, low_s: low, high_s: high, text } = goal ?? {};
  const isReached = kept >= wanted;
  const span = isReached ? " reached" : !Number.isFinite(low) ? "" : Number.isFinite(high) ? ` in ${lasting(low)} to ${lasting(high)}` : ` in ${lasting(low)} or more`;
  const place = $("goal");
  place.hidden = !goal;
  place.title = text ?? "";
  place.replaceChildren(...(goal ? ["goal ", element("b", {}, isReached ? count(wanted) : `${count(kept)}/${count(wanted)}`), span] : []));
}

/** How long until enough are kept, as the service says it. */
function goalOf({ goal }) {
  return goal?.text ? [element("p", { class: "goal" }, unbroken(goal.text))] : [];
}

/** The session's verdicts beside those of all nights. */
function beside(session, all) {
  const name = (word) => element("th", { scope: "row", title: word }, SHAPES[word], element("span", { class: "unseen" }, word));
  const cells = (word, one, other) => element("tr", {}, name(word), element("td", {}, one), element("td", { class: "quiet" }, other));
  const head = element("tr", {}, element("td"), ...["session", "all"].map((text) => element("th", { scope: "col" }, text)));
  const rows = ["keep", "review", "discard"].map((word) => cells(word, count(session[word] ?? 0), count(all[word] ?? 0)));
  return element("table", { class: "beside" }, element("tbody", {}, head, ...rows));
}

const unbroken = (text) => text.replaceAll(" %", "\u00a0%");
