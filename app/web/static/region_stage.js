// Drawing of polygons on an image, with a pointer or with keys.
const SPACE = "http://www.w3.org/2000/svg";
const GRAB = 14; // screen pixels within which a corner is grabbed

export class Stage {
  // `changed` is called after every change, `said` with a message key and values to read out.
  constructor(root, { changed, said, writable }) {
    this.root = root;
    this.canvas = root.querySelector("canvas");
    this.svg = root.querySelector("svg");
    this.changed = changed;
    this.said = said;
    this.cursor = null; // keyboard cursor, in pixels of the image
    this.held = null; // the corner that is dragged or moved by keys
    if (!writable) return;
    root.addEventListener("pointerdown", (event) => this.press(event));
    root.addEventListener("pointermove", (event) => this.drag(event));
    root.addEventListener("pointerup", (event) => this.release(event));
    root.addEventListener("dblclick", () => this.finish());
    root.addEventListener("keydown", (event) => this.key(event));
    root.addEventListener("blur", () => {
      this.cursor = this.held = null;
      this.draw();
    });
  }

  show(bitmap, polygons) {
    this.polygons = polygons;
    this.canvas.width = bitmap.width;
    this.canvas.height = bitmap.height;
    this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
    this.svg.setAttribute("viewBox", `0 0 ${polygons.width} ${polygons.height}`);
    this.draw();
  }

  get scale() {
    return this.polygons.width / Math.max(this.svg.getBoundingClientRect().width, 1);
  }

  place(event) {
    const box = this.svg.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * this.polygons.width, ((event.clientY - box.top) / box.height) * this.polygons.height];
  }

  press(event) {
    if (!this.polygons || event.button !== 0) return;
    const [x, y] = this.place(event);
    const near = this.polygons.near(x, y, GRAB * this.scale);
    this.root.setPointerCapture(event.pointerId);
    this.cursor = null;
    this.start = { near, x: event.clientX, y: event.clientY, dragged: false };
  }

  drag(event) {
    if (!this.start?.near) return;
    this.start.dragged ||= Math.hypot(event.clientX - this.start.x, event.clientY - this.start.y) > 4;
    if (!this.start.dragged) return;
    this.polygons.move(this.start.near, ...this.place(event));
    this.update();
  }

  release(event) {
    const start = this.start;
    this.start = null;
    if (!start || start.dragged) return;
    const first = start.near?.polygon === -1 && start.near.corner === 0;
    if (first && this.polygons.canFinish()) this.finish();
    else if (!start.near) this.corner(...this.place(event));
  }

  corner(x, y) {
    if (this.polygons.add(x, y)) this.tell("script.region.corner", this.polygons.open.at(-1));
    this.update();
  }

  finish() {
    if (this.polygons?.finish()) this.said("script.region.finished", { n: this.polygons.done.length });
    this.update();
  }

  tell(key, [x, y]) {
    this.said(key, { x: Math.round(x), y: Math.round(y), n: this.polygons.open.length });
  }

  key(event) {
    if (!this.polygons || event.ctrlKey || event.altKey || event.metaKey) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const acts = {
      Enter: () => (event.shiftKey ? this.finish() : this.corner(...this.cursor)),
      " ": () => this.corner(...this.cursor),
      f: () => this.finish(),
      Backspace: () => this.undo(),
      Delete: () => this.undo(),
      n: () => this.next(),
      Escape: () => {
        this.held = null;
        this.draw();
      },
    };
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!arrows[name] && !acts[name]) return;
    event.preventDefault();
    this.cursor ??= [this.polygons.width / 2, this.polygons.height / 2];
    if (acts[name]) return acts[name]();
    const step = Math.max(this.polygons.width, this.polygons.height) * (event.shiftKey ? 0.002 : 0.02);
    this.cursor = this.polygons.clamp(this.cursor[0] + arrows[name][0] * step, this.cursor[1] + arrows[name][1] * step);
    if (this.held) this.polygons.move(this.held, ...this.cursor);
    this.tell("script.region.at", this.cursor);
    return this.held ? this.update() : this.draw();
  }

  // Selects the next corner, which the arrow keys then move.
  next() {
    const all = this.polygons.corners();
    if (!all.length) return;
    const now = all.findIndex((one) => one.polygon === this.held?.polygon && one.corner === this.held?.corner);
    this.held = all[(now + 1) % all.length];
    this.cursor = [...this.polygons.at(this.held)];
    this.tell("script.region.held", this.cursor);
    this.draw();
  }

  undo() {
    this.held = null;
    this.polygons.undo();
    this.said("script.region.undone", {});
    this.update();
  }

  update() {
    this.draw();
    this.changed();
  }

  draw() {
    const { width, height, done, open } = this.polygons;
    const r = 5 * this.scale;
    const made = [];
    const add = (name, attributes) => {
      const one = document.createElementNS(SPACE, name);
      for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
      made.push(one);
    };
    const path = (polygon) => `M${polygon.map((corner) => corner.join(" ")).join("L")}Z`;
    if (done.length) add("path", { class: "outside", "fill-rule": "evenodd", d: `M0 0H${width}V${height}H0Z${done.map(path).join("")}` });
    for (const polygon of done) add("path", { class: "inside", d: path(polygon) });
    if (open.length) add("polyline", { class: "open", points: open.join(" ") });
    for (const one of this.polygons.corners()) {
      const [cx, cy] = this.polygons.at(one);
      const held = this.held && one.polygon === this.held.polygon && one.corner === this.held.corner;
      add("circle", { class: held ? "corner held" : one.polygon < 0 && one.corner === 0 ? "corner first" : "corner", cx, cy, r: held ? 1.6 * r : r });
    }
    if (this.cursor) {
      const [x, y] = this.cursor;
      add("path", { class: "cursor", d: `M${x - 4 * r} ${y}H${x + 4 * r}M${x} ${y - 4 * r}V${y + 4 * r}` });
    }
    this.svg.replaceChildren(...made);
  }
}
