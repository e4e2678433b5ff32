// Google's command budget as a picture: a dot for each command allowed per minute, and when the last ones were sent.

import { text } from "./tile.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 150;
const MOST_DOTS = 20;

function svg(name, attributes, parent) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent?.append(node);
  return node;
}

export class Budgets {
  constructor(root) {
    this.root = root;
    this.shown = new Map();
  }

  show(budgets) {
    budgets.forEach((budget) => {
      if (!this.shown.has(budget.account)) this.shown.set(budget.account, new Budget(this.root));
      this.shown.get(budget.account).show(budget, budgets.length > 1);
    });
  }
}

class Budget {
  constructor(root) {
    this.element = document.createElement("div");
    this.element.className = "budget";
    this.element.innerHTML = '<button type="button" class="budget-name term" data-term="commands"></button><svg role="img"></svg><span class="budget-said"></span>';
    [this.name, this.picture, this.said] = this.element.children;
    root.append(this.element);
  }

  show(budget, named) {
    const { used, limit } = budget;
    text(this.name, named ? `Commands · ${budget.account}` : "Commands in the last minute");
    this.element.dataset.load = used >= limit ? "full" : used >= limit * 0.7 ? "busy" : "light";
    const held = budget.hold > 0 ? ` · held ${Math.ceil(budget.hold)} s` : "";
    text(this.said, `${used} of ${limit}${held}`);
    this.picture.setAttribute("aria-label", `${used} of ${limit} commands used in the last 60 seconds, ${budget.depth} waiting`);
    this.#draw(budget);
  }

  #draw({ used, limit, recent }) {
    const dots = Math.max(1, Math.min(limit, MOST_DOTS));
    const filled = limit > MOST_DOTS ? Math.ceil((used / limit) * dots) : used;
    const nodes = [];
    const step = WIDTH / dots;
    for (let index = 0; index < dots; index += 1) {
      const radius = Math.min(4.5, step / 2 - 1);
      nodes.push(svg("circle", { cx: (index + 0.5) * step, cy: 6, r: radius, class: index < filled ? "dot used" : "dot" }));
    }
    // Now is at the right edge: a mark disappears at the left after a minute.
    nodes.push(svg("rect", { x: 0.5, y: 15.5, width: WIDTH - 1, height: 7, rx: 3.5, class: "track" }));
    for (const age of recent) {
      nodes.push(svg("rect", { x: 3 + (1 - Math.min(age, 60) / 60) * (WIDTH - 8), y: 17, width: 2, height: 4, rx: 1, class: "tick" }));
    }
    this.picture.setAttribute("viewBox", `0 0 ${WIDTH} 23`);
    this.picture.setAttribute("width", WIDTH);
    this.picture.setAttribute("height", 23);
    this.picture.replaceChildren(...nodes);
  }
}
