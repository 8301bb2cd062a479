// Zoom and pan of SVG images that show the same part: by wheel, drag, pinch, double click and keys.
const MOST = 16;
const STEP = 1.5;
const KEYS = { "+": STEP, "=": STEP, "-": 1 / STEP };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Zoom {
  // `changed` is called with the new scale; 1 shows the whole image.
  constructor(images, changed = () => {}) {
    this.images = images;
    this.changed = changed;
    const { width, height } = images[0].viewBox.baseVal;
    this.whole = { width, height };
    this.pointers = new Map();
    this.show(1, 0, 0);
    for (const image of images) this.listen(image);
  }

  show(scale, x, y) {
    const { width, height } = this.whole;
    this.scale = Math.min(Math.max(scale, 1), MOST);
    const [w, h] = [width / this.scale, height / this.scale];
    this.x = Math.min(Math.max(x, 0), width - w);
    this.y = Math.min(Math.max(y, 0), height - h);
    for (const image of this.images) {
      image.setAttribute("viewBox", `${this.x} ${this.y} ${w} ${h}`);
      image.classList.toggle("zoomed", this.scale > 1);
    }
    this.changed(this.scale);
  }

  reset() {
    this.show(1, 0, 0);
  }

  // Zooms so that a point, by default the middle, stays in its place.
  by(factor, point = this.middle()) {
    const scale = Math.min(Math.max(this.scale * factor, 1), MOST);
    const ratio = this.scale / scale;
    this.show(scale, point.x - (point.x - this.x) * ratio, point.y - (point.y - this.y) * ratio);
  }

  move(right, down) {
    this.show(this.scale, this.x + right, this.y + down);
  }

  key(name) {
    const { width, height } = this.whole;
    if (name in KEYS) this.by(KEYS[name]);
    else if (name === "0") this.reset();
    else if (name in ARROWS && this.scale > 1) {
      const [right, down] = ARROWS[name];
      this.move((right * width) / this.scale / 8, (down * height) / this.scale / 8);
    } else return false;
    return true;
  }

  middle() {
    const { width, height } = this.whole;
    return { x: this.x + width / this.scale / 2, y: this.y + height / this.scale / 2 };
  }

  listen(image) {
    const at = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(image.getScreenCTM().inverse());
    image.addEventListener(
      "wheel",
      (event) => {
        if (event.deltaY > 0 && this.scale === 1) return; // the page scrolls
        event.preventDefault();
        const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1);
        this.by(Math.exp(-pixels / 400), at(event));
      },
      { passive: false },
    );
    image.addEventListener("dblclick", (event) => (this.scale > 1 ? this.reset() : this.by(3, at(event))));
    image.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      if (event.pointerType === "mouse") image.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event);
    });
    image.addEventListener("pointermove", (event) => this.drag(event, image));
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      image.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    image.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || !this.key(event.key)) return;
      event.preventDefault();
      event.stopPropagation(); // arrows would lead to another inspection
    });
  }

  drag(event, image) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const other = [...this.pointers.values()].find((one) => one.pointerId !== event.pointerId);
    this.pointers.set(event.pointerId, event);
    const unit = image.getScreenCTM().a; // pixels of the screen for one of the image
    const share = other ? 2 : 1; // of two fingers, each moves the image by half
    this.move((before.clientX - event.clientX) / unit / share, (before.clientY - event.clientY) / unit / share);
    if (!other) return;
    const distance = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    const middle = new DOMPoint((event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2);
    this.by(distance(event) / Math.max(distance(before), 1), middle.matrixTransform(image.getScreenCTM().inverse()));
  }
}
