// BlazePose's landmark network: what goes into it, and joints out of what comes from it.
import { crop, squareOf, toPicture, turn } from "./crops.js";

export const SIZE = 256; // pixels of the network's input
const JOINTS = 33;
const POINTS = 39; // the joints, two points for the next frame's square, and four that are not used
const HEATMAP = 64; // places along a side of the heat maps
const REACH = 3; // places of a heat map on each side of a joint
const LEAST_HEAT = 0.5; // for a joint to be refined

export const input = (picture, square) => crop(picture, square, SIZE, 1 / 255, 0);

// The person in what the network gives for a square: {presence, joints [33][x, y] in pixels of the picture,
// confidence [33], world [33][x, y, z] in meters from the middle of the hips, square for the next frame}.
export function decode({ points, presence, heatmaps, world }, square) {
  const places = Array.from({ length: POINTS }, (_, point) =>
    refine(points[5 * point] / SIZE, points[5 * point + 1] / SIZE, heatmaps, point));
  const pixels = places.map((place) => toPicture(place, square));
  const numbers = [...Array(JOINTS).keys()];
  return {
    presence: presence[0],
    joints: pixels.slice(0, JOINTS),
    confidence: numbers.map((joint) => sigmoid(points[5 * joint + 3])),
    world: numbers.map((joint) => {
      const [x, y, z] = world.subarray(3 * joint, 3 * joint + 3);
      return [...turn([x, y], square.angle), z];
    }),
    square: squareOf(pixels[JOINTS], pixels[JOINTS + 1]),
  };
}

// Moves a point, in shares of the side, to the center of heat around it, where there is enough of it.
function refine(x, y, heatmaps, point) {
  const column = Math.trunc(x * HEATMAP), row = Math.trunc(y * HEATMAP);
  if (column < 0 || row < 0 || column >= HEATMAP || row >= HEATMAP) return [x, y];
  let most = 0, total = 0, across = 0, down = 0;
  for (let v = Math.max(0, row - REACH); v <= Math.min(HEATMAP - 1, row + REACH); v++) {
    for (let u = Math.max(0, column - REACH); u <= Math.min(HEATMAP - 1, column + REACH); u++) {
      const heat = sigmoid(heatmaps[(v * HEATMAP + u) * POINTS + point]);
      most = Math.max(most, heat);
      total += heat;
      across += heat * u;
      down += heat * v;
    }
  }
  return most < LEAST_HEAT ? [x, y] : [across / total / HEATMAP, down / total / HEATMAP];
}

const sigmoid = (logit) => 1 / (1 + Math.exp(-logit));
