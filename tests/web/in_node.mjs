// Runs the modules of an exported page in Node.js: node in_node.mjs PAGE PACKAGES < INPUT.json > OUTPUT.json
import { readFile } from "node:fs/promises";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [page, packages] = process.argv.slice(2);
const module = (name) => import(pathToFileURL(path.join(page, name)));
const [{ toClip }, crops, detector, landmarks, { Recognizer }] = await Promise.all(
  ["clips.js", "crops.js", "detector.js", "landmarks.js", "recognizer.js"].map(module));
const ort = await import(pathToFileURL(path.join(packages, "onnxruntime-web/dist/ort.node.min.mjs")));
const text = await new Promise((resolve) => {
  let read = "";
  process.stdin.on("data", (part) => (read += part)).on("end", () => resolve(read));
});
const given = JSON.parse(text);
const floats = (numbers) => Float32Array.from(numbers);

const picture = { ...given.picture, data: Uint8Array.from(Buffer.from(given.picture.data, "base64")) };
const cropped = given.squares.map((square) => Array.from(crops.crop(picture, square, 64, 1, 0)));
const { boxes, logits, region } = given.detector;
const detections = detector.decode(floats(boxes), floats(logits), region);
const { square, ...outputs } = given.landmarks;
for (const name of Object.keys(outputs)) outputs[name] = floats(outputs[name]);
const seen = landmarks.decode(outputs, square);

ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(await readFile(path.join(page, "model.onnx")));
const poses = JSON.parse(await readFile(path.join(page, "poses.json"), "utf8"));
async function classify({ data, shape }) {
  const skeleton = new ort.Tensor("float32", data, shape);
  const frames = new ort.Tensor("int32", Int32Array.of(shape[1]), [1]);
  return Array.from((await session.run({ skeleton, frames })).probabilities.data);
}
const recognizer = new Recognizer(classify, poses, 1), events = [];
for (const { number, person } of given.frames) events.push(...await recognizer.add(number, person, given.size));
events.push(...await recognizer.finish());
const persons = given.frames.map(({ person }) => person).filter(Boolean);
const clips = given.clips.map((described) => Array.from(toClip(persons, described, 1, given.size).data));
process.stdout.write(JSON.stringify({ cropped, detections, seen, events, clips }));
