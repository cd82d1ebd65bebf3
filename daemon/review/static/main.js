// The review page: one curve, one decision. This module holds what is looked at now and what the keys do.

import { Axes } from "./axes.js";
import { Certificate } from "./certificate.js";
import { Curves, ask, floats, query } from "./client.js";
import { Cut } from "./cut.js";
import { Night } from "./night.js";
import { Outbox } from "./outbox.js";
import { Plot, inWords } from "./plot.js";
import { askHandover, askRater, askSession, tellSession } from "./people.js";
import { afterPaint, say, setCurrent, setPressed, tell } from "./said.js";
import { Sheets } from "./sheets.js";
import { drawAlike, drawGauge, drawWhy, factsOf } from "./side.js";
import { Top } from "./top.js";
import { SHAPES, clean, count, element, parts, plural, sentence, waiting } from "./words.js";

const $ = (id) => document.getElementById(id);
const FETCHED = 30; // items of a queue at once: what is answered meanwhile changes what comes behind them
const AHEAD = 8; // curves that are ready before they are asked for
const STAYS = 3; // of them, when the order of the pile changes
const QUEUES = ["kept", "review", "discards", "disagreements"];
const BLIND = new Set(["discards", "sheet"]);
const EMPTY = {
  kept: "No kept curve waits for you.",
  review: "No curve in review waits for you.",
  discards: "No discard waits for you: a few are drawn for a blind look when they are decided.",
  disagreements: "No disagreement waits for you: there is none, or you have answered all of them.",
  sheet: "No sheet is open.",
  found: "No curve of the list waits for you.",
};
const WORDS = { k: "keep", d: "discard", u: "unsure", s: "skip" };
const PAUSE_MS = 60000; // between two answers: longer was a pause, not a look

const stored = (name, otherwise) => JSON.parse(sessionStorage.getItem(name) ?? "null") ?? otherwise;
const store = (name, value) => sessionStorage.setItem(name, JSON.stringify(value));

const curves = new Curves(() => rater);
const plot = new Plot($("plot"), moved);
const outbox = new Outbox(outboxChanged, taken);
const top = new Top(() => rater, stateChanged, () => view === "night");
const sheets = new Sheets($("sheets-view"), { answer: answerSheet, close: () => openView("curve"), say });
const certificate = new Certificate($("certificate-view"), { say, rater: () => rater, look: () => openQueue("sheet") });
const night = new Night($("night-view"), { left: (name) => top.left(name), look: () => top.look() });
const cut = new Cut($("cut-view"), { say, rater: () => rater, first: () => openQueue("review") });

let rater = sessionStorage.getItem("rater") ?? localStorage.getItem("afm-triage.rater") ?? "";
let view = "curve";
let queue = ""; // none is chosen yet
// Of the queue, those already answered too: {id, …, queue, mine (the answer given here), said ({label, reason} that holds,
// null for none, undefined while nobody knows), note (as it stands in the field, where a hand has changed it)}.
let items = [];
let at = -1;
let isDrawn = false; // the curve at `at` can be seen (or it is said why not): only then does an answer count
let isFetching = false;
let isAtEnd = false;
let ordered = ""; // by what the pile was ordered when it was last asked for
let wanted = 0; // counts what was asked for last, so that an answer that comes late is not shown
let undone = stored("undo", []); // what `z` takes back, the newest last
let looked = stored("looked", {}); // queue -> answers in this sitting
let gaps = stored("gaps", []); // ms between the last answers
let lastAnswer = 0;
let pressed = null; // when the key was pressed to which the next curve is the answer
const takenAt = new Map(); // id -> when the server took its answer: a list that was asked for before does not know it
const axes = new Axes({ stored, store });

// What is looked at.

/** `seen`: what is looked at then. */
async function openQueue(name, seen = "curve") {
  queue = name;
  curves.forgetAll(); // what was said of them meanwhile, and by whom it may be known, is another
  openView(seen);
  items = [];
  at = -1;
  isAtEnd = false;
  location.hash = name;
  const mine = ++wanted;
  setDrawn(null);
  drawProgress();
  await fetchMore();
  if (mine === wanted) show(firstOpen(0));
}

