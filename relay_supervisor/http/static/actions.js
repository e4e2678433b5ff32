// Actions on the camera in the large view: each button, its question, and its result.

import { call, image } from "./api.js";
import { confirmed } from "./confirm.js";
import { Share } from "./share.js";
import { text } from "./tile.js";

const part = (name) => document.getElementById(name);

export class Actions {
  // camera() returns the status of the camera shown.
  constructor({ camera }) {
    this.camera = camera;
    this.said = part("large-said");
    this.buttons = [...part("large-actions").querySelectorAll("button")];
    this.toggle = part("large-toggle");
    this.figure = part("large-snapshot");
    this.share = new Share();
    const on = (name, action) => part(`large-${name}`).addEventListener("click", () => this.#run(action));
    on("keyframe", (camera) => this.#post(camera, "keyframe", "Asked for a keyframe."));
    on("restart", (camera) => this.#restart(camera));
    on("toggle", (camera) => this.#toggle(camera));
    on("share", (camera) => this.share.open(camera));
    on("take", (camera) => this.#snapshot(camera));
    part("snapshot-close").addEventListener("click", () => this.#fold());
  }

  // Another camera is shown.
  reset() {
    text(this.said, "");
    this.#fold();
  }

  show(camera) {
    text(this.toggle, camera.enabled ? "Disable this camera" : "Enable this camera");
  }

  async #run(action) {
    const camera = this.camera();
    if (!camera) return;
    for (const button of this.buttons) button.disabled = true;
    this.#say("");
    try {
      await action(camera);
    } catch (error) {
      this.#say(error.message, true);
    } finally {
      for (const button of this.buttons) button.disabled = false;
    }
  }

  #say(words, failed = false) {
    text(this.said, words);
    this.said.dataset.failed = failed ? "yes" : "no";
  }

  async #post(camera, verb, words) {
    const answer = await call("POST", `/api/cameras/${camera.id}/${verb}`);
    this.#say(words);
    return answer;
  }

  async #restart(camera) {
    const question = `Restart ${camera.name}? Its picture stops for a few seconds, for everyone watching.`;
    if (await confirmed(question, "Restart")) await this.#post(camera, "restart", "The camera's worker is being restarted.");
  }

  async #toggle(camera) {
    if (!camera.enabled) {
      const { running, why_not: why } = await this.#post(camera, "enable", "Enabled: the picture will appear by itself.");
      if (!running) this.#say(`Enabled, but it is not relayed: ${why}`, true);
      return;
    }
    const question = `Disable ${camera.name}? It is not relayed to anyone until it is enabled again.`;
    if (await confirmed(question, "Disable")) await this.#post(camera, "disable", "Disabled until you enable it again.");
  }

  async #snapshot(camera) {
    const url = await image(`/api/cameras/${camera.id}/snapshot`);
    if (this.camera()?.id !== camera.id) return;
    const [picture, link] = [this.figure.querySelector("img"), this.figure.querySelector("a")];
    const at = new Date();
    picture.src = link.href = url;
    picture.alt = `${camera.name}, ${at.toLocaleString()}`;
    link.download = `${camera.name} ${at.toISOString().slice(0, 19).replaceAll(":", "-")}.jpg`;
    text(this.figure.querySelector("span"), at.toLocaleTimeString());
    this.figure.hidden = false;
    this.figure.scrollIntoView({ block: "nearest" });
  }

  #fold() {
    this.figure.hidden = true;
    this.figure.querySelector("img").removeAttribute("src");
    this.figure.querySelector("a").removeAttribute("href");
  }
}
