// The judge mode for what the map missed: drawn squares one by one, in which people count buildings without an outline.
class Missed {
  // drawn: of the page's squares pictures, boxes, polygons and rows; outlineOf: the path of a row of the map's table.
  constructor(dialog, judgements, drawn, looks, outlineOf) {
    Object.assign(this, { dialog, judgements, drawn, looks, outlineOf });
    [this.rank, this.field] = [0, "missed"]; // field: which of the two numbers the keys change
    this.stopwatch = new Stopwatch();
  }

  goOn() {
    this.goTo(this.judgements.counted);
  }

  goTo(rank) {
    this.rank = Math.max(0, Math.min(rank, this.drawn.pictures.length - 1));
    this.field = "missed";
    this.stopwatch.start();
    const [left, top, side, ...images] = this.drawn.pictures[this.rank];
    const outline = this.drawn.rows[this.rank].map(this.outlineOf).join("");
    this.looks.show([left, top, side], images, [left, top, side, side], outline, this.drawn.boxes[this.rank]);
    this.tell();
  }

  put(missed, damaged) {
    this.judgements.putSquare(this.rank, missed, damaged, this.stopwatch.seconds);
    this.tell();
  }

  // Of missed buildings none can be more damaged than there are.
  set(value) {
    let { missed, damaged } = this.own ?? { missed: 0, damaged: 0 };
    if (this.field === "missed") [missed, damaged] = [value, Math.min(damaged, value)];
    else [missed, damaged] = [Math.max(missed ?? 0, value), value];
    this.put(missed, damaged);
  }

  step(by) {
    this.set(Math.max(0, (this.own?.[this.field] ?? 0) + by));
  }

  next() {
    if (!this.own) this.put(0, 0);
    this.goTo(this.rank + 1);
  }

  back() {
    this.goTo(this.rank - 1);
  }

  unseen() {
    this.put(null, 0);
    this.goTo(this.rank + 1);
  }

  // Whether the key means something here.
  press(key, digit) {
    if (digit !== null) this.set(Number(digit));
    else if (key === "+" || key === "=") this.step(1);
    else if (key === "-") this.step(-1);
    else if (key === "u") this.unseen();
    else if (key === "d") this.take(this.field === "missed" ? "damaged" : "missed");
    else return false;
    return true;
  }

  take(field) {
    this.field = field;
    this.tell();
  }

  get own() {
    return this.judgements.bySquare.get(this.rank);
  }

  tell() {
    const at = (selector) => this.dialog.querySelector(selector);
    const { judgements, own } = this;
    const all = judgements.allSquares;
    const done = judgements.counted;
    at("#judge-progress").textContent = `${done} of ${this.drawn.pictures.length} squares counted`;
    at("#judge-which").textContent = `square drawn as number ${this.rank + 1}`;
    for (const part of this.dialog.querySelectorAll("[data-count]")) {
      part.classList.toggle("taken", part.dataset.count === this.field);
      part.querySelector("output").textContent = own ? (own[part.dataset.count] ?? "?") : 0;
    }
    at("[data-do=unseen]").classList.toggle("given", own?.missed === null);
    at("#judge-said").textContent = [
      "Count buildings without an outline whose middle lies in the frame; next keeps the count.",
      own && (own.missed === null ? "Kept: nothing can be seen." : `Kept: ${own.missed} missed, ${own.damaged} of them damaged.`),
      done >= this.drawn.pictures.length && "All squares that have pictures are counted.",
    ].filter(Boolean).join(" ");
    const sums = judgements.sumOfSquares;
    at("#judge-about").textContent = [
      `In ${done} of ${all} squares ${sums.missed} missed, ${sums.damaged} of them damaged.`,
      done > 0 && `In all squares that makes about ${Math.round((all * sums.missed) / done)}, ${Math.round((all * sums.damaged) / done)} of them damaged; assess says how far that holds.`,
      sums.unseen && `${sums.unseen} show nothing.`,
      !judgements.isKept && "This browser keeps nothing: download the judgements before you close the page.",
    ].filter(Boolean).join(" ");
  }
}
