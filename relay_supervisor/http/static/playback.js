// Keeps one video element playing. Browsers pause an element with sound when its page is hidden, start it by themselves
// no more, and refuse sound to a page that nobody has touched: what is decoded tells nothing of what is seen.

export const PAUSED = "The browser has paused it. It goes on with a tap";
export const TAP = "Tap for sound";

const STANDS_STILL = 3000;
const WAKES = [[document, "visibilitychange"], [document, "resume"], [window, "pageshow"], [window, "focus"], [window, "click"]];

const all = new Set();
for (const [target, name] of WAKES) target.addEventListener(name, () => all.forEach((playback) => playback.wake()));

export class Playback {
  refused = false; // the browser wants a tap before it plays sound
  #onChange;
  #shownAt = -Infinity;
  #armed = false;
  #time = 0;

  // onChange() is called when it plays or stands still, and when its sound is on or off for any reason.
  constructor(video, onChange) {
    this.video = video;
    this.#onChange = onChange;
    all.add(this);
    for (const name of ["playing", "pause"]) video.addEventListener(name, () => this.#onChange());
  }

  // Its element is gone.
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

  // The page is seen again, or somebody did something on it.
  wake() {
    if (this.#stopped) this.#start();
  }

  // Whether pictures reach the screen. Asked about once a second, it also starts again what stands still.
  look() {
    const { video } = this;
    this.wake();
    if (!video.srcObject || video.paused) return false;
    // One callback a second instead of one a picture: a page has a hundred tiles.
    if (!video.requestVideoFrameCallback) {
      const moved = video.currentTime !== this.#time;
      this.#time = video.currentTime;
      if (moved) this.#shown();
    } else if (!this.#armed) {
      this.#armed = true;
      video.requestVideoFrameCallback(() => this.#shown());
    }
    return performance.now() - this.#shownAt < STANDS_STILL;
  }

  get paused() {
    return Boolean(this.video.srcObject) && this.video.paused;
  }

  get #stopped() {
    return !document.hidden && this.paused;
  }

  #shown() {
    const late = performance.now() - this.#shownAt >= STANDS_STILL;
    this.#armed = false;
    this.#shownAt = performance.now();
    if (late) this.#onChange();
  }

  #start() {
    this.video.play().catch((error) => {
      // Another stream (AbortError) is played by whoever set it.
      if (error.name !== "NotAllowedError" || this.video.muted) return;
      // The picture without sound is better than neither.
      this.refused = true;
      this.video.muted = true;
      this.#start();
      this.#onChange();
    });
  }
}
