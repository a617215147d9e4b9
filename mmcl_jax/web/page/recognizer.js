// Cuts a person's poses into windows of time and asks the model about each.
import { fillIn, toClip } from "./clips.js";

const LEAST_SEEN = 0.5; // share of a window's frames in which the person must be seen
const LEAST_TIME = 0.5, LEAST_FRAMES = 5; // seconds, frames for which somebody must be seen to be classified at all
const PATIENCE = 2; // seconds after which somebody who is no longer seen is summed up

export class Recognizer {
  // `classify` takes a clip {data, shape} and returns probabilities; `poses` is poses.json.
  constructor(classify, poses, bodies) {
    Object.assign(this, { classify, poses, bodies, rate: poses.frame_rate, handled: [], person: null });
    this.window = Math.max(2, Math.round(poses.window_seconds * this.rate));
    this.stride = Math.max(1, Math.round((poses.window_seconds / 3) * this.rate));
  }

  // Takes the person, or null, of a frame in a picture of a size. Returns events {start, end, probabilities, whole}:
  // windows that are complete now, and the mean over all windows of somebody who left.
  async add(frame, person, size) {
    const events = [];
    this.handled = [...this.handled.filter((each) => each > frame - 2 * this.window), frame];
    if (this.person && this.isOver(frame, person)) events.push(...await this.finish());
    if (!person) return events;
    this.person ??= {
      number: person.number, begin: frame, nextEnd: frame + this.window - 1, count: 0, seen: new Map(), classified: -1,
      windows: [],
    };
    const followed = this.person;
    followed.seen.set(frame, person);
    Object.assign(followed, { last: frame, count: followed.count + 1, size });
    while (followed.last >= followed.nextEnd) {
      events.push(...await this.judge(followed.nextEnd - this.window + 1, followed.nextEnd));
      followed.nextEnd += this.stride;
    }
    return events;
  }

  // Whether the person left, or somebody else came.
  isOver(frame, person) {
    return person ? person.number !== this.person.number : frame - this.person.last > PATIENCE * this.rate;
  }

  // How much of the first window has been seen, 0 to 1.
  get progress() {
    return this.person ? Math.min(1, (this.person.last - this.person.begin + 1) / this.window) : 0;
  }

  // The last window and the mean over all; nothing for somebody who was hardly there.
  async finish() {
    const followed = this.person, events = [];
    if (!followed) return events;
    const seconds = (followed.last - followed.begin + 1) / this.rate, first = !followed.windows.length;
    const isSeenLong = followed.count >= LEAST_FRAMES && seconds >= LEAST_TIME;
    if (isSeenLong && (first || 2 * (followed.last - followed.classified) >= this.stride))
      events.push(...await this.judge(Math.max(followed.begin, followed.last - this.window + 1), followed.last, first));
    if (followed.windows.length) {
      const mean = followed.windows[0].map((_, label) =>
        followed.windows.reduce((sum, each) => sum + each[label], 0) / followed.windows.length);
      events.push(this.event(followed.begin, followed.last, mean, true));
    }
    this.person = null;
    return events;
  }

  // The event of one window; none if the person is hardly seen in it.
  async judge(begin, end, always = false) {
    const { seen, windows, size } = this.person, inside = (frame) => begin <= frame && frame <= end;
    const count = [...seen.keys()].filter(inside).length;
    const events = [];
    if (always || count >= LEAST_SEEN * this.handled.filter(inside).length) {
      const probabilities = await this.classify(toClip(fillIn(seen, begin, end), this.poses, this.bodies, size));
      windows.push(probabilities);
      this.person.classified = end;
      events.push(this.event(begin, end, probabilities, false));
    }
    for (const frame of [...seen.keys()]) if (frame <= end - this.window) seen.delete(frame);
    return events;
  }

  event(begin, end, probabilities, whole) {
    return { start: begin / this.rate, end: (end + 1) / this.rate, probabilities, whole };
  }
}
