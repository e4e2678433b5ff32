// A small plot of one number over the last minutes.

import { text } from "./tile.js";

export const HISTORY = 180; // values kept, one a second
const HEIGHT = 36;

export class Plot {
  constructor(root, name, format) {
    this.format = format;
    this.name = name;
    const element = document.createElement("div");
    element.className = "plot";
    element.innerHTML = `<p><span></span><b></b></p><svg viewBox="0 0 ${HISTORY} ${HEIGHT}" preserveAspectRatio="none" role="img"><polyline/></svg>`;
    element.querySelector("span").textContent = name;
    this.value = element.querySelector("b");
    this.picture = element.querySelector("svg");
    this.line = element.querySelector("polyline");
    root.append(element);
  }

  // `values`: one a second, the newest last.
  show(values) {
    const top = Math.max(1e-9, ...values) * 1.15;
    const start = HISTORY - values.length;
    this.line.setAttribute("points", values.map((value, index) =>
      `${start + index},${(HEIGHT - 1 - (value / top) * (HEIGHT - 3)).toFixed(1)}`).join(" "));
    const now = values.length ? this.format(values.at(-1)) : "–";
    text(this.value, now);
    const range = values.length ? `, between ${this.format(Math.min(...values))} and ${this.format(Math.max(...values))}` : "";
    this.picture.setAttribute("aria-label", `${this.name}: ${now}${range} in the last ${Math.round(HISTORY / 60)} minutes`);
  }
}
