// The judgements of a map: kept by the browser, given out and read as judgements.geojson, joined with another person's.
const CANNOT_TELL = 255;
const CHOICES = [0, 1, 2, 3, 4, CANNOT_TELL];
const DAMAGED = [2, 3, 4];
const DESTROYED = [4];

// How long something was in sight.
class Stopwatch {
  constructor() {
    this.start();
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.before += (performance.now() - this.since) / 1000;
      this.since = performance.now();
    });
  }

  start() {
    [this.since, this.before] = [performance.now(), 0];
  }

  // To tenths.
  get seconds() {
    return Math.round(10 * (this.before + (performance.now() - this.since) / 1000)) / 10;
  }
}

class Judgements {
  // draw: judge.json. ids: those of the rows of the map's table.
  constructor(draw, ids) {
    [this.draw, this.ids] = [draw, ids];
    this.key = `dual-hrnet judgements of ${draw.map}`;
    this.restore();
  }

  // A judgement is {row, judgement, seconds, judge, rank}; rank is null where the building was picked freely. Of a square
  // it is {rank, missed, damaged, seconds, judge}; missed is null where nothing can be seen.
  restore() {
    [this.byRow, this.bySquare] = [new Map(), new Map()];
    [this.disagreements, this.judge, this.target, this.isKept] = [[], "", "", true];
    try {
      const kept = JSON.parse(localStorage.getItem(this.key));
      if (!kept) return;
      [this.disagreements, this.judge, this.target] = [kept.disagreements, kept.judge, kept.target];
      this.byRow = new Map(kept.judgements.map((own) => [own.row, own]));
      this.bySquare = new Map((kept.squares ?? []).map((own) => [own.rank, own]));
    } catch {
      this.isKept = false;
    }
  }

  keep() {
    const { disagreements, judge, target } = this;
    try {
      const [judgements, squares] = [[...this.byRow.values()], [...this.bySquare.values()]];
      localStorage.setItem(this.key, JSON.stringify({ disagreements, judge, target, judgements, squares }));
      this.isKept = true;
    } catch {
      this.isKept = false;
    }
  }

  put(row, judgement, seconds, rank) {
    this.byRow.set(row, { row, judgement, seconds, judge: this.judge, rank: this.byRow.get(row)?.rank ?? rank });
    this.keep();
  }

  putSquare(rank, missed, damaged, seconds) {
    this.bySquare.set(rank, { rank, missed, damaged, seconds, judge: this.judge });
    this.keep();
  }

  // How many squares of the order are counted without a gap.
  get counted() {
    let count = 0;
    while (this.bySquare.has(count)) count += 1;
    return count;
  }

  // Over these; unseen: how many show nothing.
  get sumOfSquares() {
    const sums = { missed: 0, damaged: 0, unseen: 0 };
    for (let rank = this.counted - 1; rank >= 0; rank -= 1) {
      const { missed, damaged } = this.bySquare.get(rank);
      sums.missed += missed ?? 0;
      sums.damaged += damaged;
      sums.unseen += missed === null ? 1 : 0;
    }
    return sums;
  }

  // How many buildings are drawn, and how many squares; a page of many buildings knows the first of them.
  get all() {
    return this.draw.sizes.reduce((total, own) => total + own, 0);
  }

  get allSquares() {
    return this.draw.squares.count ?? this.draw.squares.order.length;
  }

  // That of the drawn building; one picked freely was not judged as drawn.
  drawn(rank) {
    const own = this.byRow.get(this.draw.order[rank]);
    return own?.rank === rank ? own : undefined;
  }

  // How many of the order are judged without a gap: the sample.
  get count() {
    let count = 0;
    while (count < this.draw.order.length && this.drawn(count)) count += 1;
    return count;
  }

  // The share of buildings with one of these grades; found: how many judged ones have it.
  estimate(grades) {
    const [judged, hits] = [this.draw.sizes.map(() => 0), this.draw.sizes.map(() => 0)];
    for (let rank = this.count - 1; rank >= 0; rank -= 1) {
      judged[this.draw.strata[rank]] += 1;
      if (grades.includes(this.drawn(rank).judgement)) hits[this.draw.strata[rank]] += 1;
    }
    const found = hits.reduce((total, own) => total + own, 0);
    return { ...designBased(this.draw.sizes, judged, hits), found };
  }

  // The number judged from which on there is an interval: two of each stratum, or all of it.
  get fewest() {
    const seen = this.draw.sizes.map(() => 0);
    const needed = this.draw.sizes.map((size) => Math.min(size, 2));
    return 1 + this.draw.strata.findIndex((stratum) => {
      seen[stratum] += 1;
      return seen.every((own, h) => own >= needed[h]);
    });
  }

