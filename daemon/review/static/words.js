// Numbers and names as a person reads them.

const MINUS = "\u2212";

/** `1,234`, `0.113`, `5.1`: three digits that count, thousands apart, a true minus. */
export function figure(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  let text;
  if (size >= 1e6 || size < 1e-4) text = value.toExponential(1);
  else {
    const shown = Number(value.toPrecision(digits));
    text = size >= 1000 ? Math.round(shown).toLocaleString("en-US") : String(shown);
  }
  return text.replace("-", MINUS);
}

/** A score is never rounded to a certainty. */
export function score(value) {
  if (value === null || value === undefined) return "none";
  return value >= 0.9995 && value < 1 ? "> 0.999" : figure(value);
}

export function count(value) {
  return Number.isFinite(value) ? Math.round(value).toLocaleString("en-US") : "–";
}

export function plural(number, one, many = one + "s") {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** With a capital and a full stop. */
export function sentence(text) {
  return text && text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

/** `4 s`, `3 min`, `2.5 h`, `3 days`. */
export function lasting(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${figure(seconds / 3600, 2)} h`;
  return plural(Math.round(seconds / 86400), "day");
}

/** How long still, in whole minutes: no estimate is better than that. */
export function waiting(seconds) {
  return seconds < 60 ? "less than a minute left" : `about ${lasting(60 * Math.round(seconds / 60))} left`;
}

/** The time of day, with its date where that is not today; "" for none. */
export function clock(moment) {
  const at = new Date(moment ?? NaN);
  if (Number.isNaN(at.getTime())) return "";
  const two = (number) => String(number).padStart(2, "0");
  const time = `${two(at.getHours())}:${two(at.getMinutes())}`;
  if (at.toDateString() === new Date().toDateString()) return `${time}:${two(at.getSeconds())}`;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}`;
}

/** `14:05`, with its date where that is not today; "" for none. */
export function minute(moment) {
  const text = clock(moment);
  return text.length === 8 ? text.slice(0, 5) : text;
}

/** An interval of shares, rounded outwards: `73.9 % to 99.9 %`; 100 % only where it is 1. */
export function between(low, high) {
  let digits = 3;
  const up = (many) => Math.ceil(10 ** many * high - 1e-9) / 10 ** many;
  while (digits < 9 && high < 1 && up(digits) >= 1) digits++;
  const least = Math.floor(1000 * low + 1e-9) / 1000;
  return `${figure(100 * least, 3)}\u00a0% to ${figure(100 * up(digits), digits)}\u00a0%`;
}

/** A name from a disk as text that cannot disturb its surroundings: no line breaks, no signs that turn the direction. */
export function clean(name) {
  // eslint-disable-next-line no-control-regex
  return String(name ?? "").replace(/[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, "\ufffd");
}

/** `{folder, file}` of a path. */
export function parts(path) {
  const text = clean(path);
  const at = Math.max(text.lastIndexOf("/"), text.lastIndexOf("\\"));
  return { folder: text.slice(0, at + 1), file: text.slice(at + 1) };
}

/** 0 to 1 by log odds: how far a score lies up the scale, as in the picture of `explain`. */
const LEAST = 1e-4;
const logit = (share) => Math.log(share / (1 - share));
export function along(value) {
  const held = Math.min(Math.max(value, LEAST), 1 - LEAST);
  return (logit(held) - logit(LEAST)) / (-2 * logit(LEAST));
}
export function unalong(place) {
  return 1 / (1 + Math.exp(-(logit(LEAST) - 2 * logit(LEAST) * place)));
}

/** The word and the shape of a verdict or a label: never colour alone. */
export const SHAPES = { keep: "●", review: "◐", unsure: "◐", discard: "○" };

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("aria-") || name.startsWith("data-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}
