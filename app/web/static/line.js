// The line's view on the wall: the last part in large, yield and its trend, drift, full screen, sound on rejects.
import { showWarnings, SYMBOLS } from "./cards.js";
import { retry } from "./pictures.js";
import { number, percent, t } from "./texts.js";

const byId = (name) => document.getElementById(name);
const SPACE = "http://www.w3.org/2000/svg";
const SHOW_MS = 1000; // a faster line shows every part in the list, and some of them in large
const SOUND_MS = 1000;
const [WIDTH, HEIGHT, EDGE] = [300, 80, 6];

export class LineView {
  constructor() {
    this.next = null;
    this.timer = null;
    const image = byId("last").querySelector("img");
    if (image.getAttribute("src")) retry(image);
  }

  // Shows the last part, at most once a second. `one` comes from `toCard`.
  show(one) {
    if (one.id <= byId("last").dataset.shown) return;
    this.next = one;
    if (this.timer !== null) return;
    this.draw();
    this.timer = setTimeout(() => {
      this.timer = null;
      if (this.next) this.show(this.next);
    }, SHOW_MS);
  }

  draw() {
    const one = this.next;
    this.next = null;
    const last = byId("last");
    const field = (name) => last.querySelector(`[data-field="${name}"]`);
    last.dataset.shown = one.id;
    last.href = `/inspections/${one.id}${byId("inspections").dataset.query}`;
    last.className = `last ${one.decision}`;
    showWarnings(field("warnings"), one.warnings);
    field("symbol").textContent = SYMBOLS[one.decision];
    field("decision").textContent = t(`decision.${one.decision}`);
    field("what").textContent = [one.part ?? one.category, one.station].filter(Boolean).join(" · ");
    const image = last.querySelector("img").cloneNode(); // without the listeners of the image before
    image.hidden = field("gone").hidden = false;
    if (one.pictured) {
      image.src = `/inspections/${one.id}/overlay.jpg`;
      field("gone").hidden = true;
      retry(image);
    } else {
      image.hidden = true;
    }
    last.querySelector("img").replaceWith(image);
    byId("line-view").hidden = false;
  }

  // Counts by decision of the last hours.
  setYield(counts) {
    const total = Object.values(counts).reduce((sum, n) => sum + n, 0);
    byId("yield").textContent = total ? percent(counts.PASS / total) : "–";
  }

  // `trend` has the passed and all inspections of each half hour, the earliest first.
  setTrend(trend) {
    const points = trend.map(([passed, all], i) => [i, all ? passed / all : null]).filter(([, share]) => share !== null);
    const hour = trend.slice(-2).reduce(([passed, all], [p, a]) => [passed + p, all + a], [0, 0]);
    byId("last-hour").textContent = hour[1] ? t("script.wall.hour", { yield: percent(hour[0] / hour[1]), n: number(hour[1], 0) }) : "";
    const low = Math.min(...points.map(([, share]) => share), 0.99);
    const x = (i) => EDGE + (i / (trend.length - 1)) * (WIDTH - 2 * EDGE);
    const y = (share) => EDGE + ((1 - share) / (1 - low)) * (HEIGHT - 2 * EDGE);
    const add = (name, attributes) => {
      const made = document.createElementNS(SPACE, name);
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      return made;
    };
    byId("trend").replaceChildren(
      byId("trend").querySelector("title"),
      add("path", { class: "grid", d: `M0 ${EDGE}H${WIDTH}M0 ${HEIGHT - EDGE}H${WIDTH}` }),
      add("polyline", { points: points.map(([i, share]) => `${x(i)},${y(share)}`).join(" ") }),
      ...points.map(([i, share]) => add("circle", { cx: x(i), cy: y(share), r: 3 })),
    );
    byId("trend-low").textContent = percent(low);
  }

  // Categories with a drift alarm, each with its stations, or null for all others.
  setDrift(alarms) {
    const links = alarms.map(({ category, station }) =>
      Object.assign(document.createElement("a"), {
        href: `/models/${encodeURIComponent(category)}`,
        textContent: [category, station].filter(Boolean).join(" · "),
      }),
    );
    const text = [links, t("script.wall.drift")].flat().flatMap((one, i) => (i ? [" ", one] : ["▲ ", one]));
    if (byId("drift").textContent !== text.map((one) => one.textContent ?? one).join("")) byId("drift").replaceChildren(...text);
    byId("drift").hidden = alarms.length === 0;
  }
}

// Two falling tones at each reject, once a second at most. Off until it is switched on; remembered by the browser.
export class RejectSound {
  constructor(button) {
    this.button = button;
    this.played = 0;
    this.context = null;
    this.on = false;
    button.addEventListener("click", () => this.set(!this.on));
    try {
      if (localStorage.getItem("flowgauge.sound") === "on") this.set(true);
    } catch {
      // storage is disabled
    }
    // After a load, browsers allow sound only once the page is touched.
    for (const kind of ["pointerdown", "keydown"]) addEventListener(kind, () => this.on && this.context.resume());
  }

  set(on) {
    this.on = on;
    this.context ??= on ? new AudioContext() : null;
    this.button.setAttribute("aria-pressed", String(on));
    try {
      localStorage.setItem("flowgauge.sound", on ? "on" : "off");
    } catch {
      // see above
    }
  }

  play() {
    const now = Date.now();
    if (!this.on || now - this.played < SOUND_MS) return;
    this.played = now;
    const { context } = this;
    const [tone, volume] = [context.createOscillator(), context.createGain()];
    tone.frequency.setValueAtTime(880, context.currentTime);
    tone.frequency.setValueAtTime(620, context.currentTime + 0.18);
    volume.gain.setValueAtTime(0.25, context.currentTime);
    volume.gain.exponentialRampToValueAtTime(0.001, context.currentTime + 0.45);
    tone.connect(volume).connect(context.destination);
    tone.start();
    tone.stop(context.currentTime + 0.5);
  }
}

export function offerFullScreen(button) {
  const root = document.documentElement;
  button.hidden = !root.requestFullscreen;
  button.addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : root.requestFullscreen()));
  document.addEventListener("fullscreenchange", () => {
    const full = document.fullscreenElement !== null;
    root.classList.toggle("full-screen", full);
    button.setAttribute("aria-pressed", String(full));
  });
}
