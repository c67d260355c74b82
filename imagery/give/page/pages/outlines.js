// The buildings of a page that holds them all, as paths over its two images.
class Source {
  constructor({ layers, width }) {
    this.paths = new Map([...layers.querySelectorAll("path")].map((path) => [Number(path.dataset.row), path]));
    this.buildings = [...this.paths.values()].map((path) => ({
      path, grade: path.dataset.grade, sure: Number(path.dataset.sure), area: Number(path.dataset.area),
    }));
    this.closest = (4 * Math.min(width, 4096)) / width; // pixels of the screen, of one of the map
  }

  // The browser does it.
  draw() {}

  // What is said of the building under the mouse.
  choose(event) {
    const building = event.target.closest(".overlay path");
    document.querySelector(".chosen")?.classList.remove("chosen");
    building?.classList.add("chosen");
    document.getElementById("judge-pick")?.toggleAttribute("hidden", !building);
    return building?.querySelector("title").textContent;
  }

  // least: confidence; off: grades that are not shown.
  filter(least, off) {
    let [count, area] = [0, 0];
    for (const building of this.buildings) {
      const unsure = building.sure < least;
      building.path.classList.toggle("unsure", unsure);
      if (unsure || off.has(building.grade)) continue;
      count += 1;
      area += building.area;
    }
    return { count, all: this.buildings.length, area };
  }

  // What judging needs of this page, by name.
  async judging() {
    const names = ["order", "known", "polygons", "pictures", "squares"];
    return Object.fromEntries(names.map((name) => [name, JSON.parse(document.getElementById(`judge-${name}`).textContent)]));
  }

  // Of a row of the map's table, as a path.
  outlineOf(row) {
    return this.paths.get(row)?.getAttribute("d") ?? "";
  }
}
