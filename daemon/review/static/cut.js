// The cut: where the scores lie, what moving a threshold would do, and the proposal that confirmed events have earned.

import { ask } from "./client.js";
import { along, count, element, figure, plural, sentence, unalong } from "./words.js";

const BARS = 80;

export class Cut {
  #scores = null;
  #proposal = null;

  /** `say(text)`, `rater()`, `first()`: open the curves to look at first. */
  constructor(section, hands) {
    this.section = section;
    this.hands = hands;
    this.watch = new ResizeObserver(() => this.#histogram());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#histogram());
  }

  async open() {
    this.section.replaceChildren(element("p", { class: "quiet" }, "Counting scores …"));
    const [scores, proposal] = await Promise.allSettled([ask("/api/scores"), ask("/api/cut")]);
    this.#scores = scores.value ?? null;
    this.canvas = this.table = null;
    this.#proposal = proposal.value ?? null;
    const problem = scores.reason ?? proposal.reason;
    this.#draw(problem);
  }

  #draw(problem) {
    const { discard, keep } = this.#scores?.thresholds ?? {};
    this.moved = { discard, keep };
    const rows = [element("header", {}, element("h2", {}, "The cut"), element("p", { class: "quiet" }, "where the scores lie, and what moving a threshold would do; nothing moves by looking"))];
    if (problem) rows.push(element("p", {}, `Not all is known: ${problem.message}.`));
    if (this.#scores?.thresholds) {
      this.canvas = element("canvas", { role: "img", "aria-label": "Histogram of scores" });
      this.watch.disconnect();
      this.watch.observe(this.canvas);
      this.table = element("table", { class: "forecast" });
      this.words = element("p", { role: "status" });
      rows.push(this.canvas, this.#sliders(), this.table, this.words);
    }
    if (this.#proposal) rows.push(this.#offer());
    this.section.replaceChildren(...rows);
    this.#histogram();
    this.#forecast();
  }

  #sliders() {
    const box = element("div", { class: "sliders" });
    for (const [name, words] of [["discard", "discard up to"], ["keep", "keep from"]]) {
      const slider = element("input", { type: "range", min: "0", max: "1", step: "0.002", id: `slide-${name}` });
      slider.value = along(this.moved[name]);
      const said = element("output", { htmlFor: slider.id }, figure(this.moved[name]));
      slider.addEventListener("input", () => {
        const other = name === "discard" ? this.moved.keep : this.moved.discard;
        const value = unalong(Number(slider.value));
        this.moved[name] = name === "discard" ? Math.min(value, other) : Math.max(value, other);
        said.textContent = figure(this.moved[name]);
        this.#histogram();
        this.#forecast();
      });
      box.append(element("label", { htmlFor: slider.id }, words), said, slider);
    }
    return box;
  }

  /** `{discard, review, keep}`: curves on each side of two thresholds. */
  #split({ discard, keep }) {
    const found = { discard: 0, review: 0, keep: 0 };
    for (const one of this.#scores.scores) found[one <= discard ? "discard" : one >= keep ? "keep" : "review"]++;
    return found;
  }

  #bins() {
    const scores = this.#scores.scores ?? [];
    const edges = Array.from({ length: BARS + 1 }, (_, i) => i / BARS);
    const counts = new Array(BARS).fill(0);
    for (const one of scores) counts[Math.min(Math.floor(along(one) * BARS), BARS - 1)]++;
    return { edges, counts };
  }

