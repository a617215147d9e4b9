// Skeletons of all persons on one canvas, and for each person the probabilities over time; both follow one clock.
"use strict";

const CURVES = ["#4c9aff", "#e67800", "#00a878", "#d53c78", "#8b6cf0"];
const WIDE = 600, HIGH = 150, LEFT = 34, BOTTOM = 18, TOP = 8;

document.getElementById("title").textContent = data.name;
document.getElementById("note").textContent =
  `${data.people.length} ${data.people.length === 1 ? "person" : "persons"}, ${data.seconds.toFixed(1)} s`;

const named = (action) => (action === null ? "unknown action" : action);
const canvas = make("canvas", { role: "img", "aria-label": "skeletons of the persons at this moment" });
const play = make("button", { type: "button" }, "Play");
const slider = make("input", { type: "range", min: 0, max: Math.max(data.frames - 1, 0), value: 0, "aria-label": "moment" });
const clock = make("output", {}, "0.0 s");
let moment = 0, last = null;

const seen = data.people.map((person) => new Map(person.frames.map((frame, place) => [frame, person.joints[place]])));

// The window around a moment whose middle is nearest to it.
function around(person, time) {
  const windows = person.windows.filter((each) => each.start <= time && time <= each.end);
  const far = (each) => Math.abs((each.start + each.end) / 2 - time);
  return windows.length ? windows.reduce((near, each) => (far(each) < far(near) ? each : near)) : null;
}

const spoken = (now) => (now.top === null ? named(null) : `${now.top} ${(100 * now.share).toFixed(0)} %`);

function draw() {
  const frame = Math.min(Math.floor(moment), data.frames - 1), time = frame / data.rate;
  const context = canvas.getContext("2d");
  const [wide, high] = data.extent, scale = canvas.width / wide, line = Math.max(2, canvas.width / 160);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.lineCap = "round";
  data.people.forEach((person, place) => {
    const joints = seen[place].get(frame), now = around(person, time);
    person.label.textContent = now ? spoken(now) : "";
    person.cursor.setAttribute("x1", across(time));
    person.cursor.setAttribute("x2", across(time));
    if (!joints) return;
    context.strokeStyle = context.fillStyle = person.color;
    context.lineWidth = line;
    for (const [joint, parent] of data.bones) {
      const from = joints[joint], to = joints[parent];
      if (!from || !to) continue;
      context.beginPath();
      context.moveTo(from[0] * scale, from[1] * scale);
      context.lineTo(to[0] * scale, to[1] * scale);
      context.stroke();
    }
    const shown = joints.filter(Boolean);
    if (!shown.length || !now) return;
    const size = Math.max(14, canvas.width / 22);
    context.font = `600 ${size}px system-ui, sans-serif`;
    const text = named(now.top), width = context.measureText(text).width;
    const left = Math.min(...shown.map((joint) => joint[0])) * scale, top = Math.min(...shown.map((joint) => joint[1])) * scale;
    context.fillText(text, Math.max(2, Math.min(left, canvas.width - width - 2)), Math.max(size, top - size / 2));
  });
  slider.value = frame;
  clock.textContent = `${time.toFixed(1)} s`;
}

function resize() {
  const [wide, high] = data.extent, ratio = window.devicePixelRatio || 1;
  const most = (0.6 * window.innerHeight * wide) / high; // a tall picture leaves room for the controls
  canvas.style.width = `${Math.min(canvas.parentElement.clientWidth - 28, most)}px`;
  canvas.width = Math.round(canvas.clientWidth * ratio) || 300;
  canvas.height = Math.round((canvas.width * high) / wide);
  draw();
}

const across = (time) => LEFT + ((WIDE - LEFT - 6) * time) / Math.max(data.seconds, 1e-9);
const up = (share) => TOP + (HIGH - TOP - BOTTOM) * (1 - share);

function chart(person) {
  const picture = make("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `probabilities of person ${person.person} over time` });
  for (const share of [0, 0.5, 1])
    picture.append(make("line", { x1: LEFT, x2: WIDE - 6, y1: up(share), y2: up(share), stroke: "var(--line)" }),
      make("text", { x: 0, y: up(share) + 4 }, `${100 * share} %`));
  if (data.threshold > 0)
    picture.append(make("line", { x1: LEFT, x2: WIDE - 6, y1: up(data.threshold), y2: up(data.threshold),
      stroke: "var(--quiet)", "stroke-dasharray": "4 4" }));
  person.actions.forEach((_, action) => {
    const points = person.windows.map((each) => `${across((each.start + each.end) / 2).toFixed(1)} ${up(each.values[action]).toFixed(1)}`);
    const first = person.windows[0], final = person.windows[person.windows.length - 1];
    const path = `M${across(first.start)} ${up(first.values[action])} L${points.join(" L")} L${across(final.end)} ${up(final.values[action])}`;
    picture.append(make("path", { d: path, fill: "none", stroke: CURVES[action], "stroke-width": 2, "vector-effect": "non-scaling-stroke" }));
  });
  person.cursor = make("line", { x1: LEFT, x2: LEFT, y1: TOP, y2: HIGH - BOTTOM, stroke: "var(--ink)", "vector-effect": "non-scaling-stroke" });
  picture.append(person.cursor);
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    const time = (((event.clientX - box.left) / box.width) * WIDE - LEFT) / (WIDE - LEFT - 6) * data.seconds;
    moment = Math.max(0, Math.min(data.frames - 1, time * data.rate));
    draw();
  });
  return picture;
}

function panel(person) {
  person.label = make("span", { class: "now" });
  const whole = person.whole && person.whole.map(([action, share]) => `${named(action)} ${(100 * share).toFixed(1)} %`).join(", ");
  return make("div", { class: "card person" },
    make("h3", {}, make("span", { class: "dot", style: `background: ${person.color}` }), `Person ${person.person}`, person.label),
    whole ? make("p", { class: "small quiet" }, `over the whole input: ${whole}`) : null,
    chart(person),
    make("div", { class: "legend" }, person.actions.map((action, place) =>
      make("span", {}, make("i", { style: `background: ${CURVES[place]}` }), action))));
}

function tick(now) {
  if (last === null) return;
  moment += ((now - last) / 1000) * data.rate;
  last = now;
  if (moment >= data.frames) moment = 0;
  draw();
  requestAnimationFrame(tick);
}

play.addEventListener("click", () => {
  const starts = last === null;
  last = starts ? performance.now() : null;
  play.textContent = starts ? "Pause" : "Play";
  if (starts) requestAnimationFrame(tick);
});
slider.addEventListener("input", () => {
  moment = Number(slider.value);
  draw();
});

const people = data.people.map(panel);
section("persons", "Persons", make("div", { class: "stage" },
  make("div", { class: "card" }, canvas, make("div", { class: "controls" }, play, slider, clock)),
  make("div", {}, people.length ? people : make("p", {}, "Nobody is seen long enough to be classified."))));
window.addEventListener("resize", resize);
resize();