function openView(name) {
  view = name;
  for (const one of ["curve", "sheets", "certificate", "cut", "night"]) $(`${one}-view`).hidden = one !== name;
  for (const button of document.querySelectorAll("nav button[data-view]")) {
    const isSheet = button.dataset.view === "certificate" && name === "curve" && queue === "sheet";
    setCurrent(button, isSheet || button.dataset.view === name);
  }
  for (const button of document.querySelectorAll("nav button[data-queue]")) {
    setCurrent(button, name === "curve" && button.dataset.queue === queue);
  }
  document.querySelector("aside").hidden = name !== "curve";
  document.querySelector(".rooms").classList.toggle("is-wide", name !== "curve");
  for (const below of [document.querySelector("main > footer"), $("enough")]) below.hidden = name !== "curve";
  if (name === "sheets") sheets.open(queue, rater, top.scope);
  if (name === "cut") cut.open();
  if (name === "night") night.open();
  $("advice").classList.toggle("is-said", name === "night");
  top.drawTrouble();
  if (name === "certificate") certificate.open();
  if (name === "curve") plot.draw();
}

async function fetchMore() {
  if (isFetching || isAtEnd || !rater) return;
  isFetching = true;
  const name = queue;
  const began = performance.now();
  ordered = orderOf(top.state);
  try {
    const blind = BLIND.has(name) ? 1 : "";
    const found = await ask(`/api/queue?${query({ name, limit: FETCHED, rater, blind, session: top.scope })}`);
    if (name !== queue) return;
    const ahead = new Set(items.slice(Math.max(at, 0)).filter((item) => !item.mine).map((item) => item.id));
    const sent = new Set(outbox.labels.map((label) => label.id));
    for (const item of items) if (item.mine && name === "disagreements") ahead.add(item.id); // it may go on
    const isNew = ({ id }) => !ahead.has(id) && !sent.has(id) && !(takenAt.get(id) > began);
    const fresh = found.filter(isNew);
    items.push(...fresh.map((item) => ({ ...item, queue: item.queue ?? name, mine: null })));
    isAtEnd = !fresh.length;
  } catch (problem) {
    if (name === queue) top.silence = problem;
    top.drawTrouble();
    setTimeout(() => name === queue && firstOpen(0) < 0 && fetchMore().then(() => name === queue && at < 0 && show(firstOpen(0))), 1000);
  } finally {
    isFetching = false;
    if (name !== queue) fetchMore().then(() => at < 0 && show(firstOpen(0)));
  }
}

const orderOf = (state) => JSON.stringify(state?.order ?? null);

/** The labels order the pile anew: what lies further ahead is asked for again. */
function reorder(state) {
  if (queue !== "review" || isFetching || orderOf(state) === ordered) return;
  const from = at < 0 ? items.length : at + 1 + STAYS;
  items = items.filter((item, place) => place < from || item.mine);
  isAtEnd = false;
  fetchMore();
}

/** The next item without an answer, from a place on; -1 for none. */
function firstOpen(from) {
  return items.findIndex((item, place) => place >= from && !item.mine);
}

/** Draw the item at a place; what has come already is drawn at once. */
function show(place) {
  const mine = ++wanted;
  at = place;
  setPressed("heat", false);
  setPressed("fit", false);
  const item = items[at];
  drawItem(item);
  if (!item) {
    showNothing();
    return;
  }
  const curve = curves.peek(item.id, isBlind(item));
  if (curve) drawCurve(item, curve);
  else {
    setDrawn(null);
    const slow = setTimeout(() => mine === wanted && plot.clear(), 150);
    curves
      .get(item.id, isBlind(item))
      .then(
        (come) => firstAxes(come, item).then(() => mine === wanted && drawCurve(item, come)),
        (problem) => mine === wanted && drawProblem(item, problem),
      )
      .finally(() => clearTimeout(slow));
  }
  afterPaint(() => ahead(mine));
}

