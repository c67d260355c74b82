{
  const viewer = document.querySelector(".viewer");
  const pane = viewer.querySelector(".pane");
  const layers = viewer.querySelector(".layers");
  const slider = viewer.querySelector("input[type=range]");
  const [width, height] = [Number(viewer.dataset.width), Number(viewer.dataset.height)];
  let zoom = 1;

  // How far the slider is, as a share of the whole map and not of the part of it that is in view.
  const follow = () => {
    const view = pane.getBoundingClientRect();
    const map = layers.getBoundingClientRect();
    const at = (view.left + (view.width * slider.value) / 100 - map.left) / map.width;
    layers.style.setProperty("--at", `${100 * Math.min(1, Math.max(0, at))}%`);
  };
  const whole = () => Math.min(pane.clientWidth / width, pane.clientHeight / height);
  const lay = () => {
    layers.style.width = `${width * whole() * zoom}px`;
    layers.style.height = `${height * whole() * zoom}px`;
    layers.style.marginTop = `${Math.max(0, (pane.clientHeight - height * whole() * zoom) / 2)}px`;
    follow();
  };
  // Comes closer to the place at x and y of the window, which stays there.
  const come = (to, x, y) => {
    const before = layers.getBoundingClientRect();
    const share = [(x - before.left) / before.width, (y - before.top) / before.height];
    zoom = Math.min(Math.max(1, 4 * Math.min(width, 4096) / (width * whole())), Math.max(1, to));
    lay();
    const after = layers.getBoundingClientRect();
    pane.scrollLeft += after.left + share[0] * after.width - x;
    pane.scrollTop += after.top + share[1] * after.height - y;
    follow();
  };
  const middle = () => {
    const view = pane.getBoundingClientRect();
    return [view.left + view.width / 2, view.top + view.height / 2];
  };
  const show = (left, top, right, bottom) => {
    const fits = Math.min(pane.clientWidth / (right - left), pane.clientHeight / (bottom - top));
    come((0.9 * fits) / whole(), ...middle());
    const scale = whole() * zoom;
    pane.scrollLeft = ((left + right) / 2) * scale - pane.clientWidth / 2;
    pane.scrollTop = ((top + bottom) / 2) * scale - pane.clientHeight / 2;
    follow();
  };

  slider.addEventListener("input", follow);
  pane.addEventListener("scroll", follow);
  window.addEventListener("resize", lay);
  pane.addEventListener("wheel", (event) => {
    event.preventDefault();
    come(zoom * 1.002 ** -event.deltaY, event.clientX, event.clientY);
  }, { passive: false });
  viewer.querySelector(".zoom").addEventListener("click", (event) => {
    const to = { in: zoom * 1.5, out: zoom / 1.5, all: 1 }[event.target.dataset.zoom];
    if (to) come(to, ...middle());
  });

  let held = null;
  pane.addEventListener("pointerdown", (event) => {
    if (event.button === 0) held = { x: event.clientX, y: event.clientY, moved: false };
  });
  window.addEventListener("pointermove", (event) => {
    if (!held) return;
    const [dx, dy] = [event.clientX - held.x, event.clientY - held.y];
    if (!held.moved && Math.hypot(dx, dy) < 4) return;
    pane.scrollLeft -= dx;
    pane.scrollTop -= dy;
    held = { x: event.clientX, y: event.clientY, moved: true };
  });
  window.addEventListener("pointerup", (event) => {
    if (held && !held.moved) choose(event.target.closest(".overlay path"));
    held = null;
  });
  const choose = (building) => {
    document.querySelector(".chosen")?.classList.remove("chosen");
    building?.classList.add("chosen");
    if (building) document.getElementById("building").textContent = building.querySelector("title").textContent;
    document.getElementById("judge-pick")?.toggleAttribute("hidden", !building);
  };

  const buildings = [...layers.querySelectorAll("path")].map((path) => ({
    path, grade: path.dataset.grade, sure: Number(path.dataset.sure), area: Number(path.dataset.area),
  }));
  const confidence = document.getElementById("confidence");
  const filter = () => {
    const least = Number(confidence.value);
    const off = new Set((document.body.dataset.hidden ?? "").split(" "));
    let [count, area] = [0, 0];
    for (const building of buildings) {
      const unsure = building.sure < least;
      building.path.classList.toggle("unsure", unsure);
      if (unsure || off.has(building.grade)) continue;
      count += 1;
      area += building.area;
    }
    document.getElementById("least").textContent = least.toFixed(2);
    const [some, all, metres] = [count, buildings.length, Math.round(area)].map((value) => value.toLocaleString("en"));
    document.getElementById("shown").textContent = `${some} of ${all} buildings shown, ${metres} m²`;
  };
  document.addEventListener("change", filter);
  confidence.addEventListener("input", filter);

  for (const row of document.querySelectorAll("tr[data-box]")) {
    const go = () => {
      show(...row.dataset.box.split(" ").map(Number));
      viewer.scrollIntoView({ block: "nearest" });
    };
    row.addEventListener("click", go);
    row.addEventListener("keydown", (event) => event.key === "Enter" && go());
  }
  lay();
  filter();
}
