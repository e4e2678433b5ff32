// Asks before an action that others notice.

import { text } from "./tile.js";

const part = (name) => document.getElementById(name);

// Resolves to whether the answer was yes; `verb` is on the button that says so.
export function confirmed(question, verb) {
  const dialog = part("confirm");
  text(part("confirm-question"), question);
  text(part("confirm-yes"), verb);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
