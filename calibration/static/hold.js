// Hold to run: a button that moves the motor while a finger (or the space bar) is on it, and only then.

// The gate goes at most 25 µs further a request. Up to what is known already in quick steps, from there on slowly.
export const MAX_STEP_US = 25;
export const SEARCH_STEP_US = 2;
export const RANGE_US = [900, 2100];

/** The pulse while the button is held, step by step. Pure: it knows neither the car nor the clock. */
export class Ramp {
  constructor(neutralUs) {
    this.neutralUs = neutralUs;
    this.rest();
  }

  /** @param sign 1: longer pulses, -1: shorter; fromUs: quickly up to here; farthestUs: at most so far from neutral */
  start({ sign, fromUs, farthestUs, stepUs = SEARCH_STEP_US }) {
    Object.assign(this, { sign, fromUs, farthestUs, stepUs, holding: true, reachedUs: null });
    this.atUs = this.neutralUs;
  }

  rest() {
    this.holding = false;
    this.atUs = this.neutralUs;
  }

  /** What to ask for next. */
  next() {
    const done = this.sign * (this.atUs - this.neutralUs);
    const known = this.sign * (this.fromUs - this.neutralUs);
    const step = done < known ? Math.min(MAX_STEP_US, known - done) : this.stepUs;
    const wanted = this.neutralUs + this.sign * Math.min(done + step, this.farthestUs);
    return Math.min(RANGE_US[1], Math.max(RANGE_US[0], wanted));
  }

  /** The car has done it. */
  confirm(us) {
    this.atUs = us;
    this.reachedUs = us;
  }

  /** The car has fallen back to neutral by itself: begin again from there. */
  restart() {
    this.atUs = this.neutralUs;
  }
}

/** Call down() and up() for a button that is held with a finger, a mouse, or Space and Enter. */
export function holdable(button, { down, up }) {
  let held = false;
  const press = () => {
    if (!held && !button.disabled) {
      held = true;
      button.dataset.active = "";
      down();
    }
  };
  const release = () => {
    if (held) {
      held = false;
      delete button.dataset.active;
      up();
    }
  };
  button.addEventListener("pointerdown", (event) => {
    if (event.button === 0) {
      button.setPointerCapture(event.pointerId);
      press();
    }
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) {
    button.addEventListener(name, release);
  }
  button.addEventListener("contextmenu", (event) => event.preventDefault()); // a long touch opens one
  button.addEventListener("keydown", (event) => {
    if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      press();
    }
  });
  button.addEventListener("keyup", (event) => {
    if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      release();
    }
  });
  window.addEventListener("blur", release);
  window.addEventListener("pagehide", release);
  document.addEventListener("visibilitychange", release);
  document.addEventListener("hotlap:stop", release);
  return release;
}
