// Sheets of curves that look alike: one word for all of them, but for the few that are tapped.

import { ask, query } from "./client.js";
import { drawStamps, stamp } from "./side.js";
import { element, plural } from "./words.js";

const wide = (text) => element("span", { class: "only-wide" }, text);

const CURVES = { kept: "kept curves", review: "curves in review", discards: "discards", disagreements: "disagreements" };

export class Sheets {
  #sheets = [];
  #at = 0;
  #stamps = [];

  /** `answer(all, exceptions, word)`, `close()`, `say(text)`. */
  constructor(section, hands) {
    this.section = section;
    this.hands = hands;
    new ResizeObserver(() => drawStamps(this.#stamps)).observe(section);
  }

  async open(queue, rater, session) {
    this.queue = queue;
    this.rater = rater;
    this.section.replaceChildren(element("p", { class: "quiet" }, "Sorting by likeness …"));
    try {
      const found = await ask(`/api/sheets?${query({ name: queue, rater, session })}`);
      this.#sheets = found.filter((one) => one.length);
      this.#at = 0;
      this.#draw();
    } catch (problem) {
      this.#empty(`No sheets: ${problem.message}`);
    }
  }

  /** Whether the key meant something here. */
  key(key) {
    const word = { k: "keep", d: "discard", u: "unsure" }[key];
    if (word) this.#answer(word);
    else if (key === "s") this.#next();
    else if (key.startsWith("Arrow")) this.#walk(key);
    else return false;
    return true;
  }

  #empty(text) {
    this.#stamps = [];
    const back = element("button", { type: "button", class: "main" }, "Back to the curves");
    back.addEventListener("click", this.hands.close);
    this.section.replaceChildren(element("div", { class: "nothing" }, element("p", {}, text), back));
    this.hands.say(text);
  }

  #draw() {
    const items = this.#sheets[this.#at];
    if (!items) return this.#empty(`No more sheets of ${CURVES[this.queue] ?? "curves"}.`);
    this.#stamps = items.map((item) => [stamp(item, { "aria-pressed": "false" }), item]);
    for (const [button] of this.#stamps) {
      button.addEventListener("click", () => {
        button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
        this.#count();
      });
    }
    const title = `${items.length} ${CURVES[this.queue] ?? "curves"} that look alike`;
    const buttons = [
      ["keep", "k", "●", "keep"],
      ["discard", "d", "○", "discard"],
      ["unsure", "u", "◐", "unsure"],
    ].map(([word, key, shape, text]) => {
      const button = element("button", { type: "button", "data-word": word }, element("kbd", {}, key), element("span", { class: "shape" }, shape), element("span", {}, wide("all "), text));
      button.addEventListener("click", () => this.#answer(word));
      return button;
    });
    const skip = element("button", { type: "button", "data-word": "skip" }, element("kbd", {}, "s"), element("span", {}, "next", wide(" sheet")));
    skip.addEventListener("click", () => this.#next());
    const undo = element("button", { type: "button", class: "undo", "data-act": "undo" }, element("kbd", {}, "z"), " undo");
    this.count = element("p", { class: "quiet", id: "sheet-count" });
    this.section.replaceChildren(
      element("header", {}, element("h2", {}, title), element("p", { class: "quiet" }, `sheet ${this.#at + 1} of ${this.#sheets.length}`), this.count),
      element("div", { class: "sheet", role: "group", "aria-label": title }, ...this.#stamps.map(([button]) => button)),
      element("div", { class: "answers", role: "group", "aria-label": "One answer for all of them" }, ...buttons, skip, undo),
    );
    this.#count();
    drawStamps(this.#stamps);
    this.#stamps[0][0].focus({ preventScroll: true });
    this.hands.say(`${title}. Tap those that differ, then one answer for the rest.`);
  }

  get #exceptions() {
    return this.#stamps.filter(([button]) => button.getAttribute("aria-pressed") === "true").map(([, item]) => item);
  }

  #count() {
    const many = this.#exceptions.length;
    this.count.textContent = many
      ? `${plural(many, "curve")} that ${many === 1 ? "differs" : "differ"}: looked at one by one afterwards`
      : "Tap those that differ.";
  }

  #answer(word) {
    if (!this.#stamps.length) return;
    const different = new Set(this.#exceptions);
    const all = this.#stamps.map(([, item]) => item);
    const rest = all.filter((item) => !different.has(item));
    this.hands.say(`${plural(rest.length, "curve")}: ${word}.`);
    this.#at++;
    this.hands.answer(rest, [...different], word);
    if (!different.size) this.#draw();
  }

  #next() {
    this.#at++;
    this.#draw();
  }

  #walk(key) {
    const buttons = this.#stamps.map(([button]) => button);
    if (!buttons.length) return;
    const columns = getComputedStyle(buttons[0].parentElement).gridTemplateColumns.split(" ").length;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
    const place = Math.max(buttons.indexOf(document.activeElement), 0) + by;
    buttons[Math.min(Math.max(place, 0), buttons.length - 1)].focus();
  }
}
