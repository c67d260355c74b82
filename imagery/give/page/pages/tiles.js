// The buildings and images of a page that loads them as they come into sight, from the folder beside it. A page that was
// opened from a disk may load scripts and images and nothing else: what the folder holds are images, and scripts that
// call `loaded` with their name and what they hold.
const loaded = (name, content) => Files.got(name, content);

class Files {
  static waiting = new Map();

  static got(name, content) {
    Files.waiting.get(name)?.(content);
    Files.waiting.delete(name);
  }

  static miss(name) {
    document.getElementById("building").textContent = `report/${name} cannot be loaded. Keep the folder report beside this page.`;
  }

  // done: told the content, or null where the file is missing.
  static load(name, done) {
    if (Files.waiting.has(name)) return;
    Files.waiting.set(name, done);
    const script = document.createElement("script");
    script.src = `report/${name}.js`;
    script.onload = () => script.remove();
    script.onerror = () => {
      script.remove();
      Files.miss(`${name}.js`);
      Files.got(name, null);
    };
    document.head.append(script);
  }
}

// A square's buildings, as its file has them.
class Quarter {
  constructor(content) {
    Object.assign(this, content);
    const count = this.rows.length;
    [this.starts, this.boxes] = [[], new Float64Array(4 * count)]; // of rings in `outlines`
    this.outlines = [];
    let [x, y, corner, ring] = [0, 0, 0, count];
    for (let building = 0; building < count; building += 1) {
      this.starts.push(this.outlines.length);
      const box = [Infinity, Infinity, -Infinity, -Infinity];
      for (let number = 0; number < this.rings[building]; number += 1) {
        const points = new Float64Array(2 * this.rings[ring]);
        for (let place = 0; place < points.length; place += 2) {
          x += this.corners[corner];
          y += this.corners[corner + 1];
          corner += 2;
          [points[place], points[place + 1]] = [x / 10, y / 10];
          box[0] = Math.min(box[0], x / 10);
          box[1] = Math.min(box[1], y / 10);
          box[2] = Math.max(box[2], x / 10);
          box[3] = Math.max(box[3], y / 10);
        }
        this.outlines.push(points);
        ring += 1;
      }
      this.boxes.set(box, 4 * building);
    }
    this.starts.push(this.outlines.length);
  }

  path(building, path = new Path2D()) {
    for (let ring = this.starts[building]; ring < this.starts[building + 1]; ring += 1) {
      const points = this.outlines[ring];
      path.moveTo(points[0], points[1]);
      for (let place = 2; place < points.length; place += 2) path.lineTo(points[place], points[place + 1]);
      path.closePath();
    }
    return path;
  }

  // A path for each grade of the buildings that are sure enough.
  paths(least) {
    if (this.least !== least) {
      [this.least, this.drawn] = [least, new Map()];
      this.rows.forEach((_, building) => {
        const grade = this.grades[building];
        if (this.sure[building] < 1000 * least) return;
        if (!this.drawn.has(grade)) this.drawn.set(grade, new Path2D());
        this.path(building, this.drawn.get(grade));
      });
    }
    return this.drawn;
  }
}

class Source {
  constructor(map) {
    this.map = map;
    Object.assign(this, JSON.parse(document.getElementById("tiles").textContent));
    this.canvas = map.viewer.querySelector("canvas");
    this.tiles = [...map.layers.querySelectorAll(".tiles")];
    this.closest = 4; // pixels of the screen, of one of the map
    [this.least, this.off, this.chosen] = [0, new Set(), null];
    [this.kept, this.shown] = [new Map(), new Map()]; // contents by name; images by name
    const keys = document.querySelector(".legend");
    this.looks = this.names.map((_, grade) => {
      const style = getComputedStyle(keys.querySelector(`.grade${grade}`) ?? keys);
      const dashes = style.strokeDasharray === "none" ? [] : style.strokeDasharray.split(",").map(parseFloat);
      return { line: style.stroke, fill: style.fill, dashes, width: parseFloat(style.strokeWidth) || 2 };
    });
  }

  static MOST = 12000; // buildings that are drawn one by one
  static KEPT = 96; // files whose content is kept

  // What a file holds, undefined until it is there; then the map is drawn again.
  content(name, made = (content) => content) {
    const known = this.kept.get(name);
    if (known !== undefined) {
      this.kept.delete(name);
      this.kept.set(name, known); // the last one used comes last
      return known;
    }
    Files.load(name, (content) => {
      this.kept.set(name, content && made(content));
      this.draw();
    });
    return undefined;
  }

