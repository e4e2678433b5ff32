// What is wrong with the whole relay or with this page, above everything else: one line each.

import { unfigured } from "./format.js";
import { text } from "./tile.js";

const MARKED = /`([^`]+)`|https?:\/\/[^\s<>"'()]+[^\s<>"'().,;:!?]/g;

export class Banner {
  #shown = [];

  // `said`: the element whose changes are read out.
  constructor(root, said) {
    this.root = root;
    this.said = said;
  }

  // `lines`: sentences; the same one twice is shown once.
  show(lines) {
    const wanted = [...new Set(lines.filter(Boolean))];
    this.root.hidden = !wanted.length;
    while (this.root.children.length > wanted.length) this.root.lastElementChild.remove();
    wanted.forEach((words, index) => {
      if (this.#shown[index] === words) return;
      const paragraph = this.root.children[index] ?? this.root.appendChild(document.createElement("p"));
      paragraph.replaceChildren(...linked(words));
    });
    this.#shown = wanted;
    text(this.said, unfigured(wanted.join(" ")));
  }
}

// The text with its addresses as links, and what is to be typed as such.
export function linked(words) {
  const parts = [];
  let end = 0;
  for (const { 0: found, 1: typed, index } of words.matchAll(MARKED)) {
    const part = typed
      ? Object.assign(document.createElement("code"), { textContent: typed })
      : Object.assign(document.createElement("a"), { href: found, textContent: found, target: "_blank", rel: "noopener noreferrer" });
    parts.push(words.slice(end, index), part);
    end = index + found.length;
  }
  return [...parts, words.slice(end)];
}
