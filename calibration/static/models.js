// The Models page: upload, list, choose, go back, delete.

import { ask, get, post } from "./api.js";
import { busy, byId, el, showError, text } from "./dom.js";
import "./shell.js";
import { upload } from "./upload.js";
import { number, size } from "./words.js";

const ROLES = {
  current: ["Drives", "good"],
  trial: ["On trial", "warn"],
  previous: ["The one before", ""],
};
const TRIAL =
  "It drives slower until it has driven well for ten seconds. If it fails twice, the model before drives again.";
const errors = byId("errors");
let shown = "";

// --- the list

async function refresh() {
  try {
    const found = await get("/api/v1/models");
    const key = JSON.stringify(found);
    if (key !== shown) {
      shown = key;
      paint(found);
    }
  } catch (error) {
    showError(errors, error);
  }
  byId("models").removeAttribute("aria-busy");
}

function paint(found) {
  const rank = (model) => (model.role === "current" || model.role === "trial" ? 0 : 1);
  const models = [...(found.models ?? [])].sort((a, b) => rank(a) - rank(b)); // the one that drives comes first
  const barred = Object.entries(found.barred ?? {}).filter(([sha]) => !models.some((model) => model.sha256 === sha));
  byId("models").replaceChildren(
    ...models.map((model) => card(model)),
    ...barred.map(([sha256, why]) => card({ sha256, barred: why, gone: true })),
  );
  byId("empty").hidden = models.length + barred.length > 0;
  byId("rollback").disabled = !found.previous && !found.trial;
  byId("notice").replaceChildren(
    ...(found.notice ? [el("div", { class: "notice warn" }, el("p", { class: "what" }, found.notice.what))] : []),
  );
}

const nameOf = (model) => model.name || `Model ${model.sha256.slice(0, 8)}`;

function card(model) {
  const [role, tone] = model.gone ? ["Removed", ""] : (ROLES[model.role] ?? ["", ""]);
  const drives = model.role === "current" || model.role === "trial";
  const actions = [];
  if (model.barred) {
    actions.push(action("Let it in again", `allow`, model));
  } else if (!drives) {
    actions.push(action("Drive with it", "activate", model, "go"));
  }
  if (!drives && !model.gone) {
    const remove = el(
      "button",
      { type: "button", class: "button small danger", "aria-label": `Delete ${nameOf(model)}` },
      "Delete",
    );
    remove.addEventListener("click", () => confirmRemove(model));
    actions.push(remove);
  }
  return el(
    "li",
    { class: drives ? "chosen" : "", "data-sha": model.sha256 },
    el(
      "div",
      { class: "row" },
      el("h3", { class: "name" }, nameOf(model)),
      role && el("span", { class: `tag ${tone}` }, role),
      model.barred && el("span", { class: "tag bad" }, "Barred"),
    ),
    model.barred && el("p", {}, `Why: ${model.barred}`),
    model.role === "trial" && el("p", { class: "hint" }, TRIAL),
    model.gone ? null : el("p", { class: "hint" }, summary(model)),
    model.gone ? null : details(model),
    el("div", { class: "row" }, ...actions),
  );
}

function summary(model) {
  const { report = {}, contract } = model;
  const parts = [size(model.size_bytes)];
  if (contract?.action) {
    parts.push(`up to ${number(contract.action.speed_max_mps, 1, "m/s")}`);
  }
  if (typeof report.p50_ms === "number") {
    parts.push(`thinks in ${number(report.p50_ms, 1, "ms")}`);
  }
  return parts.join(" · ");
}

function details(model) {
  const { report = {}, contract } = model;
  const rows = [];
  if (contract) {
    const { action, camera, trained_on: trained = {} } = contract;
    if (action) {
      rows.push(
        ["Actions", action.kind === "discrete" ? `${action.size} to choose from` : "continuous"],
        ["Steering", `${number(action.steering_min_deg)}° to ${number(action.steering_max_deg)}°`],
        ["Speed", `${number(action.speed_min_mps, 1)} to ${number(action.speed_max_mps, 1, "m/s")}`],
      );
    }
    if (typeof contract.control_period_s === "number") {
      rows.push(["Decides", `every ${number(1000 * contract.control_period_s, 0, "ms")}`]);
    }
    if (camera) {
      rows.push([
        "Camera",
        `${number(camera.horizontal_fov_deg)}° wide, ${number(1000 * camera.height_m, 0, "mm")} high, ` +
          `${number(camera.pitch_down_deg)}° down`,
      ]);
    }
    for (const [key, value] of Object.entries(trained)) {
      if (["string", "number", "boolean"].includes(typeof value)) {
        rows.push([`Trained: ${key.replaceAll("_", " ")}`, String(value)]);
      }
    }
  }
  if (typeof report.p99_ms === "number") {
    rows.push(["Time for one picture", `${number(report.p50_ms, 1)} ms, slow ${number(report.p99_ms, 1)} ms`]);
  }
  if (typeof report.golden_difference === "number") {
    rows.push(["Same answers as in training", `within ${report.golden_difference.toExponential(0)}`]);
  }
  rows.push(["Fingerprint", model.sha256.slice(0, 16)]);
  const facts = el(
    "dl",
    { class: "facts" },
    ...rows.flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, value)]),
  );
  return el("details", { class: "more" }, el("summary", {}, "Details"), facts);
}

