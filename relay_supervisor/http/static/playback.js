// Keeps one video element playing. Browsers pause an element with sound when its page is hidden, do not resume it by
// themselves, and refuse sound on a page without user interaction: what is decoded does not show what is displayed.

import { read, write } from "./kept.js";

export const PAUSED = "Paused by the browser. Tap to resume";
export const TAP = "Tap for sound";

const STANDS_STILL = 3000;
const WAKES = [[document, "visibilitychange"], [document, "resume"], [window, "pageshow"], [window, "focus"], [window, "click"]];

const all = new Set();
let volume = Math.min(1, Math.max(0.05, Number(read("volume", 1)) || 1)); // of everything that is heard
for (const [target, name] of WAKES) target.addEventListener(name, () => all.forEach((playback) => playback.wake()));

export class Playback {
  refused = false; // the browser wants a tap before it plays sound
  still = STANDS_STILL; // milliseconds without another picture after which none is shown
  #onChange;
  #shownAt = -Infinity;
  #armed = false;
  #time = 0;

  // onChange() is called when playback starts or stops, and when its sound is switched for any reason.
  constructor(video, onChange) {
    this.video = video;
    this.#onChange = onChange;
    video.volume = volume;
    all.add(this);
    for (const name of ["playing", "pause"]) video.addEventListener(name, () => this.#onChange());
  }

  // The element has been removed.
  release() {
    all.delete(this);
  }

  play(stream) {
    if (this.video.srcObject !== stream) {
      this.video.srcObject = stream;
      this.#shownAt = -Infinity;
    }
    this.#start();
  }

  sound(on) {
    this.refused = false;
    this.video.muted = !on;
    this.#start();
    this.#onChange();
  }

  get volume() {
    return volume;
  }

  // 0 to 1; 0 is silence until the sound is switched on again, at the volume before.
  set volume(value) {
    if (!value) return;
    volume = value;
    write("volume", volume);
    for (const playback of all) playback.video.volume = volume;
  }

  // The page is visible again, or the user interacted with it.
  wake() {
    if (this.#stopped) this.#start();
  }

  // Whether pictures reach the screen. Called about once a second; also resumes paused playback.
  look() {
    const { video } = this;
    this.wake();
    if (!video.srcObject || video.paused) return false;
    // One callback per second instead of one per picture: a page may have a hundred tiles.
    if (!video.requestVideoFrameCallback) {
      const moved = video.currentTime !== this.#time;
      this.#time = video.currentTime;
      if (moved) this.#shown();
    } else if (!this.#armed) {
      this.#armed = true;
      video.requestVideoFrameCallback(() => this.#shown());
    }
    return performance.now() - this.#shownAt < this.still;
  }

  get paused() {
    return Boolean(this.video.srcObject) && this.video.paused;
  }

  get #stopped() {
    return !document.hidden && this.paused;
  }

  #shown() {
    const late = performance.now() - this.#shownAt >= this.still;
    this.#armed = false;
    this.#shownAt = performance.now();
    if (late) this.#onChange();
  }

  #start() {
    this.video.play().catch((error) => {
      // AbortError: another stream was set, and its play() follows.
      if (error.name !== "NotAllowedError" || this.video.muted) return;
      // A picture without sound is better than neither.
      this.refused = true;
      this.video.muted = true;
      this.#start();
      this.#onChange();
    });
  }
}
