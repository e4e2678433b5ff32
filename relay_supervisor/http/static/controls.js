// Sound, volume, picture in picture and full screen of one video: the same on every page.

import { TAP } from "./playback.js";
import { text } from "./tile.js";

export class Controls {
  // `root` has buttons and a slider by their data-control; `stage`, with `playback`'s video in it, fills the screen.
  constructor(root, stage, playback) {
    this.stage = stage;
    this.playback = playback;
    this.video = playback.video;
    const find = (name) => root.querySelector(`[data-control="${name}"]`);
    this.parts = Object.fromEntries(["sound", "volume", "floating", "screen"].map((name) => [name, find(name)]));
    const { sound, volume, floating, screen } = this.parts;
    sound.addEventListener("click", () => playback.sound(this.video.muted));
    volume.addEventListener("input", () => {
      playback.volume = Number(volume.value);
      playback.sound(Number(volume.value) > 0);
    });
    floating.addEventListener("click", () => this.#float());
    screen.addEventListener("click", () => this.#fill());
    this.video.addEventListener("dblclick", () => this.#fill());
    for (const name of ["enterpictureinpicture", "leavepictureinpicture"]) this.video.addEventListener(name, () => this.show());
    document.addEventListener("fullscreenchange", () => this.show());
    // An iPhone fills its screen with the video alone, under controls of its own, and pauses it when that ends.
    for (const name of ["webkitbeginfullscreen", "webkitendfullscreen", "volumechange"]) this.video.addEventListener(name, () => this.#returned());
    floating.hidden = !document.pictureInPictureEnabled;
    screen.hidden = !(document.fullscreenEnabled || this.video.webkitEnterFullscreen);
    this.show();
  }

  // Whether the picture floats above other windows: it is seen although the page is hidden.
  get floats() {
    return document.pictureInPictureElement === this.video;
  }

  // Whether the picture fills the screen, so that nothing else of the page is seen.
  get fills() {
    return document.fullscreenElement === this.stage || Boolean(this.video.webkitDisplayingFullscreen);
  }

  show() {
    const { sound, volume, floating, screen } = this.parts;
    const heard = !this.video.muted;
    sound.setAttribute("aria-pressed", String(heard));
    text(sound, this.playback.refused ? TAP : heard ? "Sound on" : "Sound off");
    volume.value = heard ? this.playback.volume : 0;
    text(floating, this.floats ? "Back into the page" : "Picture in picture");
    text(screen, this.fills ? "Leave full screen" : "Full screen");
  }

  // The video is about to show something else, or nothing.
  end() {
    if (this.floats) document.exitPictureInPicture().catch(() => {});
    if (document.fullscreenElement === this.stage) document.exitFullscreen().catch(() => {});
  }

  #returned() {
    this.playback.wake();
    this.show();
  }

  // Refusals are the browser's, which says why in its own way: there is nothing to add.
  #float() {
    (this.floats ? document.exitPictureInPicture() : this.video.requestPictureInPicture()).catch(() => {});
  }

  #fill() {
    if (document.fullscreenElement) document.exitFullscreen().catch(() => {});
    else if (this.stage.requestFullscreen) this.stage.requestFullscreen().catch(() => {});
    else if (this.video.readyState) this.video.webkitEnterFullscreen?.(); // it throws where there is no picture yet
  }
}
