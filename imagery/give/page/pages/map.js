// The viewer of a map: moved by mouse, touch and wheel; what it shows of the buildings comes from a Source.
const map = (() => {
  const viewer = document.querySelector(".viewer");
  const pane = viewer.querySelector(".pane");
  const layers = viewer.querySelector(".layers");
  const slider = viewer.querySelector("input[type=range]");
  const [width, height] = [Number(viewer.dataset.width), Number(viewer.dataset.height)];
  let zoom = 1;

  const whole = () => Math.min(pane.clientWidth / width, pane.clientHeight / height);
  const map = { viewer, pane, layers, width, height, get scale() { return whole() * zoom; } };
  const source = new Source(map);
  map.source = source;

  // How far the slider is, as a share of the whole map and not of the part of it that is in view.
  const follow = () => {
    const view = pane.getBoundingClientRect();
    const all = layers.getBoundingClientRect();
    const at = (view.left + (view.width * slider.value) / 100 - all.left) / all.width;
    layers.style.setProperty("--at", `${100 * Math.min(1, Math.max(0, at))}%`);
    source.draw();
  };
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
    zoom = Math.min(Math.max(1, source.closest / whole()), Math.max(1, to));
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
    if (held && !held.moved) {
      const said = source.choose(event);
      if (said) document.getElementById("building").textContent = said;
    }
    held = null;
  });

  const confidence = document.getElementById("confidence");
  const filter = () => {
    const least = Number(confidence.value);
    const { count, all, area, more } = source.filter(least, new Set((document.body.dataset.hidden ?? "").split(" ")));
    document.getElementById("least").textContent = least.toFixed(2);
    const [some, of, metres] = [count, all, Math.round(area)].map((value) => value.toLocaleString("en"));
    document.getElementById("shown").textContent = `${some} of ${of} buildings shown, ${metres} m²${more ?? ""}`;
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
  return map;
})();
