// One camera shown large, with sound, its numbers over time, and its actions.

import { Actions } from "./actions.js";
import { bytes, capital, clock, milliseconds, next, span, tone, word } from "./format.js";
import { History, SERIES } from "./history.js";
import { PAUSED, Playback, TAP } from "./playback.js";
import { Plot } from "./plot.js";
import { text } from "./tile.js";

export class Large {
  #camera = "";
  #status = null; // of the camera shown
  #events = null; // as listed
  #history = new History();

  // order() returns the ids in the grid's order, stream(id) the MediaStream of a camera; onChange() is called when
  // another camera, or none, is shown.
  constructor({ order, stream, onChange }) {
    this.order = order;
    this.stream = stream;
    this.onChange = onChange;
    const part = (name) => document.getElementById(name);
    this.dialog = part("large");
    this.video = part("large-video");
    this.playback = new Playback(this.video, () => this.#changed());
    this.parts = Object.fromEntries(["name", "state", "why", "facts", "sound", "events", "quiet"].map((name) => [name, part(`large-${name}`)]));
    const plots = part("large-plots");
    this.plots = SERIES.map(([name, format]) => new Plot(plots, name, format));
    this.actions = new Actions({ camera: () => this.#status });
    part("large-close").addEventListener("click", () => this.dialog.close());
    part("large-previous").addEventListener("click", () => this.#step(-1));
    part("large-next").addEventListener("click", () => this.#step(1));
    this.parts.sound.addEventListener("click", () => this.playback.sound(this.video.muted));
    this.dialog.addEventListener("close", () => this.#closed());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") this.#step(-1);
      if (event.key === "ArrowRight") this.#step(1);
    });
  }

  get camera() {
    return this.dialog.open ? this.#camera : "";
  }

  open(id) {
    this.#camera = id;
    this.#status = null;
    this.actions.reset();
    this.playback.play(this.stream(id));
    if (!this.dialog.open) this.dialog.showModal();
    this.playback.sound(true);
    history.replaceState(null, "", `#${id}`);
    this.onChange();
  }

  // A camera's stream was replaced.
  refresh(id) {
    if (this.camera === id) this.playback.play(this.stream(id));
  }

  record(cameras) {
    this.#history.record(cameras);
  }

  note(event) {
    this.#history.note(event);
  }

  show(camera, { playing, numbers, fault, now }) {
    this.#status = camera;
    this.actions.show(camera);
    text(this.parts.name, camera.name);
    text(this.parts.state, capital(word(camera)));
    this.parts.state.dataset.state = camera.state;
    this.parts.state.dataset.tone = tone(camera.state, camera.decodable);
    this.parts.why.hidden = this.playback.look() && playing;
    const awaited = camera.state === "live" && camera.decodable !== "no";
    const missing = this.playback.paused ? PAUSED : "Picture on its way";
    const why = fault ? [fault] : [awaited ? missing : capital(camera.state), camera.reason, next(camera, now)];
    if (camera.decodable === "no" && !fault) why.shift(); // the reason already says so
    text(this.parts.why, why.filter(Boolean).join(". "));
    this.#history.series(camera.id).forEach((values, index) => this.plots[index].show(values));
    this.#list(this.#history.events(camera.id));
    this.#facts(camera, numbers, now);
  }

  #list(events) {
    if (events === this.#events) return;
    this.#events = events;
    this.parts.events.replaceChildren(...events.map((event) => {
      const line = document.createElement("li");
      line.append(
        Object.assign(document.createElement("time"), { textContent: clock(event.at) }),
        Object.assign(document.createElement("span"), { textContent: event.text }),
      );
      return line;
    }));
    this.parts.quiet.hidden = events.length > 0;
  }

  #facts(camera, numbers, now) {
    const { video, audio, lease, worker } = camera;
    const left = lease.expires_at ? lease.expires_at - now : 0;
    const rows = {
      "Lease": left > 0 ? `${span(left)} (${lease.state})` : lease.state,
      "Extended": times(lease.extends),
      "Generated": times(lease.generates),
      "Size": video.width ? `${video.width}×${video.height}` : "–",
      "Codecs": [video.codec, audio.codec].filter(Boolean).join(" + ") || "–",
      "Lost from camera": `${video.lost_in + audio.lost_in} packets`,
      "Lost to SFU": `${(Math.max(video.loss_out, audio.loss_out) * 100).toFixed(1)} %`,
      "Sent again": `${video.retransmitted + audio.retransmitted} packets`,
      "Round trip to SFU": video.rtt ? milliseconds(video.rtt) : "–",
      "Sent": bytes(video.bytes_out + audio.bytes_out),
      "Worker": worker.pid ? `up ${span(worker.uptime)}, restarted ${times(worker.restarts)}` : worker.state,
      "This page": `${Math.round(numbers.fps ?? 0)} fps, ${numbers.freezeCount ?? 0} freezes`,
      "Page jitter": milliseconds(numbers.jitter ?? 0),
    };
    const list = this.parts.facts;
    if (!list.children.length) {
      for (const name of Object.keys(rows)) {
        const row = list.appendChild(document.createElement("div"));
        row.append(Object.assign(document.createElement("dt"), { textContent: name }), document.createElement("dd"));
      }
    }
    Object.values(rows).forEach((value, index) => text(list.children[index].lastElementChild, value));
  }

  #step(by) {
    const ids = this.order();
    const at = ids.indexOf(this.#camera);
    if (at >= 0 && ids.length > 1) this.open(ids[(at + by + ids.length) % ids.length]);
  }

  #changed() {
    const heard = !this.video.muted;
    this.parts.sound.setAttribute("aria-pressed", String(heard));
    text(this.parts.sound, this.playback.refused ? TAP : heard ? "Sound on" : "Sound off");
    if (this.playback.look()) this.parts.why.hidden = true;
  }

  #closed() {
    this.video.srcObject = null;
    history.replaceState(null, "", location.pathname);
    this.onChange();
  }
}

function times(count) {
  return count === 1 ? "once" : count ? `${count} times` : "never";
}
