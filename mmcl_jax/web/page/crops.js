// Turned square crops of a picture, and the way back from the crop to the picture.
// A square is {x, y, side, angle}: its center and side in pixels, and radians, clockwise as seen in the picture.

const MARGIN = 2; // pixels around a crop, for interpolation
const { abs, ceil, cos, floor, hypot, max, min, sin, trunc, PI } = Math;

// The square around a person, from the two points that BlazePose gives for it: the middle of the hips, and a point
// above it, on the circle around the person.
export function squareOf([x, y], [above, over], factor = 1.25) {
  const dx = above - x, dy = over - y;
  let angle = Math.atan2(dy, dx) + PI / 2;
  angle -= 2 * PI * floor((angle + PI) / (2 * PI));
  return { x, y, side: max(2 * hypot(dx, dy) * factor, 1), angle };
}

// The square of a picture (an ImageData), turned upright, as the network takes it: size * size * 3 numbers, each
// multiplied with `scale` and moved by `shift`. Outside of the picture it is black.
export function crop(picture, square, size, scale, shift) {
  const c = cos(square.angle), s = sin(square.angle);
  const reach = (square.side / 2) * (abs(c) + abs(s)) + MARGIN;
  const within = (value, most) => trunc(min(max(value, 0), most));
  const left = within(square.x - reach, picture.width), right = within(ceil(square.x + reach), picture.width);
  const top = within(square.y - reach, picture.height), bottom = within(ceil(square.y + reach), picture.height);
  const made = new Float32Array(size * size * 3).fill(shift);
  if (right <= left || bottom <= top) return made;
  // Means of blocks of pixels, where interpolation would skip pixels.
  const shrink = max(1, trunc(square.side / size));
  const part = reduce(picture, left, top, right, bottom, shrink);
  const step = square.side / size / shrink, half = size / 2;
  const x0 = (square.x - left) / shrink - half * step * (c - s);
  const y0 = (square.y - top) / shrink - half * step * (s + c);
  for (let v = 0, place = 0; v < size; v++) {
    for (let u = 0; u < size; u++, place += 3) {
      const x = x0 + step * (c * (u + 0.5) - s * (v + 0.5)), y = y0 + step * (s * (u + 0.5) + c * (v + 0.5));
      if (x < 0 || y < 0 || x >= part.width || y >= part.height) continue;
      interpolate(part, x - 0.5, y - 0.5, made, place);
      for (let color = 0; color < 3; color++) made[place + color] = made[place + color] * scale + shift;
    }
  }
  return made;
}

// A part of a picture with blocks of shrink * shrink pixels averaged: RGB.
function reduce({ data, width }, left, top, right, bottom, shrink) {
  const wide = ceil((right - left) / shrink), high = ceil((bottom - top) / shrink);
  const means = new Uint8Array(wide * high * 3);
  for (let row = 0, place = 0; row < high; row++) {
    const y0 = top + row * shrink, y1 = min(y0 + shrink, bottom);
    for (let column = 0; column < wide; column++, place += 3) {
      const x0 = left + column * shrink, x1 = min(x0 + shrink, right);
      let red = 0, green = 0, blue = 0;
      for (let y = y0; y < y1; y++) {
        for (let x = x0, at = 4 * (y * width + x0); x < x1; x++, at += 4) {
          red += data[at];
          green += data[at + 1];
          blue += data[at + 2];
        }
      }
      const count = (y1 - y0) * (x1 - x0);
      means[place] = floor(red / count + 0.5);
      means[place + 1] = floor(green / count + 0.5);
      means[place + 2] = floor(blue / count + 0.5);
    }
  }
  return { data: means, width: wide, height: high };
}

function interpolate({ data, width, height }, x, y, made, place) {
  const column = floor(x), row = floor(y), dx = x - column, dy = y - row;
  const x0 = 3 * max(column, 0), x1 = 3 * min(column + 1, width - 1);
  const y0 = 3 * width * max(row, 0), y1 = 3 * width * min(row + 1, height - 1);
  for (let color = 0; color < 3; color++) {
    const upper = data[y0 + x0 + color] * (1 - dx) + data[y0 + x1 + color] * dx;
    const lower = data[y1 + x0 + color] * (1 - dx) + data[y1 + x1 + color] * dx;
    made[place + color] = trunc(upper * (1 - dy) + lower * dy);
  }
}

// A point in shares of the crop's side as pixels of the picture.
export function toPicture([x, y], square) {
  const [dx, dy] = turn([(x - 0.5) * square.side, (y - 0.5) * square.side], square.angle);
  return [square.x + dx, square.y + dy];
}

// A point turned about the origin, clockwise as seen in the picture.
export function turn([x, y], angle) {
  return [x * cos(angle) - y * sin(angle), x * sin(angle) + y * cos(angle)];
}

// Intersection over union of two squares, as if they were upright.
export function overlap(one, other) {
  const reach = (one.side + other.side) / 2, smaller = min(one.side, other.side);
  const wide = min(reach - abs(one.x - other.x), smaller), high = min(reach - abs(one.y - other.y), smaller);
  const shared = max(wide, 0) * max(high, 0);
  return shared / (one.side ** 2 + other.side ** 2 - shared);
}
