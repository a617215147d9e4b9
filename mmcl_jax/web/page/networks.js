// BlazePose's two networks, run by LiteRT: with WebGPU where the browser has it, else with WebAssembly.
import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";
import * as detector from "./detector.js";
import * as landmarks from "./landmarks.js";
import { once } from "./once.js";

const FOLDER = "vendor/mediapipe/";
// Number of values of each output, by its name here.
const DETECTED = { boxes: 2254 * 12, logits: 2254 };
const SEEN = { points: 195, presence: 1, heatmaps: 64 * 64 * 39, world: 117 };

// Loads both networks: {detect(picture, region), look(picture, square), accelerator}.
export async function loadNetworks(gpu) {
  await loadRuntime();
  const detection = await compile("pose_detection.tflite", gpu);
  const landmark = await compile("pose_landmark_full.tflite", gpu);
  return {
    accelerator: landmark.options.accelerator,
    async detect(picture, region) {
      const { boxes, logits } = await run(detection, detector.input(picture, region), detector.SIZE, DETECTED);
      return detector.decode(boxes, logits, region);
    },
    async look(picture, square) {
      return landmarks.decode(await run(landmark, landmarks.input(picture, square), landmarks.SIZE, SEEN), square);
    },
  };
}

const loadRuntime = once(async () => {
  // LiteRT is compiled with Emscripten, which writes its notes as errors to the console; real errors are thrown.
  self.Module = { printErr: (line) => console.debug(line) };
  await loadLiteRt("vendor/litert/wasm/");
});

async function compile(file, gpu) {
  if (gpu) {
    try {
      const compiled = await loadAndCompile(FOLDER + file, { accelerator: "webgpu" });
      if (compiled.isFullyAccelerated) return compiled;
      compiled.delete();
    } catch (error) {
      console.info(`${file}: WebGPU does not run it (${error.message}); WebAssembly does`);
    }
  }
  return loadAndCompile(FOLDER + file, { accelerator: "wasm" });
}

// The outputs of a network for an image [1, size, size, 3]. LiteRT's memory is not collected: tensors are deleted.
async function run(network, image, size, outputs) {
  const tensor = new Tensor(image, [1, size, size, 3]);
  const given = await network.run(tensor);
  const values = await Promise.all(given.map((output) => output.data()));
  [tensor, ...given].forEach((each) => each.delete());
  return Object.fromEntries(Object.entries(outputs).map(([name, length]) =>
    [name, values.find((each) => each.length === length)]));
}
