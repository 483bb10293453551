// Curves on a canvas: the mean as a line, least and largest as a band around it, so that no spike is lost.

import { el } from "./dom.js";

export const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const MARGIN = { left: 52, right: 12, top: 10, bottom: 24 };

export function figure(value) {
  if (value === null || value === undefined) {
    return "–";
  }
  const size = Math.abs(value);
  if (size >= 1e6) {
    return `${+(value / 1e6).toPrecision(3)}M`;
  }
  if (size >= 1e4) {
    return `${+(value / 1e3).toPrecision(3)}k`;
  }
  return size >= 100 ? value.toFixed(0) : String(+value.toPrecision(3));
}

const time = (s) => (s >= 3600 ? `${+(s / 3600).toFixed(2)} h` : s >= 120 ? `${+(s / 60).toFixed(1)} min` : `${+s.toFixed(1)} s`);
const along = (x, over) => (over === "wall_s" ? time(x) : `${figure(x)} steps`);

/** Round places for about `count` lines between two values. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * unit).find((k) => k >= rough);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) {
    found.push(+(k * step).toPrecision(12));
  }
  return found;
}

/** A number beside the axis, with as many digits as tell it from the next one. */
function label(tick, [low, high]) {
  const digits = Math.min(6, Math.max(0, 1 - Math.floor(Math.log10(high - low))));
  return Math.abs(tick) >= 1e4 ? figure(tick) : String(+tick.toFixed(digits));
}

/** The range of finite numbers, a little wider; null where there is none. */
function range(values, least) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value !== null) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  if (low > high) {
    return null;
  }
  const spare = Math.max(0.06 * (high - low), least, 0.02 * Math.abs(high)); // what hardly changes looks so
  return [low >= 0 && low < spare * 4 ? 0 : low - spare, high + spare];
}

export class Chart {
  constructor(plot) {
    this.plot = plot;
    this.data = { x: [], curves: [] };
    this.over = "steps";
    this.at = null; // the place that a pointer or a key has chosen
    this.canvas = el("canvas", { role: "img", tabindex: "0", id: `plot-${plot.key}` });
    this.legend = el("ul", { class: "legend" }, ...plot.curves.map((label) => el("li", {}, label)));
    const id = `title-${plot.key}`;
    const png = el("button", { type: "button", class: "button small", "aria-label": `${plot.title}: PNG` }, "PNG");
    const csv = el(
      "a",
      { class: "button small", href: `/csv/${plot.key}.csv`, download: true, "aria-label": `${plot.title}: CSV` },
      "CSV",
    );
    png.addEventListener("click", () => this.save());
    const title = plot.title + (plot.unit ? ` (${plot.unit})` : "");
    this.node = el(
      "section",
      { class: "card", "aria-labelledby": id },
      el("div", { class: "heading-row" }, el("h2", { id, title: plot.says }, title), el("div", { class: "row" }, png, csv)),
      this.legend,
      this.canvas,
    );
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.canvas.addEventListener("pointerleave", () => this.choose(null));
    this.canvas.addEventListener("blur", () => this.choose(null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  show(data, over) {
    this.data = data;
    this.over = over;
    this.draw();
  }

  key(event) {
    const last = this.data.x.length - 1;
    const from = this.at ?? last;
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last, Escape: null }[event.key];
    if (to !== undefined && last >= 0) {
      event.preventDefault();
      this.choose(to === null ? null : Math.min(Math.max(to, 0), last));
    }
  }

  point(left) {
    const { x } = this.data;
    const wanted = this.toX?.(left);
    if (!x.length || wanted === undefined) {
      return;
    }
    let best = 0;
    x.forEach((value, i) => {
      if (Math.abs(value - wanted) < Math.abs(x[best] - wanted)) best = i;
    });
    this.choose(best);
  }

  choose(at) {
    this.at = at;
    this.draw();
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width) {
      return;
    }
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    this.paint(pen, width, height, this.at);
    this.words();
  }

  words() {
    const { x, curves } = this.data;
    const place = this.at ?? x.length - 1;
    const parts = this.plot.curves.map((label, i) => {
      const curve = curves.find((one) => one.label === label);
      let k = place;
      while (this.at === null && curve && k > 0 && curve.mean[k] === null) k -= 1;
      const text = `${label} ${figure(curve?.mean[k])}`;
      this.legend.children[i].textContent = text;
      return text;
    });
    const where = x.length ? ` at ${along(x[place], this.over)}` : "";
    this.canvas.setAttribute("aria-label", `${this.plot.title}: ${parts.join(", ")}${where}. Arrow keys move along.`);
  }

  paint(pen, width, height, at = null) {
    const { x, curves } = this.data;
    pen.clearRect(0, 0, width, height);
    pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    pen.fillStyle = css("--muted");
    const xs = x.length ? [0, Math.max(...x, 1e-9)] : null; // a run begins at 0
    const ys = range(curves.flatMap((curve) => [...curve.low, ...curve.high]), 1e-6);
    if (!xs || !ys) {
      pen.textAlign = "center";
      pen.fillText("not measured yet", width / 2, height / 2);
      return;
    }
    const [w, h] = [width - MARGIN.left - MARGIN.right, height - MARGIN.top - MARGIN.bottom];
    const px = (value) => MARGIN.left + ((value - xs[0]) / (xs[1] - xs[0])) * w;
    const py = (value) => MARGIN.top + (1 - (value - ys[0]) / (ys[1] - ys[0])) * h;
    this.toX = (left) => xs[0] + ((left - MARGIN.left) / w) * (xs[1] - xs[0]);
    this.grid(pen, xs, ys, px, py, width, height);
    curves.forEach((curve, i) => this.curve(pen, curve, css(`--curve-${1 + this.plot.curves.indexOf(curve.label)}`), px, py));
    if (at !== null && x[at] !== undefined) {
      pen.strokeStyle = css("--edge");
      pen.lineWidth = 1;
      pen.beginPath();
      pen.moveTo(px(x[at]), MARGIN.top);
      pen.lineTo(px(x[at]), MARGIN.top + h);
      pen.stroke();
      pen.fillStyle = css("--text");
      pen.textAlign = px(x[at]) > width / 2 ? "right" : "left";
      pen.fillText(along(x[at], this.over), px(x[at]) + (px(x[at]) > width / 2 ? -6 : 6), MARGIN.top + 11);
    }
  }

  grid(pen, xs, ys, px, py, width, height) {
    pen.strokeStyle = css("--line");
    pen.lineWidth = 1;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const tick of ticks(...ys, 5)) {
      const y = Math.round(py(tick)) + 0.5;
      pen.beginPath();
      pen.moveTo(MARGIN.left, y);
      pen.lineTo(width - MARGIN.right, y);
      pen.stroke();
      pen.fillText(label(tick, ys), MARGIN.left - 6, y);
    }
    pen.textBaseline = "alphabetic";
    for (const tick of ticks(...xs, width > 520 ? 5 : 3)) {
      pen.textAlign = px(tick) > width - 40 ? "right" : "center";
      pen.fillText(this.over === "wall_s" ? time(tick) : figure(tick), px(tick), height - 6);
    }
  }