  // Once a frame.
  draw() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.drawNow();
    });
  }

  drawNow() {
    const { map, canvas } = this;
    const [view, layers] = [map.pane.getBoundingClientRect(), map.layers.getBoundingClientRect()];
    const [scale, dense] = [map.scale, window.devicePixelRatio];
    const [left, top] = [view.left - layers.left, view.top - layers.top];
    const box = [left, top, left + view.width, top + view.height].map((side) => side / scale);
    this.drawImages(box, scale * dense);
    [canvas.width, canvas.height] = [view.width, view.height].map((side) => Math.round(side * dense));
    const context = canvas.getContext("2d");
    context.setTransform(scale * dense, 0, 0, scale * dense, -left * dense, -top * dense);
    const inSight = this.quarters.filter(([, ...own]) => meet(own, box));
    this.isClose = inSight.reduce((sum, own) => sum + own[5], 0) <= Source.MOST;
    if (this.isClose) this.drawOutlines(context, inSight, scale);
    else this.drawCounts(context, box, scale);
    this.tell?.();
    for (const name of this.kept.keys()) {
      if (this.kept.size <= Source.KEPT) break;
      this.kept.delete(name);
    }
  }

  drawOutlines(context, inSight, scale) {
    this.inSight = inSight.map(([name]) => this.content(`buildings/${name}`, (content) => new Quarter(content))).filter(Boolean);
    this.looks.forEach(({ line, fill, dashes, width }, grade) => {
      if (this.off.has(String(grade))) return;
      Object.assign(context, { strokeStyle: line, fillStyle: fill, lineWidth: (width * Math.min(1, Math.max(0.5, scale))) / scale });
      context.setLineDash(dashes.map((dash) => dash / scale));
      for (const quarter of this.inSight) {
        const path = quarter.paths(this.least).get(grade);
        if (!path) continue;
        context.globalAlpha = 0.12;
        if (fill !== "none") context.fill(path, "evenodd");
        context.globalAlpha = 1;
        context.stroke(path);
      }
    });
    if (!this.chosen) return;
    Object.assign(context, { strokeStyle: "#fff", lineWidth: 4 / scale });
    context.setLineDash([]);
    context.stroke(this.chosen);
  }

  // A circle for each square with buildings, as large as there are many, and cut by their grades.
  drawCounts(context, box, scale) {
    const number = Math.max(0, this.counts.findLastIndex(([side]) => side * scale >= 14));
    const [side, ofFile] = this.counts[number];
    const [left, top, right, bottom] = box.map((place) => Math.floor(place / ofFile));
    this.circles = [];
    for (let row = Math.max(0, top); row <= bottom; row += 1)
      for (let column = Math.max(0, left); column <= right; column += 1)
        if (column * ofFile < this.map.width && row * ofFile < this.map.height)
          this.circles.push(...(this.content(`counts/${number}_${column}_${row}`) ?? []));
    const most = this.circles.reduce((found, own) => Math.max(found, sum(own.slice(4))), 1);
    for (const circle of this.circles) {
      const counts = circle.slice(4).map((own, grade) => (this.off.has(String(grade)) ? 0 : own));
      const all = sum(counts);
      if (!all) continue;
      const radius = Math.max(2 / scale, 0.45 * side * Math.sqrt(all / most));
      let turned = -Math.PI / 2;
      counts.forEach((own, grade) => {
        if (!own) return;
        const until = turned + (2 * Math.PI * own) / all;
        context.beginPath();
        context.moveTo(circle[2], circle[3]);
        context.arc(circle[2], circle[3], radius, turned, until);
        context.fillStyle = grade ? this.looks[grade].line : "#999";
        context.globalAlpha = grade > 1 ? 0.95 : 0.45; // the image stays in sight where nothing is damaged
        context.fill();
        context.globalAlpha = 1;
        turned = until;
      });
      context.beginPath();
      context.arc(circle[2], circle[3], radius, 0, 2 * Math.PI);
      Object.assign(context, { strokeStyle: "rgb(0 0 0 / 60%)", lineWidth: 1 / scale });
      context.stroke();
    }
  }

  // The tiles of both images in sight, over coarser ones, which go when these are there.
  drawImages(box, scale) {
    const sharp = this.images.findIndex(([factor]) => factor * scale <= 1.5);
    const level = sharp < 0 ? this.images.length - 1 : sharp;
    const needed = new Set(this.tilesOf(0, [0, 0, this.map.width, this.map.height]).concat(this.tilesOf(level, box)));
    const isThere = [...needed].every((name) => this.shown.get(name)?.every((image) => image.complete));
    if (isThere)
      for (const [name, images] of this.shown) {
        if (needed.has(name)) continue;
        images.forEach((image) => image.remove());
        this.shown.delete(name);
      }
  }

  tilesOf(level, box) {
    const [factor, columns, rows] = this.images[level];
    const side = 512 * factor;
    const [left, top, right, bottom] = box.map((place) => Math.floor(place / side));
    const names = [];
    for (let row = Math.max(0, top); row <= Math.min(bottom, rows - 1); row += 1)
      for (let column = Math.max(0, left); column <= Math.min(right, columns - 1); column += 1) {
        const name = `${columns}_${column}_${row}`;
        names.push(name);
        if (!this.shown.has(name)) this.shown.set(name, this.addTiles(name, level, side, column, row));
      }
    return names;
  }

  addTiles(name, level, side, column, row) {
    const { width, height } = this.map;
    return ["before", "after"].map((when, number) => {
      const image = new Image();
      image.decoding = "async";
      image.alt = "";
      image.onload = () => this.draw();
      image.onerror = () => Files.miss(`images/${when}_${name}.jpg`);
      const place = { left: (column * side) / width, top: (row * side) / height };
      const size = { width: Math.min(side, width - column * side) / width, height: Math.min(side, height - row * side) / height };
      for (const [key, share] of Object.entries({ ...place, ...size })) image.style[key] = `${100 * share}%`;
      image.style.zIndex = level;
      image.src = `report/images/${when}_${name}.jpg`;
      this.tiles[number].append(image);
      return image;
    });
  }

  choose(event) {
    const layers = this.map.layers.getBoundingClientRect();
    const [x, y] = [(event.clientX - layers.left) / this.map.scale, (event.clientY - layers.top) / this.map.scale];
    this.chosen = null;
    const said = this.isClose ? this.chooseBuilding(x, y) : this.chooseCircle(x, y);
    this.draw();
    return said;
  }

  chooseBuilding(x, y) {
    const context = this.canvas.getContext("2d");
    context.save();
    context.resetTransform();
    let found = null;
    for (const quarter of this.inSight)
      quarter.rows.forEach((row, building) => {
        const [left, top, right, bottom] = quarter.boxes.subarray(4 * building, 4 * building + 4);
        const grade = quarter.grades[building];
        if (x < left || x > right || y < top || y > bottom || this.off.has(String(grade))) return;
        if (quarter.sure[building] < 1000 * this.least || grade < (found?.grade ?? -1)) return;
        const path = quarter.path(building);
        if (context.isPointInPath(path, x, y, "evenodd")) found = { quarter, building, grade, path };
      });
    context.restore();
    if (!found) return null;
    this.chosen = found.path;
    const { quarter, building, grade } = found;
    const id = quarter.ids[building] ?? quarter.rows[building] + 1;
    const sure = grade ? `, confidence ${(quarter.sure[building] / 1000).toFixed(2)}` : "";
    const [latitude, longitude] = quarter.places.slice(2 * building, 2 * building + 2).map((value) => value.toFixed(6));
    return `Building ${id}: ${this.names[grade]}${sure}, ${quarter.areas[building].toLocaleString("en")} m², at ${latitude} ${longitude}`;
  }

  chooseCircle(x, y) {
    const distance = ([, , column, row]) => Math.hypot(column - x, row - y);
    const nearest = this.circles.reduce((one, other) => (!one || distance(other) < distance(one) ? other : one), null);
    if (!nearest || distance(nearest) * this.map.scale > 40) return null;
    const counts = nearest.slice(4);
    const said = counts.map((own, grade) => own && `${own.toLocaleString("en")} ${this.names[grade]}`).filter(Boolean);
    return `${sum(counts).toLocaleString("en")} buildings around here: ${said.join(", ")}. Come closer to see each.`;
  }

  // least: confidence; off: grades that are not shown. The circles hold all, however sure.
  filter(least, off) {
    Object.assign(this, { least, off });
    this.draw();
    const first = Math.round(100 * least);
    const total = (kind, from) => sum(this.sums[kind].map((own, grade) => (off.has(String(grade)) && from !== null ? 0 : sum(own.slice(from ?? 0)))));
    const more = least > 0 ? "; circles show how many there are, however sure" : "";
    return { count: total("buildings", first), all: total("buildings", null), area: total("areas", first), more };
  }

  // What judging needs of this page, by name.
  async judging() {
    this.judged ??= await new Promise((done) => Files.load("judge", done));
    return this.judged;
  }

  outlineOf(row) {
    return this.judged.outlines[row] ?? "";
  }
}

const meet = (one, other) => one[0] < other[2] && one[2] > other[0] && one[1] < other[3] && one[3] > other[1];
const sum = (numbers) => numbers.reduce((total, own) => total + own, 0);
