// The exported model, run by ONNX Runtime: with WebGPU where the browser has it, else with WebAssembly.

const FOLDER = "./vendor/onnxruntime/";
const FILES = {
  wasm: ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"],
  webgpu: ["ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"],
};

// Loads the model: {classify(clip), accelerator}.
export async function loadModel(file, gpu) {
  if (gpu) {
    try {
      return await start(file, "webgpu");
    } catch (error) {
      console.info(`${file}: WebGPU does not run it (${error.message}); WebAssembly does`);
    }
  }
  return start(file, "wasm");
}

async function start(file, accelerator) {
  const [script, binary] = FILES[accelerator];
  const ort = await import(FOLDER + script);
  ort.env.wasm.wasmPaths = { wasm: new URL(FOLDER + binary, import.meta.url).href };
  ort.env.wasm.numThreads = 1; // more need headers that few static servers send
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(file, { executionProviders: [accelerator] });
  // A clip {data, shape: [1, T, M, V, C]} to the probabilities of the classes.
  async function classify({ data, shape }) {
    const skeleton = new ort.Tensor("float32", data, shape);
    const frames = new ort.Tensor("int32", Int32Array.of(shape[1]), [1]);
    const { probabilities } = await session.run({ skeleton, frames });
    return Array.from(probabilities.data);
  }
  return { classify, accelerator };
}
