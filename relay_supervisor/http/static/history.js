// What the relay reported on each camera in the last minutes: numbers for the plots, and events.

import { bits, milliseconds } from "./format.js";
import { HISTORY } from "./plot.js";

const MOST_EVENTS = 60; // of one camera

const percent = (value) => `${value.toFixed(value && value < 10 ? 1 : 0)} %`;

// Name, format, and how to compute the value from a camera's status and the previous one.
export const SERIES = [
  ["Bit rate", bits, ({ video, audio }) => video.bitrate_in + audio.bitrate_in],
  ["Frames per second", (value) => value.toFixed(0), ({ video }) => video.fps],
  ["Lost from the camera", percent, lost],
  ["Jitter from the camera", milliseconds, ({ video }) => video.jitter_in],
  ["Delay in the relay", milliseconds, ({ delay_p99 }) => delay_p99],
  ["Keyframe every", (value) => (value ? `${value.toFixed(1)} s` : "–"), ({ video }) => video.keyframe_interval],
];

// Per cent of the packets since the previous status; a restarted worker counts from zero.
function lost(camera, before) {
  const count = ({ video, audio }) => [video.lost_in + audio.lost_in, video.packets_in + audio.packets_in];
  const [gone, came] = count(camera).map((value, index) => Math.max(0, value - (before ? count(before)[index] : value)));
  return gone ? (100 * gone) / (gone + came) : 0;
}

const NONE = [];

export class History {
  #cameras = new Map(); // camera → {last, series: [[…], …]}
  #events = new Map(); // camera → events, newest first

  record(cameras) {
    for (const camera of cameras) {
      let kept = this.#cameras.get(camera.id);
      if (!kept) this.#cameras.set(camera.id, (kept = { last: null, series: SERIES.map(() => []) }));
      SERIES.forEach(([, , take], index) => {
        kept.series[index].push(take(camera, kept.last));
        if (kept.series[index].length > HISTORY) kept.series[index].shift();
      });
      kept.last = camera;
    }
  }

  note(event) {
    if (!event.camera) return;
    const kept = this.#events.get(event.camera) ?? [];
    this.#events.set(event.camera, [event, ...kept].slice(0, MOST_EVENTS));
  }

  series(id) {
    return this.#cameras.get(id)?.series ?? SERIES.map(() => []);
  }

  events(id) {
    return this.#events.get(id) ?? NONE;
  }
}
