// The dashboard: cameras from the relay, pictures from the SFU.

import { call } from "./api.js";
import { Banner } from "./banner.js";
import { Budgets } from "./budget.js";
import { Egress } from "./egress.js";
import "./explain.js";
import { Feed } from "./feed.js";
import { bits, clock, span } from "./format.js";
import { Large } from "./large.js";
import { Player, expose } from "./player.js";
import { line } from "./reasons.js";
import { Renditions } from "./renditions.js";
import { Sight } from "./sight.js";
import { Tile, text } from "./tile.js";
import { Wall } from "./wall.js";

const MANY = 12;
const MOST_EVENTS = 200;

const part = (name) => document.getElementById(name);
const grid = part("cameras");
const tiles = new Map();
const names = new Map();
let enabled = []; // ids
let status = null;
let offset = 0; // the relay's clock minus this machine's, seconds
let answers = ""; // which of several supervisors this page asks
let lostAt = 0; // when the relay, which does not answer, last did, milliseconds

const renditions = new Renditions();
const player = new Player({
  onStream(id, stream) {
    tiles.get(id)?.play(stream);
    large.refresh(id);
  },
  onTick(numbers) {
    renditions.watch(numbers);
    aim();
    draw();
    egress.show(player.received, performance.now());
  },
  onLook(numbers) {
    renditions.watch(numbers);
    aim();
  },
  lively: () => renditions.lively(),
  still: (id) => renditions.still(id),
});
const large = new Large({ order: () => wall.shown, stream: (id) => tiles.get(id)?.stream ?? null, onChange: changed, renditions });
const budgets = new Budgets(part("budgets"));
const egress = new Egress(part("egress"));
const sight = new Sight(changed);
const wall = new Wall(grid, changed);
const banner = new Banner(part("banner"), part("banner-said"));

// Pull only the cameras that are seen or heard, and only as large as they are shown.
function aim() {
  const ids = sight.pick(enabled, { alone: large.camera, fills: large.fills, heard: (id) => tiles.get(id).heard || large.floats(id) });
  const shown = ids.map((id) => ({ id, width: tiles.get(id).video.clientWidth }));
  player.want(ids, renditions.ask(shown, { alone: large.camera, direct: (id) => player.direct(id) }));
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
    sight.watch(tile.element, camera.id);
  }
  wall.arrange(tiles);
  grid.dataset.many = cameras.length > MANY ? "yes" : "no";
  part("empty").hidden = cameras.length > 0;
  enabled = cameras.filter((camera) => camera.enabled !== false).map((camera) => camera.id);
  aim();
}

function draw() {
  warn();
  if (!status) return;
  const now = Date.now() / 1000 + offset;
  const { problems = [] } = status;
  for (const camera of status.cameras) {
    const { id } = camera;
    const playing = camera.state !== "disabled" && player.playing(id);
    const view = {
      wanted: player.wants(id),
      unavailable: player.unavailable(id),
      refusal: player.refusal(id),
      fault: player.fault(id),
      way: player.way(id),
      quality: renditions.words(id, player.sent(id)),
      still: renditions.still(id),
      problems,
      now,
    };
    tiles.get(id)?.show(camera, playing, view);
    if (large.camera === id) large.show(camera, playing, view, player.numbers(id));
  }
}

function summarise({ totals, budgets: accounts, uptime, seat: { replica = "", others = [] } = {} }) {
  text(part("live"), `${totals.connected} of ${totals.cameras}`);
  text(part("bitrate"), bits(totals.bitrate));
  text(part("queue"), String(accounts.reduce((sum, budget) => sum + budget.depth, 0)));
  text(part("viewers"), String(totals.viewers));
  text(part("uptime"), span(uptime));
  part("several").hidden = !replica;
  part("seat").title = [replica, ...others].join(", ");
  const way = answers && answers !== replica ? `, through ${answers}` : "";
  text(part("seat"), (others.length ? `${replica}, then ${others.join(" or ")}` : `${replica}, alone`) + way);
  document.title = `${totals.connected}/${totals.cameras} live · Nest relay`;
}

// What is wrong with the relay as a whole, or between it and this page.
function warn() {
  if (lostAt) {
    const since = span((performance.now() - lostAt) / 1000);
    banner.show([`The relay has not answered for ${since}: its figures are old. Pictures continue as long as the cameras' workers run`]);
    return;
  }
  if (!status) return;
  const now = Date.now() / 1000 + offset;
  const { budgets: accounts, problems = [], seat: { state: command = "", problem: away = "" } = {} } = status;
  const said = problems.map((problem) => line(problem, now, accounts.length > 1));
  // What is said of all cameras need not be said again by this page.
  const refused = problems.some(({ stage }) => stage === "viewers") ? [] : enabled.map((id) => player.refusal(id)).filter(Boolean);
  banner.show([
    player.lacks && `${player.lacks}.`,
    ...(said.length ? said : accounts.map((budget) => budget.auth_error)),
    ...accounts.map((budget) => budget.auth_warning),
    command !== "in command" && away && `Streams are kept, but nothing is started or stopped, until this is over: ${away}.`,
    ...refused.map((words) => `${words}. This page tries again by itself.`),
  ]);
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
  renditions.learn(cameras);
  player.learn(cameras);
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
  renditions.learn(detail.cameras);
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
  const lost = detail === "lost";
  lostAt = lost ? lostAt || feed.statusAt : 0;
  grid.dataset.old = lost ? "yes" : "no";
  part("link").dataset.state = detail;
  text(part("link"), lost ? "Relay not reachable" : "Connected");
  warn();
  if (lost) return;
  call("GET", "/api/seat").then(({ replica }) => {
    answers = replica;
    if (status) summarise(status);
  }).catch(() => {});
});

expose(player);
