// The exported model, run by ONNX Runtime: with WebGPU where the browser has it, else with WebAssembly.

const FOLDER = "./vendor/onnxruntime/";
const FILES = {
  wasm: ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"],
  webgpu: ["ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"],
};

// Loads the model that `manifest`, its model.json, describes: {classify(clip), accelerator}.
export async function loadModel(manifest, gpu) {
  if (gpu) {
    try {
      return await start(manifest, "webgpu");
    } catch (error) {
      console.info(`${manifest.file}: WebGPU does not run it (${error.message}); WebAssembly does`);
    }
  }
  return start(manifest, "wasm");
}

async function start({ file, inputs, window }, accelerator) {
  const [script, binary] = FILES[accelerator];
  const ort = await import(FOLDER + script);
  ort.env.wasm.wasmPaths = { wasm: new URL(FOLDER + binary, import.meta.url).href };
  ort.env.wasm.numThreads = 1; // more need headers that few static servers send
  const session = await ort.InferenceSession.create(file, { executionProviders: [accelerator], logSeverityLevel: 3 });
  // A clip {data, shape: [1, T, M, V, C]} to the probabilities of the classes.
  async function classify({ data, shape }) {
    const skeleton = new ort.Tensor("float32", data, shape);
    const frames = new ort.Tensor("int32", Int32Array.of(shape[1]), [1]);
    const { probabilities } = await session.run({ skeleton, frames });
    return Array.from(probabilities.data);
  }
  // The first run is slow on a GPU, and shows whether it works at all.
  const shape = [1, window, ...inputs[0].shape.slice(2)];
  await classify({ data: new Float32Array(shape.reduce((product, size) => product * size)), shape });
  return { classify, accelerator };
}
