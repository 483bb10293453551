// The car's short names in the words of a person, and where on these pages the cure is.

const MODES = {
  disarmed: "Standing by",
  manual: "By hand",
  autonomous: "Drives by itself",
  calibration: "Calibrating",
  stopped: "STOPPED",
};

// reason: [title, what to do, link of the cure]
const REASONS = {
  stopped: ["The emergency stop is on", "Look that nobody is near the wheels, then release the stop."],
  already_armed: ["It is in use already", "End driving first."],
  uncalibrated: ["Steering and motor are not calibrated", "Calibrate the car.", ["/calibrate", "Calibrate"]],
  gate_stalled: ["The car's control program is held up", "Wait a moment. If it stays, restart the car."],
  esc_neutral: ["The motor is getting ready", "Wait a second."],
  actuator: ["Servo or motor do not answer", "Check cables and power.", ["/health", "Health"]],
  guard: ["The safety watcher does not run", "Restart the car."],
  log: ["The drive log cannot be written", "Free space on the car, or change its card."],
  undervoltage: ["The computer gets too little voltage", "Charge the battery, or use a shorter cable."],
  battery: ["The battery is low", "Charge the battery."],
  temperature: ["The computer is too hot", "Let the car cool down."],
  disk: ["The card is full", "Delete old models or logs.", ["/models", "Models"]],
  no_lease: ["Nobody has the controls", "Press “Take control”."],
  no_console: ["This page's program is just starting", "Wait a second. If it stays, restart the car."],
  no_model: ["There is no model to drive with", "Upload a model and choose it.", ["/models", "Models"]],
  intent_refused: ["What the model wants was refused", "Look at the log, then start again.", ["/health", "Health"]],
  stale_intent: [
    "The driving program is silent",
    "Wait a moment. If it stays, choose a model or restart the car.",
    ["/models", "Models"],
  ],
  intents_unsteady: ["The driving program is just getting going", "Wait a second. If it stays, the model is too slow."],
  stale_frame: ["There are no fresh pictures of the camera", "Check the camera and its cable.", ["/health", "Health"]],
  speed_cap: ["The speed limit is 0 %", "Move the speed limit up.", ["/", "Drive"]],
  pilot_not_running: [
    "The driving program does not run",
    "Wait a moment. If it stays, restart the car.",
    ["/health", "Health"],
  ],
  gate_not_running: ["The car's control program does not run", "Restart the car."],
};

const FAULTS = {
  lease_lost: "The connection of the person at the controls was lost.",
  console_lost: "This page's program ended while the car drove.",
  intent_lost: "The driving program stopped answering.",
  frame_lost: "The camera stopped sending pictures.",
  tick_gap: "The car's control program was held up.",
  actuator: "Servo or motor stopped answering.",
  guard: "The safety watcher ended.",
  log: "The drive log could not be written.",
  mapping: "The model wanted more than the calibration allows.",
};

export const modeText = (mode) => MODES[mode] ?? "No connection";

export const faultText = (fault) => {
  const ago = typeof fault.age_s === "number" ? `, ${duration(fault.age_s)} ago` : "";
  return `Last fault: ${FAULTS[fault.name] ?? fault.name} (${fault.name}${ago})`;
};

/** The reasons that are worth telling: that nobody has pressed Start is none. */
export function problems(state) {
  return state.blocked.filter((one) => one.reason !== "disarmed" && one.reason !== "already_armed");
}

/** {title, value, todo, link} of one blocked reason. A name that is not known here keeps the car's own words. */
export function explain(one) {
  const [title, todo, link] = REASONS[one.reason] ?? [one.reason.replaceAll("_", " "), one.cure];
  return { title, value: one.value ?? "", todo: todo ?? "", link: link ?? null };
}

export function duration(seconds) {
  if (seconds < 90) {
    return `${Math.round(seconds)} s`;
  }
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

export function size(bytes) {
  const [share, unit] = bytes < 1e6 ? [1e3, "kB"] : bytes < 1e9 ? [1e6, "MB"] : [1e9, "GB"];
  const value = Math.max(1, bytes / share);
  return `${value.toFixed(value < 10 && unit !== "kB" ? 1 : 0)}\u00a0${unit}`;
}

export const number = (value, digits = 0, unit = "") =>
  typeof value === "number" && Number.isFinite(value) ? `${value.toFixed(digits)}${unit && `\u00a0${unit}`}` : "–";
