// One camera in the grid.

import { bits, capital, span, tone, word } from "./format.js";
import { Playback, TAP } from "./playback.js";
import { covers, remedy, told } from "./reasons.js";

const SPEAKER = '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M4 9v6h4l5 4V5L8 9z"/>'
  + '<path class="waves" d="M16.5 8.5a5 5 0 0 1 0 7M19 6a8.5 8.5 0 0 1 0 12"/><path class="cross" d="m17 9.5 5 5m0-5-5 5"/></svg>';

export class Tile {
  #covered = false;

  constructor(camera, { onOpen, onSound }) {
    this.id = camera.id;
    this.name = camera.name;
    this.onSound = onSound;
    this.element = document.getElementById("tile").content.firstElementChild.cloneNode(true);
    this.element.dataset.camera = camera.id;
    const find = (selector) => this.element.querySelector(selector);
    this.video = find("video");
    this.parts = { open: find(".open"), sound: find(".sound"), name: find("h2"), way: find(".way"), quality: find(".quality"), pill: find(".pill"), why: find(".why").children, remedy: find(".why small") };
    this.parts.moves = [...this.element.querySelectorAll("[data-move]")].map((button) => [button, button.title]);
    this.fields = Object.fromEntries([...this.element.querySelectorAll("[data-field]")].map((dd) => [dd.dataset.field, dd]));
    this.parts.sound.innerHTML = `${SPEAKER}<span>${TAP}</span>`;
    // Autoplay is allowed only while muted, and the attribute alone does not mute a cloned element.
    this.video.muted = true;
    this.playback = new Playback(this.video, () => this.#changed());
    this.parts.open.addEventListener("click", () => onOpen(this.id));
    this.parts.sound.addEventListener("click", () => this.playback.sound(this.video.muted));
    this.#label(camera.name, word(camera));
  }

  get stream() {
    return this.video.srcObject;
  }

  // Whether its sound is on.
  get heard() {
    return !this.video.muted;
  }

  play(stream) {
    this.playback.play(stream);
  }

  // The tile is removed from the page.
  release() {
    this.playback.release();
  }

  #changed() {
    const { sound } = this.parts;
    sound.setAttribute("aria-pressed", String(this.heard));
    sound.dataset.refused = this.playback.refused ? "yes" : "no";
    this.element.dataset.playing = this.playback.look() && !this.#covered ? "yes" : "no";
    this.onSound();
  }

  // `playing`: whether pictures of it arrive; `view`: what the page knows of them (reasons.js).
  show(camera, playing, view) {
    const { element, fields } = this;
    this.#covered = covers(camera);
    this.playback.still = view.still;
    element.dataset.state = camera.state;
    element.dataset.tone = view.refusal && camera.state === "live" ? "busy" : tone(camera.state, camera.decodable);
    element.dataset.decodable = camera.decodable;
    element.dataset.playing = this.playback.look() && playing && !this.#covered ? "yes" : "no";
    element.dataset.waits = camera.state === "live" && !view.fault && !view.refusal ? "yes" : "no";
    this.#label(camera.name, view.refusal && camera.state === "live" ? "live, not shown" : word(camera));
    told(camera, { ...view, paused: this.playback.paused }).forEach((words, index) => text(this.parts.why[index], words));
    text(this.parts.remedy, remedy(camera, view.problems ?? []));
    text(this.parts.way, view.way ?? "");
    text(this.parts.quality, view.quality);
    text(fields.bitrate, bits(camera.video.bitrate_in + camera.audio.bitrate_in));
    text(fields.fps, camera.video.fps ? `${Math.round(camera.video.fps)} fps` : "–");
    text(fields.size, camera.video.width ? `${camera.video.width}×${camera.video.height}` : "–");
    const left = camera.lease.expires_at ? camera.lease.expires_at - view.now : 0;
    text(fields.lease, left > 0 ? span(left) : "none");
    fields.lease.classList.toggle("short", left > 0 && left < 30);
  }

  #label(name, state) {
    this.name = name;
    text(this.parts.name, name);
    text(this.parts.pill, capital(state));
    this.parts.open.setAttribute("aria-label", `${name}, ${state}. Open large with sound`);
    this.parts.sound.setAttribute("aria-label", `Sound of ${name}`);
    for (const [button, words] of this.parts.moves) button.setAttribute("aria-label", `${words} ${name}`);
  }
}

// Writing only what changed keeps a page of a hundred tiles cheap.
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}
