// Poses of one person as the clips that the model takes: its joints, channels and units.

// Frames `begin` to `end` of a person, from a Map of the frames in which the person is seen. Between two of these the
// joints move evenly; before the first and after the last they stand still.
export function fillIn(seen, begin, end) {
  const known = [...seen.keys()].filter((frame) => begin <= frame && frame <= end).sort((one, other) => one - other);
  const filled = [];
  for (let frame = begin, right = 0; frame <= end; frame++) {
    while (right < known.length - 1 && known[right] < frame) right++;
    const left = known[right] > frame && right > 0 ? right - 1 : right;
    const share = left === right ? 0 : (frame - known[left]) / (known[right] - known[left]);
    filled.push(blend(seen.get(known[left]), seen.get(known[right]), share));
  }
  return filled;
}

function blend(one, other, share) {
  const mix = (a, b) => a * (1 - share) + b * share;
  const points = (kind) => one[kind].map((point, joint) =>
    point.map((value, axis) => mix(value, other[kind][joint][axis])));
  return {
    joints: points("joints"),
    world: points("world"),
    confidence: one.confidence.map((value, joint) => mix(value, other.confidence[joint])),
  };
}

// The clip [T, M, V, C] of frames as `fillIn` returns them, in a picture of a size {width, height}. `poses` is
// poses.json: which joints of BlazePose make a joint of the model, and in which units.
export function toClip(frames, poses, bodies, { width, height }) {
  const { mapping, confidence, uses_world: usesWorld, turn, halves } = poses;
  const coordinates = usesWorld ? 3 : 2, channels = coordinates + (confidence ? 1 : 0), joints = mapping.length;
  const scale = usesWorld ? turn : halves ? [2 / width, 2 / height] : [1, 1];
  const shift = halves && !usesWorld ? -1 : 0;
  const clip = new Float32Array(frames.length * bodies * joints * channels); // bodies after the first are absent: 0
  frames.forEach((frame, time) => {
    const places = usesWorld ? frame.world : frame.joints;
    mapping.forEach((terms, joint) => {
      const at = (time * bodies * joints + joint) * channels;
      const size = terms.reduce((sum, [, weight]) => sum + Math.abs(weight), 0);
      for (const [from, weight] of terms) {
        for (let axis = 0; axis < coordinates; axis++)
          clip[at + axis] += weight * (places[from][axis] * scale[axis] + shift);
        if (confidence) clip[at + coordinates] += (Math.abs(weight) / size) * frame.confidence[from];
      }
    });
  });
  return { data: clip, shape: [1, frames.length, bodies, joints, channels] };
}
