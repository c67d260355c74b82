// The two pictures of the judge mode, before and after: what is outlined, how close they are, and their scale.
const ZOOMS = [1, 2, 4];

class Looks {
  // metres: of a pixel of the map.
  constructor(dialog, metres) {
    [this.dialog, this.metres] = [dialog, metres];
    this.zoom = 1; // of ZOOMS
    this.isWhole = false;
  }

  // isWhole: all of what is shown is in sight, black beside it; else the place is filled, and closer at first.
  use(isWhole) {
    if (isWhole === this.isWhole) return;
    [this.isWhole, this.zoom] = [isWhole, isWhole ? 0 : 1];
    for (const svg of this.dialog.querySelectorAll(".look svg"))
      svg.setAttribute("preserveAspectRatio", `xMidYMid ${isWhole ? "meet" : "slice"}`);
  }

  // view: left, top and side of what is shown, in pixels of the map; images: before and after, which cover place: left,
  // top, width and height; outline: a path; box: left, top, right and bottom of a frame.
  show([left, top, side], [before, after], place, outline, box = [0, 0, 0, 0]) {
    for (const [figure, ...sources] of [["#judge-before", before], ["#judge-after", after, before]]) {
      const look = this.dialog.querySelector(figure);
      look.querySelector("svg").setAttribute("viewBox", `${left} ${top} ${side} ${side}`);
      look.querySelector("path").setAttribute("d", outline);
      look.querySelectorAll("image").forEach((image, number) => {
        image.setAttribute("href", sources[number]);
        ["x", "y", "width", "height"].forEach((name, part) => image.setAttribute(name, place[part]));
      });
      const frame = [box[0], box[1], box[2] - box[0], box[3] - box[1]];
      ["x", "y", "width", "height"].forEach((name, part) => look.querySelector("rect").setAttribute(name, frame[part]));
    }
    this.measure();
  }

  // The scale bar: a round number of metres, as long as fits.
  measure() {
    const side = Number(this.dialog.querySelector("#judge-after svg").getAttribute("viewBox").split(" ")[2]);
    for (const look of this.dialog.querySelectorAll(".look")) {
      const size = Math[this.isWhole ? "min" : "max"](look.clientWidth, look.clientHeight);
      const pixels = (size * ZOOMS[this.zoom]) / side / this.metres; // of a metre
      const most = (0.3 * look.clientWidth) / pixels;
      const power = 10 ** Math.floor(Math.log10(most));
      const metres = power * [5, 2, 1].find((part) => part * power <= most);
      look.querySelector(".scale").style.width = `${metres * pixels}px`;
      look.querySelector(".scale").textContent = `${Number(metres.toPrecision(1))} m`;
    }
    this.dialog.style.setProperty("--zoom", ZOOMS[this.zoom]);
    this.dialog.querySelector("[data-do=zoom] output").textContent = `${ZOOMS[this.zoom]}×`;
  }

  come() {
    this.zoom = (this.zoom + 1) % ZOOMS.length;
    this.measure();
  }
}
