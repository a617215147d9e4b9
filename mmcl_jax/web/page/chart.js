// The most probable actions: curves over time, and bars of the last answer.

const COLORS = ["#2f86eb", "#e67800", "#00a878", "#d53c78", "#8b6cf0", "#b89600", "#6b7a8f", "#c2452d"];
const SHOWN = 5, SECONDS = 30;
const WIDE = 600, HIGH = 180, EDGE = 4;

export class Chart {
  constructor(svg, list) {
    Object.assign(this, { svg, list, names: [], threshold: 0, events: [], colors: new Map() });
  }

  // The classes' names, and the probability below which no action is named.
  describe(names, threshold) {
    Object.assign(this, { names, threshold });
    this.clear();
  }

  clear() {
    this.events = [];
    this.svg.replaceChildren(...this.lines());
    this.list.replaceChildren();
  }

  // Shows one more window {end, probabilities}.
  add(event) {
    this.events = [...this.events.filter((each) => each.end >= event.end - SECONDS), event];
    const shown = this.choose();
    this.paint(shown);
    this.svg.replaceChildren(...this.lines(), ...shown.map((label) => this.curve(label)));
    const first = this.names[shown[0]];
    this.svg.setAttribute("aria-label", `Probabilities over the last ${SECONDS} seconds of ${first} and others`);
    this.list.replaceChildren(...shown.map((label) => this.row(label, event.probabilities[label])));
  }

  // The actions with the highest last answer; peaks of the shown time count, too.
  choose() {
    const { probabilities } = this.events.at(-1);
    const peak = probabilities.map((_, label) => Math.max(...this.events.map((event) => event.probabilities[label])));
    const worth = probabilities.map((share, label) => share + 0.25 * peak[label]);
    const labels = [...probabilities.keys()].sort((one, other) => worth[other] - worth[one]).slice(0, SHOWN);
    return labels.sort((one, other) => probabilities[other] - probabilities[one]);
  }

  // An action keeps its color while it is shown.
  paint(shown) {
    for (const label of [...this.colors.keys()]) if (!shown.includes(label)) this.colors.delete(label);
    for (const label of shown) {
      const free = COLORS.find((color) => ![...this.colors.values()].includes(color));
      if (!this.colors.has(label)) this.colors.set(label, free);
    }
  }

  curve(label) {
    const points = this.events.map(({ end, probabilities }) => [this.across(end), up(probabilities[label])]);
    if (points.length === 1) points.push([points[0][0] - 8, points[0][1]]); // a short line for one answer
    const written = points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`);
    return shape("path", { d: `M${written.join(" L")}`, stroke: this.colors.get(label) });
  }

  lines() {
    const level = (share, kind) => shape("line", { x1: 0, x2: WIDE, y1: up(share), y2: up(share), ...kind });
    const lines = [0, 0.5, 1].map((share) => level(share, {}));
    return this.threshold > 0 ? [...lines, level(this.threshold, { class: "threshold" })] : lines;
  }

  across(time) {
    return WIDE - EDGE - ((this.events.at(-1).end - time) / SECONDS) * (WIDE - 2 * EDGE);
  }

  row(label, share) {
    const row = document.createElement("li"), color = this.colors.get(label), percent = `${Math.round(100 * share)} %`;
    const chip = document.createElement("i"), track = document.createElement("span"), bar = document.createElement("b");
    const name = document.createElement("span"), number = document.createElement("span");
    chip.style.background = bar.style.background = color;
    bar.style.width = `${100 * share}%`;
    Object.assign(track, { className: "track" }).append(bar);
    name.textContent = this.names[label];
    Object.assign(number, { className: "number", textContent: percent });
    row.append(chip, name, track, number);
    return row;
  }
}

const up = (share) => HIGH - EDGE - share * (HIGH - 2 * EDGE);

function shape(kind, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}