function ahead(mine) {
  if (mine !== wanted) return;
  for (const item of items.slice(at + 1, at + 1 + AHEAD)) curves.get(item.id, isBlind(item));
  if (items.length - at < FETCHED / 3) fetchMore();
}

const isBlind = (item) => BLIND.has(item.queue) || BLIND.has(queue);
const isDrawnByChance = (item) => item.is_drawn !== false; // else it stands in where few were drawn

function drawItem(item) {
  const { folder, file } = parts(item?.path ?? "");
  const name = $("name").firstElementChild;
  name.replaceChildren(
    ...(item ? [element("span", { class: "folder" }, folder), file, element("span", { class: "number" }, ` #${item.curve}`)] : []),
  );
  name.title = item ? clean(item.path).slice(0, 300) : "";
  if (!item) $("facts").replaceChildren();
  drawMine(item);
  drawNote(item);
}

/** What goes with the next answer: what the hand has written on this curve, else the note of the answer that holds. */
function drawNote(item) {
  const text = item?.note ?? item?.said?.reason ?? "";
  if ($("note").value !== text) $("note").value = text;
}

function drawMine(item) {
  const mine = $("mine");
  mine.hidden = !item?.mine;
  if (item?.mine) {
    mine.className = `mine ${item.mine === "unsure" ? "review" : item.mine}`;
    mine.textContent = item.mine === "skip" ? "skipped" : `you said ${SHAPES[item.mine]} ${item.mine}`;
  }
  for (const button of document.querySelectorAll(".answers [data-word]")) {
    button.setAttribute("aria-pressed", String(button.dataset.word === item?.mine));
  }
}

function drawCurve(item, curve) {
  const own = curve.labels.at(-1);
  if (item.said === undefined) item.said = own ? { label: own.label, reason: own.reason ?? "" } : null;
  drawNote(item);
  setDrawn(item.id);
  const start = pressed;
  pressed = null;
  if (start !== null) afterPaint(() => performance.measure("key-to-curve", { start, end: performance.now() }));
  $("nothing").hidden = true;
  plot.show(curve, axes.of(curve, items.map((one) => curves.peek(one.id, isBlind(one)))));
  $("plot").setAttribute("aria-label", inWords(curve));
  $("facts").replaceChildren(...factsOf(curve));
  drawGauge(curve, isBlind(item));
  moved();
  afterPaint(() => items[at] === item && drawWhy(curve, isBlind(item), isDrawnByChance(item), item.by_chance)); // first the curve, then what is said of it
  say(`${parts(item.path).file.slice(0, 80)}. ${inWords(curve)}`);
  later(() => alike(item));
}

function drawProblem(item, problem) {
  plot.clear();
  setDrawn(problem.passes ? null : item.id);
  drawGauge(null, isBlind(item));
  const text = problem.passes ? "This curve has not come yet: the server does not answer." : `It cannot be drawn: ${problem.message}`;
  $("nothing").replaceChildren(element("p", {}, clean(text)));
  $("nothing").hidden = false;
  $("beyond").hidden = true;
  $("why").querySelector("div").replaceChildren();
  say(text);
  const mine = wanted;
  if (problem.passes) setTimeout(() => mine === wanted && show(at), 1000);
}

function showNothing() {
  plot.clear();
  setDrawn(null);
  drawGauge(null, false);
  $("beyond").hidden = true;
  $("alike").hidden = true;
  $("why").querySelector("div").replaceChildren();
  const other = QUEUES.find((name) => name !== queue && top.left(name) > 0);
  drawProgress();
  const done = looked[queue] ? `That was all: ${plural(looked[queue], "answer")} in this sitting.` : EMPTY[queue];
  const rows = [element("p", {}, isFetching ? "…" : done)];
  if (queue === "sheet") rows.push(element("button", { type: "button", class: "main", "data-view": "certificate" }, "See what it says"));
  else if (other) {
    const button = element("button", { type: "button", class: "main" }, `Go on with ${other === "kept" ? "kept curves" : other}: ${count(top.left(other))}`);
    rows.push(button);
    button.dataset.queue = other;
  }
  $("nothing").replaceChildren(...rows);
  $("nothing").hidden = false;
  if (document.activeElement === document.body) $("nothing").querySelector("button")?.focus();
  $("plot").setAttribute("aria-label", done);
  say(done);
}