  // judgements.geojson. polygons: of the map's rows; squares: of the squares with pictures.
  toText(polygons, squares) {
    const { draw, count } = this;
    const taken = draw.sizes.map(() => 0);
    for (let rank = 0; rank < count; rank += 1) taken[draw.strata[rank]] += 1;
    const last = (own) => own.rank ?? Infinity;
    const features = [...this.byRow.values()].sort((one, other) => last(one) - last(other) || one.row - other.row).map((own) => {
      const stratum = own.rank === null ? null : draw.strata[own.rank];
      const inclusion = own.rank === null || own.rank >= count ? null : taken[stratum] / draw.sizes[stratum];
      const { row, judgement, seconds, judge, rank } = own;
      const properties = { id: this.ids[row], row, judgement, seconds, judge, rank, stratum, inclusion, map: draw.map };
      return { type: "Feature", id: this.ids[row] ?? undefined, properties, geometry: polygons[row] };
    });
    for (const { rank, missed, damaged, seconds, judge } of [...this.bySquare.values()].sort((one, other) => one.rank - other.rank)) {
      const square = draw.squares.order[rank];
      const inclusion = rank < this.counted ? this.counted / this.allSquares : null;
      const properties = { square, rank, missed, damaged, seconds, judge, inclusion, map: draw.map };
      features.push({ type: "Feature", id: `square ${square}`, properties, geometry: squares[rank] });
    }
    return `{"type":"FeatureCollection","features":[\n${features.map((own) => JSON.stringify(own)).join(",\n")}\n]}\n`;
  }

  // The judgements of such a file, of buildings and of squares; throws an Error that says what is wrong with it.
  fromText(text) {
    const refuse = (finding) => {
      throw new Error(finding);
    };
    let features;
    try {
      ({ features } = JSON.parse(text));
    } catch {
      refuse("is no JSON");
    }
    if (!Array.isArray(features)) refuse("has no features");
    const [seen, squares] = [new Set(), new Map()];
    const buildings = features.flatMap((feature, number) => {
      const own = feature?.properties ?? {};
      const at = `feature ${number}: `;
      const [row, rank] = [own.row, own.rank ?? null];
      if (own.map !== this.draw.map) refuse(`${at}found judgements of another map`);
      if (Number.isInteger(own.square)) {
        const isWhole = (value) => Number.isInteger(value) && value >= 0;
        const [missed, damaged] = [own.missed ?? null, own.damaged];
        if (rank === null || this.draw.squares?.order[rank] !== own.square) refuse(`${at}found another order of squares`);
        if (!(missed === null || isWhole(missed)) || !isWhole(damaged) || damaged > (missed ?? 0)) refuse(`${at}found a count that is none`);
        if (squares.has(rank)) refuse(`${at}found the same square twice`);
        squares.set(rank, { rank, missed, damaged, seconds: Number(own.seconds) || 0, judge: String(own.judge ?? "") });
        return [];
      }
      if (!Number.isInteger(row) || !(row in this.ids) || (own.id ?? null) !== this.ids[row])
        refuse(`${at}found a building that the map does not hold`);
      if (!CHOICES.includes(own.judgement)) refuse(`${at}found a judgement that is none`);
      const isDrawn = Number.isInteger(rank) && this.draw.order[rank] === row && this.draw.strata[rank] === own.stratum;
      if (rank !== null && !isDrawn) refuse(`${at}found another order`);
      if (seen.has(row)) refuse(`${at}found the same building twice`);
      seen.add(row);
      return [{ row, judgement: own.judgement, seconds: Number(own.seconds) || 0, judge: String(own.judge ?? ""), rank }];
    });
    return { buildings, squares: [...squares.values()] };
  }

  // Takes another person's judgements in, by the rule of imagery/sampling/judged.py: a grade goes before "cannot tell",
  // else that which was here stays; so it is with squares, of imagery/sampling/squares.py. Returns how many buildings both
  // judged, and how many of these otherwise.
  merge({ buildings, squares }) {
    let [both, otherwise] = [0, 0];
    for (const other of squares)
      if ((this.bySquare.get(other.rank)?.missed ?? null) === null) this.bySquare.set(other.rank, other);
    for (const other of buildings) {
      const mine = this.byRow.get(other.row);
      if (mine) both += 1;
      const kept = !mine || mine.judgement === CANNOT_TELL ? other : mine;
      this.byRow.set(other.row, { ...kept, rank: mine?.rank ?? other.rank });
      if (!mine || mine.judgement === other.judgement) continue;
      otherwise += 1;
      const [first, second] = [mine, other].map(({ judgement, judge }) => ({ judgement, judge }));
      this.disagreements = this.disagreements.filter(({ row }) => row !== other.row);
      this.disagreements.push({ row: other.row, first, second });
    }
    this.keep();
    return { both, otherwise };
  }
}
