// The polygons of a region of interest as they are drawn: corners in the pixels of the picture.
const MOST_POLYGONS = 64;
const MOST_POINTS = 500;

export class Polygons {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.done = [];
    this.open = []; // the one that is being drawn
  }

  // Polygons that were drawn on a picture of another size.
  static from(region, width, height) {
    const made = new Polygons(width, height);
    const [sx, sy] = [width / region.image.width, height / region.image.height];
    made.done = region.polygons.map((one) => one.map(([x, y]) => made.clamp(x * sx, y * sy)));
    return made;
  }

  // The same on a picture of another size, with the one that is being drawn.
  resized(width, height) {
    const made = Polygons.from({ image: this, polygons: [...this.done, this.open] }, width, height);
    made.open = made.done.pop();
    return made;
  }

  clamp(x, y) {
    const inside = (value, most) => Math.round(Math.min(Math.max(value, 0), most) * 10) / 10;
    return [inside(x, this.width), inside(y, this.height)];
  }

  get empty() {
    return this.done.length === 0 && this.open.length === 0;
  }

  add(x, y) {
    if (this.open.length >= MOST_POINTS || this.done.length >= MOST_POLYGONS) return false;
    this.open.push(this.clamp(x, y));
    return true;
  }

  canFinish() {
    return this.open.length >= 3 && area(this.open) >= 1;
  }

  finish() {
    if (!this.canFinish()) return false;
    this.done.push(this.open);
    this.open = [];
    return true;
  }

  // Takes back the last corner; without one, opens the last polygon again.
  undo() {
    if (this.open.length) this.open.pop();
    else if (this.done.length) this.open = this.done.pop();
  }

  whole() {
    this.open = [];
    this.done = [[[0, 0], [this.width, 0], [this.width, this.height], [0, this.height]]];
  }

  clear() {
    this.open = [];
    this.done = [];
  }

  // The corner within a distance of a place: which polygon (-1: the open one) and which corner, or null.
  near(x, y, distance) {
    let best = null;
    const look = (polygon, p) =>
      polygon.forEach((corner, i) => {
        const far = Math.hypot(corner[0] - x, corner[1] - y);
        if (far <= distance && (best === null || far < best.far)) best = { polygon: p, corner: i, far };
      });
    this.done.forEach(look);
    look(this.open, -1);
    return best;
  }

  move({ polygon, corner }, x, y) {
    (polygon < 0 ? this.open : this.done[polygon])[corner] = this.clamp(x, y);
  }

  // All corners in their order, for going through them by key.
  corners() {
    const of = (polygon, p) => polygon.map((_, corner) => ({ polygon: p, corner }));
    return [...this.done.flatMap(of), ...of(this.open, -1)];
  }

  at({ polygon, corner }) {
    return (polygon < 0 ? this.open : this.done[polygon])[corner];
  }

  share() {
    const sum = this.done.reduce((total, one) => total + area(one), 0);
    return Math.min(1, sum / (this.width * this.height));
  }

  body() {
    return { image: { width: this.width, height: this.height }, polygons: this.done };
  }
}

function area(polygon) {
  let twice = 0;
  polygon.forEach(([x, y], i) => {
    const [nx, ny] = polygon[(i + 1) % polygon.length];
    twice += x * ny - nx * y;
  });
  return Math.abs(twice) / 2;
}
