// The 95 % interval of a share of a stratified sample: the formulas of imagery/estimating/interval.py, each in its order of
// operations, so that all digits are the same.
const Z = 1.959963984540054;
const LEAST = 0.3;
const MOST = 2;

// sizes, judged, hits: of each stratum how many it holds, how many of it are judged, and how many of these have what is
// asked for. Returns share, low and high in [0, 1]; NaN, 0 and 1 where nothing is known.
function designBased(sizes, judged, hits) {
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const [all, count, found] = [sizes, judged, hits].map(sum);
  if (!judged.every((own) => own > 0)) return { share: NaN, low: 0, high: 1 };
  const weights = sizes.map((size, h) => size / judged[h]);
  const domain = sum(weights.map((weight, h) => weight * judged[h]));
  const plain = sum(weights.map((weight, h) => weight * hits[h])) / domain;
  const [seen, unseen] = [found / all, 1 - (count - found) / all];
  const isMixed = found > 0 && found < count;
  const share = Math.min(Math.max(isMixed ? plain : found / count, seen), unseen);
  const spread = share * (1 - share);
  const terms = sizes.map((size, h) => {
    if (judged[h] >= size) return 0;
    const first = hits[h] - plain * judged[h];
    const second = (1 - 2 * plain) * hits[h] + plain * plain * judged[h] + (spread * judged[h]) / judged[h];
    const pulled = judged[h] + 1;
    const within = second / pulled - (first / pulled) * (first / pulled);
    return (size * size * (1 - judged[h] / size) * Math.max(within, 0)) / (judged[h] - 1);
  });
  const variance = sum(terms) / (domain * domain);
  const whole = (count * count) / count / Math.max(1 - count / all, Number.EPSILON);
  const effective = isMixed ? Math.min(Math.max(spread / variance, LEAST * whole), MOST * whole) : whole;
  const z = (Z * Z) / effective;
  const half = Z * Math.sqrt((share * (1 - share)) / effective + z / (4 * effective));
  const middle = share + z / 2;
  return {
    share,
    low: Math.max(Math.min(share, (middle - half) / (1 + z)), seen),
    high: Math.min(Math.max(share, (middle + half) / (1 + z)), unseen),
  };
}