/** Before the very first curve of a kind is drawn, a moment for those behind it: the axes shall fit them too. */
async function firstAxes(curve, item) {
  if (axes.has(curve)) return;
  const behind = items.slice(at, at + AHEAD).filter((one) => one !== item);
  const all = Promise.allSettled(behind.map((one) => curves.get(one.id, isBlind(one))));
  await Promise.race([all, new Promise((done) => setTimeout(done, 400))]);
}

function moved() {
  const beyond = plot.beyond;
  $("beyond").hidden = !beyond || !isDrawn;
  $("beyond").replaceChildren(...(beyond ? [`${beyond}: `, element("kbd", {}, "a"), " fits"] : []));
  setPressed("fit", Boolean(plot.view));
}

// Answers.

function answer(word, start = performance.now()) {
  const item = items[at];
  if (!item || !isDrawn || view !== "curve") return;
  const before = item.mine;
  const asItWas = { ...item };
  if (word === "skip") {
    if (before) return void step(1);
    outbox.add("skip", { id: item.id, rater, queue: item.queue });
  } else {
    const label = { id: item.id, label: word, rater, queue: item.queue, reason: $("note").value.trim() };
    outbox.add("label", [label]);
    Object.assign(item, { said: { label: word, reason: label.reason }, note: undefined });
  }
  item.mine = word;
  remember([{ item: asItWas, word }]);
  if (!before && word !== "skip") counted(item.queue, 1, Number(isDrawnByChance(item)));
  pace(start);
  const next = firstOpen(at + 1);
  pressed = start;
  show(next >= 0 ? next : firstOpen(0));
  if (!items[at] && !isAtEnd) fetchMore().then(() => at < 0 && show(firstOpen(0)));
}

/** A sheet: all of it but the exceptions, which are looked at one by one right after. */
function answerSheet(all, exceptions, word) {
  const labels = all.map((item) => ({ id: item.id, label: word, rater, queue: item.queue ?? queue }));
  if (labels.length) {
    outbox.add("label", labels);
    remember(all.map((item) => ({ item: { ...item, queue: item.queue ?? queue, mine: null, said: saidOf(item) }, word })));
    counted(queue, labels.length, all.filter(isDrawnByChance).length);
    const done = new Set(all.map((item) => item.id));
    for (const item of items) if (done.has(item.id)) Object.assign(item, { mine: word, said: { label: word, reason: "" } });
    tell(`${plural(labels.length, "answer")} stored: ${SHAPES[word]} ${word}.`);
  }
  if (!exceptions.length) return;
  const known = new Set(exceptions.map((item) => item.id));
  items = items.filter((item) => item.mine || !known.has(item.id));
  const place = items.filter((item) => item.mine).length ? at + 1 : 0;
  items.splice(Math.max(place, 0), 0, ...exceptions.map((item) => ({ ...item, queue: item.queue ?? queue, mine: null })));
  openView("curve");
  show(firstOpen(Math.max(place, 0)));
}

function undo() {
  const last = undone.pop();
  store("undo", undone);
  if (!last) return void tell("Nothing to undo.");
  for (const { item, word } of last) {
    outbox.add("undo", { id: item.id, rater });
    if (item.said) outbox.add("label", [{ id: item.id, rater, queue: item.queue, ...item.said }]);
    if (!item.mine && word !== "skip") counted(item.queue, -1, -Number(isDrawnByChance(item)));
    const place = items.findLastIndex((one) => one.id === item.id);
    if (place >= 0) Object.assign(items[place], { mine: item.mine, said: item.said, note: item.note });
  }
  openView("curve");
  const { item } = last[0];
  let place = items.findLastIndex((one) => one.id === item.id);
  if (place < 0) {
    place = Math.max(at, 0);
    items.splice(place, 0, { ...item });
  }
  show(place);
  const held = last[0].word !== "skip" && item.said?.label;
  if (last.length > 1) tell(`Undone: ${last.length} answers.`);
  else tell(held ? `Undone: back to ${SHAPES[held]} ${held}.` : "Undone: it is open again.");
}

