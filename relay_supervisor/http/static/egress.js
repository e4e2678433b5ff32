// What Cloudflare sends to this page, and what a month of it would cost.

import { bits } from "./format.js";
import { text } from "./tile.js";

// https://developers.cloudflare.com/realtime/sfu/pricing/: $0.05 a GB of egress, the first 1,000 GB a month are free.
const FREE = 1000;
const PRICE = 0.05;
const SECONDS = 30 * 86400;
const WINDOW = 20000; // milliseconds over which the rate is taken

export class Egress {
  #samples = []; // {at, total}, oldest first

  constructor(root) {
    this.root = root;
  }

  // `total`: bytes received since the page was opened; `now`: milliseconds.
  show(total, now) {
    this.#samples.push({ at: now, total });
    while (now - this.#samples[0].at > WINDOW) this.#samples.shift();
    const [first] = this.#samples;
    const rate = now > first.at ? ((total - first.total) * 1000) / (now - first.at) : 0;
    text(this.root, words(rate));
  }
}

// `rate`: bytes a second.
function words(rate) {
  const month = (rate * SECONDS) / 1e9;
  const cost = Math.max(0, month - FREE) * PRICE;
  const price = cost ? `$${cost.toFixed(cost < 10 ? 2 : 0)}` : "free";
  return `${bits(rate * 8)} · ${Math.round(month).toLocaleString("en")} GB a month · ${price}`;
}
