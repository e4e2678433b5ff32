// What is wrong with the whole relay or with this page, above everything else: one line each, addresses as links.

const ADDRESS = /https?:\/\/[^\s<>"'()]+[^\s<>"'().,;:!?]/g;

export class Banner {
  #shown = "";

  constructor(root) {
    this.root = root;
  }

  // `lines`: sentences; the same one twice is shown once.
  show(lines) {
    const wanted = [...new Set(lines.filter(Boolean))];
    const all = wanted.join("\n");
    if (all === this.#shown) return;
    this.#shown = all;
    this.root.hidden = !wanted.length;
    this.root.replaceChildren(...wanted.map((line) => {
      const paragraph = document.createElement("p");
      paragraph.append(...linked(line));
      return paragraph;
    }));
  }
}

// The text with its addresses as links.
export function linked(words) {
  const parts = [];
  let end = 0;
  for (const { 0: address, index } of words.matchAll(ADDRESS)) {
    parts.push(words.slice(end, index), Object.assign(document.createElement("a"), {
      href: address, textContent: address, target: "_blank", rel: "noopener noreferrer",
    }));
    end = index + address.length;
  }
  return [...parts, words.slice(end)];
}
