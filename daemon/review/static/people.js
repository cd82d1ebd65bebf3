// Who looks, under which session, and how what was kept is handed over: what a person and the page tell each other.

import { ask } from "./client.js";
import { clean, element } from "./words.js";

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

/** How what was kept is handed over: commands to copy. */
export function askHandover({ what, table, copies, report }, why = "") {
  const dialog = $("handover");
  $("handover-what").textContent = `${why}Kept ${what}.`;
  const commands = { "handover-table": table, "handover-copies": copies, "handover-report": report };
  for (const [id, text] of Object.entries(commands)) $(id).replaceChildren(...whole(text));
  for (const button of dialog.querySelectorAll("[data-copy]")) {
    button.textContent = "copy";
    button.onclick = () => copy($(button.dataset.copy), button);
  }
  dialog.showModal();
}

/** Words that are not torn apart at their hyphens. */
function whole(command) {
  return command.split(" ").flatMap((word, place) => [place ? " " : "", element("span", {}, word)]);
}

/** Into the clipboard; where the browser forbids it (no https, another machine) it is selected, and a hand copies it. */
async function copy(code, button) {
  getSelection().selectAllChildren(code);
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "copied";
  } catch {
    button.textContent = "selected: Ctrl C";
  }
}

/** Begin or end a session. Throws Problem. */
export function tellSession(body) {
  return ask("/api/session", { method: "POST", body });
}
