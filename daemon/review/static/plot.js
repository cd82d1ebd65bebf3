// One force curve on a canvas: fixed axes, zoom and pan, and what was found marked on the curve itself.

import { axisNames, drawLevels, extentOf, roomy, tickText, ticks } from "./axes.js";
import { figure } from "./words.js";

const MARGIN = { left: 58, right: 18, top: 34, bottom: 46 };
const FONT = '13px system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif';
const SMALL = FONT.replace("13px", "12px");

/** The sample of the retract on which a mark belongs: the highest close to its place. */
function onCurve({ x, y }, place, reach) {
  let best = -1;
  let nearest = 0;
  for (let i = 0; i < x.length; i++) {
    const away = Math.abs(x[i] - place);
    if (away < Math.abs(x[nearest] - place)) nearest = i;
    if (away <= reach && Number.isFinite(y[i]) && (best < 0 || y[i] > y[best])) best = i;
  }
  return best < 0 ? nearest : best;
}

/** One sentence for those who do not see the drawing. */
export function inWords(curve) {
  if (!curve.retract) return "No curve can be drawn.";
  const ruptures = curve.ruptures ?? [];
  if (!ruptures.length) return "Force curve, no rupture found by the step detector.";
  const largest = ruptures.reduce((a, b) => (b.force > a.force ? b : a));
  const many = ruptures.length === 1 ? "1 rupture" : `${ruptures.length} ruptures`;
  return (
    `Force curve, ${many}, the largest ${figure(largest.force)} ${curve.force_unit} ` +
    `at ${figure(largest.x)} ${curve.distance_unit}.`
  );
}

export class Plot {
  #pointers = new Map();
  #pinch = null;
  #hover = null;

