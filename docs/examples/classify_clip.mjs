// Says what a clip shows, in Node.js: node classify_clip.mjs EXPORTED_FOLDER CLIP.json
//
// EXPORTED_FOLDER is what `python -m mmcl_jax.export MODEL EXPORTED_FOLDER --format=onnx` wrote. CLIP.json is an array
// of frames of bodies of joints of channels, [T][M][V][C], or without bodies, [T][V][C]; coordinates as in model.json.
// Get the runtime with `npm install onnxruntime-web`.
import { readFile } from "node:fs/promises";
import path from "node:path";
import * as ort from "onnxruntime-web";

const [folder, file] = process.argv.slice(2);
if (!file) {
  console.error("usage: node classify_clip.mjs EXPORTED_FOLDER CLIP.json");
  process.exit(2);
}
const model = JSON.parse(await readFile(path.join(folder, "model.json"), "utf8"));
const clip = JSON.parse(await readFile(file, "utf8"));

// float32 [1, T, M, V, C]; bodies that the clip lacks stay zero, which means absent.
function toSkeleton(clip, [, , bodies, joints, channels]) {
  const body = joints * channels, frame = bodies * body;
  const skeleton = new Float32Array(clip.length * frame);
  clip.forEach((given, time) => {
    const numbers = given.flat(Infinity);
    if (numbers.length === 0 || numbers.length > frame || numbers.length % body)
      throw new Error(`frame ${time}: ${numbers.length} numbers, expected ${joints} joints of ${channels} a body`);
    skeleton.set(numbers, time * frame);
  });
  return new ort.Tensor("float32", skeleton, [1, clip.length, bodies, joints, channels]);
}

ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(await readFile(path.join(folder, model.file)));
const skeleton = toSkeleton(clip, model.inputs[0].shape);
const frames = new ort.Tensor("int32", Int32Array.of(clip.length), [1]);
const { probabilities } = await session.run({ skeleton, frames });
const shares = [...probabilities.data], label = shares.indexOf(Math.max(...shares));
console.log(model.class_names[label], shares[label].toFixed(6));
