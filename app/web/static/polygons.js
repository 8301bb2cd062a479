// Polygons of a region of interest while they are drawn; corners in pixels of the image.
const MAX_POLYGONS = 64;
const MAX_POINTS = 500;

export class Polygons {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.done = [];
    this.open = []; // the polygon that is being drawn
  }

  // Scales polygons from an image of another size.
  static from(region, width, height) {
    const made = new Polygons(width, height);
    const [sx, sy] = [width / region.image.width, height / region.image.height];
    made.done = region.polygons.map((one) => one.map(([x, y]) => made.clamp(x * sx, y * sy)));
    return made;
  }

  // Scales all polygons, including the open one, to an image of another size.
  resized(width, height) {
    const made = Polygons.from({ image: this, polygons: [...this.done, this.open] }, width, height);
    made.open = made.done.pop();
    return made;
  }

  clamp(x, y) {
    const inside = (value, max) => Math.round(Math.min(Math.max(value, 0), max) * 10) / 10;
    return [inside(x, this.width), inside(y, this.height)];
  }

  get empty() {
    return this.done.length === 0 && this.open.length === 0;
  }

  add(x, y) {
    if (this.open.length >= MAX_POINTS || this.done.length >= MAX_POLYGONS) return false;
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

  // Removes the last corner; without one, reopens the last polygon.
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

  // The nearest corner within a distance, as polygon (-1: the open one) and corner; null if there is none.
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

  // All corners in order, for keyboard navigation.
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