  #histogram() {
    const { canvas } = this;
    if (!canvas?.clientWidth || !this.#scores?.thresholds) return;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    [canvas.width, canvas.height] = [width * ratio, height * ratio];
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const { edges, counts } = this.#bins();
    const top = Math.max(...counts.map(Math.sqrt), 1);
    const base = height - 38;
    const [low, high] = [along(this.moved.discard), along(this.moved.keep)];
    counts.forEach((many, bin) => {
      const middle = (edges[bin] + edges[bin + 1]) / 2;
      pen.fillStyle = colour(middle <= low ? "discard" : middle >= high ? "keep" : "review");
      const tall = (Math.sqrt(many) / top) * (base - 40);
      pen.fillRect(edges[bin] * width + 0.5, base - tall, width / BARS - 1, tall);
    });
    pen.fillStyle = colour("quiet");
    pen.font = '12px system-ui, "DejaVu Sans", sans-serif';
    pen.textBaseline = "top";
    pen.textAlign = "left";
    let free = 0; // from here on there is room
    for (const value of [0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]) {
      const wide = pen.measureText(String(value)).width;
      const x = Math.min(Math.max(along(value) * width - wide / 2, 0), width - wide);
      if (x < free) continue;
      pen.fillText(String(value), x, base + 6);
      free = x + wide + 8;
    }
    pen.textAlign = "right";
    pen.fillText("score (by log odds); tall: many curves", width, base + 22);
    pen.strokeStyle = colour("ink");
    pen.lineWidth = 2;
    const marks = [[low, "○ discard", "right", 4], [high, "● keep", "left", 4]];
    if (this.#proposal?.moves) {
      const place = along(this.#proposal.new);
      marks.push([place, "proposed", place < 0.5 ? "left" : "right", 20]); // a line lower: it may lie on either
    }
    for (const [place, words, align, y] of marks) {
      const x = place * width;
      pen.setLineDash(words === "proposed" ? [3, 4] : []);
      pen.beginPath();
      pen.moveTo(x, 4);
      pen.lineTo(x, base);
      pen.stroke();
      pen.fillStyle = colour("ink");
      pen.textAlign = align;
      const from = x + (align === "left" ? 7 : -7);
      pen.setLineDash([]);
      pen.strokeStyle = colour("card");
      pen.lineWidth = 4;
      pen.strokeText(words, from, y);
      pen.strokeStyle = colour("ink");
      pen.lineWidth = 2;
      pen.fillText(words, from, y);
    }
  }

  #forecast() {
    if (!this.table) return;
    const [now, then] = [this.#split(this.#scores.thresholds), this.#split(this.moved)];
    const cells = (from) => ["discard", "review", "keep"].map((word) => element("td", { class: word }, count(from[word])));
    const row = (name, from) => element("tr", {}, element("th", { scope: "row" }, name), ...cells(from));
    const head = element("tr", {}, element("th", {}, ""), ...["○ discard", "◐ review", "● keep"].map((word) => element("th", { scope: "col" }, word)));
    const { thresholds } = this.#scores;
    const proposed = this.#proposal?.moves ? [row("as proposed", this.#split({ ...thresholds, discard: this.#proposal.new }))] : [];
    this.table.replaceChildren(element("thead", {}, head), element("tbody", {}, row("with the cut in force", now), ...proposed, row("as moved here", then)));
    const fewer = now.review - then.review;
    const change = fewer === 0 ? "" : `${plural(Math.abs(fewer), "curve")} ${fewer > 0 ? "fewer" : "more"} to look at. `;
    this.words.textContent = change + (then.discard > now.discard ? "Whether an event is among them, only looking tells." : "");
  }

  #offer() {
    const proposal = this.#proposal;
    const box = element("div", { class: "said" });
    const told = [proposal.taken_back, ...(proposal.sentences ?? [])].filter(Boolean);
    const missing = (proposal.missing ?? []).filter((text) => !told.some((one) => one.includes(text)));
    for (const text of [...told, ...missing]) box.append(element("p", {}, sentence(text)));
    const first = (proposal.look_first_ids ?? []).length;
    const row = element("div", { class: "row" });
    if (first) {
      const look = element("button", { type: "button", class: "second" }, `Look at ${plural(first, "curve")} between the cuts first`);
      look.addEventListener("click", this.hands.first);
      row.append(look);
    }
    if (proposal.moves) {
      const move = element("button", { type: "button", class: "main" }, `Move the cut to ${figure(proposal.new)}`);
      move.disabled = first > 0;
      const why = first ? `Waits until ${first === 1 ? "this curve has" : `these ${count(first)} curves have`} your answer.` : "";
      move.addEventListener("click", () => this.#accept(move, row));
      row.append(move);
      if (why) {
        move.title = why;
        row.append(element("p", { class: "quiet" }, why));
      }
    }
    box.append(row);
    return box;
  }

  /** What the new cut loses is counted first, on simulated curves: that takes some seconds. */
  async #accept(move, row) {
    const words = move.textContent;
    move.disabled = true;
    move.textContent = "Counting what it would lose …";
    row.querySelector("[role=alert]")?.remove();
    try {
      await ask("/api/cut", { method: "POST", body: { by: this.hands.rater() }, patience_ms: 180000 });
      this.hands.say("The cut has moved.");
      await this.open();
    } catch (problem) {
      move.disabled = false;
      move.textContent = words;
      row.append(element("p", { role: "alert" }, `Not moved: ${problem.message}.`));
    }
  }
}