function action(label, verb, model, tone = "") {
  const button = el(
    "button",
    { type: "button", class: `button small ${tone}`, "aria-label": `${label}: ${nameOf(model)}` },
    label,
  );
  button.addEventListener("click", () =>
    change(button, () => post(`/api/v1/models/${model.sha256}/${verb}`, {}, { timeoutMs: 30000 })),
  );
  return button;
}

async function change(button, work) {
  let answer = null;
  const done = await busy(button, errors, async () => {
    answer = await work();
  });
  if (done) {
    shown = "";
    await refresh();
    warnIfNotLoaded(answer);
  }
}

// Chosen is not driving yet: the pilot may be busy, or not there.
function warnIfNotLoaded(answer) {
  if (answer?.loaded === false) {
    byId("notice").append(
      el(
        "div",
        { class: "notice warn", role: "alert" },
        el("p", { class: "what" }, "The model is chosen, but not loaded yet."),
        answer.pilot && el("p", {}, String(answer.pilot)),
      ),
    );
  }
}

byId("rollback").addEventListener("click", () =>
  change(byId("rollback"), () => post("/api/v1/models/rollback", {}, { timeoutMs: 30000 })),
);

// --- delete

const dialog = byId("confirm");
let doomed = null;

function confirmRemove(model) {
  doomed = model;
  text(byId("confirm-text"), `${nameOf(model)} goes from the car. Its file on the computer that trained it stays.`);
  dialog.show(); // not showModal: that would make the stop button inert
  byId("confirm-no").focus();
}

function closeDialog() {
  dialog.close();
  byId("models").querySelector("button")?.focus();
}

byId("confirm-no").addEventListener("click", closeDialog);
byId("confirm-yes").addEventListener("click", async () => {
  await change(byId("confirm-yes"), () => ask("DELETE", `/api/v1/models/${doomed.sha256}`, { timeoutMs: 15000 }));
  closeDialog();
});
dialog.addEventListener("keydown", (event) => event.key === "Escape" && closeDialog());

// --- upload

const PHASES = {
  reading: () => "Reading the file…",
  sending: (share) => `Sending: ${Math.round(100 * share)} %`,
  checking: () => "The car tries the model out…",
};
let pause = null;

byId("upload").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [file] = byId("file").files;
  if (!file || pause) {
    return;
  }
  pause = new AbortController();
  sending(true);
  try {
    const verdict = await upload(file, { activate: byId("activate").checked, told: progress, signal: pause.signal });
    text(byId("progress-text"), said(verdict, byId("activate").checked));
    byId("upload").reset();
    shown = "";
    await refresh();
    warnIfNotLoaded(verdict);
  } catch (error) {
    const paused = error.reason === "cancelled";
    text(byId("progress-text"), paused ? "Paused. Upload goes on where it stopped." : "");
    showError(byId("upload-errors"), error);
  }
  pause = null;
  sending(false);
});

byId("cancel").addEventListener("click", () => pause?.abort());

function sending(on) {
  byId("send").disabled = on;
  byId("cancel").hidden = !on;
  byId("progress-box").hidden = !on;
  if (on) {
    showError(byId("upload-errors"), null);
  }
}

function progress(phase, share) {
  const bar = byId("progress");
  if (phase === "checking") {
    bar.removeAttribute("value"); // nobody knows how long
    byId("cancel").hidden = true;
  } else {
    bar.value = 100 * share;
  }
  text(byId("progress-text"), PHASES[phase](share));
}

function said(verdict, wanted) {
  const time =
    typeof verdict.report?.p50_ms === "number"
      ? ` One picture takes it ${number(verdict.report.p50_ms, 1, "ms")}.`
      : "";
  const here = verdict.new === false ? "The car had this model already." : "The car has taken the model.";
  return `${here}${time}${wanted ? " It drives with it from now on." : ""}`;
}

refresh();
setInterval(() => document.hidden || pause || refresh(), 5000);