  curve(pen, curve, colour, px, py) {
    const { x } = this.data;
    const there = x.map((_, i) => i).filter((i) => curve.mean[i] !== null);
    pen.fillStyle = colour;
    pen.strokeStyle = colour;
    pen.lineWidth = 1;
    pen.globalAlpha = 0.3;
    pen.beginPath();
    there.forEach((i, k) => pen[k ? "lineTo" : "moveTo"](px(x[i]), py(curve.high[i])));
    there.toReversed().forEach((i) => pen.lineTo(px(x[i]), py(curve.low[i])));
    pen.fill();
    pen.stroke(); // so that a spike of one update is seen
    pen.globalAlpha = 1;
    pen.lineWidth = 2;
    pen.lineJoin = "round";
    pen.beginPath();
    there.forEach((i, k) => pen[k ? "lineTo" : "moveTo"](px(x[i]), py(curve.mean[i])));
    pen.stroke();
    if (there.length < 30) {
      there.forEach((i) => {
        pen.beginPath();
        pen.arc(px(x[i]), py(curve.mean[i]), 2.5, 0, 7);
        pen.fill();
      });
    }
  }

  /** The plot as a picture of its own, with its title. */
  save() {
    const sheet = el("canvas", { width: "1600", height: "900" });
    const pen = sheet.getContext("2d");
    pen.scale(2, 2);
    const body = el("canvas", { width: "1600", height: "760" });
    const inner = body.getContext("2d");
    inner.scale(2, 2);
    this.paint(inner, 800, 380);
    heading(pen, this.plot.title + (this.plot.unit ? ` (${this.plot.unit})` : ""), 800, 450);
    let left = 20;
    this.plot.curves.forEach((label, i) => {
      pen.fillStyle = css(`--curve-${i + 1}`);
      pen.fillRect(left, 51, 14, 4);
      pen.fillStyle = css("--text");
      pen.fillText(label, left + 20, 58);
      left += 44 + pen.measureText(label).width;
    });
    pen.drawImage(body, 0, 66, 800, 380);
    download(sheet, this.plot.key);
  }
}

export function heading(pen, title, width, height) {
  pen.fillStyle = css("--surface");
  pen.fillRect(0, 0, width, height);
  pen.fillStyle = css("--text");
  const family = getComputedStyle(document.body).fontFamily;
  pen.font = `700 18px ${family}`;
  pen.fillText(title, 20, 34);
  pen.font = `13px ${family}`;
  pen.fillStyle = css("--muted");
  pen.textAlign = "right";
  pen.fillText(document.title, width - 20, 34);
  pen.textAlign = "left";
}

export function download(canvas, name) {
  canvas.toBlob((blob) => {
    const link = el("a", { href: URL.createObjectURL(blob), download: `${document.title.split(" ")[0]}-${name}.png` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }, "image/png");
}
