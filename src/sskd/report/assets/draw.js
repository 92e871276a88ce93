"use strict";
/* Drawing of one plot as SVG: scales, axes, marks. Colours come from the style sheet, so that both themes fit. */

const NS = "http://www.w3.org/2000/svg";
const DASHES = ["", "7 3", "2 3", "9 3 2 3"];
const MARKS = [
  (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0`,
  (r) => `M${-r},${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (r) => `M0,${-1.2 * r}L${1.2 * r},${r}H${-1.2 * r}z`,
  (r) => `M0,${-1.4 * r}L${1.4 * r},0L0,${1.4 * r}L${-1.4 * r},0z`,
  (r) => `M0,${1.2 * r}L${1.2 * r},${-r}H${-1.2 * r}z`,
  (r) => `M${-r},${-r}L${r},${r}M${r},${-r}L${-r},${r}`,
];

function element(name, attributes, parent, text) {
  const node = document.createElementNS(NS, name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.appendChild(node);
  return node;
}

function shown(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(2);
  return value.toLocaleString("en", { maximumFractionDigits: size >= 1000 ? 0 : size >= 1 ? 2 : 4 });
}

function ticks(low, high, count, log, whole) {
  if (log) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const digit of [1, 2, 5]) {
        const value = digit * 10 ** power;
        if (value >= low && value <= high) found.push(value);
      }
    }
    if (found.length > 1) return found;
  }
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough && (!whole || n >= 1));
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) found.push(i * step || 0); // no -0
  return found;
}

function scale(range, from, to, log) {
  const map = log ? Math.log10 : (value) => value;
  const [low, high] = range.map(map);
  const apply = (value) => from + ((map(value) - low) / (high - low)) * (to - from);
  apply.back = (pixel) => {
    const value = low + ((pixel - from) / (to - from)) * (high - low);
    return log ? 10 ** value : value;
  };
  return apply;
}

function extent(values, log, margin) {
  const finite = values.filter((v) => v !== null && v !== undefined && (!log || v > 0));
  if (!finite.length) return log ? [1, 10] : [0, 1];
  let low = Infinity, high = -Infinity;
  for (const value of finite) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (log) return [low / 10 ** (margin * Math.log10(high / low) || 0.2), high * 10 ** (margin * Math.log10(high / low) || 0.2)];
  const extra = (high - low) * margin || Math.abs(high) * 0.05 || 1;
  return [low - extra, high + extra];
}

/* The ranges that show everything in a view. */
function ranges(plot, view, series) {
  const xs = [], ys = [];
  for (const one of series) {
    xs.push(...one.x);
    ys.push(...one.y);
    const across = plot.kind === "dots" ? xs : ys;
    across.push(...(one.low || []), ...(one.high || []));
  }
  if (plot.kind === "dots") {
    xs.push(...Object.values(view.levels));
    return { x: extent(xs, false, 0.06), y: [0.3, Math.max(...ys, 1) + 0.7] };
  }
  if (plot.kind === "bars") return { x: extent(xs, false, 0.5 / Math.max(1, xs.length - 1)), y: [0, extent(ys, false, 0.08)[1]] };
  ys.push(...Object.values(view.levels));
  const margin = plot.kind === "points" ? 0.08 : 0.03;
  return { x: extent(xs, plot.log, plot.kind === "points" ? 0.09 : 0.02), y: extent(ys, false, margin) };
}

/* How much room names below the axis need where they are too long to stand side by side; 0 where they fit. */
function slant(view, width) {
  const longest = Math.max(0, ...view.ticks.map(([, text]) => text.length));
  return longest * 7 + 8 > width / Math.max(1, view.ticks.length - 1 || 1) ? Math.min(120, 4.4 * longest) : 0;
}

