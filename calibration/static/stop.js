// The emergency stop. It imports nothing and needs nothing of the page but its button, so that it works when every
// other script, the event stream or the camera has failed, and on the login page. It needs no session either: one that
// has expired must not keep a car moving. One press asks again and again until the car has answered.

const AGAIN_MS = 400; // a request that is still on its way does not hold up the next one
const PATIENCE_MS = 2500;
const AT_ONCE = 3; // browsers open six connections to a car; the pictures and the state have one each
const WORRY_MS = 3000;
const SAID_MS = 6000; // then the mode in the header and the banner say it

const button = document.getElementById("stop");
const note = document.getElementById("stop-note");
let begun = null; // when the press was that has not been answered yet
let timer = null;
let flying = 0;
let armed = { known: false, at: 0 };

function say(text, link) {
  note.textContent = text;
  if (link) {
    const anchor = document.createElement("a");
    anchor.href = link.href;
    anchor.textContent = link.text;
    note.append(" ", anchor);
  }
}

function finished(text, link) {
  begun = null;
  clearInterval(timer);
  timer = null;
  delete button.dataset.pressed;
  say(text, link);
}

// Stopping is for everybody; going on is for who is logged in, and somebody who is not must be told.
async function mayGoOn() {
  try {
    return (await fetch("/auth", { credentials: "same-origin", cache: "no-store" })).status !== 401;
  } catch {
    return true; // not known: the page itself says so when it is otherwise
  }
}

async function stopped() {
  const done = "Stopped. The motor is at rest until you release the stop.";
  finished(done);
  setTimeout(() => note.textContent === done && say(""), SAID_MS);
  document.dispatchEvent(new CustomEvent("hotlap:stopped"));
  if (!(await mayGoOn()) && begun === null) {
    const page = document.getElementById("login") ? null : location.pathname;
    finished(
      page ? "Stopped. The motor is at rest. You are logged out; for everything else," : "Stopped. The motor is at rest.",
      page && { href: `/login?next=${encodeURIComponent(page)}`, text: "log in again." },
    );
  }
}

async function ask() {
  if (flying >= AT_ONCE) {
    return;
  }
  flying += 1;
  const abort = new AbortController();
  const patience = setTimeout(() => abort.abort(), PATIENCE_MS);
  try {
    const answer = await fetch("/api/v1/stop", {
      method: "POST",
      keepalive: true, // it leaves even when the page is closed in the same moment
      credentials: "same-origin",
      cache: "no-store",
      headers: { "Content-Type": "application/json" },
      body: "{}",
      signal: abort.signal,
    });
    if (begun === null) {
      return;
    }
    // A 200 alone is not enough: a hotel's Wi-Fi answers everything with its own page.
    if (answer.ok && (await answer.json()).ok === true) {
      stopped();
    } else {
      say(`The car answered with an error (${answer.status}). Trying again. If it moves: switch it off.`);
    }
  } catch {
    // Wi-Fi, or no answer in time: the timer asks again.
  } finally {
    clearTimeout(patience);
    flying -= 1;
  }
}

function press() {
  document.dispatchEvent(new CustomEvent("hotlap:stop")); // whoever moves the car from this page lets go
  button.dataset.pressed = "";
  if (begun === null) {
    begun = performance.now();
    say("Stopping…");
    timer = setInterval(() => {
      if (performance.now() - begun > WORRY_MS) {
        say("The car does not answer. Trying again without end. If it moves: pick it up or switch it off.");
      }
      ask();
    }, AGAIN_MS);
  }
  ask();
}

// pointerdown, since a finger that slides off the button must stop the car all the same; click is for the keyboard
// and screen readers.
button.addEventListener("pointerdown", press);
button.addEventListener("click", (event) => {
  if (event.detail === 0 || begun !== null) {
    press();
  }
});

// Esc stops the car, unless the page has heard in the last second that nothing can move it anyway: then Esc is left to
// menus and dialogs.
document.addEventListener("hotlap:state", (event) => {
  armed = { known: event.detail?.armed === false, at: performance.now() };
  if (begun === null && note.textContent && event.detail?.mode !== "stopped" && event.detail?.mode) {
    say("");
  }
});
window.addEventListener(
  "keydown",
  (event) => {
    const safe = armed.known && performance.now() - armed.at < 1000;
    if (event.key === "Escape" && !event.repeat && !safe) {
      press();
    }
  },
  true,
);
