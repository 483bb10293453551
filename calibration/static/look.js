// What the network looks at: a map over the very picture that it was made of, and how likely each action was. The car
// makes one only while this is open and the page is looked at.

import { get } from "./api.js";
import { byId, el, text } from "./dom.js";

const EVERY_MS = 1000;
const FIRST_MS = 300; // the first one is being made
const REFUSED_MS = 3000;
const FAINT = 0.05; // below this no spot decides, and showing the strongest would be showing noise
const GLOW = [255, 136, 0];
const MAX_ALPHA = 0.8;

const button = byId("look");
const box = byId("look-box");
const note = byId("look-note");
const picture = byId("look-picture");
const canvas = byId("look-map");
const list = byId("look-actions");
let timer = null;
let asking = false;
let shownSeq = null;

const isOn = () => button.getAttribute("aria-expanded") === "true";

button.addEventListener("click", () => {
  const on = !isOn();
  button.setAttribute("aria-expanded", String(on));
  text(button, on ? "Hide" : "Show");
  box.hidden = !on;
  shownSeq = null;
  byId("look-shown").hidden = true;
  text(note, on ? "Asking the car…" : "");
  ask();
});
document.addEventListener("visibilitychange", () => ask());

async function ask() {
  clearTimeout(timer);
  if (asking || !isOn() || document.hidden) {
    return; // a hidden page costs the car nothing
  }
  asking = true;
  let wait = EVERY_MS;
  try {
    const found = await get("/api/v1/saliency");
    if (found.waiting) {
      wait = FIRST_MS;
      text(note, "The car is making the first map…");
    } else if (isOn()) {
      show(found);
    }
  } catch (error) {
    wait = REFUSED_MS;
    byId("look-shown").hidden = true;
    shownSeq = null;
    text(note, [error.what, error.next].filter(Boolean).join(" — "));
  }
  asking = false;
  timer = setTimeout(ask, wait);
}

function show(found) {
  if (found.seq === shownSeq) {
    return;
  }
  shownSeq = found.seq;
  byId("look-shown").hidden = false;
  picture.src = found.picture;
  const strongest = Math.max(...found.change);
  paint(found, Math.max(strongest, FAINT));
  const where = strongest < FAINT ? "no single spot decides" : `most of all ${whereIs(found)}`;
  picture.alt = `What the network saw; ${where}`;
  const points = `${Math.round(100 * strongest)} %`;
  text(
    note,
    strongest < FAINT
      ? "No single spot decides: whichever one is taken away, the network does the same."
      : `It looks ${where}. Without that spot its ${found.chosen === null ? "action" : "certainty"} changes by ${points}.`,
  );
  actions(found);
}

/** One pixel a place; the browser makes it smooth when it stretches it over the picture. */
function paint(found, full) {
  canvas.width = found.columns;
  canvas.height = found.rows;
  const image = new ImageData(found.columns, found.rows);
  found.change.forEach((change, i) => image.data.set([...GLOW, 255 * MAX_ALPHA * Math.min(1, change / full)], 4 * i));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function whereIs({ change, rows, columns }) {
  const place = change.indexOf(Math.max(...change));
  const third = (at, of) => Math.min(2, Math.floor((3 * at) / of));
  const down = third(Math.floor(place / columns), rows);
  const across = ["left", "", "right"][third(place % columns, columns)];
  if (down === 1) {
    return across ? `on the ${across}` : "in the middle";
  }
  return `at the ${down === 0 ? "top" : "bottom"}${across && ` ${across}`}`;
}

const degrees = (deg) => `${Math.abs(deg).toFixed(0)}°${deg > 0.5 ? " left" : deg < -0.5 ? " right" : ""}`;
const words = (action) => `${degrees(action.steering_deg)}, ${action.speed_mps.toFixed(1)} m/s`;

function actions(found) {
  text(
    byId("look-action"),
    found.chosen === null
      ? `It gives steering and speed themselves: ${words(found.action)}.`
      : `It chose ${words(found.actions[found.chosen])}.`,
  );
  if (list.childElementCount !== found.actions.length) {
    list.replaceChildren(
      ...found.actions.map(() =>
        el(
          "li",
          {},
          el("span", { class: "bar-name" }),
          el("span", { class: "bar", "aria-hidden": "true" }, el("span", {})),
          el("span", { class: "bar-share" }),
        ),
      ),
    );
  }
  found.actions.forEach((action, i) => {
    const [name, bar, share] = list.children[i].children;
    list.children[i].toggleAttribute("data-chosen", i === found.chosen);
    text(name, words(action));
    text(share, `${Math.round(100 * action.probability)} %`);
    bar.firstElementChild.style.width = `${100 * action.probability}%`;
  });
}
