// The guided steps: which one is shown, and the controls of the car while a step needs them.

import { byId, showError, text } from "./dom.js";
import { Lease } from "./lease.js";
import { show, wheels } from "./simulated.js";
import { watch } from "./state.js";
import { SteeringSteps } from "./steering_steps.js";
import { ThrottleSteps } from "./throttle_steps.js";

const STEPS = {
  steering: ["steering", "center", "left", "right", "angle"],
  throttle: ["throttle", "first", "second", "forward", "reverse"],
};

export class Wizard {
  /** @param left called when the wizard is over; true: with new values in the draft */
  constructor(draft, left) {
    Object.assign(this, { draft, left, kind: null, at: 0, before: null, taking: false });
    this.parts = {
      steering: new SteeringSteps(draft),
      throttle: new ThrottleSteps(draft, () => this.paint()),
    };
    this.lease = new Lease("calibration", {
      next: () => this.parts[this.kind]?.next() ?? null,
      answered: (body, error) => this.parts[this.kind]?.answered(body, error),
      lost: (error) => this.lost(error),
    });
    this.parts.throttle.lease = this.lease;
    byId("next").addEventListener("click", () => this.move(1));
    byId("back").addEventListener("click", () => this.move(-1));
    byId("leave").addEventListener("click", () => this.finish(false));
    byId("again").addEventListener("click", () => this.hold(true));
    byId("raised").addEventListener("change", () => this.paint());
    byId("max-deg").addEventListener("input", () => this.paint());
    watch((state) => {
      const simulated = state?.simulated ?? null;
      show("simulated", this.kind !== null && this.lease.held ? wheels(simulated) : "");
      this.parts.steering.see(simulated?.steering_deg ?? null);
    });
  }

  get step() {
    return STEPS[this.kind][this.at];
  }

  get section() {
    return document.querySelector(`[data-step="${this.step}"]`);
  }

  begin(kind) {
    this.kind = kind;
    this.at = 0;
    this.before = JSON.stringify(this.draft.now);
    if (kind === "throttle") {
      byId("raised").checked = false; // asked for every time: the car may be on the floor again
      this.parts.throttle.begin();
    }
    byId("overview").hidden = true;
    byId("wizard").hidden = false;
    document.querySelector("h1").classList.add("unseen"); // the steps have headings, and need the room
    this.show();
  }

  async move(by) {
    this.parts[this.kind].rest();
    const to = this.at + by;
    if (to < 0) {
      await this.finish(false);
    } else if (to >= STEPS[this.kind].length) {
      await this.finish(true);
    } else {
      this.at = to;
      await this.show();
    }
  }

  async show() {
    for (const section of document.querySelectorAll(".step")) {
      section.hidden = section !== this.section;
    }
    this.tellLost(null);
    showError(byId("errors"), null);
    this.parts[this.kind].enter(this.step);
    this.paint();
    this.section.querySelector("h2").focus({ preventScroll: true });
    window.scrollTo(0, 0);
    await this.hold(false);
  }

  /** Take the controls for a step that moves something, and give them back for one that does not. */
  async hold(again) {
    if (this.taking) {
      return; // one at a time, however often it is pressed; the step is looked at again after it
    }
    const live = this.section.dataset.live !== undefined;
    if (!live) {
      this.lease.give();
    } else if (!this.lease.held) {
      const { kind, step } = this;
      this.take(true);
      try {
        await this.lease.take();
        this.tellLost(null);
      } catch (error) {
        this.lost(error);
      }
      this.take(false);
      if (this.kind === null) {
        this.lease.give();
        return;
      }
      if (this.kind !== kind || this.step !== step) {
        await this.hold(again);
        return;
      }
      if (this.lease.held) {
        this.parts[kind].enter(step);
      }
    }
    this.paint();
    if (again && this.lease.held) {
      this.section.querySelector("h2").focus({ preventScroll: true });
    }
  }

  take(on) {
    this.taking = on;
    byId("again").disabled = on;
  }

  lost(error) {
    if (this.kind === null) {
      return;
    }
    this.parts[this.kind].rest();
    this.tellLost(error);
    this.paint();
  }

  tellLost(error) {
    const words =
      error === null
        ? ""
        : [error.what, error.blocked?.map((one) => one.value).join("; ") || error.cause, error.next]
            .filter(Boolean)
            .join(" ");
    text(byId("lost-text"), words);
    byId("lost").hidden = error === null;
  }

  paint() {
    if (this.kind === null) {
      return;
    }
    const count = STEPS[this.kind].length;
    text(byId("step-count"), `${this.kind === "steering" ? "Steering" : "Motor"}: step ${this.at + 1} of ${count}`);
    byId("step-bar").value = this.at / (count - 1);
    text(byId("next"), this.at === count - 1 ? "Done" : "Next");
    byId("next").disabled = !this.parts[this.kind].ready(this.step);
    const live = this.section.dataset.live !== undefined;
    for (const control of this.section.querySelectorAll(".live input, .live button, #mirror")) {
      control.disabled = live && !this.lease.ready;
    }
  }

  async finish(keep) {
    this.parts[this.kind].rest();
    const { kind } = this;
    this.kind = null;
    await this.lease.giveAndWait(); // saving is refused while the car is armed
    byId("wizard").hidden = true;
    byId("overview").hidden = false;
    document.querySelector("h1").classList.remove("unseen");
    if (!keep) {
      this.draft.take(JSON.parse(this.before));
    }
    this.left(keep, kind);
  }
}
