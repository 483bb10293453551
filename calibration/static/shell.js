// What every page behind the login shows: the mode in the header, a stop that is on, a connection that is gone.

import { post } from "./api.js";
import { busy, byId, el, icon, text } from "./dom.js";
import { watch } from "./state.js";
import { explain, modeText, problems } from "./words.js";

let shown = "";

function banner(kind, ...children) {
  if (kind !== shown) {
    shown = kind;
    byId("banner").replaceChildren(...children);
  }
}

function stopped() {
  const release = el("button", { type: "button", class: "button", id: "reset" }, "Release the stop");
  release.addEventListener("click", () => busy(release, byId("errors"), () => post("/api/v1/reset")));
  return el(
    "div",
    { class: "notice bad" },
    el("p", { class: "what" }, "The emergency stop is on."),
    el("p", {}, "Look that nobody is near the wheels, then release it. The car stays at rest until you start it."),
    release,
  );
}

function silent() {
  return el(
    "div",
    { class: "notice warn" },
    el("p", { class: "what" }, "No connection to the car."),
    el(
      "p",
      {},
      "It is off, out of reach, or restarting. This page tries again by itself. " +
        "A car that drives by itself may go on: stop it by hand if you must.",
    ),
  );
}

function loggedOut() {
  return el(
    "div",
    { class: "notice warn" },
    el("p", { class: "what" }, "You are logged out."),
    el("p", {}, "The session has ended, or the car was started anew. The stop button works all the same."),
    el("a", { class: "button", href: `/login?next=${encodeURIComponent(location.pathname)}` }, "Log in again"),
  );
}

let stranger = false; // the car answers, but not to somebody without a session

watch((state) => {
  stranger &&= state === null;
  const pill = byId("mode");
  const mode = stranger ? "stranger" : state === null ? "silent" : state.mode;
  if (pill.dataset.mode !== String(mode)) {
    pill.dataset.mode = String(mode);
  }
  text(pill, mode === null ? "Not running" : stranger ? "Logged out" : modeText(mode));
  if (state === null) {
    banner(mode, stranger ? loggedOut() : silent());
    return;
  }
  if (state.name) {
    text(byId("car-name"), state.name);
  }
  if (state.mode === "stopped") {
    banner("stopped", stopped());
  } else {
    banner("");
  }
});

document.addEventListener("hotlap:loggedout", () => (stranger = true));

let told = "";

/** Fill a sentence and a list with why the car does not drive; both keep their nodes while nothing changes. */
export function showReasons(sentence, list, state) {
  if (state === null) {
    text(sentence, "The car does not answer.");
    list.replaceChildren();
    told = "";
    return;
  }
  const found = problems(state);
  text(sentence, lead(state, found));
  const key = JSON.stringify(found.map((one) => [one.reason, one.cure]));
  if (key !== told) {
    told = key;
    list.replaceChildren(...found.map(reason));
  }
  found.forEach((one, i) => text(list.children[i].querySelector(".value"), explain(one).value));
}

function lead(state, found) {
  if (state.mode === "autonomous") {
    return found.length ? "It is to drive, but cannot now:" : "It drives.";
  }
  if (state.mode === "manual" || state.mode === "calibration") {
    const holder = state.lease?.holder ? ` (${state.lease.holder})` : "";
    return state.mode === "manual" ? `Somebody drives it by hand${holder}.` : `Somebody calibrates it${holder}.`;
  }
  if (found.length === 0) {
    return "Ready to drive.";
  }
  return found.length === 1 ? "It does not drive, for one reason:" : `It does not drive, for ${found.length} reasons:`;
}

function reason(one) {
  const { title, todo, link } = explain(one);
  const anchor = link && link[0] !== location.pathname ? el("a", { href: link[0] }, link[1]) : null;
  return el(
    "li",
    { "data-reason": one.reason },
    icon("warn"),
    el("p", { class: "title" }, title),
    el("p", { class: "hint" }, el("span", { class: "value" }), el("br"), `${todo} `, anchor),
  );
}
