// The night: what is being missed, in three numbers that never merge, a second opinion, and what the tip is like.

import { say } from "./said.js";
import { TipCharts } from "./tip.js";
import { between, count, element, figure, minute, plural, sentence } from "./words.js";

const DOTS = 60; // confirmed events that are drawn one by one
const percent = (share) => `${figure(100 * share, 3)}\u00a0%`;

const unbroken = (text) => text.replaceAll(" %", "\u00a0%");

/** What each number is asked, and what it cannot know: a number that says all is believed too much. */
const CARDS = [
  {
    name: "path",
    title: "Path",
    asks: "Does the line work?",
    silent: "Whether your molecule's events are found: simulated ones may be kept while real ones are misread.",
  },
  {
    name: "events",
    title: "Your events",
    asks: "Are known events found?",
    silent: "What nobody has confirmed. Most of these were looked at because the model had shown them.",
  },
  {
    name: "unseen",
    title: "Unseen",
    asks: "What hides in discards?",
    silent: "Which ones, and nothing of what another model or cut has discarded.",
    queue: "discards",
    words: "look at discards, blind",
  },
  {
    name: "second",
    title: "Second opinion",
    asks: "Does anything disagree?",
    silent: "That a step is an event. What neither of the two sees stays out of any count: so “at least”.",
    queue: "disagreements",
    words: "look at what is disputed",
  },
];

export class Night {
  #cards = new Map();
  #told = "";

  /** `left(queue)`: curves that wait in one; `look()`: ask again. */
  constructor(section, hands) {
    this.section = section;
    this.hands = hands;
    this.charts = new TipCharts();
  }

  async open() {
    if (!this.#cards.size) this.#build();
    await this.hands.look();
    say(this.#told);
  }

  /** What was told last; what a hand or a reader is at stays where it is. */
  show(night, problem, learning) {
    this.#teach(learning);
    if (problem) this.#judge([["", `Nothing new is known: ${problem.message}.`]]);
    else if (night) this.#draw(night);
  }

  #build() {
    this.verdict = element("div", { class: "verdict" });
    this.notes = element("div", { class: "quiet" });
    const cards = element("div", { class: "numbers" }, ...CARDS.map((card) => this.#card(card)));
    this.learned = element("section", { class: "learned", "aria-label": "Learning", hidden: true });
    this.section.replaceChildren(
      element("header", {}, element("h2", {}, "The night"), element("p", { class: "quiet" }, "is anything being missed, and is anything wrong with the tip")),
      this.verdict,
      this.notes,
      cards,
      this.learned,
      this.charts.section,
    );
  }

  #card({ name, title, asks, silent, queue, words }) {
    const parts = {
      value: element("p", { class: "value" }),
      graph: element("div", { class: "graph" }),
      text: element("div", { class: "text" }),
    };
    const silence = element("div", { class: "silent" }, element("p", {}, element("b", {}, "Does not say: "), silent));
    if (queue) {
      parts.look = element("button", { type: "button", class: "bare look", "data-queue": queue });
      parts.words = words;
      silence.append(parts.look);
    }
    this.#cards.set(name, parts);
    const head = element("header", {}, element("h3", {}, title), element("p", { class: "quiet" }, asks));
    return element("section", { class: "number-card", "aria-label": title }, head, parts.value, parts.graph, parts.text, silence);
  }

  #draw({ guard, from, alarms, advice, left, notes }) {
    for (const { name, queue } of CARDS) {
      const [parts, told] = [this.#cards.get(name), guard?.[name] ?? null];
      const { value, words, graph, rows, lines, waits } = told ? DRAWN[name](told) : { value: "–", words: (name === "path" && guard?.no_path) || "nothing is known yet" };
      parts.value.classList.toggle("bad", told?.is_well === false);
      parts.value.replaceChildren(element("b", {}, value), words ? ` ${words}` : "");
      parts.graph.replaceChildren(graph ?? "");
      const text = alarms.includes(told?.text) ? "" : (told?.text ?? ""); // it stands above already
      const all = rows ?? [...text.split(/; (?![^(]*\))/), ...(lines ?? [])];
      parts.text.replaceChildren(...all.filter(Boolean).map((row) => element("p", {}, unbroken(sentence(row)))));
      if (queue) {
        const here = this.hands.left(queue);
        const many = waits ?? here;
        parts.look.textContent = many ? `${parts.words}: ${count(many)}` : parts.words;
        if (here !== null && many > here) parts.look.dataset.scope = "all"; // they wait in other sessions
        else delete parts.look.dataset.scope;
      }
    }
    this.charts.draw(guard?.tip ?? null);
    this.section.classList.toggle("is-tip", Boolean(advice.length && guard?.tip?.blocks?.length));
    this.#sum(guard, from, alarms, advice, left);
    if (this.notes.textContent !== notes.join("")) this.notes.replaceChildren(...notes.map((note) => element("p", {}, note)));
  }

  /** What the gate said of the last network that labels taught, and what is missing for the next. */
  #teach(learning) {
    const lines = (learning?.text ?? "").split("; ").filter(Boolean);
    if (!this.learned || this.learned.dataset.told === lines.join()) return;
    this.learned.dataset.told = lines.join();
    this.learned.hidden = !lines.length;
    const rows = lines.map((line) => element("p", {}, unbroken(sentence(line))));
    this.learned.replaceChildren(element("header", {}, element("h3", {}, "Learning"), element("p", { class: "quiet" }, "What do your labels teach?")), ...rows);
  }

  /** The lines to read first: what needs a person, what needs whoever is at the microscope, or that nothing does. */
  #sum(guard, from, alarms, advice, left) {
    const path = guard?.path;
    const bad = from !== "files" && path && !path.is_well && !alarms.length ? [path.text] : alarms;
    const lines = [...bad.map((text) => ["bad", sentence(text)]), ...advice.map((text) => ["warn", sentence(text)])];
    if (lines.length) return this.#judge(lines);
    const isYoung = !Number.isFinite(path?.lower_bound ?? NaN);
    if (from === "files") {
      const stood = left.map(({ level, text }) => [level === "alarm" ? "bad" : "warn", sentence(text)]);
      this.#judge([["", "No service is running: this is how it was left."], ...stood]);
    } else if (from === "off") this.#judge([["", "The guard is switched off: nobody watches."]]);
    else if (guard?.no_path) this.#judge([["", sentence(guard.no_path)]]);
    else if (guard?.told?.length) this.#judge([["", "Nothing is wrong now; what was told before the restart stands below."]]);
    else {
      const waits = this.hands.left("review");
      const looks = waits ? ` Your look is wanted: ${count(waits)} in review ${waits > 1 ? "wait" : "waits"}.` : "";
      this.#judge([["on", `Nothing is wrong${isYoung ? " so far; what can be said is still little" : ""}.${looks}`]]);
    }
  }

