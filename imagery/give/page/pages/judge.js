// The judge mode of a map's page: shows the drawn buildings one by one, and takes judgements by keys and buttons.
{
  const dialog = document.getElementById("judge");
  const at = (selector) => dialog.querySelector(selector);
  const FEW = 10; // damaged ones judged, below which an estimate stands on little
  const names = new Map([...dialog.querySelectorAll("[data-judgement]")].map((button) =>
    [Number(button.dataset.judgement), button.lastChild.textContent.trim()]));
  const [wide, high] = ["width", "height"].map((side) => Number(document.querySelector(".viewer").dataset[side]));
  const overview = [...document.querySelectorAll(".viewer img")].map((image) => image.src);
  const { source } = map;
  let page, known, judgements, pictures, looks, missed;
  let current = null; // {row, rank}, the building that is shown; rank is null where it was picked
  const stopwatch = new Stopwatch(); // how long it has been shown
  const outlineOf = (row) => source.outlineOf(row);
  // To squares, where buildings that the map missed are counted, or back to buildings.
  const enter = (squares) => {
    dialog.classList.toggle("squares", squares);
    looks.use(squares);
  };
  const inSquares = () => dialog.classList.contains("squares");

  const begin = async () => {
    page ??= await source.judging(); // null where its file is missing
    if (judgements || !page) return;
    known = page.known;
    judgements = new Judgements(page.order, known.ids);
    pictures = new Map(page.pictures.map((picture, rank) => [page.order.order[rank], picture]));
    looks = new Looks(dialog, known.metres);
    if (page.squares) missed = new Missed(dialog, judgements, page.squares, looks, outlineOf);
    dialog.style.setProperty("--north", `${known.north}deg`);
    at("#judge-initials").value = judgements.judge;
    at("#judge-target").value = judgements.target;
  };

  // Left, top, side and both images of what is shown of a building: its pictures, or a part of the map's.
  const pictureOf = (row) => {
    if (pictures.has(row)) return pictures.get(row);
    const box = source.paths.get(row).getBBox();
    const side = Math.max(320, 2.5 * box.width, 2.5 * box.height);
    return [box.x + (box.width - side) / 2, box.y + (box.height - side) / 2, side, ...overview];
  };

  const show = (row, rank) => {
    enter(false);
    current = { row, rank };
    stopwatch.start();
    const [left, top, side, ...images] = pictureOf(row);
    const place = pictures.has(row) ? [left, top, side, side] : [0, 0, wide, high];
    looks.show([left, top, side], images, place, outlineOf(row));
    tell();
  };
  const goTo = (rank) => {
    const last = Math.max(0, Math.min(rank, pictures.size - 1));
    show(judgements.draw.order[last], last);
  };
  const goOn = () => goTo(judgements.count);

  const format = new Intl.NumberFormat("en", { maximumFractionDigits: 0, roundingMode: "halfEven" }); // rounds as Python does
  const count = (value) => format.format(value);
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const tellNumbers = () => {
    const all = judgements.all;
    const target = Number(judgements.target);
    for (const [name, grades] of [["destroyed", DESTROYED], ["damaged", DAMAGED]]) {
      const { share, low, high } = judgements.estimate(grades);
      const cells = at(`[data-of=${name}]`).cells;
      cells[1].textContent = Number.isNaN(share) ? "?" : count(share * all);
      cells[2].textContent = `${count(low * all)} to ${count(high * all)}`;
      cells[3].textContent = Number.isNaN(share) ? "" : `${percent(share)} (${percent(low)} to ${percent(high)})`;
      const isNarrow = target > 0 && (high - low) * all <= target;
      cells[4].textContent = !target ? "" : isNarrow ? "narrow enough" : `${count((high - low) * all)} wide`;
      cells[4].classList.toggle("narrow", isNarrow);
    }
    const { count: done, fewest } = judgements;
    const beyond = [...judgements.byRow.values()].filter(({ rank }) => rank !== null && rank >= done).length;
    const damaged = judgements.estimate(DAMAGED).found;
    at("#judge-about").textContent = [
      `Of the ${count(all)} buildings of the map that the images show, by the ${count(done)} judged as drawn; what the map missed is in no number.`,
      known.unseen && `${count(known.unseen)} that no image shows are left out.`,
      done < fewest && `Judge ${count(fewest)} before you trust an interval.`,
      done >= fewest && damaged < FEW && done < all && `${damaged} damaged among the judged, fewer than ${FEW}: this stands on little.`,
      beyond && `${count(beyond)} judged after a gap are not counted.`,
      !judgements.isKept && "This browser keeps nothing: download the judgements before you close the page.",
    ].filter(Boolean).join(" ");
  };

  const tell = () => {
    if (inSquares()) {
      missed.tell();
      return;
    }
    const { row, rank } = current;
    const own = judgements.byRow.get(row);
    const done = judgements.count;
    const isDone = rank === null ? own : judgements.drawn(rank);
    at("#judge-progress").textContent = `${count(done)} of ${count(pictures.size)} judged`;
    at("#judge-which").textContent = `building ${known.ids[row] ?? row + 1}, ${rank === null ? "picked" : `drawn as number ${rank + 1}`}`;
    at("#judge-said").textContent = [
      own && (isDone ? `Judged: ${names.get(own.judgement)}.` : `Picked before: ${names.get(own.judgement)}. Next takes it over.`),
      rank === null && "Picked freely: no estimate counts it. Next goes back to the order.",
      rank !== null && done >= pictures.size && "All that were drawn with pictures are judged.",
    ].filter(Boolean).join(" ");
    for (const button of dialog.querySelectorAll("[data-judgement]"))
      button.classList.toggle("given", Boolean(isDone) && Number(button.dataset.judgement) === own.judgement);
    tellNumbers();
  };

  const tellDisagreements = () => {
    const said = ({ judgement, judge }) => `${judge || "no initials"} ${names.get(judgement)}`;
    at("#judge-disagreements").replaceChildren(...judgements.disagreements.map(({ row, first, second }) => {
      const [line, button] = [document.createElement("li"), document.createElement("button")];
      button.type = "button";
      button.textContent = `building ${known.ids[row] ?? row + 1}`;
      button.dataset.row = row;
      line.append(button, ` ${said(first)} or ${said(second)}, kept: ${names.get(judgements.byRow.get(row).judgement)}`);
      return line;
    }));
  };

  const judge = (value) => {
    const { row, rank } = current;
    judgements.put(row, value, stopwatch.seconds, rank);
    if (judgements.disagreements.length) tellDisagreements();
    if (rank === null) tell();
    else goTo(rank + 1);
  };
  // What is skipped counts as "cannot tell", so that the sample has no gap.
  const next = () => {
    if (inSquares()) {
      missed.next();
      return;
    }
    const { row, rank } = current;
    if (rank === null) goOn();
    else if (judgements.drawn(rank)) goTo(rank + 1);
    else judge(judgements.byRow.get(row)?.judgement ?? CANNOT_TELL);
  };
  const download = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([judgements.toText(page.polygons, missed?.drawn.polygons)], { type: "application/geo+json" }));
    link.download = "judgements.geojson";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };
  const load = async (file) => {
    try {
      const others = judgements.fromText(await file.text());
      const { both, otherwise } = judgements.merge(others);
      if (inSquares()) missed.goOn();
      else goOn();
      const counted = others.squares.length ? ` ${others.squares.length} squares.` : "";
      at("#judge-said").textContent = `${file.name}: ${others.buildings.length} judgements, ${both} of them of buildings judged here, ${otherwise} of these otherwise.${counted}`;
      tellDisagreements();
    } catch (error) {
      at("#judge-said").textContent = `${file.name}: ${error.message}. Load the judgements.geojson of this map's page.`;
    }
  };
  const does = {
    next,
    download,
    back: () => (inSquares() ? missed.back() : current.rank === null ? goOn() : goTo(current.rank - 1)),
    squares: () => {
      enter(true);
      missed.goOn();
    },
    buildings: goOn,
    unseen: () => missed.unseen(),
    outline: () => dialog.classList.toggle("bare"),
    blink: () => dialog.classList.toggle("blink"),
    zoom: () => looks.come(),
    load: () => at("#judge-file").click(),
    close: () => dialog.close(),
  };
  const keys = { ArrowRight: "next", ArrowLeft: "back", " ": "outline", b: "blink", z: "zoom" };

  // On the document: a click beside all buttons takes the focus out of the dialog.
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input") && event.key === "Enter") event.target.blur();
    if (!dialog.open || event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key === " " ? " " : event.key.length === 1 ? event.key.toLowerCase() : event.key;
    // By place, as some shift for digits, but for signs that share their keys.
    const digit = /^[-+=]$/.test(key) ? null : (/^Digit([0-9])$/.exec(event.code)?.[1] ?? (/^[0-9]$/.test(key) ? key : null));
    const isChoice = digit !== null ? inSquares() || digit < 5 : key === "u";
    if (!isChoice && !(key in keys) && !(inSquares() && /^[-+=d]$/.test(key))) return;
    event.preventDefault();
    if (event.repeat) return;
    if (inSquares() && missed.press(key, digit)) return;
    if (isChoice) judge(digit !== null ? Number(digit) : CANNOT_TELL);
    else does[keys[key]]();
  });
  dialog.addEventListener("keyup", (event) => {
    if (event.key === " " && !event.target.matches("input")) event.preventDefault(); // it would press a button
  });
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.step) {
      missed.take(button.closest("[data-count]").dataset.count);
      missed.step(Number(button.dataset.step));
    } else if (button.dataset.judgement) judge(Number(button.dataset.judgement));
    else if (button.dataset.row) show(Number(button.dataset.row), judgements.byRow.get(Number(button.dataset.row)).rank);
    else does[button.dataset.do]();
  });
  dialog.addEventListener("input", (event) => {
    if (event.target.id === "judge-initials") judgements.judge = event.target.value.trim();
    if (event.target.id === "judge-target") judgements.target = event.target.value;
    judgements.keep();
    if (!inSquares()) tellNumbers();
  });
  dialog.addEventListener("change", (event) => {
    event.stopPropagation(); // the map's filters listen, too
    if (event.target.files?.length) load(event.target.files[0]);
    if (event.target.id === "judge-file") event.target.value = "";
  });
  window.addEventListener("resize", () => dialog.open && looks.measure());
  window.addEventListener("storage", (event) => {
    if (event.key !== judgements?.key) return;
    judgements.restore(); // another tab judged
    if (!dialog.open) return;
    tell();
    tellDisagreements();
  });

  const open = async (step) => {
    await begin();
    if (!page) return;
    dialog.showModal();
    dialog.focus(); // and no button, which keys would press
    step();
    tellDisagreements();
  };
  document.getElementById("judge-open").addEventListener("click", () => open(goOn));
  document.getElementById("missed-open")?.addEventListener("click", () => open(does.squares));
  document.getElementById("judge-pick")?.addEventListener("click", () => {
    const chosen = document.querySelector(".viewer .overlay path.chosen");
    open(() => {
      const row = Number(chosen.dataset.row);
      show(row, judgements.byRow.get(row)?.rank ?? null);
    });
  });
}
