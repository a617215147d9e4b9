// A matrix on a canvas: zoomed by buttons, keys, wheel or two fingers, moved by dragging; a cell pointed at is told in words.
"use strict";

// value(row, column), size, shade(value) -> [strength 0 to 1, whether negative], tell(row, column) -> text.
function matrixGrid({ size, value, shade, tell, label, names = [] }) {
  const canvas = make("canvas", { class: "grid-view", tabindex: "0", role: "img", "aria-label": label });
  const said = make("p", { class: "grid-said small", "aria-live": "polite" }, "Point at a cell, tap it, or use the arrow keys.");
  let scale = 1, left = 0, top = 0, chosen = null, moved = false, spread = 0;
  const pointers = new Map();

  // Names stand beside rows that are high enough for them; the whole matrix fits beside the names.
  const named = () => names.length && (Math.min(canvas.clientWidth, canvas.clientHeight) * scale) / size >= 16;
  const margin = () => (named() ? Math.min(130, canvas.clientWidth * 0.3) : 0);
  const room = () => Math.min(canvas.clientWidth - margin(), canvas.clientHeight);
  const cell = () => (room() * scale) / size;
  function keep() {
    scale = Math.max(1, Math.min(scale, Math.max(1, size / 4)));
    left = Math.max(0, Math.min(left, room() * scale - canvas.clientWidth + margin()));
    top = Math.max(0, Math.min(top, room() * scale - canvas.clientHeight));
    canvas.classList.toggle("zoomed", scale > 1);
  }
  function draw() {
    const ratio = devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = canvas;
    if (!width) return;
    keep();
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const context = canvas.getContext("2d"), side = cell(), style = getComputedStyle(document.documentElement);
    const [positive, negative, ink, paper] = ["--train", "--test", "--ink", "--card"].map((name) => style.getPropertyValue(name));
    context.scale(ratio, ratio);
    const edge = margin();
    for (let row = Math.floor(top / side); row < Math.min(size, Math.ceil((top + height) / side)); row++)
      for (let column = Math.floor(left / side); column < Math.min(size, Math.ceil((left + width) / side)); column++) {
        const [strength, below] = shade(value(row, column), row, column);
        context.globalAlpha = 0.04 + 0.96 * Math.min(1, strength);
        context.fillStyle = strength ? (below ? negative : positive) : ink;
        context.fillRect(edge + column * side - left, row * side - top, Math.max(0.6, side - (side > 5 ? 1 : 0)), Math.max(0.6, side - (side > 5 ? 1 : 0)));
      }
    context.globalAlpha = 1;
    if (chosen) {
      context.strokeStyle = ink;
      context.lineWidth = 2;
      context.strokeRect(edge + chosen[1] * side - left, chosen[0] * side - top, side, side);
    }
    if (edge) {
      context.fillStyle = paper;
      context.fillRect(0, 0, edge, height);
      context.fillStyle = ink;
      context.font = "11px system-ui, sans-serif";
      context.textBaseline = "middle";
      for (let row = Math.floor(top / side); row < Math.min(size, Math.ceil((top + height) / side)); row++)
        context.fillText(names[row], 4, (row + 0.5) * side - top, edge - 8);
    }
  }
  function choose(row, column) {
    if (row < 0 || column < 0 || row >= size || column >= size) return;
    chosen = [row, column];
    said.textContent = tell(row, column);
    draw();
  }
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    const before = cell(), edge = margin(), column = (x - edge + left) / before, row = (y + top) / before;
    scale = Math.max(1, Math.min(scale * factor, Math.max(1, size / 4)));
    left = column * cell() - x + margin();
    top = row * cell() - y;
    draw();
  }
  const point = (x, y) => choose(Math.floor((y + top) / cell()), Math.floor((x - margin() + left) / cell()));
  canvas.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, at(event));
    moved = false;
    spread = 0;
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
      const [first, second] = [...pointers.values()], now = Math.hypot(first[0] - second[0], first[1] - second[1]);
      if (spread) zoom(now / spread, (first[0] + second[0]) / 2, (first[1] + second[1]) / 2);
      spread = now;
      moved = true;
      event.preventDefault();
    } else if (scale > 1) {
      moved ||= Math.hypot(x - before[0], y - before[1]) > 2;
      left -= x - before[0];
      top -= y - before[1];
      draw();
    }
  });
  const end = (event) => {
    if (pointers.delete(event.pointerId) && event.type === "pointerup" && !moved) point(...at(event));
    spread = 0;
  };
  for (const type of ["pointerup", "pointercancel", "pointerleave"]) canvas.addEventListener(type, end);
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== canvas) return; // else the page could not be scrolled past it
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 300), ...at(event));
  }, { passive: false });
  canvas.addEventListener("touchmove", (event) => { if (event.touches.length > 1) event.preventDefault(); }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (move) {
      choose((chosen?.[0] ?? 0) + move[0], (chosen?.[1] ?? 0) + move[1]);
      const side = cell(); // what is told stays in view
      left = Math.min(chosen[1] * side, Math.max(left, (chosen[1] + 1) * side - canvas.clientWidth + margin()));
      top = Math.min(chosen[0] * side, Math.max(top, (chosen[0] + 1) * side - canvas.clientHeight));
      draw();
    } else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "0") zoom(1e-9);
    else return;
    event.preventDefault();
  });
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  const button = (text, name, factor) => make("button", { type: "button", "aria-label": name, click: () => zoom(factor) }, text);
  return make("div", {}, make("div", { class: "toolbar grid-tools" }, button("+", "zoom in", 1.5), button("−", "zoom out", 1 / 1.5),
    button("Whole", "show the whole matrix", 1e-9)), canvas, said);
}
