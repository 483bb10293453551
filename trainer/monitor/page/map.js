// The track from above: road, where reward was got, and the cars as they drive.

import { css, download, figure, heading } from "./chart.js";
import { byId, el, text } from "./dom.js";

const MARGIN = 14;
const COLOURS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // viridis

function colour(share) {
  const place = Math.min(Math.max(share, 0), 1) * (COLOURS.length - 1);
  const k = Math.min(Math.floor(place), COLOURS.length - 2);
  return COLOURS[k].map((from, i) => Math.round(from + (COLOURS[k + 1][i] - from) * (place - k)));
}

export class TrackMap {
  constructor(canvas) {
    this.canvas = canvas;
    this.track = null;
    this.heat = null;
    this.heatOn = true;
    this.cars = [];
    this.chosen = 0;
    new ResizeObserver(() => this.still()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.still());
  }

  setTrack(track) {
    this.track = track;
    const points = [...track.left, ...track.right];
    const [xs, ys] = [points.map((p) => p[0]), points.map((p) => p[1])];
    this.box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
    this.setHeat(null);
    this.still();
  }

  setHeat(heat) {
    this.heat = heat && heat.steps ? heat : null;
    this.tile = null;
    byId("scale").hidden = !this.heat || !this.heatOn;
    if (this.heat) {
      const levels = Uint8Array.from(atob(heat.levels), (c) => c.charCodeAt(0));
      const image = new ImageData(heat.columns, heat.rows);
      levels.forEach((level, i) => {
        const down = heat.rows - 1 - Math.floor(i / heat.columns);
        const at = 4 * (down * heat.columns + (i % heat.columns));
        image.data.set(level ? [...colour((level - 1) / 254), 255] : [0, 0, 0, 0], at);
      });
      this.tile = el("canvas", { width: String(heat.columns), height: String(heat.rows) });
      this.tile.getContext("2d").putImageData(image, 0, 0);
      text(byId("scale-low"), figure(heat.low));
      text(byId("scale-high"), figure(heat.high));
    }
    this.still();
  }

  place(width, height) {
    const [xmin, ymin, xmax, ymax] = this.box;
    const scale = Math.min((width - 2 * MARGIN) / (xmax - xmin), (height - 2 * MARGIN) / (ymax - ymin));
    const left = (width - scale * (xmax - xmin)) / 2;
    const top = (height - scale * (ymax - ymin)) / 2;
    return { scale, x: (x) => left + (x - xmin) * scale, y: (y) => top + (ymax - y) * scale };
  }

  /** What does not move, drawn once on a sheet of its own. */
  still() {
    if (!this.track || !this.canvas.clientWidth) {
      return;
    }
    const ratio = window.devicePixelRatio || 1;
    const [xmin, ymin, xmax, ymax] = this.box;
    this.width = this.canvas.clientWidth;
    const shape = (ymax - ymin) / (xmax - xmin);
    this.height = Math.round(Math.min(Math.max(this.width * shape, this.width * 0.45), this.width * 0.8));
    this.canvas.style.height = `${this.height}px`;
    this.canvas.width = this.width * ratio;
    this.canvas.height = this.height * ratio;
    this.sheet = el("canvas", { width: String(this.canvas.width), height: String(this.canvas.height) });
    const pen = this.sheet.getContext("2d");
    pen.scale(ratio, ratio);
    this.at = this.place(this.width, this.height);
    this.road(pen, this.at);
    this.draw();
  }

  road(pen, at) {
    const { center, left, right } = this.track;
    const line = (points, begin) =>
      points.forEach(([x, y], i) => pen[i || !begin ? "lineTo" : "moveTo"](at.x(x), at.y(y)));
    pen.fillStyle = css("--road");
    pen.beginPath();
    line(left, true);
    line(right.toReversed(), false);
    pen.fill();
    if (this.tile && this.heatOn) {
      const { heat } = this;
      const [w, h] = [heat.columns * heat.cell_m, heat.rows * heat.cell_m];
      pen.imageSmoothingEnabled = false;
      pen.drawImage(this.tile, at.x(heat.x_m), at.y(heat.y_m + h), w * at.scale, h * at.scale);
    }
    pen.lineJoin = "round";
    for (const [points, stroke, wide, dash] of [
      [left, "--border", 2, []],
      [right, "--border", 2, []],
      [center, "--border", 1, [6, 6]],
    ]) {
      pen.strokeStyle = css(stroke);
      pen.lineWidth = wide;
      pen.setLineDash(dash);
      pen.globalAlpha = dash.length ? 0.5 : 1;
      pen.beginPath();
      line(points, true);
      pen.stroke();
    }
    pen.setLineDash([]);
    pen.globalAlpha = 1;
    pen.strokeStyle = "#e5383b"; // the start line
    pen.lineWidth = 3;
    pen.beginPath();
    line([left[0], right[0]], true);
    pen.stroke();
  }

  draw() {
    if (!this.sheet) {
      return;
    }
    const pen = this.canvas.getContext("2d");
    const ratio = window.devicePixelRatio || 1;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    pen.drawImage(this.sheet, 0, 0);
    pen.scale(ratio, ratio);
    for (const [number, x, y, heading] of this.cars) {
      const chosen = number === this.chosen;
      pen.save();
      pen.translate(this.at.x(x), this.at.y(y));
      pen.rotate(-heading);
      const size = chosen ? 9 : 6;
      pen.beginPath();
      pen.moveTo(size, 0);
      pen.lineTo(-size * 0.8, size * 0.65);
      pen.lineTo(-size * 0.8, -size * 0.65);
      pen.closePath();
      pen.fillStyle = chosen ? "#ff3b5c" : "#ffffff";
      pen.strokeStyle = "#10141a";
      pen.lineWidth = 1.5;
      pen.fill();
      pen.stroke();
      pen.restore();
    }
  }

  /** The number of the car nearest to a place on the canvas. */
  nearest(left, top) {
    let best = null;
    for (const [number, x, y] of this.cars) {
      const far = Math.hypot(this.at.x(x) - left, this.at.y(y) - top);
      if (far < 30 && (best === null || far < best[1])) best = [number, far];
    }
    return best && best[0];
  }

  bar(canvas) {
    const image = new ImageData(256, 1);
    for (let i = 0; i < 256; i += 1) image.data.set([...colour(i / 255), 255], 4 * i);
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  save() {
    const sheet = el("canvas", { width: "1600", height: "1200" });
    const pen = sheet.getContext("2d");
    pen.scale(2, 2);
    heading(pen, `Reward over the track: ${this.track.name}`, 800, 600);
    if (this.heat) {
      pen.fillStyle = css("--text");
      pen.fillText(`mean reward of a step, ${figure(this.heat.low)} (violet) to ${figure(this.heat.high)} (yellow)`, 20, 58);
    }
    pen.translate(0, 66);
    this.road(pen, this.place(800, 534));
    download(sheet, "heat");
  }
}
