// The page of one camera, for a link or a frame in another site: it knows nothing about other cameras.

import { call, useLink } from "./api.js";
import { capital, next, tone, word } from "./format.js";
import { PAUSED, Playback, TAP } from "./playback.js";
import { Player, expose } from "./player.js";
import { Sight } from "./sight.js";
import { text } from "./tile.js";

const ASK_EVERY = 3000;

const part = (name) => document.getElementById(name);
const video = part("video");
const camera = decodeURIComponent(location.pathname.split("/").at(-1));
const query = new URLSearchParams(location.search);
if (query.has("signature")) useLink([camera, query.get("expires"), query.get("signature")].join("."));

let status = null;
let offset = 0; // the relay's clock minus this machine's, seconds
let refusal = ""; // why nothing is shown any more

const player = new Player({
  onStream(id, stream) {
    playback.play(stream);
  },
  onTick() {
    aim();
    draw();
  },
});
const playback = new Playback(video, changed);
const sight = new Sight(aim);
sight.watch(video, camera);

function aim() {
  player.want(refusal ? [] : sight.pick([camera], { alone: "", heard: () => !video.muted }));
}

function draw() {
  const seen = playback.look();
  part("why").hidden = seen && !refusal && player.playing(camera);
  if (status) {
    document.title = status.name;
    text(part("name"), status.name);
    text(part("state"), capital(word(status)));
    part("state").dataset.state = status.state;
    part("state").dataset.tone = tone(status.state, status.decodable);
  }
  text(part("why"), refusal || words());
}

function words() {
  if (!status) return "Picture on its way";
  const then = next({ lease: status }, Date.now() / 1000 + offset);
  if (player.fault(camera)) return player.fault(camera);
  if (status.decodable === "no") return [capital(word(status)), status.reason].join(": ");
  if (status.state === "live") return player.unavailable(camera) || (playback.paused ? PAUSED : "Picture on its way");
  return [capital(status.state), status.reason, then].filter(Boolean).join(". ");
}

async function look() {
  try {
    if (!document.hidden) {
      status = await call("GET", `/api/watch/${encodeURIComponent(camera)}`);
      offset = status.at - Date.now() / 1000;
      player.follow([status]);
    }
  } catch (error) {
    // Other errors may pass: the picture continues without the relay.
    if ([401, 403, 404].includes(error.status)) refusal = error.message;
  }
  aim();
  draw();
  if (!refusal) setTimeout(look, ASK_EVERY);
}

function changed() {
  part("sound").setAttribute("aria-pressed", String(!video.muted));
  text(part("sound"), playback.refused ? TAP : video.muted ? "Sound off" : "Sound on");
  aim();
  draw();
  if (playback.look() && !refusal) part("why").hidden = true; // sooner than the next reading of the statistics
}

part("sound").addEventListener("click", () => playback.sound(video.muted));
look();

expose(player);
