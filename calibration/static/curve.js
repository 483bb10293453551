// The mapping drawn as a curve: what the simulator asks for, to the pulse that the car gets.

import { svg } from "./dom.js";

const WIDTH = 360;
const HEIGHT = 200;
const LEFT = 44;
const RIGHT = 12;
const TOP = 10;
const BOTTOM = 34;

/** A step of 1, 2 or 5 times a power of ten that gives about `count` marks. */
function stepFor(span, count) {
  const rough = span / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
}

function marks(low, high, count) {
  const step = stepFor(high - low, count);
  const found = [];
  for (let mark = Math.ceil(low / step) * step; mark <= high + step / 1e6; mark += step) {
    found.push(Math.abs(mark) < step / 1e6 ? 0 : mark);
  }
  return found;
}

const plain = (value) => String(Math.round(value * 100) / 100).replace("-", "−");

/**
 * Draw lines into an <svg>.
 * @param lines [{points: [[x, us], ...], className}], the first one on top
 * @param unit of x; `sides` are the words at its two ends
 */
export function draw(chart, lines, unit, sides) {
  const all = lines.flatMap((line) => line.points);
  chart.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  if (all.length < 2) {
    chart.replaceChildren();
    return;
  }
  const xs = all.map(([x]) => x);
  const ys = all.map(([, y]) => y);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  const margin = Math.max(5, (Math.max(...ys) - Math.min(...ys)) * 0.06);
  const [y0, y1] = [Math.min(...ys) - margin, Math.max(...ys) + margin];
  const px = (x) => LEFT + ((x - x0) / (x1 - x0 || 1)) * (WIDTH - LEFT - RIGHT);
  const py = (y) => HEIGHT - BOTTOM - ((y - y0) / (y1 - y0 || 1)) * (HEIGHT - TOP - BOTTOM);
  const parts = [];
  for (const mark of marks(y0, y1, 5)) {
    parts.push(svg("path", { class: "chart-grid", d: `M${LEFT} ${py(mark)}H${WIDTH - RIGHT}` }));
    parts.push(svg("text", { class: "chart-text", x: LEFT - 6, y: py(mark) + 4, "text-anchor": "end" }, plain(mark)));
  }
  for (const mark of marks(x0, x1, 6)) {
    parts.push(
      svg("path", { class: mark === 0 ? "chart-axis" : "chart-grid", d: `M${px(mark)} ${TOP}V${HEIGHT - BOTTOM}` }),
    );
    parts.push(
      svg("text", { class: "chart-text", x: px(mark), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, plain(mark)),
    );
  }
  parts.push(svg("text", { class: "chart-text", x: LEFT, y: HEIGHT - 4 }, sides[0]));
  parts.push(svg("text", { class: "chart-text", x: WIDTH - RIGHT, y: HEIGHT - 4, "text-anchor": "end" }, sides[1]));
  parts.push(
    svg("text", { class: "chart-text", x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, unit),
  );
  for (const { points, className } of [...lines].reverse()) {
    parts.push(
      svg("polyline", {
        class: className,
        points: points.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`).join(" "),
      }),
    );
  }
  chart.replaceChildren(...parts);
  const [first, last] = [lines[0].points[0], lines[0].points.at(-1)];
  const said =
    first && last
      ? `from ${plain(first[1])} microseconds at ${plain(first[0])} ${unit} to ${plain(last[1])} at ${plain(last[0])}`
      : "";
  chart.setAttribute("aria-label", `${chart.getAttribute("data-title") ?? "Curve"} ${said}`);
}
