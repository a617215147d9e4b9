// A matrix on a canvas. Buttons, keys, Ctrl and the wheel, or two fingers zoom it; dragging moves it; pointing at a cell
// describes the cell in words. Without Ctrl the wheel scrolls the page, and so does one finger on the whole matrix.
"use strict";

const GRID_HINT = "Point at a cell, tap it, or use the arrow keys. Zoom: Ctrl and the wheel, two fingers, or the keys + − 0. "
  + "When zoomed, drag to move.";
const LEAST_NAMED = 13; // pixels; names are shown beside cells of at least this size

// Returns {element, show(matrix)}; a matrix is {size, value(row, column), shade(value, row, column) -> [strength 0 to 1,
// whether negative], tell(row, column) -> text, names, label}. Another matrix of the same size keeps zoom and position.
function matrixGrid() {
  const canvas = make("canvas", { class: "grid-view", tabindex: "0", role: "application", "aria-description": GRID_HINT });
  const said = make("p", { class: "grid-said small", "aria-live": "polite" });
  let matrix = null, scale = 1, left = 0, top = 0, chosen = null, moved = false, spread = null;
  const pointers = new Map();

  // Names are left of the rows and above the columns, if these are large enough.
  const margin = () => {
    if (!matrix.names.length) return 0;
    const wanted = Math.min(130, canvas.clientWidth * 0.28);
    const side = (Math.min(canvas.clientWidth, canvas.clientHeight) - wanted) * scale / matrix.size;
    return side >= LEAST_NAMED ? wanted : 0;
  };
  const cell = () => ((Math.min(canvas.clientWidth, canvas.clientHeight) - margin()) * scale) / matrix.size;
  const mostScale = () => Math.max(1, matrix.size / 4);
  function keep() {
    const whole = cell() * matrix.size;
    left = Math.max(0, Math.min(left, whole - canvas.clientWidth + margin()));
    top = Math.max(0, Math.min(top, whole - canvas.clientHeight + margin()));
    canvas.classList.toggle("zoomed", scale > 1);
  }
  function draw() {
    const ratio = devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = canvas;
    if (!width || !matrix) return;
    keep();
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const { size, value, shade, names } = matrix;
    const context = canvas.getContext("2d"), side = cell(), edge = margin(), style = getComputedStyle(document.documentElement);
    const [positive, negative, ink, paper] = ["--train", "--test", "--ink", "--card"].map((name) => style.getPropertyValue(name));
    const seen = (from, room) => [Math.floor(from / side), Math.min(size, Math.ceil((from + room) / side))];
    const [rows, columns] = [seen(top, height - edge), seen(left, width - edge)];
    context.scale(ratio, ratio);
    context.globalAlpha = 0.04;
    context.fillStyle = ink;
    context.fillRect(edge - left, edge - top, side * size, side * size);
    for (let row = rows[0]; row < rows[1]; row++)
      for (let column = columns[0]; column < columns[1]; column++) {
        const [strength, below] = shade(value(row, column), row, column);
        if (!strength) continue; // most cells, if there are many classes
        context.globalAlpha = 0.04 + 0.96 * Math.min(1, strength);
        context.fillStyle = below ? negative : positive;
        context.fillRect(edge + column * side - left, edge + row * side - top, side, side);
      }
    context.globalAlpha = 1;
    context.fillStyle = paper;
    if (side > 5) {
      for (let row = rows[0]; row < rows[1]; row++) context.fillRect(edge, edge + (row + 1) * side - top - 1, width, 1);
      for (let column = columns[0]; column < columns[1]; column++) context.fillRect(edge + (column + 1) * side - left - 1, edge, 1, height);
    }
    if (chosen) {
      context.strokeStyle = ink;
      context.lineWidth = 2;
      context.strokeRect(edge + chosen[1] * side - left, edge + chosen[0] * side - top, side, side);
    }
    if (!edge) return;
    context.fillStyle = paper;
    context.fillRect(0, 0, edge, height);
    context.fillRect(0, 0, width, edge);
    context.fillStyle = ink;
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    const shown = distinct(context, names, edge - 8);
    for (let row = rows[0]; row < rows[1]; row++) {
      const middle = edge + (row + 0.5) * side - top;
      if (middle > edge) context.fillText(shown[row], 4, middle);
    }
    context.rotate(-Math.PI / 2);
    for (let column = columns[0]; column < columns[1]; column++) {
      const middle = edge + (column + 0.5) * side - left;
      if (middle > edge) context.fillText(shown[column], 4 - edge, middle);
    }
  }
  function choose(row, column) {
    if (row < 0 || column < 0 || row >= matrix.size || column >= matrix.size) return;
    chosen = [row, column];
    said.textContent = matrix.tell(row, column);
    draw();
  }
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left - canvas.clientLeft, event.clientY - box.top - canvas.clientTop];
  };
  function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const before = cell(), edge = margin(), column = (x - edge + left) / before, row = (y - edge + top) / before;
    scale = Math.max(1, Math.min(scale * factor, mostScale()));
    left = column * cell() - x + margin();
    top = row * cell() - y + margin();
    draw();
  }
  function point(x, y) {
    const edge = margin();
    if (x >= edge && y >= edge) choose(Math.floor((y - edge + top) / cell()), Math.floor((x - edge + left) / cell()));
  }
  function drag(right, down) {
    left -= right;
    top -= down;
    draw();
  }
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pointers.set(event.pointerId, at(event));
    moved = pointers.size > 1;
    spread = null;
    if (scale > 1) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = at(event), before = pointers.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") point(x, y);
      return;
    }
    pointers.set(event.pointerId, [x, y]);
    if (pointers.size === 2) {
      const [[x1, y1], [x2, y2]] = pointers.values();
      const now = { wide: Math.hypot(x1 - x2, y1 - y2), x: (x1 + x2) / 2, y: (y1 + y2) / 2 };
      if (spread) {
        zoom(now.wide / (spread.wide || now.wide || 1), spread.x, spread.y);
        drag(now.x - spread.x, now.y - spread.y);
      }
      spread = now;
    } else if (scale > 1) {
      moved ||= Math.hypot(x - before[0], y - before[1]) > 2;
      drag(x - before[0], y - before[1]);
    }
  });
  const end = (event) => {
    if (pointers.delete(event.pointerId) && event.type === "pointerup" && !moved) point(...at(event));
    spread = null;
  };
  for (const type of ["pointerup", "pointercancel", "pointerleave"]) canvas.addEventListener(type, end);
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // otherwise the page could not be scrolled past it
    event.preventDefault();
    const turned = event.deltaY * (event.deltaMode ? 16 : 1); // lines or pixels; a pinch on a touchpad is a few of them
    zoom(Math.exp(-Math.max(-40, Math.min(40, turned)) / 100), ...at(event));
  }, { passive: false });
  canvas.addEventListener("touchmove", (event) => { if (event.touches.length > 1) event.preventDefault(); }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's own zoom
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const side = cell();
    const middle = chosen ? [(chosen[1] + 0.5) * side - left + margin(), (chosen[0] + 0.5) * side - top + margin()] : [];
    if (move) {
      chosen = chosen ? chosen.map((place, axis) => Math.max(0, Math.min(place + move[axis], matrix.size - 1))) : [0, 0];
      left = Math.min(chosen[1] * side, Math.max(left, (chosen[1] + 1) * side - canvas.clientWidth + margin()));
      top = Math.min(chosen[0] * side, Math.max(top, (chosen[0] + 1) * side - canvas.clientHeight + margin()));
      choose(...chosen);
    } else if (event.key === "+" || event.key === "=") zoom(1.5, ...middle);
    else if (event.key === "-") zoom(1 / 1.5, ...middle);
    else if (event.key === "0") zoom(1e-9);
    else return;
    event.preventDefault();
  });
  new ResizeObserver(draw).observe(canvas);
  matchMedia("screen and (prefers-color-scheme: dark)").addEventListener("change", draw);
  const button = (text, name, factor) => make("button", { type: "button", "aria-label": name, click: () => zoom(factor) }, text);
  return {
    element: make("div", {}, make("div", { class: "toolbar grid-tools" }, button("+", "zoom in", 1.5),
      button("−", "zoom out", 1 / 1.5), button("Whole", "show the whole matrix", 1e-9)), make("p", { class: "grid-hint quiet small" }, GRID_HINT), canvas, said),
    show(other) {
      if (matrix && other.size !== matrix.size) [scale, left, top, chosen] = [1, 0, 0, null];
      matrix = other;
      canvas.setAttribute("aria-label", matrix.label);
      said.textContent = chosen ? matrix.tell(...chosen) : "";
      draw();
    },
  };
}

// Shortens names to a width on a canvas. Those that would look the same begin with their number.
function distinct(context, names, width) {
  const cut = names.map((name) => shortened(context, name, width));
  const times = new Map();
  for (const name of cut) times.set(name, (times.get(name) ?? 0) + 1);
  return cut.map((name, place) => (times.get(name) > 1 ? shortened(context, `${place} ${names[place]}`, width) : name));
}

// Shortens a text to a width on a canvas.
function shortened(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  const letters = [...text];
  let fits = 0, not = letters.length;
  while (not - fits > 1) {
    const half = (fits + not) >> 1;
    if (context.measureText(letters.slice(0, half).join("") + "…").width <= width) fits = half;
    else not = half;
  }
  return letters.slice(0, fits).join("") + "…";
}
