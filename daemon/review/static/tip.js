// What the tip is like: noise, adhesion and the rest over the night, in real units, one small chart each.

import { drawLevels, ticks } from "./axes.js";
import { clock, element, figure, minute, plural } from "./words.js";

const CHARTS = [
  { name: "noise", title: "Noise", says: "rms of the free end" },
  { name: "adhesion", title: "Adhesion", says: "depth of the snap-off" },
  { name: "slope", title: "Slope", says: "of the contact: how stiff it is" },
  { name: "tilt", title: "Tilt", says: "of the baseline, over a curve" },
  { name: "wave", title: "Swing", says: "of the baseline: a slow wave on it" },
];
const [LEFT, RIGHT, TOP, FOOT] = [42, 8, 22, 20];
const FONT = '12px system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif';
const GAP = 6; // times the usual distance between two blocks: then nothing was measured meanwhile

const middle = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

export class TipCharts {
  #tip = null;
  #hover = null; // seconds since 1970 under the pointer

  constructor() {
    this.nothing = element("p", { class: "quiet" }, "No block of 50 curves is whole yet.");
    this.charts = CHARTS.map((kind) => ({ ...kind, ...this.#chart(kind) }));
    this.section = element(
      "section",
      { class: "tip", "aria-label": "The tip" },
      element("header", {}, element("h3", {}, "The tip"), element("p", { class: "quiet" }, "medians of 50 curves each")),
      this.nothing,
      element("div", { class: "charts" }, ...this.charts.map(({ frame }) => frame)),
    );
    const watch = new ResizeObserver(() => this.#drawAll());
    for (const { canvas } of this.charts) watch.observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#drawAll());
  }

  #chart({ title, says }) {
    const value = element("b", {});
    const canvas = element("canvas", { role: "img", "aria-label": title });
    canvas.addEventListener("pointermove", (event) => this.#look(canvas, event.offsetX));
    canvas.addEventListener("pointerleave", () => this.#look(canvas, null));
    const frame = element("figure", {}, element("figcaption", { title: says }, element("span", {}, title), value), canvas);
    return { canvas, frame, value };
  }

  /** `tip`: `{blocks, advice}` of the guard; null where there is none. */
  draw(tip) {
    this.#tip = tip;
    const blocks = tip?.blocks ?? [];
    this.nothing.hidden = blocks.length > 0;
    this.section.classList.toggle("is-empty", !blocks.length);
    this.#drawAll();
  }

  #look(canvas, x) {
    const span = this.#span();
    if (!span) return;
    const room = canvas.clientWidth - LEFT - RIGHT;
    this.#hover = x === null ? null : span.from + ((x - LEFT) / room) * (span.to - span.from);
    this.#drawAll();
  }

  #times() {
    return (this.#tip?.blocks ?? []).map((block) => Date.parse(block.time) / 1000);
  }

  #span() {
    const times = this.#times();
    if (!times.length) return null;
    const [from, to] = [times[0], times.at(-1)];
    return to > from ? { from, to } : { from: from - 60, to: to + 60 };
  }

  #drawAll() {
    for (const chart of this.charts) this.#draw(chart);
  }

  #draw({ name, title, frame, canvas, value }) {
    const [blocks, span] = [this.#tip?.blocks ?? [], this.#span()];
    const told = blocks.map((block) => block[name]);
    const { factor, unit } = unitOf(this.#tip, name, told.filter(Number.isFinite));
    const known = told.map((of) => (Number.isFinite(of) ? of * factor : null));
    const finite = known.filter(Number.isFinite);
    frame.hidden = blocks.length > 0 && !finite.length; // its files do not tell
    const times = this.#times();
    const near = this.#hover === null ? known.length - 1 : nearest(times, this.#hover);
    const said = known.length && Number.isFinite(known[near]) ? `${figure(known[near], 3)} ${unit}`.trim() : "–";
    value.textContent = this.#hover === null || !known.length ? said : `${minute(blocks[near].time)}  ${said}`;
    const own = (this.#tip?.advice ?? []).filter(({ kind }) => kind === name);
    const begun = Math.min(...own.map(({ since }) => Date.parse(since) / 1000)); // Infinity: all is as it was
    canvas.setAttribute("aria-label", inWords(title, finite, unit, blocks, begun));
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    const ratio = devicePixelRatio || 1;
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (!span || !finite.length) return;
    const style = getComputedStyle(document.documentElement);
    const colour = (of) => style.getPropertyValue(`--${of}`).trim();
    const { low, high } = rangeOf(finite, name);
    const [right, bottom] = [width - RIGHT, height - FOOT];
    const toX = (seconds) => LEFT + ((seconds - span.from) / (span.to - span.from)) * (right - LEFT);
    const toY = (of) => bottom - ((of - low) / (high - low)) * (bottom - TOP);
    pen.font = FONT;
    pen.lineWidth = 1;
    // Since when something is wrong.
    if (Number.isFinite(begun)) {
      const x = Math.min(Math.max(toX(begun), LEFT), right);
      pen.fillStyle = colour("review");
      pen.globalAlpha = 0.1;
      pen.fillRect(x, TOP, right - x, bottom - TOP);
      pen.globalAlpha = 1;
      pen.strokeStyle = colour("review");
      pen.beginPath();
      pen.moveTo(Math.round(x) + 0.5, TOP - 8);
      pen.lineTo(Math.round(x) + 0.5, bottom);
      pen.stroke();
      pen.textBaseline = "alphabetic";
      const words = `since ${minute(begun * 1000)}`;
      const isLeft = x + pen.measureText(words).width + 6 > right;
      pen.textAlign = isLeft ? "right" : "left";
      pen.fillText(words, x + (isLeft ? -5 : 5), TOP - 8);
    }
    // Scales.
    const up = ticks(low, high, 3);
    pen.fillStyle = colour("quiet");
    pen.strokeStyle = colour("faint");
    drawLevels(pen, up, toY, { left: LEFT, right, gap: 6 });
    pen.textAlign = "left";
    pen.textBaseline = "alphabetic";
    pen.fillText(unit, 2, TOP - 8);
    pen.textBaseline = "top";
    let free = 0;
    for (const at of hours(span, (right - LEFT) / 60)) {
      const words = minute(at * 1000).slice(-5);
      const wide = pen.measureText(words).width;
      const x = Math.min(toX(at) - wide / 2, right - wide);
      if (x < Math.max(free, LEFT - 8)) continue;
      pen.fillText(words, x, bottom + 5);
      free = x + wide + 10;
    }
    // What it was before, then what it is.
    const before = known.filter((of, i) => Number.isFinite(of) && times[i] < begun);
    if (Number.isFinite(begun) && before.length) {
      const y = toY(middle(before));
      pen.strokeStyle = colour("quiet");
      pen.setLineDash([4, 4]);
      pen.beginPath();
      pen.moveTo(LEFT, y);
      pen.lineTo(right, y);
      pen.stroke();
      pen.setLineDash([]);
    }
    const steps = times.slice(1).map((of, i) => of - times[i]);
    const usual = steps.length ? middle(steps) : 0;
    pen.strokeStyle = colour("line");
    pen.lineWidth = 1.5;
    pen.lineJoin = "round";
    pen.beginPath();
    let isDown = false;
    known.forEach((of, i) => {
      if (!Number.isFinite(of)) return void (isDown = false);
      if (i && times[i] - times[i - 1] > GAP * usual) isDown = false;
      if (isDown) pen.lineTo(toX(times[i]), toY(of));
      else pen.moveTo(toX(times[i]), toY(of));
      isDown = true;
    });
    pen.stroke();
    pen.fillStyle = colour("line");
    known.forEach((of, i) => {
      if (!Number.isFinite(of)) return;
      pen.beginPath();
      pen.arc(toX(times[i]), toY(of), i === near ? 4 : 2, 0, 2 * Math.PI);
      pen.fill();
    });
  }
}

/** From zero, so that a doubling looks like one; what has a sign lies about it. */
function rangeOf(values, name) {
  const [low, high] = [Math.min(...values, 0), Math.max(...values, 0)];
  const room = 0.1 * (high - low || 1);
  return name === "tilt" ? { low: low - room, high: high + room } : { low: low < 0 ? low - room : 0, high: high + room };
}

/** Numbers as people say them: the slope of a contact over a nanometre, and thousandths where a file has no unit. */
function unitOf(tip, name, values) {
  const unit = tip?.unit ?? "";
  const of = name === "slope" ? { factor: 1e-3, unit: unit && `${unit}/nm` } : { factor: 1, unit };
  const largest = of.factor * Math.max(...values.map(Math.abs), 0);
  if (!largest || (largest >= 0.01 && largest < 1e4)) return of;
  const thousands = Math.floor(Math.log10(largest) / 3);
  return { factor: of.factor / 1000 ** thousands, unit: `× 10${superscript(3 * thousands)} ${of.unit}`.trim() };
}

function superscript(number) {
  return String(number).replace(/./g, (sign) => (sign === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(sign)]));
}

function nearest(times, at) {
  let best = 0;
  times.forEach((of, i) => Math.abs(of - at) < Math.abs(times[best] - at) && (best = i));
  return best;
}

/** Round moments within a span, about so many. */
function hours({ from, to }, wanted) {
  const minutes = (to - from) / 60;
  const step = 60 * ([1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440].find((one) => minutes / one <= Math.max(wanted, 3)) ?? 2880);
  const shift = 60 * new Date(from * 1000).getTimezoneOffset();
  const found = [];
  for (let at = Math.ceil((from - shift) / step) * step + shift; at <= to; at += step) found.push(at);
  return found;
}

/** One sentence for those who do not see the chart. */
function inWords(title, values, unit, blocks, begun) {
  if (!values.length) return `${title}: nothing measured yet.`;
  const said = `${title}: now ${figure(values.at(-1))} ${unit}, from ${figure(Math.min(...values))} to ${figure(Math.max(...values))} in ${plural(blocks.length, "block")} since ${clock(blocks[0].time)}`;
  return Number.isFinite(begun) ? `${said}; something changed at ${clock(begun * 1000)}.` : `${said}.`;
}
