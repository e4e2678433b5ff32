// A peer connection's life, whatever it is connected with: events "ready" (connected) and "dead" (no longer usable).

import { call } from "./api.js";

const PART = 500;

export class Peer extends EventTarget {
  pc = null;
  view = ""; // the relay's name of it
  faults = new Map(); // camera → why this page, and no other, shows no picture of it
  sent = ""; // which picture the relay itself sends here, as it says: "full" or "small"
  blind = false; // made by a browser that lacked the pictures' codec: it will never carry any
  dead = false;
  reached = false; // whether it has ever been connected
  #disconnectedFor;
  #timer = 0;

  constructor(disconnectedFor) {
    super();
    this.#disconnectedFor = disconnectedFor;
  }

  // Make the connection; it dies when it is not there within so many milliseconds after `expect`.
  connect(settings) {
    this.pc = new RTCPeerConnection({ bundlePolicy: "max-bundle", ...settings });
    this.pc.addEventListener("connectionstatechange", () => this.#changed());
  }

  // In parts, as a page that was asleep, with its machine or in the background, has done nothing meanwhile.
  expect(within) {
    clearTimeout(this.#timer);
    const part = Math.min(within, PART);
    this.#timer = setTimeout(() => {
      if (this.pc.connectionState === "connected") return;
      if (within > part) this.expect(within - part);
      else this.die();
    }, part);
  }

  // Report to the relay what is received of the cameras here: [{camera, bytes, frames}].
  async report(cameras) {
    if (this.dead || !this.view || !cameras.length) return;
    try {
      const { faults, quality = "" } = await call("POST", `/api/view/${this.view}/received`, { cameras });
      this.faults = new Map(faults.map(({ camera, reason }) => [camera, reason]));
      this.sent = quality;
    } catch {
      // The picture does not depend on it, and a view that is gone is found out otherwise.
    }
  }

  die() {
    if (this.dead) return;
    this.dead = true;
    clearTimeout(this.#timer);
    this.dispatchEvent(new Event("dead"));
  }

  close() {
    this.dead = true;
    clearTimeout(this.#timer);
    this.pc?.close();
  }

  #changed() {
    const state = this.pc.connectionState;
    if (state === "connected") {
      this.reached = true;
      clearTimeout(this.#timer);
      this.dispatchEvent(new Event("ready"));
    } else if (state === "disconnected") this.expect(this.#disconnectedFor);
    else if (state === "failed" || state === "closed") this.die();
  }
}
