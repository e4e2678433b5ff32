// The dashboard: cameras from the relay, pictures from the SFU.

import { call } from "./api.js";
import { Budgets } from "./budget.js";
import { Egress } from "./egress.js";
import { Feed } from "./feed.js";
import { bits, clock, span } from "./format.js";
import { Large } from "./large.js";
import { Player, expose } from "./player.js";
import { Sight } from "./sight.js";
import { Tile, text } from "./tile.js";

const MANY = 12;
const MOST_EVENTS = 200;

const part = (name) => document.getElementById(name);
const grid = part("cameras");
const tiles = new Map();
const names = new Map();
let enabled = []; // ids in the grid's order
let status = null;
let offset = 0; // the relay's clock minus this machine's, seconds

const player = new Player({
  onStream(id, stream) {
    tiles.get(id)?.play(stream);
    large.refresh(id);
  },
  onTick() {
    aim();
    draw();
    egress.show(player.received, performance.now());
  },
});
const large = new Large({ order: () => [...tiles.keys()], stream: (id) => tiles.get(id)?.stream ?? null, onChange: changed });
const budgets = new Budgets(part("budgets"));
const egress = new Egress(part("egress"));
const sight = new Sight(changed);

// Pull only the cameras that are seen or heard.
function aim() {
  player.want(sight.pick(enabled, { alone: large.camera, heard: (id) => tiles.get(id).heard }));
}

// Another camera is shown large, or other tiles are visible.
function changed() {
  aim();
  draw();
}

function arrange(cameras) {
  const known = new Set(cameras.map((camera) => camera.id));
  for (const [id, tile] of tiles) {
    if (known.has(id)) continue;
    sight.forget(tile.element, id);
    tile.element.remove();
    tile.release();
    tiles.delete(id);
  }
  for (const camera of cameras) {
    names.set(camera.id, camera.name);
    if (tiles.has(camera.id)) continue;
    const tile = new Tile(camera, { onOpen: (id) => large.open(id), onSound: aim });
    tiles.set(camera.id, tile);
    grid.append(tile.element);
    sight.watch(tile.element, camera.id);
  }
  grid.dataset.many = cameras.length > MANY ? "yes" : "no";
  part("empty").hidden = cameras.length > 0;
  enabled = cameras.filter((camera) => camera.enabled !== false).map((camera) => camera.id);
  aim();
}

function draw() {
  if (!status) return;
  const now = Date.now() / 1000 + offset;
  for (const camera of status.cameras) {
    const playing = camera.state !== "disabled" && player.playing(camera.id);
    tiles.get(camera.id)?.show(camera, {
      playing,
      wanted: player.wants(camera.id),
      unavailable: player.unavailable(camera.id),
      fault: player.fault(camera.id),
      now,
    });
    if (large.camera !== camera.id) continue;
    large.show(camera, { playing, numbers: player.numbers(camera.id), fault: player.fault(camera.id), now });
  }
}

function summarise({ totals, budgets: accounts, uptime }) {
  text(part("live"), `${totals.connected} of ${totals.cameras}`);
  text(part("bitrate"), bits(totals.bitrate));
  text(part("queue"), String(accounts.reduce((sum, budget) => sum + budget.depth, 0)));
  text(part("viewers"), String(totals.viewers));
  text(part("uptime"), span(uptime));
  document.title = `${totals.connected}/${totals.cameras} live · Nest relay`;
  const broken = accounts.map((budget) => budget.auth_error).filter(Boolean).join(" ");
  banner(broken);
}

let lost = false;
let trouble = "";
function banner(words = trouble) {
  trouble = words;
  const shown = lost ? "The relay does not respond. Pictures continue as long as the cameras' workers run." : trouble;
  part("banner").hidden = !shown;
  text(part("banner"), shown);
}

function note(event) {
  const line = document.createElement("li");
  const when = Object.assign(document.createElement("time"), { textContent: clock(event.at) });
  const who = Object.assign(document.createElement("span"), { className: "who", textContent: names.get(event.camera) ?? event.camera ?? "" });
  line.append(when, who, Object.assign(document.createElement("span"), { textContent: event.text }));
  const list = part("events");
  list.prepend(line);
  if (list.children.length > MOST_EVENTS) list.lastElementChild.remove();
  text(part("event-count"), String(list.children.length));
}

// The pictures do not wait for the first status.
call("GET", "/api/cameras").then(({ cameras }) => {
  arrange(cameras);
  const asked = location.hash.slice(1);
  if (tiles.has(asked)) large.open(asked);
}).catch(() => {});

const feed = new Feed();
feed.addEventListener("status", ({ detail }) => {
  // A restarted relay has forgotten our views; the pictures continue while new ones are opened.
  if (status && detail.uptime < status.uptime) player.check();
  status = detail;
  offset = detail.at - Date.now() / 1000;
  arrange(detail.cameras);
  player.follow(detail.cameras);
  large.record(detail.cameras);
  summarise(detail);
  budgets.show(detail.budgets);
  draw();
});
feed.addEventListener("event", ({ detail }) => {
  note(detail);
  large.note(detail);
});
feed.addEventListener("link", ({ detail }) => {
  lost = detail === "lost";
  part("link").dataset.state = detail;
  text(part("link"), lost ? "Relay not reachable" : "Connected");
  banner();
});

expose(player);
