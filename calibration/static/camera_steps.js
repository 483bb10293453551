// The camera's part of the Calibrate page: pictures of a board on the floor, what they say, saving. The car does the sums.

import { ask, get, post, put } from "./api.js";
import { Camera } from "./camera.js";
import { busy, byId, el, showError, text } from "./dom.js";

const API = "/api/v1/camera";
const SLOW = { timeoutMs: 30000 }; // a small computer may look for a board, or calculate, for a while
// key, label, digits that mean something, unit, factor
const ROWS = [
  ["horizontal_fov_deg", "Field of view", 2, "°", 1],
  ["pitch_down_deg", "Looks down", 2, "°", 1],
  ["height_m", "Height", 1, " mm", 1000],
  ["roll_deg", "Leans to the right", 2, "°", 1],
];
const BOARD = { columns: "board-columns", rows: "board-rows", square_mm: "board-square" };
const errors = byId("take-errors");
let live = null;
let shown = null;

const board = () => Object.fromEntries(Object.entries(BOARD).map(([key, id]) => [key, Number(byId(id).value)]));
const boardIsGood = () => Object.values(BOARD).every((id) => byId(id).value !== "" && byId(id).validity.valid);

const number = (value, digits) => value.toFixed(digits).replace(/^-(0\.0*)$/, "$1");

function offerTake() {
  const full = shown !== null && shown.pictures.length >= shown.max_pictures;
  byId("take").disabled = full || !boardIsGood();
}

// --- what is there

function show(found) {
  shown = found;
  const { pictures, result, problem, saved, nominal } = found;
  byId("shots").replaceChildren(...pictures.map(shot));
  byId("retake").hidden = pictures.length === 0;
  offerTake();
  byId("pose-none").hidden = result !== null || saved !== null;
  byId("pose-box").hidden = result === null && saved === null;
  byId("pose").replaceChildren(...ROWS.map((row) => figure(row, saved ?? nominal, result)));
  text(byId("pose-fit"), result ? fit(result) : "");
  byId("pose-notes").replaceChildren(...notes(result, problem));
  byId("save-camera").disabled = result === null;
  byId("camera-next").hidden = saved === null;
}

function figure([key, label, digits, unit, factor], inUse, result) {
  const error = result && Math.max(result.errors[key] * factor, 10 ** -digits);
  const measured = result ? `${number(result.pose[key] * factor, digits)} ± ${number(error, digits)}${unit}` : "–";
  const used = inUse?.[key] === undefined ? "–" : `${number(inUse[key] * factor, digits)}${unit}`;
  return el("tr", {}, el("th", { scope: "row" }, label), el("td", {}, used), el("td", {}, measured));
}

function fit(result) {
  const count = result.pictures === 1 ? "one picture" : `${result.pictures} pictures`;
  const more = result.pictures < 3 ? " Three pictures are better." : "";
  return `From ${count} of ${result.width} × ${result.height}; corners within ${result.residual_px.toFixed(2)} pixels.${more}`;
}

function notes(result, problem) {
  const found = (result?.warnings ?? []).map((words) => el("p", { class: "notice warn" }, words));
  if (problem) {
    const lines = [problem.what, problem.cause && `Likely cause: ${problem.cause}`, problem.next && `What to do: ${problem.next}`];
    found.push(el("div", { class: "notice bad" }, ...lines.filter(Boolean).map((line) => el("p", {}, line))));
  }
  return found;
}

function shot(picture, index) {
  const away = el("button", { type: "button", class: "button small", "aria-label": `Throw picture ${index + 1} away` }, "Throw away");
  away.addEventListener("click", () =>
    busy(away, errors, async () => {
      show(await ask("DELETE", `${API}/pictures/${picture.id}`, SLOW));
      text(byId("take-note"), "");
      byId("take").focus({ preventScroll: true });
    }),
  );
  const alt = `Picture ${index + 1}, with the corners that were found`;
  return el("li", {}, el("img", { src: `${API}/pictures/${picture.id}`, alt, width: 480, height: 360 }), away);
}

// --- what buttons do

byId("take").addEventListener("click", async () => {
  text(byId("take-note"), "Looking for the board…");
  const done = await busy(byId("take"), errors, async () => {
    show(await post(`${API}/pictures`, board(), SLOW));
  });
  text(byId("take-note"), done ? `The board was found. Pictures: ${shown.pictures.length}.` : "");
  text(byId("camera-saved"), "");
  offerTake();
});

byId("retake").addEventListener("click", () =>
  busy(byId("retake"), errors, async () => {
    show(await ask("DELETE", `${API}/pictures`, SLOW));
    text(byId("take-note"), "");
    byId("take").focus({ preventScroll: true });
  }),
);

byId("save-camera").addEventListener("click", async () => {
  const done = await busy(byId("save-camera"), errors, async () => show(await put(API, {}, SLOW)));
  text(byId("camera-saved"), done ? "Saved. Models are held against this camera from now on." : "");
});

for (const id of Object.values(BOARD)) {
  byId(id).addEventListener("input", () => {
    offerTake();
    byId("board-file").hidden = !boardIsGood();
    if (boardIsGood()) {
      byId("board-file").href = `${API}/board.pdf?${new URLSearchParams(board())}`;
    }
  });
}

// --- coming and going

byId("begin-camera").addEventListener("click", async () => {
  byId("overview").hidden = true;
  byId("camera-view").hidden = false;
  byId("camera-title").focus({ preventScroll: true });
  window.scrollTo(0, 0);
  if (live === null) {
    live = new Camera(byId("camera-picture"), byId("camera-note"));
  } else {
    live.resume();
  }
  try {
    const found = await get(API, SLOW);
    for (const [key, id] of Object.entries(BOARD)) {
      byId(id).value = found.board[key];
    }
    show(found);
  } catch (error) {
    showError(errors, error);
  }
});

byId("leave-camera").addEventListener("click", () => {
  live?.pause();
  byId("camera-view").hidden = true;
  byId("overview").hidden = false;
  byId("begin-camera").focus({ preventScroll: true });
});
