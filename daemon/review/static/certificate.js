// The certificate sheet: what one can earn before it is drawn, and how far the open one has come.

import { ask, query } from "./client.js";
import { count, element, sentence } from "./words.js";

export class Certificate {
  /** `say(text)`, `rater()`, `look()`: open the curves of the sheet. */
  constructor(section, hands) {
    this.section = section;
    this.hands = hands;
  }

  async open() {
    this.section.replaceChildren(element("p", { class: "quiet" }, "Counting …"));
    try {
      this.#draw(await ask(`/api/sheet?${query({ rater: this.hands.rater() })}`));
    } catch (problem) {
      this.section.replaceChildren(element("p", {}, `Nothing is known of sheets: ${problem.message}.`));
    }
  }

  #draw({ sheet, offers }) {
    const isOpen = Boolean(sheet && !sheet.done);
    const rows = [
      element(
        "header",
        {},
        element("h2", {}, "Certificate"),
        element("p", { class: "quiet" }, "a promise in one sitting: curves drawn by chance, looked at blind and in the order in which they were drawn"),
      ),
    ];
    if (sheet) rows.push(this.#sheet(sheet, isOpen));
    if (!isOpen) rows.push(...(offers ?? []).map((offer) => this.#offer(offer)));
    this.section.replaceChildren(...rows);
    this.hands.say(sheet?.sentence ?? "No sheet is drawn.");
  }

  #sheet(sheet, isOpen) {
    const bar = element("progress", { max: Math.max(sheet.goal, 1), value: Math.min(sheet.events, sheet.goal) });
    bar.setAttribute("aria-label", "events confirmed");
    const box = element(
      "div",
      { class: "offer" },
      element("h3", {}, `${isOpen ? "The open sheet" : "The last sheet"}: ${count(sheet.events)} of ${count(sheet.goal)} events`),
      element("p", {}, sentence(sheet.sentence)),
      bar,
    );
    if (isOpen) {
      const on = element("button", { type: "button", class: "main" }, `Go on: ${count(sheet.left)} to look at, or fewer`);
      on.addEventListener("click", this.hands.look);
      box.append(element("p", { class: "row" }, on));
    }
    return box;
  }

  #offer(offer) {
    const names = { uniform: "A uniform sheet", weighted: "A weighted sheet" };
    const draw = element("button", { type: "button", class: "second" }, "Draw it");
    const row = element("p", { class: "row" }, draw);
    draw.disabled = !offer.labels;
    draw.addEventListener("click", async () => {
      draw.disabled = true;
      try {
        await ask("/api/sheet", { method: "POST", body: { kind: offer.kind } });
        this.hands.look();
      } catch (problem) {
        draw.disabled = false;
        row.append(element("span", { role: "alert" }, `Not drawn: ${problem.message}.`));
      }
    });
    return element("div", { class: "offer" }, element("h3", {}, names[offer.kind] ?? offer.kind), element("p", {}, sentence(offer.sentence)), row);
  }
}
