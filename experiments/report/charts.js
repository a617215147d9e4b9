// Curves of several runs in one SVG: one color per run, solid for test and dashed for training.
"use strict";

const COLORS = ["#1f77d0", "#d9730d", "#2a9d55", "#b3478f", "#8a6fd1", "#7d8a26", "#c33c3c", "#2aa3a3"];
const color = (number) => COLORS[number % COLORS.length];

// lines: {points: [[x, y], ...], color, dashed}.
function lineChart(title, lines, say) {
  const points = lines.flatMap((one) => one.points);
  if (!points.length) return null;
  const [left, right, top, bottom, width, height] = [62, 18, 14, 30, 520, 260];
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  const [low, high, least] = [Math.min(...xs), Math.max(...xs), Math.min(0, ...ys)];
  const most = Math.max(...ys) > least ? Math.max(...ys) : least + 1;
  const x = (value) => left + ((width - left - right) * (value - low)) / (high - low || 1);
  const y = (value) => height - bottom - ((height - top - bottom) * (value - least)) / (most - least);
  const drawn = [];
  for (let tick = 0; tick <= 4; tick++) {
    const value = least + ((most - least) * tick) / 4;
    drawn.push(make("line", { x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      make("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, say(value)));
  }
  for (const value of new Set([low, Math.round((low + high) / 2), high]))
    drawn.push(make("text", { x: x(value), y: height - 8, "text-anchor": "middle" }, value));
  for (const { points: own, color: stroke, dashed } of lines) {
    if (own.length === 1) drawn.push(make("circle", { cx: x(own[0][0]), cy: y(own[0][1]), r: 3, fill: stroke }));
    drawn.push(make("path", { d: own.map(([px, py], place) => `${place ? "L" : "M"}${x(px).toFixed(1)} ${y(py).toFixed(1)}`).join(""),
      stroke, ...(dashed && { "stroke-dasharray": "5 4" }) }));
  }
  return make("div", { class: "card" }, make("h3", {}, title),
    make("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title} per epoch` }, drawn));
}
