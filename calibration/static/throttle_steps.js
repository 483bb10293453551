// The steps of the motor: hold to run. First to either side until the wheels begin to turn; standstill is in the
// middle. Then up to the full speed that is wanted, forwards and backwards.

import { parting } from "./api.js";
import { byId, text } from "./dom.js";
import { holdable, Ramp } from "./hold.js";
import { fittingSpeeds, turnedSpeeds } from "./speeds.js";

const START_REACH_US = 200; // nothing turns so far from the middle: then it never will
const END_REACH_US = 500;
const END_STEP_US = 3;

const plain = (us) => `${Math.round(us * 10) / 10} µs`;

export class ThrottleSteps {
  constructor(draft, changed) {
    Object.assign(this, { draft, changed, name: null, lease: null, goingHome: false });
    this.ramp = new Ramp(1500);
    this.begin();
    for (const button of document.querySelectorAll("[data-hold]")) {
      holdable(button, { down: () => this.down(button.dataset.hold), up: () => this.up() });
    }
    for (const button of document.querySelectorAll("[data-adjust]")) {
      button.addEventListener("click", () => this.adjust(button.dataset.adjust, Number(button.dataset.by)));
    }
    for (const radio of document.querySelectorAll("input[name=way]")) {
      radio.addEventListener("change", () => this.choose(radio.value));
    }
  }

  /** Start of the wizard: what was measured before is kept until it is measured anew. */
  begin() {
    const { throttle } = this.draft.now;
    this.neutralUs = (this.draft.saved ?? this.draft.now).throttle.neutral_us; // the one that the car rests at
    const starts = [throttle.forward_start_us, throttle.reverse_start_us];
    const known = starts.every((us) => us !== null);
    this.starts = { first: known ? Math.max(...starts) : null, second: known ? Math.min(...starts) : null };
    this.way = known ? (throttle.forward_us > throttle.neutral_us ? "forward" : "reverse") : null;
    this.measured = { forward: false, reverse: false };
    this.ramp = new Ramp(this.neutralUs);
    for (const radio of document.querySelectorAll("input[name=way]")) {
      radio.checked = radio.value === this.way;
    }
  }

  enter(step) {
    this.name = step;
    this.show();
  }

  // The first look is for longer pulses, the second for shorter ones.
  sign(name) {
    if (name === "first" || name === "second") {
      return name === "first" ? 1 : -1;
    }
    return (name === "forward") === (this.way === "forward") ? 1 : -1;
  }

  value(name) {
    return name in this.starts ? this.starts[name] : this.draft.now.throttle[`${name}_us`];
  }

  startOf(name) {
    return this.sign(name) > 0 ? this.starts.first : this.starts.second;
  }

  down(name) {
    if (!this.lease?.ready) {
      return;
    }
    const sign = this.sign(name);
    if (name in this.starts) {
      this.ramp.start({ sign, fromUs: this.neutralUs, farthestUs: START_REACH_US });
    } else {
      const fromUs = this.measured[name] ? this.value(name) : (this.startOf(name) ?? this.neutralUs);
      this.ramp.start({ sign, fromUs, farthestUs: END_REACH_US, stepUs: END_STEP_US });
    }
    this.goingHome = false;
    text(byId(`hold-${name}-now`), "The motor runs…");
  }

  up() {
    if (!this.ramp.holding) {
      return;
    }
    const { name, lease } = this;
    const reachedUs = this.ramp.reachedUs;
    this.ramp.rest();
    // Twice: at once, and once more behind the request that may still be on its way. The gate takes it from anywhere.
    this.goingHome = true;
    if (lease?.held) {
      parting("/api/v1/pulse", { lease: lease.id, throttle_us: this.neutralUs });
    }
    text(byId(`hold-${name}-now`), "The motor is at rest.");
    if (reachedUs !== null) {
      this.record(name, reachedUs);
    }
  }

  adjust(name, by) {
    const us = this.value(name);
    if (us !== null && us !== undefined) {
      this.record(name, us + this.sign(name) * by);
    }
  }

  choose(way) {
    this.way = way;
    this.settle();
  }

  record(name, us) {
    if (name in this.starts) {
      this.starts[name] = us;
    } else {
      this.measured[name] = true;
      this.draft.now.throttle[`${name}_us`] = us;
    }
    this.settle();
  }

  /** Bring the draft in line with the two starts of movement and the direction. */
  settle() {
    const { throttle } = this.draft.now;
    const { first, second } = this.starts;
    if (this.way !== null && first !== null && second !== null) {
      const before = { ...throttle };
      throttle.neutral_us = (first + second) / 2;
      const forward = this.way === "forward";
      [throttle.forward_start_us, throttle.reverse_start_us] = forward ? [first, second] : [second, first];
      if (before.forward_us > before.neutral_us !== forward) {
        // every pulse that is known stays as it is, and means the other direction
        [throttle.forward_us, throttle.reverse_us] = [before.reverse_us, before.forward_us];
        [this.measured.forward, this.measured.reverse] = [this.measured.reverse, this.measured.forward];
        throttle.curve = turnedSpeeds(throttle.curve);
      }
      for (const name of ["forward", "reverse"]) {
        if (!this.measured[name]) {
          // as far from standstill as before
          const reach = Math.abs(throttle[`${name}_us`] - before.neutral_us);
          throttle[`${name}_us`] = throttle.neutral_us + this.sign(name) * reach;
        }
      }
      throttle.curve = fittingSpeeds(throttle.curve, throttle);
    }
    this.draft.tell();
    this.show();
    this.changed();
  }

  show() {
    for (const name of ["first", "second", "forward", "reverse"]) {
      const us = this.value(name);
      text(byId(`hold-${name}-value`), us === null ? "not measured" : plain(us));
    }
    text(byId("second-way"), this.way === "forward" ? "backwards" : "forwards");
    const { first, second } = this.starts;
    text(byId("neutral-value"), first === null || second === null ? "–" : plain((first + second) / 2));
  }

  /** What to send at this beat, or null. */
  next() {
    if (this.ramp.holding) {
      return { path: "/api/v1/pulse", body: { throttle_us: this.ramp.next() } };
    }
    return this.goingHome ? { path: "/api/v1/pulse", body: { throttle_us: this.neutralUs } } : null;
  }

  answered(body, error) {
    if (!this.ramp.holding) {
      this.goingHome = this.goingHome && body.throttle_us !== this.neutralUs;
      return;
    }
    if (error === null) {
      this.ramp.confirm(body.throttle_us);
      text(byId(`hold-${this.name}-now`), `The motor runs at ${plain(body.throttle_us)}.`);
    } else if (error.reason === "step_too_large") {
      this.ramp.restart();
    }
  }

  rest() {
    this.up();
  }

  ready(step) {
    if (step === "throttle") {
      return byId("raised").checked;
    }
    if (step === "first") {
      return this.starts.first !== null && this.way !== null;
    }
    return step !== "second" || this.starts.second !== null;
  }
}