/** The answer that held before, as far as a list tells it. */
function saidOf(item) {
  return item.said ?? (item.label ? { label: item.label, reason: "" } : null);
}

function remember(answers) {
  undone = [...undone, answers].slice(-200);
  store("undo", undone);
}

/** Answers of this sitting, and of how many of them somebody waited: not for what stands in. */
function counted(name, many, waited) {
  looked[name] = Math.max((looked[name] ?? 0) + many, 0);
  store("looked", looked);
  afterPaint(() => {
    top.note(name, waited);
    drawProgress();
  });
}

function pace(now) {
  const gap = now - lastAnswer;
  if (lastAnswer && gap < PAUSE_MS) gaps = [...gaps, gap].slice(-30);
  store("gaps", gaps);
  lastAnswer = now;
}

function step(by) {
  if (view !== "curve") return; // a curve that nobody sees does not move on
  const place = at < 0 ? items.length - 1 : at + by;
  if (place < 0 || (place >= items.length && isAtEnd && at < 0)) return;
  if (place < items.length) show(place);
  else if (isAtEnd) show(firstOpen(0));
}

function drawProgress() {
  if (!queue) return;
  const done = looked[queue] ?? 0;
  const left = top.left(queue);
  const bar = $("progress");
  bar.hidden = left === null;
  if (left !== null) {
    bar.max = Math.max(done + left, 1);
    bar.value = done;
  }
  const each = gaps.length >= 3 ? [...gaps].sort((a, b) => a - b)[gaps.length >> 1] / 1000 : null;
  const said = left === null ? [] : [`${count(left)} ${queue === "discards" ? "drawn " : ""}${left === 1 ? "waits" : "wait"}`];
  if (done || left === null) said.push(`${plural(done, "answer")} in this sitting`);
  if (each && left) said.push(waiting(left * each));
  if (queue === "review" && left && top.state.order) said.push(top.state.order.sentence);
  $("left").textContent = said.join(" · ");
  $("enough").textContent = queue === "review" ? sentence(top.state?.enough?.text ?? "") : "";
}

// What the other parts report.

function outboxChanged(problem) {
  top.waiting = outbox.waiting.length - outbox.foreign.length;
  top.foreign = outbox.foreign.length;
  top.refused = outbox.refused;
  if (problem) top.silence = problem;
  else if (!top.waiting && top.silence?.status === 0) top.look();
  top.drawTrouble();
}

function taken(entry) {
  for (const label of entry.kind === "label" ? entry.body : []) {
    takenAt.set(label.id, performance.now());
    curves.forget(label.id);
  }
}

function stateChanged(state) {
  if (!state) return;
  if (outbox.stream !== state.stream) {
    outbox.stream = state.stream;
    outbox.send();
  }
  top.foreign = outbox.foreign.length;
  top.drawTrouble();
  drawProgress();
  reorder(state);
  drawEffect(state);
  if (view === "night") night.show(state.night, top.silence, state.learning);
  if (view === "curve" && at < 0 && top.left(queue) > 0 && !isFetching) {
    isAtEnd = false;
    fetchMore().then(() => at < 0 && firstOpen(0) >= 0 && show(firstOpen(0)));
  }
}

function drawEffect(state) {
  const said = (state.effect ?? []).map((text) => element("p", {}, sentence(text)));
  if (said.length) {
    const more = element("button", { type: "button", class: "bare", "data-view": "cut" }, "see the cut ", element("kbd", {}, "c"));
    said.push(element("p", {}, more));
  }
  $("effect").hidden = !said.length;
  const box = $("effect").querySelector("div");
  if (box.textContent !== said.map((one) => one.textContent).join("")) box.replaceChildren(...said);
  const own = state.rater?.sentences ?? [];
  $("own").hidden = !own.length;
  $("own").querySelector("div").replaceChildren(...own.map((text) => element("p", {}, text)));
}

