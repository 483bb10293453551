// The Settings page: name, password, network, camera, and the car's own file.

import { ApiError, get, post, put } from "./api.js";
import { busy, byId, el, showError, text } from "./dom.js";
import "./shell.js";
import { number } from "./words.js";

function rows(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, value)]));
  list.removeAttribute("aria-busy");
}

function signal(dbm) {
  if (typeof dbm !== "number") {
    return "not measured";
  }
  return `${dbm >= -60 ? "good" : dbm >= -72 ? "fair" : "weak"} (${dbm} dBm)`;
}

function paint(settings) {
  const { camera = {}, actuator = "", addresses = [], ssid, signal_dbm: dbm } = settings;
  byId("name").value = settings.name ?? "";
  rows(byId("net"), [
    ["Wi-Fi", ssid || "none, or not known"],
    ["Signal", signal(dbm)],
    ["Addresses", addresses.join(", ") || "none"],
    ["Motor and servo", actuator || "–"],
    ["hotlap", settings.version || "–"],
  ]);
  rows(byId("camera"), [
    ["Kind", camera.kind ?? "–"],
    ["Picture", `${camera.width} × ${camera.height}, ${number(camera.rate_hz, 0, "/s")}`],
    ["Upside down", camera.rotate_180 ? "yes" : "no"],
    ["Field of view", `${number(camera.horizontal_fov_deg, 1)}°`],
    ["Looks down by", `${number(camera.pitch_down_deg, 1)}°`],
    ["Leans to the right by", `${number(camera.roll_deg, 1)}°`],
    ["Above the ground", number(1000 * camera.height_m, 0, "mm")],
    ["Ahead of the car's middle", number(1000 * camera.forward_m, 0, "mm")],
  ]);
  paintFile(settings.car_toml ?? {});
}

// --- the car's file

let file = {};

function paintFile(found) {
  file = found;
  const why = found.editable
    ? "camera mounting and driving limits may be changed here, all else only at the car itself"
    : `to be read only, since ${found.why_not}; ${found.how}`;
  text(byId("file-note"), `${found.path ?? "No file"}: ${why}. Passwords are not shown.`);
  byId("file-form").hidden = typeof found.text !== "string";
  byId("file-text").value = found.text ?? "";
  byId("file-text").readOnly = !found.editable;
  byId("file-save").hidden = !found.editable;
  byId("file-undo").hidden = !(found.editable && found.undo);
  byId("file-pending").hidden = !found.pending;
  text(byId("file-keys"), found.keys ?? "");
}

async function changeFile(button, said, work) {
  text(byId("file-said"), "");
  const done = await busy(button, byId("file-errors"), async () => paintFile((await work()).car_toml));
  if (done) {
    text(byId("file-said"), said);
  }
}

byId("file-form").addEventListener("submit", (event) => {
  event.preventDefault();
  changeFile(byId("file-save"), "Saved. It counts when the car is started again.", () =>
    put("/api/v1/settings/car-toml", { text: byId("file-text").value, sha256: file.sha256 }),
  );
});
byId("file-undo").addEventListener("click", () =>
  changeFile(byId("file-undo"), "The file is as it was before.", () => post("/api/v1/settings/car-toml/undo")),
);
byId("file-download").addEventListener("click", () => {
  const href = URL.createObjectURL(new Blob([byId("file-text").value], { type: "text/plain" }));
  el("a", { href, download: "car.toml" }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
});

// --- name and password

byId("name-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  text(byId("name-said"), "");
  const done = await busy(
    event.submitter ?? byId("name-form").querySelector("button"),
    byId("name-errors"),
    async () => {
      await put("/api/v1/settings", { name: byId("name").value.trim() });
    },
  );
  if (done) {
    text(byId("name-said"), "Saved.");
    text(byId("car-name"), byId("name").value.trim());
  }
});

byId("password-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  text(byId("password-said"), "");
  const done = await busy(
    event.submitter ?? byId("password-form").querySelector("button"),
    byId("password-errors"),
    async () => {
      if (byId("new").value !== byId("again").value) {
        byId("again").focus();
        throw new ApiError({ what: "The two new passwords are not the same.", next: "Type the new one twice." });
      }
      await post("/api/v1/password", { old: byId("old").value, new: byId("new").value }, { timeoutMs: 15000 });
    },
  );
  if (done) {
    byId("password-form").reset();
    text(byId("password-said"), "Changed. Others have to log in again.");
  }
});

try {
  paint(await get("/api/v1/settings"));
} catch (error) {
  showError(byId("errors"), error);
}