function axes(svg, plot, view, box, sx, sy, range) {
  const group = element("g", { class: "axes" }, svg);
  const names = plot.kind === "dots" ? view.series[0] : null;
  const list = names ? names.y.map((y, i) => [y, names.names[i]]) : ticks(...range.y, box.h / 55, false).map((v) => [v, shown(v)]);
  for (const [value, text] of list) {
    const y = sy(value);
    if (y < box.y - 1 || y > box.y + box.h + 1) continue;
    element("line", { x1: box.x, x2: box.x + box.w, y1: y, y2: y, class: "grid" }, group);
    element("text", { x: box.x - 8, y: y + 4, "text-anchor": "end" }, group, names ? cut(text, Math.floor((box.x - 10) / 6.3)) : text);
  }
  const below = view.ticks.length ? view.ticks : ticks(...range.x, box.w / 90, plot.log, plot.x === "epoch").map((v) => [v, shown(v)]);
  const turn = slant(view, box.w);
  for (const [value, text] of below) {
    const x = sx(value);
    if (x < box.x - 1 || x > box.x + box.w + 1) continue;
    if (plot.kind !== "bars") element("line", { x1: x, x2: x, y1: box.y, y2: box.y + box.h, class: "grid" }, group);
    const y = box.y + box.h + (turn ? 12 : 17);
    element("text", turn ? { x, y, "text-anchor": "end", transform: `rotate(-40 ${x} ${y})` } : { x, y, "text-anchor": "middle" }, group, text);
  }
  element("text", { x: box.x + box.w / 2, y: box.y + box.h + 38 + turn, "text-anchor": "middle", class: "label" }, group, plot.x);
  const label = view.y || plot.y;
  const middle = box.y + box.h / 2;
  element("text", { x: 14, y: middle, "text-anchor": "middle", class: "label", transform: `rotate(-90 14 ${middle})` }, group, label);
}

function levels(svg, plot, view, box, sx, sy) {
  for (const [name, value] of Object.entries(view.levels)) {
    if (plot.kind === "dots") {
      const x = sx(value);
      element("line", { x1: x, x2: x, y1: box.y, y2: box.y + box.h, class: "level" }, svg);
      element("text", { x: x - 6, y: box.y + box.h - 8, class: "note", "text-anchor": "end" }, svg, name);
    } else {
      const y = sy(value);
      element("line", { x1: box.x, x2: box.x + box.w, y1: y, y2: y, class: "level" }, svg);
      element("text", { x: box.x + 6, y: y - 6, class: "note" }, svg, name);
    }
  }
}

function cut(text, letters) {
  return text.length > letters ? `${text.slice(0, Math.max(1, letters - 1))}…` : text;
}

function dash(one) {
  return DASHES[(Math.floor(one.number / 8) + one.variant + one.turn) % 4];
}

function markOf(one) {
  return (one.number + one.variant) % 6;
}

function marks(parent, plot, one, number, sx, sy) {
  const group = element("g", { class: `series s${number % 8}` }, parent);
  const points = one.x.map((x, i) => [x, one.y[i], i]).filter(([x, y]) => x !== null && y !== null);
  if (plot.kind === "bars") {
    const width = points.length > 1 ? Math.abs(sx(points[1][0]) - sx(points[0][0])) : 20;
    for (const [x, y] of points) element("rect", { x: sx(x) - width * 0.46, width: width * 0.92, y: sy(y), height: Math.max(0, sy(0) - sy(y)), class: "bar" }, group);
    return;
  }
  if (one.low && one.join) {
    for (let k = 1; k < points.length; k++) { // between neighbours that both have a deviation
      const [[x, , i], [next, , j]] = [points[k - 1], points[k]];
      if (one.low[i] === null || one.low[j] === null) continue;
      const path = [[x, one.high[i]], [next, one.high[j]], [next, one.low[j]], [x, one.low[i]]];
      element("polygon", { points: path.map(([a, b]) => `${sx(a)},${sy(b)}`).join(" "), class: "band" }, group);
    }
  }
  if (one.low) {
    for (const [x, y, i] of points) {
      if (one.low[i] === null || one.low[i] === undefined) continue;
      const ends = plot.kind === "dots" ? { x1: sx(one.low[i]), x2: sx(one.high[i]), y1: sy(y), y2: sy(y) } : { x1: sx(x), x2: sx(x), y1: sy(one.low[i]), y2: sy(one.high[i]) };
      element("line", { ...ends, class: `whisker${one.colours ? ` s${one.colours[i] % 8}` : ""}` }, group);
    }
  }
  if (one.join && points.length > 1) {
    const line = points.map(([x, y]) => `${sx(x).toFixed(1)},${sy(y).toFixed(1)}`).join("L");
    element("path", { d: `M${line}`, class: "line", "stroke-dasharray": dash(one) }, group);
  }
  const small = points.length > 60, every = one.join ? Math.ceil(points.length / 12) : 1; // a long line needs few marks
  for (const [x, y, i] of points) {
    if (i % every === 0) {
      const mark = markOf(one), own = one.colours ? ` s${one.colours[i] % 8}` : "";
      element("path", { d: MARKS[mark](small && !one.join ? 2.5 : 4.5), transform: `translate(${sx(x).toFixed(1)},${sy(y).toFixed(1)})`, class: (mark === 5 ? "mark open" : "mark") + own }, group);
    }
  }
}