async function alike(item) {
  try {
    const isHidden = isBlind(item); // what one said of its likes would tell what to say
    const found = await ask(`/api/alike/${encodeURIComponent(item.id)}?${query({ limit: 6, rater, blind: isHidden ? 1 : "" })}`);
    if (isHidden) for (const one of found) one.label = null;
    if (items[at] === item) drawAlike(found, openAlike);
  } catch {
    if (items[at] === item) $("alike").hidden = true; // a help, not a need
  }
}

function openAlike(item) {
  const place = items.findIndex((one) => one.id === item.id);
  if (place >= 0) return show(place);
  items.splice(at + 1, 0, { ...item, queue, mine: item.label ?? null, said: undefined });
  show(at + 1);
}

let idle = 0;
/** Once the hand rests: what a quick labeller never waits for. */
function later(work) {
  clearTimeout(idle);
  idle = setTimeout(work, 220);
}

async function heat() {
  const item = items[at];
  if (!item || !isDrawn || !plot.curve) return;
  if (isBlind(item) && !item.mine) return tell("Blind: first your answer, then the heat.");
  if (plot.heat) {
    plot.warm(null);
    setPressed("heat", false);
    return;
  }
  const mine = wanted;
  setPressed("heat", true);
  try {
    const found = await ask(`/api/curve/${encodeURIComponent(item.id)}/heat`);
    if (mine !== wanted) return;
    plot.warm({ along: floats(found.along) });
    say("Heat: where the network looked, warm on the curve.");
  } catch (problem) {
    if (mine !== wanted) return;
    setPressed("heat", false);
    tell(`No heat: ${problem.message}`);
  }
}

// Hands.

const ACTS = {
  undo,
  heat,
  back: () => step(-1),
  on: () => step(1),
  fit: () => plot.fit(),
  help: () => {
    $("help").showModal();
    $("help").scrollTop = 0; // where it is longer than the window, its end would be shown
  },
  session: () => askSession(rater, (body) => changeSession(body, "The session has begun.")),
  "session-end": () => changeSession({ end: true }, "The session has ended."),
  scope: () => changeScope(),
  handover: () => top.state?.handover && askHandover(top.state.handover),
};

const KEYS = {
  z: undo,
  h: heat,
  a: ACTS.fit,
  "?": ACTS.help,
  "+": () => plot.zoom(1.5),
  "=": () => plot.zoom(1.5),
  "-": () => plot.zoom(1 / 1.5),
  0: () => plot.reset(),
  n: () => $("note").focus(),
  g: () => queue && openView(view === "sheets" ? "curve" : "sheets"),
  p: () => openView(view === "certificate" ? "curve" : "certificate"),
  c: () => openView(view === "cut" ? "curve" : "cut"),
  t: () => openView(view === "night" ? "curve" : "night"),
  o: ACTS.handover,
  r: () => {
    if (top.state?.report) window.open("/report", "_blank", "noopener");
    else if (top.state?.handover) askHandover(top.state.handover, "No report was written by night yet; the last command makes one. ");
  },
  ArrowLeft: (event) => (event.shiftKey ? plot.pan(-0.15, 0) : step(-1)),
  ArrowRight: (event) => (event.shiftKey ? plot.pan(0.15, 0) : step(1)),
  ArrowUp: (event) => event.shiftKey && plot.pan(0, 0.15),
  ArrowDown: (event) => event.shiftKey && plot.pan(0, -0.15),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const key = keyOf(event);
  if (event.target.matches("input:not([type=range])")) {
    if (key === "Enter" || key === "Escape") event.target.blur();
    return;
  }
  if (event.target.matches("input") && key.length > 1 && key !== "Escape") return; // arrows move a slider
  if (view === "sheets" && sheets.key(key)) return void event.preventDefault();
  if (WORDS[key]) {
    event.preventDefault();
    if (!event.repeat) answer(WORDS[key], event.timeStamp); // a key held down is one answer
  } else if (key >= "1" && key <= "4") openQueue(QUEUES[key - 1]);
  else if (key === "Escape" && view !== "curve") openView("curve");
  else if (KEYS[key]) {
    if (!(key.startsWith("Arrow") && !event.shiftKey && /Up|Down/.test(key))) event.preventDefault();
    KEYS[key](event);
  }
});