  /** `changed()` is called when a hand has moved the view. */
  constructor(canvas, changed = () => {}) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d", { alpha: false });
    this.changed = changed;
    this.curve = null;
    this.axes = null; // the fixed ones
    this.view = null; // zoomed or fitted; null: the axes
    this.heat = null;
    this.#readColours();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.#readColours();
      this.draw();
    });
    new ResizeObserver(() => this.draw()).observe(canvas);
    this.#listen();
  }

  show(curve, axes) {
    this.curve = curve;
    this.axes = axes;
    this.view = null;
    this.heat = null;
    this.draw();
  }

  clear() {
    this.curve = null;
    this.draw();
  }

  warm(heat) {
    this.heat = heat;
    this.draw();
  }

  /** All of this curve, or back to the axes of all. */
  fit() {
    const extent = this.curve && extentOf(this.curve);
    this.#look(this.view || !extent ? null : roomy(extent));
  }

  zoom(factor, at = null) {
    const { x0, x1, y0, y1 } = this.shown;
    const cx = at?.x ?? (x0 + x1) / 2;
    const cy = at?.y ?? (y0 + y1) / 2;
    const near = (low, high, centre) => [centre - (centre - low) / factor, centre + (high - centre) / factor];
    const [[a, b], [c, d]] = [near(x0, x1, cx), near(y0, y1, cy)];
    const whole = this.axes;
    if (whole && b - a > 20 * (whole.x1 - whole.x0)) return;
    this.#look({ x0: a, x1: b, y0: c, y1: d });
  }

  pan(dx, dy) {
    const { x0, x1, y0, y1 } = this.shown;
    const [wide, tall] = [(x1 - x0) * dx, (y1 - y0) * dy];
    this.#look({ x0: x0 + wide, x1: x1 + wide, y0: y0 + tall, y1: y1 + tall });
  }

  reset() {
    this.#look(null);
  }

  get shown() {
    return this.view ?? this.axes ?? { x0: 0, x1: 1, y0: 0, y1: 1 };
  }

  /** What of the curve lies outside the axes, in words; "" for nothing. */
  get beyond() {
    const extent = this.curve && extentOf(this.curve);
    if (!extent) return "";
    const { x0, x1, y0, y1 } = this.shown;
    const said = [];
    const { force_unit: unit, distance_unit: length } = this.curve;
    if (extent.y1 > y1) said.push(`up to ${figure(extent.y1)} ${unit}`.trim());
    if (extent.y0 < y0 - 0.05 * (y1 - y0)) said.push(`down to ${figure(extent.y0)} ${unit}`.trim());
    if (extent.x1 > x1 + 0.02 * (x1 - x0)) said.push(`on to ${figure(extent.x1)} ${length}`);
    if (said.length) return `goes ${said.join(", ")}`;
    const isSmall = this.curve.ruptures?.length && extent.y1 < 0.12 * y1 && !this.view;
    return isSmall ? "small on these axes" : "";
  }

  #look(view) {
    this.view = view;
    this.draw();
    this.changed();
  }

  #readColours() {
    const style = getComputedStyle(document.documentElement);
    const named = ["ink", "quiet", "faint", "line", "approach", "heat", "card", "review"];
    this.colours = Object.fromEntries(named.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  }

  get #box() {
    const { width, height } = this;
    const { left, right, top, bottom } = MARGIN;
    return { left, right: width - right, top, bottom: height - bottom };
  }

  #scales() {
    const { x0, x1, y0, y1 } = this.shown;
    const { left, right, top, bottom } = this.#box;
    const [kx, ky] = [(right - left) / (x1 - x0), (bottom - top) / (y1 - y0)];
    return { kx, ky, toX: (x) => left + (x - x0) * kx, toY: (y) => bottom - (y - y0) * ky };
  }

  draw() {
    const { canvas, pen } = this;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    [this.width, this.height] = [width, height];
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = this.colours.card;
    pen.fillRect(0, 0, width, height);
    if (!this.curve?.retract || !this.axes) return;
    this.#grid();
    pen.save();
    pen.beginPath();
    const { left, right, top, bottom } = this.#box;
    pen.rect(left, top - 8, right - left, bottom - top + 8);
    pen.clip();
    this.#levels();
    if (this.curve.approach) this.#stroke(this.curve.approach, this.colours.approach, 1.1);
    this.#stroke(this.curve.retract, this.colours.line, 1.4);
    if (this.heat) this.#glow();
    pen.restore();
    this.#words();
    this.#ruptures();
    this.#disputed();
    this.#readout();
  }

  #grid() {
    const { pen, colours } = this;
    const { left, right, top, bottom } = this.#box;
    const { x0, x1, y0, y1 } = this.shown;
    const { toX, toY } = this.#scales();
    pen.font = FONT;
    pen.lineWidth = 1;
    pen.strokeStyle = colours.faint;
    pen.fillStyle = colours.quiet;
    drawLevels(pen, ticks(y0, y1, Math.max((bottom - top) / 68, 4)), toY, { left, right, gap: 10 });
    pen.textAlign = "center";
    pen.textBaseline = "top";
    const along = ticks(x0, x1, Math.max((right - left) / 96, 4));
    for (const value of along.found) {
      const x = toX(value);
      pen.beginPath();
      pen.moveTo(Math.round(x) + 0.5, bottom);
      pen.lineTo(Math.round(x) + 0.5, bottom + 5);
      pen.stroke();
      pen.fillText(tickText(value, along.step), x, bottom + 9);
    }
    const names = axisNames(this.curve);
    pen.textAlign = "left";
    pen.textBaseline = "alphabetic";
    pen.fillText(names.y, 8, 16);
    pen.textAlign = "right";
    pen.fillText(names.x, right, this.height - 4);
  }

  /** The baseline, tilted where the file's is, and where contact ends. */
  #levels() {
    const { pen, colours, curve } = this;
    const { left, right, top, bottom } = this.#box;
    const { toX, toY } = this.#scales();
    const level = Math.round(toY(curve.baseline?.level ?? 0)) + 0.5;
    const tilted = () => curve.baseline.line.map(([x, y]) => [toX(x), toY(y)]);
    const [start, end] = this.#isTilted ? tilted() : [[left, level], [right, level]];
    pen.lineWidth = 1;
    pen.strokeStyle = colours.quiet;
    pen.setLineDash([6, 5]);
    if (!this.#isWild) {
      pen.beginPath();
      pen.moveTo(...start);
      pen.lineTo(...end);
      pen.stroke();
    }
    pen.setLineDash([2, 3]);
    const contact = curve.contact;
    if (contact !== null && contact !== undefined) {
      const x = Math.round(toX(contact)) + 0.5;
      pen.beginPath();
      pen.moveTo(x, top);
      pen.lineTo(x, bottom);
      pen.stroke();
    }
    pen.setLineDash([]);
  }

  get #isTilted() {
    const { line, noise } = this.curve.baseline ?? {};
    return Boolean(line && noise && Math.abs(line[1][1] - line[0][1]) > 4 * noise);
  }

  /** A line that runs out of the curve's own forces describes its far end alone: it is no baseline. */
  get #isWild() {
    if (!this.#isTilted) return false;
    const [[, start]] = this.curve.baseline.line;
    let [low, high] = [Infinity, -Infinity];
    for (const y of this.curve.retract.y) {
      if (y < low) low = y;
      if (y > high) high = y;
    }
    return start < low || start > high;
  }

  /** The names of the zero line and of contact, where neither curve nor approach is in their way. */
  #words() {
    const { pen, colours, curve } = this;
    const { left, right, top, bottom } = this.#box;
    const { toX, toY } = this.#scales();
    const { highest, lowest } = this.#skyline([curve.retract, curve.approach].filter(Boolean));
    pen.font = SMALL;
    pen.fillStyle = colours.quiet;
    pen.strokeStyle = colours.card;
    pen.lineWidth = 4;
    pen.textBaseline = "middle";
    const write = (words, x, y) => {
      pen.strokeText(words, x, y);
      pen.fillText(words, x, y);
    };
    pen.textAlign = "left";
    const contact = curve.contact;
    if (contact !== null && contact !== undefined && toX(contact) > left) write("contact ends", toX(contact) + 6, top - 1);
    const noise = curve.baseline?.noise;
    const name = this.#isWild ? "no baseline found" : this.#isTilted ? "baseline" : "zero line";
    const words = noise ? `${name}, noise ${figure(noise, 2)} ${curve.force_unit}`.trim() : name;
    const start = right - pen.measureText(words).width - 4;
    const level = toY(curve.baseline?.level ?? 0);
    const below = Math.max(lowest(start, right), level) + 11;
    const above = Math.min(highest(start, right), level) - 11;
    const y = below < bottom - 8 ? below : above;
    if (Math.abs(y - level) < 90) write(words, start, y); // farther away nobody would know what it names
  }

  /** A line through all samples; of many in one column of dots only the first, the extremes and the last. */
  #trace({ x, y }) {
    const { toX, toY } = this.#scales();
    const dots = devicePixelRatio > 1 ? 2 : 1; // a CSS pixel
    const path = new Path2D();
    let isDown = false;
    let column = NaN;
    let low = 0;
    let high = 0;
    let last = 0;
    const close = () => {
      if (low !== high) {
        path.lineTo(column, low);
        path.lineTo(column, high);
      }
      path.lineTo(column, last);
    };
    for (let i = 0; i < x.length; i++) {
      const px = Math.round(toX(x[i]) * dots) / dots;
      const py = Math.min(Math.max(toY(y[i]), -20000), 20000);
      if (!(px === px && py === py)) {
        if (isDown) close();
        isDown = false;
        continue;
      }
      if (!isDown || px !== column) {
        if (isDown) {
          close();
          path.lineTo(px, py);
        } else path.moveTo(px, py);
        isDown = true;
        column = px;
        low = high = last = py;
      } else {
        if (py < low) low = py;
        if (py > high) high = py;
        last = py;
      }
    }
    if (isDown) close();
    return path;
  }

  #stroke(line, colour, width) {
    const { pen } = this;
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.lineJoin = "bevel"; // round ones cost ten times as much, and nobody sees them
    pen.stroke(this.#trace(line));
  }

  /** Where the network looked: warm parts of the curve itself, and a strip at the foot. */
  #glow() {
    const { pen, colours, heat } = this;
    const { left, right, bottom } = this.#box;
    const { toX, toY } = this.#scales();
    const { x, y } = this.curve.retract;
    const columns = new Float32Array(Math.ceil(right - left) + 1).fill(-1);
    const levels = [[], [], [], [], []];
    for (let i = 0; i + 1 < x.length; i++) {
      const warmth = heat.along[i] ?? 0;
      const column = Math.round(toX(x[i]) - left);
      if (column >= 0 && column < columns.length) columns[column] = Math.max(columns[column], warmth);
      const level = Math.min(Math.floor(warmth * 5), 4);
      if (level > 0) levels[level].push(i);
    }
    pen.fillStyle = colours.heat;
    for (let i = 0, last = 0; i < columns.length; i++) {
      last = columns[i] < 0 ? last : columns[i]; // between two samples as before them
      pen.globalAlpha = Math.min(last, 1);
      pen.fillRect(left + i, bottom - 7, 1, 7);
    }
    pen.strokeStyle = colours.heat;
    pen.lineCap = "round";
    levels.forEach((samples, level) => {
      if (!samples.length) return;
      pen.globalAlpha = 0.4 + 0.15 * level;
      pen.lineWidth = 1.4 + 0.4 * level;
      pen.beginPath();
      for (const i of samples) {
        pen.moveTo(toX(x[i]), toY(y[i]));
        pen.lineTo(toX(x[i + 1]), toY(y[i + 1]));
      }
      pen.stroke();
    });
    pen.globalAlpha = 1;
    pen.lineCap = "butt";
  }

  /** How high and how low lines reach between two places, in dots from the top: so that no word lies on them. */
  #skyline(lines) {
    const { toX, toY } = this.#scales();
    const size = Math.ceil(this.width) + 1;
    const [tops, feet] = [new Float32Array(size).fill(Infinity), new Float32Array(size).fill(-Infinity)];
    for (const { x, y } of lines) {
      for (let i = 0; i < x.length; i++) {
        const column = Math.round(toX(x[i]));
        const py = toY(y[i]);
        if (column < 0 || column >= size) continue;
        if (py < tops[column]) tops[column] = py;
        if (py > feet[column]) feet[column] = py;
      }
    }
    const over = (values, best) => (from, to) => {
      let found = best === Math.min ? Infinity : -Infinity;
      for (let i = Math.max(Math.floor(from), 0); i <= Math.min(Math.ceil(to), size - 1); i++) found = best(found, values[i]);
      return found;
    };
    return { highest: over(tops, Math.min), lowest: over(feet, Math.max) };
  }

  #ruptures() {
    const { pen, colours, curve } = this;
    const { left, right, top, bottom } = this.#box;
    const { toX, toY } = this.#scales();
    const { x, y } = curve.retract;
    const reach = 0.004 * (this.axes.x1 - this.axes.x0);
    const marks = (curve.ruptures ?? [])
      .map((rupture) => ({ rupture, sample: onCurve(curve.retract, rupture.x, reach) }))
      .map(({ rupture, sample }) => ({ force: rupture.force, px: toX(x[sample]), py: toY(y[sample]) }))
      .filter(({ px, py }) => px >= left && px <= right && py >= top - 8 && py <= bottom)
      .sort((a, b) => b.force - a.force);
    const taken = marks.map(({ px, py }) => ({ x: px - 7, y: py, wide: 14 }));
    pen.font = FONT;
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    pen.fillStyle = colours.ink;
    const { highest } = this.#skyline([curve.retract]);
    marks.forEach(({ force, px, py }, place) => {
      const words = place === 0 ? `${figure(force)} ${curve.force_unit}`.trim() : figure(force);
      const wide = pen.measureText(words).width;
      const over = Math.min(Math.max(px - wide / 2, left), right - wide);
      const spots = [
        { x: px + 10, y: py - 7, wide },
        { x: px - 10 - wide, y: py - 7, wide },
        { x: over, y: Math.min(highest(over, over + wide), py) - 14, wide },
      ].filter(({ y }) => py - y < 36); // farther away nobody would know whose it is
      const own = taken[place];
      const isFree = (spot) =>
        spot.x >= left &&
        spot.x + wide <= right &&
        spot.y >= top - 6 &&
        spot.y + 7 < highest(spot.x, spot.x + wide) &&
        !taken.some((other) => other !== own && overlap(spot, other));
      const spot = spots.find(isFree);
      if (!spot) return; // no room for its number; the circle says that it is there
      taken.push(spot);
      pen.fillText(words, spot.x, spot.y);
    });
    pen.lineWidth = 1.6;
    pen.strokeStyle = colours.ink;
    pen.fillStyle = colours.card;
    for (const { px, py } of marks) {
      pen.beginPath();
      pen.arc(px, py, 4.5, 0, 2 * Math.PI);
      pen.fill();
      pen.stroke();
    }
  }

  /** The step for which a discard is disputed: a ring about its place, and how high it is. */
  #disputed() {
    const { pen, colours, curve } = this;
    const { step } = curve;
    const { left, right, top, bottom } = this.#box;
    const { toX, toY } = this.#scales();
    const [px, at] = [toX(step?.x ?? NaN), toY(step?.force ?? NaN)];
    if (!(px >= left && px <= right && at === at)) return;
    const py = Math.min(Math.max(at, top), bottom - 12);
    pen.strokeStyle = colours.review;
    pen.lineWidth = 2.2;
    pen.beginPath();
    if (py === at) pen.arc(px, py, 11, 0, 2 * Math.PI);
    else {
      const way = Math.sign(at - py); // it lies beyond the axes: an arrow that way
      pen.moveTo(px - 8, py - 4 * way);
      pen.lineTo(px, py + 8 * way);
      pen.lineTo(px + 8, py - 4 * way);
    }
    pen.stroke();
    const words = `${step.rise > 0 ? "rises" : "falls"} ${figure(Math.abs(step.rise))} ${curve.force_unit}`.trim();
    pen.font = FONT;
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    const wide = pen.measureText(words).width;
    const x = Math.min(Math.max(px - wide / 2, left), right - wide);
    const isAbove = step.rise < 0 && py - 24 > top - 8; // where a rupture begins nothing lies above
    const y = isAbove ? py - 24 : py + 26 < bottom ? py + 26 : py - 24;
    pen.strokeStyle = colours.card;
    pen.lineWidth = 5;
    pen.strokeText(words, x, y);
    pen.fillStyle = colours.review;
    pen.fillText(words, x, y);
  }

  /** Distance and force under the pointer. */
  #readout() {
    if (!this.#hover) return;
    const { pen, colours, curve } = this;
    const { right, top, left, bottom } = this.#box;
    const { x, y } = this.#hover;
    if (x < left || x > right || y < top || y > bottom) return;
    const at = this.#valueAt(this.#hover);
    const said = `${figure(at.x)} ${curve.distance_unit}, ${figure(at.y)} ${curve.force_unit}`;
    pen.font = FONT;
    pen.fillStyle = colours.quiet;
    pen.textAlign = "right";
    pen.textBaseline = "alphabetic";
    pen.fillText(said, right, 16);
  }

  #valueAt({ x, y }) {
    const { kx, ky } = this.#scales();
    const { left, bottom } = this.#box;
    return { x: this.shown.x0 + (x - left) / kx, y: this.shown.y0 + (bottom - y) / ky };
  }

  #listen() {
    const { canvas } = this;
    const place = (event) => ({ x: event.offsetX, y: event.offsetY });
    canvas.addEventListener(
      "wheel",
      (event) => {
        const isScrollable = document.documentElement.scrollHeight > innerHeight + 1;
        if (isScrollable && !event.ctrlKey && !event.metaKey) return; // the wheel still turns the page
        event.preventDefault();
        this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.06 : 0.002)), this.#valueAt(place(event)));
      },
      { passive: false },
    );
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button > 0) return;
      this.#pointers.set(event.pointerId, place(event));
      canvas.setPointerCapture(event.pointerId);
      this.#pinch = this.#spread();
    });
    canvas.addEventListener("pointermove", (event) => {
      const now = place(event);
      const before = this.#pointers.get(event.pointerId);
      this.#hover = event.pointerType === "mouse" && !before ? now : null;
      if (!before) return void (this.curve && this.draw());
      this.#pointers.set(event.pointerId, now);
      if (this.#pointers.size >= 2) {
        const spread = this.#spread();
        if (this.#pinch && spread) this.zoom(spread.size / this.#pinch.size, this.#valueAt(spread));
        this.#pinch = spread;
      } else if (event.pointerType === "mouse" || this.view) {
        const { left, right, top, bottom } = this.#box;
        this.pan(-(now.x - before.x) / (right - left), (now.y - before.y) / (bottom - top));
      }
    });
    const lift = (event) => {
      this.#pointers.delete(event.pointerId);
      this.#pinch = this.#spread();
    };
    canvas.addEventListener("pointerup", lift);
    canvas.addEventListener("pointercancel", lift);
    canvas.addEventListener("pointerleave", () => {
      this.#hover = null;
      this.draw();
    });
  }

  #spread() {
    const [a, b] = [...this.#pointers.values()];
    return b ? { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, size: Math.max(Math.hypot(a.x - b.x, a.y - b.y), 1) } : null;
  }
}

function overlap(a, b) {
  return a.x < b.x + b.wide + 3 && b.x < a.x + a.wide + 3 && Math.abs(a.y - b.y) < 15;
}

/** A curve as large as a stamp, from the two edges that an event carries. */
export function drawSmall(canvas, edges, colour) {
  const ratio = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width || !height) return;
  [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (!edges) {
    pen.fillStyle = colour;
    pen.font = SMALL;
    pen.fillText("no picture", 8, height / 2);
    return;
  }
  const { low, high } = edges;
  const [room, columns] = [4, low.length];
  pen.beginPath();
  for (let i = 0; i < columns; i++) {
    const x = room + ((i + 0.5) * (width - 2 * room)) / columns;
    const y = (edge) => height - room - (edge / 255) * (height - 2 * room);
    if (i) pen.lineTo(x, y(high[i]));
    else pen.moveTo(x, y(high[i]));
    pen.lineTo(x, y(low[i]) + 0.6);
  }
  pen.strokeStyle = colour;
  pen.lineWidth = 1;
  pen.lineJoin = "round";
  pen.stroke();
}
