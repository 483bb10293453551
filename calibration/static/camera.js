// The live picture. It is one endless answer: closed while the page is hidden, asked for again when it broke.

import { text } from "./dom.js";

const AGAIN_MS = 2000;
const OLD_MS = 1500;
const SOURCE = "/route?topic=/camera_pkg/display_mjpeg&width=480&height=360";

export class Camera {
  constructor(picture, note) {
    Object.assign(this, { picture, note, timer: null, broken: false, paused: false });
    picture.addEventListener("error", () => this.fail());
    picture.addEventListener("load", () => this.tell(""));
    document.addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.open()));
    window.addEventListener("pagehide", () => this.close());
    window.addEventListener("pageshow", () => this.open());
    this.open();
  }

  open() {
    if (!document.hidden && !this.paused && !this.picture.hasAttribute("src")) {
      this.picture.src = `${SOURCE}&n=${Math.random().toString(36).slice(2)}`; // an answer of its own each time
    }
  }

  close() {
    clearTimeout(this.timer);
    this.picture.removeAttribute("src");
  }

  /** Where the picture is not to be seen for a while. */
  pause() {
    this.paused = true;
    this.close();
  }

  resume() {
    this.paused = false;
    this.open();
  }

  fail() {
    if (!this.picture.hasAttribute("src")) {
      return;
    }
    this.broken = true;
    this.tell("No picture. Trying again…");
    this.close();
    this.timer = setTimeout(() => this.open(), AGAIN_MS);
  }

  tell(words) {
    this.broken = words !== "" && this.broken;
    text(this.note, words);
    this.note.hidden = words === "";
  }

  /** A frozen picture looks like a live one: say how old it is. */
  judge(state) {
    if (this.broken) {
      return;
    }
    if (state === null) {
      this.tell("No connection: this picture is old.");
    } else if (state.frameAgeMs === null) {
      this.tell("The camera has not given a picture yet.");
    } else if (state.frameAgeMs > OLD_MS) {
      this.tell(`This picture is ${(state.frameAgeMs / 1000).toFixed(0)} s old.`);
    } else {
      this.tell("");
    }
  }
}
