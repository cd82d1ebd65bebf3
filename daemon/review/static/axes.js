// The axes: the same for all curves of a session that have the same units, so that the eye compares.

import { parts } from "./words.js";

const PUSH = 0.35; // of the pull: how much of the push against the surface is shown, or it would press all else flat

/** What a curve needs: `{x0, x1, y0, y1}`, its push cut short; null where it has no finite number. */
export function extentOf({ retract }) {
  if (!retract) return null;
  const { x, y } = retract;
  const beyond = pushEnds(y);
  let [x0, x1, bottom, top, below] = [Infinity, -Infinity, Infinity, -Infinity, Infinity];
  for (let i = 0; i < x.length; i++) {
    if (!(Number.isFinite(x[i]) && Number.isFinite(y[i]))) continue;
    if (x[i] < x0) x0 = x[i];
    if (x[i] > x1) x1 = x[i];
    if (y[i] < bottom) bottom = y[i];
    if (y[i] > top) top = y[i];
    if (i >= beyond && y[i] < below) below = y[i];
  }
  if (x0 > x1) return null;
  const high = Math.max(top, 0);
  if (below < Infinity) bottom = Math.max(bottom, Math.min(below, -PUSH * Math.max(high, -below)));
  return { x0, x1, y0: Math.min(bottom, 0), y1: high || 1 };
}

/**
 * The sample at which the push against the surface ends: from the deepest, at the very start, up to the zero line. A dip
 * that begins at the zero line is none: it may be an event of a curve of the wrong sign.
 */
function pushEnds(y) {
  const stop = y.findIndex((one) => one >= 0);
  let deepest = 0;
  for (let i = 1; i < stop; i++) if (y[i] < y[deepest]) deepest = i;
  return stop > 0 && deepest <= 0.2 * stop ? stop : 0;
}

/** Axes on which most of these curves fit whole, and an odd one presses nobody flat; null for none. */
function commonAxes(curves) {
  const extents = curves.map(extentOf).filter(Boolean);
  if (!extents.length) return null;
  const last = extents.length - 1;
  const sorted = (name) => extents.map((one) => one[name]).sort((a, b) => a - b);
  const low = (name) => sorted(name)[Math.ceil(0.12 * last)];
  const high = (name) => sorted(name)[Math.floor(0.88 * last)];
  return roomy({ x0: low("x0"), x1: high("x1"), y0: low("y0"), y1: high("y1") });
}

export function roomy({ x0, x1, y0, y1 }) {
  const wide = x1 - x0 || 1;
  const tall = y1 - y0 || 1;
  return { x0: x0 - 0.015 * wide, x1: x1 + 0.015 * wide, y0: y0 - 0.06 * tall, y1: y1 + 0.14 * tall };
}

/** About `wanted` round numbers between two others. */
export function ticks(low, high, wanted) {
  const rough = (high - low) / Math.max(wanted, 1);
  const ten = 10 ** Math.floor(Math.log10(rough));
  const step = ten * [1, 2, 5, 10].find((factor) => factor * ten >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step);
  return { found, step };
}

export function tickText(value, step) {
  const places = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const text = Math.abs(value) < step / 2 ? "0" : value.toFixed(places);
  return text.replace(/^-/, "\u2212").replace(/\B(?=(\d{3})+(?!\d))/g, places ? "" : ",");
}

/** The lines of a scale that stands at the left, each with its number `gap` before it; `up` are its ticks. */
export function drawLevels(pen, up, toY, { left, right, gap }) {
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const at of up.found) {
    const y = Math.round(toY(at)) + 0.5;
    pen.beginPath();
    pen.moveTo(left, y);
    pen.lineTo(right, y);
    pen.stroke();
    pen.fillText(tickText(at, up.step), left - gap, y);
  }
}

export function axisNames(curve) {
  const force = { pN: "force (pN)", nm: "deflection (nm)", mV: "deflection (mV)" };
  const distance = {
    separation: "distance of the tip from the surface (nm)",
    piezo: "piezo travel from the surface (nm)",
    distance: "distance from the surface (nm)",
    share: "share of the retract (%)",
  };
  return { x: distance[curve.distance_kind], y: force[curve.force_unit] ?? "force (the file names no unit)" };
}

/** `stored(name, otherwise)` and `store(name, value)` keep them over a reload. */
export class Axes {
  #known;

  constructor({ stored, store }) {
    this.store = store;
    this.#known = new Map(Object.entries(stored("axes", {})));
  }

  has(curve) {
    return this.#known.has(kindOf(curve));
  }

  /** Those of a curve; where its kind has none yet, made for it and those `beside` it. null: nothing to draw. */
  of(curve, beside) {
    const kind = kindOf(curve);
    if (!this.#known.has(kind)) {
      const like = beside.filter((one) => one?.retract && kindOf(one) === kind);
      const found = commonAxes(like.length ? like : [curve]);
      if (!found) return null;
      this.#known.set(kind, found);
      this.store("axes", Object.fromEntries([...this.#known].slice(-50)));
    }
    return this.#known.get(kind);
  }
}

function kindOf(curve) {
  const where = curve.session ?? parts(curve.path).folder;
  return [curve.folder, where, curve.force_unit, curve.distance_unit, curve.distance_kind].join(" ");
}
