// The steps of the steering: the servo follows a slider. Left on the screen is left of the car.

import { byId, text } from "./dom.js";

const MIDDLE_US = 1500;
const NAMES = { center: "center_us", left: "left_us", right: "right_us" };

export class SteeringSteps {
  constructor(draft) {
    this.draft = draft;
    this.name = null;
    this.pendingUs = null; // what the car has not been told yet
    this.seenDeg = null; // where the wheels point, if that is known: only a simulated car tells
    for (const name of Object.keys(NAMES)) {
      this.slider(name).addEventListener("input", () => this.moved(name));
    }
    for (const button of document.querySelectorAll("[data-nudge]")) {
      button.addEventListener("click", () => {
        const slider = byId(button.dataset.nudge);
        slider.value = Number(slider.value) + Number(button.dataset.by);
        slider.dispatchEvent(new Event("input"));
      });
    }
    byId("mirror").addEventListener("click", () => {
      draft.swapSteering();
      this.enter("center");
    });
    byId("max-deg").addEventListener("input", (event) => {
      if (event.target.value !== "" && event.target.validity.valid) {
        draft.set("steering", "max_deg", Number(event.target.value));
      }
    });
  }

  slider(name) {
    return byId(`steer-${name}`);
  }

  // The slider counts to the right; a pulse may get longer or shorter on the way there.
  get sign() {
    const { left_us: left, right_us: right } = this.draft.now.steering;
    return left > right ? -1 : 1;
  }

  enter(step) {
    this.name = step in NAMES ? step : null;
    this.pendingUs = null;
    if (step === "angle") {
      byId("max-deg").value = this.draft.now.steering.max_deg;
    }
    if (this.name === null) {
      return;
    }
    const us = this.draft.now.steering[NAMES[step]];
    const slider = this.slider(step);
    const reach = Math.abs(us - MIDDLE_US) > 400 ? 600 : 400;
    slider.min = -reach;
    slider.max = reach;
    slider.value = this.sign * (us - MIDDLE_US);
    this.show(us);
    this.pendingUs = us;
  }

  moved(name) {
    const us = MIDDLE_US + this.sign * Number(this.slider(name).value);
    this.draft.set("steering", NAMES[name], us);
    this.pendingUs = us;
    this.show(us);
  }

  show(us) {
    const { steering } = this.draft.now;
    text(byId(`steer-${this.name}-value`), `${us} µs`);
    this.slider(this.name).setAttribute("aria-valuetext", `${us} microseconds`);
    // The picture turns as the slider says; how far is only as good as the ends that are known.
    const travel = Math.max(100, Math.abs(steering.left_us - steering.right_us)) / 2;
    const reference = this.name === "center" ? (steering.left_us + steering.right_us) / 2 : steering.center_us;
    const right = (this.sign * (us - reference)) / travel;
    this.turn(this.seenDeg === null ? right * 30 : -this.seenDeg);
  }

  /** The simulated car says where its wheels point, + is left; null: a real one, or none. */
  see(deg) {
    this.seenDeg = deg;
    if (deg !== null) {
      this.turn(-deg);
    }
  }

  turn(rightDeg) {
    const turn = Math.max(-45, Math.min(45, rightDeg));
    for (const wheel of document.querySelectorAll(".step:not([hidden]) .car-front")) {
      wheel.setAttribute("transform", `rotate(${turn.toFixed(1)})`);
    }
  }

  /** What to send at this beat, or null. */
  next() {
    return this.pendingUs === null ? null : { path: "/api/v1/pulse", body: { steering_us: this.pendingUs } };
  }

  answered(body, error) {
    if (error === null && body.steering_us === this.pendingUs) {
      this.pendingUs = null;
    }
  }

  rest() {
    this.name = null;
  }

  ready() {
    return byId("max-deg").validity.valid;
  }
}