/* Names beside points or at the ends of lines, moved apart where they would overlap. */
function names(svg, plot, drawn, box, sx, sy, narrow) {
  const placed = [];
  const wanted = plot.square ? 0 : plot.kind === "points" ? 60 : plot.kind === "lines" && !narrow ? 9 : 0;
  const first = drawn.filter(([one], i) => drawn.findIndex(([other]) => other.of === one.of) === i);
  if (first.length > wanted) return;
  for (const [one, number] of first) {
    const last = one.x.length - 1;
    if (last < 0 || one.y[last] === null) continue;
    const text = plot.kind === "lines" ? cut(one.of, 25) : one.of;
    const size = 6.6 * text.length, px = sx(one.x[last]), py = sy(one.y[last]);
    if (px < box.x || px > box.x + box.w + 1 || py < box.y || py > box.y + box.h) continue;
    const tries = plot.kind === "lines" ? [[8, 4], [8, 16], [8, -9], [8, 28], [8, -21], [8, 40]] : [[9, 4], [-9 - size, 4], [-size / 2, -10], [-size / 2, 19], [9, 15], [9, -9], [-9 - size, 15], [-9 - size, -9], [-size / 2, -22], [-size / 2, 31]];
    for (const [dx, dy] of tries) {
      const spot = { x: px + dx, y: py + dy - 10, w: size, h: 12 };
      const hits = placed.some((p) => spot.x < p.x + p.w && p.x < spot.x + spot.w && spot.y < p.y + p.h && p.y < spot.y + spot.h);
      if (hits || spot.y < 0 || (plot.kind !== "lines" && (spot.x < box.x || spot.x + spot.w > box.x + box.w + 30))) continue;
      placed.push(spot);
      element("text", { x: spot.x, y: spot.y + 10, class: `name s${number % 8}` }, svg, text);
      break;
    }
  }
}

/* Draws a view at the given ranges; returns the scales and the box. */
function draw(svg, plot, view, hidden, range, width) {
  svg.replaceChildren();
  const dots = plot.kind === "dots";
  const longest = dots ? Math.max(...view.series[0].names.map((name) => name.length)) : 0;
  const drawn = view.series.map((one) => [one, one.number]).filter(([one]) => !hidden.has(one.of));
  const groups = new Set(drawn.map(([one]) => one.of));
  const longName = plot.kind === "lines" && groups.size <= 9 ? Math.min(170, 7 * Math.max(0, ...[...groups].map((name) => name.length))) : 0;
  const left = dots ? Math.min(width * 0.4, 26 + 7 * longest) : 64;
  const right = plot.square || width < 480 ? 20 : Math.max(20, longName);
  const across = Math.max(60, width - left - right), below = slant(view, across);
  const height = below + (dots ? 64 + 24 * view.series[0].y.length : plot.square ? Math.min(width, 440) : Math.min(440, Math.max(280, width * 0.5)));
  const box = { x: left, y: 14, w: across, h: height - 64 - below };
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  const sx = scale(range.x, box.x, box.x + box.w, plot.log), sy = scale(range.y, box.y + box.h, box.y, false);
  axes(svg, plot, view, box, sx, sy, range);
  const clip = element("clipPath", { id: `clip-${plot.id}` }, svg);
  element("rect", { x: box.x - 6, y: box.y - 6, width: box.w + 12, height: box.h + 12 }, clip);
  const inner = element("g", { "clip-path": `url(#clip-${plot.id})` }, svg);
  levels(inner, plot, view, box, sx, sy);
  for (const [one, number] of drawn) marks(inner, plot, one, number, sx, sy);
  names(svg, plot, drawn, box, sx, sy, width < 480);
  return { box, sx, sy, drawn };
}
