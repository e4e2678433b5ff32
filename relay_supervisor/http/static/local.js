// Playing from the relay itself, without Cloudflare (WHEP): one peer connection for each camera, and which cameras go
// that way.

import { ApiError, at, credentials } from "./api.js";
import { lacking } from "./codecs.js";
import { Peer } from "./peer.js";
import { shown } from "./published.js";
import { SMALL } from "./quality.js";

const CONNECT_WITHIN = 3000; // over ICE a browser that can reach the relay does so at once
const DISCONNECTED_FOR = 3000;
const ANOTHER_TRY = 600000; // after the relay, not the network, was in the way: moving interrupts the picture
const KEPT = "relay.local.unreachable"; // for the session, as a page at home and one elsewhere differ


// One camera's connection, with the methods and events of `Connection`. `publication()` tells what it is to play now,
// `undecodable()` whether no browser can decode it.
export class LocalConnection extends Peer {
  local = true;
  tracks = new Map();
  cameras = [];
  qualities = {};
  unavailable = [];
  error = null; // the relay's refusal
  #publication;
  #undecodable;
  #session = "";
  #stream = new MediaStream();

  constructor(publication, undecodable) {
    super(DISCONNECTED_FOR);
    this.#publication = publication;
    this.#undecodable = undecodable;
  }

  async open([camera], qualities = {}) {
    this.cameras = [camera];
    this.qualities = qualities;
    const publication = this.#publication();
    this.connect();
    // A browser without H.264, such as a fresh Firefox, gets the sound.
    this.blind = Boolean(lacking());
    for (const kind of this.blind ? ["audio"] : ["video", "audio"]) this.pc.addTransceiver(kind, { direction: "recvonly", streams: [this.#stream] });
    this.pc.addEventListener("track", (event) => this.#received(camera, event, publication));
    await this.pc.setLocalDescription(await this.pc.createOffer());
    const answer = await this.#offer(camera).catch((error) => {
      this.error = error;
      throw error;
    });
    if (this.dead) return this.close();
    this.expect(CONNECT_WITHIN);
    await this.pc.setRemoteDescription({ type: "answer", sdp: answer });
  }

  stream() {
    return this.tracks.size ? this.#stream : null;
  }

  has(camera) {
    return this.cameras.includes(camera) && this.tracks.size > 0;
  }

  // Another worker answers for the camera now, or its picture is frozen: connect afresh, where that can help.
  async update(cameras, stale = []) {
    const before = [...this.tracks.values()][0]?.publication;
    if ((stale.length && !this.#undecodable()) || (before && before !== this.#publication())) this.die();
  }

  close() {
    super.close();
    if (this.#session) {
      fetch(this.#session, { method: "DELETE", keepalive: true, credentials: "same-origin", headers: credentials() }).catch(() => {});
    }
    this.#session = this.view = "";
  }

  // The relay learns our address from our checks: there is no need to wait for candidates.
  async #offer(camera) {
    const quality = this.qualities[camera] === SMALL ? `?quality=${SMALL}` : "";
    const reply = await fetch(at(`/whep/${encodeURIComponent(camera)}${quality}`), {
      method: "POST",
      credentials: "same-origin",
      signal: AbortSignal.timeout(20000),
      headers: { ...credentials(), "Content-Type": "application/sdp" },
      body: this.pc.localDescription.sdp,
    });
    const text = await reply.text();
    if (!reply.ok) {
      let said = {};
      try {
        said = JSON.parse(text).error;
      } catch {
        // Not the relay's answer, but a proxy's.
      }
      throw new ApiError(reply.status, said);
    }
    // Under the path at which this page sees the relay, which a proxy may not have told it.
    this.#session = at(`/whep/${reply.headers.get("Location").split("/whep/").at(-1)}`);
    this.view = this.#session.split("?")[0].split("/").at(-1);
    return text;
  }

  #received(camera, { transceiver, track }, publication) {
    this.#stream.addTrack(track);
    const kind = track.kind;
    this.tracks.set(transceiver.mid, { mid: transceiver.mid, camera, kind, publication });
    this.dispatchEvent(new CustomEvent("stream", { detail: { camera, stream: this.#stream } }));
  }
}

// From where each camera is played: the relay itself where the browser reaches it, Cloudflare otherwise.
export class Ways {
  #statuses = new Map();
  #unreachable = new Set(recalled());
  #refusedAt = new Map(); // camera → when the relay refused it, milliseconds

  // `cameras`: the status of each, with `local` and `sfu` in it.
  learn(cameras) {
    this.#statuses = new Map(cameras.map((camera) => [camera.id, camera]));
  }

  // Whether the camera is to be played from the relay itself; without Cloudflare there is no other way.
  isLocal(id) {
    const status = this.#statuses.get(id);
    if (!status?.local?.on) return false;
    if (status.sfu === false) return true;
    if (this.#unreachable.has(id)) return false;
    return performance.now() - (this.#refusedAt.get(id) ?? -Infinity) > ANOTHER_TRY;
  }

  // Whether a page can play it at all.
  isShown(id) {
    const status = this.#statuses.get(id);
    return !status || shown(status);
  }

  undecodable(id) {
    return this.#statuses.get(id)?.decodable === "no";
  }

  publication(id) {
    return this.#statuses.get(id)?.local?.publication ?? "";
  }

  // The camera's status as a connection of this kind is to follow it.
  followed(id) {
    const status = this.#statuses.get(id);
    return status && { ...status, viewable: Boolean(status.local?.on && status.local.publication), publication: this.publication(id) };
  }

  // A connection could not be made.
  failed(id, connection) {
    if (connection.error && connection.error.status !== 406) this.#refusedAt.set(id, performance.now());
    else if (!connection.reached) {
      this.#unreachable.add(id);
      keep([...this.#unreachable]);
    }
  }

  // The network has changed: what was out of reach may be within it.
  forget() {
    this.#unreachable.clear();
    this.#refusedAt.clear();
    keep([]);
  }

  // In words, where there is a choice to tell of; `connection` is the one that plays the camera.
  words(id, connection) {
    if (!this.#statuses.get(id)?.local?.on || !connection) return "";
    return connection.local ? "direct" : "Cloudflare";
  }
}

function recalled() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT)) ?? [];
  } catch {
    return [];
  }
}

function keep(cameras) {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(cameras));
  } catch {
    // It is found out again.
  }
}
