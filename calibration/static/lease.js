// The controls of the car, held for as long as this page is looked at and not a moment longer. A lease lasts a quarter
// of a second at the car; this page asks for the next quarter ten times a second, and stops asking as soon as it is
// hidden, loses the focus, is left, or the stop button is pressed. The car then stops by itself, whatever happens here.

import { ApiError, parting, post } from "./api.js";

const BEAT_MS = 100;
const REPLY_MS = 1000;
const RENEWALS_AT_ONCE = 2;
const GIVE_UP_MS = 1000; // without any answer
const ARM_TRIES = 14;
const PASSING = new Set(["esc_neutral"]); // reasons against arming that go by themselves within a second

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

export class Lease {
  /**
   * @param kind "manual" or "calibration"
   * @param next called at every beat while the last command has been answered: {path, body} to send, or null. Commands
   *     renew the lease as well. They are sent one after the other, so that none can overtake another.
   * @param answered called with (body, error or null) for every command
   * @param lost called with an ApiError when the controls are gone without `give`
   * @param neutral the command that brings the motor to rest, as {path, body}; sent when the page is left
   */
  constructor(kind, { next, answered = () => {}, lost, neutral = null }) {
    Object.assign(this, { kind, next, answered, lost, neutral });
    this.id = null;
    this.timer = null;
    this.away = () => this.leave("You left the page, so the controls were given back.");
    this.hidden = () => document.hidden && this.away();
    this.stopped = () => this.leave("The stop button was pressed.", "stopped");
  }

  get held() {
    return this.id !== null;
  }

  /** Get the controls and arm the car with them. Throws ApiError. */
  async take() {
    if (document.hidden) {
      throw new ApiError({ what: "This page is in the background.", next: "Bring it to the front." });
    }
    this.id = await this.lease();
    this.answeredMs = performance.now();
    this.flying = 0;
    this.commanding = false;
    this.ready = false;
    this.listen(true);
    this.timer = setInterval(() => this.beat(), BEAT_MS);
    try {
      await this.arm();
      this.ready = this.held;
    } catch (error) {
      this.give();
      throw error;
    }
  }

  // Somebody's lease that was lost, maybe our own of a moment ago, ends within a quarter of a second.
  async lease() {
    try {
      return (await post("/api/v1/lease", { kind: this.kind }, { timeoutMs: REPLY_MS })).lease;
    } catch (error) {
      if (error.reason !== "lease_held") {
        throw error;
      }
      await wait(350);
      return (await post("/api/v1/lease", { kind: this.kind }, { timeoutMs: REPLY_MS })).lease;
    }
  }

  async arm() {
    for (let left = ARM_TRIES; ; left -= 1) {
      const lease = this.id;
      if (lease === null) {
        throw new ApiError({ what: "The controls were given back before the car was ready." });
      }
      try {
        await post("/api/v1/arm", { mode: this.kind, lease }, { timeoutMs: REPLY_MS });
        return;
      } catch (error) {
        const passing = error.blocked?.length > 0 && error.blocked.every((one) => PASSING.has(one.reason));
        if (!passing || left <= 0) {
          throw error;
        }
        await wait(BEAT_MS);
      }
    }
  }

  beat() {
    if (document.hidden) {
      // timers of hidden pages go on, slowly; a lease must not
      this.away();
      return;
    }
    if (performance.now() - this.answeredMs > GIVE_UP_MS) {
      this.drop(
        new ApiError({
          what: "The connection to the car was lost.",
          cause: "Weak Wi-Fi, or the car was switched off.",
          next: "The car stopped by itself. Come closer and take the controls again.",
          reason: "no_answer",
        }),
      );
      return;
    }
    const command = this.ready && !this.commanding ? this.next() : null;
    if (command) {
      this.command(command);
    } else if (this.flying < RENEWALS_AT_ONCE) {
      this.renew();
    }
  }

  async command({ path, body }) {
    const lease = this.id;
    this.commanding = true;
    let failed = null;
    try {
      await post(path, { lease, ...body }, { timeoutMs: REPLY_MS });
      this.answeredMs = performance.now();
    } catch (error) {
      failed = error;
    }
    this.commanding = false;
    if (lease === this.id) {
      this.answered(body, failed);
      this.judge(failed);
    }
  }

  async renew() {
    const lease = this.id;
    this.flying += 1;
    try {
      await post("/api/v1/renew", { lease }, { timeoutMs: REPLY_MS });
      this.answeredMs = performance.now();
    } catch (error) {
      if (lease === this.id) {
        this.judge(error);
      }
    } finally {
      this.flying -= 1;
    }
  }

  // What a single refused command does not end: the next one may be good.
  judge(error) {
    if (error === null || error.reason === "no_answer") {
      return;
    }
    if (["lease_lost", "not_in_control", "logged_out"].includes(error.reason)) {
      const lost =
        error.reason === "logged_out"
          ? error
          : new ApiError({
              what: "The car took the controls back.",
              cause: "The connection was too slow for a moment, or somebody else stopped the car.",
              next: "The car is at rest. Take the controls again.",
              reason: error.reason,
            });
      this.drop(lost);
    }
  }

  /** Give the controls back: at rest at once. */
  give() {
    const lease = this.id;
    this.end();
    if (lease !== null) {
      if (this.neutral) {
        parting(this.neutral.path, { lease, ...this.neutral.body });
      }
      parting("/api/v1/release", { lease });
    }
  }

  /** As `give`, and wait until the car has answered; for what may only be done while nothing is armed. */
  async giveAndWait() {
    const lease = this.id;
    this.end();
    if (lease !== null) {
      await post("/api/v1/release", { lease }, { timeoutMs: REPLY_MS }).catch(() => {});
    }
  }

  leave(why, reason = "left") {
    if (this.held) {
      this.give();
      this.lost(new ApiError({ what: why, next: "The car is at rest. Take the controls again to go on.", reason }));
    }
  }

  drop(error) {
    const lease = this.id;
    this.end();
    parting("/api/v1/release", { lease });
    this.lost(error);
  }

  end() {
    this.id = null;
    this.ready = false;
    clearInterval(this.timer);
    this.listen(false);
  }

  listen(on) {
    const change = on ? "addEventListener" : "removeEventListener";
    document[change]("visibilitychange", this.hidden);
    document[change]("freeze", this.away);
    document[change]("hotlap:stop", this.stopped);
    window[change]("pagehide", this.away);
    window[change]("blur", this.away);
  }
}
