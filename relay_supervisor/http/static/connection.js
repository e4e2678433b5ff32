// One peer connection with the SFU for up to 32 cameras, made and changed through the relay's viewer endpoints.

import { call, leave } from "./api.js";
import { lacking, refusing, soundOf } from "./codecs.js";
import { Peer } from "./peer.js";

const CONNECT_WITHIN = 10000;
const DISCONNECTED_FOR = 5000;

export class Connection extends Peer {
  // Events: "stream" {camera, stream}, "ready" (connected), "dead" (no longer usable).
  tracks = new Map(); // mid → {mid, camera, kind, publication}
  cameras = []; // as last asked for
  qualities = {}; // the same, of cameras that offer two
  unavailable = [];
  unheard = false; // whether the relay may not have heard what was last asked for
  #streams = new Map(); // camera → MediaStream
  #busy = false;
  #later = null; // an update requested while another was in progress: {cameras, stale, qualities}

  constructor() {
    super(DISCONNECTED_FOR);
  }

  async open(cameras, qualities = {}) {
    this.#asking(cameras, qualities);
    const answer = await call("POST", "/api/view", { cameras, audio: true, ...this.#chosen });
    this.unavailable = answer.unavailable;
    if (!answer.view) throw new Error("no camera is available yet");
    this.view = answer.view;
    if (this.dead) return this.close();
    this.connect({ iceServers: answer.ice_servers });
    this.pc.addEventListener("track", (event) => this.#received(event));
    this.expect(CONNECT_WITHIN);
    this.blind = Boolean(lacking());
    await this.#negotiate(answer);
  }

  stream(camera) {
    return this.#streams.get(camera) ?? null;
  }

  has(camera) {
    return [...this.tracks.values()].some((track) => track.camera === camera);
  }

  // Follow the publications; `stale` are cameras whose picture is frozen.
  async update(cameras, stale = [], qualities = {}) {
    if (this.dead || !this.view) return;
    if (this.#busy) {
      // What is frozen is pulled again, however often something else is asked for meanwhile.
      this.#later = { cameras, stale: [...new Set([...(this.#later?.stale ?? []), ...stale])], qualities };
      return;
    }
    this.#busy = true;
    this.#asking(cameras, qualities);
    try {
      const answer = await call("POST", `/api/view/${this.view}/update`, { cameras, stale, ...this.#chosen });
      this.unavailable = answer.unavailable;
      this.unheard = false;
      // Tracks that were never offered here: the offer was lost on its way, and the relay waits for its answer.
      if (answer.action === "reopen" || (answer.action === "none" && this.#misses(answer.tracks))) this.die();
      else if (answer.action === "answer") await this.#negotiate(answer);
      else this.#learn(answer.tracks);
    } catch (error) {
      // 410: the relay no longer knows the view (it was restarted). Other errors may pass: the picture continues.
      if (error.status === 410) this.die();
      this.unheard = true;
    } finally {
      this.#busy = false;
      const later = this.#later;
      this.#later = null;
      if (later) this.update(later.cameras, later.stale, later.qualities);
    }
  }

  #asking(cameras, qualities) {
    this.cameras = cameras;
    this.qualities = qualities;
  }

  // For a relay whose cameras offer one picture each, everything is as it was.
  get #chosen() {
    return Object.keys(this.qualities).length ? { qualities: this.qualities } : {};
  }

  close() {
    super.close();
    if (this.view) leave(this.view);
    this.view = "";
  }

  async #negotiate(answer) {
    // The map comes first: tracks arrive while the offer is applied.
    this.#learn(answer.tracks);
    try {
      const sdp = await this.#answerTo(answer.offer);
      await call("POST", `/api/view/${this.view}/answer`, { sdp });
    } catch (error) {
      // It has not what the SFU believes it has, and a view that is not answered ends: another must take its place.
      this.die();
      throw error;
    }
  }

  async #answerTo(offer) {
    await this.pc.setRemoteDescription({ type: "offer", sdp: this.blind ? soundOf(offer) : offer });
    await this.pc.setLocalDescription(await this.pc.createAnswer());
    // The SFU learns our address from our checks, so there is no need to wait for candidates.
    const { sdp } = this.pc.localDescription;
    return this.blind ? refusing(offer, sdp) : sdp;
  }

  #misses(tracks) {
    const offered = new Set(this.pc.getTransceivers().map(({ mid }) => mid));
    return tracks.some(({ mid, kind }) => !offered.has(mid) && !(this.blind && kind === "video"));
  }

  #learn(tracks) {
    this.tracks = new Map(tracks.map((track) => [track.mid, track]));
  }

  #received({ transceiver, track }) {
    const known = this.tracks.get(transceiver.mid);
    if (!known) return;
    let stream = this.#streams.get(known.camera);
    if (!stream) this.#streams.set(known.camera, (stream = new MediaStream()));
    for (const old of stream.getTracks()) if (old.kind === track.kind && old !== track) stream.removeTrack(old);
    stream.addTrack(track);
    this.dispatchEvent(new CustomEvent("stream", { detail: { camera: known.camera, stream } }));
  }
}
