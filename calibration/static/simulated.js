// The simulated car in words: there is none on the table that one could look at.

import { byId, text } from "./dom.js";

const way = (value, least, plus, minus, none) => (Math.abs(value) < least ? none : value > 0 ? plus : minus);

/** Where its wheels point and how they turn; "" for a real car. */
export function wheels(simulated) {
  if (!simulated) {
    return "";
  }
  const { steering_deg: deg, motor_mps: mps } = simulated;
  const turned = `${Math.abs(deg).toFixed(1)}° to the `;
  const points = way(deg, 0.05, `${turned}left`, `${turned}right`, "straight ahead");
  const driven = `turn ${way(mps, 0.005, "forwards", "backwards", "")} at ${Math.abs(mps).toFixed(2)} m/s`;
  return `Simulated car: the front wheels point ${points}; the wheels ${mps ? driven : "stand still"}.`;
}

/** How it drives, as somebody beside the track sees it; "" for a real car. */
export function laps(simulated) {
  if (!simulated) {
    return "";
  }
  const { laps: count, lap_times_s: times, off_track: off } = simulated;
  const last = times?.length ? `, the last in ${times.at(-1).toFixed(1)} s` : "";
  return `Simulated car: ${count} ${count === 1 ? "lap" : "laps"}${last}; off the track ${off} times.`;
}

/** Show such words in the element with this id, hidden while there are none. */
export function show(id, words) {
  text(byId(id), words);
  byId(id).hidden = words === "";
}
