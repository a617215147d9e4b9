// Finds one person and follows that person from frame to frame.
import { overlap } from "./crops.js";

const TRUNK = [11, 12, 23, 24]; // shoulders and hips
const LEAST_PRESENCE = 0.5, LEAST_PRESENCE_OF_NEW = 0.7;
const LEAST_VISIBLE = 0.5; // visibility of two joints of a newcomer's trunk
const LEAST_INSIDE = 0.25; // share of the joints that must be in the picture
const SMALLEST = 16; // pixels of the square's side
const BETWEEN_CHECKS = 0.34; // seconds between detections while the person is followed
const BETWEEN_DOUBTS = 2; // frames between detections while the person is doubtful
const BETWEEN_SCANS = 1; // seconds between detections in parts of a wide picture
const WIDE = 1.5; // longer side over shorter side from which parts are searched
const AROUND = 3; // side of the region around a lost person, in sides of the square
const SAME_PLACE = 0.4, SURELY_SAME = 0.75, AGREES = 0.5; // overlaps of squares
const SAME_MIDDLE = 0.15; // distance of middles, in sides, within which squares are around the same person
const TURNED = 0.8, UPSIDE_DOWN = 1.75; // radians
const SURE = 0.5; // score of a detection that is trusted more than what was followed
const CHECKS = 3; // failed checks after which another person is followed instead
const PATIENCE = 2; // seconds for which a lost person is remembered
const REACH = 0.6; // how far away a lost person may be found, in sizes; one size more for each second
const LARGEST_RATIO = 2; // of sizes
const STEADY = 0.3; // share of a new frame in the motion

export class Follower {
  // `networks` as `loadNetworks` returns them; `rate` in frames a second.
  constructor(networks, rate) {
    Object.assign(this, { networks, rate, seen: null, last: null, motion: [0, 0], number: 0, failed: 0 });
    this.betweenChecks = Math.max(1, Math.round(BETWEEN_CHECKS * rate));
    this.checked = this.scanned = -Infinity;
  }

  // The person in a picture (an ImageData), with a number that stays the same; null if nobody is seen.
  async person(frame, picture) {
    let seen = null;
    if (this.seen) {
      const { square } = this.seen, [dx, dy] = this.motion;
      seen = await this.networks.look(picture, { ...square, x: square.x + dx, y: square.y + dy });
      if (seen.presence < LEAST_PRESENCE || !isInside(seen, picture)) seen = null;
    }
    const since = frame - this.checked;
    const doubtful = seen && Math.abs(seen.square.angle) > UPSIDE_DOWN;
    if (!seen || since >= (doubtful ? BETWEEN_DOUBTS : this.betweenChecks))
      seen = await this.check(frame, picture, seen);
    if (seen) this.follow(frame, seen);
    this.seen = seen;
    return seen && { ...seen, number: this.number };
  }

  // Compares the person who is followed with what is detected: corrects a mistake, or finds somebody.
  async check(frame, picture, followed) {
    this.checked = frame;
    const detections = await this.detect(frame, picture, followed);
    if (followed && detections.some(({ square }) => agrees(square, followed.square))) {
      this.failed = 0;
      return followed;
    }
    this.failed += 1;
    for (const { score, square } of detections) {
      const near = followed && overlap(square, followed.square) > SAME_PLACE;
      if (followed && (score < SURE || (!near && this.failed < CHECKS))) continue;
      const seen = await this.networks.look(picture, square);
      if (isPerson(seen, picture)) return seen;
    }
    return followed;
  }

  // Persons in the whole picture, around the place where one was lost and, now and then, in parts of a wide picture.
  async detect(frame, picture, followed) {
    const { width, height } = picture, longer = Math.max(width, height), shorter = Math.min(width, height);
    const regions = [{ x: width / 2, y: height / 2, side: longer, angle: 0 }];
    if (!followed && longer >= WIDE * shorter && frame - this.scanned >= BETWEEN_SCANS * this.rate) {
      this.scanned = frame;
      const count = Math.max(2, Math.ceil((1.5 * longer) / shorter) - 1);
      for (let part = 0; part < count; part++) {
        const place = shorter / 2 + (part / (count - 1)) * (longer - shorter);
        const [x, y] = width > height ? [place, height / 2] : [width / 2, place];
        regions.push({ x, y, side: shorter, angle: 0 });
      }
    }
    if (!followed && this.last && frame - this.last.frame <= PATIENCE * this.rate) {
      const { x, y, side } = this.last.seen.square;
      if (AROUND * side < longer) regions.push({ x, y, side: AROUND * side, angle: 0 });
    }
    const found = [];
    for (const region of regions) found.push(...await this.networks.detect(picture, region));
    found.sort((one, other) => other.score - one.score);
    return found.filter(({ square }, place) =>
      square.side >= SMALLEST && !found.slice(0, place).some((other) => isSame(square, other.square)));
  }

  // Decides whether this is the person who was seen last, and learns the motion.
  follow(frame, seen) {
    const now = { frame, seen, ...bounds(seen.joints) };
    if (this.last && this.isSamePerson(now)) {
      const steps = Math.max(1, frame - this.last.frame);
      this.motion = this.motion.map((speed, axis) =>
        (1 - STEADY) * speed + (STEADY * (now.center[axis] - this.last.center[axis])) / steps);
    } else {
      if (this.last) this.number += 1;
      this.motion = [0, 0];
    }
    this.last = now;
  }

  isSamePerson({ frame, center, size }) {
    const seconds = (frame - this.last.frame) / this.rate;
    const away = Math.hypot(center[0] - this.last.center[0], center[1] - this.last.center[1]);
    const ratio = size / this.last.size;
    return seconds <= PATIENCE && away <= ((REACH + seconds) * (size + this.last.size)) / 2 &&
      ratio <= LARGEST_RATIO && ratio >= 1 / LARGEST_RATIO;
  }
}

// The middle of the joints and the diagonal of the box around them.
function bounds(joints) {
  const axes = [0, 1].map((axis) => joints.map((joint) => joint[axis]));
  const sides = axes.map((values) => Math.max(...values) - Math.min(...values));
  return {
    center: axes.map((values) => values.reduce((sum, value) => sum + value, 0) / values.length),
    size: Math.max(1, Math.hypot(...sides)),
  };
}

const within = ([x, y], { width, height }) => x >= 0 && y >= 0 && x < width && y < height;

function isInside({ joints, square }, picture) {
  const inside = joints.filter((joint) => within(joint, picture)).length / joints.length;
  return inside >= LEAST_INSIDE && square.side >= SMALLEST;
}

function isPerson(seen, picture) {
  const { joints, confidence } = seen;
  const visible = TRUNK.filter((joint) => confidence[joint] >= LEAST_VISIBLE && within(joints[joint], picture));
  return seen.presence >= LEAST_PRESENCE_OF_NEW && visible.length >= 2 && isInside(seen, picture);
}

function isSame(one, other) {
  const near = Math.hypot(one.x - other.x, one.y - other.y) < SAME_MIDDLE * Math.max(one.side, other.side);
  return near || overlap(one, other) > SURELY_SAME;
}

function agrees(detected, followed) {
  const turned = Math.abs(detected.angle - followed.angle) % (2 * Math.PI);
  return overlap(detected, followed) > AGREES && Math.min(turned, 2 * Math.PI - turned) < TURNED;
}
