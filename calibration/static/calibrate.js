// The Calibrate page: what is saved, what is new, checks, curves, save, undo, files. The guided steps are in wizard.js.

import { ApiError, ask, get, post, put } from "./api.js";
import { draw } from "./curve.js";
import { busy, byId, el, showError, text } from "./dom.js";
import { Draft, TYPICAL } from "./draft.js";
import "./shell.js";
import { ValuesTable } from "./values_table.js";
import { Wizard } from "./wizard.js";

const CHECK_AFTER_MS = 250; // of no more changes
const errors = byId("errors");
const draft = new Draft();
new ValuesTable(draft);
const wizard = new Wizard(draft, leftWizard);
let checked = 0;
let checkTimer = null;
let savedCurves = null;
let good = false;
let looked = ""; // the values that are being checked, or were

// --- checks and curves, made by the car's own program

async function curvesOf(calibration) {
  const found = await post("/api/v1/calibration/curve", { calibration, model_max_mps: 1 });
  return { steering: found.steering, speed: found.speed, measured: found.measured };
}

async function check() {
  checked += 1;
  const mine = checked;
  let fault = null;
  let curves = null;
  try {
    if (hasHoles(draft.now)) {
      throw new ApiError({
        what: "A value is missing.",
        next: "Fill it in, or take the line away.",
        reason: "missing",
        status: 422,
      });
    }
    curves = await curvesOf(draft.now);
  } catch (error) {
    fault = error;
  }
  if (mine !== checked) {
    return; // a later change has been made
  }
  good = fault === null;
  if (curves !== null) {
    paintCurves(curves);
  }
  showChecks(fault);
  paintButtons();
}

const hasHoles = (value) =>
  typeof value === "number"
    ? Number.isNaN(value)
    : value !== null && typeof value === "object" && Object.values(value).some(hasHoles);

function showChecks(fault) {
  const box = byId("checks");
  if (fault === null) {
    box.replaceChildren(el("p", { class: "notice good" }, "All checks passed: order, distances and ranges are good."));
    return;
  }
  box.replaceChildren(
    el(
      "div",
      { class: "notice bad" },
      el("p", { class: "what" }, fault.what),
      fault.cause && el("p", {}, `Likely cause: ${fault.cause}`),
      fault.next && el("p", {}, `What to do: ${fault.next}`),
    ),
  );
}

function paintCurves(curves) {
  byId("legend").hidden = !(savedCurves && draft.changed);
  const lines = (name) => [
    { points: curves[name], className: "chart-new" },
    ...(savedCurves && draft.changed ? [{ points: savedCurves[name], className: "chart-saved" }] : []),
  ];
  draw(byId("chart-steering"), lines("steering"), "degrees", ["right", "left"]);
  // Without measured speeds a pulse stands for a share of whatever the model's greatest speed is.
  draw(byId("chart-speed"), lines("speed"), curves.measured ? "m/s" : "share of top speed", ["backwards", "forwards"]);
}

draft.listeners.add(() => {
  const values = JSON.stringify(draft.now);
  if (values === looked) {
    paintButtons(); // told again, with nothing new: what was checked stays checked
    return;
  }
  looked = values;
  good = false;
  paintButtons();
  text(byId("saved"), "");
  clearTimeout(checkTimer);
  checkTimer = setTimeout(check, CHECK_AFTER_MS);
});

// --- what is saved

function paintButtons() {
  const changed = draft.changed;
  byId("save").disabled = !(good && changed);
  byId("discard").disabled = !changed;
  byId("swap-steering").disabled = byId("swap-throttle").disabled = draft.saved === null;
  byId("begin-steering").disabled = byId("begin-throttle").disabled = draft.saved === null;
  byId("uncalibrated").hidden = draft.saved !== null;
  const words = changed ? "There are new values that are not saved." : "These values are saved and in use.";
  text(byId("summary"), draft.saved === null ? "Not calibrated yet." : words);
}

async function accept({ calibration, history = [] }) {
  savedCurves = calibration === null ? null : await curvesOf(calibration).catch(() => null);
  looked = ""; // the same values may be the saved ones now
  draft.load(calibration);
  byId("undo").disabled = history.length < 2;
  byId("export").hidden = calibration === null;
  byId("history").replaceChildren(...history.map((entry) => historyRow(entry, history[0])));
}

function historyRow(entry, newest) {
  const label = `Number ${entry.revision}${entry === newest ? ", in use" : ""}`;
  if (!entry.calibration) {
    return el("li", {}, el("span", {}, `${label}: damaged`));
  }
  const use = el(
    "button",
    { type: "button", class: "button small", "aria-label": `Look at number ${entry.revision}` },
    "Look at it",
  );
  use.addEventListener("click", () => {
    draft.take(entry.calibration);
    showValues();
  });
  return el("li", {}, el("span", {}, label), entry === newest ? null : use);
}

const load = async () => accept(await get("/api/v1/calibration"));

async function save(calibration) {
  await put("/api/v1/calibration", { calibration });
  await load();
  text(byId("saved"), "Saved. The car uses these values from now on.");
}

byId("save").addEventListener("click", async () => {
  await busy(byId("save"), errors, () => save(draft.now));
  paintButtons();
});
byId("typical").addEventListener("click", () => busy(byId("typical"), errors, () => save(TYPICAL)));
byId("discard").addEventListener("click", () => draft.load(draft.saved));
byId("swap-steering").addEventListener("click", () => draft.swapSteering());
byId("swap-throttle").addEventListener("click", () => draft.swapThrottle());
byId("undo").addEventListener("click", async () => {
  const done = await busy(byId("undo"), errors, async () => {
    await post("/api/v1/calibration/undo");
    await load();
  });
  if (done) {
    text(byId("saved"), "Undone. The values before are in use again.");
  }
});
byId("import").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (file) {
    await busy(event.target, errors, async () => {
      const found = await ask("POST", "/api/v1/calibration/deepracer", {
        raw: await file.text(),
        headers: { "Content-Type": "application/json" },
      });
      draft.take(found.calibration);
      showValues();
    });
    event.target.value = "";
  }
});

// --- the guided steps

byId("begin-steering").addEventListener("click", () => wizard.begin("steering"));
byId("begin-throttle").addEventListener("click", () => wizard.begin("throttle"));

function showValues() {
  byId("values-title").scrollIntoView({ block: "start" });
}

function leftWizard(keep, kind) {
  byId(`begin-${kind}`).focus({ preventScroll: true });
  paintButtons();
  if (keep && draft.changed) {
    showValues();
  }
}

window.addEventListener("beforeunload", (event) => {
  if (draft.saved !== null && draft.changed) {
    event.preventDefault(); // the browser asks whether to lose them
  }
});

try {
  await load();
} catch (error) {
  showError(errors, error);
  text(byId("summary"), "The calibration could not be read.");
}
