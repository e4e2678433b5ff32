// Which tiles are on the wall, and in which order: a person's own choice, kept in this browser.

import { read, write } from "./kept.js";
import { text } from "./tile.js";

const SEARCHED = 7; // cameras from which on there is a field to search them

const part = (name) => document.getElementById(name);

export class Wall {
  #tiles = new Map();
  #kept = { order: [], hidden: [] };
  #dragged = "";

  // onChange() is called when other tiles are shown, or in another order.
  constructor(grid, onChange) {
    this.grid = grid;
    this.onChange = onChange;
    const { order, hidden } = read("wall", {});
    if (Array.isArray(order)) this.#kept.order = order;
    if (Array.isArray(hidden)) this.#kept.hidden = hidden;
    this.search = part("search");
    this.toggle = part("arrange");
    this.reset = part("arrange-reset");
    this.search.addEventListener("input", () => this.#changed());
    this.toggle.addEventListener("click", () => {
      this.toggle.setAttribute("aria-pressed", String(!this.arranging));
      this.#changed();
    });
    this.reset.addEventListener("click", () => this.#keep([], []));
    grid.addEventListener("click", (event) => {
      const button = event.target.closest("[data-move]");
      if (button) this.#move(button.closest(".tile").dataset.camera, button);
    });
    grid.addEventListener("dragstart", (event) => this.#drag(event));
    grid.addEventListener("dragover", (event) => this.#over(event));
    grid.addEventListener("drop", (event) => event.preventDefault());
  }

  get arranging() {
    return this.toggle.getAttribute("aria-pressed") === "true";
  }

  // Ids of the tiles that are shown, in their order.
  get shown() {
    return this.#order().filter((id) => !this.#tiles.get(id).element.hidden);
  }

  // `tiles`: camera → its tile, in the relay's order.
  arrange(tiles) {
    this.#tiles = tiles;
    this.#place();
  }

  // All ids: those that were put in order, then the others as the relay lists them.
  #order() {
    const first = this.#kept.order.filter((id) => this.#tiles.has(id));
    const placed = new Set(first);
    return [...first, ...[...this.#tiles.keys()].filter((id) => !placed.has(id))];
  }

  #place() {
    const { arranging } = this;
    const words = this.search.value.trim().toLocaleLowerCase();
    let last = null;
    for (const id of this.#order()) {
      const { element, name } = this.#tiles.get(id);
      const out = this.#kept.hidden.includes(id);
      element.hidden = (out && !arranging) || !name.toLocaleLowerCase().includes(words);
      element.dataset.out = out ? "yes" : "no";
      element.draggable = arranging;
      text(element.querySelector('[data-move="hide"]'), out ? "Show" : "Hide");
      const next = last ? last.nextElementSibling : this.grid.firstElementChild;
      // Where browsers can, a tile is moved without an interruption of its picture.
      if (next !== element) this.grid[this.grid.moveBefore && element.isConnected ? "moveBefore" : "insertBefore"](element, next);
      last = element;
    }
    this.grid.dataset.arranging = arranging ? "yes" : "no";
    this.#say(words);
  }

  #say(words) {
    const total = this.#tiles.size;
    const gone = [...this.#tiles.keys()].filter((id) => this.#kept.hidden.includes(id)).length;
    part("tools").hidden = total < 2;
    this.search.hidden = total < SEARCHED && !words;
    this.reset.hidden = !this.arranging || !(this.#kept.order.length || gone);
    text(this.toggle, this.arranging ? "Done" : "Arrange");
    const found = this.shown.length;
    const said = words ? (found ? `${found} of ${total}` : "No camera is called that") : gone ? `${gone} hidden` : "";
    text(part("tools-said"), said);
  }

  #changed() {
    this.#place();
    this.onChange();
  }

  #keep(order, hidden) {
    this.#kept = { order, hidden };
    write("wall", this.#kept);
    this.#changed();
  }

  #move(id, button) {
    const how = button.dataset.move;
    const { hidden } = this.#kept;
    const order = this.#order();
    if (how === "hide") {
      this.#keep(this.#kept.order, hidden.includes(id) ? hidden.filter((one) => one !== id) : [...hidden, id]);
      return;
    }
    const at = order.indexOf(id);
    order.splice(at, 1);
    order.splice(how === "first" ? 0 : Math.max(0, at + Number(how)), 0, id);
    this.#keep(order, hidden);
    button.focus();
    this.#tiles.get(id).element.scrollIntoView({ block: "nearest" });
  }

  #drag(event) {
    const tile = event.target.closest(".tile");
    if (!this.arranging || !tile) return;
    this.#dragged = tile.dataset.camera;
    event.dataTransfer.effectAllowed = "move";
  }

  // The tile takes its place while it is dragged.
  #over(event) {
    const over = event.target.closest(".tile")?.dataset.camera;
    if (!this.#dragged || !over) return;
    event.preventDefault();
    if (over === this.#dragged) return;
    const order = this.#order();
    const to = order.indexOf(over);
    order.splice(order.indexOf(this.#dragged), 1);
    order.splice(to, 0, this.#dragged);
    this.#keep(order, this.#kept.hidden);
  }
}