/** The letter on the key cap, also where another script is switched on. */
function keyOf({ key, code }) {
  if (key.length > 1) return key;
  const letter = key.toLowerCase();
  return letter > "\u007f" && code.startsWith("Key") ? code[3].toLowerCase() : letter;
}

$("note").addEventListener("input", () => {
  if (items[at]) items[at].note = $("note").value;
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || button.closest("dialog")) return;
  const { word, queue: name, view: other, act, scope } = button.dataset;
  if (word && button.closest("#curve-view")) answer(word, event.timeStamp);
  else if (scope && scope !== top.scope) changeScope(name);
  else if (name) openQueue(name);
  else if (other) openView(other);
  else if (act) ACTS[act]?.();
  else if (button.id === "who") askRater(rater, becomes);
  else if (button.id === "drop") outbox.dropForeign();
  else if (button.id === "forget") {
    top.trouble = "";
    outbox.forgetRefused();
  }
});

/** Which curve can be seen (or is said to be gone); null while none can, and then no answer counts. */
function setDrawn(id) {
  isDrawn = id !== null;
  if (isDrawn) $("plot").dataset.id = id;
  else delete $("plot").dataset.id;
  for (const button of document.querySelectorAll(".answers [data-word]")) button.setAttribute("aria-disabled", String(!isDrawn));
}

// The beginning.

addEventListener("hashchange", () => {
  const name = location.hash.slice(1);
  if (name in EMPTY && name !== queue) openQueue(name);
  else if (linked()) openLinked();
});

/** The id of the curve that the address names, as a console opens it; "" where it names none. */
function linked() {
  return location.hash.startsWith("#curve=") ? decodeURIComponent(location.hash.slice(7)) : "";
}

/** The curve of the address at the head of the kept or flagged ones: its queue goes on behind it. */
async function openLinked() {
  const id = linked();
  let item = null;
  try {
    const { path, curve, verdict } = await ask(`/api/curve/${encodeURIComponent(id)}?${query({ rater })}`);
    item = { id, path, curve, verdict };
  } catch (problem) {
    top.trouble = `The curve of this address: ${problem.message}.`;
    top.drawTrouble();
    return openFirst(top.look());
  }
  const name = item.verdict === "keep" ? "kept" : "review";
  await openQueue(name);
  if (queue !== name) return;
  const place = items.findIndex((one) => one.id === id);
  if (place < 0) items.unshift({ ...item, queue: "link", mine: null, said: undefined });
  show(Math.max(place, 0));
}

async function changeSession(body, done) {
  try {
    await tellSession(body);
    tell(done);
    await top.look();
    openQueue(queue);
  } catch (problem) {
    top.trouble = `The session: ${problem.message}.`;
    top.drawTrouble();
  }
}

/** Look at the curves of all nights, or again at those of this session alone. */
async function changeScope(name = queue) {
  top.scope = top.scope === "all" ? "current" : "all";
  say(top.scope === "all" ? "The curves of all nights." : "The curves of this session.");
  await top.look();
  openQueue(name);
}

/** Another person looks now: what was counted and could be undone was the other's. */
function becomes(name) {
  if (name !== rater) {
    rater = name;
    sessionStorage.setItem("rater", rater);
    localStorage.setItem("afm-triage.rater", rater);
    [undone, looked, gaps] = [[], {}, []];
    for (const [key, value] of Object.entries({ undo: undone, looked, gaps })) store(key, value);
  }
  begin();
}

function begin() {
  $("rater").textContent = rater;
  const looking = top.look();
  outbox.send();
  const name = location.hash.slice(1);
  if (name in EMPTY) openQueue(name);
  else if (linked()) openLinked();
  else openFirst(looking);
}

/** Confirmed events among the kept curves are what moves a cut: so they come first, where some wait. */
async function openFirst(looking) {
  await looking;
  if (!queue) openQueue(top.left("kept") > 0 ? "kept" : "review", view); // a key may have been faster
}

if (rater) begin();
else {
  top.look();
  askRater(rater, becomes);
}
