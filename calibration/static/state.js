// What the car says of itself: a stream of events, and a request a second where the stream does not get through.
// A hidden page closes the stream: browsers open only six connections to one car, and the stop button needs one.

import { get } from "./api.js";

const SILENT_MS = 1500;
const POLL_MS = 1000;

const listeners = new Set();
let stream = null;
let poll = null;
let heardMs = 0;
let latest = null;

/** The state in one flat form, whatever is missing in it. */
export function flatten(raw) {
  const gate = raw.gate && typeof raw.gate === "object" ? { ...raw, ...raw.gate } : raw;
  const pilot = raw.pilot && typeof raw.pilot === "object" ? raw.pilot : null;
  const ageS = gate.frame_age_s ?? null;
  return {
    raw,
    pilot,
    name: raw.name ?? "",
    version: raw.console_version ?? "",
    mode: gate.mode ?? null,
    armed: gate.armed === true,
    blocked: Array.isArray(gate.blocked) ? gate.blocked : [],
    fault: gate.fault ?? null,
    lease: gate.lease ?? null,
    cap: gate.cap_percent ?? null,
    capInForce: gate.cap_percent_in_force ?? null,
    model: gate.model ?? null,
    pulses: gate.pulses ?? {},
    frameAgeMs: gate.frame_age_ms ?? (ageS === null ? null : 1000 * ageS),
    frameToPulse: gate.frame_to_pulse_ms ?? null,
    inference: pilot?.inference_ms ?? gate.inference_ms ?? null,
    action: raw.action ?? pilot?.action ?? null,
    fps: pilot?.fps ?? pilot?.camera?.fps ?? raw.fps ?? null,
    gateLoop: gate.loop?.gate ?? loopOf(gate),
    pilotLoop: gate.loop?.pilot ?? (pilot ? loopOf(pilot) : null),
    temperature: gate.temperature_c ?? null,
    undervoltage: gate.undervoltage ?? null,
    battery: gate.battery_fraction ?? null,
    diskFree: gate.disk_free_bytes ?? null,
    load: gate.load ?? null,
    uptime: gate.uptime_s ?? null,
    actuator: gate.actuator ?? null,
    camera: pilot?.camera ?? null,
    simulated: raw.simulated ?? null,
  };
}

function loopOf(said) {
  const interval = said.interval_ms;
  return interval
    ? { interval_ms: interval, late: said.late ?? interval.late, missed: said.missed ?? interval.missed }
    : null;
}

function tell(state) {
  latest = state;
  document.dispatchEvent(new CustomEvent("hotlap:state", { detail: state }));
  for (const listener of listeners) {
    listener(state);
  }
}

function heard(raw) {
  heardMs = performance.now();
  tell(flatten(raw));
}

function onEvent(event) {
  try {
    heard(JSON.parse(event.data));
  } catch {
    // Half an event: the next one is whole.
  }
}

function open() {
  if (stream || document.hidden) {
    return;
  }
  stream = new EventSource("/api/v1/events");
  stream.addEventListener("message", onEvent);
  stream.addEventListener("state", onEvent);
  poll = setInterval(check, POLL_MS);
  ask();
}

function close() {
  stream?.close();
  stream = null;
  clearInterval(poll);
}

async function ask() {
  try {
    heard(await get("/api/v1/state", { timeoutMs: 2000 }));
  } catch {
    // `check` says so when it lasts.
  }
}

function check() {
  if (performance.now() - heardMs <= SILENT_MS) {
    return;
  }
  if (latest !== null || performance.now() > SILENT_MS) {
    tell(null);
  }
  if (stream?.readyState === EventSource.CLOSED) {
    // an answer that is no stream ends it for good
    close();
    open();
  } else {
    ask();
  }
}

/** Call `listener(state)` now and for every state; null: the car has not been heard for a while. */
export function watch(listener) {
  listeners.add(listener);
  if (latest !== null) {
    listener(latest);
  }
  open();
}

document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
window.addEventListener("pagehide", close);
window.addEventListener("pageshow", () => listeners.size && open());
