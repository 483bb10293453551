// What a person steers with: a stick for the thumb, the keyboard, a game controller. Each gives steering and throttle
// in -1..1 (+ is left, + is forward); the one that is being used counts, the stick first.

const DEAD = 0.12; // around the middle of a game controller's stick, which never comes to rest at zero
const STEER_PER_S = 4; // a key is all or nothing: steering follows it smoothly
const GAS_PER_S = 1.5;

const KEYS = {
  ArrowUp: "up",
  KeyW: "up",
  ArrowDown: "down",
  KeyS: "down",
  ArrowLeft: "left",
  KeyA: "left",
  ArrowRight: "right",
  KeyD: "right",
};

const clamp = (value) => Math.max(-1, Math.min(1, value));

/** The round pad. Where the finger is, is where the knob goes; letting go is the middle. */
export class Stick {
  constructor(pad, knob) {
    Object.assign(this, { pad, knob, pointer: null, x: 0, y: 0 });
    pad.addEventListener("pointerdown", (event) => {
      if (this.pointer === null) {
        event.preventDefault();
        this.pointer = event.pointerId;
        pad.setPointerCapture(event.pointerId);
        pad.dataset.active = "";
        this.move(event);
      }
    });
    pad.addEventListener("pointermove", (event) => event.pointerId === this.pointer && this.move(event));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      pad.addEventListener(name, (event) => event.pointerId === this.pointer && this.rest());
    }
    pad.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  move(event) {
    const box = this.pad.getBoundingClientRect();
    const reach = box.width * 0.34;
    let x = (event.clientX - box.left - box.width / 2) / reach;
    let y = (event.clientY - box.top - box.height / 2) / reach;
    const length = Math.hypot(x, y);
    if (length > 1) {
      x /= length;
      y /= length;
    }
    [this.x, this.y] = [x, y];
    this.draw();
  }

  rest() {
    this.pointer = null;
    this.x = this.y = 0;
    delete this.pad.dataset.active;
    this.draw();
  }

  draw() {
    const reach = this.pad.clientWidth * 0.34;
    this.knob.style.transform = `translate(calc(-50% + ${this.x * reach}px), calc(-50% + ${this.y * reach}px))`;
  }

  read() {
    return this.pointer === null ? null : { steering: -this.x, throttle: -this.y };
  }
}

/** Arrow keys and WASD, while `active()` and nobody types into a field. */
export class Keys {
  constructor(active) {
    Object.assign(this, { active, down: new Set(), steering: 0, throttle: 0, readMs: 0 });
    window.addEventListener("keydown", (event) => this.press(event));
    window.addEventListener("keyup", (event) => this.down.delete(KEYS[event.code]));
    window.addEventListener("blur", () => this.rest());
    document.addEventListener("visibilitychange", () => this.rest());
  }

  press(event) {
    const key = KEYS[event.code];
    const typing = event.target.closest?.("input, select, textarea, dialog") !== null;
    if (key && this.active() && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault(); // the page must not scroll
      this.down.add(key);
    }
  }

  rest() {
    this.down.clear();
    this.steering = this.throttle = 0;
  }

  read() {
    const now = performance.now();
    const step = Math.min(0.2, (now - this.readMs) / 1000);
    this.readMs = now;
    const want = (plus, minus) => (this.down.has(plus) ? 1 : 0) - (this.down.has(minus) ? 1 : 0);
    const steering = want("left", "right");
    const throttle = want("up", "down");
    this.steering += Math.max(-STEER_PER_S * step, Math.min(STEER_PER_S * step, steering - this.steering));
    // Letting go is rest at once; only pressing on is gradual.
    this.throttle =
      throttle === 0 || throttle * this.throttle < 0 ? 0 : clamp(this.throttle + throttle * GAS_PER_S * step);
    return this.down.size || this.steering ? { steering: this.steering, throttle: this.throttle } : null;
  }
}

/** The first game controller: left stick steers, right trigger drives forwards, left trigger backwards. */
export class Gamepad {
  constructor() {
    this.stopHeld = false;
  }

  pad() {
    return [...(navigator.getGamepads?.() ?? [])].find((pad) => pad?.connected) ?? null;
  }

  get name() {
    return this.pad()?.id ?? "";
  }

  /** True once for every press of B (the right one of the four): the emergency stop. */
  stopPressed() {
    const held = this.pad()?.buttons[1]?.pressed ?? false;
    const pressed = held && !this.stopHeld;
    this.stopHeld = held;
    return pressed;
  }

  read() {
    const pad = this.pad();
    if (!pad) {
      return null;
    }
    const axis = (value = 0) => (Math.abs(value) < DEAD ? 0 : (value - Math.sign(value) * DEAD) / (1 - DEAD));
    const triggers = (pad.buttons[7]?.value ?? 0) - (pad.buttons[6]?.value ?? 0);
    const steering = clamp(-axis(pad.axes[0]));
    const throttle = clamp(Math.abs(triggers) > 0.02 ? triggers : -axis(pad.axes[1]));
    return steering || throttle ? { steering, throttle } : null;
  }
}
