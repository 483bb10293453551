// The Health page: why it does not drive, the car's figures, its checks, its log.

import { get } from "./api.js";
import { busy, byId, el, icon, showError, text } from "./dom.js";
import { showReasons } from "./shell.js";
import { watch } from "./state.js";
import { duration, faultText, number, size } from "./words.js";

const CHECKS_MS = 5000;
const errors = byId("errors");

// --- figures, as they come

function paintCar(state) {
  const rows = [
    ["Battery", state.battery === null ? "not measured" : `${Math.round(100 * state.battery)} %`],
    ["Supply", state.undervoltage === null ? "not measured" : state.undervoltage ? "too low" : "good"],
    ["Temperature", state.temperature === null ? "not measured" : number(state.temperature, 0, "°C")],
    ["Load", Array.isArray(state.load) ? number(state.load[0], 2) : number(state.load, 2)],
    ["Free on the card", state.diskFree === null ? "not measured" : size(state.diskFree)],
    ["Runs for", state.uptime === null ? "–" : duration(state.uptime)],
    ["Camera", state.fps === null ? "no pictures" : `${number(state.fps, 0)} pictures/s`],
    ["Steering pulse", number(state.pulses.steering_us, 0, "µs")],
    ["Motor pulse", number(state.pulses.throttle_us, 0, "µs")],
    ["Console", state.version || "–"],
  ];
  fillRows(byId("car"), rows, ([key, value]) => [el("dt", {}, key), el("dd", {}, value)], 2, 1);
}

function paintTiming(state) {
  const rows = [
    ["Picture to wheels", state.frameToPulse],
    ["Thinking", typeof state.inference === "number" ? { p50: state.inference } : state.inference],
    ["Between pulses", state.gateLoop?.interval_ms],
    ["Between decisions", state.pilotLoop?.interval_ms],
  ].map(([name, figures]) => [name, ...["p50", "p99", "max"].map((key) => number(figures?.[key], 1))]);
  fillRows(
    byId("timing"),
    rows,
    ([name, ...cells]) => [el("tr", {}, el("th", { scope: "row" }, name), ...cells.map((cell) => el("td", {}, cell)))],
    1,
  );
  const late = state.gateLoop?.late ?? 0;
  const missed = state.gateLoop?.missed ?? 0;
  text(byId("loop-note"), `Pulses late: ${late}, left out: ${missed}, since the start.`);
}

/** Rows that keep their nodes while only their texts change, so that a screen reader is not disturbed. */
function fillRows(box, rows, build, nodes, changing = null) {
  if (box.childElementCount !== rows.length * nodes) {
    box.replaceChildren(...rows.flatMap(build));
    return;
  }
  rows.forEach((row, i) => {
    if (changing !== null) {
      text(box.children[i * nodes + changing], row[1]);
    } else {
      row.forEach((cell, j) => text(box.children[i].children[j], cell));
    }
  });
}

watch((state) => {
  showReasons(byId("ready"), byId("blocked"), state);
  if (state !== null) {
    paintCar(state);
    paintTiming(state);
    text(byId("fault"), state.fault ? faultText(state.fault) : "");
  }
});

// --- checks, now and then

function statusOf(check) {
  if (check.status) {
    return check.status;
  }
  return check.ok === true ? "ok" : check.ok === false ? "fail" : "warn";
}

function checkRow(check) {
  const status = statusOf(check);
  const words = { ok: "good", warn: "worth knowing", fail: "not good" };
  return el(
    "li",
    { "data-state": status },
    icon(status === "ok" ? "ok" : "warn"),
    el(
      "p",
      { class: "title" },
      check.name.replaceAll("_", " "),
      el("span", { class: "unseen" }, `: ${words[status] ?? status}`),
    ),
    el("p", { class: "hint" }, [check.value, check.cure].filter(Boolean).join(" — ")),
  );
}

let told = "";
async function checks() {
  try {
    const found = await get("/api/v1/health", { timeoutMs: 15000 });
    const list = found.checks ?? found.findings ?? [];
    const key = JSON.stringify(list);
    if (key !== told) {
      told = key;
      byId("checks").replaceChildren(...list.map(checkRow));
    }
    byId("checks").closest("section").hidden = list.length === 0;
  } catch (error) {
    if (!told) {
      showError(errors, error);
    }
  }
  byId("checks").removeAttribute("aria-busy");
}

// --- the log

async function logs() {
  const found = await get("/api/v1/logs?n=200", { timeoutMs: 10000 });
  const lines = (found.lines ?? found.logs ?? []).map((line) =>
    typeof line === "string" ? line : JSON.stringify(line),
  );
  const box = byId("logs");
  text(box, lines.join("\n") || "Nothing was logged yet.");
  box.scrollTop = box.scrollHeight;
}

byId("logs-refresh").addEventListener("click", () => busy(byId("logs-refresh"), errors, logs));
byId("logs-save").addEventListener("click", () => {
  const link = el("a", {
    href: URL.createObjectURL(new Blob([byId("logs").textContent], { type: "text/plain" })),
    download: "hotlap-log.txt",
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});

checks();
setInterval(() => document.hidden || checks(), CHECKS_MS);
busy(byId("logs-refresh"), errors, logs);
