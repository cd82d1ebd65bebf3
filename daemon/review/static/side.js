// Beside and below the curve: the score between its thresholds, the reasons in words, look-alikes.

import { edges } from "./client.js";
import { drawSmall } from "./plot.js";
import { SHAPES, along, clean, clock, count, element, figure, score, sentence } from "./words.js";

const $ = (id) => document.getElementById(id);

/** Put words at a share of the width, inside it whatever their length: their own share lies over it. */
function place(words, share) {
  words.style.left = `${100 * share}%`;
  words.style.transform = `translateX(${-100 * share}%)`;
}

function write(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

/** The bar of a judged curve; where it is shown blind, one sentence in its place and the same height. */
export function drawGauge(curve, isBlind) {
  const gauge = $("gauge");
  const [above, bar, below] = gauge.children;
  const thresholds = curve?.thresholds;
  const isHidden = isBlind || !thresholds;
  gauge.classList.toggle("is-blind", isHidden);
  if (isHidden) {
    const why = isBlind ? "Blind: what the model said is hidden, so that your eye decides." : "";
    above.replaceChildren(element("span", {}, why));
    gauge.setAttribute("aria-label", why);
    return;
  }
  const [discard, keep] = [along(thresholds.discard), along(thresholds.keep)];
  const [grey, amber, green, mark] = bar.children;
  grey.style.width = `${100 * discard}%`;
  amber.style.width = `${100 * (keep - discard)}%`;
  green.style.width = `${100 * (1 - keep)}%`;
  const has = curve.score !== null && curve.score !== undefined;
  mark.hidden = !has;
  const where = has ? along(curve.score) : (discard + keep) / 2;
  mark.style.left = `${100 * where}%`;
  const said = has ? `score ${score(curve.score)}` : "no score";
  const verdict = `${SHAPES[curve.verdict]} ${curve.verdict}`;
  const words = element("span", {}, element("b", { class: curve.verdict }, verdict), `, ${said}`);
  above.replaceChildren(words);
  place(words, where);
  const [left, right] = below.children;
  const origin = { adapted: ", moved", configured: ", set" }[curve.cut?.origin] ?? "";
  write(left, `discard ≤ ${figure(thresholds.discard)}${origin}`);
  write(right, `keep ≥ ${figure(thresholds.keep)}`);
  // Each below its threshold, as far as both have room; reckoned, not measured: measuring would cost a layout.
  const [one, other] = [left, right].map((words) => 0.56 * words.textContent.length);
  const start = `max(0px, ${100 * discard}% - ${one / 2}em)`;
  left.style.left = start;
  right.style.left = `max(${100 * keep}% - ${other / 2}em, ${start} + ${one + 0.6}em)`;
  gauge.setAttribute("aria-label", `${said}; ${left.textContent}; ${right.textContent}; ${curve.verdict}`);
}

/** The facts of the measurement, in one line; where it is too long for the window, the number of points is left out. */
export function factsOf(curve) {
  const { points, velocity_um_per_s: velocity, spring_constant_n_per_m: spring } = curve;
  const said = [clock(curve.acquired ?? curve.time)];
  if (velocity) said.push(`${figure(velocity, 2)} µm/s`);
  if (spring) said.push(`${figure(1000 * spring, 3)} pN/nm`);
  return [said.filter(Boolean).join(" · "), points ? element("span", { class: "only-wide" }, `· ${count(points)} points`) : ""];
}

/** `isDrawn`: where it is shown blind, whether by chance; `isByChance`: of the pile, where all others come by rank. */
export function drawWhy(curve, isBlind, isDrawn, isByChance) {
  const said = [];
  const line = (text, name = "") => said.push(element("p", { class: name }, text));
  if (isBlind) {
    line("You see it without the model's word.");
    if (isDrawn) line("Drawn by chance: your answer counts for many.");
    else line("Not drawn, shown because few are yet: a look that is not counted.");
  } else {
    if (isByChance) line("Drawn by chance: it tells how many events are left in the pile.");
    const others = (curve.reasons ?? []).filter((one) => one.reason !== "score");
    const { score: value, thresholds, verdict } = curve;
    if (verdict === "keep") line("The network is sure enough to keep it.");
    else if (verdict === "discard") line("The network is sure enough that nothing is there.");
    else if (value === null || value === undefined) line("No score could be made, so a person looks.");
    else if (thresholds && value <= thresholds.discard) line("Its score alone would discard it, but something speaks against that.");
    else if (thresholds && value < thresholds.keep) line("Its score lies between the thresholds.");
    for (const one of others) line(sentence(one.text));
    if (curve.disagreement) line(sentence(curve.disagreement));
  }
  const model = clean(curve.model ?? "").replace(/-([0-9a-f]{4})[0-9a-f]{6,}$/, "-$1");
  const cut = { shipped: "cut as shipped", adapted: `cut moved by ${curve.cut?.events} events`, configured: "cut from the configuration" };
  if (model && !isBlind) line([`Judged by ${model}`, cut[curve.cut?.origin]].filter(Boolean).join(", ") + ".", "quiet");
  write($("why").querySelector("h2"), isBlind ? "A blind look" : "Why it is here");
  const box = $("why").querySelector("div");
  if (said.map((one) => one.textContent).join("") !== box.textContent) box.replaceChildren(...said); // seldom: no layout
}

/** One small curve as a button. */
export function stamp(item, properties = {}) {
  const name = `${clean(item.path ?? item.name)} #${item.curve ?? 0}`;
  const canvas = element("canvas", { "aria-hidden": "true" });
  return element("button", { type: "button", class: "stamp", title: name.slice(0, 200), "aria-label": name.slice(0, 200), ...properties }, canvas);
}

export function drawStamps(stamps) {
  const colour = getComputedStyle(document.documentElement).getPropertyValue("--line").trim();
  for (const [button, item] of stamps) drawSmall(button.firstChild, edges(item.preview), colour);
}

let alike = [];
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawStamps(alike));

export function drawAlike(items, open) {
  const stamps = items.map((item) => [stamp(item), item]);
  for (const [button, item] of stamps) {
    button.addEventListener("click", () => open(item));
    if (item.label) button.append(element("span", { class: `shape ${item.label}` }, SHAPES[item.label] ?? ""));
  }
  $("alike").querySelector("ul").replaceChildren(...stamps.map(([button]) => element("li", {}, button)));
  $("alike").hidden = !items.length;
  alike = stamps;
  drawStamps(stamps);
}
