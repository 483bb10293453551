// The calibration that is being made, beside the one that is saved. Nothing here talks to the car.

import { turnedSpeeds } from "./speeds.js";

/** What a DeepRacer has before anybody calibrates it (calibration/values.py). */
export const TYPICAL = {
  steering: { left_us: 1700, center_us: 1450, right_us: 1200, max_deg: 30, points: [] },
  throttle: {
    neutral_us: 1446,
    forward_us: 1311,
    reverse_us: 1603.5,
    forward_start_us: null,
    reverse_start_us: null,
    curve: [],
  },
};

/** Every single value: where it is, what it is called, its unit, and whether it may be left out. */
export const VALUES = [
  ["steering", "left_us", "Full left", "µs", false],
  ["steering", "center_us", "Straight ahead", "µs", false],
  ["steering", "right_us", "Full right", "µs", false],
  ["steering", "max_deg", "Angle at full left and right", "°", false],
  ["throttle", "forward_us", "Full speed forwards", "µs", false],
  ["throttle", "forward_start_us", "Begins to turn forwards", "µs", true],
  ["throttle", "neutral_us", "Standstill", "µs", false],
  ["throttle", "reverse_start_us", "Begins to turn backwards", "µs", true],
  ["throttle", "reverse_us", "Full speed backwards", "µs", false],
];

const copy = (calibration) => JSON.parse(JSON.stringify(calibration));

export class Draft {
  constructor() {
    this.saved = null;
    this.now = copy(TYPICAL);
    this.listeners = new Set();
  }

  /** What the car has; null: nothing yet. */
  load(saved) {
    this.saved = saved;
    this.now = copy(saved ?? TYPICAL);
    this.tell();
  }

  /** Another calibration as the new one, not saved yet. */
  take(calibration) {
    this.now = copy(calibration);
    this.tell();
  }

  set(part, name, value) {
    this.now[part][name] = value;
    this.tell();
  }

  get changed() {
    return JSON.stringify(sorted(this.now)) !== JSON.stringify(sorted(this.saved));
  }

  /** Left is right and right is left; measured angles change their side with them. */
  swapSteering() {
    const { steering } = this.now;
    [steering.left_us, steering.right_us] = [steering.right_us, steering.left_us];
    steering.points = steering.points.map(([deg, us]) => [-deg, us]).reverse();
    this.tell();
  }

  /** Forwards is backwards, at every pulse that is known. */
  swapThrottle() {
    const { throttle } = this.now;
    [throttle.forward_us, throttle.reverse_us] = [throttle.reverse_us, throttle.forward_us];
    [throttle.forward_start_us, throttle.reverse_start_us] = [throttle.reverse_start_us, throttle.forward_start_us];
    throttle.curve = turnedSpeeds(throttle.curve);
    this.tell();
  }

  tell() {
    for (const listener of this.listeners) {
      listener(this);
    }
  }
}

// The order of the keys is of no meaning.
function sorted(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    return value;
  }
  return Object.fromEntries(
    Object.keys(value)
      .sort()
      .map((key) => [key, sorted(value[key])]),
  );
}
