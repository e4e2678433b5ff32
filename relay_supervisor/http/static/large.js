// One camera shown large, with sound, its numbers over time, and its actions.

import { Actions } from "./actions.js";
import { linked } from "./banner.js";
import { QualityChoice } from "./choice.js";
import { Controls } from "./controls.js";
import { explained } from "./explain.js";
import { bytes, capital, clock, counted, milliseconds, span, times, tone, word } from "./format.js";
import { History, SERIES } from "./history.js";
import { Playback } from "./playback.js";
import { Plot } from "./plot.js";
import { published } from "./published.js";
import { advised, covers, told } from "./reasons.js";
import { text } from "./tile.js";

export class Large {
  #camera = "";
  #status = null; // of the camera shown
  #events = null; // as listed
  #covered = false;
  #history = new History();

  // order() returns the ids in the grid's order, stream(id) the MediaStream of a camera; onChange() is called when
  // another camera, or none, is shown, or its quality was chosen.
  constructor({ order, stream, onChange, renditions }) {
    this.order = order;
    this.stream = stream;
    this.onChange = onChange;
    const part = (name) => document.getElementById(name);
    this.dialog = part("large");
    this.video = part("large-video");
    this.playback = new Playback(this.video, () => this.#changed());
    this.controls = new Controls(part("large-controls"), part("large-stage"), this.playback);
    this.quality = new QualityChoice(part("large-controls"), renditions, () => onChange());
    this.parts = Object.fromEntries(["name", "state", "why", "advice", "facts", "events", "quiet"].map((name) => [name, part(`large-${name}`)]));
    const plots = part("large-plots");
    this.plots = SERIES.map(([name, format]) => new Plot(plots, name, format));
    this.actions = new Actions({ camera: () => this.#status });
    part("large-close").addEventListener("click", () => this.dialog.close());
    part("large-previous").addEventListener("click", () => this.#step(-1));
    part("large-next").addEventListener("click", () => this.#step(1));
    this.dialog.addEventListener("close", () => this.#closed());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("keydown", (event) => {
      if (event.target.matches("input, select")) return;
      if (event.key === "ArrowLeft") this.#step(-1);
      if (event.key === "ArrowRight") this.#step(1);
    });
  }

  get camera() {
    return this.dialog.open ? this.#camera : "";
  }

  // Whether it fills the screen: the wall is not about to be seen again.
  get fills() {
    return this.dialog.open && this.controls.fills;
  }

  // Whether it is seen although the page is hidden.
  floats(id) {
    return this.camera === id && this.controls.floats;
  }

  open(id) {
    this.#camera = id;
    this.#status = null;
    this.actions.reset();
    this.quality.show(id, "");
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

  // `playing`: whether pictures of it arrive; `view`: what the page knows of them (reasons.js); `numbers`: its statistics.
  show(camera, playing, view, numbers) {
    this.#status = camera;
    this.#covered = covers(camera);
    this.playback.still = view.still;
    this.quality.show(camera.id, view.quality);
    this.actions.show(camera);
    text(this.parts.name, camera.name);
    text(this.parts.state, capital(word(camera)));
    this.parts.state.dataset.state = camera.state;
    this.parts.state.dataset.tone = tone(camera.state, camera.decodable);
    this.parts.why.hidden = this.playback.look() && playing && !this.#covered;
    told(camera, { ...view, paused: this.playback.paused }).forEach((words, index) => link(this.parts.why.children[index], words));
    const advice = advised(camera, view.now);
    this.parts.advice.hidden = !advice;
    link(this.parts.advice, advice);
    this.#history.series(camera.id).forEach((values, index) => this.plots[index].show(values));
    this.#list(this.#history.events(camera.id));
    this.#facts(camera, numbers, view.now, view.way);
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

  #facts(camera, numbers, now, way) {
    const { video, audio, lease, worker } = camera;
    const left = lease.expires_at ? lease.expires_at - now : 0;
    const rows = {
      "Lease": left > 0 ? `${span(left)} (${lease.state})` : lease.state,
      "Extended": times(lease.extends),
      "Generated": times(lease.generates),
      "Size": video.width ? `${video.width}×${video.height}` : "–",
      "Codecs": [video.codec, audio.codec].filter(Boolean).join(" + ") || "–",
      "Lost from camera": counted(video.lost_in + audio.lost_in, "packet"),
      "Lost to SFU": `${(Math.max(video.loss_out, audio.loss_out) * 100).toFixed(1)} %`,
      "Sent again": counted(video.retransmitted + audio.retransmitted, "packet"),
      "Round trip to SFU": video.rtt ? milliseconds(video.rtt) : "–",
      "Published at": published(camera),
      "Sent": bytes(video.bytes_out + audio.bytes_out),
      "Worker": worker.waits ? waiting(worker) : worker.pid || worker.where ? running(worker) : worker.state,
      "This page": `${Math.round(numbers.fps ?? 0)} fps, ${counted(numbers.freezeCount ?? 0, "freeze")}`,
      "Picture from": way || "Cloudflare",
      "Page jitter": milliseconds(numbers.jitter ?? 0),
    };
    if (camera.account) rows.Account = camera.account;
    const list = this.parts.facts;
    if (list.children.length !== Object.keys(rows).length) {
      list.replaceChildren();
      for (const name of Object.keys(rows)) {
        const row = list.appendChild(document.createElement("div"));
        const term = Object.assign(document.createElement("dt"), { textContent: name });
        if (name === "Lease") term.replaceChildren(explained("lease", name));
        row.append(term, document.createElement("dd"));
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
    this.controls.show();
    if (this.playback.look() && !this.#covered) this.parts.why.hidden = true;
  }

  #closed() {
    this.controls.end();
    this.video.srcObject = null;
    history.replaceState(null, "", location.pathname);
    this.onChange();
  }
}

// In a cluster; the reason is told in full above.
function waiting(worker) {
  return `waits: ${worker.waits.replaceAll("_", " ")}${worker.where ? `, on ${worker.where}` : ""}`;
}

function running(worker) {
  const where = worker.where ? `, on ${worker.where}` : "";
  return `up ${span(worker.uptime)}, restarted ${times(worker.restarts)}${where}`;
}

function link(node, words) {
  if (node.dataset.words === words) return;
  node.dataset.words = words;
  node.replaceChildren(...linked(words));
}
