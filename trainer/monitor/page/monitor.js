// The monitor: asks for what is new, and asks for nothing while nobody looks.

import { Chart, figure } from "./chart.js";
import { byId, el, text } from "./dom.js";
import { TrackMap } from "./map.js";

const LIVE_MS = 100;
const STILL_MS = 1000; // nothing drives
const PLOTS_MS = 1500;
const HEAT_MS = 4000;
const two = (number) => String(Math.floor(number)).padStart(2, "0");
const clock = (s) => (s < 3600 ? `${Math.floor(s / 60)}:${two(s % 60)}` : `${Math.floor(s / 3600)}:${two((s / 60) % 60)} h`);
const TILES = [
  ["steps", "Steps", (v) => figure(v)],
  ["wall_s", "Trained", (v) => clock(v)],
  ["reward", "Reward", (v) => figure(v)],
  ["progress", "Progress", (v) => `${v.toFixed(0)} %`],
  ["eval_completion", "Completion", (v) => `${(100 * v).toFixed(0)} %`],
  ["eval_lap_s", "Lap time", (v) => `${v.toFixed(2)} s`],
  ["loss", "Loss", (v) => figure(v)],
  ["entropy", "Entropy", (v) => figure(v)],
  ["steps_per_s", "Steps/s", (v) => figure(v)],
  ["cpu_percent", "Processor", (v) => `${v.toFixed(0)} %`],
  ["memory_mb", "Memory", (v) => `${figure(v)} MB`],
];
const STATES = { running: ["Training", "autonomous"], over: ["Run is over", ""], lost: ["No connection", "silent"] };

const map = new TrackMap(byId("map"));
let run = null;
let charts = [];
let version = "";
let over = "steps";
let track = 0;
let car = 0;
let numbers = [];

const get = async (path) => {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) {
    throw new Error(`${path}: ${answer.status}`);
  }
  return answer.json();
};

function state(name) {
  const [words, mode] = STATES[name];
  text(byId("state"), words);
  byId("state").dataset.mode = mode;
}

/** Call again and again, never twice at a time, and not while the page is hidden. `work` gives the pause in ms. */
function again(work) {
  let busy = false;
  let timer = null;
  const turn = async () => {
    clearTimeout(timer);
    if (busy || document.hidden) {
      return;
    }
    busy = true;
    let pause = 2000;
    try {
      pause = await work();
    } catch {
      state("lost");
    }
    busy = false;
    timer = setTimeout(turn, pause);
  };
  document.addEventListener("visibilitychange", turn);
  turn();
  return turn;
}

function tiles(figures) {
  TILES.forEach(([key, , words], i) => {
    const value = figures[key];
    text(byId("figures").children[i].lastChild, value === null || value === undefined ? "–" : words(value));
  });
}

async function plots() {
  const asked = over;
  const found = await get(`/api/plots?x=${asked}&since=${version}`);
  state(found.figures.running ? "running" : "over");
  tiles(found.figures);
  if (found.plots && asked === over) {
    version = found.version;
    charts.forEach((chart) => chart.show(found.plots[chart.plot.key], over));
  }
  byId("plots").setAttribute("aria-busy", String(found.reading && !found.plots));
  return found.reading ? 500 : PLOTS_MS;
}

async function heat() {
  const asked = track;
  const found = await get(`/api/heat?track=${asked}`);
  if (asked === track) {
    map.setHeat(found);
    text(
      byId("map-note"),
      found.steps
        ? `Mean reward of a step at each place, from ${figure(found.steps)} logged steps. Click a car to see what it sees.`
        : "No logged step yet. Click a car to see what it sees.",
    );
  }
  return HEAT_MS;
}

function offer(cars) {
  const found = cars.map((row) => row[0]);
  if (found.join() !== numbers.join()) {
    numbers = found;
    byId("car").replaceChildren(...found.map((k) => el("option", { value: k, selected: k === car }, `Car ${k}`)));
    if (found.length && !found.includes(car)) {
      choose(found[0]);
    }
  }
}

async function live() {
  const asked = car;
  const found = await get(`/api/live?car=${asked}`);
  offer(found.cars);
  map.cars = found.cars.filter((row) => row[6] === track);
  map.chosen = car;
  map.draw();
  const shown = Boolean(found.picture);
  if (shown && asked === car) {
    byId("view").src = found.picture;
    byId("view").dataset.stamp = found.stamp;
  }
  byId("view").hidden = !byId("view").src;
  byId("view-empty").hidden = !byId("view").hidden;
  const row = found.cars.find((one) => one[0] === car);
  const where = row ? `${row[4].toFixed(0)} % of the lap, ${row[5].toFixed(2)} m/s` : "";
  byId("view").alt = row ? `What car ${car} sees at ${row[4].toFixed(0)} % of its lap` : "";
  text(
    byId("view-note"),
    {
      live: `Car ${car}: ${where}, live`,
      waiting: `Car ${car}: ${where}. The cars stand while the policy learns or is tried`,
      replay: `Car ${car}: ${where}. The run is over: its last episodes, driven again`,
      starting: "Waiting for the first step…",
      over: "The run is over: nothing drives.",
    }[found.mode],
  );
  return found.mode === "over" || found.mode === "starting" ? STILL_MS : LIVE_MS;
}

function choose(number) {
  car = number;
  byId("car").value = String(number);
  map.chosen = number;
  map.draw();
}

function turn(by) {
  if (numbers.length) {
    choose(numbers[(numbers.indexOf(car) + by + numbers.length) % numbers.length]);
  }
}

async function begin() {
  run = await get("/api/run");
  document.title = `${run.run} · hotlap`;
  text(byId("run"), run.run);
  byId("figures").append(...TILES.map(([, label]) => el("div", {}, el("dt", {}, label), el("dd", {}, "–"))));
  charts = run.plots.map((plot) => new Chart(plot));
  byId("plots").append(...charts.map((chart) => chart.node));
  map.setTrack(run.tracks[0]);
  map.bar(byId("scale-bar"));
  text(byId("track-title"), run.tracks[0].name);
  byId("track").hidden = run.tracks.length < 2;
  byId("track").append(...run.tracks.map((one, i) => el("option", { value: i }, one.name)));
  const askPlots = again(plots);
  const askHeat = again(heat);
  again(live);
  byId("track").addEventListener("change", (event) => {
    track = Number(event.target.value);
    map.setTrack(run.tracks[track]);
    text(byId("track-title"), run.tracks[track].name);
    byId("heat-csv").href = `/csv/heat.csv?track=${track}`;
    askHeat();
  });
  for (const radio of document.querySelectorAll("[name=x]")) {
    radio.addEventListener("change", () => {
      over = radio.value;
      version = "";
      askPlots();
    });
  }
}

byId("car").addEventListener("change", (event) => choose(Number(event.target.value)));
byId("car-before").addEventListener("click", () => turn(-1));
byId("car-after").addEventListener("click", () => turn(1));
byId("heat-on").addEventListener("change", (event) => {
  map.heatOn = event.target.checked;
  byId("scale").hidden = !map.heatOn || !map.heat;
  map.still();
});
byId("heat-png").addEventListener("click", () => map.save());
byId("map").addEventListener("click", (event) => {
  const found = map.nearest(event.offsetX, event.offsetY);
  if (found !== null) choose(found);
});

begin().catch(() => state("lost"));
