// BlazePose's person detector: what goes into the network, and persons out of what comes from it.
import { crop, squareOf } from "./crops.js";

export const SIZE = 224; // pixels of the network's input
const STRIDES = [[8, 2], [16, 2], [32, 6]]; // pixels between anchors, and anchors at each place
const LEAST_SCORE = 0.2;
const SAME_PERSON = 0.3; // overlap of boxes of the same person
const NUMBERS = 12; // center and size of a box, and four points; the first two points give a person's square

// Centers of the 2254 anchors, in shares of the input's side.
const ANCHORS = STRIDES.flatMap(([stride, repeats]) => {
  const count = SIZE / stride;
  return Array.from({ length: count * count * repeats }, (_, place) => {
    const cell = Math.floor(place / repeats);
    return [((cell % count) + 0.5) / count, (Math.floor(cell / count) + 0.5) / count];
  });
});

export const input = (picture, region) => crop(picture, region, SIZE, 1 / 127.5, -1);

// Persons {score, square} in what the network gives for a region, the surest first: 2254 boxes and their logits.
export function decode(boxes, logits, region) {
  let left = [];
  ANCHORS.forEach((anchor, place) => {
    const score = 1 / (1 + Math.exp(-logits[place]));
    if (score >= LEAST_SCORE) left.push(boxAt(boxes.subarray(NUMBERS * place, NUMBERS * (place + 1)), anchor, score));
  });
  left.sort((one, other) => other.score - one.score);
  const found = [];
  while (left.length) {
    const group = left.filter((box, place) => place === 0 || overlap(left[0], box) > SAME_PERSON);
    const points = [0, 1].map((point) => [0, 1].map((axis) => mean(group, (box) => box.points[point][axis])));
    const [center, above] = points.map(([x, y]) =>
      [region.x + (x - 0.5) * region.side, region.y + (y - 0.5) * region.side]);
    found.push({ score: group[0].score, square: squareOf(center, above) });
    left = left.filter((box) => !group.includes(box));
  }
  return found;
}

function boxAt(numbers, [x, y], score) {
  const share = (place) => numbers[place] / SIZE;
  const center = [share(0) + x, share(1) + y], half = [share(2) / 2, share(3) / 2];
  return {
    score,
    low: [center[0] - half[0], center[1] - half[1]],
    high: [center[0] + half[0], center[1] + half[1]],
    points: [[share(4) + x, share(5) + y], [share(6) + x, share(7) + y]],
  };
}

function mean(group, value) {
  const total = group.reduce((sum, box) => sum + box.score, 0);
  return group.reduce((sum, box) => sum + box.score * value(box), 0) / total;
}

// Intersection over union of two boxes.
function overlap(one, other) {
  const side = (axis) =>
    Math.max(Math.min(one.high[axis], other.high[axis]) - Math.max(one.low[axis], other.low[axis]), 0);
  const area = (box) => Math.max(box.high[0] - box.low[0], 0) * Math.max(box.high[1] - box.low[1], 0);
  const shared = side(0) * side(1), union = area(one) + area(other) - shared;
  return union > 0 ? shared / union : 0;
}
