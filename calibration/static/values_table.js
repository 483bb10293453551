// The values beside the saved ones, each open to the keyboard, and the lists of measured angles and speeds.

import { byId, el, text } from "./dom.js";
import { VALUES } from "./draft.js";

const shown = (value) => (value === null || value === undefined ? "–" : String(Math.round(value * 10) / 10));

export class ValuesTable {
  constructor(draft) {
    this.draft = draft;
    this.rows = VALUES.map((row) => this.row(row));
    byId("values").replaceChildren(...this.rows.map((row) => row.line));
    this.pairs = [
      this.list("points", "steering", "points", ["Angle", "°"], "add-point"),
      this.list("speeds", "throttle", "curve", ["Speed", "m/s"], "add-speed"),
    ];
    draft.listeners.add(() => this.paint());
  }

  row([part, name, label, unit, optional]) {
    const id = `value-${part}-${name}`;
    const input = el("input", {
      type: "number",
      id,
      inputmode: "decimal",
      step: "any",
      "aria-label": `${label}, new, ${unit}`,
    });
    const saved = el("td");
    input.addEventListener("input", () => {
      const value = input.value === "" ? (optional ? null : NaN) : Number(input.value);
      this.draft.set(part, name, value);
    });
    const line = el("tr", {}, el("th", { scope: "row" }, `${label} (${unit})`), saved, el("td", {}, input));
    return { part, name, input, saved, line };
  }

  paint() {
    const { now, saved } = this.draft;
    for (const { part, name, input, saved: cell, line } of this.rows) {
      const value = now[part][name];
      const before = saved?.[part][name] ?? null;
      text(cell, shown(before));
      if (document.activeElement !== input) {
        input.value = value === null || Number.isNaN(value) ? "" : Math.round(value * 10) / 10;
      }
      line.classList.toggle("changed", before !== value);
    }
    for (const list of this.pairs) {
      list.paint();
    }
  }

  list(id, part, name, [label, unit], addId) {
    const box = byId(id);
    const edit = (i, j, value) => {
      this.draft.now[part][name][i][j] = value === "" ? NaN : Number(value);
      this.draft.tell();
    };
    const remove = (i) => {
      this.draft.now[part][name].splice(i, 1);
      this.draft.tell();
    };
    const line = (i) => {
      const field = (j, words) => {
        const input = el("input", {
          type: "number",
          step: "any",
          inputmode: "decimal",
          "aria-label": `${words} ${i + 1}`,
        });
        input.addEventListener("input", () => edit(i, j, input.value));
        input.addEventListener("change", () => this.sort(part, name));
        return input;
      };
      const gone = el(
        "button",
        { type: "button", class: "button small", "aria-label": `Remove ${label.toLowerCase()} ${i + 1}` },
        "×",
      );
      gone.addEventListener("click", () => remove(i));
      return el(
        "li",
        {},
        field(0, `${label} in ${unit},`),
        el("span", {}, `${unit} at`),
        field(1, "Pulse in µs,"),
        el("span", {}, "µs"),
        gone,
      );
    };
    byId(addId).addEventListener("click", () => {
      this.draft.now[part][name].push([NaN, NaN]);
      this.draft.tell();
      box.lastElementChild.querySelector("input").focus();
    });
    const paint = () => {
      const pairs = this.draft.now[part][name];
      if (box.childElementCount !== pairs.length) {
        box.replaceChildren(...pairs.map((_, i) => line(i)));
      }
      pairs.forEach((pair, i) => {
        box.children[i].querySelectorAll("input").forEach((input, j) => {
          if (document.activeElement !== input) {
            input.value = pair[j] === null || Number.isNaN(pair[j]) ? "" : pair[j];
          }
        });
      });
    };
    return { paint };
  }

  // In ascending order, as the car wants them; half-typed ones stay at the end.
  sort(part, name) {
    const order = (value) => (value === null || Number.isNaN(value) ? Infinity : value);
    this.draft.now[part][name].sort((a, b) => (order(a[0]) < order(b[0]) ? -1 : order(a[0]) > order(b[0]) ? 1 : 0));
    this.draft.tell();
  }
}
