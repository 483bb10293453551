// The Settings page: name, password, facts.

import { ApiError, get, post, put } from "./api.js";
import { busy, byId, el, showError, text } from "./dom.js";
import "./shell.js";

const TITLES = {
  ssid: "Wi-Fi",
  ip: "Address",
  addresses: "Addresses",
  car_toml: "Car file (car.toml)",
  url: "Address",
};
const title = (key) => TITLES[key] ?? key.replaceAll("_", " ").replace(/^./, (first) => first.toUpperCase());

function show(value) {
  if (value === null || value === undefined || value === "") {
    return "–";
  }
  if (typeof value === "boolean") {
    return value ? "yes" : "no";
  }
  return Array.isArray(value) ? value.map(show).join(", ") || "–" : String(value);
}

const isTable = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

/** Facts as a list of definitions; tables inside become sections, long texts a box that scrolls. */
function facts(table, heading = "") {
  const plain = Object.entries(table).filter(([, value]) => !isTable(value) && !isLong(value));
  const parts = heading ? [el("h3", {}, heading)] : [];
  if (plain.length) {
    parts.push(
      el(
        "dl",
        { class: "facts" },
        ...plain.flatMap(([key, value]) => [el("dt", {}, title(key)), el("dd", {}, show(value))]),
      ),
    );
  }
  for (const [key, value] of Object.entries(table)) {
    if (isLong(value)) {
      parts.push(
        el(
          "details",
          { class: "more" },
          el("summary", {}, title(key)),
          el("pre", { class: "logs", tabindex: "0", role: "region", "aria-label": title(key) }, value),
        ),
      );
    } else if (isTable(value)) {
      parts.push(...facts(value, heading ? `${heading}: ${title(key)}` : title(key)));
    }
  }
  return parts;
}

const isLong = (value) => typeof value === "string" && value.includes("\n");

function paint(settings) {
  const { name, ...rest } = settings;
  byId("name").value = name ?? "";
  byId("facts").replaceChildren(...facts(rest));
}

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
