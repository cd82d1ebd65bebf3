// Who looks, and under which session: the two things that a person tells the page.

import { ask } from "./client.js";
import { clean } from "./words.js";

const $ = (id) => document.getElementById(id);
const GIVEN = "given";

/** Ask for a name; `then(name)` when one was given. Without one before, the question stays. */
export function askRater(name, then) {
  const dialog = $("ask-rater");
  $("rater-name").value = name;
  dialog.returnValue = "";
  dialog.oncancel = (event) => !name && event.preventDefault();
  dialog.onclose = () => {
    const given = clean($("rater-name").value).replaceAll("\ufffd", "").trim();
    if (dialog.returnValue === GIVEN && given) then(given);
    else if (!name) askRater(name, then);
  };
  dialog.showModal();
}

/** Ask what a session is about; `then(body)` with what /api/session takes. */
export function askSession(operator, then) {
  const dialog = $("begin");
  dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue === GIVEN) then({ ...Object.fromEntries(new FormData(dialog.querySelector("form"))), operator });
  };
  dialog.showModal();
}

/** Begin or end a session. Throws Problem. */
export function tellSession(body) {
  return ask("/api/session", { method: "POST", body });
}
