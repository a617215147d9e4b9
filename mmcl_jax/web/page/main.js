// The page: buttons, what is said, and the loop from a picture to an action.
import { Chart } from "./chart.js";
import { FILES, readDescription } from "./description.js";
import { Follower } from "./follower.js";
import { loadModel } from "./model.js";
import { keepForOffline } from "./offline.js";
import { once } from "./once.js";
import { Picture } from "./picture.js";
import { Recognizer } from "./recognizer.js";
import { close, countCameras, frameNumbers, openCamera, openFile, SourceError } from "./source.js";

const UNSEEN = 0.5; // seconds after which the page says that it sees nobody
const WITHIN = 2000; // milliseconds over which frames are counted
const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((each) => [each.id, each]));
const { action, before, below, camera, classes, during, file, hint } = element;
const { problem, share, speed, stage, stop, turn, video, whole } = element;

const picture = new Picture(element.picture);
const chart = new Chart(element.chart, element.top);
let facing = "user", running = null, loading = null;

// Changes a text only if it differs: a screen reader reads what changes.
function say(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

async function hasGpu() {
  const adapter = await navigator.gpu?.requestAdapter();
  return Boolean(adapter) && !adapter.info?.isFallbackAdapter; // a GPU that the CPU imitates is slower than the CPU
}

// What the export wrote, read when the page opens. The buttons do not wait for it.
const describe = once(async () => {
  const { model, poses } = await readDescription();
  chart.describe(model.class_names, model.threshold);
  classes.replaceChildren(...model.class_names.map(asItem));
  below.hidden = !(model.threshold > 0);
  return { model, poses };
});

function asItem(text) {
  return Object.assign(document.createElement("li"), { textContent: text });
}

// The networks and the model, loaded when they are first needed.
const load = once(async () => {
  const { model, poses } = await describe();
  const [gpu, { loadNetworks }] = await Promise.all([hasGpu(), import("./networks.js")]);
  const [networks, classifier] = await Promise.all([loadNetworks(gpu), loadModel(model, gpu)]);
  return { model, poses, networks, classifier };
});

// What a window of time shows: an action, or none that the model knows.
function tell({ probabilities }, model) {
  const label = probabilities.indexOf(Math.max(...probabilities));
  const known = probabilities[label] >= model.threshold;
  if (!known) return { name: "unknown action", percent: "" };
  return { name: model.class_names[label], percent: `${Math.round(100 * probabilities[label])} %` };
}

function show(events, model) {
  for (const event of events) {
    const { name, percent } = tell(event, model);
    if (event.whole) {
      say(whole, `${event.start.toFixed(1)} to ${event.end.toFixed(1)} s, all windows: ${name} ${percent}`);
      continue;
    }
    say(action, name);
    say(share, percent);
    chart.add(event);
  }
}

async function watch(signal) {
  loading = load();
  await Promise.race([loading, aborted(signal)]);
  if (signal.aborted) return say(action, "");
  const { model, poses, networks, classifier } = await loading;
  const follower = new Follower(networks, poses.frame_rate);
  const recognizer = new Recognizer(classifier.classify, poses, model.bodies);
  const moments = [];
  let unseenSince = 0;
  say(action, "Looking for a person");
  await video.play();
  for await (const number of frameNumbers(video, poses.frame_rate, signal)) {
    const pixels = picture.take(video);
    const person = await follower.person(number, pixels);
    if (signal.aborted) return;
    if (person) picture.draw(person, poses.bones);
    const events = await recognizer.add(number, person, pixels);
    if (person) unseenSince = number + 1;
    show(events, model);
    if (number - unseenSince >= UNSEEN * poses.frame_rate) sayNobody();
    else if (person && recognizer.progress < 1) sayWaiting(recognizer.progress, poses.window_seconds);
    moments.push(performance.now());
    while (moments[0] < moments.at(-1) - WITHIN) moments.shift();
    sayRate(moments, poses.frame_rate, networks, classifier);
  }
  if (!signal.aborted) show(await recognizer.finish(), model);
}

function aborted(signal) {
  return new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
}

function sayNobody() {
  say(action, "Nobody is seen");
  say(share, "Show the whole body.");
}

function sayWaiting(progress, windowSeconds) {
  say(action, "Somebody is seen");
  say(share, `First answer in ${Math.ceil((1 - progress) * windowSeconds)} s`);
}

function sayRate(moments, most, networks, classifier) {
  const seconds = (moments.at(-1) - moments[0]) / 1000;
  const rate = seconds > 0 ? Math.min((moments.length - 1) / seconds, most).toFixed(1) : "–";
  const [pose, own] = [networks, classifier].map((each) => (each.accelerator === "wasm" ? "WebAssembly" : "WebGPU"));
  const kind = pose === own ? pose : `pose: ${pose}, action: ${own}`;
  say(speed, `${rate} of ${most} frames per second, ${kind}`);
}

function explain(error) {
  const expected = error instanceof SourceError;
  say(problem, expected ? error.message : `This does not work here: ${error.message}`);
  problem.hidden = false;
  if (!expected) console.error(error);
}

// Opens a source, watches it until it ends or is stopped, and leaves the page ready for the next.
async function run(open, live) {
  while (running) await end(); // another call may have begun while this one waited
  const controller = new AbortController();
  problem.hidden = true;
  [action, share, whole, speed].forEach((place) => say(place, ""));
  chart.clear();
  const work = (async () => {
    try {
      await open();
      element.picture.classList.toggle("mirrored", live && facing === "user");
      picture.take(video);
      [before.hidden, hint.hidden, during.hidden, stage.hidden] = [true, true, false, false];
      turn.hidden = !live || (await countCameras()) < 2;
      stop.focus();
      say(action, "Loading the networks");
      await watch(controller.signal);
    } catch (error) {
      stage.hidden = true;
      explain(error);
    }
    close(video);
    const focused = during.contains(document.activeElement);
    [before.hidden, during.hidden] = [false, true];
    if (focused) camera.focus();
    running = null;
  })();
  running = { controller, work };
  await work;
}

async function end() {
  running?.controller.abort();
  await running?.work;
}

camera.addEventListener("click", () => run(() => openCamera(video, facing), true));
turn.addEventListener("click", () => {
  facing = facing === "user" ? "environment" : "user";
  run(() => openCamera(video, facing), true);
});
file.addEventListener("change", () => {
  const [chosen] = file.files;
  if (chosen) run(() => openFile(video, chosen), false);
  file.value = "";
});
file.addEventListener("focus", () => document.querySelector("label.button").classList.add("focused"));
file.addEventListener("blur", () => document.querySelector("label.button").classList.remove("focused"));
stop.addEventListener("click", end);
before.disabled = false; // index.html disables the buttons until now, when they are listened to

const described = describe();
described.catch((error) => {
  if (!running) explain(error); // else `run` explains it
});
const sayUnkept = (error) => console.info(`The page needs a network the next time, too: ${error.message}`);
keepForOffline(FILES, loaded).catch(sayUnkept);

async function loaded() {
  await described;
  await loading; // null unless somebody has pressed a button
}