  #judge(lines) {
    const told = lines.map(([, text]) => text).join(" ");
    if (told === this.#told) return;
    this.#told = told;
    const row = ([kind, text]) => element("p", { class: kind }, element("span", { class: `lamp ${kind}`, "aria-hidden": "true" }), ...weighed(text));
    this.verdict.replaceChildren(...lines.map(row));
  }
}

/** First what is so, then what to do. */
function weighed(text) {
  const end = text.search(/[:;] /);
  return end < 0 ? [text] : [text.slice(0, end), element("span", { class: "deed" }, text.slice(end))];
}

/** Of each number: its value, the words behind it, a small drawing, and what else is to be told. */
const DRAWN = {
  path({ lower_bound: bound, null: usual, canaries, missed, since, text, is_well: isWell }) {
    const found = canaries - missed;
    if (bound === null || bound === undefined) return { value: "–", words: "too few for a bound yet" };
    return {
      value: `≥ ${percent(Math.floor(1000 * bound + 1e-9) / 1000)}`,
      words: "of simulated events found",
      graph: scale(bound, 1 - usual, `${count(found)} of ${count(canaries)}`),
      rows: [
        `${count(found)} of ${count(canaries)} were found since ${minute(since)}`,
        ...(isWell ? text.split("; ").slice(1) : []),
        "“≥” is 95\u00a0% sure, however often you look; “usual” is what this cut finds when all is well",
      ],
    };
  },
  events({ confirmed, kept_live: kept, live_low, live_high, shown_live: shown, shown_low, shown_high, ...told }) {
    if (!confirmed) return { value: "–", words: "none confirmed yet" };
    const { found_now: found, scored_now: scored, low, high, session } = told;
    const rows = [`kept live: ${count(kept)} (${between(live_low, live_high)}); for review ${count(shown - kept)}, discarded ${count(confirmed - shown)}`];
    if (session?.confirmed) rows.push(`in this session ${count(session.shown_live)} of ${count(session.confirmed)} were shown, ${count(session.kept_live)} kept`);
    const so = scored < confirmed ? `, re-judged so far of ${count(confirmed)},` : "";
    if (scored) rows.push(`the model that serves now finds ${count(found)} of ${count(scored)}${so} (${between(low, high)})`);
    else if (confirmed) rows.push(`${plural(confirmed, "event has", "events have")} no score of the model that serves yet`);
    return {
      value: `${count(shown)} of ${count(confirmed)}`,
      words: `were shown to you live: kept or for review, ${between(shown_low, shown_high)}`,
      graph: dots({ kept, shown: shown - kept, lost: confirmed - shown }),
      rows,
    };
  },
  unseen({ discards, looked_at: looked, at_most: most, found, drawn }) {
    const rest = Math.max(drawn - looked, 0);
    const lines = rest && looked ? [`${plural(rest, "more is", "more are")} drawn and ${rest === 1 ? "waits" : "wait"} for a look`] : [];
    if (most === null || most === undefined) return { value: "–", words: `of ${plural(discards, "discard")} nothing is known`, lines, waits: rest };
    return {
      value: `at most ${count(most)}`,
      words: `of ${plural(discards, "discard")}, ${figure((100 * most) / Math.max(discards, 1), 2)}\u00a0%`,
      graph: strip({ discards, looked, most, found }),
      lines,
      waits: rest,
    };
  },
  second({ seen, disputed, looked_at: looked, confirmed }) {
    return {
      value: count(disputed),
      words: `${disputed === 1 ? "discard" : "discards"} disputed, of ${plural(seen, "curve")}`,
      graph: strip({ discards: Math.max(disputed, 1), looked, most: 0, found: confirmed }),
    };
  },
};

