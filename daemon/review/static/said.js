// What is told and shown at once, and when what was drawn can be seen.

const $ = (id) => document.getElementById(id);

export function setCurrent(button, is) {
  if (is) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
}

export function setPressed(act, is) {
  document.querySelector(`[data-act="${act}"]`).setAttribute("aria-pressed", String(is));
}

export function say(text) {
  $("said").textContent = text;
}

let telling = 0;
/** Say it, and show it for a moment. */
export function tell(text) {
  say(text);
  $("told").textContent = text;
  $("told").hidden = false;
  clearTimeout(telling);
  telling = setTimeout(() => ($("told").hidden = true), 2500);
}

const channel = new MessageChannel();
let painted = [];
channel.port1.onmessage = () => {
  const works = painted;
  painted = [];
  for (const work of works) work();
};
/** Work that waits until what was drawn can be seen. */
export function afterPaint(work) {
  requestAnimationFrame(() => {
    painted.push(work);
    channel.port2.postMessage(null);
  });
}

// What goes wrong in the page itself is not kept from whoever sits before it.
addEventListener("error", (event) => tell(`Something went wrong on this page: ${event.message}`));
addEventListener("unhandledrejection", (event) => tell(`Something went wrong on this page: ${event.reason?.message}`));
