// A person's choice between the pictures of a camera: automatic, full or small. Hidden where it offers one.

import { text } from "./tile.js";

export class QualityChoice {
  #camera = "";

  // `root` has a select and a line of text by their data-control; onChange() is called after another choice.
  constructor(root, renditions, onChange) {
    this.renditions = renditions;
    this.root = root.querySelector('[data-control="quality"]');
    this.said = root.querySelector('[data-control="quality-said"]');
    this.select = this.root.querySelector("select");
    this.select.addEventListener("change", () => {
      renditions.pin(this.#camera, this.select.value);
      onChange();
    });
  }

  // `words`: what is to be said of the quality now.
  show(camera, words) {
    this.#camera = camera;
    this.root.hidden = !this.renditions.offered(camera);
    const chosen = this.renditions.pinned(camera);
    if (this.select.value !== chosen) this.select.value = chosen;
    text(this.said, words);
  }
}