const SVG = "http://www.w3.org/2000/svg";
function drawing(words, ...shapes) {
  const made = document.createElementNS(SVG, "svg");
  for (const [name, value] of Object.entries({ viewBox: "0 0 240 30", role: "img", "aria-label": words })) made.setAttribute(name, value);
  made.append(...shapes);
  return made;
}
function shape(tag, properties, text = null) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  return made;
}

/** Where the bound stands, and what this cut finds of simulated events when all is well; from half to all of them. */
function scale(bound, usual, words) {
  const low = 0.5;
  const place = (share) => 4 + (232 * (Math.max(share, low) - low)) / (1 - low);
  return drawing(
    `${words} found; at least ${percent(bound)}, usual ${percent(usual)}`,
    shape("rect", { x: 4, y: 6, width: 232, height: 6, rx: 3, class: "ground" }),
    shape("rect", { x: place(bound), y: 6, width: 236 - place(bound), height: 6, rx: 3, class: "fill" }),
    shape("line", { x1: place(usual), x2: place(usual), y1: 2, y2: 16, class: "mark" }),
    shape("text", { x: 4, y: 27 }, percent(low)),
    shape("text", { x: place(usual), y: 27, "text-anchor": "end" }, `usual ${percent(usual)}`),
  );
}

/** Confirmed events one by one: kept, sent to review, discarded. */
function dots({ kept, shown, lost }) {
  const all = kept + shown + lost;
  const words = `${count(kept)} kept · ${count(shown)} review · ${count(lost)} discard`;
  const kinds = [["keep", kept], ["review", shown], ["discard", lost]];
  if (all > DOTS) {
    let x = 4;
    const parts = kinds.map(([kind, many]) => {
      const width = (232 * many) / all;
      const made = shape("rect", { x, y: 6, width, height: 8, class: kind });
      x += width;
      return made;
    });
    return drawing(words, ...parts, shape("text", { x: 4, y: 27 }, words));
  }
  const step = 232 / 30;
  let place = 0;
  const made = [];
  for (const [kind, many] of kinds) {
    for (let i = 0; i < many; i++, place++) {
      const [cx, cy] = [4 + step * ((place % 30) + 0.5), 8 + 12 * Math.floor(place / 30)];
      made.push(shape("circle", { cx, cy, r: 3, class: `dot ${kind}` }));
      if (kind === "review") made.push(shape("path", { d: `M${cx} ${cy - 3}a3 3 0 0 0 0 6z`, class: "dot half review" }));
    }
  }
  return drawing(words, ...made);
}

/** All discards as one bar: what was looked at, and the most that may be events. */
function strip({ discards, looked, most, found }) {
  const wide = (many) => (232 * Math.min(many, discards)) / discards;
  return drawing(
    `${count(looked)} looked at, ${count(found)} of them events${most ? `, at most ${count(most)} events in all` : ""}`,
    shape("rect", { x: 4, y: 6, width: 232, height: 6, rx: 3, class: "ground" }),
    shape("rect", { x: 4, y: 6, width: wide(looked), height: 6, rx: 3, class: "fill" }),
    ...(most ? [shape("rect", { x: 236 - wide(most), y: 6, width: wide(most), height: 6, class: "doubt" })] : []),
    shape("text", { x: 4, y: 27 }, `looked at ${count(looked)}`),
    ...(most ? [shape("text", { x: 236, y: 27, "text-anchor": "end" }, `may be events: ${count(most)}`)] : []),
  );
}
