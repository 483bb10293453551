// The Drive page: the live picture, driving by itself, driving by hand.

import { post } from "./api.js";
import { Camera } from "./camera.js";
import { busy, byId, showError, text } from "./dom.js";
import { Gamepad, Keys, Stick } from "./inputs.js";
import { Lease } from "./lease.js";
import "./look.js";
import { showReasons } from "./shell.js";
import { laps, show } from "./simulated.js";
import { watch } from "./state.js";
import { number, problems } from "./words.js";

const FULL_DEG = 30; // of the dial
const errors = byId("errors");
const camera = new Camera(byId("camera-picture"), byId("camera-note"));
let latest = null;

// --- by itself

byId("start").addEventListener("click", () => busy(byId("start"), errors, () => post("/api/v1/arm")).then(paint));
byId("finish").addEventListener("click", () => busy(byId("finish"), errors, () => post("/api/v1/disarm")).then(paint));

const cap = byId("cap");
let capTouched = false; // while a finger is on it, the car's answer must not move it
cap.addEventListener("input", () => {
  capTouched = true;
  text(byId("cap-value"), `${cap.value} %`);
});
cap.addEventListener("change", async () => {
  try {
    await post("/api/v1/cap", { percent: Number(cap.value) });
  } catch (error) {
    showError(errors, error);
  }
  capTouched = false;
});

function paintCap(state) {
  cap.disabled = state.cap === null;
  if (!capTouched && state.cap !== null) {
    cap.value = state.cap;
    text(byId("cap-value"), `${Math.round(state.cap)} %`);
  }
  cap.setAttribute("aria-valuetext", `${cap.value} percent`);
  const trial = state.capInForce !== null && state.cap !== null && state.capInForce < state.cap - 0.5;
  text(
    byId("cap-note"),
    trial
      ? `The model is on trial: at most ${Math.round(state.capInForce)} % until it has driven well for a while.`
      : "Part of full speed that the car may use.",
  );
}

// --- by hand

const stick = new Stick(byId("stick"), byId("stick-knob"));
const keys = new Keys(() => lease.held);
const gamepad = new Gamepad();
let rested = true; // after a lost lease nothing moves before everything was let go of once
let takenAgain = []; // when
let retaking = false;

const lease = new Lease("manual", {
  neutral: { path: "/api/v1/manual", body: { steering: 0, throttle: 0 } },
  next() {
    if (gamepad.stopPressed()) {
      byId("stop").click();
      return null;
    }
    const wanted = stick.read() ?? keys.read() ?? gamepad.read();
    rested ||= wanted === null;
    if (!rested) {
      return { path: "/api/v1/manual", body: { steering: 0, throttle: 0 } };
    }
    const { steering, throttle } = wanted ?? { steering: 0, throttle: 0 };
    const body = { steering: Math.round(steering * 1000) / 1000, throttle: Math.round(throttle * 1000) / 1000 };
    text(
      byId("hand-values"),
      `Steering ${percent(body.steering, "left", "right")}, throttle ${percent(body.throttle, "forwards", "backwards")}`,
    );
    text(
      byId("gamepad"),
      gamepad.name
        ? "Game controller: left stick and triggers; B stops."
        : "No game controller found; press one of its buttons.",
    );
    return { path: "/api/v1/manual", body };
  },
  lost(error) {
    if (!(error.reason === "lease_lost" && retake())) {
      hand(false);
      showError(errors, error.reason === "stopped" ? null : error); // the banner says that already
    }
  },
});

// A slow moment of the Wi-Fi ends the lease and stops the car. Somebody who is still there gets it back, three times in
// ten seconds at most; the car stays at rest until they let go and steer anew.
function retake() {
  const now = performance.now();
  takenAgain = takenAgain.filter((ms) => now - ms < 10000);
  if (document.hidden || retaking || takenAgain.length >= 3) {
    return false;
  }
  takenAgain.push(now);
  retaking = true;
  rested = false;
  stick.rest();
  text(byId("hand-values"), "The connection was slow for a moment, so the car stopped. Let go, then steer again.");
  lease
    .take()
    .catch((error) => {
      hand(false);
      showError(errors, error);
    })
    .finally(() => (retaking = false));
  return true;
}

const percent = (share, plus, minus) =>
  `${Math.round(100 * Math.abs(share))} %${share ? ` ${share > 0 ? plus : minus}` : ""}`;

function hand(on) {
  byId("hand").hidden = !on;
  byId("give").hidden = !on;
  byId("take").hidden = on;
  stick.rest();
  keys.rest();
  (on ? byId("give") : byId("take")).focus({ preventScroll: true });
  if (on) {
    byId("hand").scrollIntoView({ block: "center" });
  }
  paint();
}

byId("take").addEventListener("click", async () => {
  const done = await busy(byId("take"), errors, async () => {
    if (latest?.mode === "autonomous") {
      await post("/api/v1/disarm"); // it comes to rest first
    }
    rested = true;
    await lease.take();
  });
  if (done && lease.held) {
    hand(true);
  }
});
byId("give").addEventListener("click", () => {
  lease.give();
  hand(false);
});

// --- what is shown

function paint() {
  const state = latest;
  showReasons(byId("ready"), byId("blocked"), state);
  const running = state?.mode === "autonomous";
  byId("start").hidden = running;
  byId("finish").hidden = !running;
  if (!byId("start").hasAttribute("aria-busy")) {
    byId("start").disabled =
      state === null || state.mode !== "disarmed" || problems(state).some((one) => one.reason !== "speed_cap");
  }
  if (!byId("take").hasAttribute("aria-busy")) {
    byId("take").disabled = state === null || !["disarmed", "autonomous"].includes(state.mode);
  }
  camera.judge(state);
  if (state !== null) {
    paintCap(state);
    paintFigures(state);
    show("simulated", laps(state.simulated));
  }
}

function paintFigures(state) {
  const { action } = state;
  const steering = action?.steering_deg;
  const known = typeof steering === "number";
  text(
    byId("figure-steering"),
    known ? `${Math.abs(steering).toFixed(0)}°${steering > 0.5 ? " left" : steering < -0.5 ? " right" : ""}` : "–",
  );
  text(byId("figure-speed"), number(action?.speed_mps, 1, "m/s"));
  text(byId("figure-latency"), number(state.frameToPulse?.p50 ?? state.frameAgeMs, 0, "ms"));
  text(byId("figure-rate"), number(state.fps, 0, "/s"));
  const turn = known ? Math.max(-90, Math.min(90, (-steering / FULL_DEG) * 60)) : 0;
  byId("dial-needle").setAttribute("transform", `rotate(${turn.toFixed(1)})`);
}

watch((state) => {
  latest = state;
  paint();
});
