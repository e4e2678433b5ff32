// A link to one camera for a person who may see nothing else.

import { at, call } from "./api.js";
import { text } from "./tile.js";

const part = (name) => document.getElementById(name);

export class Share {
  #camera = null;

  constructor() {
    this.dialog = part("share");
    this.link = part("share-link");
    this.seconds = part("share-seconds");
    this.said = part("share-said");
    this.seconds.addEventListener("change", () => this.#make().catch((error) => text(this.said, error.message)));
    this.link.addEventListener("focus", () => this.link.select());
    part("share-copy").addEventListener("click", () => this.#copy());
  }

  // Makes a link and shows it; fails with the relay's message when links are disabled.
  async open(camera) {
    this.#camera = camera;
    await this.#make();
    text(part("share-title"), `Watch ${camera.name}`);
    this.dialog.showModal();
  }

  async #make() {
    const { path, expires_at: end } = await call("POST", `/api/cameras/${this.#camera.id}/link`, { seconds: Number(this.seconds.value) });
    this.link.value = at(path);
    text(this.said, `Anyone with this link can watch this camera, and no other, until ${new Date(end * 1000).toLocaleString()}.`);
  }

  async #copy() {
    this.link.select();
    try {
      await navigator.clipboard.writeText(this.link.value);
      text(this.said, "Copied.");
    } catch {
      // Not allowed, or the page was loaded over plain HTTP: the selected text can be copied by hand.
      text(this.said, "Press Ctrl+C to copy.");
    }
  }
}
