// The page of one camera, for a link or a frame in another site: it knows nothing about other cameras.

import { call, useLink } from "./api.js";
import { QualityChoice } from "./choice.js";
import { Controls } from "./controls.js";
import { capital, tone, unfigured, word } from "./format.js";
import { Playback } from "./playback.js";
import { Player, expose } from "./player.js";
import { covers, told } from "./reasons.js";
import { Renditions } from "./renditions.js";
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
let refusal = ""; // why nothing is shown
let ended = false; // whether that is for good

const renditions = new Renditions();
const player = new Player({
  onStream(id, stream) {
    playback.play(stream);
  },
  onTick(numbers) {
    renditions.watch(numbers);
    aim();
    draw();
  },
  onLook(numbers) {
    renditions.watch(numbers);
    aim();
  },
  lively: () => renditions.lively(),
  still: (id) => renditions.still(id),
});
const playback = new Playback(video, changed);
const controls = new Controls(part("bar"), document.querySelector("main"), playback);
const quality = new QualityChoice(part("bar"), renditions, changed);
const sight = new Sight(aim);
sight.watch(video, camera);

function aim() {
  const seen = refusal ? [] : sight.pick([camera], { alone: "", heard: () => !video.muted || controls.floats });
  player.want(seen, renditions.ask(seen.map((id) => ({ id, width: video.clientWidth })), { direct: (id) => player.direct(id) }));
}

function draw() {
  playback.still = renditions.still(camera);
  quality.show(camera, renditions.words(camera, player.sent(camera)));
  const seen = playback.look();
  part("bar").hidden = !status || Boolean(refusal);
  part("why").hidden = seen && !refusal && player.playing(camera) && !(status && covers(status));
  if (status) {
    document.title = status.name;
    text(part("name"), status.name);
    text(part("state"), capital(word(status)));
    part("state").dataset.state = status.state;
    part("state").dataset.tone = tone(status.state, status.decodable);
    part("state").title = player.way(camera);
  }
  text(part("why"), refusal || words());
  text(part("said"), part("why").hidden ? "" : unfigured(part("why").textContent));
}

function words() {
  if (!status) return "Picture on its way";
  const [what, why, then] = told(status, {
    wanted: true,
    unavailable: player.unavailable(camera),
    refusal: player.refusal(camera),
    fault: player.fault(camera),
    paused: playback.paused,
    now: Date.now() / 1000 + offset,
  });
  return [[what, why].filter(Boolean).join(": "), then].filter(Boolean).join(". ");
}

async function look() {
  try {
    // Hidden, it is followed as long as it is heard or floats: otherwise the relay would end a view that asks for nothing.
    if (!document.hidden || player.wants(camera)) {
      status = await call("GET", `/api/watch/${encodeURIComponent(camera)}`);
      refusal = "";
      offset = status.at - Date.now() / 1000;
      renditions.learn([status]);
      player.follow([status]);
    }
  } catch (error) {
    // Other errors may pass, and so may those of a proxy that finds no relay: the picture continues without it.
    if ([401, 403, 404].includes(error.status) && error.code !== "unknown") {
      refusal = error.message;
      ended = error.status !== 404; // one that has just been started may not know its cameras yet
      controls.end();
    }
  }
  aim();
  draw();
  if (!ended) setTimeout(look, ASK_EVERY);
}

function changed() {
  controls.show();
  aim();
  draw();
  if (playback.look() && !refusal && !(status && covers(status))) part("why").hidden = true; // sooner than the next reading of the statistics
}

look();

expose(player);
